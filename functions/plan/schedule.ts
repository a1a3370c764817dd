// Waves into one-time schedules of EventBridge Scheduler, which hand them to `dispatch` later.

import { createHash } from 'node:crypto';
import { ConflictException, CreateScheduleCommand, type SchedulerClient } from '@aws-sdk/client-scheduler';
import { encodeWaves } from '../dispatch/wave.ts';
import { eachConcurrently } from '../runtime/concurrent.ts';
import type { PlannedWave } from './plan.ts';

export interface ScheduleTarget {
  readonly group: string;
  readonly dispatchFunctionArn: string;
  readonly roleArn: string;
  readonly dlqArn: string;
}

/** @returns how many schedules there are for the waves. */
export type ScheduleWaves = (runId: string, waves: readonly PlannedWave[]) => Promise<number>;

/** Well below the 250 a second that the smallest regions allow. */
const CALLS_AT_ONCE = 8;

/** A wave that could not be handed over for this long is overtaken by the next day's plan. */
const MAX_EVENT_AGE_SECONDS = 10_800;

export function createScheduleWaves(client: SchedulerClient, target: ScheduleTarget): ScheduleWaves {
  return async (runId, waves) => {
    const schedules = waves.flatMap(({ releaseAt, tasks }) =>
      encodeWaves(runId, tasks).map((input) => ({ releaseAt, input })),
    );
    await eachConcurrently(schedules, CALLS_AT_ONCE, async ({ releaseAt, input }) => {
      try {
        await client.send(
          new CreateScheduleCommand({
            Name: scheduleName(runId, input),
            GroupName: target.group,
            ScheduleExpression: `at(${new Date(releaseAt).toISOString().slice(0, 19)})`,
            FlexibleTimeWindow: { Mode: 'OFF' },
            ActionAfterCompletion: 'DELETE',
            Target: {
              Arn: target.dispatchFunctionArn,
              RoleArn: target.roleArn,
              Input: input,
              RetryPolicy: { MaximumEventAgeInSeconds: MAX_EVENT_AGE_SECONDS, MaximumRetryAttempts: 20 },
              DeadLetterConfig: { Arn: target.dlqArn },
            },
          }),
        );
      } catch (error) {
        // The name is made from the content: the very same wave is there already, from a repeated call.
        if (!(error instanceof ConflictException)) throw error;
      }
    });
    return schedules.length;
  };
}

/** At most 64 characters of `[0-9a-zA-Z-_.]`, as EventBridge Scheduler wants. */
export function scheduleName(runId: string, input: string): string {
  const run = runId.replace(/[^0-9a-zA-Z_.-]/g, '-').slice(0, 40);
  return `${run}-${createHash('sha256').update(input).digest('hex').slice(0, 16)}`;
}
