#!/usr/bin/env node

// mta-sts-relay: what runs on a mail relay and answers Postfix's smtp_tls_policy_maps from the shared table. This file is the
// command line: it reads the environment, creates the AWS clients and decides about the process. relay.ts puts the parts
// together; how the functions keep the table fresh is nothing that anything here knows.

import { open as openFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { SQSClient } from '@aws-sdk/client-sqs';
import { CLIENT_OPTIONS } from '../../functions/runtime/clients.ts';
import { describeFault } from '../../functions/runtime/fault.ts';
import { systemClock } from './clock.ts';
import { createLog } from './log.ts';
import { createMetrics } from './metrics.ts';
import { OverridesError } from './overrides.ts';
import {
  checkSurroundings,
  explainKey,
  openTable,
  type Surroundings,
  startRelay,
  ValidatorError,
} from './relay.ts';
import { ListenError } from './server.ts';
import { describeSettings, readSettings, type Settings, SettingsError } from './settings.ts';
import { VERSION } from './version.ts';
import { DEFAULT_RATE, type WarmOptions, warm } from './warm.ts';

const HELP = `Usage: mta-sts-relay [serve]          answer Postfix, until SIGTERM; SIGHUP reads the override map again
       mta-sts-relay explain KEY      say why Postfix is told what it is told about a domain or next hop
       mta-sts-relay check            say whether table, resolver and override map can be used
       mta-sts-relay warm FILE        request the domains of a list, one a line (- reads standard input)
                       --rate N       so many a second (default ${DEFAULT_RATE})
                       --from LINE    go on where an earlier run has ended
                       --dry-run      only say what is wrong with the list, and how long it would take
                       --look         afterwards, look what has become of them
       mta-sts-relay --help | --version

Postfix:  smtp_tls_policy_maps = socketmap:unix:/run/mta-sts-relay/socket:mta-sts
          with Postfix 3.10.5 or newer: ...:mta-sts-tlsrpt, which also checks the names of MX hosts

Settings are environment variables. Credentials are found as the AWS SDK finds them.

${describeSettings()}

Exit status: 0  done, or stopped
             1  something failed
             2  the command line is wrong
            78  the settings are wrong
           130  interrupted (warm)
`;

const FAILED = 1;
const USAGE = 2;
/** EX_CONFIG of sysexits.h: starting again would not help. */
const CONFIGURATION = 78;

class UsageError extends Error {}

type Command =
  | { readonly name: 'help' | 'version' | 'serve' | 'check' }
  | { readonly name: 'explain'; readonly key: string }
  | ({ readonly name: 'warm'; readonly file: string; readonly look: boolean } & Pick<
      WarmOptions,
      'rate' | 'from' | 'dryRun'
    >);

function readCommandLine(args: string[]): Command {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(args);
  } catch (error) {
    throw new UsageError((error as Error).message.split('. ', 1)[0]);
  }
  const { values, positionals } = parsed;
  if (values.help) return { name: 'help' };
  if (values.version) return { name: 'version' };
  const [name = 'serve', argument, ...more] = positionals;
  const options = Object.keys(values).filter((option) => option !== 'help' && option !== 'version');
  if (name !== 'warm' && options.length > 0) throw new UsageError(`"${name}" has no option --${options[0]}`);
  switch (name) {
    case 'serve':
    case 'check':
      if (argument !== undefined) throw new UsageError(`"${name}" takes no argument`);
      return { name };
    case 'explain':
      if (argument === undefined || more.length > 0)
        throw new UsageError('"explain" takes one domain or next hop');
      return { name, key: argument };
    case 'warm':
      if (argument === undefined || more.length > 0) throw new UsageError('"warm" takes one file');
      return {
        name,
        file: argument,
        rate: positive('rate', values.rate) ?? DEFAULT_RATE,
        from: positive('from', values.from) ?? 1,
        dryRun: values['dry-run'] ?? false,
        look: values.look ?? false,
      };
    default:
      throw new UsageError(`There is no command "${name}"`);
  }
}

function positive(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw new UsageError(`--${option} is "${text}": it should be a number from 1 on`);
  return Number(text);
}

function parse(args: string[]) {
  return parseArgs({
    args,
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      version: { type: 'boolean', short: 'V' },
      rate: { type: 'string' },
      from: { type: 'string' },
      'dry-run': { type: 'boolean' },
      look: { type: 'boolean' },
    },
  });
}

/** A lookup waits for these: shorter than the functions' own, and tried once more. */
function createClients({ region }: Settings) {
  const { requestHandler } = CLIENT_OPTIONS;
  const options = { ...CLIENT_OPTIONS, region, maxAttempts: 2 };
  const dynamodb = new DynamoDBClient({
    ...options,
    requestHandler: { ...requestHandler, connectionTimeout: 500, requestTimeout: 1_000 },
  });
  // One set of credentials, fetched once.
  const sqs = new SQSClient({ ...options, credentials: dynamodb.config.credentials });
  return { dynamodb, sqs };
}

function open(settings: Settings, { quiet }: { quiet: boolean }) {
  const { now } = systemClock;
  const log = createLog({
    format: settings.logFormat,
    journal: process.env.JOURNAL_STREAM !== undefined,
    write: (line) => process.stderr.write(line),
    now,
  });
  const metrics = createMetrics({
    // What a command has to say is its output; what goes wrong beside it is said all the same.
    log: quiet ? { event: (level, ...what) => level !== 'info' && log.event(level, ...what) } : log,
    build: { version: VERSION, node: process.version },
    now,
  });
  const { dynamodb, sqs } = createClients(settings);
  const surroundings: Surroundings = {
    settings,
    dynamodb,
    sqs,
    metrics,
    clock: systemClock,
    random: Math.random,
  };
  const close = () => {
    dynamodb.destroy();
    sqs.destroy();
  };
  return { surroundings, metrics, credentials: () => dynamodb.config.credentials(), close };
}

async function serve(settings: Settings): Promise<void> {
  const { surroundings, metrics, credentials, close } = open(settings, { quiet: false });
  // Whatever was not foreseen: an end with a cause in the log, and a start with nothing of it, is better than to go on.
  process.on('uncaughtException', (error) => {
    metrics.event('error', 'unexpected error, stopping', { error: describeFault(error).stack });
    process.exit(FAILED);
  });
  const stopped = new Promise<NodeJS.Signals>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  // Unhandled, it would end the process; while that starts, the map is read anyway.
  let reload = async () => {};
  process.on('SIGHUP', () => void reload());
  const relay = await Promise.race([startRelay(surroundings), stopped.then(() => undefined)]);
  if (relay === undefined) {
    // Silent DNS servers can hold the start up. Nothing is under way that should be finished or written down.
    metrics.event('info', 'stopped while starting', { signal: await stopped });
    process.exit(0);
  }
  reload = relay.reload;
  metrics.event('info', 'answering', {
    version: VERSION,
    addresses: relay.addresses.join(' '),
    ...(relay.status && { status: relay.status }),
    table: settings.table,
    dane: settings.dane ? 'on' : 'off',
  });
  // The first lookup should not have to wait for credentials. If there are none, the first read says so.
  credentials().catch(() => undefined);

  const signal = await stopped;
  setTimeout(() => {
    metrics.event('error', 'not stopped in time, leaving what is under way');
    process.exit(FAILED);
  }, STOP_MS).unref();
  await relay.close();
  close();
  metrics.event('info', 'stopped', { signal });
}

/** systemd kills after 90 s; containers after 10. */
const STOP_MS = 9_500;

async function check(settings: Settings): Promise<boolean> {
  const { surroundings, close } = open(settings, { quiet: true });
  const findings = await checkSurroundings(surroundings);
  close();
  for (const { ok, line } of findings) console.log(`${ok ? 'ok     ' : 'FAILED '} ${line}`);
  return findings.every(({ ok }) => ok);
}

async function runWarm(settings: Settings, command: Command & { name: 'warm' }): Promise<number> {
  const interrupted = new AbortController();
  const lines = await openList(command.file, interrupted.signal);
  const { surroundings, close } = open(settings, { quiet: true });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());
  try {
    return await warm({
      client: surroundings.sqs,
      queueUrl: settings.requestQueueUrl,
      lines,
      rate: command.rate,
      from: command.from,
      dryRun: command.dryRun,
      table: command.look ? openTable(surroundings) : undefined,
      clock: systemClock,
      signal: interrupted.signal,
      say: (line) => console.log(clearLine() + line),
      complain: (line) => console.error(clearLine() + line),
      // In a file, a line every second would bury the rest.
      progress: (line) => process.stderr.isTTY && process.stderr.write(clearLine() + line),
    });
  } finally {
    process.stderr.write(clearLine());
    close();
  }
}

/** There is no list to read. */
class ListError extends Error {}

async function openList(path: string, signal: AbortSignal): Promise<AsyncIterable<string>> {
  // Who interrupts it while it still waits for more to be typed need not type the end as well.
  if (path === '-') return createInterface({ input: process.stdin, signal });
  try {
    const file = await openFile(path);
    if ((await file.stat()).isDirectory()) throw new Error('it is a directory');
    return file.readLines();
  } catch (error) {
    throw new ListError(`The list ${path} cannot be read: ${(error as Error).message}.`, { cause: error });
  }
}

/** Takes the line of progress away. */
function clearLine(): string {
  return process.stderr.isTTY ? '\r\u001B[K' : '';
}

async function run(command: Command): Promise<number> {
  switch (command.name) {
    case 'help':
      console.log(HELP);
      return 0;
    case 'version':
      console.log(`mta-sts-relay ${VERSION}`);
      return 0;
    default:
  }
  const settings = readSettings(process.env, process.pid);
  switch (command.name) {
    case 'serve':
      await serve(settings);
      return 0;
    case 'check':
      return (await check(settings)) ? 0 : FAILED;
    case 'explain': {
      const { surroundings, close } = open(settings, { quiet: true });
      const lines = await explainKey(command.key, surroundings);
      close();
      console.log(lines.join('\n'));
      return 0;
    }
    case 'warm':
      return runWarm(settings, command);
  }
}

// Nobody reads the log, or the rest of the output, any more: no reason to stop answering.
process.stderr.on('error', () => undefined);
process.stdout.on('error', () => undefined);

const EXPECTED = [SettingsError, OverridesError, ListenError, ValidatorError, ListError];

try {
  process.exitCode = await run(readCommandLine(process.argv.slice(2)));
} catch (error) {
  if (error instanceof UsageError) {
    console.error(`${error.message}\nTry: mta-sts-relay --help`);
    process.exitCode = USAGE;
  } else if (EXPECTED.some((kind) => error instanceof kind)) {
    console.error(`mta-sts-relay: ${(error as Error).message}`);
    process.exitCode = error instanceof SettingsError ? CONFIGURATION : FAILED;
  } else {
    console.error(error);
    process.exitCode = FAILED;
  }
}
