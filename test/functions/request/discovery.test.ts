import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createDiscoveryLimit, registrableDomain } from '../../../functions/request/discovery.ts';
import { answerRequests } from '../../../functions/request/request.ts';
import type { PolicyStore } from '../../../functions/store/policy-store.ts';
import { MemoryStore } from '../../simulation/memory-store.ts';
import {
  ABSENT,
  DAY,
  domain,
  FETCHED,
  message,
  NEW_ID,
  NOT_FETCHED,
  NOW,
  neverAborted,
  planned,
  recordingTelemetry,
  SAME_ID,
  startTables,
} from '../refresh/scene.ts';

const newTable = await startTables();

const registrable: [name: string, registered: string][] = [
  ['example.com', 'example.com'],
  ['mail.example.com', 'example.com'],
  ['a.b.c.d.example.com', 'example.com'],
  ['a.example.co.uk', 'example.co.uk'],
  ['a.b.xn--55qx5d.cn', 'b.xn--55qx5d.cn'],
  ['a.xn--bcher-kva.example', 'xn--bcher-kva.example'],
  // Below these, strangers have names.
  ['a.somebody.github.io', 'somebody.github.io'],
  ['somebody.duckdns.org', 'somebody.duckdns.org'],
  // What is a public suffix itself.
  ['co.uk', 'co.uk'],
  ['github.io', 'github.io'],
  // Of no list.
  ['a.b.example', 'b.example'],
  ['a.1.example', '1.example'],
];
for (const [name, registered] of registrable) {
  test(`${name} is of ${registered}`, () => assert.equal(registrableDomain(domain(name)), registered));
}

test('no name below a registered one is of another, whatever its labels', () => {
  const label = fc.oneof(
    fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/).filter((text) => text.slice(2, 4) !== '--'),
    fc.constantFrom('1', '0x1', 'com', 'co', 'uk', 'github', 'xn--bcher-kva', 'a'.repeat(63)),
  );
  fc.assert(
    fc.property(fc.array(label, { minLength: 1, maxLength: 3 }), (labels) => {
      assert.equal(registrableDomain(domain([...labels, 'example.com'].join('.'))), 'example.com');
    }),
    { numRuns: 500 },
  );
});

/** Counts the writes that a limit costs. */
function counted(store: Pick<PolicyStore, 'admitDiscovery'> = new MemoryStore()) {
  const writes: (string | undefined)[] = [];
  const admitDiscovery: PolicyStore['admitDiscovery'] = (within, ...rest) => {
    writes.push(within);
    return store.admitDiscovery(within, ...rest);
  };
  return { store: { admitDiscovery }, writes };
}

function limited({ perDomain = 3, perDay = 5, now = () => NOW, store = counted().store } = {}) {
  const { telemetry, told } = recordingTelemetry();
  const limits = { discoveriesPerDomainPerDay: perDomain, discoveriesPerDay: perDay };
  const admits = createDiscoveryLimit({ store, telemetry, limits, now });
  const admitted = async (...names: string[]) => {
    const results: boolean[] = [];
    for (const name of names) results.push(await admits(domain(name)));
    return results;
  };
  return { admits, admitted, told };
}

const below = (parent: string, count: number) => Array.from({ length: count }, (_, i) => `n${i}.${parent}`);

test('so many of one registrable domain are admitted, and it uses up nothing of what others have', async () => {
  const { admitted } = limited({ perDomain: 3, perDay: 5 });
  assert.deepEqual(await admitted(...below('evil.example', 100)), [
    ...Array(3).fill(true),
    ...Array(97).fill(false),
  ]);
  assert.deepEqual(await admitted('a.example', 'b.example', 'c.example'), [true, true, false]);
});

test('a limit that is reached costs no more writes, and is said once', async () => {
  const { store, writes } = counted();
  const { admitted, told } = limited({ store, perDomain: 3, perDay: 5 });
  await admitted(...below('evil.example', 100));
  // Three times both, then once in vain.
  assert.equal(writes.length, 7);
  await admitted(...below('good.example', 100), ...Array.from({ length: 100 }, (_, i) => `d${i}.example`));
  // Twice both, then once its own and the other in vain.
  assert.equal(writes.length, 7 + 6);
  assert.deepEqual(
    told.warnings.map(({ details }) => details),
    [
      { registrable_domain: 'evil.example', limit: 3 },
      { registrable_domain: 'all together', limit: 5 },
    ],
  );
  assert.match(told.warnings[0]?.message ?? '', /until 00:00 UTC: raise discoveriesPerDomainPerDay if/);
  assert.match(told.warnings[1]?.message ?? '', /raise discoveriesPerDay if/);
});

test('it is said once also to many who ask at once', async () => {
  const { admits, told } = limited({ perDomain: 1 });
  await Promise.all(below('evil.example', 10).map((name) => admits(domain(name))));
  assert.equal(told.warnings.length, 1);
});

test('a new day has new limits, in this process and in the next', async () => {
  let now = NOW;
  const { store } = counted();
  const { admitted } = limited({ store, perDomain: 1, perDay: 1, now: () => now });
  assert.deepEqual(await admitted('a.example', 'b.example'), [true, false]);
  const next = limited({ store, perDomain: 1, perDay: 1, now: () => now });
  assert.deepEqual(await next.admitted('b.example'), [false]);
  now = Math.ceil(NOW / DAY) * DAY - 1;
  assert.deepEqual(await admitted('b.example'), [false]);
  now += 1;
  assert.deepEqual(await admitted('b.example', 'a.example'), [true, false]);
});

test('what is remembered is bounded', async () => {
  const refusing = { admitDiscovery: async () => false };
  const { store, writes } = counted(refusing);
  const { admitted } = limited({ store });
  const names = Array.from({ length: 10_001 }, (_, i) => `d${i}.example`);
  await admitted(...names.slice(0, 10_000));
  assert.equal(writes.length, 10_000);
  await admitted(...names.slice(0, 10_000));
  assert.equal(writes.length, 10_000, 'as many as that are');
  await admitted(...names.slice(10_000), ...names.slice(0, 1));
  assert.equal(writes.length, 10_002, 'one more, and the first is asked about again');
});

test('a fault of the database is no refusal', async () => {
  const fault = new Error('InternalServerError');
  const { admitted, told } = limited({ store: { admitDiscovery: () => Promise.reject(fault) } });
  await assert.rejects(admitted('a.example'), fault);
  assert.deepEqual(told.warnings, []);
});

/** Looks at these domains as `request` does, one discovery a day for each registrable domain. */
async function look(t: Parameters<typeof planned>[0], names: string[], plan: Parameters<typeof planned>[1]) {
  const { telemetry, told } = recordingTelemetry();
  const limits = { discoveriesPerDomainPerDay: 1, discoveriesPerDay: 100 };
  const admits = createDiscoveryLimit({ store: plan.store, telemetry, limits, now: () => NOW });
  const { refresher, asked } = planned(t, plan);
  const messages = names.map((name) => message(name, { domain: name }));
  const failed = await answerRequests(messages, { refresher, admits, telemetry, signal: neverAborted });
  return { failed, told, asked };
}

test('one domain too many is neither fetched nor stored, and its message is acknowledged', async (t) => {
  const table = await newTable();
  const names = ['a.evil.example', 'b.evil.example', 'c.evil.example'];
  const lookups = Object.fromEntries(names.map((name) => [name, SAME_ID]));
  const fetches = Object.fromEntries(names.map((name) => [name, FETCHED]));
  const { failed, told, asked } = await look(t, names, { store: table.store, lookups, fetches });
  assert.deepEqual([failed, told.errors], [[], []]);
  assert.equal(asked.fetches.length, 1);
  const kinds = told.outcomes.map(({ outcome }) => outcome.kind).sort();
  assert.deepEqual(kinds, ['discovered', 'skipped', 'skipped']);
  assert.equal(told.summary().filter((line) => line.endsWith('skipped discovery-limit')).length, 2);
  const items = await Promise.all(names.map(table.item));
  assert.equal(items.filter((item) => item !== undefined).length, 1);
  assert.equal(told.warnings.length, 1);
});

test('back-offs count: they are stored too', async (t) => {
  const table = await newTable();
  const names = ['a.evil.example', 'b.evil.example'];
  const lookups = Object.fromEntries(names.map((name) => [name, SAME_ID]));
  const fetches = Object.fromEntries(names.map((name) => [name, NOT_FETCHED]));
  const { told } = await look(t, names, { store: table.store, lookups, fetches });
  assert.deepEqual(told.outcomes.map(({ outcome }) => outcome.kind).sort(), ['backed-off', 'skipped']);
});

test('a domain without a record, or that is known, is never counted', async (t) => {
  const table = await newTable();
  await table.seed('known.evil.example');
  const admitDiscovery = () => assert.fail('nothing is discovered');
  const { failed, told } = await look(t, ['none.evil.example', 'known.evil.example'], {
    store: { ...table.store, admitDiscovery },
    lookups: { 'none.evil.example': ABSENT, 'known.evil.example': NEW_ID },
    fetches: { 'known.evil.example': FETCHED },
  });
  assert.deepEqual([failed, told.errors], [[], []]);
  assert.deepEqual(told.summary(), [
    'known.evil.example replaced',
    'none.evil.example not-implemented record-absent',
  ]);
});

test('a fault of the counter fails its message, and nothing is fetched', async (t) => {
  const table = await newTable();
  const fault = new Error('InternalServerError');
  const { failed, told, asked } = await look(t, ['a.example'], {
    store: { ...table.store, admitDiscovery: () => Promise.reject(fault) },
    lookups: { 'a.example': SAME_ID },
  });
  assert.deepEqual(failed, ['a.example']);
  assert.deepEqual(told.errors, [{ error: fault, domain: 'a.example' }]);
  assert.deepEqual(asked.fetches, []);
});
