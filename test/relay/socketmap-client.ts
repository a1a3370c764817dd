// Asks a socketmap server what Postfix would ask it (socketmap_table(5)): one request at a time on a connection.

import { once } from 'node:events';
import { connect, type NetConnectOpts, type Socket } from 'node:net';

export interface SocketmapClient {
  /** Rejects if the server hangs up in place of an answer. */
  ask(map: string, key: string): Promise<string>;
  close(): void;
}

export async function connectSocketmap(where: NetConnectOpts): Promise<SocketmapClient> {
  const socket: Socket = connect(where);
  await once(socket, 'connect');
  socket.setNoDelay(true);
  let received = Buffer.alloc(0);
  let waiting: { resolve: (reply: string) => void; reject: (error: Error) => void } | undefined;
  socket.on('data', (chunk) => {
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
    const colon = received.indexOf(0x3a);
    if (colon < 0) return;
    const end = colon + 1 + Number(received.toString('latin1', 0, colon));
    // The netstring ends with a comma.
    if (received.length <= end) return;
    const reply = received.toString('latin1', colon + 1, end);
    received = received.subarray(end + 1);
    const { resolve } = waiting ?? {};
    waiting = undefined;
    resolve?.(reply);
  });
  socket.on('error', () => {});
  socket.on('close', () => waiting?.reject(new Error('the server hung up')));
  return {
    ask(map, key) {
      const payload = Buffer.from(`${map} ${key}`);
      return new Promise((resolve, reject) => {
        if (socket.destroyed) return reject(new Error('the server hung up'));
        waiting = { resolve, reject };
        socket.write(Buffer.concat([Buffer.from(`${payload.length}:`), payload, Buffer.from(',')]));
      });
    },
    close: () => void socket.destroy(),
  };
}
