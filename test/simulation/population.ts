// The internet of the simulation: what domains publish, when they cannot be reached, and when there is mail for them.
// All of it is drawn beforehand, so that every rule meets the same events.

import type { Domain } from '../../functions/mtasts/domain.ts';
import { failure } from '../../functions/mtasts/failure.ts';
import type { Fetched } from '../../functions/mtasts/fetch.ts';
import type { Lookup } from '../../functions/mtasts/lookup.ts';
import type { Mode, Policy } from '../../functions/mtasts/policy.ts';
import { seeded } from '../functions/dispatch/tasks.ts';
import { DAY, MINUTE } from './settings.ts';

export const START = Date.UTC(2026, 0, 1);

/** All times are epoch milliseconds. */
export interface Host {
  readonly domain: Domain;
  /** What DNS says, and what the policy host serves, each from a time on. */
  readonly records: Step<Lookup>[];
  readonly policies: Step<Policy>[];
  /** The policies after the first: when each was completely published, and how. */
  readonly changes: { readonly at: number; readonly kind: ChangeKind }[];
  readonly outages: Outage[];
  /** When a relay has mail for it, in order. */
  readonly uses: readonly number[];
}

interface Step<T> {
  readonly from: number;
  readonly value: T;
}

interface Outage {
  readonly from: number;
  /** Infinity: for ever. */
  readonly to: number;
  /** Of the domain's DNS, which takes the policy host with it; else of the policy host alone. */
  readonly dns: boolean;
}

/** `policy first`, the id minutes later, is what RFC 8461 §8.1 wants; the others are common mistakes. */
export type ChangeKind = 'policy first' | 'id first' | 'same id';

/**
 * `max_age` of the 72 valid ones among 81 policies that public repositories hold for their domains' web servers: 43%
 * live a day or less, 46% a week. And a little of three lifetimes that are not in that sample, to see them.
 */
const MAX_AGES = {
  3600: 1,
  7200: 0.25,
  21600: 0.25,
  86400: 30,
  172800: 0.5,
  604800: 34,
  1209600: 6,
  10368000: 1,
};

/** Of the same policies. */
const MODES = { enforce: 44, testing: 27, none: 1 };

// The rest is nobody's statistics: plausible, and rather too much trouble than too little.
const CHANGES = { 'policy first': 70, 'id first': 15, 'same id': 15 };
/** `random name`: below a wildcard TXT record, met once. */
const FATES = { well: 85, breaks: 3, 'never works': 3, retires: 3, 'loses its record': 2, 'random name': 4 };
const HABITS = { daily: 65, rarely: 25, stops: 10 };

/** So that it can be seen which changes were noticed. */
const CHANGES_APART_DAYS = 30;

export interface PopulationOptions {
  readonly domains: number;
  readonly days: number;
  readonly seed: number;
  /** Each per domain and year. */
  readonly hostOutages: number;
  readonly dnsOutages: number;
  readonly changes: number;
}

const found = (id: string): Lookup => ({ status: 'found', id });
const ABSENT: Lookup = { status: 'absent', failure: failure('record-absent', 'simulated') };
const DNS_DOWN: Lookup = { status: 'unavailable', failure: failure('dns-servfail', 'simulated') };
const HOST_DOWN: Fetched = { ok: false, failure: failure('connect-timeout', 'simulated') };

export function isDown({ outages }: Host, at: number): boolean {
  return outages.some(({ from, to }) => from <= at && at < to);
}

export function lookUp({ outages, records }: Host, at: number): Lookup {
  return outages.some(({ from, to, dns }) => dns && from <= at && at < to) ? DNS_DOWN : current(records, at);
}

/** Who cannot be reached at the beginning or the end of a fetch cannot be fetched from. */
export function fetchFrom(host: Host, begun: number, ended: number): Fetched {
  if (isDown(host, begun) || isDown(host, ended)) return HOST_DOWN;
  return { ok: true, policy: current(host.policies, ended), text: '' };
}

function current<T>(steps: readonly Step<T>[], at: number): T {
  const step = steps.findLast(({ from }) => from <= at);
  if (step === undefined) throw new Error('nothing was ever published');
  return step.value;
}

/** A host that publishes one policy for ever, and can always be reached. */
export function steadyHost(index: number, maxAgeSeconds: number, mode: Mode, uses: readonly number[]): Host {
  const policies = [{ from: 0, value: { mode, mx: ['mx0.example'], maxAgeSeconds } }];
  const records = [{ from: 0, value: found('id0') }];
  return { domain: `d${index}.example` as Domain, records, policies, changes: [], outages: [], uses };
}

export function populate(options: PopulationOptions): Host[] {
  return Array.from({ length: options.domains }, (_, index) => createHost(index, options));
}

function createHost(index: number, options: PopulationOptions): Host {
  // Numbers of its own: what happens to a domain does not depend on how many there are.
  const random = seeded(Math.imul(options.seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(index + 1, 0xc2b2ae35));
  const end = START + options.days * DAY;
  const fate = pick(FATES, random);
  const maxAge = Number(pick(MAX_AGES, random));
  const turn = START + random() * (end - START);
  const uses = fate === 'random name' ? [turn] : drawUses(random, end);
  const host = steadyHost(index, maxAge, pick(MODES, random), uses);
  const { records, policies, changes, outages } = host;

  const publish = (from: number, kind: ChangeKind, mode: Mode) => {
    const n = policies.length;
    // Evenly in the logarithm.
    const lag = kind === 'policy first' ? MINUTE * 30 ** random() : 5 * MINUTE * 576 ** random();
    const idAt = kind === 'policy first' ? from + lag : from;
    const policyAt = kind === 'id first' ? from + lag : from;
    if (kind !== 'same id') records.push({ from: idAt, value: found(`id${n}`) });
    policies.push({ from: policyAt, value: { mode, mx: [`mx${n}.example`], maxAgeSeconds: maxAge } });
    changes.push({ at: Math.max(idAt, policyAt), kind });
  };
  const pauseDays = () =>
    CHANGES_APART_DAYS + exponential(365 / options.changes - CHANGES_APART_DAYS, random);
  const until = fate === 'well' ? end : turn - CHANGES_APART_DAYS * DAY;
  for (let at = START + (pauseDays() - CHANGES_APART_DAYS) * DAY; at < until; at += pauseDays() * DAY) {
    publish(at, pick(CHANGES, random), pick(MODES, random));
  }

  for (const dns of [false, true]) {
    const pause = () => exponential((365 / (dns ? options.dnsOutages : options.hostOutages)) * DAY, random);
    // Half of them last half an hour or less, one in a hundred most of a day or more.
    for (let at = START + pause(); at < end; at += pause()) {
      outages.push({ from: at, to: at + 30 * MINUTE * Math.exp(1.6 * normal(random)), dns });
    }
  }
  const brokenFrom = (from: number) => outages.push({ from, to: Number.POSITIVE_INFINITY, dns: false });
  if (fate === 'breaks') brokenFrom(turn);
  if (fate === 'never works' || fate === 'random name') brokenFrom(0);
  if (fate === 'loses its record') records.push({ from: turn, value: ABSENT });
  if (fate === 'retires') {
    // RFC 8461 §8.3: a policy of `none` first, and the rest goes when the old one has ended everywhere.
    publish(turn, 'policy first', 'none');
    records.push({ from: turn + maxAge * 1_000 + DAY, value: ABSENT });
    brokenFrom(turn + maxAge * 1_000 + DAY);
  }
  return host;
}

function drawUses(random: () => number, end: number): number[] {
  const habit = pick(HABITS, random);
  // Most domains are known from the beginning, the others are discovered over time.
  const first = START + random() * (random() < 0.7 ? DAY : end - START);
  const last = habit === 'stops' ? first + random() * (end - first) : end;
  const pause = () => (habit === 'rarely' ? exponential(20 * DAY, random) : (0.5 + random()) * DAY);
  const uses: number[] = [];
  for (let at = first; at < last; at += pause()) uses.push(at);
  return uses;
}

function pick<K extends string | number>(weights: Readonly<Record<K, number>>, random: () => number): K {
  const entries = Object.entries(weights) as [K, number][];
  let left = random() * entries.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [key, weight] of entries) {
    left -= weight;
    if (left < 0) return key;
  }
  throw new Error('the weights are too light');
}

const exponential = (mean: number, random: () => number) => -mean * Math.log(1 - random());
const normal = (random: () => number) =>
  Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
