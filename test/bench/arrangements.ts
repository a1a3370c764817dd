// What a batch of refreshes takes and costs, by how they are arranged: a batch lasts as long as its slowest domain, so
// it matters who shares one with whom. A model, with drawn batches; what goes into it is measured.

import { seeded } from '../functions/dispatch/tasks.ts';
import { drawKinds, drawLatency, holdsMs, KINDS, type KindName, type Patience } from './domains.ts';
import type { Shares } from './mix.ts';
import { mean, quantile, sum } from './table.ts';

/** Lambda's processor time grows with memory: with 1,769 MB it is one processor ("Configure Lambda function memory"). */
const MEGABYTES_OF_A_PROCESSOR = 1_769;

/**
 * How much longer Lambda's arm64 processors take than the one that measured. An assumption: those are of 2019, two to
 * four years older than most that this will run on.
 */
export const SLOWER = 1.5;

/** To read the items before and to write the last one after: milliseconds. */
const DATABASE_MS = 20;

/** Milliseconds of wall time for so much CPU time as measured here. */
export function lambdaMs(cpuMs: number, megabytes: number): number {
  return (cpuMs * SLOWER) / Math.min(megabytes / MEGABYTES_OF_A_PROCESSOR, 1);
}

export interface World {
  readonly sound: Shares;
  /** Of the queue, that failed the last time too; and that fails for the first time. */
  readonly known: number;
  readonly newly: number;
  /** How they fail, of 1. */
  readonly failing: Shares;
  /** Milliseconds of CPU time. */
  readonly cpuMs: { readonly same: number; readonly fetched: number; readonly failing: number };
}

/** Who shares a batch with whom; undefined: all, as they come. */
export interface Apart {
  /** Whom the table says to have failed the last time; or those of them alone that kept it waiting then. */
  readonly whom: 'failing' | 'slow';
  /** They are due together, every so many seconds. */
  readonly everySeconds: number;
  /** In a queue that is theirs alone; else in that of the others. */
  readonly ownQueue: boolean;
}

export interface Arrangement {
  readonly apart?: Apart | undefined;
  readonly batchSize: number;
  readonly windowSeconds: number;
  readonly megabytes: number;
  readonly patience: Patience;
}

export interface Estimate {
  /** Batches of a million refreshes: all, and those that last ten seconds or more. */
  readonly batches: number;
  readonly longBatches: number;
  /** Refreshes in a batch, in the mean. */
  readonly fill: number;
  readonly meanSeconds: number;
  readonly p99Seconds: number;
  /** Of a million refreshes. */
  readonly gigabyteSeconds: number;
}

/** Lambda reads a queue with five pollers and more ("Configuring scaling behavior for SQS event source mappings"). */
export const POLLERS = 5;

/** How many messages are in a batch, where so many come in a second: each poller gathers a batch of its own. */
export function fillOf(
  perSecond: number,
  { windowSeconds, batchSize }: Pick<Arrangement, 'windowSeconds' | 'batchSize'>,
): number {
  return Math.min(Math.max((perSecond * windowSeconds) / POLLERS, 1), batchSize);
}

/** Whether it keeps whoever asks waiting. */
export const isSlow = (name: KindName) => 'holdsMs' in KINDS[name];

const shareOf = (shares: Shares) => sum(Object.values(shares));

function only(shares: Shares, which: (name: KindName) => boolean): Shares {
  return Object.fromEntries(Object.entries(shares).filter(([name]) => which(name as KindName)));
}

/** Each share of all these together, times its factor. */
function blend(...parts: readonly (readonly [Shares, number])[]): Shares {
  const blended: Partial<Record<KindName, number>> = {};
  for (const [shares, factor] of parts) {
    for (const [name, share] of Object.entries(shares) as [KindName, number][]) {
      blended[name] = (blended[name] ?? 0) + factor * share;
    }
  }
  return blended;
}

/** Who is in the batches of the many, and who is apart: shares of all. */
function divide(
  { apart }: Arrangement,
  { sound, failing, known, newly }: World,
): { many: Shares; few: Shares } {
  const isApart = (name: KindName) => apart !== undefined && (apart.whom === 'failing' || isSlow(name));
  const rest = only(failing, (name) => !isApart(name));
  return {
    many: blend([sound, 1], [rest, known], [failing, newly]),
    few: blend([only(failing, isApart), known]),
  };
}

/** Batches that are alike: how many in a second, and how many of the many and of the few are in each. */
interface Group {
  readonly perSecond: number;
  readonly many: number;
  readonly few: number;
}

function groupsOf(
  arrangement: Arrangement,
  shares: { many: number; few: number },
  perSecond: number,
): Group[] {
  const { apart, batchSize } = arrangement;
  const [many, few] = [perSecond * shares.many, perSecond * shares.few];
  const fill = fillOf(many, arrangement);
  if (apart === undefined || few === 0) return [{ perSecond: many / fill, many: fill, few: 0 }];
  // What comes at once is divided among the pollers, also where fewer could take it.
  const burst = few * apart.everySeconds;
  if (apart.ownQueue) {
    const batches = Math.max(Math.min(POLLERS, burst), burst / batchSize);
    return [
      { perSecond: many / fill, many: fill, few: 0 },
      { perSecond: batches / apart.everySeconds, many: 0, few: burst / batches },
    ];
  }
  // Each poller has begun a batch of the many.
  const touched = Math.min(POLLERS + burst / batchSize, (many / fill) * apart.everySeconds);
  const beside = Math.min(fill, Math.max(batchSize - burst / touched, 0));
  const touchedPerSecond = touched / apart.everySeconds;
  return [
    { perSecond: (many - touchedPerSecond * beside) / fill, many: fill, few: 0 },
    { perSecond: touchedPerSecond, many: beside, few: burst / touched },
  ];
}

const TRIALS = 300;

/** How long batches of a group take, milliseconds each. */
function drawBatches(
  group: Group,
  kinds: { many: Shares; few: Shares },
  { megabytes, patience }: Arrangement,
  { cpuMs }: World,
): number[] {
  const random = seeded(7);
  // Of seven and a half, there are seven or eight.
  const whole = (count: number) => Math.floor(count) + (random() < count % 1 ? 1 : 0);
  return Array.from({ length: TRIALS }, (_, trial) => {
    const batch = [
      ...drawKinds(kinds.many, whole(group.many), 2 * trial),
      ...drawKinds(kinds.few, whole(group.few), 2 * trial + 1),
    ];
    const holds = batch.map((kind) => holdsMs(kind, drawLatency(random), patience));
    const cpu = sum(
      batch.map((kind) =>
        kind === 'same' ? cpuMs.same : KINDS[kind].failing ? cpuMs.failing : cpuMs.fetched,
      ),
    );
    // Work is done while the slow are waited for; if it takes longer than they do, it ends with the usual.
    const quick = holds.filter((_, i) => !isSlow(batch[i] as KindName));
    const worked = lambdaMs(cpu, megabytes) + (quick.length > 0 ? quantile(quick, 0.5) : 0);
    return DATABASE_MS + Math.max(worked, ...holds);
  });
}

const MILLION = 1_000_000;
const LONG_MS = 10_000;

/** A drawn estimate takes some milliseconds, and the same is asked for again and again. */
const known = new Map<string, Estimate>();

/** @param perSecond how many refreshes are due. */
export function estimate(arrangement: Arrangement, world: World, perSecond: number): Estimate {
  const key = JSON.stringify([arrangement, world, perSecond]);
  const result = known.get(key) ?? draw(arrangement, world, perSecond);
  known.set(key, result);
  return result;
}

function draw(arrangement: Arrangement, world: World, perSecond: number): Estimate {
  const due = MILLION / perSecond;
  const kinds = divide(arrangement, world);
  const shares = { many: shareOf(kinds.many), few: shareOf(kinds.few) };
  const groups = groupsOf(arrangement, shares, perSecond).filter((group) => group.perSecond > 0);
  const drawn = groups.map((group) => ({
    batches: group.perSecond * due,
    times: drawBatches(group, kinds, arrangement, world),
  }));
  const batches = sum(drawn.map((one) => one.batches));
  const seconds = sum(drawn.map((one) => (one.batches * mean(one.times)) / 1_000));
  const long = (times: readonly number[]) => times.filter((ms) => ms >= LONG_MS).length / times.length;
  // Each group in its proportion, for a quantile of all.
  const pooled = drawn.flatMap((one) => {
    const count = Math.round((one.batches / batches) * 10 * TRIALS);
    return Array.from({ length: count }, (_, i) => one.times[i % TRIALS] ?? 0);
  });
  return {
    batches,
    longBatches: sum(drawn.map((one) => one.batches * long(one.times))),
    fill: MILLION / batches,
    meanSeconds: seconds / batches,
    p99Seconds: quantile(pooled, 0.99) / 1_000,
    gigabyteSeconds: (seconds * arrangement.megabytes) / 1_024,
  };
}

/** Batches under way at once, where so many refreshes are due in a second. */
export function concurrency({ batches, meanSeconds }: Estimate, perSecond: number): number {
  return ((perSecond * batches) / MILLION) * meanSeconds;
}
