// What the functions are told by their environment, and the arithmetic of what it promises (README, "The promise").

import { LIMITS } from '../../functions/mtasts/limits.ts';
import { type Planner, timesOf } from '../../functions/plan/run.ts';
import { PROCESSING_SECONDS, planEnvironment, refreshEnvironment } from '../../functions/runtime/env.ts';

export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/** Milliseconds. */
export interface Settings {
  readonly times: Planner['times'];
  readonly renewalIntervalMs: number;
  readonly maxFetchAgeMs: number;
}

/** The functions' own defaults, unless `variables` say otherwise. Throws a ConfigurationError as they do. */
export function readSettings(variables: Readonly<Record<string, string | undefined>>): Settings {
  const named = {
    ...variables,
    ...{
      POLICY_TABLE: 'simulated',
      REFRESH_QUEUE_URL: 'https://simulated.invalid/',
      SCHEDULE_GROUP: 'simulated',
    },
    ...{ DISPATCH_FUNCTION_ARN: 'arn:simulated:lambda:', SCHEDULER_ROLE_ARN: 'arn:simulated:iam:' },
    SCHEDULER_DLQ_ARN: 'arn:simulated:sqs:',
  };
  const plan = planEnvironment(named);
  return {
    times: timesOf(plan),
    renewalIntervalMs: plan.renewalIntervalSeconds * 1_000,
    maxFetchAgeMs: refreshEnvironment(named).maxFetchAgeSeconds * 1_000,
  };
}

/** The longest that it takes, milliseconds, while the host can be reached. */
export interface Promised {
  /**
   * From any moment until a policy that is about to end is renewed: interval + lateness + processing. The run's window
   * is no part of it: no task is due later than five minutes before its policy ends, and processing takes two.
   */
  readonly renewalMs: number;
  /**
   * The same from the end of an outage: and the minute of an attempt that began too early, and the five for which it is
   * not repeated (RFC 8461 §3.3).
   */
  readonly rescueMs: number;
  /** From the end of an outage until any policy of the renewal lane is fresh: the window as well. */
  readonly recoveryMs: number;
  /** The same for a policy that only the daily run cares for, which leaves what was updated half a day ago. */
  readonly dailyMs: number;
}

/** @param lostRuns one renewal run at a time may be lost. */
export function promiseOf({ times, renewalIntervalMs }: Settings, lostRuns = false): Promised {
  const lateMs = times.latenessMs + PROCESSING_SECONDS * 1_000;
  const spoiledMs = LIMITS.domainMs + LIMITS.retryAfterMs;
  const renewalMs = renewalIntervalMs * (lostRuns ? 2 : 1) + lateMs;
  return {
    renewalMs,
    rescueMs: renewalMs + spoiledMs,
    recoveryMs: renewalMs + times.renewalSpreadMs + spoiledMs,
    dailyMs: times.staleAfterMs + DAY + times.spreadMs + lateMs + spoiledMs,
  };
}
