import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import {
  type Ages,
  dailyLane,
  divide,
  renewalLane,
  spread,
  type Verdict,
} from '../../../functions/plan/plan.ts';
import type { ScannedRecord } from '../../../functions/store/policy-store.ts';
import { NOON, seeded, tasks } from '../dispatch/tasks.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const MINUTE = 60_000;

const AGES: Ages = { staleAfterMs: 12 * HOUR, unusedAfterMs: 180 * DAY, renewalMarginMs: 6 * HOUR };
const NEVER_PRUNE = { ...AGES, unusedAfterMs: 0 };

const selections: [
  name: string,
  entry: { updated: number; used: number | undefined },
  ages: Ages,
  verdict: Verdict['kind'],
][] = [
  ['fresh and in use: left', { updated: HOUR, used: DAY }, AGES, 'leave'],
  ['stale and in use: refreshed', { updated: DAY, used: DAY }, AGES, 'refresh'],
  ['stale for exactly 12 hours: left', { updated: 12 * HOUR, used: DAY }, AGES, 'leave'],
  ['a millisecond more: refreshed', { updated: 12 * HOUR + 1, used: DAY }, AGES, 'refresh'],
  ['unused for exactly 180 days: refreshed', { updated: DAY, used: 180 * DAY }, AGES, 'refresh'],
  ['a millisecond more: pruned', { updated: HOUR, used: 180 * DAY + 1 }, AGES, 'prune'],
  ['unused and stale: pruned, not refreshed', { updated: DAY, used: 181 * DAY }, AGES, 'prune'],
  ['use never reported, stale: refreshed, never pruned', { updated: DAY, used: undefined }, AGES, 'refresh'],
  ['use never reported, fresh: left', { updated: HOUR, used: undefined }, AGES, 'leave'],
  [
    'pruning switched off, unused since 1970: refreshed',
    { updated: DAY, used: NOON },
    NEVER_PRUNE,
    'refresh',
  ],
  [
    'pruning switched off, unused since before: refreshed',
    { updated: DAY, used: Number.MAX_VALUE },
    NEVER_PRUNE,
    'refresh',
  ],
];

const ENTRY: ScannedRecord = {
  domain: 'a.example' as Domain,
  lastUpdate: NOON - DAY,
  lastUse: NOON - DAY,
  lastFetch: NOON - DAY,
  mode: 'enforce',
  backoff: false,
  validEnd: NOON + DAY,
  failingSince: undefined,
  lastFailure: undefined,
};

for (const [name, { updated, used }, ages, verdict] of selections) {
  test(`daily: ${name}`, () => {
    const lastUse = used === undefined ? undefined : NOON - used;
    const { judge } = dailyLane(NOON, ages);
    assert.equal(judge({ ...ENTRY, lastUpdate: NOON - updated, lastUse }).kind, verdict);
  });
}

test('daily: what was updated more than a day ahead is a mistake of a clock or a hand, and refreshed', () => {
  const { judge, range } = dailyLane(NOON, AGES);
  assert.equal(range.updatedAfter, NOON + DAY);
  const ahead = (ms: number) => judge({ ...ENTRY, lastUpdate: NOON + ms }).kind;
  assert.deepEqual(
    [ahead(0), ahead(DAY), ahead(DAY + 1), ahead(5_000 * DAY)],
    ['leave', 'leave', 'refresh', 'refresh'],
  );
  assert.equal(renewalLane(NOON, AGES).range.updatedAfter, Number.POSITIVE_INFINITY);
});

/** Refreshes that a day's runs plan for a domain that lets its policy live so long, each done within the minute. */
function refreshesADay(maxAgeSeconds: number, unusedFor: number): number {
  const update = (at: number): ScannedRecord => ({
    ...ENTRY,
    lastUpdate: at,
    lastFetch: at,
    validEnd: at + maxAgeSeconds * 1_000,
  });
  const DAYS = 10;
  let entry = update(NOON - HOUR);
  let refreshes = 0;
  for (let hour = 0; hour < DAYS * 24; hour++) {
    const now = NOON + hour * HOUR;
    entry = { ...entry, lastUse: now - unusedFor };
    const daily = hour % 24 === 15 ? [dailyLane(now, AGES)] : [];
    for (const { judge } of [...daily, renewalLane(now, AGES)]) {
      // The second finds what the first has refreshed.
      if (judge(entry).kind !== 'refresh') continue;
      refreshes++;
      entry = update(now + MINUTE);
    }
  }
  return refreshes / DAYS;
}

// A stranger decides how long a policy lives. One for each renewal run is the most; to a daily run it is not stale then.
const lifetimes: [maxAgeSeconds: number, refreshes: number][] = [
  [0, 24],
  [1, 24],
  [300, 24],
  [3_600, 24],
  [7_200, 24],
  [21_600, 24],
  [43_200, 4],
  [86_400, 2],
  [604_800, 1],
  [31_557_600, 1],
];
for (const [maxAgeSeconds, most] of lifetimes) {
  test(`a max_age of ${maxAgeSeconds} makes at most ${most} refreshes a day, in use or not`, () => {
    for (const unusedFor of [HOUR, 100 * DAY]) {
      const refreshes = refreshesADay(maxAgeSeconds, unusedFor);
      assert.ok(refreshes > most - 1 && refreshes <= most, `${refreshes}, last used ${unusedFor} ms ago`);
    }
  });
}

test('daily: a back-off is forgotten after two days without use, also where nothing else is ever pruned', () => {
  for (const ages of [AGES, NEVER_PRUNE]) {
    const { judge } = dailyLane(NOON, ages);
    const unused = (ms: number) => judge({ ...ENTRY, backoff: true, mode: 'none', lastUse: NOON - ms });
    assert.deepEqual(unused(2 * DAY), { kind: 'refresh' });
    assert.deepEqual(unused(2 * DAY + 1), { kind: 'prune', usedBefore: NOON - 2 * DAY });
  }
});

const LEAVE: Verdict = { kind: 'leave' };
const REVIVE: Verdict = { kind: 'refresh' };
const renewals: [name: string, entry: Partial<ScannedRecord>, verdict: Verdict, ages?: Ages][] = [
  ['expires in six hours: left', { validEnd: NOON + 6 * HOUR }, LEAVE],
  [
    'a millisecond earlier: refreshed five minutes before it expires, or sooner',
    { validEnd: NOON + 6 * HOUR - 1 },
    { kind: 'refresh', latest: NOON + 6 * HOUR - 1 - 5 * MINUTE },
  ],
  [
    'testing is as good as enforce',
    { mode: 'testing', validEnd: NOON + 5 * MINUTE },
    { kind: 'refresh', latest: NOON },
  ],
  ['none: left', { mode: 'none', validEnd: NOON + HOUR }, LEAVE],
  ['back-off: left', { backoff: true, validEnd: NOON + HOUR }, LEAVE],
  ['stale and unused, but safe: left', { lastUpdate: 0, lastUse: 0 }, LEAVE],
  ['just expired, used today: revived', { validEnd: NOON }, REVIVE],
  ['expired almost seven days ago, used: revived', { validEnd: NOON - 7 * DAY + 1 }, REVIVE],
  ['expired seven days ago: left', { validEnd: NOON - 7 * DAY }, LEAVE],
  [
    'expired six hours ago, last used seven days ago: revived',
    { validEnd: NOON - 6 * HOUR, lastUse: NOON - 7 * DAY },
    REVIVE,
  ],
  ['a millisecond earlier: left', { validEnd: NOON - 6 * HOUR, lastUse: NOON - 7 * DAY - 1 }, LEAVE],
  ['expired a millisecond later, unused: revived', { validEnd: NOON - 6 * HOUR + 1, lastUse: 0 }, REVIVE],
  [
    'expired six hours ago, use never reported: left',
    { validEnd: NOON - 6 * HOUR, lastUse: undefined },
    LEAVE,
  ],
  [
    'expired yesterday, relays report no use at all: revived',
    { validEnd: NOON - DAY, lastUse: 0 },
    REVIVE,
    NEVER_PRUNE,
  ],
  ['no ValidEnd, no Mode: left', { validEnd: undefined, mode: undefined }, LEAVE],
];

for (const [name, entry, verdict, ages = AGES] of renewals) {
  test(`renewal: ${name}`, () => {
    assert.deepEqual(renewalLane(NOON, ages).judge({ ...ENTRY, ...entry }), verdict);
  });
}

test('spread: none after its own latest moment, unless that is past', () => {
  const latest = [NOON - HOUR, NOON, NOON + MINUTE, NOON + HOUR];
  const candidates = tasks(400).map(({ domain, lastUpdate }, i) => ({
    domain,
    lastUpdate,
    latest: latest[i % 4],
  }));
  const spreadOut = spread(candidates, { start: NOON, end: NOON + 15 * MINUTE }, seeded(3));
  const limit = new Map(candidates.map((candidate) => [candidate.domain, candidate.latest ?? 0]));
  for (const { domain, due } of spreadOut) {
    assert.ok(due >= NOON && due <= Math.max(limit.get(domain) ?? 0, NOON) && due <= NOON + 15 * MINUTE);
  }
});

test('spread: every domain once, the first at once, none outside the window or far from its even place', () => {
  fc.assert(
    fc.property(
      fc.nat(60),
      fc.integer({ min: 0, max: NOON }),
      fc.nat(DAY),
      fc.integer(),
      (count, start, length, seed) => {
        const given = tasks(count);
        const end = start + length;
        const planned = spread(given, { start, end }, seeded(seed));
        assert.deepEqual(planned.map((task) => task.domain).sort(), given.map((task) => task.domain).sort());
        for (const [i, { domain, lastUpdate, due }] of planned.entries()) {
          assert.equal(lastUpdate, given.find((task) => task.domain === domain)?.lastUpdate);
          assert.ok(due >= start && due <= end);
          const interval = length / Math.max(count - 1, 1);
          assert.ok(Math.abs(due - (start + i * interval)) <= interval / 2 + 1e-3);
        }
        if (count > 0) assert.equal(planned[0]?.due, start);
      },
    ),
  );
});

test('spread: slow ones share a turn every three minutes, in all blocks and runs, and never come later for it', () => {
  const slow = tasks(2_000).map((task, i) => ({ ...task, slow: i % 4 === 0 }));
  const isSlow = new Set(slow.filter((task) => task.slow).map((task) => task.domain));
  for (const start of [NOON, NOON + 7 * MINUTE + 1_234]) {
    const [even, moved] = [tasks(2_000), slow].map((given) =>
      spread(given, { start, end: start + 3 * HOUR }, seeded(5)),
    );
    for (const [i, { domain, due }] of moved?.entries() ?? []) {
      const before = even?.[i]?.due ?? 0;
      if (!isSlow.has(domain)) assert.equal(due, before);
      else if (due !== start) assert.equal(due % (3 * MINUTE), 0);
      assert.ok(due >= start && due <= before && due > before - 3 * MINUTE);
    }
  }
});

test('spread: a short window has five turns for slow ones, and a slow one is done before its latest moment', () => {
  const latest = NOON + MINUTE / 2;
  const slow = tasks(500).map((task) => ({ ...task, slow: true, latest }));
  const turns = (end: number, given: typeof slow) =>
    new Set(spread(given, { start: NOON, end }, seeded(6)).map((task) => task.due));
  assert.deepEqual([...turns(NOON + MINUTE, slow)].sort(), [NOON, NOON + 12_000, NOON + 24_000, latest]);
  assert.deepEqual([...turns(NOON, slow)], [NOON]);
  const any = slow.map(({ domain, lastUpdate }) => ({ domain, lastUpdate, slow: true }));
  assert.deepEqual(
    [...turns(NOON + MINUTE, any as typeof slow)].sort(),
    [0, 12, 24, 36, 48].map((seconds) => NOON + seconds * 1_000),
  );
});

test('spread: one domain is due at once; the second of two in the last half of the window', () => {
  const window = { start: NOON, end: NOON + HOUR };
  assert.deepEqual(
    spread(tasks(1), window, seeded(1)).map((task) => task.due),
    [NOON],
  );
  for (let seed = 0; seed < 50; seed++) {
    const [first, second] = spread(tasks(2), window, seeded(seed));
    assert.equal(first?.due, NOON);
    assert.ok(second !== undefined && second.due >= NOON + HOUR / 2 && second.due <= window.end);
  }
});

test('spread: a window that is over makes all due now', () => {
  const planned = spread(tasks(10), { start: NOON, end: NOON }, seeded(1));
  assert.ok(planned.every((task) => task.due === NOON));
});

test('spread: each domain is as likely to be first, or last, as any other', () => {
  const random = seeded(7);
  const given = tasks(5);
  const first = new Map<Domain, number>();
  const last = new Map<Domain, number>();
  for (let run = 0; run < 5_000; run++) {
    const planned = spread(given, { start: 0, end: HOUR }, random);
    const [head, tail] = [planned.at(0)?.domain as Domain, planned.at(-1)?.domain as Domain];
    first.set(head, (first.get(head) ?? 0) + 1);
    last.set(tail, (last.get(tail) ?? 0) + 1);
  }
  // 1,000 each, with a standard deviation of 28.
  for (const { domain } of given) {
    for (const count of [first.get(domain) ?? 0, last.get(domain) ?? 0])
      assert.ok(Math.abs(count - 1_000) < 150);
  }
});

test('spread: the order is another every time, and the gaps between domains vary', () => {
  const window = { start: 0, end: 3 * HOUR };
  const given = tasks(1_000);
  const one = spread(given, window, seeded(1));
  const other = spread(given, window, seeded(2));
  const order = (planned: typeof one) => planned.map((task) => task.domain).join();
  assert.notEqual(order(one), order(given));
  assert.notEqual(order(one), order(other));
  const gaps = one.slice(1).map((task, i) => task.due - (one[i]?.due ?? 0));
  assert.ok(Math.max(...gaps) > 1.5 * (window.end / 1_000));
  assert.ok(Math.min(...gaps) < 0.5 * (window.end / 1_000));
});

test('spread: of 10,000 domains over three hours no minute has more than 1.25 times its share', () => {
  for (let seed = 0; seed < 5; seed++) {
    const minutes = new Array<number>(180).fill(0);
    for (const { due } of spread(tasks(10_000), { start: NOON, end: NOON + 3 * HOUR }, seeded(seed))) {
      const minute = Math.min(Math.floor((due - NOON) / MINUTE), 179);
      minutes[minute] = (minutes[minute] ?? 0) + 1;
    }
    assert.ok(Math.max(...minutes) <= 1.25 * (10_000 / 180), `${Math.max(...minutes)} in one minute`);
  }
});

const WAVES = { waveMs: 840_000, latenessMs: 60_000 };
const FIRST_WAVE = NOON + 900_000;

test('divide: borders belong to the later wave, and each wave is released its lateness before it begins', () => {
  const dues = [
    NOON,
    FIRST_WAVE,
    FIRST_WAVE + 1,
    FIRST_WAVE + 839_999,
    FIRST_WAVE + 840_000,
    FIRST_WAVE + 3 * 840_000,
  ];
  const planned = tasks(dues.length, (i) => dues[i] ?? 0);
  assert.deepEqual(divide(planned, NOON, WAVES), {
    immediate: planned.slice(0, 2),
    waves: [
      { releaseAt: FIRST_WAVE - 60_000, tasks: planned.slice(2, 4) },
      { releaseAt: FIRST_WAVE - 60_000 + 840_000, tasks: planned.slice(4, 5) },
      { releaseAt: FIRST_WAVE - 60_000 + 3 * 840_000, tasks: planned.slice(5, 6) },
    ],
  });
});

test('divide: of a window no longer than a wave and its lateness, nothing needs a schedule', () => {
  const planned = spread(tasks(1_000), { start: NOON, end: NOON + 900_000 }, () => 0.9);
  assert.ok(planned.some(({ due }) => due === NOON + 900_000));
  assert.deepEqual(divide(planned, NOON, WAVES), { immediate: planned, waves: [] });
});

test('divide: nothing in, nothing out', () => {
  assert.deepEqual(divide([], NOON, WAVES), { immediate: [], waves: [] });
});

const waveTimes = fc
  .integer({ min: 1, max: 899 })
  .chain((wave) => fc.record({ wave: fc.constant(wave), lateness: fc.integer({ min: 1, max: 900 - wave }) }))
  .map(({ wave, lateness }) => ({ waveMs: wave * 1_000, latenessMs: lateness * 1_000 }));

test('divide: whatever the time and the window, every domain once, and none due later than SQS can delay', () => {
  fc.assert(
    fc.property(
      // Not only whole seconds, nor whole milliseconds.
      fc.double({ min: 1e12, max: 2e12, noNaN: true }),
      waveTimes,
      fc.array(
        fc.oneof(
          fc.double({ min: 0, max: 3 * HOUR, noNaN: true }).map((offset) => ({ waves: 0, offset })),
          // On the borders of waves and a little to either side.
          fc.record({ waves: fc.nat(13), offset: fc.constantFrom(-1, -1e-3, 0, 1e-3, 1) }),
        ),
        { maxLength: 60 },
      ),
      (now, times, dues) => {
        const { waveMs, latenessMs } = times;
        const border = Math.floor((now + waveMs + latenessMs) / 1_000) * 1_000;
        const planned = tasks(dues.length, (i) => {
          const { waves = 0, offset = 0 } = dues[i] ?? {};
          return waves === 0 ? now + Math.max(offset, 0) : border + waves * waveMs + offset;
        });
        const { immediate, waves } = divide(planned, now, times);

        const released = [...immediate, ...waves.flatMap((wave) => wave.tasks)];
        assert.deepEqual(
          released.map((task) => task.domain).sort(),
          planned.map((task) => task.domain).sort(),
        );
        for (const { due } of immediate) assert.ok(due <= now + waveMs + latenessMs);
        assert.equal(new Set(waves.map((wave) => wave.releaseAt)).size, waves.length);
        for (const { releaseAt, tasks: together } of waves) {
          assert.ok(together.length > 0);
          assert.ok(releaseAt > now, 'a schedule in the past');
          assert.equal(releaseAt % 1_000, 0, 'a schedule fires at whole seconds');
          for (const { due } of together) {
            // As `dispatch` sees it: in whole seconds.
            const written = Math.floor(due / 1_000) * 1_000;
            assert.ok(written - releaseAt >= latenessMs, 'due before a late schedule has fired');
            assert.ok(due - releaseAt < waveMs + latenessMs, 'due later than SQS delays');
          }
        }
      },
    ),
    { numRuns: 500 },
  );
});
