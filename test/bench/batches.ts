// `refresh` on what a steady state brings, broken domains among them that keep it waiting: what a batch takes and costs,
// as it is and as it could be arranged.

import { LIMITS } from '../../functions/mtasts/limits.ts';
import { seeded } from '../functions/dispatch/tasks.ts';
import {
  type Apart,
  type Arrangement,
  concurrency,
  type Estimate,
  estimate,
  isSlow,
  type World,
} from './arrangements.ts';
import type { Bench, Section } from './bench.ts';
import { domainName, drawKinds, drawLatency, KINDS, type KindName, type Patience } from './domains.ts';
import { startFunction } from './function.ts';
import { failingShares, mixSection, refreshesPerDay, type Shares, sharesOf } from './mix.ts';
import { PRICES } from './prices.ts';
import { counted, fetchedSection, message, unchangedSection } from './refresh.ts';
import { mean, number, sum, type Table } from './table.ts';

interface Measured {
  readonly name: string;
  readonly batches: number;
  /** Seconds. */
  readonly mean: number;
  readonly longest: number;
  readonly cpuMsPerDomain: number;
  readonly peakBytes: number;
  readonly logBytesPerDomain: number;
}

export interface BatchesResult {
  readonly megabytes: number;
  readonly batchSize: number;
  readonly concurrency: number;
  readonly measured: readonly Measured[];
  readonly world: World;
  readonly arrangements: readonly Arranged[];
  /** The same under other assumptions, for each of COMPARED. */
  readonly sensitivity: readonly { readonly name: string; readonly estimates: readonly Estimate[] }[];
  /** Refreshes that are due in a second at a million policies: of a daily run, and while a renewal run overlaps. */
  readonly perSecond: { readonly daily: number; readonly both: number };
}

interface Arranged extends Arrangement {
  readonly name: string;
  readonly estimate: Estimate;
}

export const PATIENCE: Patience = {
  phaseMs: LIMITS.connectMs,
  headersMs: LIMITS.headersMs,
  domainMs: LIMITS.domainMs,
};
const SHORTER: Patience = { phaseMs: 5_000, headersMs: 5_000, domainMs: 15_000 };

const MILLION = 1_000_000;

/** Ways to keep those apart that keep others waiting. */
export const APART = {
  'failing, every minute': { whom: 'failing', everySeconds: 60, ownQueue: false },
  'slow, every minute': { whom: 'slow', everySeconds: 60, ownQueue: false },
  'slow, every 3 minutes': { whom: 'slow', everySeconds: 180, ownQueue: false },
  'slow, every 5 minutes': { whom: 'slow', everySeconds: 300, ownQueue: false },
  'failing, own queue': { whom: 'failing', everySeconds: 60, ownQueue: true },
  'slow, own queue': { whom: 'slow', everySeconds: 60, ownQueue: true },
  'slow, own queue, 3 minutes': { whom: 'slow', everySeconds: 180, ownQueue: true },
} as const satisfies Record<string, Apart>;
/** As it is: the cheapest that leaves the spread as even as it has to be, and needs no other queue. */
export const BEST = 'slow, every 3 minutes';
export const TOGETHER = 'all together';
const COMPARED = [undefined, APART['failing, every minute'], APART[BEST], APART['slow, own queue']];

const WARM_UP = 3;

/** The ways to fail, of 1, with so many slow ones among them, and without one of those. */
function withSlow(share: number, without?: KindName): Shares {
  const all = (Object.entries(failingShares(1)) as [KindName, number][]).filter(([name]) => name !== without);
  const slow = sum(all.filter(([name]) => isSlow(name)).map(([, weight]) => weight));
  const quick = sum(all.map(([, weight]) => weight)) - slow;
  return Object.fromEntries(
    all.map(([name, weight]) => [name, weight * (isSlow(name) ? share / slow : (1 - share) / quick)]),
  );
}

/** Each in a process of its own, as Lambda's environments are; they wait more than they work. */
async function measureBatches(
  bench: Bench,
  name: string,
  shares: Shares,
  { processes, each }: { processes: number; each: number },
): Promise<Measured> {
  const { batchSize, functions } = bench.packages;
  const surroundings = await bench.surroundings();
  const { remote: internet } = await bench.internet();
  const random = seeded(3);
  const kinds = drawKinds(shares, processes * each * batchSize, 5);
  // Names of their own: what a site was asked is remembered by name.
  const offset = (name.length + 1) * 1_000_000;
  const domains = kinds.map((kind, i) => domainName(offset + i, kind));
  const warmUp = Array.from({ length: processes * WARM_UP * batchSize }, (_, i) =>
    domainName(offset + i, 'old'),
  );
  await internet.call('populate', [
    ...warmUp.map((domain) => ({ domain, latency: { dnsMs: 0, httpsMs: 0 } })),
    ...domains.map((domain) => ({ domain, latency: drawLatency(random) })),
  ]);
  const invoked = await Promise.all(
    Array.from({ length: processes }, async (_, process) => {
      const refresh = await startFunction(functions.refresh, surroundings);
      // Lambda keeps its environments for hours: what is measured is one that has worked before.
      for (let i = 0; i < WARM_UP; i++) {
        const start = (process * WARM_UP + i) * batchSize;
        await refresh.invoke({ Records: warmUp.slice(start, start + batchSize).map(message) });
      }
      const results = [];
      for (let i = 0; i < each; i++) {
        const start = (process * each + i) * batchSize;
        results.push(await refresh.invoke({ Records: domains.slice(start, start + batchSize).map(message) }));
      }
      await refresh.close();
      return results;
    }),
  );
  const all = invoked.flat();
  const outcomes = counted(all);
  const failed = kinds.filter((kind) => KINDS[kind].failing).length;
  if (outcomes.Kept !== failed && failed > 0)
    throw new Error(`${outcomes.Kept} of ${failed} failed, ${name}`);
  return {
    name,
    batches: all.length,
    mean: mean(all.map(({ wallMs }) => wallMs)) / 1_000,
    longest: Math.max(...all.map(({ wallMs }) => wallMs)) / 1_000,
    cpuMsPerDomain: sum(all.map(({ cpuMs }) => cpuMs)) / domains.length,
    peakBytes: Math.max(...all.map(({ peakBytes }) => peakBytes)),
    logBytesPerDomain:
      sum(all.flatMap(({ lines }) => lines.map((line) => Buffer.byteLength(line)))) / domains.length,
  };
}

export const batchesSection: Section<BatchesResult> = {
  name: 'batches',
  what: 'refresh on the steady mix, slow domains among it, and other arrangements',
  async measure(bench) {
    const { packages, options } = bench;
    const mix = await bench.need(mixSection);
    const [unchanged, fetched] = [await bench.need(unchangedSection), await bench.need(fetchedSection)];
    const { sound, known, newly } = sharesOf(mix);
    const queued = { ...sound, ...failingShares(known + newly) };
    bench.progress('batches of sound domains');
    const each = options.quick ? 2 : 6;
    const soundOnly = await measureBatches(bench, 'sound alone', sound, { processes: 1, each });
    bench.progress('batches of all, and of failing domains: about two minutes');
    const [together, failing] = await Promise.all([
      measureBatches(bench, 'as they come', queued, { processes: options.quick ? 2 : 4, each: 2 }),
      measureBatches(bench, 'failing alone', failingShares(1), { processes: options.quick ? 1 : 2, each: 1 }),
    ]);
    const world: World = {
      ...{ sound, known, newly, failing: failingShares(1) },
      cpuMs: {
        same: unchanged.cpuMsPerDomain,
        fetched: fetched.cpuMsPerDomain,
        failing: failing.cpuMsPerDomain,
      },
    };
    const { batchSize, windowSeconds, concurrency: most } = packages;
    const { memoryMegabytes: megabytes } = packages.functions.refresh;
    const perDay = refreshesPerDay(mix);
    const { SPREAD_SECONDS, RENEWAL_SPREAD_SECONDS } = packages.functions.plan.variables;
    const daily = (MILLION * perDay.daily) / Number(SPREAD_SECONDS);
    const both = daily + (MILLION * perDay.renewal) / 24 / Number(RENEWAL_SPREAD_SECONDS);
    const mixed: Arrangement = { batchSize, windowSeconds, megabytes, patience: PATIENCE };
    const named = (name: string, other: Partial<Arrangement>): Arranged => {
      const arrangement = { ...mixed, ...other };
      return { name, ...arrangement, estimate: estimate(arrangement, world, daily) };
    };
    const best = { apart: APART[BEST] };
    const differently = (name: string, other: Partial<World>) => ({
      name,
      estimates: COMPARED.map((apart) => estimate({ ...mixed, apart }, { ...world, ...other }, daily)),
    });
    const moreFailing = (factor: number) => ({ known: factor * known, newly: factor * newly });
    return {
      ...{ megabytes, batchSize, concurrency: most, world },
      measured: [together, soundOnly, failing],
      arrangements: [
        named(TOGETHER, {}),
        ...[10, 25, 50, 200].map((size) => named(`${TOGETHER}; ${size} a batch`, { batchSize: size })),
        named(`${TOGETHER}; limits of 5 s and 15 s`, { patience: SHORTER }),
        named(`${TOGETHER}; limits of 3 s and 10 s`, {
          patience: { phaseMs: 3_000, headersMs: 3_000, domainMs: 10_000 },
        }),
        ...Object.entries(APART).map(([name, apart]) => named(`apart: ${name}`, { apart })),
        ...[10, 20, 30, 45, 60].map((seconds) =>
          named(`${BEST}; ${seconds} s for headers`, {
            ...best,
            patience: { ...PATIENCE, headersMs: seconds * 1_000 },
          }),
        ),
        named(`${BEST}; 5 s and 15 s`, { ...best, patience: SHORTER }),
        ...[10, 25, 50, 200].map((size) => named(`${BEST}; ${size} a batch`, { ...best, batchSize: size })),
        ...[192, 256, 320, 384, 768, 1_024, 1_769].map((size) =>
          named(`${BEST}; ${size} MB`, { ...best, megabytes: size }),
        ),
      ],
      sensitivity: [
        differently('as assumed', {}),
        differently('none takes its whole minute', { failing: withSlow(0.3, 'trickling') }),
        differently('one in ten of the failing is slow', { failing: withSlow(0.1) }),
        differently('every second', { failing: withSlow(0.5) }),
        differently('nine in ten', { failing: withSlow(0.9) }),
        differently('three times as many fail', moreFailing(3)),
        differently('a third as many fail', moreFailing(1 / 3)),
        differently('ten times as many fail anew', { newly: 10 * newly }),
      ],
      perSecond: { daily, both },
    };
  },

  tables(result) {
    const { measured, megabytes, batchSize, arrangements, sensitivity, perSecond, world } = result;
    const each = (of: (one: Measured) => number) => measured.map(of);
    const dollars = ({ gigabyteSeconds, batches }: Estimate) =>
      gigabyteSeconds * PRICES.lambda.gigabyteSecond + batches * PRICES.lambda.request;
    const gigabyteSeconds = (seconds: number) => (seconds * megabytes) / 1_024;
    const compared = COMPARED.flatMap((apart) => arrangements.find((one) => one.apart === apart) ?? []);
    const tables: Table[] = [
      {
        title: `BATCHES of ${batchSize} as a steady state brings them, ${megabytes} MB`,
        columns: measured.map(({ name }) => name),
        rows: [
          { label: 'batches', digits: 0, cells: each((one) => one.batches) },
          { label: 'time, mean', unit: 's', cells: each((one) => one.mean) },
          { label: 'time, longest', unit: 's', cells: each((one) => one.longest) },
          { label: 'a batch', unit: 'GB-s', cells: each((one) => gigabyteSeconds(one.mean)) },
          { label: 'CPU time of a domain', unit: 'ms', cells: each((one) => one.cpuMsPerDomain) },
          {
            label: 'peak memory',
            unit: 'MB',
            digits: 0,
            cells: each((one) => one.peakBytes / 1e6),
            budget: { most: 256, column: 0 },
          },
          { label: 'log of a domain', unit: 'B', digits: 0, cells: each((one) => one.logBytesPerDomain) },
        ],
        notes: [
          `Of the queue, ${percent(world.known)} are known to fail, ${percent(world.newly)} fail for the ` +
            'first time. How long those that fail take to do it is assumed: see test/bench/domains.ts.',
        ],
      },
      {
        title: 'ARRANGEMENTS of refreshes, per million of them at a million policies (model)',
        columns: ['in a batch', 's', 'p99, s', 'of 10 s or more', 'GB-s', '$', 'at once'],
        rows: arrangements.map(({ name, estimate: one }) => ({
          label: name,
          cells: [
            number(one.fill, 0),
            one.meanSeconds,
            one.p99Seconds,
            percent(one.longBatches / one.batches),
            number(one.gigabyteSeconds, 0),
            number(dollars(one), 3),
            concurrency(one, perSecond.both),
          ],
        })),
        notes: [
          `As it is: ${BEST}. At a million policies, ${Math.round(perSecond.daily)} refreshes are due in a second of a daily run, and ` +
            `${Math.round(perSecond.both)} while a renewal run overlaps. At once: batches under way then.`,
        ],
      },
      {
        title: 'ARRANGEMENTS, what comes of other assumptions: per million refreshes',
        columns: compared.map(({ name }) => name.replace('apart: ', '')),
        rows: sensitivity.map(({ name, estimates }) => ({
          label: name,
          unit: '$',
          cells: estimates.map(dollars),
        })),
      },
      {
        title: 'CONCURRENCY at a million policies: batches under way at once',
        columns: ['batches'],
        rows: compared.map(({ name, estimate: one }) => ({
          label: name,
          digits: 1,
          cells: [concurrency(one, perSecond.both)],
          ...(name === `apart: ${BEST}` && { budget: { most: result.concurrency } }),
        })),
      },
    ];
    return tables;
  },
};

function percent(share: number): string {
  return `${(100 * share).toFixed(share < 0.1 ? 2 : 0)}%`;
}
