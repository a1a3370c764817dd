import type { Enqueue } from '../dispatch/enqueue.ts';
import { SLOW_FAILURES } from '../mtasts/failure.ts';
import { eachConcurrently } from '../runtime/concurrent.ts';
import type { PlanEnvironment } from '../runtime/env.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import type { PolicyStore, ScannedRecord } from '../store/policy-store.ts';
import type { PlanEvent } from './event.ts';
import { type Health, HealthCheck } from './health.ts';
import { type Ages, type Candidate, dailyLane, divide, renewalLane, spread } from './plan.ts';
import type { ScheduleWaves } from './schedule.ts';

export interface Planner {
  readonly store: PolicyStore;
  readonly enqueue: Enqueue;
  readonly scheduleWaves: ScheduleWaves;
  readonly telemetry: Telemetry;
  /** Epoch milliseconds. */
  readonly now: () => number;
  /** Uniform in [0, 1); unpredictable, so that an attacker cannot know when a domain's turn is. */
  readonly random: () => number;
  readonly times: Ages & {
    /** The window of the daily run, and that of the renewal run. */
    readonly spreadMs: number;
    readonly renewalSpreadMs: number;
    readonly waveMs: number;
    readonly latenessMs: number;
  };
  /** Domains that are shuffled and spread together: `BLOCK_SIZE`, unless a test wants several blocks of a few. */
  readonly blockSize?: number;
}

/** A plan's times as its function is configured. */
export function timesOf(environment: PlanEnvironment): Planner['times'] {
  return {
    spreadMs: environment.spreadSeconds * 1_000,
    renewalSpreadMs: environment.renewalSpreadSeconds * 1_000,
    waveMs: environment.waveSeconds * 1_000,
    latenessMs: environment.latenessSeconds * 1_000,
    staleAfterMs: environment.staleAfterSeconds * 1_000,
    unusedAfterMs: environment.unusedAfterSeconds * 1_000,
    renewalMarginMs: environment.renewalMarginSeconds * 1_000,
  };
}

export interface PlanSummary extends Health {
  readonly planned: number;
  readonly pruned: number;
  readonly pruneFailed: number;
  readonly schedules: number;
}

/**
 * Domains that are shuffled and spread together. Bounds the memory, whatever the table's size; and with 13 waves of
 * 840 s in three hours, a block's share of a wave still fits into one schedule or two.
 */
const BLOCK_SIZE = 65_000;

const PRUNES_AT_ONCE = 16;

/** After this many failures a run prunes no more: refreshes must not wait for a database that deletes nothing. */
const MAX_FAILED_PRUNES = 100;

/**
 * One pass over the table. The daily run prunes what nobody uses and plans a refresh for what is stale; the renewal
 * run plans one for what is about to expire. Both report the fleet's health. A failed prune is logged and counted;
 * faults of the scan, the queue or the scheduler reject. Running it again is harmless: it is a fresh plan from now,
 * and tasks that were done in the meantime are dropped by their `LastUpdate`.
 */
export async function runPlan({ kind, runId }: PlanEvent, planner: Planner): Promise<PlanSummary> {
  const { store, enqueue, scheduleWaves, telemetry, now, random, times, blockSize = BLOCK_SIZE } = planner;
  const started = now();
  const lane = kind === 'daily' ? dailyLane(started, times) : renewalLane(started, times);
  const end = started + (kind === 'daily' ? times.spreadMs : times.renewalSpreadMs);
  const health = new HealthCheck(started);
  const summary = { planned: 0, pruned: 0, pruneFailed: 0, schedules: 0 };
  let examined = 0;
  let block: Candidate[] = [];

  const release = async () => {
    const tasks = block;
    block = [];
    // What the scan has taken of the window so far is gone: this block has the rest.
    const at = now();
    const planned = spread(tasks, { start: at, end: Math.max(end, at) }, random);
    const { immediate, waves } = divide(planned, at, times);
    // The schedules first: a message that goes out a little later is just due sooner, but a schedule must not be
    // created when its time is past.
    summary.schedules += await scheduleWaves(runId, waves);
    await enqueue(immediate);
    summary.planned += tasks.length;
  };

  /** False if the entry is still there: it was used or updated just now, or the database failed. */
  const prune = async ({ domain, lastUpdate }: ScannedRecord, usedBefore: number): Promise<boolean> => {
    if (summary.pruneFailed >= MAX_FAILED_PRUNES) return false;
    try {
      return (await store.prune(domain, usedBefore, lastUpdate)) === 'written';
    } catch (error) {
      summary.pruneFailed++;
      telemetry.error('entry not pruned, the next run tries again', error, { domain });
      return false;
    }
  };

  /** Deletes those that nobody uses. @returns those that are still there. */
  const pruneUnused = async (records: readonly ScannedRecord[]): Promise<ScannedRecord[]> => {
    const remaining: ScannedRecord[] = [];
    const unused: { record: ScannedRecord; usedBefore: number }[] = [];
    for (const record of records) {
      const verdict = lane.judge(record);
      if (verdict.kind === 'prune') unused.push({ record, usedBefore: verdict.usedBefore });
      else remaining.push(record);
    }
    await eachConcurrently(unused, PRUNES_AT_ONCE, async ({ record, usedBefore }) => {
      if (await prune(record, usedBefore)) summary.pruned++;
      // In use again, most likely: its policy must not lapse before tomorrow's run. What it says of its use is no
      // longer true, or no longer matters.
      else remaining.push({ ...record, lastUse: undefined });
    });
    return remaining;
  };

  // What has expired is counted, whatever the lane asks for.
  const expiringBefore = Math.max(lane.range.expiringBefore, started);
  for await (const page of store.scan({ ...lane.range, expiringBefore })) {
    examined += page.examined;
    for (const { key, reason } of page.unreadable) telemetry.unreadable(key, reason);
    for (const record of await pruneUnused(page.records)) {
      health.see(record);
      const verdict = lane.judge(record);
      if (verdict.kind !== 'refresh') continue;
      const { domain, lastUpdate, failingSince, lastFailure = '' } = record;
      const slow = failingSince !== undefined && SLOW_FAILURES.has(lastFailure);
      block.push({ domain, lastUpdate, latest: verdict.latest, slow });
      if (block.length === blockSize) await release();
    }
  }
  if (block.length > 0) await release();

  const report = health.report(examined - summary.pruned);
  if (kind === 'daily') {
    telemetry.count('Planned', summary.planned);
    telemetry.count('Pruned', summary.pruned);
  } else {
    telemetry.count('Renewals', summary.planned);
  }
  telemetry.gauge('Stored', report.stored);
  telemetry.gauge('Lapsed', report.lapsed);
  telemetry.gauge('Expiring', report.expiring);
  telemetry.gauge('FailingSafe', report.failingSafe);
  telemetry.gauge('Failing', report.failing);
  // A renewal run does not see what is stale.
  return { ...summary, ...report, oldestUpdate: kind === 'daily' ? report.oldestUpdate : undefined };
}
