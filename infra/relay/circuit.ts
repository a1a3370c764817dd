// Keeps calls to a service that is down from making every lookup wait: after a few failures in a row only one call in a
// while is let through, to see whether it is up again.

import { quote } from '../../functions/mtasts/failure.ts';
import { type Clock, isRecent, LateError, within } from './clock.ts';
import type { Observer } from './metrics.ts';

/** In a row: a single lost packet is no outage. */
const FAILURES_TO_OPEN = 3;

/** Between two calls while the service is down. */
const RETRY_MS = 3_000;

/** An outage that comes back so soon is over, as far as the log goes, when no call has failed for so long. */
const STEADY_MS = 60_000;

type Attempt<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly reason: string };

export interface Circuit {
  /** Whether a call would be refused now. */
  refuses(): boolean;
  /**
   * Tries the call, if it is not refused, for so long. Never rejects. Less than the ordinary time is the caller's impatience:
   * that nothing came in it is no failure of the service.
   */
  attempt<T>(milliseconds: number, call: (signal: AbortSignal) => Promise<T>): Promise<Attempt<T>>;
}

/** @param options.ordinaryMs milliseconds after which silence is a failure of the service. */
export function createCircuit(
  what: 'table' | 'requests',
  {
    clock,
    observer,
    ordinaryMs,
  }: { readonly clock: Clock; readonly observer: Pick<Observer, 'outage'>; readonly ordinaryMs: number },
): Circuit {
  let failures = 0;
  let reason = '';
  /** While the service is down: when it was tried last. */
  let triedAt: number | undefined;
  let failedAt = 0;
  /** Whether the observer believes that it is down, and when it was last told that it is up. */
  let said = false;
  let overAt: number | undefined;
  /** Half of all calls fail, say: that is one outage, not one every few seconds. */
  let restless = false;

  function succeeded(): void {
    failures = 0;
    triedAt = undefined;
    const now = clock.now();
    if (!said || (restless && isRecent(failedAt, STEADY_MS, now))) return;
    said = false;
    overAt = now;
    observer.outage(what, undefined);
  }

  function failed(error: unknown): void {
    // Expired or denied credentials, a missing table, throttling and silence are all the same to whoever waits.
    reason = describe(error);
    failures += 1;
    failedAt = clock.now();
    if (failures < FAILURES_TO_OPEN || triedAt !== undefined) return;
    triedAt = failedAt;
    if (said) return;
    said = true;
    restless = overAt !== undefined && isRecent(overAt, STEADY_MS, failedAt);
    observer.outage(what, error);
  }

  function refuses(): boolean {
    return triedAt !== undefined && isRecent(triedAt, RETRY_MS, clock.now());
  }

  return {
    refuses,
    async attempt(milliseconds, call) {
      const impatient = milliseconds < ordinaryMs;
      // Silence towards an impatient call would not show whether the service is up again, and would take the turn of one
      // that does.
      if (refuses() || (impatient && triedAt !== undefined)) return { ok: false, reason };
      // Until this call has ended, others go without.
      if (triedAt !== undefined) triedAt = clock.now();
      try {
        const value = await within(milliseconds, clock, call);
        succeeded();
        return { ok: true, value };
      } catch (error) {
        if (impatient && error instanceof LateError) return { ok: false, reason: describe(error) };
        failed(error);
        return { ok: false, reason };
      }
    },
  };
}

function describe(error: unknown): string {
  return quote(error instanceof Error ? `${error.name}: ${error.message}` : String(error));
}
