import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import { failure } from '../../../functions/mtasts/failure.ts';
import type { Fetched } from '../../../functions/mtasts/fetch.ts';
import type { Lookup } from '../../../functions/mtasts/lookup.ts';
import type { Mode, Policy } from '../../../functions/mtasts/policy.ts';
import { decide } from '../../../functions/refresh/decide.ts';
import type { PolicyRecord } from '../../../functions/store/policy-store.ts';

const NOW = 1_763_788_800_000;
const DAY = 86_400_000;

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

const backoff = stored({ mode: 'none', backoff: true, policy: { mode: 'none', mx: [], maxAgeSeconds: 300 } });

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
  /** `fetch`, or the outcome's kind and the change's, if there is one. */
  expect: string;
};

const enforce = stored();
const testing = stored({ mode: 'testing' });
const none = stored({ mode: 'none' });
const noId = stored({ recordId: undefined });

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

function decideRow({ record, lookup, fetch }: Row) {
  return decide({ record, lookup: lookups[lookup], fetched: fetch && fetches[fetch], now: NOW });
}

for (const row of ROWS) {
  test(`${row.name}: ${row.expect}`, () => {
    const decision = decideRow(row);
    const summary =
      decision.action === 'fetch'
        ? 'fetch'
        : decision.action === 'nothing'
          ? decision.outcome.kind
          : `${decision.outcome.kind} by ${decision.change.kind}`;
    assert.equal(summary, row.expect);
  });
}

function changeOf(row: Omit<Row, 'name' | 'expect'>) {
  const decision = decideRow({ name: '', expect: '', ...row });
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
  const failing = { lastAttempt: NOW - DAY, code: 'http-status', since: NOW - 3 * DAY };
  assert.deepEqual(changeOf({ record: stored({ failing }), lookup: 'changed', fetch: 'down' }), {
    kind: 'fail',
    lastAttempt: NOW,
    code: 'connect-refused',
    since: NOW - 3 * DAY,
  });
  const first = changeOf({ record: enforce, lookup: 'changed', fetch: 'down' });
  assert.equal(first.kind === 'fail' && first.since, NOW);
});

test('when DNS and the host both fail, the fetch is the failure and the lookup is told too', () => {
  const decision = decideRow({ name: '', expect: '', record: enforce, lookup: 'unavailable', fetch: 'down' });
  assert.ok(decision.action === 'write' && decision.outcome.kind === 'kept');
  assert.equal(decision.outcome.failure.code, 'connect-refused');
  assert.equal(decision.outcome.lookupFailure?.code, 'dns-servfail');
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
  for (const record of [enforce, testing, none, backoff, noId]) {
    for (const lookup of Object.keys(lookups) as (keyof typeof lookups)[]) {
      for (const fetch of [undefined, ...Object.keys(fetches)] as (keyof typeof fetches | undefined)[]) {
        const decision = decideRow({ name: '', expect: '', record, lookup, ...(fetch && { fetch }) });
        if (fetch !== undefined) assert.equal(decision.action, 'write');
        if (fetch !== undefined && fetch !== 'ok') {
          assert.ok(decision.action === 'write' && decision.change.kind === 'fail');
        }
      }
    }
  }
});
