// The plan as pure functions: which entries to prune and which to refresh, in what order, and when.

import type { WaveTask } from '../dispatch/wave.ts';
import type { RefreshTask } from '../refresh/task.ts';
import type { ScannedRecord, ScanRange } from '../store/policy-store.ts';

/** Tasks that one or more schedules release together. */
export interface PlannedWave {
  /** When the schedules should fire, epoch milliseconds, a whole second; they may be late by the lateness. */
  readonly releaseAt: number;
  readonly tasks: readonly WaveTask[];
}

/** Milliseconds; the tunables of a plan that say what is chosen. */
export interface Ages {
  /** The daily run refreshes what was not updated for so long. */
  readonly staleAfterMs: number;
  /** It prunes what no relay has used for so long. 0: never. */
  readonly unusedAfterMs: number;
  /** The renewal run refreshes what expires within so long. */
  readonly renewalMarginMs: number;
}

/** A refresh to be planned. */
export interface Candidate extends RefreshTask {
  /** The latest moment at which it should start, epoch milliseconds; undefined: any time in the window. */
  readonly latest?: number | undefined;
  /** The last refresh failed in a way that takes long, as the next one will. */
  readonly slow?: boolean;
}

/** What to do about an entry. `prune`: delete it, if it was last used before `usedBefore`. */
export type Verdict =
  | { readonly kind: 'prune'; readonly usedBefore: number }
  | { readonly kind: 'refresh'; readonly latest?: number }
  | { readonly kind: 'leave' };

/** How a kind of run chooses entries. */
export interface Lane {
  /** What the scan has to return for it. */
  readonly range: ScanRange;
  readonly judge: (record: ScannedRecord) => Verdict;
}

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const NEVER = Number.NEGATIVE_INFINITY;
const NO_LATER = Number.POSITIVE_INFINITY;

/**
 * A back-off is forgotten after two days without use: a wildcard TXT record, and mail to random names below it, must
 * not fill the table.
 */
const BACKOFF_UNUSED_AFTER_MS = 2 * DAY;

/** A policy that has expired is still tried every hour for so long after it was last used, and after it expired. */
const REVIVE_WITHIN_MS = 7 * DAY;

/** A renewal starts this long before the policy expires, so that it is done in time. */
const RENEWAL_RESERVE_MS = 300_000;

/**
 * A batch is paid for until its slowest domain is done, and one slow domain in a hundred is enough to make every batch
 * wait. So those that are known to be slow are due together, once in so long.
 */
const SLOW_TOGETHER_MS = 180_000;

/** The shortest window has so many turns for them. */
const SLOW_TURNS = 5;

/** Further ahead no clock is: an update there was a mistake, and would never count as stale. */
const AHEAD_MS = DAY;

/** Prunes what nobody uses; refreshes what is stale, whatever its lifetime. */
export function dailyLane(now: number, { staleAfterMs, unusedAfterMs }: Ages): Lane {
  const updatedBefore = now - staleAfterMs;
  const updatedAfter = now + AHEAD_MS;
  const usedBefore = unusedAfterMs === 0 ? NEVER : now - unusedAfterMs;
  return {
    range: { updatedBefore, usedBefore, expiringBefore: NEVER, updatedAfter },
    judge({ backoff, lastUse, lastUpdate }) {
      // An entry that nobody uses is not worth a refresh, however stale. One whose use was never reported is not
      // known to be unused.
      const bound = backoff ? Math.max(usedBefore, now - BACKOFF_UNUSED_AFTER_MS) : usedBefore;
      if (lastUse !== undefined && lastUse < bound) return { kind: 'prune', usedBefore: bound };
      const stale = lastUpdate < updatedBefore || lastUpdate > updatedAfter;
      return stale ? { kind: 'refresh' } : { kind: 'leave' };
    },
  };
}

/** Refreshes what is about to expire, and what has expired lately and is in use. */
export function renewalLane(now: number, { unusedAfterMs, renewalMarginMs }: Ages): Lane {
  const expiringBefore = now + renewalMarginMs;
  // Where relays do not report use, everything counts as used.
  const usedSince = unusedAfterMs === 0 ? NEVER : now - REVIVE_WITHIN_MS;
  return {
    range: { updatedBefore: NEVER, usedBefore: NEVER, expiringBefore, updatedAfter: NO_LATER },
    judge({ mode, backoff, validEnd, lastUse = NEVER }) {
      if (backoff || mode === undefined || mode === 'none') return { kind: 'leave' };
      if (validEnd === undefined || validEnd >= expiringBefore) return { kind: 'leave' };
      if (validEnd > now) return { kind: 'refresh', latest: validEnd - RENEWAL_RESERVE_MS };
      // A host that recovers is picked up within the hour: for a week if the policy is in use, and otherwise for as
      // long as it takes a lost run to be made good.
      const inUse = validEnd > now - REVIVE_WITHIN_MS && lastUse >= usedSince;
      const revive = inUse || validEnd > now - renewalMarginMs;
      return revive ? { kind: 'refresh' } : { kind: 'leave' };
    },
  };
}

/**
 * Puts the tasks in random order and spreads them evenly from `start` to `end`, each moved by up to half an interval
 * either way, so that nobody can tell when a domain's turn is. The first is due at once, none after the end, and none
 * after its own latest moment while that is ahead. A slow one's turn is moved to the last that slow ones share.
 *
 * @param random uniform in [0, 1).
 */
export function spread(
  tasks: readonly Candidate[],
  window: { start: number; end: number },
  random: () => number,
): WaveTask[] {
  const { start, end } = window;
  const interval = (end - start) / Math.max(tasks.length - 1, 1);
  const together = Math.max(1, Math.min(SLOW_TOGETHER_MS, (end - start) / SLOW_TURNS));
  return shuffle(tasks, random).map(({ domain, lastUpdate, latest = end, slow = false }, i) => {
    const jitter = i === 0 ? 0 : (random() - 0.5) * interval;
    const even = start + i * interval + jitter;
    // By the clock, and not from the start: all blocks and runs share them.
    const slot = slow ? Math.floor(even / together) * together : even;
    return { domain, lastUpdate, due: Math.max(Math.min(slot, end, latest), start) };
  });
}

/** Fisher and Yates. */
function shuffle<T>(items: readonly T[], random: () => number): T[] {
  const shuffled = [...items];
  for (let i = shuffled.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [shuffled[i], shuffled[j]] = [shuffled[j] as T, shuffled[i] as T];
  }
  return shuffled;
}

/**
 * Divides tasks into those that SQS can delay from now on, and waves that schedules release later: a message is
 * delayed by wave + lateness at most, so a wave is released its lateness before it begins.
 *
 * @param times whole seconds, in milliseconds.
 */
export function divide(
  tasks: readonly WaveTask[],
  now: number,
  { waveMs, latenessMs }: { waveMs: number; latenessMs: number },
): { immediate: WaveTask[]; waves: PlannedWave[] } {
  // A schedule fires at a whole second. Waves that begin at one are released neither earlier than said, which could
  // be a second more than SQS delays, nor later.
  const firstWave = Math.floor((now + waveMs + latenessMs) / 1_000) * 1_000;
  const immediate: WaveTask[] = [];
  const waves = new Map<number, WaveTask[]>();
  for (const task of tasks) {
    // The last of a window that is as long as SQS delays needs no schedule.
    if (task.due <= now + waveMs + latenessMs) {
      immediate.push(task);
      continue;
    }
    const start = firstWave + Math.floor((task.due - firstWave) / waveMs) * waveMs;
    const wave = waves.get(start);
    if (wave === undefined) waves.set(start, [task]);
    else wave.push(task);
  }
  return {
    immediate,
    waves: [...waves].map(([start, waveTasks]) => ({ releaseAt: start - latenessMs, tasks: waveTasks })),
  };
}
