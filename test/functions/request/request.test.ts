import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SQSRecord } from 'aws-lambda';
import fc from 'fast-check';
import type { Fetched } from '../../../functions/mtasts/fetch.ts';
import type { Lookup } from '../../../functions/mtasts/lookup.ts';
import { answerBatch } from '../../../functions/refresh/batch.ts';
import type { Refresher } from '../../../functions/refresh/refresh.ts';
import type { Admits } from '../../../functions/request/discovery.ts';
import { answerRequests, decodeRequest } from '../../../functions/request/request.ts';
import type { PolicyStore } from '../../../functions/store/policy-store.ts';
import type { Seed } from '../../../infra/local/seed.ts';
import {
  ABSENT,
  admitsAll,
  answeredAtTheEnd,
  DAY,
  domain,
  FETCHED,
  forever,
  MINUTE,
  message,
  NEW,
  NEW_ID,
  NOT_FETCHED,
  NOW,
  neverAborted,
  OLD,
  type Plan,
  planned,
  recordingTelemetry,
  SAME_ID,
  startTables,
  UNAVAILABLE,
  UNUSABLE,
} from '../refresh/scene.ts';

const newTable = await startTables();

async function ask(messages: readonly SQSRecord[], refresher: Refresher, admits: Admits = admitsAll) {
  const { telemetry, told } = recordingTelemetry();
  const failed = await answerRequests(messages, { refresher, admits, telemetry, signal: neverAborted });
  return { failed: failed.sort(), told };
}

const look = (name: string, id = name) => message(id, { domain: name });
const used = (names: readonly unknown[], id = 'used') => message(id, { used: names });

const FAULT = new Error('InternalServerError');

test('a domain that is not known is discovered', async (t) => {
  const table = await newTable();
  const { refresher } = planned(t, {
    store: table.store,
    lookups: { 'a.example': SAME_ID },
    fetches: { 'a.example': FETCHED },
  });
  const { failed, told } = await ask([look('A.example.')], refresher);
  assert.deepEqual(failed, []);
  assert.deepEqual(told.summary(), ['a.example discovered']);
  assert.deepEqual(await table.item('a.example'), {
    Domain: { S: 'a.example' },
    ValidEnd: { N: String(NOW + NEW.maxAgeSeconds * 1_000) },
    Backoff: { BOOL: false },
    Mode: { S: 'testing' },
    MX: { L: [{ S: 'new.example' }] },
    MaxAgeSeconds: { N: '86400' },
    RecordID: { S: 'id1' },
    Version: { S: 'STSv1' },
    PolicyText: { S: FETCHED.ok ? FETCHED.text : '' },
    LastUpdate: { N: String(NOW) },
    LastFetch: { N: String(NOW) },
    LastUse: { N: String(NOW) },
    Inserted: { N: String(NOW) },
  });
});

test('a domain with a record but no policy is stored as a back-off of five minutes', async (t) => {
  const table = await newTable();
  const { refresher } = planned(t, {
    store: table.store,
    lookups: { 'a.example': SAME_ID },
    fetches: { 'a.example': NOT_FETCHED },
  });
  const { failed, told } = await ask([look('a.example')], refresher);
  assert.deepEqual(failed, []);
  assert.deepEqual(told.summary(), ['a.example backed-off http-status']);
  assert.deepEqual(await table.item('a.example'), {
    Domain: { S: 'a.example' },
    ValidEnd: { N: String(NOW + 300_000) },
    Backoff: { BOOL: true },
    Mode: { S: 'none' },
    MX: { L: [] },
    MaxAgeSeconds: { N: '300' },
    RecordID: { S: 'id1' },
    Version: { S: 'STSv1' },
    LastUpdate: { N: String(NOW) },
    LastUse: { N: String(NOW) },
    Inserted: { N: String(NOW) },
  });
});

test('a back-off is not asked again for five minutes, then it is, and becomes a policy once there is one', async (t) => {
  const table = await newTable();
  let now = NOW;
  const on = (lookup: Lookup, fetch?: Fetched) =>
    planned(t, {
      store: table.store,
      now: () => now,
      lookups: { 'a.example': lookup },
      ...(fetch && { fetches: { 'a.example': fetch } }),
    }).refresher;
  const inVain = on(SAME_ID, NOT_FETCHED);
  const summary = async (refresher: Refresher) =>
    (await ask([look('a.example')], refresher)).told.summary().join().replace('a.example ', '');

  assert.equal(await summary(inVain), 'backed-off http-status');
  now += 5 * MINUTE - 1;
  assert.equal(await summary(on(SAME_ID)), 'skipped too-soon');
  now += 1;
  assert.equal(await summary(inVain), 'kept http-status');
  now += 5 * MINUTE - 1;
  assert.equal(await summary(on(SAME_ID)), 'skipped too-soon');
  now += 1;
  assert.equal(await summary(on(SAME_ID, FETCHED)), 'replaced');
  assert.deepEqual((await table.item('a.example'))?.Backoff, { BOOL: false });
});

for (const [what, ago] of [
  ['stored', 0],
  ['stored a day', DAY],
] as const) {
  test(`a back-off ${what} ago is asked again at once under a new id`, async (t) => {
    const table = await newTable();
    const stored = NOW - ago;
    const backoff = { policy: { mode: 'none', mx: [], maxAgeSeconds: 300 }, backoff: true } as const;
    const failing = { lastAttempt: NOW, code: 'http-status', since: NOW, recordId: 'id1' } as const;
    await table.seed('a.example', {
      ...backoff,
      inserted: stored,
      lastUpdate: stored,
      ...(ago > 0 && { failing }),
    });
    const { refresher } = planned(t, {
      store: table.store,
      lookups: { 'a.example': NEW_ID },
      fetches: { 'a.example': FETCHED },
    });
    assert.deepEqual((await ask([look('a.example')], refresher)).told.summary(), ['a.example replaced']);
    const item = await table.item('a.example');
    assert.deepEqual([item?.Backoff, item?.RecordID], [{ BOOL: false }, { S: 'id2' }]);
  });
}

for (const [what, lookup, why] of [
  ['no record', ABSENT, 'record-absent'],
  ['several records', UNUSABLE, 'record-multiple'],
  ['DNS trouble', UNAVAILABLE, 'dns-servfail'],
] as const) {
  test(`nothing is stored for a domain with ${what}, and nothing fetched`, async (t) => {
    const table = await newTable();
    const { refresher } = planned(t, { store: table.store, lookups: { 'a.example': lookup } });
    const { failed, told } = await ask([look('a.example')], refresher);
    assert.deepEqual(failed, []);
    assert.deepEqual(told.summary(), [`a.example not-implemented ${why}`]);
    assert.equal(await table.item('a.example'), undefined);
  });
}

const HOUR = 60 * MINUTE;
const NOT_YET: Partial<Plan> = {};
const EXTENDED: Partial<Plan> = { lookups: { 'a.example': SAME_ID } };
const LOOKED_UP: Partial<Plan> = { lookups: { 'a.example': NEW_ID } };
const REPLACED: Partial<Plan> = { ...LOOKED_UP, fetches: { 'a.example': FETCHED } };
const failedAt = (lastAttempt: number, recordId?: string): Partial<Seed> => ({
  failing: { lastAttempt, code: 'http-status', since: NOW - DAY, ...(recordId && { recordId }) },
});
const times: [what: string, entry: Partial<Seed>, asks: Partial<Plan>, outcome: string][] = [
  ['was updated now', { lastUpdate: NOW }, NOT_YET, 'skipped too-soon'],
  [
    'was updated a millisecond less than 5 minutes ago',
    { lastUpdate: NOW - 5 * MINUTE + 1 },
    NOT_YET,
    'skipped too-soon',
  ],
  ['was updated 5 minutes ago', { lastUpdate: NOW - 5 * MINUTE }, EXTENDED, 'extended'],
  ['was inserted a moment ago', { inserted: NOW - 1, lastUpdate: NOW - 1 }, NOT_YET, 'skipped too-soon'],
  ['was updated a moment ahead, by another clock', { lastUpdate: NOW + 1_000 }, NOT_YET, 'skipped too-soon'],
  [
    'was updated hours ahead, by a clock that was wrong',
    { lastUpdate: NOW + 3 * HOUR },
    EXTENDED,
    'extended',
  ],
  ['was updated years ahead, by a hand', { lastUpdate: NOW + 9_999 * DAY }, REPLACED, 'replaced'],
  [
    'was updated and then failed within 5 minutes',
    { lastUpdate: NOW - 2 * MINUTE, ...failedAt(NOW - MINUTE, 'id2') },
    NOT_YET,
    'skipped too-soon',
  ],
  [
    'failed a millisecond less than 5 minutes ago with the id it has',
    failedAt(NOW - 5 * MINUTE + 1, 'id2'),
    LOOKED_UP,
    'skipped too-soon',
  ],
  ['failed 5 minutes ago with the id it has', failedAt(NOW - 5 * MINUTE, 'id2'), REPLACED, 'replaced'],
  ['failed now with another id than it has', failedAt(NOW, 'id3'), REPLACED, 'replaced'],
  ['failed now without a record, and has one again', failedAt(NOW), REPLACED, 'replaced'],
  ['failed now, and has the id of its policy again', failedAt(NOW, 'id2'), EXTENDED, 'extended'],
];
for (const [what, entry, asks, outcome] of times) {
  test(`a domain that ${what}: ${outcome}`, async (t) => {
    const table = await newTable();
    await table.seed('a.example', entry);
    const before = await table.item('a.example');
    const { refresher, asked } = planned(t, { store: table.store, ...asks });
    const { failed, told } = await ask([look('a.example')], refresher);
    assert.deepEqual(failed, []);
    assert.deepEqual(told.summary(), [`a.example ${outcome}`]);
    assert.equal(asked.lookups.length, asks === NOT_YET ? 0 : 1);
    if (outcome === 'skipped too-soon') assert.deepEqual(await table.item('a.example'), before);
    else {
      // Whatever the clock was that wrote it: from here on it is too soon.
      assert.deepEqual((await table.item('a.example'))?.LastUpdate, { N: String(NOW) });
      const again = await ask([look('a.example')], planned(t, { store: table.store }).refresher);
      assert.deepEqual(again.told.summary(), ['a.example skipped too-soon']);
    }
  });
}

const uses: [what: string, lastUse: number, recorded: boolean][] = [
  ['a day and a millisecond ago', NOW - DAY - 1, true],
  ['a day ago', NOW - DAY, false],
  ['now', NOW, false],
  ['tomorrow, by some mistake', NOW + DAY, false],
];
for (const [what, lastUse, recorded] of uses) {
  test(`use of a policy last used ${what} is ${recorded ? '' : 'not '}recorded, and asks nobody`, async (t) => {
    const table = await newTable();
    await table.seed('a.example', { inserted: NOW - 30 * DAY, lastUse });
    const before = await table.item('a.example');
    const touched: string[] = [];
    const touch: PolicyStore['touch'] = (name, ...rest) => {
      touched.push(name);
      return table.store.touch(name, ...rest);
    };
    const { refresher } = planned(t, { store: { ...table.store, touch } });
    const { failed, told } = await ask([used(['a.example'])], refresher);
    assert.deepEqual([failed, told.outcomes], [[], []]);
    assert.deepEqual(touched, recorded ? ['a.example'] : []);
    const LastUse = { N: String(recorded ? NOW : lastUse) };
    assert.deepEqual(await table.item('a.example'), { ...before, LastUse });
  });
}

test('use is recorded where no other is known, and for no domain without an entry', async (t) => {
  const table = await newTable();
  await table.seed('a.example');
  const { LastUse, ...item } = (await table.item('a.example')) ?? {};
  assert.ok(LastUse);
  await table.put(item);
  const remains = { Domain: { S: 'remains.example' }, LastUse: { N: '1' } };
  await table.put(remains);
  const touch: PolicyStore['touch'] = (name, ...rest) => {
    assert.equal(name, 'a.example');
    return table.store.touch(name, ...rest);
  };
  const { refresher } = planned(t, { store: { ...table.store, touch } });
  const { failed } = await ask([used(['a.example', 'unknown.example', 'remains.example'])], refresher);
  assert.deepEqual(failed, []);
  assert.deepEqual(await table.item('a.example'), { ...item, LastUse: { N: String(NOW) } });
  assert.equal(await table.item('unknown.example'), undefined);
  assert.deepEqual(await table.item('remains.example'), remains);
});

test('a use recorded since the read stays, and an entry deleted since is not created again', async (t) => {
  const table = await newTable();
  const { store } = table;
  await table.seed('used.example', { lastUse: NOW - 2 * DAY });
  await table.seed('pruned.example', { lastUse: NOW - 2 * DAY });
  const read: PolicyStore['read'] = async (names) => {
    const result = await store.read(names);
    assert.equal(await store.touch(domain('used.example'), NOW + 1, NOW), 'written');
    assert.equal(await store.prune(domain('pruned.example'), NOW, NOW - DAY), 'written');
    return result;
  };
  const { refresher } = planned(t, { store: { ...store, read } });
  assert.deepEqual((await ask([used(['used.example', 'pruned.example'])], refresher)).failed, []);
  assert.deepEqual((await table.item('used.example'))?.LastUse, { N: String(NOW + 1) });
  assert.equal(await table.item('pruned.example'), undefined);
});

test('a long report leaves connections to others: 25 uses are read and written at a time', async (t) => {
  const table = await newTable();
  const names = Array.from({ length: 70 }, (_, i) => `d${i}.example`);
  await Promise.all(names.map((name) => table.seed(name)));
  let running = 0;
  let most = 0;
  const touch: PolicyStore['touch'] = async (...use) => {
    most = Math.max(most, ++running);
    const result = await table.store.touch(...use);
    running--;
    return result;
  };
  const { refresher } = planned(t, { store: { ...table.store, touch } });
  assert.deepEqual((await ask([used(names)], refresher)).failed, []);
  assert.equal(most, 25);
});

test('a long report whose time is over is read no further, and comes again', async (t) => {
  const table = await newTable();
  const names = Array.from({ length: 70 }, (_, i) => `d${i}.example`);
  const controller = new AbortController();
  let reads = 0;
  const read: PolicyStore['read'] = (domains) => {
    reads++;
    controller.abort(new Error('out of time'));
    return table.store.read(domains);
  };
  const { refresher } = planned(t, { store: { ...table.store, read } });
  const { telemetry } = recordingTelemetry();
  const context = { refresher, admits: admitsAll, telemetry, signal: controller.signal };
  const failed = await answerRequests([used(names)], context);
  assert.deepEqual([...new Set(failed)], ['used']);
  assert.equal(reads, 1);
});

test('1,000 names are a report, 1,001 are refused', async (t) => {
  const table = await newTable();
  const names = Array.from({ length: 1_001 }, (_, i) => `d${i}.example`);
  await table.seed('d0.example');
  await table.seed('d999.example');
  const { refresher } = planned(t, { store: table.store });
  const refused = await ask([used(names, '1001')], refresher);
  assert.deepEqual(refused.failed, []);
  assert.deepEqual(refused.told.refused, [
    { messageId: '1001', reason: 'used has 1001 domains: at most 1000 a message' },
  ]);
  assert.notEqual((await table.item('d0.example'))?.LastUse?.N, String(NOW));

  const taken = await ask([used(names.slice(0, 1_000))], refresher);
  assert.deepEqual([taken.failed, taken.told.refused], [[], []]);
  for (const name of ['d0.example', 'd999.example']) {
    assert.deepEqual((await table.item(name))?.LastUse, { N: String(NOW) });
  }
});

test('names that are no policy domains are ignored and counted, and do not cost the others their report', async (t) => {
  const table = await newTable();
  await table.seed('a.example');
  const { refresher } = planned(t, { store: table.store });
  const names = ['[192.0.2.1]', '192.0.2.1', '', 'localhost', 'A.example.', 'a.example', 'user@a.example'];
  const { failed, told } = await ask([used(names, '7')], refresher);
  assert.deepEqual([failed, told.refused], [[], []]);
  assert.deepEqual(
    told.infos.map(({ details }) => details),
    [{ message_id: '7', ignored: 5 }],
  );
  assert.deepEqual((await table.item('a.example'))?.LastUse, { N: String(NOW) });
});

test('an unreadable item is reported by its name and acknowledged, whatever is asked about it', async (t) => {
  const table = await newTable();
  const broken = { Domain: { S: 'b.example' }, LastUpdate: { N: '1' }, Mode: { S: 'Enforce' } };
  await table.put(broken);
  for (const request of [look('b.example'), used(['b.example'])]) {
    const { refresher } = planned(t, { store: table.store });
    const { failed, told } = await ask([request], refresher);
    assert.deepEqual([failed, told.errors], [[], []]);
    assert.deepEqual(
      told.unreadable.map(({ key }) => key),
      ['b.example'],
    );
    assert.deepEqual(await table.item('b.example'), broken);
  }
});

test('a batch of everything: each domain is looked at once, and each message has its own fate', async (t) => {
  const table = await newTable();
  for (const name of ['stale.example', 'fresh.example', 'busy.example']) await table.seed(name);
  const { store } = table;
  const touch: PolicyStore['touch'] = (name, ...rest) =>
    name === 'busy.example' ? Promise.reject(FAULT) : store.touch(name, ...rest);
  const { refresher, asked } = planned(t, {
    store: { ...store, touch },
    lookups: {
      'stale.example': SAME_ID,
      'new.example': NEW_ID,
      'none.example': ABSENT,
      'bug.example': () => Promise.reject(FAULT),
    },
    fetches: { 'new.example': FETCHED },
  });
  const messages = [
    look('stale.example', '1'),
    look('STALE.example', '2'),
    look('new.example', '3'),
    look('none.example', '4'),
    look('bug.example', '5'),
    look('bug.example', '6'),
    used(['stale.example', 'fresh.example', 'gone.example'], '7'),
    used(['busy.example', 'stale.example'], '8'),
    used(['busy.example'], '9'),
    message('10', 'stale.example'),
  ];
  const { failed, told } = await ask(messages, refresher);
  assert.deepEqual(failed, ['5', '6', '8', '9']);
  assert.deepEqual(told.summary(), [
    'new.example discovered',
    'none.example not-implemented record-absent',
    'stale.example extended',
  ]);
  assert.deepEqual(told.errors.map((each) => each.domain).sort(), ['bug.example', 'busy.example']);
  assert.deepEqual(
    told.refused.map(({ messageId }) => messageId),
    ['10'],
  );
  assert.deepEqual(asked.lookups.sort(), ['bug.example', 'new.example', 'none.example', 'stale.example']);
  for (const name of ['stale.example', 'fresh.example']) {
    assert.deepEqual((await table.item(name))?.LastUse, { N: String(NOW) }, name);
  }
  assert.deepEqual((await table.item('stale.example'))?.LastUpdate, { N: String(NOW) });
});

const faults: [what: string, alter: (store: PolicyStore) => PolicyStore, failed: string[]][] = [
  ['the read', (store) => ({ ...store, read: () => Promise.reject(FAULT) }), ['look', 'used']],
  ['a write', (store) => ({ ...store, write: () => Promise.reject(FAULT) }), ['look']],
  ['a touch', (store) => ({ ...store, touch: () => Promise.reject(FAULT) }), ['used']],
  [
    'some keys, left unread',
    (store) => ({
      ...store,
      read: async (names) => ({ records: new Map(), unread: new Set(names), unreadable: [] }),
    }),
    ['look', 'used'],
  ],
];
for (const [what, alter, expected] of faults) {
  test(`a fault of ${what} fails the messages that needed it`, async (t) => {
    const table = await newTable();
    await table.seed('a.example');
    await table.seed('b.example');
    const { refresher } = planned(t, { store: alter(table.store), lookups: { 'a.example': SAME_ID } });
    const { failed } = await ask([look('a.example', 'look'), used(['b.example'])], refresher);
    assert.deepEqual(failed, expected);
  });
}

const hung: [what: string, alter: (store: PolicyStore) => PolicyStore, failed: string[]][] = [
  ['read', (store) => ({ ...store, read: () => forever }), ['look', 'used']],
  ['write', (store) => ({ ...store, write: () => forever }), ['look']],
  ['touch', (store) => ({ ...store, touch: () => forever }), ['used']],
];
for (const [what, alter, expected] of hung) {
  test(`a ${what} that hangs fails its messages ten seconds before the function's end`, async (t) => {
    const table = await newTable();
    await table.seed('a.example');
    await table.seed('b.example');
    const { refresher } = planned(t, { store: alter(table.store), lookups: { 'a.example': SAME_ID } });
    const { telemetry, told } = recordingTelemetry();
    const messages = [look('a.example', 'look'), used(['b.example'])];
    const finished = {
      look: () => told.outcomes.length === 1,
      used: async () => (await table.item('b.example'))?.LastUse?.N === String(NOW),
    };
    const { batchItemFailures } = await answeredAtTheEnd(
      t,
      (left) =>
        answerBatch(left, telemetry, (signal) =>
          answerRequests(messages, { refresher, admits: admitsAll, telemetry, signal }),
        ),
      async () =>
        (expected.includes('look') || finished.look()) &&
        (expected.includes('used') || (await finished.used())),
    );
    assert.deepEqual(batchItemFailures.map(({ itemIdentifier }) => itemIdentifier).sort(), expected);
    assert.equal(told.flushes, 1);
  });
}

const bad: [what: string, body: string, reason: RegExp][] = [
  ['nothing', '', /^not JSON/],
  ['null', 'null', /^not a JSON object/],
  ['an array', '["a.example"]', /^not a JSON object/],
  ['an empty object', '{}', /^it should be \{"domain"/],
  ['both kinds in one', '{"domain":"a.example","used":["a.example"]}', /^it should be/],
  ['a domain that is no string', '{"domain":{"S":"a.example"}}', /^domain should be a string/],
  ['domain null', '{"domain":null}', /^domain should be a string/],
  ['an address', '{"domain":"192.0.2.1"}', /ends in a number/],
  ['a URL', '{"domain":"https://a.example/"}', /has the character/],
  ['one label', '{"domain":"metadata"}', /only one label/],
  ['a report that is one name', '{"used":"a.example"}', /^it should be/],
  ['a report that is an object', '{"used":{"0":"a.example","length":1}}', /^it should be/],
  ['a report with times', '{"used":[{"domain":"a.example","lastUse":9999999999999}]}', /array of strings/],
  ['a report with pairs', '{"used":[["a.example",9999999999999]]}', /array of strings/],
  ['a report with null', '{"used":["a.example",null]}', /array of strings/],
];
for (const [what, body, reason] of bad) {
  test(`refuses ${what}, and says why`, () => {
    const decoded = decodeRequest(body);
    assert.match(decoded.ok ? '' : decoded.reason, reason);
  });
}

const text = fc.oneof(fc.constantFrom('a.example', 'A.EXAMPLE.', 'b.example'), fc.domain(), fc.string());
const member = fc.oneof(text, fc.array(text), fc.integer({ min: 0, max: NOW * 2 }), fc.jsonValue());
const NAMES = ['domain', 'used', 'lastUpdate', 'lastUse', 'now', 'delete', 'policy', 'kind', '__proto__'];
const anyBody = fc.oneof(
  // Any UTF-16, halves of surrogate pairs too.
  fc.uint16Array().map((units) => String.fromCharCode(...units)),
  fc.json(),
  fc.record({ domain: text }).map((body) => JSON.stringify(body)),
  fc.record({ used: fc.array(text) }).map((body) => JSON.stringify(body)),
  fc.dictionary(fc.constantFrom(...NAMES), member).map((body) => JSON.stringify(body)),
);

test('decoding never throws, and what it accepts holds policy domains alone', () => {
  fc.assert(
    fc.property(anyBody, (body) => {
      const decoded = decodeRequest(body);
      if (!decoded.ok) return assert.notEqual(decoded.reason, '');
      const domains = decoded.value.kind === 'look' ? [decoded.value.domain] : decoded.value.domains;
      assert.equal(new Set(domains).size, domains.length);
      for (const each of domains) assert.match(each, /^[a-z0-9-]+(\.[a-z0-9-]+)+$/);
    }),
    { numRuns: 1_000 },
  );
});

test('whatever a stolen credential sends, it changes no policy, and lets nothing be pruned sooner', async (t) => {
  const table = await newTable();
  // One that was used lately and one that was not; both refreshed so lately that nobody is asked about them.
  await table.seed('a.example', { lastUpdate: NOW - MINUTE, lastUse: NOW - DAY });
  await table.seed('b.example', { lastUpdate: NOW - MINUTE, lastUse: NOW - 5 * DAY });
  const names = ['a.example', 'b.example'];
  const before = await Promise.all(names.map(table.item));
  const { refresher } = planned(t, { store: table.store });
  // Any other domain has no record.
  const nobody: Refresher = { ...refresher, lookup: async () => ABSENT };
  await fc.assert(
    fc.asyncProperty(fc.array(anyBody, { minLength: 1, maxLength: 10 }), async (bodies) => {
      const { failed, told } = await ask(
        bodies.map((body, i) => message(String(i), body)),
        nobody,
      );
      assert.deepEqual([failed, told.errors], [[], []]);
      for (const [i, name] of names.entries()) {
        const item = await table.item(name);
        const { LastUse = { N: '' } } = before[i] ?? {};
        assert.ok([LastUse.N, String(NOW)].includes(item?.LastUse?.N), 'as it was, or now by our own clock');
        assert.deepEqual({ ...item, LastUse }, before[i]);
      }
    }),
    { numRuns: 60 },
  );
  assert.deepEqual((await table.item('b.example'))?.LastUse, { N: String(NOW) }, 'the test did report use');
});

test('a relay makes a live policy be refreshed, and has no say in how', async (t) => {
  const table = await newTable();
  await table.seed('a.example');
  const body = { domain: 'a.example', lastUpdate: 0, policy: { mode: 'none' }, mx: [], id: 'id1', now: 0 };
  const { refresher } = planned(t, { store: table.store, lookups: { 'a.example': SAME_ID } });
  const { told } = await ask([message('1', body)], refresher);
  assert.deepEqual(told.summary(), ['a.example extended']);
  const item = await table.item('a.example');
  assert.deepEqual(item?.Mode, { S: 'enforce' });
  assert.deepEqual(item?.ValidEnd, { N: String(NOW + OLD.maxAgeSeconds * 1_000) });
});
