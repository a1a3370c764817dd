import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setDefaultCACertificates } from 'node:tls';
import type { SQSRecord } from 'aws-lambda';
import { LIMITS } from '../../../functions/mtasts/limits.ts';
import { refreshMessages } from '../../../functions/refresh/messages.ts';
import { createRefresher, type Refresher } from '../../../functions/refresh/refresh.ts';
import { type BehaviourName, startInternet } from '../../../infra/local/internet/internet.ts';
import type { Seed } from '../../../infra/local/seed.ts';
import {
  ABSENT,
  DAY,
  domain,
  FETCHED,
  found,
  message,
  NEW_ID,
  NOT_FETCHED,
  NOW,
  neverAborted,
  OLD,
  planned,
  recordingTelemetry,
  SAME_ID,
  startTables,
  UNAVAILABLE,
} from './scene.ts';

const newTable = await startTables();
const internet = await startInternet();
after(() => internet.close());
setDefaultCACertificates([internet.ca]);

async function deliver(messages: readonly SQSRecord[], refresher: Refresher) {
  const { telemetry, told } = recordingTelemetry();
  const failed = await refreshMessages(messages, { refresher, telemetry, signal: neverAborted });
  return { failed: failed.sort(), told };
}

const task = (name: string, lastUpdate = NOW - DAY, id = name) => message(id, { domain: name, lastUpdate });

test('a task whose entry is newer asks nobody and writes nothing', async (t) => {
  const table = await newTable();
  await table.seed('a.example');
  const before = await table.item('a.example');
  const { refresher } = planned(t, { store: table.store });
  const { failed, told } = await deliver([task('a.example', NOW - DAY - 1)], refresher);
  assert.deepEqual(failed, []);
  assert.deepEqual(told.summary(), ['a.example skipped newer']);
  assert.deepEqual(await table.item('a.example'), before);
});

test('a task for the very version, or for a later one, is done', async (t) => {
  const table = await newTable();
  for (const [name, lastUpdate] of [
    ['a.example', NOW - DAY],
    ['b.example', NOW],
  ] as const) {
    await table.seed(name);
    const { refresher } = planned(t, { store: table.store, lookups: { [name]: SAME_ID } });
    const { told } = await deliver([task(name, lastUpdate)], refresher);
    assert.deepEqual(told.summary(), [`${name} extended`]);
  }
});

// A failure leaves LastUpdate as it is. Whether it is too soon is for the record's id to say, which costs a lookup.
const copies: [does: BehaviourName, entry: Partial<Seed>, first: string, copy: string, asks: string][] = [
  ['healthy', {}, 'extended', 'skipped newer', 'nobody'],
  ['changed-policy', {}, 'replaced', 'skipped newer', 'nobody'],
  ['nxdomain', { policy: { ...OLD, mode: 'none' } }, 'removed', 'skipped gone', 'nobody'],
  ['not-found', {}, 'kept http-status', 'skipped too-soon', 'for the record'],
  [
    'servfail-all',
    { policy: { ...OLD, mode: 'none' } },
    'kept dns-servfail',
    'skipped too-soon',
    'for the record',
  ],
];
for (const [does, entry, first, copy, asks] of copies) {
  test(`a copy of a message that ended as "${first}" asks ${asks}, and writes nothing`, async () => {
    const table = await newTable();
    const name = `${does}.test`;
    internet.set(name, does);
    const lastUpdate = Date.now() - DAY;
    await table.seed(name, { inserted: lastUpdate - DAY, lastUpdate, ...entry });
    const environment = {
      table: '',
      dnsServers: [internet.dnsServer],
      policyHostPort: internet.policyHostPort,
      allowPrivateAddresses: true,
      maxFetchAgeSeconds: 604_800,
    };
    const refresher = createRefresher(table.store, environment, LIMITS);
    const { told } = await deliver([task(name, lastUpdate)], refresher);
    assert.deepEqual(told.summary(), [`${name} ${first}`]);
    assert.notEqual(internet.traffic.queries(name), 0);
    const written = await table.item(name);

    internet.traffic.reset();
    const again = await deliver([task(name, lastUpdate)], refresher);
    assert.deepEqual(again.told.summary(), [`${name} ${copy}`]);
    assert.deepEqual(again.failed, []);
    const asked = new Set(internet.traffic.events().map((event) => `${event.kind} ${event.name}`));
    assert.deepEqual([...asked], asks === 'nobody' ? [] : [`query _mta-sts.${name}`]);
    assert.deepEqual(await table.item(name), written);
  });
}

test('several messages for one domain are one refresh, for the newest version that they name', async (t) => {
  const table = await newTable();
  await table.seed('a.example');
  const { refresher, asked } = planned(t, { store: table.store, lookups: { 'a.example': SAME_ID } });
  const messages = [
    task('a.example', NOW - 2 * DAY, '1'),
    task('a.example', NOW - DAY, '2'),
    task('A.Example.', NOW - DAY, '3'),
    task('a.example', NOW - 3 * DAY, '4'),
  ];
  const { failed, told } = await deliver(messages, refresher);
  assert.deepEqual(failed, []);
  assert.deepEqual(told.summary(), ['a.example extended']);
  assert.deepEqual(asked, { lookups: ['a.example'], fetches: [] });
});

test('several messages for one domain share its fate, and no other domain does', async (t) => {
  const table = await newTable();
  const fault = new Error('ProvisionedThroughputExceededException');
  const faults: Record<string, () => Promise<never>> = { 'write-fault.example': () => Promise.reject(fault) };
  const write: typeof table.store.write = (name, change, expected) =>
    faults[name]?.() ?? table.store.write(name, change, expected);
  const names = ['write-fault.example', 'lookup-throws.example', 'fetch-throws.example', 'good.example'];
  for (const name of names) await table.seed(name);
  const { refresher } = planned(t, {
    store: { ...table.store, write },
    lookups: {
      'write-fault.example': SAME_ID,
      'lookup-throws.example': () => Promise.reject(fault),
      'fetch-throws.example': NEW_ID,
      'good.example': SAME_ID,
    },
    fetches: { 'fetch-throws.example': () => Promise.reject(fault) },
  });
  const messages = [1, 2].flatMap((copy) => names.map((name) => task(name, NOW - DAY, `${name} ${copy}`)));
  const { failed, told } = await deliver(messages, refresher);
  const failing = names.slice(0, 3);
  assert.deepEqual(failed, failing.flatMap((name) => [`${name} 1`, `${name} 2`]).sort());
  assert.deepEqual(told.errors.map((each) => each.domain).sort(), failing.toSorted());
  for (const { error } of told.errors) assert.equal(error, fault);
  assert.deepEqual(told.summary(), ['good.example extended']);
});

test('a message for a domain that is gone asks nobody and creates nothing', async (t) => {
  const table = await newTable();
  const remains = { Domain: { S: 'remains.example' }, LastUse: { N: '1' } };
  await table.put(remains);
  const { refresher } = planned(t, { store: table.store });
  const { failed, told } = await deliver([task('gone.example'), task('remains.example')], refresher);
  assert.deepEqual(failed, []);
  assert.deepEqual(told.summary(), ['gone.example skipped gone', 'remains.example skipped gone']);
  assert.equal(await table.item('gone.example'), undefined);
  assert.deepEqual(await table.item('remains.example'), remains);
});

const SOON = LIMITS.retryAfterMs;
const attempts: [what: string, ago: number, again: boolean][] = [
  ['now', 0, false],
  ['a millisecond less than 5 minutes ago', SOON - 1, false],
  ['5 minutes ago', SOON, true],
  ['a day ago', DAY, true],
  ['a moment ahead, by another clock', -1_000, false],
  ['tomorrow, by some mistake', -DAY, true],
];
for (const [what, ago, again] of attempts) {
  test(`a fetch that failed ${what} is ${again ? '' : 'not '}repeated for the same id`, async (t) => {
    const table = await newTable();
    const lastAttempt = NOW - ago;
    const since = NOW - 2 * DAY;
    await table.seed('a.example', { failing: { lastAttempt, code: 'http-status', since, recordId: 'id2' } });
    const { refresher } = planned(t, {
      store: table.store,
      lookups: { 'a.example': NEW_ID },
      ...(again && { fetches: { 'a.example': NOT_FETCHED } }),
    });
    const { failed, told } = await deliver([task('a.example')], refresher);
    assert.deepEqual(failed, []);
    assert.deepEqual(told.summary(), [again ? 'a.example kept http-status' : 'a.example skipped too-soon']);
    assert.equal((await table.item('a.example'))?.LastAttempt?.N, String(again ? NOW : lastAttempt));
  });
}

test('a fetch that failed is repeated at once for a new id, and its failure is that of the new id', async (t) => {
  const table = await newTable();
  const failing = { lastAttempt: NOW - 1, code: 'http-status', since: NOW - DAY, recordId: 'id2' } as const;
  await table.seed('a.example', { failing });
  for (const [id, expected] of [
    ['id2', 'skipped too-soon'],
    ['id3', 'kept http-status'],
    ['id3', 'skipped too-soon'],
    // Nobody can tell this from a newer one: only the last failure is remembered.
    ['id2', 'kept http-status'],
  ] as const) {
    const { refresher } = planned(t, {
      store: table.store,
      lookups: { 'a.example': found(id) },
      ...(expected === 'kept http-status' && { fetches: { 'a.example': NOT_FETCHED } }),
    });
    const { told } = await deliver([task('a.example')], refresher);
    assert.deepEqual(told.summary(), [`a.example ${expected}`]);
  }
  const item = await table.item('a.example');
  assert.deepEqual(item?.FailedRecordID, { S: 'id2' });
  assert.deepEqual(item?.FailingSince, { N: String(NOW - DAY) });
});

test('a policy of the same id is fetched again once its last fetch is too long ago', async (t) => {
  const table = await newTable();
  await table.seed('proven.example', { lastFetch: NOW - 3 * DAY });
  await table.seed('unproven.example', { lastFetch: NOW - 4 * DAY });
  await table.seed('mox.example', { lastFetch: NOW - 4 * DAY });
  const lookups = { 'proven.example': SAME_ID, 'unproven.example': SAME_ID, 'mox.example': SAME_ID };
  const { refresher } = planned(t, {
    store: table.store,
    lookups,
    fetches: { 'unproven.example': FETCHED },
  });
  const ours = await deliver([task('proven.example'), task('unproven.example')], refresher);
  assert.deepEqual(ours.told.summary(), ['proven.example extended', 'unproven.example replaced']);
  const mox = planned(t, { store: table.store, lookups, maxFetchAgeMs: 0 });
  assert.deepEqual((await deliver([task('mox.example')], mox.refresher)).told.summary(), [
    'mox.example extended',
  ]);
});

test('messages that cannot be read are refused and acknowledged, and keep nobody from being refreshed', async (t) => {
  const table = await newTable();
  await table.seed('a.example');
  const { refresher } = planned(t, { store: table.store, lookups: { 'a.example': SAME_ID } });
  const messages = [
    message('1', 'a.example'),
    task('a.example', NOW - DAY, '2'),
    message('3', { domain: '-a.example', lastUpdate: NOW }),
    message('4', { used: ['a.example'] }),
    message('5', { domain: 'a.example' }),
  ];
  const { failed, told } = await deliver(messages, refresher);
  assert.deepEqual(failed, []);
  assert.deepEqual(
    told.refused.map(({ messageId }) => messageId),
    ['1', '3', '4', '5'],
  );
  assert.deepEqual(told.summary(), ['a.example extended']);

  const nothing = await deliver(messages.slice(2), planned(t, { store: table.store }).refresher);
  assert.deepEqual([nothing.failed, nothing.told.outcomes], [[], []]);
});

test('whatever a domain does is an outcome, and its message is acknowledged', async (t) => {
  const table = await newTable();
  const cast = {
    'extended.example': { lookup: SAME_ID, expect: 'extended' },
    'replaced.example': { lookup: NEW_ID, fetch: FETCHED, expect: 'replaced' },
    'replaced-without-record.example': { lookup: ABSENT, fetch: FETCHED, expect: 'replaced' },
    'kept.example': { lookup: UNAVAILABLE, fetch: NOT_FETCHED, expect: 'kept http-status' },
    'none-kept.example': { mode: 'none', lookup: UNAVAILABLE, expect: 'kept dns-servfail' },
    'removed.example': { mode: 'none', lookup: ABSENT, expect: 'removed' },
  } as const;
  for (const [name, each] of Object.entries(cast)) {
    await table.seed(name, { policy: { ...OLD, mode: 'mode' in each ? each.mode : 'enforce' } });
  }
  const entries = Object.entries(cast);
  const { refresher, asked } = planned(t, {
    store: table.store,
    lookups: Object.fromEntries(entries.map(([name, { lookup }]) => [name, lookup])),
    fetches: Object.fromEntries(
      entries.flatMap(([name, each]) => ('fetch' in each ? [[name, each.fetch]] : [])),
    ),
  });
  const { failed, told } = await deliver(
    Object.keys(cast).map((name) => task(name)),
    refresher,
  );
  assert.deepEqual(failed, []);
  assert.deepEqual(told.errors, []);
  assert.deepEqual(told.summary(), entries.map(([name, { expect }]) => `${name} ${expect}`).sort());
  assert.equal(asked.lookups.length, entries.length);
});

test('a hundred domains are read by one BatchGetItem and refreshed all at once', async (t) => {
  const table = await newTable();
  const names = Array.from({ length: 100 }, (_, i) => `d${i}.example`);
  await Promise.all(names.map((name) => table.seed(name)));
  const calls: Record<string, number> = {};
  table.client.middlewareStack.add(
    (next, { commandName = '' }) =>
      (args) => {
        calls[commandName] = (calls[commandName] ?? 0) + 1;
        return next(args);
      },
    { step: 'initialize', name: 'count' },
  );
  t.after(() => table.client.middlewareStack.remove('count'));

  // Nobody is answered before everybody has asked.
  const everybody = Promise.withResolvers<void>();
  let asking = 0;
  const lookup = async () => {
    if (++asking === names.length) everybody.resolve();
    await everybody.promise;
    return found('id1');
  };
  const { refresher } = planned(t, {
    store: table.store,
    lookups: Object.fromEntries(names.map((name) => [name, lookup])),
  });
  const { failed, told } = await deliver(
    names.map((name) => task(name)),
    refresher,
  );
  assert.deepEqual(failed, []);
  assert.deepEqual(told.summary(), names.map((name) => `${name} extended`).sort());
  assert.deepEqual(calls, { BatchGetItemCommand: 1, UpdateItemCommand: 100 });
  const { records } = await table.store.read(names.map(domain));
  assert.ok([...records.values()].every((record) => record.lastUpdate === NOW));
});
