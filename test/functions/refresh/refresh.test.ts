import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { setDefaultCACertificates } from 'node:tls';
import type { Fetched } from '../../../functions/mtasts/fetch.ts';
import { LIMITS } from '../../../functions/mtasts/limits.ts';
import type { Lookup } from '../../../functions/mtasts/lookup.ts';
import type { Policy } from '../../../functions/mtasts/policy.ts';
import { refreshMessages } from '../../../functions/refresh/messages.ts';
import { createRefresher, refreshDomain } from '../../../functions/refresh/refresh.ts';
import type { PolicyStore } from '../../../functions/store/policy-store.ts';
import { startInternet } from '../../../infra/local/internet/internet.ts';
import { until } from '../../resources.ts';
import {
  ABSENT,
  cutShort,
  DAY,
  type Does,
  domain,
  FETCHED,
  LOOKUP_CUT_SHORT,
  message,
  NEW,
  NEW_ID,
  NOT_FETCHED,
  NOW,
  neverAborted,
  notFetched,
  OLD,
  planned,
  recordingTelemetry,
  SAME_ID,
  startTables,
} from './scene.ts';

const newTable = await startTables();
const internet = await startInternet();
after(() => internet.close());
setDefaultCACertificates([internet.ca]);

const A = domain('a.example');
const NONE: Policy = { ...OLD, mode: 'none' };

/** What the refresh would do, were it alone. */
const plans: [would: string, policy: Policy, lookup: Lookup, fetch: Fetched | undefined][] = [
  ['extend the entry', OLD, SAME_ID, undefined],
  ['replace the policy', OLD, NEW_ID, FETCHED],
  ['record a failure', OLD, NEW_ID, NOT_FETCHED],
  ['remove the entry', NONE, ABSENT, undefined],
];
/** What somebody else does while it waits for its last answer. */
const meanwhile: [what: string, does: (store: PolicyStore) => Promise<unknown>][] = [
  [
    'extends the entry',
    (store) => store.write(A, { kind: 'extend', validEnd: NOW + 1, lastUpdate: NOW - 1 }, NOW - DAY),
  ],
  [
    'replaces the policy',
    (store) =>
      store.write(
        A,
        {
          kind: 'replace',
          policy: { ...NEW, mx: ['newest.example'] },
          policyText: 'newest',
          backoff: false,
          validEnd: NOW + DAY,
          recordId: 'id3',
          lastUpdate: NOW - DAY + 1,
          lastFetch: NOW,
        },
        NOW - DAY,
      ),
  ],
  ['removes the entry', (store) => store.write(A, { kind: 'remove' }, NOW - DAY)],
  ['prunes the entry', (store) => store.prune(A, NOW, NOW - DAY)],
];
for (const [would, policy, lookup, fetched] of plans) {
  for (const [what, does] of meanwhile) {
    test(`a refresh that would ${would} does nothing when somebody ${what} meanwhile`, async (t) => {
      const table = await newTable();
      await table.seed(A, { policy });
      const record = (await table.store.read([A])).records.get(A);
      let left: unknown;
      const answer =
        <T>(value: T) =>
        async () => {
          await does(table.store);
          left = await table.item(A);
          return value;
        };
      const { refresher } = planned(t, {
        store: table.store,
        lookups: { [A]: fetched === undefined ? answer(lookup) : lookup },
        ...(fetched && { fetches: { [A]: answer(fetched) } }),
      });
      assert.deepEqual(await refreshDomain(A, record, refresher, neverAborted), { kind: 'conflict' });
      assert.deepEqual(await table.item(A), left);
    });
  }
}

for (const [what, fetched] of [
  ['found a policy', FETCHED],
  ['found none', NOT_FETCHED],
] as const) {
  test(`a discovery that ${what} leaves alone what somebody else discovered meanwhile`, async (t) => {
    const table = await newTable();
    const { refresher } = planned(t, {
      store: table.store,
      lookups: { [A]: SAME_ID },
      fetches: {
        [A]: async () => {
          await table.seed(A);
          return fetched;
        },
      },
    });
    assert.deepEqual(await refreshDomain(A, undefined, refresher, neverAborted), { kind: 'conflict' });
    assert.equal((await table.item(A))?.Mode?.S, 'enforce');
    assert.equal((await table.item(A))?.LastUpdate?.N, String(NOW - DAY));
  });
}

test('a use that is reported during a refresh is no conflict, and is not lost', async (t) => {
  const table = await newTable();
  await table.seed(A);
  const record = (await table.store.read([A])).records.get(A);
  const { refresher } = planned(t, {
    store: table.store,
    lookups: { [A]: NEW_ID },
    fetches: {
      [A]: async () => {
        await table.store.touch(A, NOW - 1, NOW - 1);
        return FETCHED;
      },
    },
  });
  assert.equal((await refreshDomain(A, record, refresher, neverAborted)).kind, 'replaced');
  assert.equal((await table.item(A))?.LastUse?.N, String(NOW - 1));
});

test('times count from when the last answer came', async (t) => {
  const table = await newTable();
  await table.seed(A);
  const record = (await table.store.read([A])).records.get(A);
  let now = NOW;
  const { refresher } = planned(t, {
    store: table.store,
    lookups: { [A]: NEW_ID },
    fetches: {
      [A]: async () => {
        now += 30_000;
        return FETCHED;
      },
    },
    now: () => now,
  });
  await refreshDomain(A, record, refresher, neverAborted);
  const item = await table.item(A);
  assert.deepEqual(item?.LastUpdate, { N: String(NOW + 30_000) });
  assert.deepEqual(item?.ValidEnd, { N: String(NOW + 30_000 + NEW.maxAgeSeconds * 1_000) });
});

const slow: [what: string, lookup: Does<Lookup>, fetch: Does<Fetched>, code: string][] = [
  ['the lookup alone', cutShort(LOOKUP_CUT_SHORT), NOT_FETCHED, 'http-status'],
  [
    'the lookup, so that nothing is left for the fetch',
    cutShort(LOOKUP_CUT_SHORT),
    cutShort(notFetched('deadline-exceeded')),
    'deadline-exceeded',
  ],
  ['the fetch', NEW_ID, cutShort(notFetched('deadline-exceeded')), 'deadline-exceeded'],
];
for (const [what, lookup, fetch, code] of slow) {
  test(`a minute used up by ${what} is a failure of the domain, and is recorded`, async (t) => {
    const table = await newTable();
    await table.seed(A);
    const record = (await table.store.read([A])).records.get(A);
    const { refresher } = planned(t, {
      store: table.store,
      limits: { domainMs: 50 },
      lookups: { [A]: lookup },
      fetches: { [A]: fetch },
    });
    const outcome = await refreshDomain(A, record, refresher, neverAborted);
    assert.equal(outcome.kind === 'kept' && outcome.failure.code, code);
    const item = await table.item(A);
    assert.deepEqual(item?.LastFailure, { S: code });
    assert.deepEqual(item?.LastAttempt, { N: String(NOW) });
    assert.deepEqual(item?.LastUpdate, { N: String(NOW - DAY) });
  });
}

test('a domain that takes its whole minute delays nobody else of its batch', async (t) => {
  const table = await newTable();
  const stuck = ['stuck-dns.test', 'stuck-host.test', 'trickle.test'];
  const healthy = ['same.test', 'changed.test'];
  internet.set('stuck-dns.test', 'no-answer');
  internet.set('stuck-host.test', 'hang');
  internet.set('trickle.test', {
    record: { txt: [['v=STSv1; id=id2;']] },
    https: { policy: { body: 'version: STSv1\n'.repeat(100), trickle: { bytes: 1, everyMs: 20 } } },
  });
  internet.set('same.test', 'healthy');
  internet.set('changed.test', 'changed-policy');
  const lastUpdate = Date.now() - DAY;
  const names = [...stuck, ...healthy];
  for (const name of names) await table.seed(name, { inserted: lastUpdate, lastUpdate });

  const environment = {
    table: '',
    dnsServers: [internet.dnsServer],
    policyHostPort: internet.policyHostPort,
    allowPrivateAddresses: true,
    maxFetchAgeSeconds: 604_800,
  };
  // No limit but that of the domain is reached.
  const limits = { ...LIMITS, domainMs: 0.5 * LIMITS.dnsMs };
  const refresher = createRefresher(table.store, environment, limits);
  const { telemetry, told } = recordingTelemetry();
  const start = Date.now();
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const batch = refreshMessages(
    names.map((name) => message(name, { domain: name, lastUpdate })),
    { refresher, telemetry, signal: neverAborted },
  );

  await until(() => told.outcomes.length === healthy.length, 'the others are done while time stands still');
  assert.deepEqual(told.summary(), ['changed.test replaced', 'same.test extended']);
  const { records } = await table.store.read(names.map(domain));
  for (const name of healthy) assert.ok((records.get(domain(name))?.lastUpdate ?? 0) >= start, name);

  const talkedTo = (kind: string, name: string) =>
    internet.traffic.events().some((event) => event.kind === kind && event.name === name);
  await until(() => talkedTo('query', '_mta-sts.stuck-dns.test'), 'the record is asked for');
  await until(() => talkedTo('connection', 'mta-sts.stuck-host.test'), 'the silent host is connected to');
  await until(() => talkedTo('request', 'mta-sts.trickle.test'), 'the slow policy is asked for');
  t.mock.timers.tick(limits.domainMs - 1);
  await turn();
  assert.equal(told.outcomes.length, healthy.length, 'nobody has given up');
  t.mock.timers.tick(1);
  assert.deepEqual(await batch, []);
  t.mock.timers.reset();
  assert.deepEqual(
    told.summary().filter((line) => line.includes('kept')),
    stuck.map((name) => `${name} kept deadline-exceeded`),
  );
  for (const name of stuck) {
    assert.deepEqual((await table.item(name))?.LastFailure, { S: 'deadline-exceeded' });
  }
});

test('what the end of the batch cuts short rejects, and nothing is recorded', async (t) => {
  const table = await newTable();
  await table.seed(A);
  const record = (await table.store.read([A])).records.get(A);
  const before = await table.item(A);
  const end = new Error('the end');
  for (const [lookup, fetched] of [
    [cutShort(LOOKUP_CUT_SHORT), undefined],
    [NEW_ID, cutShort(notFetched('deadline-exceeded'))],
  ] as const) {
    const batch = new AbortController();
    const { refresher } = planned(t, {
      store: table.store,
      lookups: { [A]: lookup },
      ...(fetched && { fetches: { [A]: fetched } }),
    });
    const refresh = refreshDomain(A, record, refresher, batch.signal);
    setTimeout(() => batch.abort(end), 10);
    await assert.rejects(refresh, end);
    await assert.rejects(refreshDomain(A, record, refresher, batch.signal), end);
  }
  assert.deepEqual(await table.item(A), before);
});

test('a write that is refused although nobody has written is told from a conflict', async (t) => {
  const table = await newTable();
  await table.seed(A);
  const record = (await table.store.read([A])).records.get(A);
  const refusing: PolicyStore = { ...table.store, write: async () => 'conflict' };
  for (const [lookup, fetch] of [[SAME_ID], [NEW_ID, FETCHED], [NEW_ID, NOT_FETCHED]] as const) {
    const { refresher } = planned(t, {
      store: refusing,
      lookups: { [A]: lookup },
      ...(fetch && { fetches: { [A]: fetch } }),
    });
    assert.deepEqual(await refreshDomain(A, record, refresher, neverAborted), {
      kind: 'conflict',
      unmoved: true,
    });
  }
});

test('an update at the end of time, or any time that no clock shows, is refreshed and stays readable', async (t) => {
  for (const lastUpdate of [Date.UTC(10_000) - 1, NOW + 5 * 60_000]) {
    const table = await newTable();
    await table.seed(A);
    await table.put({ ...(await table.item(A)), LastUpdate: { N: String(lastUpdate) } });
    const record = (await table.store.read([A])).records.get(A);
    assert.equal(record?.lastUpdate, lastUpdate);
    const { refresher } = planned(t, {
      store: table.store,
      lookups: { [A]: NEW_ID },
      fetches: { [A]: FETCHED },
    });
    assert.equal((await refreshDomain(A, record, refresher, neverAborted)).kind, 'replaced');
    const { records, unreadable } = await table.store.read([A]);
    assert.deepEqual(unreadable, []);
    assert.equal(records.get(A)?.lastUpdate, NOW);
  }
});
