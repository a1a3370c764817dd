// Postfix's side of a socketmap: one connection, one request at a time, as dict_sockmap.c does it.

import { connect, type Socket } from 'node:net';
import { decodeNetstring, encodeNetstring } from '../../../infra/relay/socketmap.ts';
import { type Scope, until } from '../../resources.ts';

/** socketmap_table(5). */
const MAX_REPLY_BYTES = 100_000;

export interface PostfixMap {
  /** The reply, whole; rejects when the connection ends without one. */
  ask(key: string, map?: string): Promise<string>;
  close(): void;
}

/**
 * Closed with the scope.
 * @param address as the relay names it: `unix:<path>` or `inet:<address>:<port>`.
 */
export async function openMap(scope: Scope, address: string): Promise<PostfixMap> {
  const socket = await dial(scope, address);
  let received = Buffer.alloc(0);
  let waiting: { resolve: (reply: string) => void; reject: (error: Error) => void } | undefined;
  socket.on('data', (chunk) => {
    received = Buffer.concat([received, chunk]);
    const reply = decodeNetstring(received, 0, MAX_REPLY_BYTES);
    if (reply.kind === 'malformed') waiting?.reject(new Error(reply.reason));
    if (reply.kind !== 'whole') return;
    received = received.subarray(reply.end);
    waiting?.resolve(reply.payload.toString());
  });
  socket.on('close', () => waiting?.reject(new Error('unexpected disconnect')));
  socket.on('error', (error) => waiting?.reject(error));
  return {
    ask: (key, map = 'mta-sts') =>
      new Promise((resolve, reject) => {
        waiting = { resolve, reject };
        socket.write(encodeNetstring(`${map} ${key}`));
      }),
    close: () => socket.destroy(),
  };
}

/**
 * Asks until that is the reply. On a busy machine the table, DNS or the functions may take longer than Postfix is made to
 * wait; then the next message finds the policy.
 */
export async function eventually(ask: () => Promise<string>, expected: string): Promise<void> {
  let said: string | undefined;
  const isSaid = async () => {
    said = await ask();
    return said === expected;
  };
  await until(isSaid, `the answer is "${expected}"`).catch((cause) => {
    throw new Error(`the last answer was ${JSON.stringify(said)}`, { cause });
  });
}

function dial(scope: Scope, address: string): Promise<Socket> {
  const [, host, port] = /^inet:\[?([^\]]+)\]?:(\d+)$/.exec(address) ?? [];
  const socket = host === undefined ? connect(address.replace(/^unix:/, '')) : connect(Number(port), host);
  scope.after(() => socket.destroy());
  return new Promise((resolve, reject) => {
    socket.once('connect', () => resolve(socket));
    socket.once('error', reject);
  });
}
