import type { Failure } from '../mtasts/failure.ts';
import type { Mode } from '../mtasts/policy.ts';

/** What became of one domain. The logs, the metrics and the tests all speak of these and nothing else. */
export type Outcome =
  /** The record's id is unchanged: the policy is good for another `max_age`. */
  | { readonly kind: 'extended' }
  /** The policy was fetched. `lookupFailure`: although its record could not be had. */
  | { readonly kind: 'replaced'; readonly lookupFailure: Failure | undefined }
  /** No record any more, and the policy said `none`: nothing left to keep fresh. */
  | { readonly kind: 'removed' }
  /** The refresh failed; the policy that was there still is, untouched. */
  | {
      readonly kind: 'kept';
      readonly mode: Mode;
      readonly failure: Failure;
      /** Why there was no usable record either, where both failed. */
      readonly lookupFailure: Failure | undefined;
      readonly validEnd: number;
      readonly since: number;
    }
  /**
   * Somebody wrote a newer version in the meantime. `unmoved`: nobody did, and the write was refused all the same, as the
   * next ones will be.
   */
  | { readonly kind: 'conflict'; readonly unmoved?: true }
  /**
   * Nothing was done: the entry is gone, is newer than the task, or was tried too recently; or a domain that is not
   * known was one too many today.
   */
  | {
      readonly kind: 'skipped';
      readonly reason: 'gone' | 'newer' | 'too-soon' | 'unreadable' | 'discovery-limit';
    }
  /** The minute was over before its policy host had a connection to spare: its turn comes again. */
  | { readonly kind: 'postponed' }
  /** A policy that was not known is stored now. */
  | { readonly kind: 'discovered' }
  /** A domain that is not known has no usable record: nothing is stored. */
  | { readonly kind: 'not-implemented'; readonly failure: Failure }
  /** A domain that was not known has a record, but no policy could be fetched. */
  | { readonly kind: 'backed-off'; readonly failure: Failure };
