// The health of the fleet's policies, counted in passing while `plan` reads the table: a second read would cost as much
// as the first.

import type { ScannedRecord } from '../store/policy-store.ts';

export interface Health {
  /** Entries in the table. */
  readonly stored: number;
  /** Policies that senders can use now, `none` included. */
  readonly valid: number;
  /** Records whose policy could never be fetched. */
  readonly backoff: number;
  /** Policies that expired within the last day: mail that was protected yesterday is not today. */
  readonly lapsed: number;
  /** Policies that expire within six hours, and whose last refresh failed. */
  readonly expiring: number;
  /** Policies whose last refresh failed, and that are good for longer than that. */
  readonly failingSafe: number;
  /** Policies that were fetched once, and whose refreshes have been failing for over 48 hours. */
  readonly failing: number;
  /** The oldest `LastUpdate` of those that are stale, epoch milliseconds. */
  readonly oldestUpdate: number | undefined;
}

const HOUR = 3_600_000;
const EXPIRING_WITHIN_MS = 6 * HOUR;
const LAPSED_WITHIN_MS = 24 * HOUR;
const FAILING_FOR_MS = 48 * HOUR;

/** Counts records as they are seen; those that are not shown are in good health. */
export class HealthCheck {
  readonly #now: number;
  #invalid = 0;
  #backoff = 0;
  #lapsed = 0;
  #expiring = 0;
  #failingSafe = 0;
  #failing = 0;
  #oldestUpdate: number | undefined;

  constructor(now: number) {
    this.#now = now;
  }

  see({ backoff, mode, validEnd = 0, failingSince, lastFetch, lastUpdate }: ScannedRecord): void {
    this.#oldestUpdate = Math.min(lastUpdate, this.#oldestUpdate ?? lastUpdate);
    if (backoff) this.#backoff++;
    if (backoff || validEnd <= this.#now) this.#invalid++;
    // Senders do nothing about a policy of `none`, so nothing about it is a failure.
    if (backoff || mode === 'none') return;
    if (validEnd <= this.#now && validEnd > this.#now - LAPSED_WITHIN_MS) this.#lapsed++;
    if (failingSince === undefined) return;
    if (validEnd >= this.#now + EXPIRING_WITHIN_MS) this.#failingSafe++;
    else if (validEnd > this.#now) this.#expiring++;
    if (lastFetch !== undefined && failingSince < this.#now - FAILING_FOR_MS) this.#failing++;
  }

  /** @param stored entries in the table, those not seen included. */
  report(stored: number): Health {
    return {
      stored,
      valid: stored - this.#invalid,
      backoff: this.#backoff,
      lapsed: this.#lapsed,
      expiring: this.#expiring,
      failingSafe: this.#failingSafe,
      failing: this.#failing,
      oldestUpdate: this.#oldestUpdate,
    };
  }
}
