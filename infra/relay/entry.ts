// A policy as this relay keeps it. Whoever wrote it (the functions, somebody by hand, an editor on the snapshot), it is
// held against the grammar of RFC 8461 once more before it decides about mail.

import type { Domain } from '../../functions/mtasts/domain.ts';
import { LIMITS } from '../../functions/mtasts/limits.ts';
import { checkPolicy, MAX_MAX_AGE_SECONDS, type Policy } from '../../functions/mtasts/policy.ts';
import { isRecordId } from '../../functions/mtasts/record.ts';
import type { PolicyRecord } from '../../functions/store/policy-store.ts';

export interface Entry {
  readonly domain: Domain;
  readonly policy: Policy;
  /** There is a record, but its policy could not be had: no policy, for now. */
  readonly backoff: boolean;
  /** Epoch milliseconds. The entry counts only while this is in the future. */
  readonly validEnd: number;
  readonly recordId: string | undefined;
}

export type Checked =
  | { readonly ok: true; readonly entry: Entry }
  | { readonly ok: false; readonly reason: string };

const YEAR_MS = MAX_MAX_AGE_SECONDS * 1_000;

/** Besides its texts: the objects of an entry. */
const ENTRY_BYTES = 500;
const PATTERN_BYTES = 40;

export function checkEntry({ domain, policy, backoff, validEnd, recordId }: Entry, now: number): Checked {
  const checked = checkPolicy(policy);
  if (!checked.ok) return { ok: false, reason: checked.failure.detail };
  if (!Number.isFinite(validEnd)) return { ok: false, reason: 'Its end is not a time' };
  return {
    ok: true,
    entry: {
      domain,
      policy: checked.policy,
      backoff,
      // RFC 8461 §3.2: no policy lives longer than a year, whatever a clock or a hand has written.
      validEnd: Math.min(validEnd, now + YEAR_MS),
      recordId: recordId !== undefined && isRecordId(recordId) ? recordId : undefined,
    },
  };
}

/** Stands in for what is not used in any case. */
const NO_POLICY: Policy = { mode: 'none', mx: [], maxAgeSeconds: 0 };

/**
 * An item as it counts now. One that has ended, and could not be refreshed since, is a back-off for another five minutes
 * from the last attempt: the functions would not try sooner (RFC 8461 §3.3), and nobody needs to wait for them.
 */
export function entryOf(record: PolicyRecord, now: number): Checked {
  const { domain, policy, backoff, validEnd, recordId, failing } = record;
  const checked = checkEntry({ domain, policy, backoff, validEnd, recordId }, now);
  const ended = validEnd <= now;
  // What an item says that is no policy any more is no reason to hold mail back.
  if (!checked.ok && !ended && !backoff) return checked;
  const entry = checked.ok
    ? checked.entry
    : { domain, policy: NO_POLICY, backoff, validEnd, recordId: undefined };
  if (!ended || failing === undefined) return { ok: true, entry };
  if (!backoff && failing.lastAttempt < validEnd) return { ok: true, entry };
  const retryAt = Math.min(failing.lastAttempt, now) + LIMITS.retryAfterMs;
  return { ok: true, entry: { ...entry, backoff: true, validEnd: Math.max(validEnd, retryAt) } };
}

/** Roughly the bytes that it takes in memory. A hostile policy has thousands of patterns. */
export function weighEntry({ policy, domain }: Entry): number {
  return policy.mx.reduce(
    (sum, pattern) => sum + PATTERN_BYTES + pattern.length,
    ENTRY_BYTES + domain.length,
  );
}
