// Everybody who changes an entry, at once: refreshes and copies of them, relays' requests, reports of use, and the
// daily run's pruning. Each stops before every question and every access to the table. Who goes on next, how far the
// clock moves meanwhile, how wrong each one's clock is, and what it is told, is fast-check's to choose.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AttributeValue } from '@aws-sdk/client-dynamodb';
import fc from 'fast-check';
import type { Fetched } from '../../../functions/mtasts/fetch.ts';
import type { Lookup } from '../../../functions/mtasts/lookup.ts';
import { formatPolicy, type Policy } from '../../../functions/mtasts/policy.ts';
import { refreshMessages } from '../../../functions/refresh/messages.ts';
import { answerRequests } from '../../../functions/request/request.ts';
import type { Change, PolicyStore, WriteResult } from '../../../functions/store/policy-store.ts';
import type { Seed } from '../../../infra/local/seed.ts';
import { THOROUGH } from '../../runner/thorough.ts';
import {
  ABSENT,
  admitsAll,
  DAY,
  domain,
  FETCHED,
  MINUTE,
  message,
  NEW,
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
  UNUSABLE,
} from './scene.ts';

const newTable = await startTables();

type Item = Record<string, AttributeValue>;

const MAX_ACTORS = 6;
const MAX_SKEW = 2 * MINUTE;

const served = (policy: Policy): Fetched => ({ ok: true, policy, text: formatPolicy(policy) });

const actor = fc.record({
  /** `copy`: a refresh that was planned at the start; `refresh`: one planned for what is there when it begins. */
  does: fc.constantFrom('refresh', 'copy', 'copy', 'look', 'look', 'use', 'prune'),
  lookup: fc.constantFrom(SAME_ID, SAME_ID, NEW_ID, NEW_ID, ABSENT, UNUSABLE, UNAVAILABLE),
  fetch: fc.constantFrom(
    FETCHED,
    served(OLD),
    served({ ...OLD, mode: 'none' }),
    served({ ...NEW, maxAgeSeconds: 60 }),
    NOT_FETCHED,
  ),
  /** How far its clock is off. */
  skew: fc.integer({ min: -MAX_SKEW, max: MAX_SKEW }),
});
const step = fc.record({
  who: fc.nat(MAX_ACTORS - 1),
  passes: fc.oneof(fc.integer({ min: 64, max: 1_000 }), fc.integer({ min: 64, max: 4 * MINUTE })),
});

const BACKOFF = { policy: { mode: 'none', mx: [], maxAgeSeconds: 300 }, backoff: true } as const;
const failing = (recordId?: string) =>
  ({
    lastAttempt: NOW - MINUTE,
    code: 'http-status',
    since: NOW - DAY,
    ...(recordId && { recordId }),
  }) as const;
const start = fc.constantFrom<(Partial<Seed> | undefined)[]>(
  undefined,
  {},
  {},
  { policy: { ...OLD, mode: 'testing' } },
  { policy: { ...OLD, mode: 'none' } },
  { policy: NEW, lastUpdate: NOW - DAY + 10 * MINUTE },
  // By a clock that was ahead.
  { lastUpdate: NOW + MAX_SKEW },
  { lastFetch: NOW - 5 * DAY },
  { failing: failing() },
  { failing: failing('id2'), lastFetch: NOW - 5 * DAY },
  BACKOFF,
  { ...BACKOFF, inserted: NOW - MINUTE, lastUpdate: NOW - MINUTE },
);

/** Work that stops at every gate until it is let through. */
function stepwise(work: (gate: () => Promise<void>) => Promise<void>) {
  let open = () => {};
  let stopped = Promise.withResolvers<void>();
  let ended = false;
  const gate = () => {
    stopped.resolve();
    return new Promise<void>((resolve) => {
      open = resolve;
    });
  };
  gate()
    .then(() => work(gate))
    .then(() => {
      ended = true;
      stopped.resolve();
    })
    .catch((error) => stopped.reject(error));
  return {
    ended: () => ended,
    async next() {
      stopped = Promise.withResolvers();
      open();
      await stopped.promise;
    },
  };
}

const numberOf = (item: Item | undefined, name: string) => Number(item?.[name]?.N);

/** An item without some of its attributes. */
function without(item: Item | undefined, ...names: string[]): Item {
  return Object.fromEntries(Object.entries(item ?? {}).filter(([name]) => !names.includes(name)));
}

const FAILURE = ['LastAttempt', 'LastFailure', 'FailingSince', 'FailedRecordID'];

/** A write that was carried out, and what its writer knew. */
interface Write {
  readonly before: Item | undefined;
  readonly after: Item | undefined;
  readonly change: Change;
  readonly expected: number | undefined;
  readonly lookup: Lookup;
  readonly fetch: Fetched;
  /** By the writer's clock, when it decided. */
  readonly now: number;
}

/**
 * Says what may become of an entry by a write, given all that went before.
 *
 * @param mostSkew by which any two clocks differ.
 */
function createJudge(mostSkew: number): (write: Write) => void {
  /** Versions that a successful refresh was built on, and all that were written. */
  const builtOn = new Set<number>();
  const versions = new Set<number>();

  function judgeInsert({ before, after, lookup, fetch, now }: Write) {
    assert.equal(before, undefined, 'no discovery is written over an entry');
    assert.equal(lookup.status, 'found', 'nothing is stored for a domain without a record');
    assert.equal(after?.Backoff?.BOOL, !fetch.ok);
    assert.equal(
      after?.PolicyText?.S,
      fetch.ok ? fetch.text : undefined,
      'nothing of a deleted entry is back',
    );
    assert.equal(numberOf(after, 'LastUpdate'), now);
    assert.equal(numberOf(after, 'Inserted'), now);
  }

  function judgeFailure({ before, after, now }: Write) {
    assert.deepEqual(
      without(after, ...FAILURE),
      without(before, ...FAILURE),
      'what relays read is as it was',
    );
    assert.deepEqual(after?.LastAttempt, { N: String(now) });
  }

  function judgeRefresh({ before, after, change, lookup, fetch, now }: Write) {
    const version = numberOf(before, 'LastUpdate');
    assert.ok(!builtOn.has(version), 'one successful refresh for each version');
    builtOn.add(version);
    if (change.kind === 'remove') {
      assert.equal(before?.Mode?.S, 'none', 'only what says `none` is removed');
      assert.equal(lookup.status, 'absent', 'and only with its record');
      return;
    }
    assert.ok(numberOf(after, 'LastUpdate') > version, 'LastUpdate grows');
    assert.equal(after?.Backoff?.BOOL, false, 'no back-off in place of a policy, and none that lasts longer');
    const wholeLife = now + numberOf(after, 'MaxAgeSeconds') * 1_000;
    if (change.kind === 'extend') {
      assert.equal(numberOf(after, 'ValidEnd'), Math.max(wholeLife, numberOf(before, 'ValidEnd')));
      const times = ['ValidEnd', 'LastUpdate', ...FAILURE];
      assert.deepEqual(without(after, ...times), without(before, ...times), 'an extension is nothing else');
    } else {
      assert.equal(numberOf(after, 'ValidEnd'), wholeLife);
      assert.ok(fetch.ok && after?.PolicyText?.S === fetch.text, 'a policy comes from its host');
    }
    // Its host alone can shorten it, by a shorter max_age; apart from that, as far as clocks agree.
    if (numberOf(after, 'MaxAgeSeconds') < numberOf(before, 'MaxAgeSeconds')) return;
    assert.ok(
      numberOf(after, 'ValidEnd') >= numberOf(before, 'ValidEnd') - mostSkew,
      'no policy is shortened',
    );
  }

  return (write) => {
    const { before, after, change, expected } = write;
    if (change.kind === 'insert') {
      judgeInsert(write);
    } else {
      assert.ok(before !== undefined, 'nothing but a discovery creates an entry');
      assert.equal(
        numberOf(before, 'LastUpdate'),
        expected,
        'only the version that was read is written over',
      );
      if (change.kind === 'fail') return judgeFailure(write);
      judgeRefresh(write);
    }
    if (after === undefined) return;
    const version = numberOf(after, 'LastUpdate');
    assert.ok(!versions.has(version), 'no version comes twice');
    versions.add(version);
  };
}

test('no order of outcomes, copies, requests, prunes and clocks undoes newer work or ends a live policy', async (t) => {
  const table = await newTable();
  let run = 0;
  const property = fc.asyncProperty(
    start,
    fc.array(actor, { minLength: 2, maxLength: MAX_ACTORS, size: 'max' }),
    fc.array(step, { minLength: 8, maxLength: 30, size: 'max' }),
    async (entry, actors, steps) => {
      const name = domain(`run${++run}.example`);
      if (entry !== undefined) await table.seed(name, entry);
      const version = numberOf(await table.item(name), 'LastUpdate');
      let clock = NOW;
      const skews = [0, MAX_SKEW, ...actors.map(({ skew }) => skew)];
      const judge = createJudge(Math.max(...skews) - Math.min(...skews));

      const works = actors.map(({ does, lookup, fetch, skew }, i) =>
        stepwise(async (gate) => {
          const passed =
            <A extends unknown[], T>(work: (...args: A) => Promise<T>) =>
            async (...args: A) => {
              await gate();
              return work(...args);
            };
          let decided = 0;
          const now = () => {
            decided = timeOf(i, clock + skew);
            return decided;
          };
          const changing = async (work: () => Promise<WriteResult>) => {
            const before = await table.item(name);
            const result = await work();
            const after = await table.item(name);
            if (result === 'conflict')
              assert.deepEqual(after, before, 'a conflict leaves everything as it was');
            return { before, result, after };
          };
          const store: PolicyStore = {
            ...table.store,
            read: passed(table.store.read),
            write: passed(async (_, change, expected) => {
              const { before, result, after } = await changing(() =>
                table.store.write(name, change, expected),
              );
              if (result === 'written')
                judge({ before, after, change, expected, lookup, fetch, now: decided });
              return result;
            }),
            touch: passed(async (...use) => {
              const { before, result, after } = await changing(() => table.store.touch(...use));
              if (result === 'written') {
                assert.ok(before !== undefined, 'a use creates nothing');
                assert.deepEqual(after, { ...before, LastUse: { N: String(decided) } });
              }
              return result;
            }),
            prune: passed(async (...prune) => {
              const { before, result } = await changing(() => table.store.prune(...prune));
              if (result === 'written') {
                assert.ok(numberOf(before, 'LastUse') < NOW - DAY);
                assert.equal(numberOf(before, 'LastUpdate'), prune[2], 'what was read, and nothing newer');
              }
              return result;
            }),
          };
          if (does === 'prune') return void (await store.prune(name, NOW - DAY, version || NOW));

          const { refresher } = planned(t, {
            store,
            lookups: { [name]: passed(async () => lookup) },
            fetches: { [name]: passed(async () => fetch) },
            now,
          });
          const { telemetry, told } = recordingTelemetry();
          const context = { refresher, admits: admitsAll, telemetry, signal: neverAborted };
          const seen = numberOf(await table.item(name), 'LastUpdate');
          const lastUpdate = (does === 'copy' ? version : seen) || NOW;
          const bodies = { look: { domain: name }, use: { used: [name] } };
          const failed =
            does === 'look' || does === 'use'
              ? await answerRequests([message('1', bodies[does]), message('2', bodies[does])], context)
              : await refreshMessages(
                  ['1', '2'].map((id) => message(id, { domain: name, lastUpdate })),
                  context,
                );
          assert.deepEqual([failed, told.errors], [[], []]);
          assert.equal(told.outcomes.length, does === 'use' ? 0 : 1);
        }),
      );
      const left = () => works.filter((work) => !work.ended());
      for (const { who, passes } of steps) {
        clock += passes;
        const waiting = left();
        await waiting[who % waiting.length]?.next();
      }
      for (let waiting = left(); waiting.length > 0; waiting = left()) await waiting[0]?.next();
    },
  );
  await fc.assert(property, { numRuns: THOROUGH ? 100 : 30 });
});

/**
 * No two actors ever see the same millisecond, nor one that another's write can come to by adding to what it read: a
 * lock that is a time cannot tell an entry from one that was deleted and discovered again in its very millisecond.
 */
function timeOf(actorIndex: number, time: number): number {
  return Math.floor(time / 64) * 64 + actorIndex * 8;
}
