// Who is refreshed in the bench: domains by rule, so that a name alone says what its item in the table is and what its
// servers do, in whatever process. `d17.gone.test` is the 18th domain whose policy host does not exist.

import { formatPolicy, type Policy } from '../../functions/mtasts/policy.ts';
import { type BehaviourName, behaviours, type Site } from '../../infra/local/internet/internet.ts';
import { seeded } from '../functions/dispatch/tasks.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

/** Milliseconds: how long DNS and HTTPS take. */
export interface Latency {
  readonly dnsMs: number;
  readonly httpsMs: number;
}

/** Where a domain's servers are, and how far away. */
interface Place extends Latency {
  readonly address: string;
}

interface Kind {
  /** When the policy was fetched last; an old proof has the policy fetched again. */
  readonly fetchedDaysAgo: number;
  readonly failing: boolean;
  site(domain: string, place: Place): Site;
}

/** The limits of functions/mtasts/limits.ts that a slow domain uses up, milliseconds. */
export interface Patience {
  /** For DNS, a connection, or a body that stands still. */
  readonly phaseMs: number;
  readonly headersMs: number;
  readonly domainMs: number;
}

function like(behaviour: BehaviourName, domain: string, { address, dnsMs, httpsMs }: Place): Site {
  const site: Site = behaviours[behaviour](domain);
  const { record = {}, host = {}, https = {} } = site;
  // The behaviours' hosts are at 127.0.0.1, if nothing is to be said about where they are.
  const a = host.a?.[0] === '127.0.0.1' ? { a: [address] } : {};
  return {
    record: { delayMs: dnsMs, ...record },
    host: { delayMs: dnsMs, ...host, ...a },
    https: { ...https, ...(https.policy && { policy: { delayMs: httpsMs, ...https.policy } }) },
  };
}

const sound = (behaviour: BehaviourName, fetchedDaysAgo: number): Kind => ({
  fetchedDaysAgo,
  failing: false,
  site: (domain, place) => like(behaviour, domain, place),
});

/** Resolvers give up on name servers that do not answer after some seconds. */
const SERVFAIL_MS = 4_000;

interface Failing extends Kind {
  /** Of a hundred domains that fail. */
  readonly weight: number;
  /** How long it holds a refresh. Undefined: no longer than its latency. */
  readonly holdsMs?: (patience: Patience) => number;
}

const failing = (
  weight: number,
  site: BehaviourName | ((domain: string, place: Place) => Site),
  holdsMs?: (patience: Patience) => number,
): Failing => ({
  weight,
  fetchedDaysAgo: 8,
  failing: true,
  site: typeof site === 'string' ? (domain, place) => like(site, domain, place) : site,
  ...(holdsMs && { holdsMs }),
});

/** Answers by and by, so that no phase ever stands still: it has the whole minute. */
function trickling(domain: string, place: Place): Site {
  const site = like('changed-id', domain, place);
  return {
    ...site,
    https: { policy: { ...site.https?.policy, trickle: { bytes: 1, everyMs: 2_000 } } },
  };
}

function slowServfail(): Site {
  const name = { rcode: 'SERVFAIL', delayMs: SERVFAIL_MS } as const;
  return { ...behaviours['servfail-all'](), record: name, host: name };
}

/**
 * How domains fail, of a hundred. Nobody publishes figures of how long MTA-STS hosts that fail take to do it, so this is
 * an assumption: 70 fail at once, and 30 keep whoever asks waiting, each in its way. The bench also says what comes of
 * other shares.
 */
export const FAILING = {
  gone: failing(24, 'nxdomain'),
  certificate: failing(15, 'wrong-certificate'),
  expired: failing(9, 'expired-certificate'),
  missing: failing(14, 'not-found'),
  refused: failing(4, 'host-down'),
  invalid: failing(4, 'invalid-policy'),
  // A connection that nobody answers: on loopback, where every connection is, one whose TLS handshake nobody answers.
  unconnected: failing(
    14,
    (domain, place) => {
      const site = like('changed-id', domain, place);
      return { ...site, https: { stop: { at: 'accept', how: 'hang' } } };
    },
    ({ phaseMs }) => phaseMs,
  ),
  // c-ares is told to give up after eight tenths of the limit; then the policy host's addresses are asked for.
  silent: failing(6, 'no-answer', ({ phaseMs, domainMs }) => Math.min(2 * 0.8 * phaseMs, domainMs)),
  // Asked twice for the record, twice for the addresses.
  lame: failing(5, slowServfail, ({ domainMs }) => Math.min(4 * SERVFAIL_MS, domainMs)),
  hanging: failing(3, 'hang', ({ headersMs }) => headersMs),
  trickling: failing(2, trickling, ({ domainMs }) => domainMs),
} satisfies Record<string, Failing>;

export const KINDS = {
  /** The same id, and a fetch not long ago: extended. */
  same: sound('healthy', 0),
  /** The same id, and a fetch too long ago: fetched. */
  old: sound('healthy', 8),
  changed: sound('changed-id', 0),
  ...FAILING,
} satisfies Record<string, Kind>;

export type KindName = keyof typeof KINDS;

/** Milliseconds that the servers of a domain hold its refresh, if the limits are `patience`. */
export function holdsMs(name: KindName, { dnsMs, httpsMs }: Latency, patience: Patience): number {
  const { holdsMs: limited } = KINDS[name] as Partial<Failing>;
  // The record; then the addresses, both at once, and the policy.
  const unlimited = name === 'same' ? dnsMs : 2 * dnsMs + httpsMs;
  return limited === undefined ? Math.min(unlimited, patience.domainMs) : limited(patience);
}

export function domainName(index: number, kind: KindName): string {
  return `d${index}.${kind}.test`;
}

function parse(domain: string): { index: number; kind: Kind } {
  const [, index = '0', name = ''] = /^d(\d+)\.(\w+)\.test$/.exec(domain) ?? [];
  return { index: Number(index), kind: KINDS[name as KindName] ?? KINDS.same };
}

export function siteOf(domain: string, place: Place): Site {
  return parse(domain).kind.site(domain, place);
}

/**
 * Of a recursive resolver that often has to ask further, and of a policy host on another continent now and then:
 * logarithmically normal with these medians. An assumption too.
 */
const DNS_MS = { median: 30, spread: 1 };
const HTTPS_MS = { median: 250, spread: 0.8 };

export function drawLatency(random: () => number): Latency {
  const draw = ({ median, spread }: typeof DNS_MS) => median * Math.exp(spread * normal(random));
  return { dnsMs: draw(DNS_MS), httpsMs: draw(HTTPS_MS) };
}

function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** How many policies of a hundred name so many MX hosts: of the 72 valid ones among 81 in public repositories. */
const MX_COUNTS = [47, 17, 10, 4, 15, 6, 0, 1];

function mxCount(index: number): number {
  let left = (index * 61) % 100;
  for (const [i, share] of MX_COUNTS.entries()) {
    left -= share;
    if (left < 0) return i + 1;
  }
  return 1;
}

export interface BenchItem {
  readonly domain: string;
  readonly policy: Policy;
  readonly policyText: string;
  readonly lastUpdate: number;
  readonly lastFetch: number;
  readonly failingSince: number | undefined;
}

const WEEK_SECONDS = 604_800;

/** The item of a domain that was updated 16 hours ago, and is stale. */
export function itemOf(domain: string, now: number): BenchItem {
  const { index, kind } = parse(domain);
  const mx = Array.from(
    { length: mxCount(index) },
    (_, i) => `mx${i + 1}.mail.provider${index % 97}.example`,
  );
  const policy: Policy = { mode: 'enforce', mx, maxAgeSeconds: WEEK_SECONDS };
  // Updates are spread over three hours, as after a daily run.
  const lastUpdate = now - 16 * HOUR - ((index * 7_919) % 10_800) * 1_000;
  return {
    domain,
    policy,
    policyText: formatPolicy(policy),
    lastUpdate,
    lastFetch: lastUpdate - kind.fetchedDaysAgo * DAY,
    failingSince: kind.failing ? now - 3 * DAY : undefined,
  };
}

/** Draws kinds by weight, the same in every run. */
export function drawKinds(
  weights: Readonly<Partial<Record<KindName, number>>>,
  count: number,
  seed: number,
): KindName[] {
  const random = seeded(seed);
  const entries = Object.entries(weights) as [KindName, number][];
  const sum = entries.reduce((total, [, weight]) => total + weight, 0);
  return Array.from({ length: count }, () => {
    let left = random() * sum;
    for (const [name, weight] of entries) {
      left -= weight;
      if (left < 0) return name;
    }
    return 'same';
  });
}
