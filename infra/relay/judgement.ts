// What follows from what the table and a domain's TXT record say: pure, and every rule of it in one place.

import type { Entry } from './entry.ts';
import type { FirstContact } from './settings.ts';
import type { Read } from './table.ts';

/** What `_mta-sts.<domain>` says. Reasons are fit for a log line. */
export type TxtRecord =
  | { readonly status: 'found'; readonly id: string }
  /** RFC 8461 §3.1: none, or none that can be used: "the domain does not implement MTA-STS". */
  | { readonly status: 'absent' | 'unusable'; readonly reason: string; readonly ttlSeconds: number }
  /** DNS could not say. */
  | { readonly status: 'unavailable'; readonly reason: string };

/** What the table said before, and where that was kept. */
export interface LastKnown {
  readonly entry: Entry;
  readonly source: 'cache' | 'disk';
}

/** What the table, and what was last known, are enough for. */
export type Settled =
  /** The item counts now, as a policy or as a back-off. */
  | { readonly kind: 'item'; readonly entry: Entry }
  /** The table cannot say. RFC 8461 §3.2 lets a policy be used until it ends. */
  | { readonly kind: 'last-known'; readonly known: LastKnown }
  | { readonly kind: 'unknown'; readonly reason: string }
  /** It depends on the TXT record. */
  | { readonly kind: 'open'; readonly read: OpenRead };

/** Of the items only those that have ended. */
type OpenRead = Exclude<Read, { kind: 'unreadable' }>;

export type Judgement =
  | {
      readonly kind: 'not-implemented';
      /** 0: not at all. */
      readonly rememberMs: number;
      /** Whether the functions are to look at the domain. */
      readonly request: boolean;
    }
  /** No item counts, and the functions are to look. `otherwise`: what it is as long as they find nothing. */
  | { readonly kind: 'first-contact'; readonly otherwise: Otherwise }
  | { readonly kind: 'unknown'; readonly reason: string; readonly request: boolean };

export type Otherwise =
  /** They have looked before, and could not get a policy. */
  | 'back-off'
  /** There is a record: the mail goes out, or waits. */
  | 'requested'
  | 'discovering'
  /** Whether there is a record cannot be told. */
  | 'unavailable';

/** "Negative answers are remembered no longer than the SOA says and an hour". */
const MAX_NEGATIVE_MS = 3_600_000;

/** Where there was a policy, the functions may have it again soon. */
const MAX_NEGATIVE_AFTER_POLICY_MS = 300_000;

/** Whether it is to be acted on, as a policy or as a back-off. */
export function counts(entry: Entry, now: number): boolean {
  return entry.validEnd > now;
}

export function settle(read: Read, lastKnown: LastKnown | undefined, now: number): Settled {
  const known = lastKnown && counts(lastKnown.entry, now) ? lastKnown : undefined;
  switch (read.kind) {
    case 'item':
      return counts(read.entry, now) ? { kind: 'item', entry: read.entry } : { kind: 'open', read };
    case 'absent':
      // The table's word: also what was known until now is no more.
      return { kind: 'open', read };
    case 'unreadable':
      // There is a policy, and it cannot be told which. That its record is gone would not make it end.
      return known
        ? { kind: 'last-known', known }
        : { kind: 'unknown', reason: `its item in the table cannot be used: ${read.reason}` };
    case 'failed':
      return known ? { kind: 'last-known', known } : { kind: 'open', read };
  }
}

/** For a domain that is not in the table, or not validly, or while the table is down. */
export function judge(read: OpenRead, txt: TxtRecord, firstContact: FirstContact): Judgement {
  const ended = read.kind === 'item';
  switch (txt.status) {
    case 'absent':
    case 'unusable': {
      // While the table is down, it may hold a policy whose record somebody hides: DNS alone is believed, as RFC 8461
      // §3.1 has it, but not remembered.
      const most = { absent: MAX_NEGATIVE_MS, item: MAX_NEGATIVE_AFTER_POLICY_MS, failed: 0 }[read.kind];
      // RFC 8461 §10.2: a policy is asked for "regardless of the state of the TXT record" where there was one.
      return { kind: 'not-implemented', rememberMs: Math.min(txt.ttlSeconds * 1_000, most), request: ended };
    }
    case 'found':
      if (read.kind === 'failed') {
        const reason = `it has an MTA-STS record, and the table cannot be read: ${read.reason}`;
        return { kind: 'unknown', reason, request: false };
      }
      // RFC 8461 §3.3 takes a policy that could not be fetched for none; to defer the mail until it can be would be to
      // defer it for ever.
      if (ended && read.entry.backoff) return { kind: 'first-contact', otherwise: 'back-off' };
      return { kind: 'first-contact', otherwise: firstContact === 'defer' ? 'discovering' : 'requested' };
    case 'unavailable':
      // Name servers that never answer for this name would hold all mail to the domain, and the table knows of no policy.
      // The functions ask another resolver, which may be told more.
      if (read.kind !== 'failed' && firstContact !== 'defer') {
        return { kind: 'first-contact', otherwise: 'unavailable' };
      }
      return {
        kind: 'unknown',
        reason: `whether it has MTA-STS cannot be told: ${txt.reason}`,
        request: ended,
      };
  }
}
