// The relay's daemon as it is shipped: one file, in a process of its own, with nothing but its environment; and the network
// between it and the table, which can be cut.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { bundleRelay } from '../../infra/relay/bundle.ts';
import { type Program, run, startProgram } from './program.ts';

const STATUS_ADDRESS = '127.0.0.1:8462';
const PORT = 8460;

export interface Daemon {
  /** Of the Unix socket where it answers, and of the port of 127.0.0.1. */
  readonly path: string;
  readonly port: number;
  start(): Promise<void>;
  /** The number of its process. */
  pid(): number | undefined;
  /** @returns its exit status. */
  stop(): Promise<number | null>;
  /** Runs another command of the same file. @returns what it says. */
  command(...args: string[]): Promise<string>;
  /** The end of its log. */
  log(): string;
}

/** @param variables of its settings and of AWS; nothing else of the environment reaches it. */
export async function createDaemon(
  folder: string,
  variables: Readonly<Record<string, string>>,
): Promise<Daemon> {
  const file = join(folder, 'mta-sts-relay.mjs');
  const warnings = await bundleRelay(file);
  if (warnings.length > 0) throw new Error(warnings.join('\n'));
  const path = join(folder, 'relay.socket');
  const env = {
    ...variables,
    RELAY_LISTEN: `unix:${path},inet:127.0.0.1:${PORT}`,
    RELAY_STATE_DIRECTORY: folder,
    RELAY_METRICS: STATUS_ADDRESS,
  };
  let program: Program | undefined;
  return {
    path,
    port: PORT,
    async start() {
      program = await startProgram({
        file: process.execPath,
        args: [file],
        env,
        ready: async () => (await fetch(`http://${STATUS_ADDRESS}/ready`)).ok,
      });
    },
    pid: () => program?.process.pid,
    stop: async () => (await program?.stop()) ?? null,
    command: (...args) => run(process.execPath, [file, ...args], { env }),
    log: () => program?.output() ?? '',
  };
}

export interface Wire {
  readonly endpoint: string;
  /** Ends all connections and refuses new ones, until it is mended. */
  cut(): Promise<void>;
  mend(): Promise<void>;
}

/** A way to a service on loopback. */
export async function createWire(endpoint: string): Promise<Wire> {
  const target = Number(new URL(endpoint).port);
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(target, '127.0.0.1');
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  const listen = async (port: number) => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  };
  const port = await listen(0);
  return {
    endpoint: `http://127.0.0.1:${port}`,
    async cut() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
    mend: async () => void (await listen(port)),
  };
}
