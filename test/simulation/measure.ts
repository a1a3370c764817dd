// What the simulation counts: who was expired and for how long, how often others' servers were asked, how long a change
// went unnoticed, and what the refreshes came to.

import type { Domain } from '../../functions/mtasts/domain.ts';
import type { Outcome } from '../../functions/refresh/outcome.ts';
import type { PolicyRecord } from '../../functions/store/policy-store.ts';
import type { ChangeKind, Host } from './population.ts';
import { DAY, type Promised } from './settings.ts';

/** Policies by how many seconds they live at least; and entries that are not meant to stay valid. */
const LIFETIMES = {
  '< 2 h': 0,
  '2 h': 7_200,
  '6 h': 21_600,
  '1 day': 86_400,
  '2 days': 172_800,
  '1 week': 604_800,
  longer: 1_209_600,
};
type Lifetime = keyof typeof LIFETIMES;
export const LIFETIME_NAMES = Object.keys(LIFETIMES) as Lifetime[];
export const ROWS = [...LIFETIME_NAMES, 'none', 'back-off'] as const;
type Row = (typeof ROWS)[number];

function rowOf({ backoff, policy }: PolicyRecord): Row {
  if (backoff || policy.mode === 'none') return backoff ? 'back-off' : 'none';
  return LIFETIME_NAMES.findLast((name) => policy.maxAgeSeconds >= LIFETIMES[name]) ?? '< 2 h';
}

/** Milliseconds and counts, over all entries of a row. `reachable`: but for the times that are excused. */
const NOTHING = {
  heldMs: 0,
  expiredMs: 0,
  lapses: 0,
  reachableMs: 0,
  reachableExpiredMs: 0,
  reachableWorstMs: 0,
  lookups: 0,
  fetches: 0,
};
type Tally = typeof NOTHING;

export type Origin = 'daily' | 'renewal' | 'request';

export interface Measured {
  readonly rule: string;
  readonly rows: Readonly<Record<Row, Tally>>;
  /** Expired although reachable, of policies for which that was promised not to happen: milliseconds. */
  readonly brokenMs: number;
  /** How long each change had not been noticed when it was, milliseconds, ascending; and how many never were. */
  readonly changes: Readonly<Record<ChangeKind, { readonly delays: number[]; never: number }>>;
  /** In the steady state, the first weeks left out: how many of each outcome, and of how many domains and days. */
  readonly outcomes: Readonly<Record<string, Record<Origin, number>>>;
  readonly domainDays: number;
  readonly pruned: number;
  readonly schedules: Readonly<Record<'daily' | 'renewal', number>>;
}

/** A change that was not noticed for so long counts as one that never is. */
const NEVER_AFTER_MS = 14 * DAY;

const WEEK = 7 * DAY;

interface Window {
  readonly from: number;
  to: number;
}

/**
 * When nothing is promised for a host: in each outage, and as long after it as the promise gives the refresher to come
 * back. That is the next renewal run; or the next daily run, for a policy that is not tried every hour because it has
 * been expired for a week, or not used in one.
 */
export function excusedWindows({ outages, uses }: Host, { recoveryMs, dailyMs }: Promised): Window[] {
  const windows: Window[] = [];
  for (const { from, to } of outages.toSorted((a, b) => a.from - b.from)) {
    const recent = to - from + recoveryMs < WEEK;
    // Use is recorded to within a day.
    const used = uses.some((at) => at <= to && at > to + recoveryMs - WEEK + DAY);
    const end = to + (recent && used ? recoveryMs : dailyMs);
    const last = windows.at(-1);
    if (last !== undefined && from <= last.to) last.to = Math.max(last.to, end);
    else windows.push({ from, to: end });
  }
  return windows;
}

/** A host and the entry that is held for it. */
interface Holding {
  readonly host: Host;
  readonly excused: readonly Window[];
  record?: PolicyRecord | undefined;
  since: number;
  /** Which of the host's policies it is; -1: none. */
  version: number;
}

export class Measure {
  readonly #holdings: ReadonlyMap<Domain, Holding>;
  readonly #options: { readonly steadyFrom: number; readonly shortestMs: number };
  readonly #rows = Object.fromEntries(ROWS.map((row) => [row, { ...NOTHING }])) as Record<Row, Tally>;
  readonly #changes: Measured['changes'] = {
    'policy first': { delays: [], never: 0 },
    'id first': { delays: [], never: 0 },
    'same id': { delays: [], never: 0 },
  };
  readonly #outcomes: Record<string, Record<Origin, number>> = {};
  #brokenMs = 0;
  #steadyMs = 0;

  /** @param options.shortestMs the shortest `max_age` for which no lapse is promised. */
  constructor(
    hosts: readonly Host[],
    options: { promised: Promised; steadyFrom: number; shortestMs: number },
  ) {
    this.#options = options;
    const entries = hosts.map((host): [Domain, Holding] => {
      return [host.domain, { host, excused: excusedWindows(host, options.promised), since: 0, version: -1 }];
    });
    this.#holdings = new Map(entries);
  }

  /** An entry came, changed or went. */
  stored(domain: Domain, after: PolicyRecord | undefined, now: number): void {
    const holding = this.#holdings.get(domain);
    // A failure or a use changes nothing of the policy.
    if (holding === undefined || holding.record?.lastUpdate === after?.lastUpdate) return;
    this.#close(holding, now);
    const { host, version: held } = holding;
    const version =
      after === undefined || after.backoff
        ? -1
        : host.policies.findIndex(({ value }) => value === after.policy);
    if (held >= 0 && version > held) this.#changed(holding, version, now);
    Object.assign(holding, { record: after, since: now, version });
  }

  /** Adds up what the entry was since it was written. */
  #close({ record, since, excused }: Holding, now: number): void {
    if (record === undefined) return;
    const row = rowOf(record);
    const tally = this.#rows[row];
    tally.heldMs += now - since;
    tally.reachableMs += reachableMs(excused, since, now);
    this.#steadyMs += Math.max(0, now - Math.max(since, this.#options.steadyFrom));
    const expired = Math.max(since, record.validEnd);
    if (expired >= now || row === 'none' || row === 'back-off') return;
    const reachable = reachableMs(excused, expired, now);
    tally.lapses++;
    tally.expiredMs += now - expired;
    tally.reachableExpiredMs += reachable;
    tally.reachableWorstMs = Math.max(tally.reachableWorstMs, reachable);
    if (record.policy.maxAgeSeconds * 1_000 >= this.#options.shortestMs) this.#brokenMs += reachable;
  }

  /** The last of the changes up to `version` was noticed now, those before it never. */
  #changed({ host, excused, version: held }: Holding, version: number, now: number): void {
    for (const [i, { at, kind }] of host.changes.slice(held, version).entries()) {
      const unnoticed = reachableMs(excused, at, now);
      if (held + i + 1 === version) this.#changes[kind].delays.push(unnoticed);
      else if (unnoticed > NEVER_AFTER_MS) this.#changes[kind].never++;
    }
  }

  asked(record: PolicyRecord | undefined, what: 'lookups' | 'fetches'): void {
    if (record !== undefined) this.#rows[rowOf(record)][what]++;
  }

  outcome(origin: Origin, outcome: Outcome, before: PolicyRecord | undefined, now: number): void {
    if (now < this.#options.steadyFrom) return;
    const name = nameOf(outcome, before, before && this.#holdings.get(before.domain)?.record);
    this.#outcomes[name] ??= { daily: 0, renewal: 0, request: 0 };
    this.#outcomes[name][origin]++;
  }

  finish(now: number, counts: Pick<Measured, 'rule' | 'pruned' | 'schedules'>): Measured {
    for (const holding of this.#holdings.values()) {
      this.#close(holding, now);
      // One more version, which nobody has seen.
      if (holding.version >= 0) this.#changed(holding, holding.host.policies.length, now);
    }
    for (const { delays } of Object.values(this.#changes)) delays.sort((a, b) => a - b);
    const outcomes = Object.fromEntries(Object.entries(this.#outcomes).sort(([a], [b]) => (a < b ? -1 : 1)));
    const [rows, changes, brokenMs] = [this.#rows, this.#changes, this.#brokenMs];
    return { ...counts, rows, brokenMs, changes, outcomes, domainDays: this.#steadyMs / DAY };
  }
}

function reachableMs(excused: readonly Window[], from: number, to: number): number {
  let sum = Math.max(0, to - from);
  for (const window of excused) sum -= Math.max(0, Math.min(to, window.to) - Math.max(from, window.from));
  return Math.max(0, sum);
}

function nameOf(outcome: Outcome, before: PolicyRecord | undefined, after: PolicyRecord | undefined): string {
  if (outcome.kind === 'skipped') return `skipped, ${outcome.reason}`;
  if (outcome.kind === 'kept' && before?.backoff) return 'kept, back-off';
  if (outcome.kind === 'kept' && before?.failing !== undefined) return 'kept, again';
  if (outcome.kind !== 'replaced') return outcome.kind;
  if (outcome.lookupFailure !== undefined) return 'replaced, no record';
  return `replaced, ${before?.recordId === after?.recordId ? 'same' : 'new'} id`;
}
