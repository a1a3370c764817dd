import type { SQSRecord } from 'aws-lambda';
import type { Domain } from '../mtasts/domain.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import { runBatch } from './batch.ts';
import { type Refresher, refreshDomain } from './refresh.ts';
import { decodeTask, type RefreshTask } from './task.ts';

interface RefreshJob extends RefreshTask {
  readonly messages: SQSRecord[];
}

/** Refreshes the domains of a batch of messages. @returns the ids of those that SQS shall deliver again. */
export function refreshMessages(
  messages: readonly SQSRecord[],
  { refresher, telemetry, signal }: { refresher: Refresher; telemetry: Telemetry; signal: AbortSignal },
): Promise<string[]> {
  const { store } = refresher;
  const jobs = groupByDomain(messages, telemetry);
  return runBatch(jobs, { store, telemetry, signal }, async ({ domain, lastUpdate }, record) => {
    if (record === undefined) return { kind: 'skipped', reason: 'gone' };
    // Somebody refreshed it since this was planned: delivered twice, or planned twice.
    if (record.lastUpdate > lastUpdate) return { kind: 'skipped', reason: 'newer' };
    return refreshDomain(domain, record, refresher, signal);
  });
}

/** Several messages for one domain are one job, for the newest version that any of them names. */
function groupByDomain(messages: readonly SQSRecord[], telemetry: Telemetry): RefreshJob[] {
  const jobs = new Map<Domain, RefreshJob>();
  for (const message of messages) {
    const task = decodeTask(message.body);
    if (!task.ok) {
      telemetry.refused(message.messageId, task.reason);
      continue;
    }
    const { domain, lastUpdate } = task.value;
    const known = jobs.get(domain);
    jobs.set(domain, {
      domain,
      lastUpdate: Math.max(lastUpdate, known?.lastUpdate ?? lastUpdate),
      messages: [...(known?.messages ?? []), message],
    });
  }
  return [...jobs.values()];
}
