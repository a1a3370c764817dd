// At the edge of the promise: day-long policies whose hosts go down right after a refresh, and can be reached for a
// while before the policy ends, at the worst moment: when a relay has just asked too early, and a renewal run begins.

import type { Domain } from '../../functions/mtasts/domain.ts';
import { seeded } from '../functions/dispatch/tasks.ts';
import { FIRST_RENEWAL, ours, simulate } from './engine.ts';
import { START, steadyHost } from './population.ts';
import { DAY, MINUTE, promiseOf, type Settings } from './settings.ts';

export interface Edge {
  readonly name: string;
  /** The host can be reached somewhere in the policy's last hours, then no more; else until the policy's end. */
  readonly between: boolean;
  /** Every second renewal run is lost. */
  readonly lost: boolean;
}

export const EDGES: readonly Edge[] = [
  { name: 'until the end', between: false, lost: false },
  { name: 'at some time', between: true, lost: false },
  { name: 'until the end, runs lost', between: false, lost: true },
];

/** How long should be enough for every policy to survive, milliseconds. */
export function enoughMs({ between, lost }: Edge, settings: Settings): number {
  const { rescueMs, recoveryMs } = promiseOf(settings, lost);
  return between ? recoveryMs : rescueMs;
}

export interface Trial {
  /** How long the host could be reached, milliseconds. */
  readonly reachableMs: number;
  readonly survived: boolean;
}

/** @param options.leastMs about how long the hosts can be reached at least; at most it is a bit more than enough. */
export async function tryEdge(
  edge: Edge,
  { settings, seed, count, leastMs }: { settings: Settings; seed: number; count: number; leastMs: number },
): Promise<Trial[]> {
  const random = seeded(seed);
  const draw = (from: number, to: number) => Math.floor(from + random() * (to - from));
  const { renewalIntervalMs, times } = settings;
  const hosts = Array.from({ length: count }, (_, i) =>
    steadyHost(i, 86_400, 'enforce', [draw(START, START + DAY)]),
  );
  const hostOf = new Map(hosts.map((host) => [host.domain, host]));
  const trials = new Map<string, { reachableMs: number; validEnd: number; renewedAt?: number }>();
  const lostRenewals = edge.lost ? 1 : 0;
  await simulate(ours(settings), { hosts, days: 7, seed, settings, lostRenewals, watch });

  function watch(
    { domain, validEnd }: { domain: Domain; validEnd: number },
    now: number,
    ask: (at: number) => void,
  ) {
    const trial = trials.get(domain);
    if (trial !== undefined) trial.renewedAt ??= now;
    // By then the refreshes have found their rhythm.
    if (trial !== undefined || now < START + 3 * DAY) return;
    const wantedMs = draw(leastMs, enoughMs(edge, settings) + 12 * MINUTE);
    const about = edge.between
      ? draw(validEnd - times.renewalMarginMs, validEnd - wantedMs)
      : validEnd - wantedMs;
    const run = FIRST_RENEWAL + Math.round((about - FIRST_RENEWAL) / renewalIntervalMs) * renewalIntervalMs;
    const back = Math.max(
      Math.min(run + draw(-6 * MINUTE, MINUTE), validEnd),
      validEnd - times.renewalMarginMs,
    );
    const gone = edge.between ? Math.min(back + wantedMs, validEnd) : validEnd;
    hostOf
      .get(domain)
      ?.outages.push({ from: now + 1, to: back, dns: false }, { from: gone, to: validEnd + 1, dns: false });
    ask(back - 1_000);
    trials.set(domain, { reachableMs: gone - back, validEnd });
  }

  return [...trials.values()].map(({ reachableMs, validEnd, renewedAt = Number.POSITIVE_INFINITY }) => {
    return { reachableMs, survived: renewedAt < validEnd };
  });
}

/** Of those that did not survive, how long the one could be reached that could be longest. */
export function longestLapsedMs(trials: readonly Trial[]): number {
  return Math.max(0, ...trials.filter(({ survived }) => !survived).map(({ reachableMs }) => reachableMs));
}
