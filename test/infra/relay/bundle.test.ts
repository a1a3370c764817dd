// What runs on relays is not the sources but one file made of them, in places without any node_modules: so that file is
// started here, and does everything that a relay does.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { createDynamoStore } from '../../../functions/store/dynamo.ts';
import { startInternet } from '../../../infra/local/internet/internet.ts';
import { seed } from '../../../infra/local/seed.ts';
import { startStack } from '../../../infra/local/stack.ts';
import { bundleRelay } from '../../../infra/relay/bundle.ts';
import { bindUdp, HANG_MS, killAfter, listen, makeFolder, type Scope } from '../../resources.ts';
import { eventually, openMap } from './postfix.ts';

const folder = await makeFolder({ after }, 'relay-bundle');
const file = join(folder, 'mta-sts-relay.mjs');
const warnings = await bundleRelay(file);

const internet = await startInternet();
after(() => internet.close());
internet.set('enforce.test', 'healthy');
// Nobody takes the requests: they stay in the queue, where they can be counted.
const stack = await startStack({ functions: [] });
after(() => stack.close());
const store = createDynamoStore({ client: stack.dynamodb, table: stack.tableName });
await seed(store, {
  domain: 'enforce.test',
  policy: { mode: 'enforce', mx: ['mail.enforce.test'], maxAgeSeconds: 604_800 },
  recordId: 'id1',
  inserted: Date.now(),
  lastUpdate: Date.now(),
});

const SECURE = 'OK secure match=mail.enforce.test servername=hostname';
const STATE = join(folder, 'state');
const SETTINGS: Readonly<Record<string, string>> = {
  ...stack.env,
  RELAY_TABLE: stack.tableName,
  RELAY_REQUEST_QUEUE_URL: stack.queueUrls['request-queue'],
  RELAY_LISTEN: 'inet:127.0.0.1:0',
  RELAY_STATE_DIRECTORY: STATE,
  RELAY_DANE: 'off',
  RELAY_DNS_SERVERS: internet.dnsServer,
  RELAY_METRICS: '127.0.0.1:0',
  RELAY_LOG_FORMAT: 'json',
};

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that ends by itself, or is killed with the scope. */
function run(
  scope: Scope,
  args: readonly string[],
  env: Readonly<Record<string, string>> = SETTINGS,
  input = '',
): Promise<Ended> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [file, ...args],
      { cwd: folder, env: { ...env }, timeout: HANG_MS, killSignal: 'SIGKILL' },
      (error, stdout, stderr) => resolve({ code: error ? Number(error.code) : 0, stdout, stderr }),
    );
    killAfter(scope, child).stdin?.end(input);
  });
}

type Line = Readonly<Record<string, unknown>>;

/** `serve`, and what it logs; killed with the scope, if it still runs. @param command instead of Node with the file. */
async function serve(
  scope: Scope,
  env: Readonly<Record<string, string>>,
  { command = [process.execPath, file], fd }: { command?: readonly string[]; fd?: number } = {},
) {
  const [program = '', ...args] = command;
  const child = spawn(program, args, {
    cwd: folder,
    env: { ...env },
    stdio: ['ignore', 'inherit', 'pipe', ...(fd === undefined ? [] : [fd])],
  });
  killAfter(scope, child);
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  const lines: Line[] = [];
  const waiting = new Set<() => void>();
  assert.ok(child.stderr);
  createInterface(child.stderr).on('line', (line) => {
    lines.push(line.startsWith('{') ? JSON.parse(line) : { message: line });
    for (const wake of waiting) wake();
  });
  const said = async (message: string, details: Line = {}): Promise<Line> => {
    for (;;) {
      const line = lines.find(
        (each) =>
          each.message === message && Object.entries(details).every(([name, value]) => each[name] === value),
      );
      if (line !== undefined) return line;
      const next = new Promise<void>((resolve) => waiting.add(resolve));
      const end = await Promise.race([next, exited]);
      assert.ok(end === undefined, `it ended: ${JSON.stringify(lines)}`);
    }
  };
  const answering = await said('answering');
  const [address = ''] = String(answering.addresses).split(' ');
  return {
    address,
    status: String(answering.status),
    lines,
    said,
    signal: (signal: NodeJS.Signals) => child.kill(signal),
    closeLog: () => child.stderr?.destroy(),
    stop(signal: NodeJS.Signals = 'SIGTERM') {
      child.kill(signal);
      return exited;
    },
  };
}

test('the bundler warns of nothing', () => {
  assert.deepEqual(warnings, []);
});

test('the file can be run, and says whose code is in it', async () => {
  const text = await readFile(file, 'utf8');
  assert.match(text, /^#!\/usr\/bin\/env node\n/);
  for (const notice of ['MIT License', 'Apache License', '@aws-sdk/client-dynamodb 3', 'dns-packet 5']) {
    assert.ok(text.includes(notice), notice);
  }
  await access(file, 1);
});

test('it tells its version and every setting', async (t) => {
  const { version } = JSON.parse(await readFile(join(import.meta.dirname, '../../../package.json'), 'utf8'));
  // No setting is needed for that.
  assert.deepEqual(await run(t, ['--version'], {}), {
    code: 0,
    stdout: `mta-sts-relay ${version}\n`,
    stderr: '',
  });
  const { code, stdout } = await run(t, ['--help'], {});
  assert.equal(code, 0);
  for (const name of ['RELAY_TABLE', 'RELAY_DANE', 'AWS_REGION', 'explain', 'warm'])
    assert.ok(stdout.includes(name), name);
});

test('a Node that is too old is told so', async (t) => {
  const older = "data:text/javascript,Object.defineProperty(process.versions,'node',{value:'20.19.0'})";
  const { code, stderr } = await run(t, ['--version'], { NODE_OPTIONS: `--import "${older}"` });
  assert.equal(code, 78);
  assert.match(stderr, /^mta-sts-relay needs Node\.js 22 or newer, and this is v\d/);
});

const mistakes: [args: string[], env: Record<string, string>, code: number, stderr: RegExp][] = [
  [['start'], SETTINGS, 2, /^There is no command "start"\nTry: mta-sts-relay --help\n$/],
  [['serve', 'now'], SETTINGS, 2, /^"serve" takes no argument\n/],
  [['--port', '1'], SETTINGS, 2, /^Unknown option '--port'/],
  [['explain'], SETTINGS, 2, /^"explain" takes one domain or next hop\n/],
  [['warm', 'a', 'b'], SETTINGS, 2, /^"warm" takes one file\n/],
  [['warm', 'a', '--rate', '0'], SETTINGS, 2, /^--rate is "0": it should be a number from 1 on\n/],
  [['check', '--look'], SETTINGS, 2, /^"check" has no option --look\n/],
  [[], {}, 78, /^mta-sts-relay: RELAY_TABLE is missing: .*; RELAY_REQUEST_QUEUE_URL is missing: /],
  [
    [],
    { ...SETTINGS, RELAY_OVERRIDES: '/nowhere' },
    1,
    /^mta-sts-relay: RELAY_OVERRIDES: \/nowhere cannot be used\. ENOENT/,
  ],
  [
    [],
    { ...SETTINGS, RELAY_LISTEN: 'unix:/nowhere/socket' },
    1,
    /^mta-sts-relay: Cannot listen on unix:\/nowhere\/socket: /,
  ],
  [
    [],
    { ...SETTINGS, RELAY_DANE: 'on', RELAY_DNS_SERVERS: '127.0.0.1:1' },
    1,
    /^mta-sts-relay: .* RELAY_DANE=off\.\n$/,
  ],
  [['warm', '/nowhere'], SETTINGS, 1, /ENOENT.*\/nowhere/],
];

for (const [args, env, code, stderr] of mistakes) {
  test(`a mistake ends with ${code} and says what to do: ${args.join(' ')} ${stderr.source.slice(0, 40)}`, async (t) => {
    const ended = await run(t, args, env);
    assert.match(ended.stderr, stderr);
    assert.equal(ended.code, code);
  });
}

test('it answers Postfix, reads its override map again, and stops in order', async (t) => {
  const overrides = join(folder, 'overrides');
  await writeFile(overrides, 'other.test defer\n');
  const relay = await serve(t, { ...SETTINGS, RELAY_OVERRIDES: overrides });
  const map = await openMap(t, relay.address);
  await eventually(() => map.ask('enforce.test'), SECURE);
  assert.match(await map.ask('enforce.test', 'mta-sts-tlsrpt'), /^OK secure .* policy_type=sts /);
  await eventually(() => map.ask('nothing.test'), 'NOTFOUND ');
  await writeFile(overrides, 'other.test off\nenforce.test defer\n');
  relay.signal('SIGHUP');
  await relay.said('override map read', { entries: 2 });
  assert.match(await map.ask('enforce.test'), /^TEMP enforce\.test: the override map says "defer"\.$/);

  const ready = await fetch(`${relay.status}/ready`);
  assert.equal(ready.status, 200);
  const metrics = await (await fetch(`${relay.status}/metrics`)).text();
  assert.match(metrics, /^mta_sts_relay_lookups_total\{map="mta-sts",answer="secure"\} 1$/m);
  assert.match(
    metrics,
    new RegExp(`^mta_sts_relay_info\\{version="[\\d.]+",node="${process.version}"\\} 1$`, 'm'),
  );

  assert.equal(await relay.stop(), 0);
  assert.ok(relay.lines.some(({ message, signal }) => message === 'stopped' && signal === 'SIGTERM'));
  assert.deepEqual(
    relay.lines.filter(({ level }) => level !== 'info'),
    [],
  );
});

test('started while AWS cannot be reached, it answers from what it has on disk', async (t) => {
  const gone = 'http://127.0.0.1:1';
  const relay = await serve(t, { ...SETTINGS, AWS_ENDPOINT_URL_DYNAMODB: gone, AWS_ENDPOINT_URL_SQS: gone });
  const map = await openMap(t, relay.address);
  assert.equal(await map.ask('enforce.test'), SECURE);
  await eventually(() => map.ask('nothing.test'), 'NOTFOUND ');
  assert.equal(await relay.stop('SIGINT'), 0);
});

test('it goes on when nobody reads its log any more', async (t) => {
  const relay = await serve(t, SETTINGS);
  relay.closeLog();
  const map = await openMap(t, relay.address);
  assert.equal(await map.ask('enforce.test'), SECURE);
  // It still says that it stops.
  assert.equal(await relay.stop(), 0);
});

test('without credentials it answers, too, and says so', async (t) => {
  const { AWS_ACCESS_KEY_ID: _, AWS_SECRET_ACCESS_KEY: __, ...without } = SETTINGS;
  const relay = await serve(t, without);
  const map = await openMap(t, relay.address);
  for (let i = 0; i < 4; i++) assert.equal(await map.ask('enforce.test'), SECURE);
  const outage = await relay.said(
    'the table cannot be read: policies known here stay in force, other domains follow RELAY_ON_UNKNOWN',
  );
  assert.match(String(outage.reason), /credentials/i);
  assert.equal(await relay.stop(), 0);
});

test('it takes over a socket that systemd listens on', async (t) => {
  const listening = createServer();
  const port = await listen(t, listening);
  // What systemd would pass on is the descriptor; Node has no name for it.
  const { fd } = (listening as unknown as { _handle: { fd: number } })._handle;
  const { RELAY_LISTEN: _, ...rest } = SETTINGS;
  const relay = await serve(
    t,
    { ...rest, LISTEN_FDS: '1' },
    { fd, command: ['/bin/sh', '-c', 'LISTEN_PID=$$ exec "$0" "$@"', process.execPath, file] },
  );
  // From now on only the relay accepts.
  listening.close();
  assert.equal(relay.address, `inet:127.0.0.1:${port}`);
  const map = await openMap(t, relay.address);
  assert.equal(await map.ask('enforce.test'), SECURE);
  assert.equal(await relay.stop(), 0);
});

test('explain, check and warm', async (t) => {
  const explained = await run(t, ['explain', 'enforce.test']);
  assert.equal(explained.code, 0, explained.stderr);
  assert.ok(explained.stdout.includes(`  mta-sts         ${SECURE}\n`), explained.stdout);

  assert.deepEqual(await run(t, ['check']), {
    code: 0,
    stdout: 'ok      the table policies can be read\n',
    stderr: '',
  });
  const denied = await run(t, ['check'], { ...SETTINGS, RELAY_TABLE: 'another' });
  assert.equal(denied.code, 1);
  assert.match(denied.stdout, /^FAILED {2}the table another cannot be read: ResourceNotFoundException/);

  const list = join(folder, 'list');
  await writeFile(list, 'a.test\nb.test # b\n\nA.test.\n');
  const warmed = await run(t, ['warm', list, '--rate', '1000']);
  assert.equal(warmed.code, 0, warmed.stderr);
  assert.match(warmed.stdout, /Sent 2 of 2\./);
  for (const path of [join(folder, 'no-list'), folder]) {
    const unread = await run(t, ['warm', path]);
    assert.equal(unread.code, 1);
    assert.match(unread.stderr, /^mta-sts-relay: The list \S+ cannot be read: [^\n]+\.\n$/);
  }
  const piped = await run(t, ['warm', '-', '--dry-run'], SETTINGS, 'c.test\nnot a domain\n');
  assert.equal(piped.code, 1);
  assert.match(piped.stderr, /^line 2: The domain "not a domain" has the character " "/);
});

test('warm can be interrupted while it waits for more of its list', async (t) => {
  const child = spawn(process.execPath, [file, 'warm', '-'], {
    env: { ...SETTINGS },
    stdio: 'pipe',
  });
  killAfter(t, child);
  const exited = once(child, 'exit');
  child.stdin.write('not a domain\n');
  // Now it has begun, and waits.
  await once(child.stderr, 'data');
  child.kill('SIGINT');
  assert.deepEqual(await exited, [130, null]);
});

test('it stops when told to, also while it still starts', async (t) => {
  const silent = await bindUdp(t);
  const asked = once(silent, 'message');
  const { port } = silent.address();
  const env = { ...SETTINGS, RELAY_DANE: 'on', RELAY_DNS_SERVERS: `127.0.0.1:${port}` };
  const child = killAfter(t, spawn(process.execPath, [file], { cwd: folder, env, stdio: 'ignore' }));
  const exited = once(child, 'exit');
  // It waits for an answer, which never comes.
  await asked;
  child.kill('SIGTERM');
  assert.deepEqual(await exited, [0, null]);
});
