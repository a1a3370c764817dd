import type { Domain } from '../mtasts/domain.ts';
import { type Fetched, fetchPolicy } from '../mtasts/fetch.ts';
import type { Limits } from '../mtasts/limits.ts';
import { type Lookup, lookupRecord } from '../mtasts/lookup.ts';
import { createResolver } from '../mtasts/resolver.ts';
import type { RefreshEnvironment } from '../runtime/env.ts';
import type { PolicyRecord, PolicyStore } from '../store/policy-store.ts';
import { decide } from './decide.ts';
import type { Outcome } from './outcome.ts';

export interface Refresher {
  readonly store: PolicyStore;
  readonly lookup: (domain: Domain, signal: AbortSignal) => Promise<Lookup>;
  readonly fetch: (domain: Domain, signal: AbortSignal) => Promise<Fetched>;
  readonly limits: Limits;
  /** See `Rules` in decide.ts. */
  readonly maxFetchAgeMs: number;
  /** Epoch milliseconds. */
  readonly now: () => number;
}

/** A refresher that asks the real DNS and real policy hosts. */
export function createRefresher(
  store: PolicyStore,
  { dnsServers, policyHostPort, allowPrivateAddresses, maxFetchAgeSeconds }: RefreshEnvironment,
  limits: Limits,
): Refresher {
  const resolver = createResolver(limits, dnsServers);
  return {
    store,
    lookup: (domain, signal) => lookupRecord(domain, { resolver, signal }),
    fetch: (domain, signal) =>
      fetchPolicy(domain, { resolver, limits, signal, port: policyHostPort, allowPrivateAddresses }),
    limits,
    maxFetchAgeMs: maxFetchAgeSeconds * 1_000,
    now: Date.now,
  };
}

/**
 * Refreshes one domain: looks up its record, asks its policy host where needed, decides, and saves what was decided
 * on condition that the entry is still `record`. Whatever the domain's servers do is an outcome, within a minute.
 * Rejects for a fault of the database, or with the reason of `signal` if that ended the work.
 *
 * @param record the entry as read consistently; undefined to discover a domain that is not known.
 */
export async function refreshDomain(
  domain: Domain,
  record: PolicyRecord | undefined,
  { store, lookup, fetch, limits, maxFetchAgeMs, now }: Refresher,
  signal: AbortSignal,
): Promise<Outcome> {
  const rules = { retryAfterMs: limits.retryAfterMs, maxFetchAgeMs };
  const patience = AbortSignal.any([AbortSignal.timeout(limits.domainMs), signal]);

  const found = await lookup(domain, patience);
  // What the batch's own end cut short says nothing about the domain.
  signal.throwIfAborted();
  let decision = decide({ record, lookup: found, fetched: undefined, now: now(), rules });
  if (decision.action === 'fetch') {
    const fetched = await fetch(domain, patience);
    signal.throwIfAborted();
    decision = decide({ record, lookup: found, fetched, now: now(), rules });
  }

  switch (decision.action) {
    case 'nothing':
      return decision.outcome;
    case 'write': {
      const written = await store.write(domain, decision.change, record?.lastUpdate);
      return written === 'written' ? decision.outcome : { kind: 'conflict' };
    }
    case 'fetch':
      throw new Error(`undecided about ${domain} after its fetch`);
  }
}
