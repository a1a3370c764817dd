// The daily plan as pure functions: which entries to prune and which to refresh, in what order, and when.

import type { WaveTask } from '../dispatch/wave.ts';
import type { RefreshTask } from '../refresh/task.ts';
import type { ScannedRecord } from '../store/policy-store.ts';

/** Tasks that one or more schedules release together. */
export interface PlannedWave {
  /** When the schedules should fire, epoch milliseconds, a whole second; they may be late by the lateness. */
  readonly releaseAt: number;
  readonly tasks: readonly WaveTask[];
}

/** The times that divide entries: those last updated, or last used, before them are to be refreshed, or pruned. */
export interface Horizon {
  readonly updatedBefore: number;
  /** -Infinity: never prune. */
  readonly usedBefore: number;
}

/** @param unusedAfterMs 0: never prune. */
export function horizon(now: number, ages: { staleAfterMs: number; unusedAfterMs: number }): Horizon {
  return {
    updatedBefore: now - ages.staleAfterMs,
    usedBefore: ages.unusedAfterMs === 0 ? Number.NEGATIVE_INFINITY : now - ages.unusedAfterMs,
  };
}

/**
 * An entry that nobody uses is not worth a refresh, however stale. One whose use was never reported is not known to
 * be unused.
 */
export function select(
  record: Pick<ScannedRecord, 'lastUpdate' | 'lastUse'>,
  { updatedBefore, usedBefore }: Horizon,
): 'prune' | 'refresh' | 'leave' {
  if (record.lastUse !== undefined && record.lastUse < usedBefore) return 'prune';
  return record.lastUpdate < updatedBefore ? 'refresh' : 'leave';
}

/**
 * Puts the tasks in random order and spreads them evenly from `start` to `end`, each moved by up to half an interval
 * either way, so that nobody can tell when a domain's turn is. The first is due at once, none after the end.
 *
 * @param random uniform in [0, 1).
 */
export function spread(
  tasks: readonly RefreshTask[],
  window: { start: number; end: number },
  random: () => number,
): WaveTask[] {
  const { start, end } = window;
  const interval = (end - start) / Math.max(tasks.length - 1, 1);
  return shuffle(tasks, random).map((task, i) => {
    const jitter = i === 0 ? 0 : (random() - 0.5) * interval;
    return { ...task, due: Math.min(Math.max(start + i * interval + jitter, start), end) };
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
    if (task.due < firstWave) {
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
