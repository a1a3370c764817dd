// The relay's policies together with the functions: the real table, queue and `request` function on the embedded stack,
// with real DNS and HTTPS on loopback.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { createDynamoStore } from '../../../functions/store/dynamo.ts';
import { localClientConfig } from '../../../infra/local/environment.ts';
import { startInternet } from '../../../infra/local/internet/internet.ts';
import { seed } from '../../../infra/local/seed.ts';
import { startStack } from '../../../infra/local/stack.ts';
import { type Clock, systemClock } from '../../../infra/relay/clock.ts';
import { createDns, parseServer } from '../../../infra/relay/dns.ts';
import {
  type Found,
  openPolicies,
  type Policies,
  type PolicySettings,
} from '../../../infra/relay/policies.ts';
import { HANG_MS, makeFolder, type Scope } from '../../resources.ts';
import { DAY, domain, POLICY, recordingObserver } from './scene.ts';

/** Three seconds are enough for a machine that has nothing else to do. */
const SLOWNESS = 10;

const start = Date.now();
const slowClock: Clock = {
  now: () => start + (Date.now() - start) / SLOWNESS,
  sleep: (milliseconds, signal) => systemClock.sleep(milliseconds * SLOWNESS, signal),
};

const PATIENT = new AbortController().signal;
const observer = recordingObserver();

const stateDirectory = await makeFolder({ after }, 'relay-state');
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
const server = parseServer(internet.dnsServer);
assert.ok(server);
const dns = createDns({ servers: [server], observer });
after(() => dns.close());

/** Closed with the scope, if not before. */
async function open(
  scope: Scope,
  settings: Partial<PolicySettings> = {},
  dynamodb = stack.dynamodb,
): Promise<Policies> {
  const policies = await openPolicies({
    dynamodb,
    tableName: stack.tableName,
    sqs: stack.sqs,
    queueUrl: stack.queueUrls['request-queue'],
    dns,
    stateDirectory,
    readOnly: false,
    settings: { firstContact: 'wait', onUnknown: 'defer', cachedDomains: 1_000, ...settings },
    clock: slowClock,
    random: Math.random,
    observer,
  });
  scope.after(() => policies.close());
  return policies;
}

const say = (found: Found) =>
  found.kind === 'policy'
    ? `${found.policy.mode} of ${found.source}`
    : found.kind === 'unknown'
      ? 'unknown'
      : found.reason;

test('a domain that nobody knows is discovered while its mail waits, and stays known when the table is gone', async (t) => {
  internet.set('new.test', 'healthy');
  internet.set('testing.test', 'mode-testing');
  internet.set('broken.test', 'server-error');
  internet.set('plain.test', 'nxdomain');
  const policies = await open(t);
  const names = ['new.test', 'testing.test', 'broken.test', 'plain.test'].map(domain);
  const found = await Promise.all(names.map((name) => policies.find(name, PATIENT)));
  assert.deepEqual(found.map(say), ['enforce of table', 'testing of table', 'back-off', 'not-implemented']);
  const [first] = found;
  assert.ok(first?.kind === 'policy');
  assert.deepEqual([first.policy.mx, first.recordId], [['mail.new.test'], 'id1']);
  const again = await Promise.all(names.map((name) => policies.find(name, PATIENT)));
  assert.deepEqual(again.map(say), ['enforce of cache', 'testing of cache', 'back-off', 'not-implemented']);
  await policies.close();

  const nobody = new DynamoDBClient({ ...localClientConfig('http://127.0.0.1:1'), maxAttempts: 1 });
  t.after(() => nobody.destroy());
  const alone = await open(t, {}, nobody);
  internet.set('other.test', 'healthy');
  const asked = ['new.test', 'testing.test', 'broken.test', 'plain.test', 'other.test'].map(domain);
  const known = await Promise.all(asked.map((name) => alone.find(name, PATIENT)));
  assert.deepEqual(known.map(say), [
    'enforce of disk',
    'testing of disk',
    // Back-offs live too short for the disk, and of an unknown domain with a record nothing can be told.
    'unknown',
    'not-implemented',
    'unknown',
  ]);
  assert.deepEqual(observer.outages, ['table down']);
});

test('another id in DNS makes the functions refresh the policy, while the one that is known is used', async (t) => {
  const name = domain('changed.test');
  internet.set('changed.test', 'changed-policy');
  const store = createDynamoStore({ client: stack.dynamodb, table: stack.tableName });
  const before = Date.now() - DAY;
  await seed(store, { domain: name, policy: POLICY, recordId: 'id1', inserted: before, lastUpdate: before });
  const policies = await open(t);
  const found = await policies.find(name, PATIENT);
  assert.ok(found.kind === 'policy');
  assert.deepEqual(found.policy, POLICY);
  // Ends what goes on in the background, the request among it.
  await policies.close();
  await stack.drained(HANG_MS);
  const later = await open(t);
  const refreshed = await later.find(name, PATIENT);
  assert.ok(refreshed.kind === 'policy');
  assert.deepEqual(
    [refreshed.recordId, refreshed.policy.mx],
    ['id2', ['mx1.changed.test', 'mx2.changed.test']],
  );
});

test('what is explained is the same, and changes nothing', async (t) => {
  internet.set('explained.test', 'healthy');
  const policies = await open(t);
  const lines = await policies.explain(domain('explained.test'), PATIENT);
  assert.deepEqual(lines.slice(0, 3), ['memory and disk: nothing', 'table: no item', 'TXT record: id id1']);
  assert.match(lines[3] ?? '', /^answer: what the functions find within 2850 ms/);
  await policies.close();
  await stack.drained(HANG_MS);
  const store = createDynamoStore({ client: stack.dynamodb, table: stack.tableName });
  assert.equal((await store.read([domain('explained.test')])).records.size, 0);
});
