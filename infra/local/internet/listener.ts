import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** A TCP listener on loopback that knows its open connections, and closes with all of them at once. */
export interface Listener {
  readonly port: number;
  openSockets(): number;
  close(): Promise<void>;
}

/**
 * Calls `serve` with every connection and a signal that is aborted when the connection is gone.
 *
 * @param addresses of loopback. The port is the same on all of them.
 */
export async function listen(
  port: number,
  serve: (socket: Socket, gone: AbortSignal) => void,
  addresses: readonly string[] = ['127.0.0.1'],
): Promise<Listener> {
  const sockets = new Set<Socket>();
  const servers: Server[] = [];

  async function listenOn(address: string, port: number): Promise<number> {
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
    server.listen(port, address);
    await once(server, 'listening');
    servers.push(server);
    return (server.address() as AddressInfo).port;
  }

  async function close(): Promise<void> {
    const closed = servers.map((server) => once(server, 'close'));
    for (const server of servers) server.close();
    for (const socket of sockets) socket.destroy();
    await Promise.all(closed);
  }

  let taken = port;
  try {
    for (const address of addresses) taken = await listenOn(address, taken);
  } catch (error) {
    await close();
    throw error;
  }
  return { port: taken, openSockets: () => sockets.size, close };
}

/** Waits; false if the signal cut the wait short. */
export async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  await delay(ms, undefined, { signal }).catch(() => {});
  return !signal.aborted;
}
