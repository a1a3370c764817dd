// The cost of it all, from the other sections' figures: what a million policies cost a day, what other ways would, and
// which sizes are the cheapest.

import { METRIC_NAMES } from '../../functions/runtime/telemetry.ts';
import { APART, BEST, batchesSection, PATIENCE, TOGETHER } from './batches.ts';
import type { Bench, Section } from './bench.ts';
import {
  type Alternative,
  alternatives,
  type Counted,
  costOf,
  growing,
  type Line,
  planMs,
  type Setup,
  total,
} from './cost.ts';
import { dispatchSection } from './dispatch.ts';
import { mixSection, refreshesPerDay, sharesOf } from './mix.ts';
import { planSection } from './plan.ts';
import { PRICES } from './prices.ts';
import { fetchedSection, unchangedSection } from './refresh.ts';
import { sum, type Table } from './table.ts';

interface Choice {
  readonly label: string;
  /** By table size. */
  readonly dollars: readonly number[];
}

export interface CostsResult {
  readonly counted: Counted;
  readonly setup: Setup;
  readonly lines: readonly Line[];
  readonly alternatives: readonly Alternative[];
  readonly refreshesPerDay: number;
  readonly memory: readonly Choice[];
  readonly windows: readonly Choice[];
  readonly batches: readonly Choice[];
  readonly sizes: readonly {
    readonly policies: number;
    readonly dollars: number;
    readonly planSeconds: number;
  }[];
}

const MILLION = 1_000_000;
const SIZES = [10_000, 100_000, MILLION];

async function count(bench: Bench): Promise<Counted> {
  const mix = await bench.need(mixSection);
  const plan = await bench.need(planSection);
  const unchanged = await bench.need(unchangedSection);
  const fetched = await bench.need(fetchedSection);
  const batches = await bench.need(batchesSection);
  const dispatch = await bench.need(dispatchSection);
  const { daily, renewal, request } = refreshesPerDay(mix);
  const { sound, known, newly } = sharesOf(mix);
  const asked = (name: string) => mix.outcomes[name]?.request ?? 0;
  const skipped = (of: 'daily' | 'renewal' | 'request') =>
    sum(
      Object.entries(mix.outcomes).flatMap(([name, counts]) =>
        name.startsWith('skipped') ? [counts[of]] : [],
      ),
    );
  const largest = (kind: string) => plan.synthetic.filter((run) => run.kind === kind).at(-1);
  const [dailyRun, renewalRun] = [largest('daily'), largest('renewal')];
  if (dailyRun === undefined || renewalRun === undefined) throw new Error('nothing was planned');
  const { synthetic } = dispatch;
  const failing = batches.measured.find(({ name }) => name === 'failing alone');
  return {
    refreshes: { daily, renewal },
    looks: request,
    looksFailing: asked('kept') + asked('kept, again') + asked('kept, back-off') + asked('backed-off'),
    refreshesWritten: 1 - (skipped('daily') + skipped('renewal')) / (daily + renewal),
    looksWritten: 1 - (skipped('request') + asked('not-implemented')) / request,
    uses: mix.uses,
    fetchedShare: (sound.old ?? 0) + (sound.changed ?? 0) + known + newly,
    itemBytes: plan.itemBytes,
    bytesOutPerFetch: fetched.bytesOut,
    planCpuMs: { daily: dailyRun.cpuMs / dailyRun.count, renewal: renewalRun.cpuMs / renewalRun.count },
    dispatchCpuMs: synthetic.cpuMs / synthetic.messages,
    schedulesPerTask: (dailyRun.calls.CreateSchedule ?? 0) / dailyRun.planned,
    sendsPerTask: synthetic.callsPerMessage,
    logBytes: { batch: unchanged.logBytes, failing: failing?.logBytesPerDomain ?? 0 },
    world: batches.world,
  };
}

function setupOf({ packages }: Bench): Setup {
  const { plan, dispatch, refresh, request } = packages.functions;
  return {
    apart: APART[BEST],
    batchSize: packages.batchSize,
    windowSeconds: packages.windowSeconds,
    patience: PATIENCE,
    requestPatience: PATIENCE,
    megabytes: {
      plan: plan.memoryMegabytes,
      dispatch: dispatch.memoryMegabytes,
      refresh: refresh.memoryMegabytes,
      request: request.memoryMegabytes,
    },
    spreadSeconds: Number(plan.variables.SPREAD_SECONDS),
    renewalSpreadSeconds: Number(plan.variables.RENEWAL_SPREAD_SECONDS),
    alarms: packages.alarms,
    metrics: METRIC_NAMES.length,
  };
}

export const costsSection: Section<CostsResult> = {
  name: 'cost',
  what: 'dollars per million policies and day, beside those of alternatives',
  async measure(bench) {
    const counted = await count(bench);
    const setup = setupOf(bench);
    const dollars = (other: Partial<Setup>) =>
      SIZES.map((policies) => total(costOf(policies, counted, { ...setup, ...other }, PRICES), growing));
    // As it is, and with all together, since what is best depends on it.
    const choices = <T extends number>(
      values: readonly T[],
      label: (value: T) => string,
      other: (value: T) => Partial<Setup>,
    ) =>
      [APART[BEST], undefined].flatMap((apart) =>
        values.map((value) => ({
          label: `${label(value)}${apart === undefined ? `, ${TOGETHER}` : ''}`,
          dollars: dollars({ ...setup, apart, ...other(value) }),
        })),
      );
    const memory = choices(
      [192, 256, 320, 384, 512, 768, 1_024],
      (size) => `${size} MB`,
      (refresh) => ({
        megabytes: { ...setup.megabytes, refresh },
      }),
    );
    const windows = choices(
      [1, 5, 10, 20, 30, 60],
      (seconds) => `${seconds} s`,
      (windowSeconds) => ({ windowSeconds }),
    );
    const batches = choices(
      [10, 25, 50, 100, 200],
      (size) => `${size}`,
      (batchSize) => ({ batchSize }),
    );
    const { daily, renewal } = counted.refreshes;
    return {
      ...{ counted, setup, memory, windows, batches },
      lines: costOf(MILLION, counted, setup, PRICES),
      alternatives: alternatives(MILLION, counted, setup, PRICES, Object.entries(APART)),
      refreshesPerDay: daily + renewal,
      sizes: [...SIZES, 10 * MILLION].map((policies) => ({
        policies,
        dollars: total(costOf(policies, counted, setup, PRICES)),
        planSeconds:
          planMs(policies, counted.planCpuMs.daily, counted.itemBytes, setup.megabytes.plan) / 1_000,
      })),
    };
  },

  tables({ lines, alternatives: others, refreshesPerDay: refreshes, memory, windows, batches, counted }) {
    const sum1 = total(lines, growing);
    const refreshWrites = total(lines, ({ what }) => what === 'writes of refreshes');
    const [base] = others;
    const choices = (title: string, list: readonly Choice[]): Table => ({
      title: `COST of a day by size of the table, ${title}`,
      columns: SIZES.map((policies) => policies.toLocaleString('en-US')),
      rows: list.map(({ label, dollars }) => ({ label, unit: '$', cells: dollars })),
    });
    return [
      {
        title: 'COST of a million policies and day',
        columns: ['a day', `per million of ${refreshes.toFixed(2)} M refreshes`],
        rows: [
          ...lines.map((line) => ({
            label: `${line.service}: ${line.what}${line.fixed ? ' (fixed)' : ''}`,
            unit: '$',
            cells: [line.dollars, line.fixed ? '' : line.dollars / refreshes],
            ...(line.dollars === refreshWrites && { budget: { most: 0.625, column: 0 } }),
          })),
          {
            label: 'all that grows with the table',
            unit: '$',
            cells: [sum1, sum1 / refreshes],
            budget: { most: 1.5, column: 0 },
          },
          { label: 'and what is fixed', unit: '$', cells: [total(lines), ''] },
        ],
        notes: [
          `Measured and counted: ${counted.itemBytes.toFixed(0)} bytes an item, ${counted.uses.toFixed(2)} reports of use ` +
            `of a policy and day, ${(100 * counted.fetchedShare).toFixed(0)}% of refreshes fetch. Free tiers are not counted.`,
        ],
      },
      {
        title: 'COST of other ways, a million policies and day',
        columns: ['a day', 'more'],
        rows: others.map(({ name, dollars }) => ({
          label: name,
          unit: '$',
          cells: [dollars, dollars - (base?.dollars ?? 0)],
        })),
      },
      choices('by the memory of refresh', memory),
      choices('by the batching window', windows),
      choices('by the size of a batch', batches),
    ];
  },
};

const BAR = 36;

/** The README's chart: cost and time against the size of the table. */
export function chart({ sizes }: CostsResult): string {
  const bar = (value: number, least: number, most: number) =>
    '█'.repeat(Math.max(1, Math.round((BAR * Math.log(value / least)) / Math.log(most / least))));
  const block = (
    title: string,
    of: (size: CostsResult['sizes'][number]) => number,
    text: (value: number) => string,
  ) => {
    const values = sizes.map(of);
    const [least, most] = [Math.min(...values) / 2, Math.max(...values)];
    return [
      title,
      ...sizes.map(
        (size) =>
          `${size.policies.toLocaleString('en-US').padStart(12)}  ${bar(of(size), least, most)} ${text(of(size))}`,
      ),
    ];
  };
  return [
    '```',
    ...block(
      'policies      dollars a day, everything included (logarithmic)',
      ({ dollars }) => dollars,
      (value) => `$${value.toFixed(2)}`,
    ),
    '',
    ...block(
      'policies      seconds of the daily run of plan (logarithmic)',
      ({ planSeconds }) => planSeconds,
      (value) => value.toFixed(value < 10 ? 1 : 0),
    ),
    '```',
  ].join('\n');
}
