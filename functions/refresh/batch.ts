// A batch of SQS messages about domains: one read for all, every domain at once, each on its own, and an answer in
// time whatever the domains' servers do. `refresh` and `request` differ only in what they do about one domain.

import type { Context, SQSBatchResponse, SQSRecord } from 'aws-lambda';
import type { Domain } from '../mtasts/domain.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import type { PolicyRecord, PolicyStore } from '../store/policy-store.ts';
import type { Outcome } from './outcome.ts';

/** What is asked about one domain, by one or several messages of the batch. */
export interface Job {
  readonly domain: Domain;
  /** They fail if this job does. */
  readonly messages: readonly Message[];
}

type Message = Pick<SQSRecord, 'messageId' | 'attributes'>;

/**
 * At this delivery a postponed domain's message is acknowledged: the next run of plan, or a relay, asks for the domain
 * again. It would be a dead letter in the end, with nothing for an operator to mend; and every delivery gives a slow host
 * with many domains another minute of a batch.
 */
export const LAST_DELIVERY = 3;

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
 * failures, of their own messages alone; everything that a domain's servers can do is an outcome. One that says that
 * nothing was tried, `postponed`, is for SQS to deliver again all the same.
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
  const fail = (messages: readonly Message[]) => {
    for (const { messageId } of messages) failed.push(messageId);
  };
  const postponed: Domain[] = [];

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
          if (outcome === undefined) return;
          telemetry.outcome(job.domain, outcome, performance.now() - started);
          if (outcome.kind !== 'postponed') return;
          postponed.push(job.domain);
          fail(job.messages.filter((message) => deliveries(message) < LAST_DELIVERY));
        } catch (error) {
          telemetry.error('domain failed, SQS delivers its message again', error, { domain: job.domain });
          fail(job.messages);
        }
      }),
    );
    if (postponed.length > 0) {
      telemetry.info('domains postponed: their policy hosts had no connection to spare in time', {
        domains: postponed.length,
        first: postponed[0],
      });
    }
  } catch (error) {
    // The read itself failed: nothing was done for anybody.
    telemetry.error('batch failed, SQS delivers its messages again', error, { domains: jobs.length });
    for (const { messages } of jobs) fail(messages);
  }
  return failed;
}

function deliveries({ attributes }: Message): number {
  return Number(attributes.ApproximateReceiveCount);
}
