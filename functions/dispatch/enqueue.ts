// Tasks into the refresh queue, each delayed until it is due.

import { type BatchResultErrorEntry, SendMessageBatchCommand, type SQSClient } from '@aws-sdk/client-sqs';
import { encodeTask } from '../refresh/task.ts';
import { eachConcurrently } from '../runtime/concurrent.ts';
import type { WaveTask } from './wave.ts';

/** SendMessageBatch takes at most 10 entries. */
const ENTRIES_PER_CALL = 10;

/** Calls under way at once. One takes some 10 ms, so this sends about 10,000 messages a second. */
const CALLS_AT_ONCE = 16;

/** Attempts for entries that SQS reports as failed, with pauses of 100, 200, 400, 800 ms. */
const ATTEMPTS = 5;
const FIRST_PAUSE_MS = 100;

const MAX_DELAY_SECONDS = 900;

export type Enqueue = (tasks: readonly WaveTask[]) => Promise<void>;

/**
 * Sends every task, ten a call, and resends only the entries that failed. Rejects if SQS fails, keeps failing some or
 * refuses some: the caller's invocation then fails and is repeated, and tasks sent twice do no harm.
 *
 * @param options.firstPauseMs before an entry is sent again; doubled each time.
 */
export function createEnqueue(options: {
  client: SQSClient;
  queueUrl: string;
  now: () => number;
  firstPauseMs?: number;
}): Enqueue {
  const { client, queueUrl, now, firstPauseMs = FIRST_PAUSE_MS } = options;

  /** @returns the entries that SQS refuses whoever sends them and however often. */
  async function send(tasks: readonly WaveTask[]): Promise<BatchResultErrorEntry[]> {
    const refused: BatchResultErrorEntry[] = [];
    for (let attempt = 1, left = tasks; ; attempt++) {
      const { Failed = [] } = await client.send(
        new SendMessageBatchCommand({
          QueueUrl: queueUrl,
          Entries: left.map((task, i) => ({
            Id: String(i),
            MessageBody: encodeTask(task),
            DelaySeconds: delaySeconds(task.due, now()),
          })),
        }),
      );
      refused.push(...Failed.filter((entry) => entry.SenderFault));
      const failed = Failed.filter((entry) => !entry.SenderFault);
      if (failed.length === 0) return refused;
      if (attempt === ATTEMPTS) throw notSent('failed', failed);
      const ids = new Set(failed.map((entry) => entry.Id));
      left = left.filter((_, i) => ids.has(String(i)));
      await new Promise((resolve) => setTimeout(resolve, firstPauseMs * 2 ** (attempt - 1)));
    }
  }

  return async (tasks) => {
    const refused: BatchResultErrorEntry[] = [];
    await eachConcurrently(chunks(tasks, ENTRIES_PER_CALL), CALLS_AT_ONCE, async (chunk) => {
      refused.push(...(await send(chunk)));
    });
    // Only now: what is wrong with one task must not keep thousands of others from being sent.
    if (refused.length > 0) throw notSent('refused', refused);
  };
}

function notSent(did: string, entries: readonly BatchResultErrorEntry[]): Error {
  const [first] = entries;
  const message = first?.Message === undefined ? '' : ` (${first.Message})`;
  return new Error(`SQS ${did} ${entries.length} tasks, the first with ${first?.Code}${message}`);
}

/** The one rule of time: what is overdue goes at once, what is due too late waits as long as SQS lets it. */
export function delaySeconds(due: number, now: number): number {
  return Math.min(Math.max(Math.floor((due - now) / 1_000), 0), MAX_DELAY_SECONDS);
}

function* chunks<T>(items: readonly T[], size: number): Generator<readonly T[]> {
  for (let i = 0; i < items.length; i += size) yield items.slice(i, i + size);
}
