import { SQSClient } from '@aws-sdk/client-sqs';
import { SQS_OPTIONS } from '../runtime/clients.ts';
import { dispatchEnvironment } from '../runtime/env.ts';
import { toThrow } from '../runtime/fault.ts';
import { createTelemetry } from '../runtime/telemetry.ts';
import { createEnqueue } from './enqueue.ts';
import { decodeWave } from './wave.ts';

const environment = dispatchEnvironment(process.env);
const telemetry = createTelemetry();
const enqueue = createEnqueue({
  client: new SQSClient(SQS_OPTIONS),
  queueUrl: environment.queueUrl,
  now: Date.now,
});

/** Sends a wave's tasks to the refresh queue. Rejects when it could not send all, so that Lambda repeats it. */
export async function handler(event: unknown): Promise<{ sent: number }> {
  const wave = decodeWave(event);
  if (!wave.ok) throw new Error(`dispatch cannot use its event: ${wave.reason}`);
  const { runId, tasks, refused } = wave.value;
  try {
    for (const reason of refused) telemetry.refused(runId, reason);
    await enqueue(tasks);
    return { sent: tasks.length };
  } catch (error) {
    throw toThrow(error);
  } finally {
    telemetry.flush();
  }
}
