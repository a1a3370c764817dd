// The days of a soak: what happens on each, all at once, and what is found when it is over.

import { setTimeout as delay } from 'node:timers/promises';
import { type Internet, startInternet } from '../../infra/local/internet/internet.ts';
import { seed as seedEntry } from '../../infra/local/seed.ts';
import type { FunctionName } from '../../infra/local/stack.ts';
import { seeded } from '../functions/dispatch/tasks.ts';
import type { Scope } from '../resources.ts';
import { bundleHandlers } from './bundles.ts';
import { brokenAtTheEnd, isExplained } from './endings.ts';
import { type DeadLetter, type FaultyStack, startFaultyStack } from './faulty-stack.ts';
import { versionOf, type Write } from './journal.ts';
import { type Neighbour, settleTown } from './town.ts';
import { createWeather, type Weather } from './weather.ts';

export interface Days {
  readonly days: number;
  readonly domains: number;
  readonly seed: number;
}

/** What there is to tell when all is over. */
export interface Lived {
  readonly seconds: number;
  readonly neighbours: readonly Neighbour[];
  /** By service, operation and kind of fault. */
  readonly faults: ReadonlyMap<string, number>;
  readonly outages: number;
  /** Of processes, by function, at moments; those at a call are faults. */
  readonly kills: ReadonlyMap<string, number>;
  readonly runs: number;
  readonly requests: number;
  readonly schedulesRepeated: number;
  /** Domains' tasks, and messages' deliveries: all, and those beyond the first. */
  readonly tasks: number;
  readonly deliveries: { readonly all: number; readonly repeated: number };
  readonly writes: ReadonlyMap<Write['kind'], number>;
  readonly rivalWrites: number;
  /** Writes that their condition kept from overwriting something. */
  readonly refused: number;
  readonly letters: readonly DeadLetter[];
  /** Lines that the functions logged as errors, without what differs from line to line. */
  readonly errors: ReadonlyMap<string, number>;
  /** What does not hold, in words. */
  readonly broken: readonly string[];
}

const SECOND = 1_000;
const DAY_MS = 15 * SECOND;
const STALE_AFTER_MS = 7 * SECOND;
const RENEWAL_EVERY_MS = 3 * SECOND;
const RIVAL_EVERY_MS = 300;

/** A day in 15 seconds; only what the functions do not accept any shorter is longer. */
const ENVIRONMENT = {
  SPREAD_SECONDS: '5',
  WAVE_SECONDS: '1',
  SCHEDULE_LATENESS_SECONDS: '1',
  STALE_AFTER_SECONDS: String(STALE_AFTER_MS / SECOND),
  RENEWAL_INTERVAL_SECONDS: String(RENEWAL_EVERY_MS / SECOND),
  RENEWAL_SPREAD_SECONDS: '2',
  RENEWAL_MARGIN_SECONDS: '140',
};

/** For what is under way when the bad days are over: five deliveries of a message, and the time between them. */
const PATIENCE_MS = 120 * SECOND;

const GARBAGE = '{"domain":';

/** @param tell is given a line for each day. */
export async function live(options: Days, tell: (line: string) => void): Promise<Lived> {
  const began = Date.now();
  const before = openResources();
  const { lived, openSockets } = await inPlace(options, tell);
  const left = [...openResources()].filter(([what, count]) => count > (before.get(what) ?? 0));
  if (openSockets > 0) left.push(['sockets of the internet', openSockets]);
  const broken = left.map(([what, count]) => `left open: ${count} ${what}`);
  return { ...lived, broken: [...lived.broken, ...broken], seconds: (Date.now() - began) / SECOND };
}

/** Everything is released at its end, in the order opposite to that in which it was opened. */
async function inPlace(
  options: Days,
  tell: (line: string) => void,
): Promise<{ lived: Lived; openSockets: number }> {
  await using resources = new AsyncDisposableStack();
  const scope: Scope = { after: (release) => resources.defer(async () => void (await release())) };
  const internet = await startInternet();
  scope.after(internet.close);
  const bundles = await bundleHandlers(scope);
  const faulty = await startFaultyStack(
    scope,
    { internet, bundles },
    {
      functions: ['plan', 'dispatch', 'refresh', 'request'],
      environment: ENVIRONMENT,
      settings: { plan: { concurrency: 2 }, refresh: { concurrency: 3 } },
      refreshBatchSize: 20,
      refreshWindowSeconds: 0.5,
      visibilityTimeoutSeconds: 6,
    },
  );
  const lived = await liveThrough(options, { faulty, internet, tell });
  await resources.disposeAsync();
  return { lived, openSockets: internet.openSockets() };
}

/** Processes, sockets and pipes, this process's own output among them. */
function openResources(): Map<string, number> {
  return countBy(
    process.getActiveResourcesInfo().filter((each) => /Process|TCP|UDP|Pipe/.test(each)),
    (each) => each,
  );
}

interface Place {
  readonly faulty: FaultyStack;
  readonly internet: Internet;
  readonly tell: (line: string) => void;
}

async function liveThrough({ days, domains, seed }: Days, place: Place): Promise<Lived> {
  const { faulty, internet, tell } = place;
  const { stack, proxies, journal } = faulty;
  const neighbours = settleTown({ seed, domains }, Date.now());
  await Promise.all(neighbours.map((each) => each.seed && seedEntry(faulty.store, each.seed)));
  const firsts = await faulty.items();
  const visit = (day: number, calm: boolean) => {
    for (const { domain, site } of neighbours) internet.set(domain, site(day, calm));
  };

  const start = Date.now();
  const weather = createWeather({ seed, days, dayMs: DAY_MS }, () => Date.now() - start);
  const counts = { runs: 0, requests: 0, schedulesRepeated: 0, kills: new Map<string, number>() };
  const random = seeded(seed ^ 0x5eed);
  proxies.play(weather.programme);
  faulty.deliver((invoke) => {
    invoke();
    // Late or at once, and in the company of others: at least once, and in no order.
    if (random() >= 0.2) return;
    counts.schedulesRepeated += 1;
    setTimeout(invoke, random() * SECOND);
  });
  const underWay: Promise<unknown>[] = [];
  const rival = startRival(faulty, neighbours, seeded(seed ^ 0x41));
  for (let day = 0; day < days; day++) {
    const known = journal.writes.length;
    visit(day, false);
    await liveDay(day, { faulty, days, neighbours, weather, random, counts, underWay, start });
    const killed = [...counts.kills.values()].reduce((sum, each) => sum + each, 0);
    tell(
      `day ${day + 1}  ${journal.writes.length - known} writes; so far ${sum(proxies.injected)} faults, ` +
        `${killed} kills, ${sum(journal.sent)} tasks, ${(await faulty.deadLetters()).length} dead letters`,
    );
  }
  await rival.stop();

  proxies.play(() => undefined);
  faulty.deliver((invoke) => invoke());
  await Promise.all(underWay);
  await stack.drained(PATIENCE_MS);
  const letters = await faulty.deadLetters();
  const errors = [...faulty.errors];
  faulty.errors.length = 0;

  visit(days, true);
  const newest = Math.max(...[...(await faulty.items()).values()].map((item) => versionOf(item) ?? 0));
  await delay(Math.max(0, newest + STALE_AFTER_MS + 100 - Date.now()));
  const calm = Date.now();
  await stack.functions.plan.invokeAsync({ kind: 'daily', runId: 'calm' });
  await stack.drained(PATIENCE_MS);
  tell('a calm day');

  const calmLetters = (await faulty.deadLetters()).slice(letters.length);
  const broken = [
    ...brokenAtTheEnd({
      ...{ neighbours, firsts, lasts: await faulty.items(), writes: journal.writes, letters, calm },
      sites: new Map(neighbours.map(({ domain, site }) => [domain, site(days, true)])),
    }),
    ...errors.filter((error) => !isExplained(error)).map((error) => `unexplained: ${error}`),
    ...faulty.errors.map((error) => `on the calm day: ${error}`),
    ...calmLetters.map(({ queue, body }) => `on the calm day in ${queue}: ${body.slice(0, 200)}`),
  ];
  const repeated = [...journal.deliveries.values()].reduce((total, each) => total + each - 1, 0);
  return {
    neighbours,
    faults: proxies.injected,
    outages: weather.outages.flat().length,
    ...counts,
    tasks: sum(journal.sent),
    deliveries: { all: sum(journal.deliveries), repeated },
    writes: countBy(journal.writes, ({ kind }) => kind),
    rivalWrites: journal.writes.filter(({ process }) => process === 'rival').length,
    refused: journal.refused,
    letters,
    errors: countBy(errors, (error) => error.replace(/\d+/g, 'N')),
    broken,
    seconds: 0,
  };
}

interface Hours {
  readonly faulty: FaultyStack;
  readonly days: number;
  readonly neighbours: readonly Neighbour[];
  readonly weather: Weather;
  readonly random: () => number;
  readonly counts: { runs: number; requests: number; readonly kills: Map<string, number> };
  /** What has to end some time. */
  readonly underWay: Promise<unknown>[];
  /** When the first day began. */
  readonly start: number;
}

/** Resolves when the day is over, whatever is under way then. */
async function liveDay(day: number, hours: Hours): Promise<void> {
  const { faulty, days, neighbours, weather, random, counts, underWay, start } = hours;
  const { functions } = faulty.stack;
  const events: { at: number; does: () => Promise<unknown> }[] = [];
  const later = (at: number, does: () => Promise<unknown>) => events.push({ at, does });
  const run = (kind: 'daily' | 'renewal', runId: string) => () => {
    counts.runs += 1;
    return functions.plan.invokeAsync({ kind, runId });
  };
  const ask = (body: string) => () => {
    counts.requests += 1;
    return faulty.send('request-queue', [body]);
  };

  later(0, run('daily', `day-${day}`));
  if (random() < 0.6) later(random() * 4 * SECOND, run('daily', `rival-${day}`));
  for (let at = RENEWAL_EVERY_MS / 2; at < DAY_MS; at += RENEWAL_EVERY_MS) {
    later(at, run('renewal', `renewal-${day}-${at}`));
  }
  for (const { domain, seed, end, used, turn } of neighbours) {
    const at = random() * DAY_MS;
    // Who is not known is asked for once: what becomes of it must not hang on a second time.
    if (seed === undefined && turn % days === day) later(at, ask(JSON.stringify({ domain })));
    // Nor for who is to go: it would be discovered again.
    const known = seed !== undefined && end !== 'gone' && end !== 'fresh or gone';
    if (random() < 0.1 && known) later(at, ask(JSON.stringify({ domain })));
    if (used && day === 0) later(at / 5, ask(JSON.stringify({ used: [domain] })));
  }
  later(random() * DAY_MS, ask(GARBAGE));
  later(random() * DAY_MS, () => faulty.send('refresh-queue', [GARBAGE]));
  for (const at of weather.kills[day] ?? []) {
    const which = random();
    later(at, async () => {
      const all = (Object.keys(functions) as FunctionName[]).flatMap((name) =>
        functions[name].processes.map((process) => ({ name, process })),
      );
      const victim = all[Math.floor(which * all.length)];
      if (victim === undefined) return;
      counts.kills.set(victim.name, (counts.kills.get(victim.name) ?? 0) + 1);
      await functions[victim.name].kill(victim.process);
    });
  }

  const midnight = start + day * DAY_MS;
  for (const { at, does } of events.sort((a, b) => a.at - b.at)) {
    await delay(Math.max(0, midnight + at - Date.now()));
    underWay.push(does());
  }
  await delay(Math.max(0, midnight + DAY_MS - Date.now()));
}

/** Somebody else who refreshes the same table by the same rules, now one and now another. */
function startRival({ rival }: FaultyStack, neighbours: readonly Neighbour[], random: () => number) {
  const theirs = neighbours.filter(({ end, seed, mode }) => end === 'fresh' && seed && mode !== 'none');
  let stopping = false;
  const working = (async () => {
    while (!stopping) {
      await delay(RIVAL_EVERY_MS);
      const { domain } = theirs[Math.floor(random() * theirs.length)] as Neighbour;
      try {
        const { records } = await rival.read([domain]);
        const record = records.get(domain);
        if (record === undefined || record.policy.mode === 'none') continue;
        const now = Date.now();
        const lastUpdate = Math.max(now, record.lastUpdate + 1);
        const validEnd = Math.max(now + record.policy.maxAgeSeconds * SECOND, record.validEnd);
        await rival.write(domain, { kind: 'extend', lastUpdate, validEnd }, record.lastUpdate);
      } catch {
        // A fault has met it, as it meets others; what it had done by then, the journal knows.
      }
    }
  })();
  return {
    async stop(): Promise<void> {
      stopping = true;
      await working;
    },
  };
}

function sum(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((total, each) => total + each, 0);
}

function countBy<T, K>(all: readonly T[], keyOf: (each: T) => K): Map<K, number> {
  const counts = new Map<K, number>();
  for (const each of all) counts.set(keyOf(each), (counts.get(keyOf(each)) ?? 0) + 1);
  return counts;
}
