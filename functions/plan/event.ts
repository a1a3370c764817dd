import type { Decoded } from '../refresh/task.ts';

export interface PlanEvent {
  /** `daily`: prune, and refresh what is stale; `renewal`: refresh what is about to expire. */
  readonly kind: 'daily' | 'renewal';
  readonly runId: string;
}

/** A run id is a label in logs, schedules' names and waves' texts: one line, and short beside a wave. */
const RUN_ID = /^[\x20-\x7e]{1,100}$/;

/**
 * What starts a plan: `{"kind":"daily","runId":"…"}` or `{"kind":"renewal","runId":"…"}` from EventBridge Scheduler,
 * or the classic EventBridge "Scheduled Event", which means daily.
 *
 * @param fallbackRunId for events that carry none of their own, or none that will do.
 */
export function decodePlanEvent(event: unknown, fallbackRunId: string): Decoded<PlanEvent> {
  const { kind, runId, id, 'detail-type': detailType } = (event ?? {}) as Record<string, unknown>;
  const run = (what: PlanEvent['kind'], candidate: unknown): Decoded<PlanEvent> => {
    const usable = typeof candidate === 'string' && RUN_ID.test(candidate);
    return { ok: true, value: { kind: what, runId: usable ? candidate : fallbackRunId } };
  };
  if (kind === 'daily' || kind === 'renewal') return run(kind, runId);
  if (kind === undefined && detailType === 'Scheduled Event') return run('daily', id);
  return {
    ok: false,
    reason: 'it should be {"kind":"daily" or "renewal","runId":"…"} or an EventBridge "Scheduled Event"',
  };
}
