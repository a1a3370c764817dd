import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import { failure } from '../../../functions/mtasts/failure.ts';
import type { Fetched } from '../../../functions/mtasts/fetch.ts';
import type { Lookup } from '../../../functions/mtasts/lookup.ts';
import type { Mode, Policy } from '../../../functions/mtasts/policy.ts';
import { decide, type Rules } from '../../../functions/refresh/decide.ts';
import type { LastFailure, PolicyRecord } from '../../../functions/store/policy-store.ts';

const NOW = 1_763_788_800_000;
const MINUTE = 60_000;
const DAY = 86_400_000;

const RULES: Rules = { retryAfterMs: 5 * MINUTE, maxFetchAgeMs: 7 * DAY };
const MOX: Partial<Rules> = { maxFetchAgeMs: 0 };

const OLD: Policy = { mode: 'enforce', mx: ['old.example.com'], maxAgeSeconds: 604_800 };
const NEW: Policy = { mode: 'testing', mx: ['new.example.com'], maxAgeSeconds: 86_400 };

function stored(overrides: Partial<PolicyRecord> & { mode?: Mode } = {}): PolicyRecord {
  const { mode = 'enforce', ...rest } = overrides;
  return {
    domain: 'example.com' as Domain,
    policy: { ...OLD, mode },
    backoff: false,
    validEnd: NOW + DAY,
    recordId: 'old',
    lastUpdate: NOW - DAY,
    lastFetch: NOW - DAY,
    lastUse: NOW - DAY,
    inserted: NOW - 30 * DAY,
    failing: undefined,
    ...rest,
  };
}

const backoff = stored({
  backoff: true,
  policy: { mode: 'none', mx: [], maxAgeSeconds: 300 },
  validEnd: NOW - DAY + 300_000,
  lastFetch: undefined,
});

const lookups = {
  same: { status: 'found', id: 'old' },
  changed: { status: 'found', id: 'new' },
  absent: { status: 'absent', failure: failure('record-absent', 'none') },
  unusable: { status: 'unusable', failure: failure('record-multiple', 'two') },
  unavailable: { status: 'unavailable', failure: failure('dns-servfail', 'servfail') },
} as const satisfies Record<string, Lookup>;

const fetches = {
  ok: { ok: true, policy: NEW, text: 'the new text' },
  down: { ok: false, failure: failure('connect-refused', 'refused') },
  invalid: { ok: false, failure: failure('policy-invalid', 'line 1') },
} as const satisfies Record<string, Fetched>;

type Row = {
  name: string;
  record: PolicyRecord | undefined;
  lookup: keyof typeof lookups;
  fetch?: keyof typeof fetches;
  rules?: Partial<Rules>;
  /** `fetch`, or the outcome's kind, and its reason or the kind of its change. */
  expect: string;
};

const enforce = stored();
const testing = stored({ mode: 'testing' });
const none = stored({ mode: 'none' });
const noId = stored({ recordId: undefined });

/** A policy of `maxAgeSeconds` that is still valid, and was fetched so long ago. */
function fetchedAgo(ago: number, maxAgeSeconds = OLD.maxAgeSeconds): PolicyRecord {
  return stored({ policy: { ...OLD, maxAgeSeconds }, lastFetch: NOW - ago });
}

const MONTH_SECONDS = 2_592_000;
const HALF_A_WEEK = (7 * DAY) / 2;
const LONG_AGO = 8 * DAY;

const noFetch = stored({ lastFetch: undefined });
const oldFetch = fetchedAgo(LONG_AGO);
const expired = stored({ validEnd: NOW });
const noneOldFetch = stored({ mode: 'none', lastFetch: NOW - LONG_AGO });

/** One whose last refresh failed so long ago, with a record of that id. */
function failed(ago: number, recordId: string | undefined, record: PolicyRecord = enforce): PolicyRecord {
  const failing: LastFailure = {
    lastAttempt: NOW - ago,
    code: 'http-status',
    since: NOW - 2 * DAY,
    recordId,
  };
  return { ...record, failing };
}

/** A back-off stored so long ago. */
function backedOff(ago: number): PolicyRecord {
  return { ...backoff, lastUpdate: NOW - ago, inserted: NOW - ago, validEnd: NOW - ago + 300_000 };
}

const ROWS: Row[] = [
  // 1. found with the same id: extend
  { name: 'same id', record: enforce, lookup: 'same', expect: 'extended by extend' },
  { name: 'same id, testing', record: testing, lookup: 'same', expect: 'extended by extend' },
  { name: 'same id, none', record: none, lookup: 'same', expect: 'extended by extend' },
  { name: 'same id, but a back-off', record: backoff, lookup: 'same', expect: 'fetch' },
  { name: 'id never seen before', record: noId, lookup: 'same', expect: 'fetch' },
  { name: 'another id', record: enforce, lookup: 'changed', expect: 'fetch' },
  { name: 'another id, none', record: none, lookup: 'changed', expect: 'fetch' },
  { name: 'another id, back-off', record: backoff, lookup: 'changed', expect: 'fetch' },
  // 2. mode none: gone with its record, otherwise left alone
  { name: 'none, record gone', record: none, lookup: 'absent', expect: 'removed by remove' },
  { name: 'back-off, record gone', record: backoff, lookup: 'absent', expect: 'removed by remove' },
  { name: 'none, two records', record: none, lookup: 'unusable', expect: 'kept by fail' },
  { name: 'none, SERVFAIL', record: none, lookup: 'unavailable', expect: 'kept by fail' },
  { name: 'back-off, SERVFAIL', record: backoff, lookup: 'unavailable', expect: 'kept by fail' },
  // 3. any lookup failure, enforce or testing: fetch all the same
  { name: 'enforce, record gone', record: enforce, lookup: 'absent', expect: 'fetch' },
  { name: 'enforce, two records', record: enforce, lookup: 'unusable', expect: 'fetch' },
  { name: 'enforce, SERVFAIL', record: enforce, lookup: 'unavailable', expect: 'fetch' },
  { name: 'testing, record gone', record: testing, lookup: 'absent', expect: 'fetch' },
  { name: 'testing, two records', record: testing, lookup: 'unusable', expect: 'fetch' },
  { name: 'testing, SERVFAIL', record: testing, lookup: 'unavailable', expect: 'fetch' },
  // 4. the fetch fails: keep what there is
  {
    name: 'another id, host down',
    record: enforce,
    lookup: 'changed',
    fetch: 'down',
    expect: 'kept by fail',
  },
  {
    name: 'another id, invalid',
    record: testing,
    lookup: 'changed',
    fetch: 'invalid',
    expect: 'kept by fail',
  },
  { name: 'none, another id, down', record: none, lookup: 'changed', fetch: 'down', expect: 'kept by fail' },
  {
    name: 'record gone, host down',
    record: enforce,
    lookup: 'absent',
    fetch: 'down',
    expect: 'kept by fail',
  },
  {
    name: 'SERVFAIL, host down',
    record: testing,
    lookup: 'unavailable',
    fetch: 'down',
    expect: 'kept by fail',
  },
  { name: 'back-off, still down', record: backoff, lookup: 'same', fetch: 'down', expect: 'kept by fail' },
  // 5. the fetch succeeds: replace
  {
    name: 'another id, fetched',
    record: enforce,
    lookup: 'changed',
    fetch: 'ok',
    expect: 'replaced by replace',
  },
  {
    name: 'record gone, fetched',
    record: enforce,
    lookup: 'absent',
    fetch: 'ok',
    expect: 'replaced by replace',
  },
  {
    name: 'two records, fetched',
    record: enforce,
    lookup: 'unusable',
    fetch: 'ok',
    expect: 'replaced by replace',
  },
  {
    name: 'SERVFAIL, fetched',
    record: testing,
    lookup: 'unavailable',
    fetch: 'ok',
    expect: 'replaced by replace',
  },
  { name: 'back-off ends', record: backoff, lookup: 'same', fetch: 'ok', expect: 'replaced by replace' },
  // An unchanged id vouches only for a policy that is valid, and was fetched less than 7 days and half of max_age ago
  {
    name: 'same id, month-long, fetched a ms less than 7 days ago',
    record: fetchedAgo(7 * DAY - 1, MONTH_SECONDS),
    lookup: 'same',
    expect: 'extended by extend',
  },
  {
    name: 'same id, month-long, fetched 7 days ago',
    record: fetchedAgo(7 * DAY, MONTH_SECONDS),
    lookup: 'same',
    expect: 'fetch',
  },
  {
    name: 'same id, week-long, fetched a ms less than half a week ago',
    record: fetchedAgo(HALF_A_WEEK - 1),
    lookup: 'same',
    expect: 'extended by extend',
  },
  {
    name: 'same id, week-long, fetched half a week ago',
    record: fetchedAgo(HALF_A_WEEK),
    lookup: 'same',
    expect: 'fetch',
  },
  {
    name: 'same id, two weeks long, where half of it is 7 days: a ms less',
    record: fetchedAgo(7 * DAY - 1, 1_209_600),
    lookup: 'same',
    expect: 'extended by extend',
  },
  {
    name: 'same id, two weeks long, where half of it is 7 days: exactly',
    record: fetchedAgo(7 * DAY, 1_209_600),
    lookup: 'same',
    expect: 'fetch',
  },
  { name: 'same id, max_age 0', record: fetchedAgo(0, 0), lookup: 'same', expect: 'fetch' },
  { name: 'same id, fetch unknown', record: noFetch, lookup: 'same', expect: 'fetch' },
  {
    name: 'same id, fetched a moment ahead by another clock',
    record: fetchedAgo(-1_000),
    lookup: 'same',
    expect: 'extended by extend',
  },
  {
    name: 'same id, fetched in a year by some mistake',
    record: fetchedAgo(-365 * DAY),
    lookup: 'same',
    expect: 'fetch',
  },
  {
    name: 'same id, valid for another ms',
    record: stored({ validEnd: NOW + 1 }),
    lookup: 'same',
    expect: 'extended by extend',
  },
  { name: 'same id, expired this ms', record: expired, lookup: 'same', expect: 'fetch' },
  {
    name: 'same id, testing, expired',
    record: stored({ mode: 'testing', validEnd: NOW - DAY }),
    lookup: 'same',
    expect: 'fetch',
  },
  { name: 'same id, none, fetched long ago', record: noneOldFetch, lookup: 'same', expect: 'fetch' },
  {
    name: 'same id, none, expired',
    record: stored({ mode: 'none', validEnd: NOW - 1 }),
    lookup: 'same',
    expect: 'fetch',
  },
  {
    name: 'same id, fetched long ago and now',
    record: oldFetch,
    lookup: 'same',
    fetch: 'ok',
    expect: 'replaced by replace',
  },
  {
    name: 'same id, fetched long ago, host down',
    record: oldFetch,
    lookup: 'same',
    fetch: 'down',
    expect: 'kept by fail',
  },
  {
    name: 'same id, fetched a day ago, which is the limit',
    record: fetchedAgo(DAY),
    lookup: 'same',
    rules: { maxFetchAgeMs: DAY },
    expect: 'fetch',
  },
  {
    name: 'same id, fetched a ms less than the limit ago',
    record: fetchedAgo(DAY - 1),
    lookup: 'same',
    rules: { maxFetchAgeMs: DAY },
    expect: 'extended by extend',
  },
  {
    name: 'mox: same id, fetched long ago',
    record: oldFetch,
    lookup: 'same',
    rules: MOX,
    expect: 'extended by extend',
  },
  {
    name: 'mox: same id, fetch unknown',
    record: noFetch,
    lookup: 'same',
    rules: MOX,
    expect: 'extended by extend',
  },
  {
    name: 'mox: same id, expired',
    record: expired,
    lookup: 'same',
    rules: MOX,
    expect: 'extended by extend',
  },
  { name: 'mox: same id, back-off', record: backoff, lookup: 'same', rules: MOX, expect: 'fetch' },
  { name: 'mox: another id', record: enforce, lookup: 'changed', rules: MOX, expect: 'fetch' },

  // RFC 8461 §3.3: five minutes before the same id is fetched again; a new one is fetched at once
  {
    name: 'failed this ms, that id',
    record: failed(0, 'new'),
    lookup: 'changed',
    expect: 'skipped too-soon',
  },
  {
    name: 'failed a ms less than 5 minutes ago, that id',
    record: failed(5 * MINUTE - 1, 'new'),
    lookup: 'changed',
    expect: 'skipped too-soon',
  },
  {
    name: 'failed 5 minutes ago, that id',
    record: failed(5 * MINUTE, 'new'),
    lookup: 'changed',
    expect: 'fetch',
  },
  { name: 'failed this ms, a newer id', record: failed(0, 'newer'), lookup: 'changed', expect: 'fetch' },
  {
    name: 'failed a moment ahead by another clock, that id',
    record: failed(-1_000, 'new'),
    lookup: 'changed',
    expect: 'skipped too-soon',
  },
  {
    name: 'failed tomorrow by some mistake, that id',
    record: failed(-DAY, 'new'),
    lookup: 'changed',
    expect: 'fetch',
  },
  {
    name: 'failed a second ago, where that is enough',
    record: failed(1_000, 'new'),
    lookup: 'changed',
    rules: { retryAfterMs: 1_000 },
    expect: 'fetch',
  },
  {
    name: 'failed this ms without a record, now there is one',
    record: failed(0, undefined),
    lookup: 'changed',
    expect: 'fetch',
  },
  {
    name: 'failed this ms, the held id, which vouches no more',
    record: failed(0, 'old', oldFetch),
    lookup: 'same',
    expect: 'skipped too-soon',
  },
  {
    name: 'failed 5 minutes ago, the held id, which vouches no more',
    record: failed(5 * MINUTE, 'old', oldFetch),
    lookup: 'same',
    expect: 'fetch',
  },
  {
    name: 'failed this ms with a new id that was taken back, the held one vouches no more',
    record: failed(0, 'new', oldFetch),
    lookup: 'same',
    expect: 'fetch',
  },
  ...(['absent', 'unusable', 'unavailable'] as const).flatMap((lookup): Row[] => [
    {
      name: `failed a ms less than 5 minutes ago without a record, ${lookup}`,
      record: failed(5 * MINUTE - 1, undefined),
      lookup,
      expect: 'skipped too-soon',
    },
    {
      name: `failed 5 minutes ago without a record, ${lookup}`,
      record: failed(5 * MINUTE, undefined),
      lookup,
      expect: 'fetch',
    },
    {
      name: `failed this ms with an id, then ${lookup}`,
      record: failed(0, 'new'),
      lookup,
      expect: 'skipped too-soon',
    },
    {
      name: `failed 5 minutes ago with an id, then ${lookup}`,
      record: failed(5 * MINUTE, 'new'),
      lookup,
      expect: 'fetch',
    },
  ]),
  // what needs no fetch does not wait
  {
    name: 'failed this ms with a new id that was taken back',
    record: failed(0, 'new'),
    lookup: 'same',
    expect: 'extended by extend',
  },
  {
    name: 'failed this ms without a record, the held id is back',
    record: failed(0, undefined),
    lookup: 'same',
    expect: 'extended by extend',
  },
  {
    name: 'failed this ms with the held id, which vouches all the same',
    record: failed(0, 'old'),
    lookup: 'same',
    expect: 'extended by extend',
  },
  {
    name: 'none, failed this ms, record gone',
    record: failed(0, 'new', none),
    lookup: 'absent',
    expect: 'removed by remove',
  },
  {
    name: 'none, failed a ms less than 5 minutes ago, SERVFAIL',
    record: failed(5 * MINUTE - 1, undefined, none),
    lookup: 'unavailable',
    expect: 'skipped too-soon',
  },
  {
    name: 'none, failed 5 minutes ago, SERVFAIL',
    record: failed(5 * MINUTE, undefined, none),
    lookup: 'unavailable',
    expect: 'kept by fail',
  },
  // a back-off is a failure of its id, from when it was stored
  {
    name: 'back-off of 4 minutes',
    record: backedOff(4 * MINUTE),
    lookup: 'same',
    expect: 'skipped too-soon',
  },
  {
    name: 'back-off of a ms less than 5 minutes',
    record: backedOff(5 * MINUTE - 1),
    lookup: 'same',
    expect: 'skipped too-soon',
  },
  { name: 'back-off of 5 minutes', record: backedOff(5 * MINUTE), lookup: 'same', expect: 'fetch' },
  {
    name: 'back-off of 4 minutes, new id',
    record: backedOff(4 * MINUTE),
    lookup: 'changed',
    expect: 'fetch',
  },
  {
    name: 'back-off of 4 minutes, SERVFAIL',
    record: backedOff(4 * MINUTE),
    lookup: 'unavailable',
    expect: 'skipped too-soon',
  },
  {
    name: 'back-off of 4 minutes, record gone',
    record: backedOff(4 * MINUTE),
    lookup: 'absent',
    expect: 'removed by remove',
  },
  {
    name: 'back-off of a day that failed 4 minutes ago',
    record: failed(4 * MINUTE, 'old', backoff),
    lookup: 'same',
    expect: 'skipped too-soon',
  },
  {
    name: 'back-off of a day that failed 4 minutes ago, new id',
    record: failed(4 * MINUTE, 'old', backoff),
    lookup: 'changed',
    expect: 'fetch',
  },
  {
    name: 'back-off of a day that failed 4 minutes ago with the new id',
    record: failed(4 * MINUTE, 'new', backoff),
    lookup: 'changed',
    expect: 'skipped too-soon',
  },
  // a domain that is not known
  { name: 'unknown, record', record: undefined, lookup: 'same', expect: 'fetch' },
  { name: 'unknown, policy', record: undefined, lookup: 'same', fetch: 'ok', expect: 'discovered by insert' },
  {
    name: 'unknown, no policy',
    record: undefined,
    lookup: 'same',
    fetch: 'down',
    expect: 'backed-off by insert',
  },
  { name: 'unknown, no record', record: undefined, lookup: 'absent', expect: 'not-implemented' },
  { name: 'unknown, two records', record: undefined, lookup: 'unusable', expect: 'not-implemented' },
  { name: 'unknown, SERVFAIL', record: undefined, lookup: 'unavailable', expect: 'not-implemented' },
];

function decideRow({ record, lookup, fetch, rules }: Omit<Row, 'name' | 'expect'>) {
  return decide({
    record,
    lookup: lookups[lookup],
    fetched: fetch && fetches[fetch],
    now: NOW,
    rules: { ...RULES, ...rules },
  });
}

function summarize(decision: ReturnType<typeof decide>): string {
  if (decision.action === 'fetch') return 'fetch';
  const { outcome } = decision;
  if (decision.action === 'write') return `${outcome.kind} by ${decision.change.kind}`;
  return 'reason' in outcome ? `${outcome.kind} ${outcome.reason}` : outcome.kind;
}

for (const row of ROWS) {
  test(`${row.name}: ${row.expect}`, () => assert.equal(summarize(decideRow(row)), row.expect));
}

function changeOf(row: Omit<Row, 'name' | 'expect'>) {
  const decision = decideRow(row);
  assert.equal(decision.action, 'write');
  return decision.change;
}

test('extending counts max_age from now and moves nothing else', () => {
  assert.deepEqual(changeOf({ record: enforce, lookup: 'same' }), {
    kind: 'extend',
    validEnd: NOW + 604_800_000,
    lastUpdate: NOW,
  });
});

test('replacing takes the whole policy, the new id, and ends a back-off', () => {
  assert.deepEqual(changeOf({ record: enforce, lookup: 'changed', fetch: 'ok' }), {
    kind: 'replace',
    policy: NEW,
    policyText: 'the new text',
    backoff: false,
    validEnd: NOW + 86_400_000,
    recordId: 'new',
    lastUpdate: NOW,
    lastFetch: NOW,
  });
});

test('replacing without a record keeps the old id', () => {
  for (const lookup of ['absent', 'unusable', 'unavailable'] as const) {
    const change = changeOf({ record: enforce, lookup, fetch: 'ok' });
    assert.equal(change.kind === 'replace' && change.recordId, 'old');
  }
});

test('an unknown domain whose policy cannot be fetched becomes a back-off of 300 s without a fetch', () => {
  assert.deepEqual(changeOf({ record: undefined, lookup: 'changed', fetch: 'down' }), {
    kind: 'insert',
    policy: { mode: 'none', mx: [], maxAgeSeconds: 300 },
    policyText: '',
    backoff: true,
    validEnd: NOW + 300_000,
    recordId: 'new',
    lastUpdate: NOW,
    lastFetch: undefined,
  });
});

test('failing since is the first failure of a row, and the code is the newest', () => {
  assert.deepEqual(changeOf({ record: failed(DAY, 'newer'), lookup: 'changed', fetch: 'down' }), {
    kind: 'fail',
    lastAttempt: NOW,
    code: 'connect-refused',
    since: NOW - 2 * DAY,
    recordId: 'new',
  });
  const first = changeOf({ record: enforce, lookup: 'changed', fetch: 'down' });
  assert.equal(first.kind === 'fail' && first.since, NOW);
});

test('a failure is that of the id that was looked up, which is not the one held, or of none', () => {
  const failedWith = (row: Omit<Row, 'name' | 'expect'>) => {
    const change = changeOf(row);
    assert.equal(change.kind, 'fail');
    return change.recordId;
  };
  assert.equal(failedWith({ record: enforce, lookup: 'changed', fetch: 'down' }), 'new');
  assert.equal(failedWith({ record: oldFetch, lookup: 'same', fetch: 'down' }), 'old');
  for (const lookup of ['absent', 'unusable', 'unavailable'] as const) {
    assert.equal(failedWith({ record: failed(DAY, 'new'), lookup, fetch: 'down' }), undefined);
  }
  assert.equal(failedWith({ record: failed(DAY, 'new', none), lookup: 'unavailable' }), undefined);
});

test('when DNS and the host both fail, the fetch is the failure and the lookup is told too', () => {
  const decision = decideRow({ record: enforce, lookup: 'unavailable', fetch: 'down' });
  assert.ok(decision.action === 'write' && decision.outcome.kind === 'kept');
  assert.equal(decision.outcome.failure.code, 'connect-refused');
  assert.equal(decision.outcome.lookupFailure?.code, 'dns-servfail');
});

test('what fails alone is told alone', () => {
  for (const [row, code] of [
    [{ record: enforce, lookup: 'changed', fetch: 'invalid' }, 'policy-invalid'],
    [{ record: none, lookup: 'unavailable' }, 'dns-servfail'],
  ] as const) {
    const decision = decideRow(row);
    assert.ok(decision.action === 'write' && decision.outcome.kind === 'kept');
    assert.equal(decision.outcome.failure.code, code);
    assert.equal(decision.outcome.lookupFailure, undefined);
  }
});

test('an extension never ends earlier than the policy did, although the clock went back', () => {
  const ahead = stored({ validEnd: NOW + 604_800_000 + 5_000 });
  const change = changeOf({ record: ahead, lookup: 'same' });
  assert.equal(change.kind === 'extend' && change.validEnd, NOW + 604_800_000 + 5_000);
});

test('LastUpdate grows although the clock went back', () => {
  const ahead = stored({ lastUpdate: NOW + 5_000 });
  for (const row of [
    { record: ahead, lookup: 'same' },
    { record: ahead, lookup: 'changed', fetch: 'ok' },
  ] as const) {
    const change = changeOf(row);
    assert.equal('lastUpdate' in change && change.lastUpdate, NOW + 5_001);
  }
});

test('every situation of a known domain is decided, and no failure writes anything of the policy', () => {
  const records = ROWS.flatMap((row) => row.record ?? []);
  for (const record of records) {
    for (const lookup of Object.keys(lookups) as (keyof typeof lookups)[]) {
      for (const rules of [RULES, MOX]) {
        const first = decideRow({ record, lookup, rules });
        if (first.action === 'write') {
          // Without a word from the policy host.
          assert.ok(['extend', 'fail', 'remove'].includes(first.change.kind));
          assert.ok(first.change.kind !== 'extend' || !record.backoff, 'a back-off is never extended');
        }
        for (const fetch of Object.keys(fetches) as (keyof typeof fetches)[]) {
          const decision = decideRow({ record, lookup, fetch, rules });
          assert.ok(decision.action === 'write');
          assert.equal(decision.change.kind, fetch === 'ok' ? 'replace' : 'fail');
        }
      }
    }
  }
});
