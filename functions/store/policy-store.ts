// The shared cache of policies, as the rest of the program sees it. What holds it (DynamoDB) and how its items are
// spelled is the business of dynamo.ts alone.

import type { Domain } from '../mtasts/domain.ts';
import type { FailureCode } from '../mtasts/failure.ts';
import type { Mode, Policy } from '../mtasts/policy.ts';

/** One policy domain's entry in the cache. All times are epoch milliseconds, UTC. */
export interface PolicyRecord {
  readonly domain: Domain;
  readonly policy: Policy;
  /** A record exists but its policy could not be fetched: senders treat it as no policy. */
  readonly backoff: boolean;
  /** Senders use the policy only while this is in the future. */
  readonly validEnd: number;
  /** `id` of the TXT record with which the policy was fetched; undefined if there was none. */
  readonly recordId: string | undefined;
  /** Last successful refresh, and the optimistic lock: every write but a reported use is conditional on it. */
  readonly lastUpdate: number;
  readonly lastFetch: number | undefined;
  readonly lastUse: number | undefined;
  readonly inserted: number | undefined;
  /** The last refresh, if it failed; undefined while they succeed. */
  readonly failing: LastFailure | undefined;
}

export interface LastFailure {
  readonly lastAttempt: number;
  readonly code: string;
  /** Since when refreshes have been failing. */
  readonly since: number;
  /** `id` of the TXT record with which the attempt failed; undefined if there was none. */
  readonly recordId: string | undefined;
}

/** What a refresh may do to an entry. Each is one conditional write. */
export type Change =
  | {
      readonly kind: 'insert' | 'replace';
      readonly policy: Policy;
      readonly policyText: string;
      readonly backoff: boolean;
      readonly validEnd: number;
      readonly recordId: string | undefined;
      readonly lastUpdate: number;
      readonly lastFetch: number | undefined;
    }
  | { readonly kind: 'extend'; readonly validEnd: number; readonly lastUpdate: number }
  | {
      readonly kind: 'fail';
      readonly lastAttempt: number;
      readonly code: FailureCode;
      readonly since: number;
      readonly recordId: string | undefined;
    }
  | { readonly kind: 'remove' };

/** What `plan` needs to know of an entry. */
export interface ScannedRecord {
  readonly domain: Domain;
  readonly lastUpdate: number;
  readonly lastUse: number | undefined;
  readonly lastFetch: number | undefined;
  readonly mode: Mode | undefined;
  readonly backoff: boolean;
  readonly validEnd: number | undefined;
  readonly failingSince: number | undefined;
  /** Why the last refresh failed; undefined while they succeed. */
  readonly lastFailure: string | undefined;
}

/** What a scan looks for, epoch milliseconds; -Infinity: nothing. */
export interface ScanRange {
  readonly updatedBefore: number;
  readonly usedBefore: number;
  readonly expiringBefore: number;
  /** Infinity: nothing. An update in the future is a clock's mistake or a hand's, and would never count as long ago. */
  readonly updatedAfter: number;
}

/** A part of a scan's answer. */
export interface ScanPage {
  readonly records: readonly ScannedRecord[];
  /** Entries examined for this page, whether returned or not. */
  readonly examined: number;
  /** Entries that cannot be read as what they should be (written by hand, say), for the log. */
  readonly unreadable: readonly Unreadable[];
}

export interface Unreadable {
  /** The key as stored. */
  readonly key: string;
  readonly reason: string;
}

export interface ReadResult {
  readonly records: ReadonlyMap<Domain, PolicyRecord>;
  /** Domains that the database left unread although asked repeatedly: nothing is known of them. */
  readonly unread: ReadonlySet<Domain>;
  readonly unreadable: readonly Unreadable[];
}

/**
 * `conflict`: the condition did not hold; somebody else's newer work is there, or the entry is gone. Rarely it is this
 * very write that is there, when its answer was lost and the client sent it again.
 */
export type WriteResult = 'written' | 'conflict';

/** Every method rejects only for faults of the database itself. */
export interface PolicyStore {
  /**
   * Entries last updated, last used or valid until before the times given, or updated after that given, and whatever is
   * in back-off or failing: all that may need attention, in no order. What is not returned is in good health. Not a snapshot.
   */
  scan(range: ScanRange): AsyncIterable<ScanPage>;
  /** Consistent read of any number of domains; repeated ones count once. Those without an entry are in no result. */
  read(domains: Iterable<Domain>): Promise<ReadResult>;
  /**
   * Applies the change if the entry's `lastUpdate` is still `expected`. For an insert, and for nothing else,
   * `expected` is undefined: if there is no entry.
   */
  write(domain: Domain, change: Change, expected: number | undefined): Promise<WriteResult>;
  /**
   * Deletes the entry if it was last used before `usedBefore` (-Infinity: never) and its `lastUpdate` is still `expected`:
   * a back-off that nobody uses may have become a policy since it was read.
   */
  prune(domain: Domain, usedBefore: number, expected: number): Promise<WriteResult>;
  /** Records that the policy was in use at `now`, if the entry exists and says less than `before`. */
  touch(domain: Domain, now: number, before: number): Promise<WriteResult>;
  /**
   * Counts one more discovery of the day of `now` (UTC), of a registrable domain or, if `within` is undefined, of all
   * together. False, and not counted, if there were `limit` already.
   */
  admitDiscovery(within: string | undefined, limit: number, now: number): Promise<boolean>;
}
