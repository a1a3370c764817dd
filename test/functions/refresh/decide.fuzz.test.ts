// What holds of every decision, whatever is stored, whatever DNS and the policy host say, and whatever the clocks show.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import { type FailureCode, failure, RESULT_TYPES } from '../../../functions/mtasts/failure.ts';
import type { Fetched } from '../../../functions/mtasts/fetch.ts';
import type { Lookup } from '../../../functions/mtasts/lookup.ts';
import { MAX_MAX_AGE_SECONDS, MODES, type Policy } from '../../../functions/mtasts/policy.ts';
import { decide, type Situation } from '../../../functions/refresh/decide.ts';
import type { PolicyRecord } from '../../../functions/store/policy-store.ts';

const NOW = 1_763_788_800_000;
const YEAR_MS = 31_557_600_000;

/** Near now, which is where the rules are, or anywhere that the store lets pass. */
const time = fc.oneof(
  fc.integer({ min: -40 * 86_400, max: 40 * 86_400 }).map((seconds) => NOW + seconds * 1_000),
  fc.integer({ min: -301_000, max: 301_000 }).map((milliseconds) => NOW + milliseconds),
  fc.double({ min: 0, max: Date.UTC(10_000), noNaN: true }),
);
const id = fc.constantFrom('id1', 'id2');
const why = fc
  .constantFrom(...(Object.keys(RESULT_TYPES) as FailureCode[]))
  .map((code) => failure(code, 'why'));
const policy: fc.Arbitrary<Policy> = fc.record({
  mode: fc.constantFrom(...MODES),
  mx: fc.constant(['mx.example']),
  maxAgeSeconds: fc.oneof(
    fc.constantFrom(0, 1, 300, 86_400, MAX_MAX_AGE_SECONDS),
    fc.nat(MAX_MAX_AGE_SECONDS),
  ),
});
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
const record: fc.Arbitrary<PolicyRecord> = fc.record({
  domain: fc.constant('a.example' as Domain),
  policy,
  backoff: fc.boolean(),
  validEnd: time,
  recordId: optional(id),
  lastUpdate: time.map(Math.floor),
  lastFetch: optional(time),
  lastUse: optional(time),
  inserted: optional(time),
  failing: optional(fc.record({ lastAttempt: time, code: fc.string(), since: time, recordId: optional(id) })),
});
const lookup: fc.Arbitrary<Lookup> = fc.oneof(
  id.map((found) => ({ status: 'found' as const, id: found })),
  fc.record({ status: fc.constantFrom('absent', 'unusable', 'unavailable'), failure: why }),
);
const fetched: fc.Arbitrary<Fetched> = fc.oneof(
  fc.record({ ok: fc.constant(true), policy, text: fc.constant('text') }),
  fc.record({ ok: fc.constant(false), failure: why }),
);
const situation: fc.Arbitrary<Omit<Situation, 'fetched'>> = fc.record({
  record: optional(record),
  lookup,
  now: fc.constant(NOW),
  rules: fc.record({
    retryAfterMs: fc.constant(300_000),
    maxFetchAgeMs: fc.constantFrom(0, 7 * 86_400_000),
  }),
});

test('no decision shortens, breaks or ends a policy against the rules, nor leaves the lock where it was', () => {
  const kinds = new Set<string>();
  fc.assert(
    fc.property(situation, fetched, (given, answered) => {
      const { record: held, lookup: looked } = given;
      const first = decide({ ...given, fetched: undefined });
      const answer = first.action === 'fetch' ? answered : undefined;
      const decision = answer ? decide({ ...given, fetched: answer }) : first;
      kinds.add(decision.action === 'write' ? decision.change.kind : decision.action);
      if (decision.action === 'fetch') return assert.fail('asked a second time');
      if (decision.action === 'nothing') return assert.equal(answer, undefined, 'asked in vain');

      const { change } = decision;
      assert.equal(change.kind === 'insert', held === undefined);
      switch (change.kind) {
        case 'remove':
          // RFC 8461 §8.3
          assert.ok(held?.policy.mode === 'none' && looked.status === 'absent');
          return;
        case 'fail':
          // RFC 8461 §3.3: nothing about the policy.
          assert.deepEqual(Object.keys(change).sort(), ['code', 'kind', 'lastAttempt', 'recordId', 'since']);
          assert.ok(!answer?.ok);
          return;
        case 'extend':
          assert.ok(held && !held.backoff && looked.status === 'found' && looked.id === held.recordId);
          assert.ok(change.validEnd >= held.validEnd, 'shortened');
          assert.ok(change.validEnd <= Math.max(held.validEnd, NOW + held.policy.maxAgeSeconds * 1_000));
          break;
        case 'insert':
        case 'replace':
          assert.equal(change.backoff, !answer?.ok);
          assert.ok(held === undefined || answer?.ok, 'a live policy gave way to a back-off');
          assert.ok(change.validEnd >= NOW && change.validEnd <= NOW + YEAR_MS);
      }
      const ahead = held !== undefined && held.lastUpdate >= NOW + given.rules.retryAfterMs;
      assert.notEqual(change.lastUpdate, held?.lastUpdate);
      assert.ok(
        ahead ? change.lastUpdate === NOW : change.lastUpdate >= Math.max(NOW, (held?.lastUpdate ?? 0) + 1),
      );
      assert.ok(Number.isSafeInteger(change.lastUpdate));
    }),
    { numRuns: 5_000 },
  );
  assert.deepEqual([...kinds].sort(), ['extend', 'fail', 'insert', 'nothing', 'remove', 'replace']);
});
