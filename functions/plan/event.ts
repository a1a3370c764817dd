import type { Decoded } from '../refresh/task.ts';

export interface PlanEvent {
  readonly kind: 'daily';
  readonly runId: string;
}

/** A run id is a label in logs, schedules' names and waves' texts: one line, and short beside a wave. */
const RUN_ID = /^[\x20-\x7e]{1,100}$/;

/**
 * What starts a plan: `{"kind":"daily","runId":"…"}` from EventBridge Scheduler, or the classic EventBridge
 * "Scheduled Event", which means daily.
 *
 * @param fallbackRunId for events that carry none of their own, or none that will do.
 */
export function decodePlanEvent(event: unknown, fallbackRunId: string): Decoded<PlanEvent> {
  const { kind, runId, id, 'detail-type': detailType } = (event ?? {}) as Record<string, unknown>;
  const daily = (candidate: unknown): Decoded<PlanEvent> => {
    const usable = typeof candidate === 'string' && RUN_ID.test(candidate);
    return { ok: true, value: { kind: 'daily', runId: usable ? candidate : fallbackRunId } };
  };
  if (kind === 'daily') return daily(runId);
  if (kind === undefined && detailType === 'Scheduled Event') return daily(id);
  return {
    ok: false,
    reason: 'it should be {"kind":"daily","runId":"…"} or an EventBridge "Scheduled Event"',
  };
}
