// The steady state of a fleet, as the simulation of the real planning and deciding shows it: how often a policy is
// refreshed, by which run, and what comes of it.

import { ours, simulate } from '../simulation/engine.ts';
import type { Origin } from '../simulation/measure.ts';
import { populate } from '../simulation/population.ts';
import { readSettings } from '../simulation/settings.ts';
import type { Section } from './bench.ts';
import { FAILING, type KindName } from './domains.ts';
import { sum } from './table.ts';

export interface MixResult {
  /** Per policy and day, by outcome as the simulation names them, and by what asked for it. */
  readonly outcomes: Readonly<Record<string, Readonly<Record<Origin, number>>>>;
  /** Relays' mail, per policy and day. */
  readonly uses: number;
}

/** What the outcomes mean for the bench. Others do no work, or are too few to count. */
const KIND_OF: Readonly<Record<string, KindName>> = {
  extended: 'same',
  'replaced, same id': 'old',
  'replaced, new id': 'changed',
  'replaced, no record': 'old',
};
/** Those that failed the last time too are known to do so, from the table. */
const KNOWN_FAILING = ['kept, again', 'kept, back-off'];
const NEWLY_FAILING = 'kept';

export const mixSection: Section<MixResult> = {
  name: 'mix',
  what: "the simulation's mix of outcomes in a steady state",
  async measure(bench) {
    // But for the quick ones, those of `npm run simulate`.
    const [domains, days] = bench.options.quick ? [1_000, 120] : [2_000, 365];
    const settings = readSettings({});
    const hosts = populate({ domains, days, seed: 1, hostOutages: 6, dnsOutages: 2, changes: 3 });
    const simulated = await simulate(ours(settings), { hosts, days, seed: 1, settings, lostRenewals: 0 });
    const perDay = ([name, counts]: [string, Record<Origin, number>]) => {
      const rate = (origin: Origin) => counts[origin] / simulated.domainDays;
      return [name, { daily: rate('daily'), renewal: rate('renewal'), request: rate('request') }];
    };
    return {
      outcomes: Object.fromEntries(Object.entries(simulated.outcomes).map(perDay)),
      uses: sum(hosts.map((host) => host.uses.length)) / (domains * days),
    };
  },
  tables(mix) {
    const rows = Object.entries(mix.outcomes).filter(
      ([, { daily, renewal, request }]) => daily + renewal + request > 5e-5,
    );
    const total = (origin: Origin) => 1_000 * sum(rows.map(([, counts]) => counts[origin]));
    return [
      {
        title: 'MIX of outcomes in a steady state, for 1,000 policies and day',
        columns: ['daily runs', 'renewal runs', 'requests'],
        rows: [
          ...rows.map(([label, counts]) => ({
            label,
            digits: 2,
            cells: (['daily', 'renewal', 'request'] as const).map((origin) => 1_000 * counts[origin]),
          })),
          { label: 'all', digits: 2, cells: [total('daily'), total('renewal'), total('request')] },
        ],
      },
    ];
  },
};

/** Refreshes of a policy and day that go through the refresh queue. */
export function refreshesPerDay({ outcomes }: MixResult): {
  daily: number;
  renewal: number;
  request: number;
} {
  const all = Object.values(outcomes);
  return {
    daily: sum(all.map(({ daily }) => daily)),
    renewal: sum(all.map(({ renewal }) => renewal)),
    request: sum(all.map(({ request }) => request)),
  };
}

export type Shares = Readonly<Partial<Record<KindName, number>>>;

/** What is in the refresh queue, of 1: sound domains, and failing ones by whether the table says so already. */
export function sharesOf({ outcomes }: MixResult): { sound: Shares; known: number; newly: number } {
  const queued = (name: string) => (outcomes[name]?.daily ?? 0) + (outcomes[name]?.renewal ?? 0);
  const sound: Partial<Record<KindName, number>> = {};
  for (const [name, kind] of Object.entries(KIND_OF)) sound[kind] = (sound[kind] ?? 0) + queued(name);
  const known = sum(KNOWN_FAILING.map(queued));
  const newly = queued(NEWLY_FAILING);
  const all = sum(Object.values(sound)) + known + newly;
  return {
    sound: Object.fromEntries(Object.entries(sound).map(([kind, rate]) => [kind, rate / all])),
    known: known / all,
    newly: newly / all,
  };
}

/** The ways to fail, of `share` together. */
export function failingShares(share: number): Shares {
  const entries = Object.entries(FAILING) as [KindName, { weight: number }][];
  const weights = sum(entries.map(([, { weight }]) => weight));
  return Object.fromEntries(entries.map(([name, { weight }]) => [name, (share * weight) / weights]));
}
