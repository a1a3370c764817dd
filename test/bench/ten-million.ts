// Ten million policies, on paper and in simulation: what gives first as the table grows, at which size, and what moves
// it. The planning is the real one, over entries that are made up as they are asked for, against a clock that goes as
// fast as Lambda would scan.

import { delaySeconds } from '../../functions/dispatch/enqueue.ts';
import { encodeWaves } from '../../functions/dispatch/wave.ts';
import type { Domain } from '../../functions/mtasts/domain.ts';
import { type Planner, runPlan } from '../../functions/plan/run.ts';
import type { Telemetry } from '../../functions/runtime/telemetry.ts';
import type { PolicyStore, ScanPage } from '../../functions/store/policy-store.ts';
import { seeded } from '../functions/dispatch/tasks.ts';
import { readSettings } from '../simulation/settings.ts';
import { concurrency, lambdaMs } from './arrangements.ts';
import { BEST, batchesSection } from './batches.ts';
import type { Section } from './bench.ts';
import { planMs } from './cost.ts';
import { costsSection } from './costs.ts';
import { domainName } from './domains.ts';
import { number, sum, type Table } from './table.ts';

interface Limit {
  readonly what: string;
  /** What a million policies take of it. */
  readonly perMillion: number;
  readonly limit: number;
  readonly unit: string;
  /** What moves it. */
  readonly parameter: string;
}

interface Simulated {
  readonly policies: number;
  /** That share the segments of the scan. */
  readonly plans: number;
  /** Of the longest plan: virtual seconds until its last wave is handed over. */
  readonly planSeconds: number;
  readonly schedules: number;
  readonly largestMinute: number;
  readonly meanMinute: number;
  /** Schedules that fire in the same minute, at most. */
  readonly schedulesAtOnce: number;
}

export interface TenMillionResult {
  readonly limits: readonly Limit[];
  readonly simulated: readonly Simulated[];
}

const MILLION = 1_000_000;
const MINUTE = 60_000;
/** Entries of a page of 1 MB. */
const PAGE = 2_800;
/** What a call takes, and how many are under way at once: functions/plan/schedule.ts, functions/dispatch/enqueue.ts. */
const CALL_MS = 20;
const SCHEDULES_AT_ONCE = 8;
const SENDS_AT_ONCE = 16;

const silent = () => {};
const SILENT = { count: silent, gauge: silent, info: silent } as unknown as Telemetry;

/** A daily run by `plans` plans at once, each with its share of the table. */
async function simulatePlans(policies: number, plans: number, msPerItem: number): Promise<Simulated> {
  const { times } = readSettings({});
  const start = Date.UTC(2026, 0, 1, 3);
  const minutes = new Float64Array(Math.ceil(times.spreadMs / MINUTE) + 2);
  const fired = new Map<number, number>();
  let longestMs = 0;
  let schedules = 0;
  for (let plan = 0; plan < plans; plan++) {
    let now = start;
    const random = seeded(plan + 1);
    const sent = (due: number) => {
      const minute = Math.floor((now - start + delaySeconds(due, now) * 1_000) / MINUTE);
      minutes[minute] = (minutes[minute] ?? 0) + 1;
    };
    async function* scan(): AsyncGenerator<ScanPage> {
      const end = Math.floor((policies * (plan + 1)) / plans);
      for (let i = Math.floor((policies * plan) / plans); i < end; i += PAGE) {
        const length = Math.min(PAGE, end - i);
        const records = Array.from({ length }, (_, j) => ({
          domain: domainName(i + j, 'same') as Domain,
          lastUpdate: start - 2 * times.staleAfterMs,
          lastUse: start - MINUTE,
          lastFetch: start - MINUTE,
          mode: 'enforce' as const,
          backoff: false,
          validEnd: start + times.spreadMs * 20,
          failingSince: undefined,
          lastFailure: undefined,
        }));
        now += length * msPerItem;
        yield { records, examined: length, unreadable: [] };
      }
    }
    const planner: Planner = {
      ...{ store: { scan } as unknown as PolicyStore, telemetry: SILENT, now: () => now, random, times },
      scheduleWaves: async (runId, waves) => {
        let created = 0;
        for (const { releaseAt, tasks } of waves) {
          const count = encodeWaves(runId, tasks).length;
          created += count;
          const minute = Math.floor(releaseAt / MINUTE);
          fired.set(minute, (fired.get(minute) ?? 0) + count);
          // As dispatch sends them, when the schedule fires; half a minute late, in the mean.
          const released = releaseAt + MINUTE / 2;
          for (const { due } of tasks) {
            const minute = Math.floor((released - start + delaySeconds(due, released) * 1_000) / MINUTE);
            minutes[minute] = (minutes[minute] ?? 0) + 1;
          }
        }
        now += (created * CALL_MS) / SCHEDULES_AT_ONCE;
        return created;
      },
      enqueue: async (tasks) => {
        for (const { due } of tasks) sent(due);
        now += ((tasks.length / 10) * CALL_MS) / SENDS_AT_ONCE;
      },
    };
    const summary = await runPlan({ kind: 'daily', runId: `plan-${plan}` }, planner);
    schedules += summary.schedules;
    longestMs = Math.max(longestMs, now - start);
  }
  return {
    ...{ policies, plans, schedules },
    planSeconds: longestMs / 1_000,
    largestMinute: Math.max(...minutes),
    meanMinute: sum([...minutes]) / (times.spreadMs / MINUTE),
    schedulesAtOnce: Math.max(0, ...fired.values()),
  };
}

export const tenMillionSection: Section<TenMillionResult> = {
  name: 'ten-million',
  what: 'ten million policies: what gives first, at which size',
  async measure(bench) {
    const { counted, setup } = await bench.need(costsSection);
    const { perSecond, arrangements, concurrency: most } = await bench.need(batchesSection);
    const plan = bench.packages.functions.plan;
    const seconds = planMs(MILLION, counted.planCpuMs.daily, counted.itemBytes, setup.megabytes.plan) / 1_000;
    const scan = (MILLION * counted.itemBytes) / 4_096 / 2;
    const now = arrangements.find(({ name }) => name === `apart: ${BEST}`);
    if (now === undefined) throw new Error('nothing was arranged');
    const schedules = MILLION * counted.refreshes.daily * counted.schedulesPerTask;
    const waves = setup.spreadSeconds / Number(plan.variables.WAVE_SECONDS);
    const dispatchSeconds = lambdaMs(counted.dispatchCpuMs, setup.megabytes.dispatch) / 1_000;
    const limits: Limit[] = [
      {
        what: 'one invocation of plan',
        perMillion: seconds,
        limit: plan.timeoutSeconds,
        unit: 's',
        parameter: 'memory of plan (processor time); several plans, each with its share of the segments',
      },
      {
        what: 'batches of refresh at once',
        perMillion: concurrency(now.estimate, perSecond.both),
        limit: most,
        unit: 'batches',
        parameter: 'refreshConcurrency, to 1,000; SPREAD_SECONDS; who shares a batch with whom',
      },
      {
        what: 'executions of an account, by refresh',
        perMillion: concurrency(now.estimate, perSecond.both),
        limit: 1_000,
        unit: 'executions',
        parameter: "the account's quota",
      },
      {
        what: 'scan of one partition',
        perMillion: scan / seconds,
        limit: 3_000,
        unit: 'units/s',
        parameter: 'a table of more than 10 GB has several; more segments use them',
      },
      {
        what: 'writes to a new table',
        perMillion: perSecond.both,
        limit: 4_000,
        unit: '/s',
        parameter: 'grows by itself with use; SPREAD_SECONDS',
      },
      {
        what: 'writes, quota of a table',
        perMillion: perSecond.both,
        limit: 40_000,
        unit: '/s',
        parameter: "the table's quota",
      },
      {
        what: 'CreateSchedule, smallest regions',
        perMillion: schedules / seconds,
        limit: Math.min(250, (1_000 / CALL_MS) * SCHEDULES_AT_ONCE),
        unit: '/s',
        parameter: 'CALLS_AT_ONCE of functions/plan/schedule.ts',
      },
      {
        what: 'dispatches of a wave at once',
        perMillion: (schedules / waves) * Math.min(1, dispatchSeconds / counted.schedulesPerTask / 60),
        limit: 1_000,
        unit: 'executions',
        parameter: 'WAVE_SECONDS; memory of dispatch',
      },
      {
        what: 'messages in flight',
        perMillion: concurrency(now.estimate, perSecond.both) * now.estimate.fill,
        limit: 120_000,
        unit: 'messages',
        parameter: 'refreshConcurrency bounds it: batches at once times their size',
      },
    ];
    // A processor's time and the waiting for pages, of each item.
    const msPerItem = (1_000 * seconds) / MILLION;
    const simulated: Simulated[] = [];
    const sizes = bench.options.quick
      ? [[MILLION, 1]]
      : [
          [MILLION, 1],
          [10 * MILLION, 1],
          [10 * MILLION, 4],
        ];
    for (const [policies = 0, plans = 1] of sizes) {
      bench.progress(`simulating ${number(policies, 0)} policies, plans: ${plans}`);
      simulated.push(await simulatePlans(policies, plans, msPerItem));
    }
    return { limits, simulated };
  },
  tables({ limits, simulated }): Table[] {
    const first = limits.toSorted((a, b) => a.limit / a.perMillion - b.limit / b.perMillion);
    return [
      {
        title: 'TEN MILLION: what gives first',
        columns: ['a million take', 'limit', 'gives at million policies'],
        rows: first.map(({ what, unit, perMillion, limit }) => ({
          label: what,
          unit,
          cells: [perMillion, number(limit, 0), number(limit / perMillion, 1)],
        })),
        notes: [
          `What moves it. ${first.map(({ what, parameter }) => `${what}: ${parameter}`).join('. ')}.`,
          'DNS packets (1,024 a second for each network interface) are limited for each environment of Lambda, so ' +
            'they bound the batch and not the table: 100 domains ask 200 questions, in about a second.',
        ],
      },
      {
        title: 'TEN MILLION, simulated: the real planning at the pace of Lambda',
        columns: simulated.map(
          ({ policies, plans }) => `${policies / MILLION}M, ${plans} plan${plans > 1 ? 's' : ''}`,
        ),
        rows: [
          { label: 'time of plan', unit: 's', digits: 0, cells: simulated.map((one) => one.planSeconds) },
          { label: 'schedules', digits: 0, cells: simulated.map((one) => one.schedules) },
          {
            label: 'schedules of one minute, at most',
            digits: 0,
            cells: simulated.map((one) => one.schedulesAtOnce),
          },
          { label: 'messages of a minute, mean', digits: 0, cells: simulated.map((one) => one.meanMinute) },
          {
            label: 'largest minute over the mean',
            digits: 2,
            cells: simulated.map((one) => one.largestMinute / one.meanMinute),
          },
        ],
      },
    ];
  },
};
