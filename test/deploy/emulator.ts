// ministack, a third-party emulator of AWS from PyPI: started on loopback with TLS and with its access control switched
// on, and ended together with every process that it started. This file must not know what is deployed into it.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { open, readFile, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { delimiter, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createAuthority } from '../../infra/local/internet/certificates.ts';
import { obtainVirtualEnvironment } from './virtual-environment.ts';

const PROGRAM = join(import.meta.dirname, 'emulator.py');
const REQUIREMENTS = join(import.meta.dirname, 'requirements.txt');

const START_MS = 60_000;

/** @returns the Python that runs it. */
export const obtainEmulator = () => obtainVirtualEnvironment('ministack', REQUIREMENTS);

export interface Certificate {
  /** The root that vouches for it, as PEM. */
  readonly ca: string;
  /** Paths of PEM files. */
  readonly certFile: string;
  readonly keyFile: string;
}

/** For a server at 127.0.0.1. */
export async function makeCertificate(folder: string): Promise<Certificate> {
  const authority = await createAuthority();
  const [certFile, keyFile] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  await writeFile(certFile, await authority.issue('address-only', '127.0.0.1'));
  await writeFile(keyFile, authority.key, { mode: 0o600 });
  return { ca: authority.ca, certFile, keyFile };
}

export interface EmulatorOptions {
  readonly python: string;
  /** Exists; gets everything that it writes. */
  readonly folder: string;
  /** This process trusts its root. */
  readonly certificate: Certificate;
  /** Of the one whom it takes for the account's root. */
  readonly root: { readonly accessKeyId: string; readonly secretAccessKey: string };
  /** What its functions inherit beside their own environment; `endpoint` is its own. */
  readonly functionEnvironment: (endpoint: string) => Record<string, string>;
}

export interface Emulator {
  /** https://127.0.0.1:<port> */
  readonly endpoint: string;
  /** The last lines that it, and the functions in it, wrote. */
  tail(): Promise<string>;
  close(): Promise<void>;
}

export async function startEmulator(options: EmulatorOptions): Promise<Emulator> {
  const { python, folder, certificate, root } = options;
  const port = await freePort();
  const endpoint = `https://127.0.0.1:${port}`;
  const logFile = join(folder, 'ministack.log');
  const log = await open(logFile, 'a');
  const child = spawn(python, [PROGRAM], {
    cwd: folder,
    // A group of its own, which its functions' processes belong to as well.
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
    // From nothing: no credentials, no proxies, no configuration of the caller's.
    env: {
      // This very Node first: it runs the functions.
      PATH: [dirname(process.execPath), process.env.PATH].join(delimiter),
      HOME: folder,
      TMPDIR: folder,
      GATEWAY_PORT: String(port),
      BIND_HOST: '127.0.0.1',
      MINISTACK_HOST: '127.0.0.1',
      USE_SSL: '1',
      MINISTACK_SSL_CERT: certificate.certFile,
      MINISTACK_SSL_KEY: certificate.keyFile,
      // Signatures are verified, and every call of every role and user is held against its policies.
      AUTH: 'true',
      AWS_ACCESS_KEY_ID: root.accessKeyId,
      AWS_SECRET_ACCESS_KEY: root.secretAccessKey,
      LAMBDA_EXECUTOR: 'local',
      S3_DATA_DIR: join(folder, 's3'),
      STATE_DIR: join(folder, 'state'),
      DOCKER_HOST: `unix://${join(folder, 'no-docker')}`,
      IOT_MTLS_ENABLED: '0',
      SFTP_ENABLED: '0',
      ...options.functionEnvironment(endpoint),
    },
  });
  const kill = () => killGroup(child);
  process.once('exit', kill);
  const emulator: Emulator = {
    endpoint,
    tail: async () => (await readFile(logFile, 'utf8')).split('\n').slice(-80).join('\n'),
    async close() {
      process.off('exit', kill);
      if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
        const exit = once(child, 'exit');
        kill();
        await exit;
      }
      await log.close();
    },
  };
  try {
    await ready(child, endpoint);
  } catch (cause) {
    const output = await emulator.tail();
    await emulator.close();
    throw new Error(`ministack did not start:\n${output}`, { cause });
  }
  return emulator;
}

async function ready(child: ChildProcess, endpoint: string): Promise<void> {
  let failure: Error | undefined;
  child.once('error', (error) => {
    failure = error;
  });
  child.once('exit', (code, signal) => {
    failure = new Error(`it ended with ${code ?? signal}`);
  });
  const deadline = Date.now() + START_MS;
  for (;;) {
    try {
      const response = await fetch(`${endpoint}/_ministack/ready`, { signal: AbortSignal.timeout(5_000) });
      if (response.ok) return;
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    if (failure !== undefined) throw failure;
    await delay(100);
  }
}

function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // There is nobody left.
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
