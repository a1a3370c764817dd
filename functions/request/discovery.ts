// How many domains may be discovered in a day. A wildcard TXT record makes a policy domain of every name below it, and
// whoever can make mail go to such names, or send requests, could fill the table with them, and the years to come with
// their refreshes.

import { getDomain } from 'tldts';
import type { Domain } from '../mtasts/domain.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import type { PolicyStore } from '../store/policy-store.ts';

export interface DiscoveryLimits {
  /** New policy domains of one registrable domain in a day, UTC. */
  readonly discoveriesPerDomainPerDay: number;
  /** New policy domains in a day, UTC. */
  readonly discoveriesPerDay: number;
}

/** Whether one more domain may be discovered today; if so, it is counted. Rejects for a fault of the database. */
export type Admits = (domain: Domain) => Promise<boolean>;

/** Limits that are known to be reached, so that a flood does not pay for a write each. */
const MAX_REMEMBERED = 10_000;

const DAY_MS = 86_400_000;

/** @param options.now epoch milliseconds. */
export function createDiscoveryLimit(options: {
  store: Pick<PolicyStore, 'admitDiscovery'>;
  telemetry: Pick<Telemetry, 'warn'>;
  limits: DiscoveryLimits;
  now: () => number;
}): Admits {
  const { store, telemetry, limits, now } = options;
  const reached = new Set<string | undefined>();
  let day = 0;

  /** @param within a registrable domain; undefined: all domains. */
  async function admit(within: string | undefined, limit: number, at: number): Promise<boolean> {
    if (reached.has(within)) return false;
    if (await store.admitDiscovery(within, limit, at)) return true;
    // Others of the batch may have asked meanwhile: it is said once.
    if (!reached.has(within)) warn(within, limit);
    if (reached.size >= MAX_REMEMBERED) reached.clear();
    reached.add(within);
    return false;
  }

  function warn(within: string | undefined, limit: number): void {
    const parameter = within === undefined ? 'discoveriesPerDay' : 'discoveriesPerDomainPerDay';
    telemetry.warn(
      `no more domains are discovered until 00:00 UTC: raise ${parameter} if these are names that mail is sent to`,
      { registrable_domain: within ?? 'all together', limit },
    );
  }

  return async (domain) => {
    const at = now();
    const today = Math.floor(at / DAY_MS);
    if (today !== day) reached.clear();
    day = today;
    // Without a write for its own domain, whatever is asked for.
    if (reached.has(undefined)) return false;
    // The narrow limit first: what it refuses uses up nothing of what is for everybody.
    return (
      (await admit(registrableDomain(domain), limits.discoveriesPerDomainPerDay, at)) &&
      (await admit(undefined, limits.discoveriesPerDay, at))
    );
  };
}

/**
 * What somebody has registered: the domain and one label more than its public suffix (publicsuffix.org), those of
 * hosting companies among them, under which strangers have names. A public suffix itself stands for itself.
 */
export function registrableDomain(domain: Domain): string {
  return getDomain(domain, { allowPrivateDomains: true }) ?? domain;
}
