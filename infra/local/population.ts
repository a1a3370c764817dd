// Who lives in the demonstration: a few hundred policy domains in every state, what their servers do, and what a
// correct run makes of each.

import type { Outcome } from '../../functions/refresh/outcome.ts';
import type { PolicyRecord } from '../../functions/store/policy-store.ts';
import type { PolicyOptions } from './internet/behaviours.ts';
import { type BehaviourName, behaviours, type Site } from './internet/internet.ts';
import type { Seed } from './seed.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

/** What a run should make of a domain: an outcome of the refresh, or none because `plan` leaves or prunes it. */
export type Expectation = Outcome['kind'] | 'fresh' | 'pruned';

export interface Resident {
  readonly domain: string;
  readonly site: Site;
  /** The entry in the table; undefined for a domain that only a relay asks for. */
  readonly seed: Seed | undefined;
  readonly expected: Expectation;
}

interface Group {
  readonly behaviour: BehaviourName;
  readonly count: number;
  readonly expected: Expectation;
  readonly mode?: 'none' | 'testing';
  readonly state?: State;
}

type State =
  | 'fresh'
  | 'unused'
  | 'back-off'
  | 'back-off-unused'
  | 'failing'
  | 'unknown'
  | 'day-long'
  /** It lives for half a day and ends within the hour: not stale for the daily run, but due for the renewal run. */
  | 'ending'
  /** Its last fetch is eight days ago. */
  | 'old-proof';

const GROUPS: readonly Group[] = [
  { behaviour: 'healthy', count: 150, expected: 'extended' },
  // Fetched 16 hours ago and more, which is over half of their max_age: the same id is not enough.
  { behaviour: 'healthy', count: 30, expected: 'replaced', state: 'day-long' },
  { behaviour: 'healthy', count: 10, expected: 'replaced', state: 'old-proof' },
  { behaviour: 'healthy', count: 20, expected: 'extended', mode: 'testing' },
  { behaviour: 'healthy', count: 10, expected: 'extended', mode: 'none' },
  { behaviour: 'delegated', count: 20, expected: 'extended' },
  { behaviour: 'healthy', count: 30, expected: 'fresh', state: 'fresh' },
  { behaviour: 'healthy', count: 12, expected: 'pruned', state: 'unused' },
  { behaviour: 'not-found', count: 6, expected: 'pruned', state: 'back-off-unused' },
  { behaviour: 'changed-id', count: 20, expected: 'replaced' },
  { behaviour: 'changed-policy', count: 30, expected: 'replaced' },
  { behaviour: 'mode-none', count: 3, expected: 'replaced' },
  { behaviour: 'mode-testing', count: 3, expected: 'replaced' },
  { behaviour: 'slow', count: 4, expected: 'replaced' },
  { behaviour: 'healthy', count: 3, expected: 'replaced', state: 'back-off' },
  { behaviour: 'changed-id', count: 3, expected: 'replaced', state: 'failing' },
  { behaviour: 'record-gone', count: 3, expected: 'replaced' },
  { behaviour: 'servfail', count: 3, expected: 'replaced' },
  { behaviour: 'two-records', count: 2, expected: 'replaced' },
  { behaviour: 'malformed-record', count: 2, expected: 'replaced' },
  { behaviour: 'nxdomain', count: 4, expected: 'removed', mode: 'none' },
  { behaviour: 'nxdomain', count: 3, expected: 'kept' },
  { behaviour: 'servfail-all', count: 3, expected: 'kept', mode: 'none' },
  { behaviour: 'servfail-all', count: 2, expected: 'kept' },
  // These two use up the limits of a lookup and of a fetch, 20 and 10 s. The renewal run begins with them at once;
  // in the daily run their turn could be the last of the window.
  { behaviour: 'no-answer', count: 1, expected: 'kept', state: 'ending' },
  { behaviour: 'host-down', count: 3, expected: 'kept' },
  { behaviour: 'hang', count: 1, expected: 'kept', state: 'ending' },
  { behaviour: 'reset', count: 2, expected: 'kept' },
  { behaviour: 'wrong-certificate', count: 3, expected: 'kept' },
  { behaviour: 'expired-certificate', count: 3, expected: 'kept' },
  { behaviour: 'self-signed', count: 2, expected: 'kept' },
  { behaviour: 'not-found', count: 3, expected: 'kept' },
  { behaviour: 'not-found', count: 2, expected: 'kept', state: 'back-off' },
  { behaviour: 'server-error', count: 2, expected: 'kept' },
  // Some of these expire within hours.
  { behaviour: 'server-error', count: 4, expected: 'kept', state: 'day-long' },
  { behaviour: 'redirect', count: 2, expected: 'kept' },
  { behaviour: 'html', count: 2, expected: 'kept' },
  { behaviour: 'oversized', count: 2, expected: 'kept' },
  { behaviour: 'invalid-policy', count: 2, expected: 'kept' },
  { behaviour: 'healthy', count: 3, expected: 'discovered', state: 'unknown' },
  { behaviour: 'not-found', count: 1, expected: 'backed-off', state: 'unknown' },
  { behaviour: 'nxdomain', count: 2, expected: 'not-implemented', state: 'unknown' },
];

/** Lifetimes as published in the wild, from a day to half a year. */
const DAY_LONG = 86_400;
const HALF_A_DAY = 43_200;
const HALF_A_YEAR = 15_552_000;
const LONGER = [604_800, 1_209_600, 2_592_000, HALF_A_YEAR];
const MAX_AGES = [DAY_LONG, ...LONGER];

function maxAges({ state, expected }: Group): readonly number[] {
  if (state === 'day-long') return [DAY_LONG];
  if (state === 'ending') return [HALF_A_DAY];
  if (state === 'old-proof') return [HALF_A_YEAR];
  return expected === 'extended' ? LONGER : MAX_AGES;
}

/** How long ago the policies were updated that end within the hour. */
const UPDATED_ENDING = 11.5 * HOUR;

/** @param addresses of the policy hosts, which share them evenly. */
export function populate(now: number, addresses: readonly string[] = ['127.0.0.1']): Resident[] {
  return GROUPS.flatMap((group) => Array.from({ length: group.count }, (_, i) => [group, i] as const)).map(
    ([group, i], index) => resident(group, i, now, addresses[index % addresses.length] as string),
  );
}

function resident(group: Group, i: number, now: number, address: string): Resident {
  const { behaviour, mode = 'enforce', state, expected } = group;
  const label = [behaviour, state, group.mode, i].filter((part) => part !== undefined).join('-');
  const domain = `${label}.test`;
  const lifetimes = maxAges(group);
  const maxAgeSeconds = lifetimes[i % lifetimes.length] ?? DAY_LONG;
  // What the healthy serve is what the table holds; those that change keep their own idea of a policy.
  const same: PolicyOptions =
    behaviour === 'healthy' || behaviour === 'delegated'
      ? { mode, maxAgeSeconds, address }
      : { maxAgeSeconds, address };
  const site = behaviours[behaviour](domain, same);
  if (state === 'unknown') return { domain, site, seed: undefined, expected };

  const updated = now - ageOf(state, i);
  const backoff = state === 'back-off' || state === 'back-off-unused';
  const seed: Seed = {
    domain,
    policy: backoff
      ? { mode: 'none', mx: [], maxAgeSeconds: 300 }
      : { mode, mx: [`mail.${domain}`], maxAgeSeconds },
    recordId: 'id1',
    backoff,
    inserted: now - 200 * DAY,
    lastUpdate: updated,
    ...(state === 'unused' ? {} : { lastUse: now - (state === 'back-off-unused' ? 3 : 1) * DAY }),
    ...(state === 'old-proof' ? { lastFetch: now - 8 * DAY } : {}),
    ...(state === 'failing'
      ? { failing: { code: 'http-status', since: now - 3 * DAY, lastAttempt: now - DAY } as const }
      : {}),
  };
  return { domain, site, seed, expected };
}

function ageOf(state: State | undefined, i: number): number {
  if (state === 'fresh') return HOUR;
  if (state === 'ending') return UPDATED_ENDING;
  return 16 * HOUR + (i % 8) * HOUR;
}

/** What became of a domain, as the table shows it. */
export function becameOf(
  { domain, seed: before, expected }: Resident,
  records: ReadonlyMap<string, PolicyRecord>,
  start: number,
): Expectation | undefined {
  const record = records.get(domain);
  if (record === undefined) {
    // All that the table can say is that it is gone, which is what each of these promises.
    return expected === 'pruned' || expected === 'removed' || expected === 'not-implemented'
      ? expected
      : undefined;
  }
  if (before === undefined) return record.backoff ? 'backed-off' : 'discovered';
  if (record.lastUpdate >= start) return (record.lastFetch ?? 0) >= start ? 'replaced' : 'extended';
  if (record.lastUpdate !== before.lastUpdate) return undefined;
  return (record.failing?.lastAttempt ?? 0) >= start ? 'kept' : 'fresh';
}
