// What to do about one domain: a pure function over what is stored, what DNS said, what the policy host said, and
// the time. Every rule of the refresh is in this file, and no input or output is.

import type { Failure } from '../mtasts/failure.ts';
import type { Fetched } from '../mtasts/fetch.ts';
import type { Lookup } from '../mtasts/lookup.ts';
import type { Policy } from '../mtasts/policy.ts';
import type { Change, PolicyRecord } from '../store/policy-store.ts';
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

function decideKnown({ lookup, fetched, now }: Situation, record: PolicyRecord): Decision {
  // The lock always grows, also when this clock is behind the writer's before.
  const lastUpdate = Math.max(now, record.lastUpdate + 1);

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
  if (fetched !== undefined) {
    return keep(record, now, fetched.failure, lookup.status === 'found' ? undefined : lookup.failure);
  }

  if (lookup.status === 'found') {
    // A back-off is no policy, so there is nothing that the same id could vouch for.
    if (record.backoff || lookup.id !== record.recordId) return { action: 'fetch' };
    const validEnd = now + record.policy.maxAgeSeconds * 1_000;
    return {
      action: 'write',
      change: { kind: 'extend', validEnd, lastUpdate },
      outcome: { kind: 'extended' },
    };
  }

  if (record.policy.mode === 'none') {
    // RFC 8461 §8.3: a domain that takes MTA-STS down publishes `none`, then removes its record.
    if (lookup.status === 'absent') {
      return { action: 'write', change: { kind: 'remove' }, outcome: { kind: 'removed' } };
    }
    return keep(record, now, lookup.failure, undefined);
  }

  // The record is gone or broken, or DNS is down. It could be just DNS, or an attacker there: the policy must not
  // expire for that, so the policy host is asked "regardless of the state of the TXT record" (RFC 8461 §10.2).
  return { action: 'fetch' };
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

function keep(
  record: PolicyRecord,
  now: number,
  failure: Failure,
  lookupFailure: Failure | undefined,
): Decision {
  const since = record.failing?.since ?? now;
  return {
    action: 'write',
    change: { kind: 'fail', lastAttempt: now, code: failure.code, since },
    outcome: {
      kind: 'kept',
      mode: record.policy.mode,
      failure,
      lookupFailure,
      validEnd: record.validEnd,
      since,
    },
  };
}
