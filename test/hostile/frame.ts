// The frame of the tables of hostile cases. A case says what a domain does on the programmable internet, how a refresh
// of it ends (a policy is held) and how its discovery ends (it is unknown), and which limits it runs into. The frame
// plays it through the real `refreshDomain`, and insists on the outcome, the failure code, its RFC 8460 result type,
// an upper bound of time, what is stored afterwards, and that nothing is left behind.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Domain } from '../../functions/mtasts/domain.ts';
import {
  type Failure,
  type FailureCode,
  RESULT_TYPES,
  type ResultType,
} from '../../functions/mtasts/failure.ts';
import type { Limits } from '../../functions/mtasts/limits.ts';
import type { Policy } from '../../functions/mtasts/policy.ts';
import type { Outcome } from '../../functions/refresh/outcome.ts';
import { createRefresher, refreshDomain } from '../../functions/refresh/refresh.ts';
import type { PolicyRecord } from '../../functions/store/policy-store.ts';
import type { BehaviourName, Internet, Site } from '../../infra/local/internet/internet.ts';
import { seed } from '../../infra/local/seed.ts';
import {
  assertSafe,
  leavingNothing,
  PATIENT,
  PROMPT_MS,
  policyDomain,
  SHORT_MS,
  undisturbed,
} from '../functions/mtasts/network.ts';
import { THOROUGH } from '../runner/thorough.ts';
import { MemoryStore } from '../simulation/memory-store.ts';

/**
 * The outcome, the code of its failure, and the result type that RFC 8460 has for it. A policy that was `replaced`
 * although its record could not be had carries the failure of the lookup.
 */
export type Ends =
  | readonly [kind: Outcome['kind']]
  | readonly [kind: Outcome['kind'], code: FailureCode, result: ResultType];

/** A limit that ends a wait. */
type Wait = 'dnsMs' | 'connectMs' | 'headersMs' | 'bodyIdleMs' | 'domainMs';

export interface HostileCase {
  readonly name: string;
  readonly does: Site | BehaviourName | ((domain: Domain) => Site);
  /** How it ends where the policy HELD is held under `id1`, fetched an hour ago. */
  readonly refresh?: Ends;
  /** How it ends where the domain is unknown. */
  readonly discovery?: Ends;
  /**
   * The limits that it runs into, one for each time. They are shortened, and the time it may take is their sum and
   * some patience with a busy machine: less than any limit that is not in the list.
   */
  readonly waits?: readonly Wait[];
  /** Over the limits that come of `waits`. */
  readonly limits?: Partial<Limits>;
  /** A domain under `test`; by default one of its own. */
  readonly domain?: string;
  /** Recursive resolvers, `address:port`; by default the internet's. */
  readonly dnsServers?: readonly string[];
  /** True by default, since the policy hosts of the internet are on loopback. */
  readonly allowPrivateAddresses?: boolean;
  /** Played again and again, to see that memory does not grow. */
  readonly heavy?: boolean;
  /** What else has to be true afterwards. */
  readonly also?: (played: Played) => void;
}

export interface Played {
  readonly internet: Internet;
  readonly domain: Domain;
  readonly position: Position;
  readonly outcome: Outcome;
  readonly entry: PolicyRecord | undefined;
}

export interface Stage {
  /** As in "38 hostile DNS cases". */
  readonly what: string;
  readonly internet: Internet;
  /** Others where the domains do the same, for their resolvers. */
  readonly others?: readonly Internet[];
}

const POSITIONS = ['refresh', 'discovery'] as const;
type Position = (typeof POSITIONS)[number];

export const HELD: Policy = { mode: 'enforce', mx: ['held.example'], maxAgeSeconds: 604_800 };
const HELD_ID = 'id1';
const HOUR_MS = 3_600_000;

/** Registers a test for each case and position, one for memory, and one that says how many there were. */
export function play(stage: Stage, cases: readonly HostileCase[]): void {
  let played = 0;
  cases.forEach((row, index) => {
    const domain = policyDomain(row.domain ?? `c${index}.hostile.test`);
    // What a host does is the same for both: one of them is enough, unless everything is wanted.
    const both = POSITIONS.filter((position) => row[position] !== undefined);
    const positions = THOROUGH ? both : both.slice(index % both.length).slice(0, 1);
    for (const position of positions) {
      const ends = row[position] as Ends;
      const playOnce = async () => {
        stage.internet.traffic.reset();
        const { before, outcome, entry } = await leavingNothing(
          [stage.internet, ...(stage.others ?? [])],
          (controller) => refreshOnce(stage, row, domain, position, controller.signal),
          allowedMs(row),
        );
        assert.deepEqual(endsOf(outcome), ends);
        assertStored(outcome, before, entry);
        row.also?.({ internet: stage.internet, domain, position, outcome, entry });
        played++;
      };
      test(`${position}: ${row.name}: ${ends.slice(0, 2).join(' ')}`, () =>
        row.waits || row.limits ? undisturbed(playOnce) : playOnce());
    }
  });

  const heavy = cases.flatMap((row, index) => (row.heavy ? [{ row, index }] : []));
  if (heavy.length > 0 && THOROUGH) {
    test('no memory is left behind', async (t) => {
      for (const { row, index } of heavy) {
        const domain = policyDomain(row.domain ?? `c${index}.hostile.test`);
        const growth = await memoryGrowth(async () => {
          const positions = POSITIONS.filter((position) => row[position]);
          const { signal } = new AbortController();
          await Promise.all(positions.map((position) => refreshOnce(stage, row, domain, position, signal)));
        });
        t.diagnostic(`${row.name}: ${Math.round(growth / 1024)} KiB after ${REPETITIONS} times`);
        assert.ok(growth < MAX_GROWTH_BYTES, `${row.name}: ${growth} bytes more after ${REPETITIONS} times`);
      }
    });
  }

  test('count', (t) => {
    t.diagnostic(`${cases.length} hostile ${stage.what} cases, played ${played} times`);
  });
}

async function refreshOnce(
  { internet, others = [] }: Stage,
  row: HostileCase,
  domain: Domain,
  position: Position,
  signal: AbortSignal,
) {
  for (const each of [internet, ...others]) {
    each.set(domain, row.does instanceof Function ? row.does(domain) : row.does);
  }
  const store = new MemoryStore();
  const lastUpdate = Date.now() - HOUR_MS;
  if (position === 'refresh') {
    await seed(store, { domain, policy: HELD, recordId: HELD_ID, inserted: lastUpdate, lastUpdate });
  }
  const before = store.get(domain);
  const environment = {
    table: '',
    dnsServers: row.dnsServers ?? [internet.dnsServer],
    policyHostPort: internet.policyHostPort,
    allowPrivateAddresses: row.allowPrivateAddresses ?? true,
    maxFetchAgeSeconds: 604_800,
  };
  const refresher = createRefresher(store, environment, limitsOf(row));
  const outcome = await refreshDomain(domain, before, refresher, signal);
  return { before, outcome, entry: store.get(domain) };
}

function limitsOf({ waits = [], limits }: HostileCase): Limits {
  return { ...PATIENT, ...Object.fromEntries(waits.map((wait) => [wait, SHORT_MS])), ...limits };
}

function allowedMs(row: HostileCase): number {
  const limits = limitsOf(row);
  return (row.waits ?? []).reduce((sum, wait) => sum + limits[wait], PROMPT_MS);
}

function endsOf(outcome: Outcome): Ends {
  const failures: Failure[] = [];
  if ('failure' in outcome) failures.push(outcome.failure);
  if ('lookupFailure' in outcome && outcome.lookupFailure) failures.push(outcome.lookupFailure);
  failures.forEach(assertSafe);
  const [failure] = failures;
  return failure ? [outcome.kind, failure.code, RESULT_TYPES[failure.code]] : [outcome.kind];
}

/** That the table has what the outcome says. A failure never touches what is held (RFC 8461 §3.3). */
function assertStored(
  outcome: Outcome,
  before: PolicyRecord | undefined,
  entry: PolicyRecord | undefined,
): void {
  switch (outcome.kind) {
    case 'kept':
      assert.equal(entry?.failing?.code, outcome.failure.code);
      assert.deepEqual({ ...entry, failing: undefined }, before);
      break;
    case 'extended':
      assert.deepEqual(entry?.policy, before?.policy);
      assert.ok(entry && before && entry.validEnd > before.validEnd);
      break;
    case 'replaced':
    case 'discovered':
      assert.ok(entry && !entry.backoff && !entry.failing && entry.lastFetch === entry.lastUpdate);
      assert.notDeepEqual(entry.policy, HELD);
      break;
    case 'backed-off':
      assert.equal(entry?.backoff, true);
      break;
    case 'removed':
    case 'not-implemented':
      assert.equal(entry, undefined);
      break;
    case 'skipped':
    case 'conflict':
      assert.deepEqual(entry, before);
  }
}

const REPETITIONS = 12;
/** Less than what a domain may send at least once in so many repetitions, 64 KiB of policy or of DNS, costs. */
const MAX_GROWTH_BYTES = 1024 * 1024;
const ROUNDS = 4;

/**
 * Bytes after the work was done so many times, at once, since it was done as often before. The least of some rounds:
 * a leak is in every one of them, noise is not.
 */
async function memoryGrowth(work: () => Promise<void>): Promise<number> {
  const repeat = async () => {
    await Promise.all(Array.from({ length: REPETITIONS }, work));
    return memoryInUse();
  };
  let before = await repeat();
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS && least > MAX_GROWTH_BYTES; round++) {
    const now = await repeat();
    least = Math.min(least, now - before);
    before = now;
  }
  return least;
}

async function memoryInUse(): Promise<number> {
  setFlagsFromString('--expose-gc');
  const gc: () => void = runInNewContext('gc');
  // What finalizers free, the next collection takes.
  for (let round = 0; round < 3; round++) {
    gc();
    await setImmediate();
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
