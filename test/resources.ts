// What tests open, and its release whether the test passes or not: each of these registers the release in the moment
// in which it opens something. They know nothing of the project.

import type { ChildProcess } from 'node:child_process';
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import type { AddressInfo, ListenOptions, Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** Where a release is registered: the context `t` of a test, or `{ after }` of node:test for all tests of a file. */
export interface Scope {
  after(release: () => unknown): void;
}

/** No test waits for so long, on the slowest machine; it ends a hang. */
export const HANG_MS = 60_000;

const POLL_MS = 10;

/**
 * Has a TCP, TLS or HTTP server listen on a free port of 127.0.0.1, or where `options` say.
 * Afterwards the server and every connection to it is closed, also those that somebody else holds open.
 * @returns the port; 0 for a Unix socket.
 */
export async function listen(scope: Scope, server: Server, options: ListenOptions = {}): Promise<number> {
  const connections = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    connections.add(socket);
    socket.on('close', () => connections.delete(socket));
  });
  scope.after(async () => {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    for (const socket of connections) socket.destroy();
    await closed;
  });
  server.listen(options.path === undefined ? { port: 0, host: '127.0.0.1', ...options } : options);
  await once(server, 'listening');
  const address = server.address();
  return typeof address === 'string' ? 0 : (address as AddressInfo).port;
}

/** A UDP socket on a port of 127.0.0.1, free unless given, closed afterwards. */
export async function bindUdp(scope: Scope, port = 0): Promise<UdpSocket> {
  const socket = createSocket('udp4');
  let closed = false;
  socket.once('close', () => {
    closed = true;
  });
  scope.after(() => {
    if (!closed) socket.close();
  });
  socket.bind(port, '127.0.0.1');
  await once(socket, 'listening');
  return socket;
}

/** An empty folder, removed afterwards. */
export async function makeFolder(scope: Scope, name = 'test'): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `mta-sts-${name}-`));
  scope.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** The child is killed afterwards if it still runs, and its end is waited for. */
export function killAfter<C extends ChildProcess>(scope: Scope, child: C): C {
  const exited = new Promise((resolve) => {
    child.once('exit', resolve);
    child.once('error', resolve);
  });
  scope.after(() => {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
    child.kill('SIGKILL');
    return exited;
  });
  return child;
}

/**
 * Resolves with the first result of `condition` that is true. For states that come by themselves and announce it by no
 * event: a count, a file, a table's item.
 * @throws if it is still false after `timeoutMs`; `what` says what was waited for.
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  what: string,
  timeoutMs = HANG_MS,
): Promise<NonNullable<T>> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const result = await condition();
    if (result) return result;
    if (performance.now() > end) throw new Error(`after ${timeoutMs / 1_000} s, still not so: ${what}`);
    await delay(POLL_MS);
  }
}
