import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { WaveTask } from '../../../functions/dispatch/wave.ts';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import type { PlannedWave } from '../../../functions/plan/plan.ts';
import { type Planner, runPlan } from '../../../functions/plan/run.ts';
import type { Telemetry } from '../../../functions/runtime/telemetry.ts';
import type { PolicyStore, ScannedRecord, ScanPage } from '../../../functions/store/policy-store.ts';
import { NOON, seeded } from '../dispatch/tasks.ts';

const MINUTE = 60_000;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

const TIMES = {
  spreadMs: 3 * HOUR,
  waveMs: 840_000,
  latenessMs: 60_000,
  staleAfterMs: 12 * HOUR,
  unusedAfterMs: 180 * DAY,
  renewalMarginMs: 6 * HOUR,
  renewalSpreadMs: 900_000,
};

const DAILY = { kind: 'daily', runId: 'run' } as const;
const RENEWAL = { kind: 'renewal', runId: 'run' } as const;

function entry(
  domain: string,
  { updated = DAY, used = DAY }: { updated?: number; used?: number | 'never reported' } = {},
): ScannedRecord {
  return {
    domain: domain as Domain,
    lastUpdate: NOON - updated,
    lastUse: used === 'never reported' ? undefined : NOON - used,
    lastFetch: NOON - updated,
    mode: 'enforce',
    backoff: false,
    validEnd: NOON + 30 * DAY,
    failingSince: undefined,
    lastFailure: undefined,
  };
}

function* stale(count: number, pageSize = 1_000): Generator<ScanPage> {
  for (let i = 0; i < count; i += pageSize) {
    const length = Math.min(pageSize, count - i);
    yield page(Array.from({ length }, (_, j) => entry(`d${i + j}.example`)));
  }
}

function page(records: ScannedRecord[], more: Partial<ScanPage> = {}): ScanPage {
  return { records, examined: records.length, unreadable: [], ...more };
}

/** A whole planner of fakes: they keep what they are asked for, and fail on what a plan has no business doing. */
function planner(
  pages: Iterable<ScanPage>,
  overrides: Partial<Planner> & { prune?: PolicyStore['prune'] } = {},
) {
  const { prune, ...planned } = overrides;
  const sent: WaveTask[] = [];
  const waves: PlannedWave[] = [];
  const runIds = new Set<string>();
  const pruned: Domain[] = [];
  const versions = new Map<Domain, number>();
  const counts = new Map<string, number>();
  const gauges = new Map<string, number>();
  const errors: { error: unknown; domain: unknown }[] = [];
  const unreadable: string[] = [];
  const unplanned = (what: string) => () => assert.fail(`${what} was not planned`);
  const store: PolicyStore = {
    scan: (range) =>
      (async function* () {
        const bounds = [range.updatedBefore, range.expiringBefore, range.updatedAfter];
        const renewal = range.updatedBefore === Number.NEGATIVE_INFINITY;
        const { staleAfterMs, renewalMarginMs } = planning.times;
        const expected = renewal
          ? [Number.NEGATIVE_INFINITY, NOON + renewalMarginMs, Number.POSITIVE_INFINITY]
          : [NOON - staleAfterMs, NOON, NOON + DAY];
        assert.deepEqual(bounds, expected);
        for (const page of pages) {
          for (const { domain, lastUpdate } of page.records) versions.set(domain, lastUpdate);
          yield page;
        }
      })(),
    prune: async (domain, usedBefore, expected) => {
      assert.equal(expected, versions.get(domain), 'the version that was scanned');
      assert.ok([NOON - TIMES.unusedAfterMs, NOON - 2 * DAY].includes(usedBefore));
      const result = (await prune?.(domain, usedBefore, expected)) ?? 'written';
      if (result === 'written') pruned.push(domain);
      return result;
    },
    read: unplanned('read'),
    write: unplanned('write'),
    touch: unplanned('touch'),
    admitDiscovery: unplanned('admitDiscovery'),
  };
  const telemetry: Telemetry = {
    count: (counter, by) => void counts.set(counter, (counts.get(counter) ?? 0) + by),
    gauge: (gauge, value) => void gauges.set(gauge, value),
    error: (_message, error, details) => void errors.push({ error, domain: details?.domain }),
    unreadable: (key) => void unreadable.push(key),
    outcome: unplanned('outcome'),
    refused: unplanned('refused'),
    info: unplanned('info'),
    warn: unplanned('warn'),
    flush: unplanned('flush'),
  };
  const planning: Planner = {
    store,
    telemetry,
    enqueue: async (tasks) => void sent.push(...tasks),
    scheduleWaves: async (runId, given) => {
      runIds.add(runId);
      waves.push(...given);
      return given.length;
    },
    now: () => NOON,
    random: seeded(1),
    times: TIMES,
    ...planned,
  };
  /** All tasks, sent or scheduled. */
  const tasks = () => [...sent, ...waves.flatMap((wave) => wave.tasks)];
  const domains = () => tasks().map((task) => task.domain as string);
  return { planning, sent, waves, runIds, pruned, counts, gauges, errors, unreadable, tasks, domains };
}

test('those whose last refresh took its time to fail are due together', async () => {
  const failing = (i: number, lastFailure: string | undefined): ScannedRecord => ({
    ...entry(`${lastFailure ?? 'none'}-${i}.example`),
    failingSince: lastFailure === undefined ? undefined : NOON - DAY,
    lastFailure,
  });
  const times = (lastFailure: string | undefined) =>
    Array.from({ length: 300 }, (_, i) => failing(i, lastFailure));
  const slow = ['connect-timeout', 'deadline-exceeded', 'dns-servfail'];
  const quick = ['connect-refused', 'certificate-expired', 'a code of a version to come', undefined];
  const { planning, tasks } = planner([page([...slow, ...quick].flatMap(times))]);
  await runPlan(DAILY, planning);
  for (const lastFailure of [...slow, ...quick]) {
    const mine = tasks().filter(({ domain }) => domain.startsWith(`${lastFailure ?? 'none'}-`));
    assert.equal(mine.length, 300);
    // Sixty turns of three minutes in three hours, and the start.
    const turns = new Set(mine.map((task) => task.due)).size;
    assert.equal(turns <= 61, slow.includes(lastFailure ?? ''), `${lastFailure}: ${turns}`);
  }
});

test('a plan refreshes what is stale, prunes what is unused, and leaves the rest', async () => {
  const { planning, pruned, counts, gauges, unreadable, domains, tasks } = planner([
    page([entry('stale.example'), entry('unused.example', { used: 181 * DAY })], { examined: 500 }),
    page([], { examined: 700, unreadable: [{ key: 'BROKEN', reason: 'the key should be broken' }] }),
    page([
      entry('unused-and-fresh.example', { updated: HOUR, used: 181 * DAY }),
      entry('fresh.example', { updated: HOUR }),
      entry('never-reported.example', { used: 'never reported' }),
    ]),
  ]);
  assert.partialDeepStrictEqual(await runPlan(DAILY, planning), {
    planned: 2,
    pruned: 2,
    schedules: 1,
    stored: 1_201,
    valid: 1_201,
  });
  assert.deepEqual(Object.fromEntries(gauges), {
    Stored: 1_201,
    Lapsed: 0,
    Expiring: 0,
    FailingSafe: 0,
    Failing: 0,
  });
  assert.deepEqual(domains().sort(), ['never-reported.example', 'stale.example']);
  assert.ok(tasks().every((task) => task.lastUpdate === NOON - DAY));
  assert.deepEqual(pruned, ['unused.example', 'unused-and-fresh.example']);
  assert.deepEqual(unreadable, ['BROKEN']);
  assert.deepEqual(Object.fromEntries(counts), { Planned: 2, Pruned: 2 });
});

test('an empty table is a plan of nothing, and counted as one', async () => {
  const { planning, counts, sent, waves } = planner([]);
  assert.partialDeepStrictEqual(await runPlan(DAILY, planning), { stored: 0, planned: 0, pruned: 0 });
  assert.deepEqual(Object.fromEntries(counts), { Planned: 0, Pruned: 0 });
  assert.deepEqual([sent, waves], [[], []]);
});

for (const count of [1, 2, 64_999, 65_000, 65_001, 130_001]) {
  test(`${count} stale domains are planned once each, within the window`, async () => {
    const { planning, runIds, domains, tasks, sent, waves } = planner(stale(count));
    const summary = await runPlan(DAILY, planning);
    assert.equal(summary.planned, count);
    assert.equal(summary.schedules, waves.length);
    assert.equal(domains().length, count);
    assert.equal(new Set(domains()).size, count);
    assert.ok(tasks().every(({ due }) => due >= NOON && due <= NOON + TIMES.spreadMs));
    assert.ok(sent.every(({ due }) => due <= NOON + 900_000));
    assert.ok(waves.every(({ releaseAt }) => releaseAt > NOON));
    assert.ok(sent.some(({ due }) => due === NOON));
    assert.deepEqual([...runIds], ['run']);
  });
}

test('of 100,000 domains in two blocks no minute has more than 1.1 times its share', async () => {
  const { planning, tasks } = planner(stale(100_000));
  await runPlan(DAILY, planning);
  const minutes = new Array<number>(180).fill(0);
  for (const { due } of tasks()) {
    const minute = Math.min(Math.floor((due - NOON) / 60_000), 179);
    minutes[minute] = (minutes[minute] ?? 0) + 1;
  }
  assert.ok(Math.max(...minutes) <= 1.1 * (100_000 / 180), `${Math.max(...minutes)} in one minute`);
});

test('a block that the scan completes late has what is left of the window; after it, all are due at once', async () => {
  let now = NOON;
  const { planning, sent, waves } = planner(
    (function* () {
      yield* stale(65_000);
      now = NOON + 2 * HOUR;
      yield* stale(65_000);
      now = NOON + 4 * HOUR;
      yield* stale(10);
    })(),
    { now: () => now },
  );
  await runPlan(DAILY, planning);
  const late = waves.slice(-5).flatMap((wave) => wave.tasks);
  assert.ok(late.every(({ due }) => due > NOON + 2 * HOUR && due <= NOON + 3 * HOUR));
  assert.ok(sent.slice(-10).every(({ due }) => due === NOON + 4 * HOUR));
  assert.equal(sent.length + waves.flatMap((wave) => wave.tasks).length, 130_010);
});

test('schedules are created before messages are sent: they must not be late', async () => {
  const order: string[] = [];
  const { planning } = planner(stale(100), {
    enqueue: async () => void order.push('messages'),
    scheduleWaves: async () => order.push('schedules'),
  });
  await runPlan(DAILY, planning);
  assert.deepEqual(order, ['schedules', 'messages']);
});

test('an entry that was used after all is not pruned but refreshed if it is stale', async () => {
  const { planning, pruned, counts, errors, domains } = planner(
    [
      page([
        entry('back.example', { used: 181 * DAY }),
        entry('back-and-fresh.example', { updated: HOUR, used: 181 * DAY }),
        entry('unused.example', { used: 181 * DAY }),
      ]),
    ],
    { prune: async (domain) => (domain.startsWith('back') ? 'conflict' : 'written') },
  );
  assert.partialDeepStrictEqual(await runPlan(DAILY, planning), { stored: 2, planned: 1, pruned: 1 });
  assert.deepEqual(domains(), ['back.example']);
  assert.deepEqual(pruned, ['unused.example']);
  assert.deepEqual(errors, []);
  assert.deepEqual(Object.fromEntries(counts), { Planned: 1, Pruned: 1 });
});

test('a failed prune is logged and counted, and stops neither the others nor the refreshes', async () => {
  const fault = new Error('throttled');
  const { planning, pruned, counts, errors, domains } = planner(
    [
      page([
        entry('unlucky.example', { used: 181 * DAY }),
        entry('unused.example', { used: 181 * DAY }),
        entry('stale.example'),
      ]),
    ],
    {
      prune: async (domain) => {
        if (domain === 'unlucky.example') throw fault;
        return 'written';
      },
    },
  );
  await runPlan(DAILY, planning);
  assert.deepEqual(errors, [{ error: fault, domain: 'unlucky.example' }]);
  assert.deepEqual(pruned, ['unused.example']);
  assert.deepEqual(domains().sort(), ['stale.example', 'unlucky.example']);
  assert.deepEqual(Object.fromEntries(counts), { Planned: 2, Pruned: 1 });
});

test('where nothing can be pruned it is not tried for ever, and refreshes are planned all the same', async () => {
  let tried = 0;
  const unused = Array.from({ length: 5_000 }, (_, i) => entry(`u${i}.example`, { used: 181 * DAY }));
  const { planning, errors } = planner([page(unused), page([entry('stale.example')])], {
    prune: async () => {
      tried++;
      throw new Error('denied');
    },
  });
  const summary = await runPlan(DAILY, planning);
  assert.equal(summary.pruned, 0);
  assert.equal(summary.planned, 5_001);
  assert.ok(tried >= 100 && tried < 120, `${tried} prunes`);
  assert.equal(errors.length, tried);
  assert.equal(summary.pruneFailed, tried);
});

test('pruning switched off: whatever is stale is refreshed', async () => {
  const { planning, pruned, domains } = planner([page([entry('a.example', { used: 9_000 * DAY })])], {
    times: { ...TIMES, unusedAfterMs: 0 },
  });
  await runPlan(DAILY, planning);
  assert.deepEqual([pruned, domains()], [[], ['a.example']]);
});

const fault = new Error('AWS is down');
const fail = async () => {
  throw fault;
};

const faults: [name: string, planner: ReturnType<typeof planner>][] = [
  [
    'scan',
    planner(
      (function* () {
        yield page([entry('unused.example', { used: 181 * DAY }), entry('stale.example')]);
        throw fault;
      })(),
    ),
  ],
  ['queue', planner(stale(10), { enqueue: fail })],
  ['scheduler', planner(stale(10), { scheduleWaves: fail })],
];

for (const [name, { planning, counts, gauges }] of faults) {
  test(`a fault of the ${name} rejects, and nothing looks like a completed run`, async () => {
    await assert.rejects(runPlan(DAILY, planning), fault);
    assert.equal(counts.size + gauges.size, 0);
  });
}

test('a repeated run is a fresh plan of the same tasks, in another order', async () => {
  const random = seeded(1);
  const runs = [planner(stale(500), { random }), planner(stale(500), { random })];
  for (const { planning } of runs) await runPlan(DAILY, planning);
  const [first, second] = runs.map(({ tasks }) =>
    tasks().map(({ domain, lastUpdate }) => `${domain} ${lastUpdate}`),
  );
  assert.notDeepEqual(first, second);
  assert.deepEqual(first?.sort(), second?.sort());
});

test('a renewal run refreshes what is about to expire in 15 minutes, and prunes and plans nothing else', async () => {
  const expiring = Array.from({ length: 300 }, (_, i) => ({
    ...entry(`e${i}.example`, { updated: HOUR }),
    validEnd: NOON + 5 * HOUR,
  }));
  const urgent = { ...entry('urgent.example', { updated: HOUR }), validEnd: NOON + 5 * MINUTE + 7_000 };
  const { planning, counts, gauges, tasks, waves } = planner([
    page([...expiring, urgent, entry('stale.example'), entry('unused.example', { used: 181 * DAY })]),
  ]);
  assert.partialDeepStrictEqual(await runPlan(RENEWAL, planning), { planned: 301, pruned: 0, stored: 303 });
  const due = new Map(tasks().map((task) => [task.domain as string, task.due]));
  assert.equal(due.size, 301);
  assert.equal(waves.length, 0);
  assert.ok([...due.values()].every((at) => at >= NOON && at <= NOON + 15 * MINUTE));
  assert.ok((due.get('urgent.example') ?? 0) <= NOON + 7_000, 'five minutes before it expires at the latest');
  assert.deepEqual(Object.fromEntries(counts), { Renewals: 301 });
  assert.equal(gauges.get('Stored'), 303);
});

test('a daily run forgets a back-off that was not used for two days', async () => {
  const backoff = (domain: string, used: number) => ({ ...entry(domain, { used }), backoff: true });
  const { planning, pruned, domains } = planner(
    [page([backoff('used.example', 2 * DAY), backoff('unused.example', 2 * DAY + 1)])],
    { prune: async () => 'written' },
  );
  await runPlan(DAILY, planning);
  assert.deepEqual(pruned, ['unused.example']);
  assert.deepEqual(domains(), ['used.example']);
});
