import { randomInt } from 'node:crypto';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { SchedulerClient } from '@aws-sdk/client-scheduler';
import { SQSClient } from '@aws-sdk/client-sqs';
import type { Context } from 'aws-lambda';
import { createEnqueue } from '../dispatch/enqueue.ts';
import { CLIENT_OPTIONS, SQS_OPTIONS } from '../runtime/clients.ts';
import { planEnvironment } from '../runtime/env.ts';
import { toThrow } from '../runtime/fault.ts';
import { createTelemetry } from '../runtime/telemetry.ts';
import { createDynamoStore } from '../store/dynamo.ts';
import { decodePlanEvent } from './event.ts';
import { type PlanSummary, runPlan, timesOf } from './run.ts';
import { createScheduleWaves } from './schedule.ts';

const environment = planEnvironment(process.env);
const telemetry = createTelemetry();
const store = createDynamoStore({
  client: new DynamoDBClient(CLIENT_OPTIONS),
  table: environment.table,
  scanSegments: environment.scanSegments,
});
const enqueue = createEnqueue({
  client: new SQSClient(SQS_OPTIONS),
  queueUrl: environment.queueUrl,
  now: Date.now,
});
const scheduleWaves = createScheduleWaves(new SchedulerClient(CLIENT_OPTIONS), {
  group: environment.scheduleGroup,
  dispatchFunctionArn: environment.dispatchFunctionArn,
  roleArn: environment.schedulerRoleArn,
  dlqArn: environment.schedulerDlqArn,
});

const RANDOM_RANGE = 2 ** 47;

/** A daily or a renewal run. Rejects when it could not be completed, so that Lambda repeats it and then reports the failure. */
export async function handler(event: unknown, context: Context): Promise<PlanSummary> {
  const decoded = decodePlanEvent(event, context.awsRequestId);
  if (!decoded.ok) throw new Error(`plan cannot use its event: ${decoded.reason}`);
  const { kind, runId } = decoded.value;
  try {
    const summary = await runPlan(decoded.value, {
      store,
      enqueue,
      scheduleWaves,
      telemetry,
      now: Date.now,
      random: () => randomInt(RANDOM_RANGE) / RANDOM_RANGE,
      times: timesOf(environment),
    });
    telemetry.info('plan completed', {
      run_id: runId,
      kind,
      planned: summary.planned,
      pruned: summary.pruned,
      prune_failed: summary.pruneFailed,
      schedules: summary.schedules,
      stored: summary.stored,
      valid: summary.valid,
      backoff: summary.backoff,
      lapsed: summary.lapsed,
      expiring: summary.expiring,
      failing_safe: summary.failingSafe,
      failing: summary.failing,
      oldest_update: summary.oldestUpdate && new Date(summary.oldestUpdate).toISOString(),
    });
    return summary;
  } catch (error) {
    throw toThrow(error);
  } finally {
    telemetry.flush();
  }
}
