// Puts entries of any age and state into the policy table, the way they would have come there: by the store's own
// writes, at the times when they would have happened.

import type { Domain } from '../../functions/mtasts/domain.ts';
import type { FailureCode } from '../../functions/mtasts/failure.ts';
import { formatPolicy, type Policy } from '../../functions/mtasts/policy.ts';
import type { PolicyStore } from '../../functions/store/policy-store.ts';

export interface Seed {
  readonly domain: string;
  readonly policy: Policy;
  readonly recordId?: string | undefined;
  readonly backoff?: boolean;
  /** Epoch milliseconds. LastUse stays at `inserted` unless `lastUse` is given. */
  readonly inserted: number;
  readonly lastUpdate: number;
  readonly lastUse?: number;
  /** Default: with the last update. */
  readonly lastFetch?: number;
  readonly failing?: {
    readonly code: FailureCode;
    readonly since: number;
    readonly lastAttempt: number;
    /** Of the record with which the attempt failed; undefined if there was none. */
    readonly recordId?: string;
  };
}

export async function seed(store: PolicyStore, entry: Seed): Promise<void> {
  // Test and demonstration domains are given as what they are: keys.
  const domain = entry.domain as Domain;
  const { policy, backoff = false, inserted, lastUpdate, lastUse, failing } = entry;
  const write = async (...change: Parameters<PolicyStore['write']>) => {
    if ((await store.write(...change)) !== 'written') throw new Error(`could not seed ${domain}`);
  };
  await write(
    domain,
    {
      kind: 'insert',
      policy,
      policyText: backoff ? '' : formatPolicy(policy),
      backoff,
      validEnd: inserted + policy.maxAgeSeconds * 1_000,
      recordId: entry.recordId,
      lastUpdate: inserted,
      lastFetch: backoff ? undefined : (entry.lastFetch ?? lastUpdate),
    },
    undefined,
  );
  if (lastUpdate > inserted) {
    const validEnd = lastUpdate + policy.maxAgeSeconds * 1_000;
    await write(domain, { kind: 'extend', validEnd, lastUpdate }, inserted);
  }
  if (lastUse !== undefined) await store.touch(domain, lastUse, lastUse);
  if (failing !== undefined) {
    await write(domain, { kind: 'fail', recordId: undefined, ...failing }, lastUpdate);
  }
}
