// A batch of SQS messages about domains: one read for all, every domain at once, each on its own, and an answer in
// time whatever the domains' servers do. `refresh` and `request` differ only in what they do about one domain.

import type { Context, SQSBatchResponse } from 'aws-lambda';
import type { Domain } from '../mtasts/domain.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import type { PolicyRecord, PolicyStore } from '../store/policy-store.ts';
import type { Outcome } from './outcome.ts';

/** What is asked about one domain, by one or several messages of the batch. */
export interface Job {
  readonly domain: Domain;
  /** Messages that fail if this job does, by SQS message id. */
  readonly messageIds: readonly string[];
}

/** An answer given this long before the function's end still reaches SQS. */
const RESERVE_MS = 10_000;

/**
 * The frame of a handler of SQS batches: ends the work ten seconds before the function's own time is over, emits
 * what was counted, and answers with the messages that SQS shall deliver again.
 */
export async function answerBatch(
  context: Pick<Context, 'getRemainingTimeInMillis'>,
  telemetry: Telemetry,
  work: (signal: AbortSignal) => Promise<Iterable<string>>,
): Promise<SQSBatchResponse> {
  const outOfTime = new AbortController();
  const timer = setTimeout(
    () => outOfTime.abort(new Error(`unfinished ${RESERVE_MS / 1_000} s before the function's timeout`)),
    Math.max(0, context.getRemainingTimeInMillis() - RESERVE_MS),
  );
  try {
    const failed = new Set(await work(outOfTime.signal));
    return { batchItemFailures: [...failed].map((itemIdentifier) => ({ itemIdentifier })) };
  } finally {
    clearTimeout(timer);
    telemetry.flush();
  }
}

/**
 * Does `work` for every job. Only faults of AWS, unexpected exceptions and jobs that `signal` cut short are
 * failures, of their own messages alone; everything that a domain's servers can do is an outcome.
 *
 * @param jobs one for each domain.
 * @param work is given the entry as just read. Resolves to undefined where there is nothing to tell.
 * @returns the ids of the messages that SQS shall deliver again.
 */
export async function runBatch<J extends Job>(
  jobs: readonly J[],
  { store, telemetry, signal }: { store: PolicyStore; telemetry: Telemetry; signal: AbortSignal },
  work: (job: J, record: PolicyRecord | undefined) => Promise<Outcome | undefined>,
): Promise<string[]> {
  const failed: string[] = [];
  if (jobs.length === 0) return failed;

  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    if (signal.aborted) reject(signal.reason);
  });
  aborted.catch(() => {});

  try {
    const read = await Promise.race([store.read(jobs.map((job) => job.domain)), aborted]);
    const unreadable = new Map(read.unreadable.map(({ key, reason }) => [key, reason]));
    await Promise.all(
      jobs.map(async (job) => {
        const reason = unreadable.get(job.domain);
        if (reason !== undefined) {
          telemetry.unreadable(job.domain, reason);
          return telemetry.outcome(job.domain, { kind: 'skipped', reason: 'unreadable' }, 0);
        }
        try {
          signal.throwIfAborted();
          const started = performance.now();
          if (read.unread.has(job.domain)) throw new Error('DynamoDB left the item unread');
          const outcome = await Promise.race([work(job, read.records.get(job.domain)), aborted]);
          if (outcome !== undefined) telemetry.outcome(job.domain, outcome, performance.now() - started);
        } catch (error) {
          telemetry.error('domain failed, SQS delivers its message again', error, { domain: job.domain });
          failed.push(...job.messageIds);
        }
      }),
    );
  } catch (error) {
    // The read itself failed: nothing was done for anybody.
    telemetry.error('batch failed, SQS delivers its messages again', error, { domains: jobs.length });
    failed.push(...jobs.flatMap((job) => job.messageIds));
  }
  return failed;
}
