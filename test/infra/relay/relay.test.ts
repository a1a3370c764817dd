// The relay as a whole, on the embedded stack: what Postfix is told over its socket, from first contact to the outage of the
// table, with real DNS, real HTTPS and the real functions on the other side of the table and the queue.

import assert from 'node:assert/strict';
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { createDynamoStore } from '../../../functions/store/dynamo.ts';
import { localClientConfig } from '../../../infra/local/environment.ts';
import { behaviours, startInternet } from '../../../infra/local/internet/internet.ts';
import { seed } from '../../../infra/local/seed.ts';
import { startStack } from '../../../infra/local/stack.ts';
import { systemClock } from '../../../infra/relay/clock.ts';
import { parseServer } from '../../../infra/relay/dns.ts';
import {
  checkSurroundings,
  explainKey,
  type Surroundings,
  startRelay,
  ValidatorError,
} from '../../../infra/relay/relay.ts';
import { readSettings } from '../../../infra/relay/settings.ts';
import { makeFolder, type Scope, until } from '../../resources.ts';
import { createRecorder } from './observer.ts';
import { eventually, openMap } from './postfix.ts';
import { type Entries, startValidator } from './validator.ts';

const folder = await makeFolder({ after }, 'relay');
const internet = await startInternet();
after(() => internet.close());
const stack = await startStack({
  functions: ['request'],
  caFile: internet.caFile,
  environment: {
    DNS_SERVERS: internet.dnsServer,
    POLICY_HOST_PORT: String(internet.policyHostPort),
    ALLOW_PRIVATE_ADDRESSES: '1',
  },
});
after(() => stack.close());

let started = 0;

/** What a relay gets that runs beside this stack; each has its own state unless it is told another's. */
function surroundings(variables: Record<string, string> = {}, change: Partial<Surroundings> = {}) {
  const recorder = createRecorder();
  const home = join(folder, `relay-${++started}`);
  const settings = readSettings(
    {
      RELAY_TABLE: stack.tableName,
      RELAY_REQUEST_QUEUE_URL: stack.queueUrls['request-queue'],
      RELAY_LISTEN: `unix:${home}.socket`,
      RELAY_STATE_DIRECTORY: home,
      RELAY_DANE: 'off',
      RELAY_DNS_SERVERS: internet.dnsServer,
      RELAY_METRICS: 'off',
      AWS_REGION: 'us-east-1',
      ...variables,
    },
    process.pid,
  );
  const given: Surroundings = {
    settings,
    dynamodb: stack.dynamodb,
    sqs: stack.sqs,
    metrics: recorder.metrics,
    clock: systemClock,
    random: Math.random,
    ...change,
  };
  return { ...recorder, given };
}

function startUntilEnd(scope: Scope, given: Surroundings) {
  const starting = startRelay(given);
  // Before it has started: whoever expects it not to start may not wait for it.
  scope.after(async () => (await starting.catch(() => undefined))?.close());
  return starting;
}

/** A relay, and Postfix's connection to it; both end with the scope, if not before. */
async function start(scope: Scope, ...args: Parameters<typeof surroundings>) {
  const { given, ...recorder } = surroundings(...args);
  const relay = await startUntilEnd(scope, given);
  const [address = ''] = relay.addresses;
  const map = await openMap(scope, address);
  return { ...recorder, given, relay, address, ask: map.ask };
}

/** As if AWS were gone: nobody listens on port 1. */
const GONE = new DynamoDBClient({ ...localClientConfig('http://127.0.0.1:1'), maxAttempts: 1 });
after(() => GONE.destroy());

const secure = (domain: string) => `OK secure match=mail.${domain} servername=hostname`;
const tlsrpt = (domain: string) =>
  `${secure(domain)} policy_type=sts policy_domain=${domain} { policy_string = version: STSv1 } ` +
  `{ policy_string = mode: enforce } { policy_string = mx: mail.${domain} } { policy_string = max_age: 604800 } ` +
  `mx_host_pattern=mail.${domain}`;

internet.set('enforce.test', 'healthy');
internet.set('testing.test', behaviours.healthy('testing.test', { mode: 'testing' }));
internet.set('none.test', behaviours.healthy('none.test', { mode: 'none', mx: [] }));
internet.set('back-off.test', 'server-error');
internet.set('keywords.test', behaviours.healthy('keywords.test', { mx: ['nexthop', 'hostname'] }));
internet.set(
  'wildcard.test',
  behaviours.healthy('wildcard.test', { mx: ['*.wildcard.test', 'mx.example.test'] }),
);
internet.set('silent-dns.test', { record: { silent: true } });
internet.set('broken-dns.test', { record: { rcode: 'SERVFAIL' } });
internet.set('new.test', 'healthy');

const firstContacts: [name: string, key: string, plain: string, tlsrpt?: string][] = [
  ['enforce', 'enforce.test', secure('enforce.test'), tlsrpt('enforce.test')],
  [
    'enforce, from memory and in another spelling',
    'Enforce.TEST.',
    secure('enforce.test'),
    tlsrpt('enforce.test'),
  ],
  ['a smart host', '[enforce.test]:587', secure('enforce.test'), tlsrpt('enforce.test')],
  ['testing', 'testing.test', 'NOTFOUND '],
  ['none', 'none.test', 'NOTFOUND '],
  ['a record, and no policy to be had', 'back-off.test', 'NOTFOUND '],
  [
    'nothing but keywords of Postfix',
    'keywords.test',
    'TEMP keywords.test: no mx of its policy is a name that Postfix can match.',
  ],
  ['no MTA-STS', 'nothing.test', 'NOTFOUND '],
  ['a parent', '.enforce.test', 'NOTFOUND '],
  ['an address', '[192.0.2.1]', 'NOTFOUND '],
];

test('what Postfix is told of domains that nobody has looked at yet', async (t) => {
  const { ask, address } = await start(t);
  // DNS that does not say is first contact, too. That takes all of the time that Postfix is made to wait, and so it goes
  // on beside the others.
  const other = await openMap(t, address);
  const untold = eventually(() => other.ask('broken-dns.test'), 'NOTFOUND ');
  untold.catch(() => undefined);
  for (const [name, key, plain, withReports = plain] of firstContacts) {
    await eventually(() => ask(key), plain);
    assert.equal(await ask(key, 'mta-sts-tlsrpt'), withReports, name);
  }
  await eventually(
    () => ask('wildcard.test'),
    'OK secure match=.wildcard.test:mx.example.test servername=hostname',
  );
  await untold;
  assert.match(await ask('x', 'virtual'), /^PERM there is no map "virtual" here/);
});

test('with RELAY_FIRST_CONTACT=defer, mail waits while DNS does not say whether there is a record', async (t) => {
  const { ask, address } = await start(t, { RELAY_FIRST_CONTACT: 'defer' });
  const other = await openMap(t, address);
  // Side by side, since both take their time.
  const [broken, silent] = await Promise.all([ask('broken-dns.test'), other.ask('silent-dns.test')]);
  assert.match(broken, /^TEMP broken-dns\.test: whether it has MTA-STS cannot be told: /);
  assert.match(silent, /^TEMP silent-dns\.test: /);
});

test('while the table is down, what is known stays in force, also after a restart; what is not known waits', async (t) => {
  const first = await start(t);
  await eventually(() => first.ask('enforce.test'), secure('enforce.test'));
  await first.relay.close();
  const { stateDirectory } = first.given.settings;
  assert.ok((await stat(stateDirectory)).isDirectory());

  const second = await start(t, { RELAY_STATE_DIRECTORY: stateDirectory }, { dynamodb: GONE });
  for (let i = 0; i < 5; i++) {
    assert.equal(await second.ask('enforce.test'), secure('enforce.test'));
    await eventually(() => second.ask('nothing.test'), 'NOTFOUND ');
    assert.match(await second.ask('new.test'), /^TEMP new\.test: /);
    assert.match(await second.ask('broken-dns.test'), /^TEMP broken-dns\.test: /);
  }
  const outages = second.told.filter(({ message }) => message === 'table outage');
  assert.equal(outages.length, 1, 'said once');

  const lenient = await start(t, { RELAY_ON_UNKNOWN: 'none' }, { dynamodb: GONE });
  assert.equal(await lenient.ask('new.test'), 'NOTFOUND ');
});

test('the override map goes before everything, and is read again when told so', async (t) => {
  const file = join(folder, 'overrides');
  await writeFile(file, 'enforce.test off\n');
  const { ask, relay } = await start(t, { RELAY_OVERRIDES: file });
  assert.equal(await ask('enforce.test'), 'NOTFOUND ');
  await writeFile(file, 'enforce.test secure match=mx.elsewhere.test\nnothing.test defer\n');
  await relay.reload();
  assert.equal(await ask('enforce.test'), 'OK secure match=mx.elsewhere.test');
  assert.equal(await ask('nothing.test'), 'TEMP nothing.test: the override map says "defer".');
});

const MX = (domain: string): Entries => ({
  [`${domain} MX`]: { records: [`10 mail.${domain}`] },
  [`mail.${domain} A`]: { records: ['192.0.2.1'] },
});
const TLSA = { records: [`3 1 1 ${'ab'.repeat(32)}`] };

const SIGNED: Entries = {
  '. SOA': { records: ['signed'] },
  ...MX('dane.test'),
  '_25._tcp.mail.dane.test TLSA': TLSA,
  'some.test MX': { records: ['10 mail.some.test', '20 mail.enforce.test'] },
  'mail.some.test A': { records: ['192.0.2.1'] },
  'mail.enforce.test A': { records: ['192.0.2.2'] },
  '_25._tcp.mail.some.test TLSA': TLSA,
  'bogus.test MX': { rcode: 'SERVFAIL' },
  '_mta-sts.bogus.test TXT': { records: ['v=STSv1; id=id1;'] },
  'enforce.test MX': { records: ['10 mail.enforce.test'], signed: false },
  '_mta-sts.enforce.test TXT': { records: ['v=STSv1; id=id1;'], signed: false },
};

test('DANE goes before MTA-STS, and where it cannot be told, nothing does', async (t) => {
  const store = createDynamoStore({ client: stack.dynamodb, table: stack.tableName });
  const now = Date.now();
  for (const domain of ['dane.test', 'some.test', 'bogus.test']) {
    const policy = { mode: 'enforce', mx: [`mail.${domain}`], maxAgeSeconds: 604_800 } as const;
    await seed(store, { domain, policy, recordId: 'id1', inserted: now, lastUpdate: now });
  }
  const validator = await startValidator(t, SIGNED);
  const { address, port } = validator.server;
  const variables = { RELAY_DANE: 'on', RELAY_DNS_SERVERS: `${address}:${port}` };
  const { ask, given } = await start(t, variables);
  for (const map of ['mta-sts', 'mta-sts-tlsrpt']) {
    assert.equal(await ask('dane.test', map), 'OK dane-only');
    assert.equal(await ask('some.test', map), 'OK dane');
    assert.match(await ask('bogus.test', map), /^TEMP bogus\.test: whether it has DANE cannot be told: /);
  }
  assert.equal(await ask('enforce.test'), secure('enforce.test'));
  // No TLSA record is looked up for port 587, so none is found there: MTA-STS decides.
  assert.match(await ask('dane.test:587'), /^OK secure /);

  const lines = await explainKey('bogus.test', given);
  assert.ok(
    lines.some((line) => line.includes('SERVFAIL')),
    lines.join('\n'),
  );
  assert.ok(
    lines.some((line) => line.startsWith('  mta-sts         TEMP bogus.test: ')),
    lines.join('\n'),
  );
  assert.ok((await explainKey('dane.test', given)).includes('  mta-sts         OK dane-only'));
});

test('without a validator, a relay with DANE does not start', async (t) => {
  const validator = await startValidator(t, { '. SOA': { records: ['unsigned'], signed: false } });
  const { address, port } = validator.server;
  const { given } = surroundings({ RELAY_DANE: 'on', RELAY_DNS_SERVERS: `${address}:${port}` });
  await assert.rejects(startUntilEnd(t, given), (error) => {
    assert.ok(error instanceof ValidatorError);
    assert.match(error.message, /does not validate.* RELAY_DANE=off/s);
    return true;
  });
});

test('explaining leaves nothing behind on disk, and names the item', async () => {
  const { given } = surroundings();
  const lines = await explainKey('enforce.test', given);
  assert.ok(lines.includes(`  mta-sts         ${secure('enforce.test')}`), lines.join('\n'));
  assert.ok(lines.includes('  is not looked at, since RELAY_DANE is off'));
  await assert.rejects(stat(given.settings.stateDirectory), { code: 'ENOENT' });
});

test('a check says what can be used and what cannot', async () => {
  const file = join(folder, 'bad-overrides');
  await writeFile(file, 'enforce.test on\n');
  assert.deepEqual(await checkSurroundings(surroundings().given), [
    { ok: true, line: 'the table policies can be read' },
  ]);
  const findings = await checkSurroundings(surroundings({ RELAY_OVERRIDES: file }, { dynamodb: GONE }).given);
  assert.deepEqual(
    findings.map(({ ok }) => ok),
    [false, false],
  );
  assert.match(findings[0]?.line ?? '', /Line 1: "on" is no action/);
  assert.match(findings[1]?.line ?? '', /^the table policies cannot be read: .*ECONNREFUSED/);
});

test('it is ready while it answers', async (t) => {
  const { relay, ask } = await start(t, { RELAY_METRICS: '127.0.0.1:0' });
  const get = async (path: string) => (await fetch(`${relay.status}${path}`)).status;
  assert.equal(await get('/ready'), 200);
  assert.equal(await get('/metrics'), 200);
  await ask('enforce.test');
  await relay.close();
  await assert.rejects(get('/ready'));
});

test('what cannot start leaves nothing open', async (t) => {
  const server = parseServer(internet.dnsServer);
  assert.ok(server);
  const { given } = surroundings({
    RELAY_METRICS: '127.0.0.1:0',
    RELAY_LISTEN: `inet:${server.address}:${server.port}`,
  });
  const servers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'TCPServerWrap').length;
  const before = servers();
  // DNS over TCP is there already.
  await assert.rejects(startUntilEnd(t, given), { code: 'listen' });
  await until(() => servers() === before, 'its page of metrics is closed');
});
