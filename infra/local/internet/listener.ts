import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** A TCP listener on 127.0.0.1 that knows its open connections, and closes with all of them at once. */
export interface Listener {
  readonly port: number;
  openSockets(): number;
  close(): Promise<void>;
}

/** Calls `serve` with every connection and a signal that is aborted when the connection is gone. */
export async function listen(
  port: number,
  serve: (socket: Socket, gone: AbortSignal) => void,
): Promise<Listener> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    const gone = new AbortController();
    sockets.add(socket);
    socket.on('error', () => {}); // clients may leave as they like; 'close' follows
    socket.on('close', () => {
      sockets.delete(socket);
      gone.abort();
    });
    serve(socket, gone.signal);
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    openSockets: () => sockets.size,
    async close() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** Waits; false if the signal cut the wait short. */
export async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  await delay(ms, undefined, { signal }).catch(() => {});
  return !signal.aborted;
}
