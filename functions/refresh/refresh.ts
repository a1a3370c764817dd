import type { Domain } from '../mtasts/domain.ts';
import { createSecureContext, type Fetched, fetchPolicy, type NotStarted } from '../mtasts/fetch.ts';
import { createGate } from '../mtasts/gate.ts';
import type { Limits } from '../mtasts/limits.ts';
import { type Lookup, lookupRecord } from '../mtasts/lookup.ts';
import { createResolver } from '../mtasts/resolver.ts';
import type { RefreshEnvironment } from '../runtime/env.ts';
import type { PolicyRecord, PolicyStore } from '../store/policy-store.ts';
import { type Decision, decide } from './decide.ts';
import type { Outcome } from './outcome.ts';

export interface Refresher {
  readonly store: PolicyStore;
  readonly lookup: (domain: Domain, signal: AbortSignal) => Promise<Lookup>;
  readonly fetch: (domain: Domain, signal: AbortSignal) => Promise<Fetched | NotStarted>;
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
  // One for all domains of this process.
  const gate = createGate(limits.connectionsPerAddress);
  const secureContext = createSecureContext();
  return {
    store,
    lookup: (domain, signal) => lookupRecord(domain, { resolver, signal }),
    fetch: (domain, signal) =>
      fetchPolicy(domain, {
        resolver,
        gate,
        secureContext,
        limits,
        signal,
        port: policyHostPort,
        allowPrivateAddresses,
      }),
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
 * @param admits whether one more domain may be discovered; asked when there is a record, before anything is fetched.
 */
export async function refreshDomain(
  domain: Domain,
  record: PolicyRecord | undefined,
  { store, lookup, fetch, limits, maxFetchAgeMs, now }: Refresher,
  signal: AbortSignal,
  admits: (domain: Domain) => Promise<boolean> = async () => true,
): Promise<Outcome> {
  const rules = { retryAfterMs: limits.retryAfterMs, maxFetchAgeMs };
  const outOfTime = new AbortController();
  // AbortSignal.timeout would leave its timer behind for the rest of the minute.
  const timer = setTimeout(() => outOfTime.abort(), limits.domainMs);
  // The end of the batch is the end of the minute too, also where work does not notice it.
  const stopTimer = () => clearTimeout(timer);
  signal.addEventListener('abort', stopTimer, { once: true });
  const patience = AbortSignal.any([outOfTime.signal, signal]);

  let decision: Decision;
  try {
    const found = await lookup(domain, patience);
    // What the batch's own end cut short says nothing about the domain.
    signal.throwIfAborted();
    decision = decide({ record, lookup: found, fetched: undefined, now: now(), rules });
    if (decision.action === 'fetch') {
      if (record === undefined && !(await admits(domain))) {
        return { kind: 'skipped', reason: 'discovery-limit' };
      }
      const fetched = await fetch(domain, patience);
      signal.throwIfAborted();
      if (fetched === 'not-started') return { kind: 'postponed' };
      decision = decide({ record, lookup: found, fetched, now: now(), rules });
    }
  } finally {
    stopTimer();
    signal.removeEventListener('abort', stopTimer);
  }

  switch (decision.action) {
    case 'nothing':
      return decision.outcome;
    case 'write': {
      const written = await store.write(domain, decision.change, record?.lastUpdate);
      if (written === 'written') return decision.outcome;
      // Rare enough that another read costs nothing. It is consistent: what it shows is what the write was held against.
      const since = (await store.read([domain])).records.get(domain);
      const unmoved = since !== undefined && since.lastUpdate === record?.lastUpdate;
      return unmoved ? { kind: 'conflict', unmoved } : { kind: 'conflict' };
    }
    case 'fetch':
      throw new Error(`undecided about ${domain} after its fetch`);
  }
}
