// What to do about one domain: a pure function over what is stored, what DNS said, what the policy host said, and
// the time. Every rule of the refresh is in this file, and no input or output is.

import type { Failure } from '../mtasts/failure.ts';
import type { Fetched } from '../mtasts/fetch.ts';
import type { Lookup } from '../mtasts/lookup.ts';
import { checkPolicy, type Policy } from '../mtasts/policy.ts';
import type { Change, PolicyRecord } from '../store/policy-store.ts';
import { isLately } from './lately.ts';
import type { Outcome } from './outcome.ts';

export type Decision =
  /** Ask the policy host, then decide again with its answer. */
  | { readonly action: 'fetch' }
  /** Apply the change to the entry, on condition that it is still the version that was read. */
  | { readonly action: 'write'; readonly change: Change; readonly outcome: Outcome }
  | { readonly action: 'nothing'; readonly outcome: Outcome };

export interface Situation {
  /** The entry as read; undefined: the domain is not known. */
  readonly record: PolicyRecord | undefined;
  readonly lookup: Lookup;
  /** undefined: the policy host was not asked yet. */
  readonly fetched: Fetched | undefined;
  /** Epoch milliseconds. */
  readonly now: number;
  readonly rules: Rules;
}

export interface Rules {
  /** Milliseconds before the policy of a record id that could not be fetched is asked for again. */
  readonly retryAfterMs: number;
  /**
   * An unchanged id extends a policy only while its last fetch is younger than this, and than half of `max_age`.
   * 0: mox's rule, by which it always does.
   */
  readonly maxFetchAgeMs: number;
}

/** Stands in for the policy of a domain whose record exists but whose policy could not be fetched. */
const NO_POLICY: Policy = { mode: 'none', mx: [], maxAgeSeconds: 300 };

export function decide(situation: Situation): Decision {
  const { record } = situation;
  return record === undefined ? decideUnknown(situation) : decideKnown(situation, record);
}

function decideUnknown({ lookup, fetched, now }: Situation): Decision {
  // RFC 8461 §3.1: without exactly one usable record, "the domain does not implement MTA-STS".
  if (lookup.status !== 'found') {
    return { action: 'nothing', outcome: { kind: 'not-implemented', failure: lookup.failure } };
  }
  if (fetched === undefined) return { action: 'fetch' };
  if (fetched.ok) {
    const change = {
      kind: 'insert',
      ...fetchedPolicy(fetched, now),
      recordId: lookup.id,
      lastUpdate: now,
    } as const;
    return { action: 'write', change, outcome: { kind: 'discovered' } };
  }
  const change: Change = {
    kind: 'insert',
    policy: NO_POLICY,
    policyText: '',
    backoff: true,
    validEnd: now + NO_POLICY.maxAgeSeconds * 1_000,
    recordId: lookup.id,
    lastUpdate: now,
    lastFetch: undefined,
  };
  return { action: 'write', change, outcome: { kind: 'backed-off', failure: fetched.failure } };
}

function decideKnown(situation: Situation, record: PolicyRecord): Decision {
  const { lookup, fetched, now } = situation;
  const lastUpdate = nextLock(situation, record);

  if (fetched?.ok) {
    const recordId = lookup.status === 'found' ? lookup.id : record.recordId;
    const lookupFailure = lookup.status === 'found' ? undefined : lookup.failure;
    return {
      action: 'write',
      change: { kind: 'replace', ...fetchedPolicy(fetched, now), recordId, lastUpdate },
      outcome: { kind: 'replaced', lookupFailure },
    };
  }

  // RFC 8461 §3.3: a failed refresh never ends or shortens a policy that is still valid.
  if (fetched !== undefined) return keep(record, situation, fetched.failure);

  if (lookup.status === 'found' && lookup.id === record.recordId && vouches(situation, record)) {
    // Never earlier than it was, also when this clock is behind the writer's before.
    const validEnd = Math.max(now + record.policy.maxAgeSeconds * 1_000, record.validEnd);
    return {
      action: 'write',
      change: { kind: 'extend', validEnd, lastUpdate },
      outcome: { kind: 'extended' },
    };
  }

  // RFC 8461 §8.3: a domain that takes MTA-STS down publishes `none`, then removes its record.
  if (lookup.status === 'absent' && record.policy.mode === 'none') {
    return { action: 'write', change: { kind: 'remove' }, outcome: { kind: 'removed' } };
  }

  if (failedRecently(situation, record)) {
    return { action: 'nothing', outcome: { kind: 'skipped', reason: 'too-soon' } };
  }

  if (lookup.status !== 'found' && record.policy.mode === 'none')
    return keep(record, situation, lookup.failure);

  // The id is new, or cannot vouch for the policy; or the record is gone or broken, or DNS is down. It could be just
  // DNS, or an attacker there: the policy must not expire for that, so the policy host is asked "regardless of the
  // state of the TXT record" (RFC 8461 §10.2).
  return { action: 'fetch' };
}

/**
 * The lock grows, also when this clock is behind the writer's before. But a time that no clock shows is put right: it would
 * count as no update lately for as long as it lies ahead, and one at the end of time grows into what nobody can read. All
 * that a lock needs is to be another than the one read.
 */
function nextLock({ now, rules }: Situation, { lastUpdate }: PolicyRecord): number {
  const ahead = lastUpdate > now && !isLately(lastUpdate, now, rules.retryAfterMs);
  return ahead ? now : Math.max(now, lastUpdate + 1);
}

/**
 * Whether an unchanged id is reason enough to extend the policy. RFC 8461 §3.2 counts its age from its fetch, and TXT
 * records are not authenticated: whoever controls DNS could keep an old policy alive for ever. So the fetch, which is,
 * has to be recent. That also heals a policy that was changed without a new id, and the common mistake of publishing
 * the new id before the new policy (§8.1).
 */
function vouches({ now, rules }: Situation, { backoff, lastFetch, validEnd, policy }: PolicyRecord): boolean {
  // A back-off is no policy: there is nothing to vouch for.
  if (backoff) return false;
  // Relays refuse to use it, and defer the domain's mail: to extend it would keep that up.
  if (!checkPolicy(policy).ok) return false;
  if (rules.maxFetchAgeMs === 0) return true;
  const maxFetchAgeMs = Math.min(rules.maxFetchAgeMs, (policy.maxAgeSeconds * 1_000) / 2);
  // A fetch far in the future is some clock's mistake, and proves nothing.
  return validEnd > now && lastFetch !== undefined && isLately(lastFetch, now, maxFetchAgeMs);
}

/** RFC 8461 §3.3: five minutes or longer before the policy of an id that could not be fetched is asked for again. */
function failedRecently({ lookup, now, rules }: Situation, record: PolicyRecord): boolean {
  const failure =
    record.failing ??
    (record.backoff ? { lastAttempt: record.lastUpdate, recordId: record.recordId } : undefined);
  if (failure === undefined) return false;
  // A new id is a new policy, to be fetched at once.
  if (lookup.status === 'found' && lookup.id !== failure.recordId) return false;
  return isLately(failure.lastAttempt, now, rules.retryAfterMs);
}

function fetchedPolicy({ policy, text }: Fetched & { ok: true }, now: number) {
  return {
    policy,
    policyText: text,
    backoff: false,
    validEnd: now + policy.maxAgeSeconds * 1_000,
    lastFetch: now,
  };
}

/** @param failure why there is no newer policy: what the fetch came to, or the lookup if nothing was fetched. */
function keep(record: PolicyRecord, { lookup, fetched, now }: Situation, failure: Failure): Decision {
  const since = record.failing?.since ?? now;
  const recordId = lookup.status === 'found' ? lookup.id : undefined;
  return {
    action: 'write',
    change: { kind: 'fail', lastAttempt: now, code: failure.code, since, recordId },
    outcome: {
      kind: 'kept',
      mode: record.policy.mode,
      failure,
      lookupFailure: fetched !== undefined && lookup.status !== 'found' ? lookup.failure : undefined,
      validEnd: record.validEnd,
      since,
    },
  };
}
