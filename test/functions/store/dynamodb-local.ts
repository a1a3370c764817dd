// Amazon's own DynamoDB Local: gets it from npm, and starts it. It needs Java, and 57 MB from the npm registry.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { DynamoDBClient, ListTablesCommand } from '@aws-sdk/client-dynamodb';
import { localClientConfig } from '../../../infra/local/environment.ts';

/** Carries DynamoDB Local 1.25.1. Only its archive is wanted, not the packages that it depends on. */
const PACKAGE = 'amplify-dynamodb-simulator';
const VERSION = '2.9.30';
const SHA512 = 'xTeeRLvzEfqyd5lh3bH4c0kHvSHHmmhD5ZDsHFKAQ5g2Zl6JqlFdutaQhCLHzxEp6Ry1o7TB6niIoXuQAnSewQ==';

const CACHE = join(import.meta.dirname, '../../../node_modules/.cache');
const JAR = 'DynamoDBLocal.jar';

const DOWNLOAD_MS = 180_000;
const START_MS = 30_000;

const run = promisify(execFile);

/** What the one who runs this can do something about; shown without a stack. */
export class Unavailable extends Error {}

async function checkJava(): Promise<void> {
  try {
    await run('java', ['-version'], { timeout: START_MS });
  } catch (cause) {
    throw new Unavailable('Java is missing: put `java` of a Java runtime 8 or newer into the PATH.', {
      cause,
    });
  }
}

/** @returns the directory of the jar, which is downloaded the first time. */
async function obtainDynamoDbLocal(): Promise<string> {
  const directory = join(CACHE, `${PACKAGE}-${VERSION}`);
  if (existsSync(join(directory, JAR))) return directory;
  const npm = process.env.npm_execpath;
  if (npm === undefined) throw new Unavailable('Run this with npm, as `npm run …`.');

  console.log(`downloading DynamoDB Local (npm package ${PACKAGE} ${VERSION}, 57 MB) to ${directory}`);
  await mkdir(CACHE, { recursive: true });
  const scratch = await mkdtemp(join(CACHE, `${PACKAGE}-download-`));
  try {
    const pack = [npm, 'pack', `${PACKAGE}@${VERSION}`, '--ignore-scripts', '--loglevel=error'];
    await run(process.execPath, pack, { cwd: scratch, timeout: DOWNLOAD_MS, killSignal: 'SIGKILL' });
    const archive = `${PACKAGE}-${VERSION}.tgz`;
    const digest = createHash('sha512').update(await readFile(join(scratch, archive)));
    if (digest.digest('base64') !== SHA512)
      throw new Error(`${archive} is not the archive that was expected`);
    await run('tar', ['-xzf', archive], { cwd: scratch, timeout: DOWNLOAD_MS });
    // At once or not at all: a directory that exists is complete.
    await rename(join(scratch, 'package', 'emulator'), directory);
  } catch (cause) {
    const details = cause instanceof Error ? cause.message : String(cause);
    throw new Unavailable(`The jar of DynamoDB Local is missing and could not be had: ${details}`, { cause });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  return directory;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function stop(java: ChildProcess): Promise<void> {
  if (java.exitCode !== null || java.signalCode !== null) return;
  const exit = once(java, 'exit');
  java.kill('SIGKILL');
  await exit;
}

export interface DynamoDbLocal {
  readonly endpoint: string;
  readonly client: DynamoDBClient;
  close(): Promise<void>;
}

/**
 * Where it is, downloaded the first time; or `Unavailable`. DynamoDB Local cannot be told to listen on loopback alone; it
 * holds what tests make up, in memory.
 */
export async function findDynamoDbLocal(): Promise<() => Promise<DynamoDbLocal>> {
  await checkJava();
  const directory = await obtainDynamoDbLocal();
  return () => start(directory);
}

async function start(directory: string): Promise<DynamoDbLocal> {
  const port = await freePort();
  const options = ['-inMemory', '-port', String(port), '-disableTelemetry', '-cors', 'http://127.0.0.1'];
  const java = spawn('java', ['-Djava.library.path=./DynamoDBLocal_lib', '-jar', JAR, ...options], {
    cwd: directory,
    // Nothing of the caller's AWS configuration.
    env: {
      PATH: process.env.PATH,
      JAVA_HOME: process.env.JAVA_HOME,
      SystemRoot: process.env.SystemRoot,
      AWS_EC2_METADATA_DISABLED: 'true',
      DDB_LOCAL_TELEMETRY: '0',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  process.once('exit', () => java.kill('SIGKILL'));
  let output = '';
  for (const stream of [java.stdout, java.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-4_000);
    });
  }

  const endpoint = `http://127.0.0.1:${port}`;
  const client = new DynamoDBClient({ ...localClientConfig(endpoint), maxAttempts: 1 });
  const deadline = Date.now() + START_MS;
  for (;;) {
    try {
      await client.send(new ListTablesCommand());
      break;
    } catch (error) {
      if (java.exitCode === null && Date.now() < deadline) {
        await delay(100);
        continue;
      }
      await stop(java);
      throw new Error(`DynamoDB Local did not start:\n${output}`, { cause: error });
    }
  }
  return {
    endpoint,
    client,
    async close() {
      client.destroy();
      await stop(java);
    },
  };
}
