// The table in memory, with DynamoDB's conditions: the simulation writes to it a million times. memory-store.test.ts
// compares it with the real store.

import type { Domain } from '../../functions/mtasts/domain.ts';
import type {
  Change,
  PolicyRecord,
  PolicyStore,
  ReadResult,
  ScannedRecord,
  ScanPage,
  ScanRange,
  WriteResult,
} from '../../functions/store/policy-store.ts';

/** Told of every entry that comes, changes or goes. */
type Observe = (before: PolicyRecord | undefined, after: PolicyRecord | undefined) => void;

const DAY_MS = 86_400_000;

export class MemoryStore implements PolicyStore {
  readonly #entries = new Map<Domain, PolicyRecord>();
  readonly #discoveries = new Map<string, number>();
  readonly #observe: Observe;

  constructor(observe: Observe = () => {}) {
    this.#observe = observe;
  }

  get(domain: Domain): PolicyRecord | undefined {
    return this.#entries.get(domain);
  }

  #put(domain: Domain, after: PolicyRecord | undefined): WriteResult {
    const before = this.#entries.get(domain);
    if (after === undefined) this.#entries.delete(domain);
    else this.#entries.set(domain, after);
    this.#observe(before, after);
    return 'written';
  }

  async *scan(range: ScanRange): AsyncGenerator<ScanPage> {
    const { updatedBefore, usedBefore, expiringBefore, updatedAfter } = range;
    const records: ScannedRecord[] = [];
    for (const entry of this.#entries.values()) {
      const { domain, policy, backoff, validEnd, lastUpdate, lastUse, lastFetch, failing } = entry;
      const unused = lastUse !== undefined && lastUse < usedBefore;
      const stale = lastUpdate < updatedBefore || lastUpdate > updatedAfter;
      if (backoff || failing || unused || stale || validEnd < expiringBefore) {
        const [mode, failingSince, lastFailure] = [policy.mode, failing?.since, failing?.code];
        records.push({
          domain,
          lastUpdate,
          lastUse,
          lastFetch,
          mode,
          backoff,
          validEnd,
          failingSince,
          lastFailure,
        });
      }
    }
    yield { records, examined: this.#entries.size, unreadable: [] };
  }

  async read(domains: Iterable<Domain>): Promise<ReadResult> {
    const records = [...domains].flatMap((domain) => this.get(domain) ?? []);
    return { records: new Map(records.map((it) => [it.domain, it])), unread: new Set(), unreadable: [] };
  }

  async write(domain: Domain, change: Change, expected: number | undefined): Promise<WriteResult> {
    return this.apply(domain, change, expected);
  }

  /** `write`, at once. */
  apply(domain: Domain, change: Change, expected: number | undefined): WriteResult {
    if ((change.kind === 'insert') !== (expected === undefined)) throw new TypeError('An insert has no lock');
    const before = this.get(domain);
    if (before?.lastUpdate !== expected) return 'conflict';
    switch (change.kind) {
      case 'remove':
        return this.#put(domain, undefined);
      case 'insert':
      case 'replace': {
        const { kind: _kind, policyText: _text, ...written } = change;
        const { inserted, lastUse } = before ?? { inserted: change.lastUpdate, lastUse: change.lastUpdate };
        return this.#put(domain, { domain, ...written, inserted, lastUse, failing: undefined });
      }
      case 'extend': {
        const { validEnd, lastUpdate } = change;
        return this.#put(domain, before && { ...before, validEnd, lastUpdate, failing: undefined });
      }
      case 'fail': {
        const { kind: _kind, ...failing } = change;
        return this.#put(domain, before && { ...before, failing });
      }
    }
  }

  async prune(domain: Domain, usedBefore: number, expected: number): Promise<WriteResult> {
    const { lastUse, lastUpdate } = this.get(domain) ?? {};
    const unused = lastUse !== undefined && lastUse < usedBefore;
    return unused && lastUpdate === expected ? this.#put(domain, undefined) : 'conflict';
  }

  async touch(domain: Domain, now: number, before: number): Promise<WriteResult> {
    return this.use(domain, now, before);
  }

  /** `touch`, at once. */
  use(domain: Domain, now: number, before: number): WriteResult {
    const entry = this.get(domain);
    if (entry === undefined || (entry.lastUse !== undefined && entry.lastUse >= before)) return 'conflict';
    return this.#put(domain, { ...entry, lastUse: now });
  }

  async admitDiscovery(within: string | undefined, limit: number, now: number): Promise<boolean> {
    const counter = `${Math.floor(now / DAY_MS)} ${within}`;
    const count = this.#discoveries.get(counter) ?? 0;
    if (count > 0 && count >= limit) return false;
    this.#discoveries.set(counter, count + 1);
    return true;
  }
}
