// Months of the program in virtual time. Real: `runPlan`, `decide`, the delays and the texts of waves. Simulated: the
// clock, EventBridge Scheduler, SQS, the table, and the internet (population.ts).

import { delaySeconds } from '../../functions/dispatch/enqueue.ts';
import { decodeWave, encodeWaves, type WaveTask } from '../../functions/dispatch/wave.ts';
import type { Domain } from '../../functions/mtasts/domain.ts';
import { LIMITS } from '../../functions/mtasts/limits.ts';
import { type Planner, runPlan } from '../../functions/plan/run.ts';
import { type Decision, decide } from '../../functions/refresh/decide.ts';
import type { RefreshTask } from '../../functions/refresh/task.ts';
import type { Telemetry } from '../../functions/runtime/telemetry.ts';
import type { PolicyRecord } from '../../functions/store/policy-store.ts';
import { seeded } from '../functions/dispatch/tasks.ts';
import { Measure, type Measured, type Origin } from './measure.ts';
import { MemoryStore } from './memory-store.ts';
import { fetchFrom, type Host, isDown, lookUp, START } from './population.ts';
import { DAY, HOUR, MINUTE, promiseOf, type Settings } from './settings.ts';

export interface Rule {
  readonly name: string;
  readonly renewals: boolean;
  readonly maxFetchAgeMs: number;
}

export const MOX: Rule = { name: 'mox', renewals: false, maxFetchAgeMs: 0 };
export const ours = ({ maxFetchAgeMs }: Settings): Rule => ({ name: 'ours', renewals: true, maxFetchAgeMs });

export interface Scenario {
  readonly hosts: readonly Host[];
  readonly days: number;
  readonly seed: number;
  readonly settings: Settings;
  /** The share of renewal runs that never happen; never two in a row. */
  readonly lostRenewals: number;
  /** Sees every entry that was written, and may have a relay ask for its domain at some time. */
  readonly watch?: (entry: PolicyRecord, now: number, ask: (at: number) => void) => void;
}

/** When runs are scheduled: each may be late. */
const FIRST_DAILY = START + 3 * HOUR;
export const FIRST_RENEWAL = START + 20 * MINUTE;

/** From a message's delay to its refresh: SQS, the batching window of 10 s, a cold start. */
const QUEUE_MS = 15_000;
/** A fetch takes a second or two, one in fifty much longer, and one that fails whatever its timeouts let it. */
const FETCH_MS = 2_000;
const SLOW_FETCH_MS = 30_000;
const FAILED_FETCH_MS = LIMITS.domainMs;

function fail(message: string, cause?: unknown): never {
  throw new Error(`simulation: ${message}`, { cause });
}

const silent = () => {};
const SILENT: Telemetry = {
  ...{ outcome: silent, count: silent, gauge: silent, info: silent, flush: silent },
  ...{ refused: fail, unreadable: fail, warn: fail, error: fail },
};

export async function simulate(rule: Rule, scenario: Scenario): Promise<Measured> {
  const { hosts, days, seed, settings, lostRenewals, watch } = scenario;
  const { times, renewalIntervalMs } = settings;
  const rules = { retryAfterMs: LIMITS.retryAfterMs, maxFetchAgeMs: rule.maxFetchAgeMs };
  const random = seeded(seed);
  const clock = new Clock();
  const end = START + days * DAY;
  const hostOf = new Map(hosts.map((host) => [host.domain, host]));
  const promised = promiseOf(settings, lostRenewals > 0);
  const measure = new Measure(hosts, {
    promised,
    steadyFrom: START + Math.min(30, days / 4) * DAY,
    shortestMs: Math.max(promised.renewalMs, 2 * HOUR),
  });
  const store = new MemoryStore((before, after) => {
    const { domain } = after ?? before ?? fail('nothing was written');
    measure.stored(domain, after, clock.now);
    if (after === undefined || after.lastUpdate === before?.lastUpdate) return;
    watch?.(after, clock.now, (at) => clock.at(at, () => look(domain)));
  });
  const schedules = { daily: 0, renewal: 0 };
  let pruned = 0;

  async function plan(kind: 'daily' | 'renewal'): Promise<void> {
    const planner: Planner = {
      ...{ store, telemetry: SILENT, now: () => clock.now, random, times },
      enqueue: async (tasks) => {
        for (const task of tasks) send(task, kind);
      },
      scheduleWaves: async (runId, waves) => {
        const inputs = waves.flatMap(({ releaseAt, tasks }) =>
          encodeWaves(runId, tasks).map((text) => ({ releaseAt, text })),
        );
        for (const { releaseAt, text } of inputs) late(releaseAt, () => dispatch(text, kind));
        return inputs.length;
      },
    };
    const summary = await runPlan({ kind, runId: `${kind}-${clock.now}` }, planner);
    schedules[kind] += summary.schedules;
    pruned += summary.pruned;
  }

  /** EventBridge Scheduler: within a minute. */
  function late(at: number, action: Action): void {
    clock.at(at + random() * times.latenessMs, action);
  }

  function dispatch(text: string, kind: Origin): void {
    const wave = decodeWave(JSON.parse(text));
    if (!wave.ok || wave.value.refused.length > 0) fail('a wave cannot be read');
    for (const task of wave.value.tasks) send(task, kind);
  }

  function send(task: WaveTask, origin: Origin): void {
    const delayMs = delaySeconds(task.due, clock.now) * 1_000;
    clock.at(clock.now + delayMs + random() * QUEUE_MS, () => receive(task, origin));
  }

  /** As `refreshMessages` does. */
  function receive({ domain, lastUpdate }: RefreshTask, origin: Origin): void {
    const record = store.get(domain);
    const reason = record === undefined ? 'gone' : record.lastUpdate > lastUpdate ? 'newer' : undefined;
    if (reason === undefined) refresh(domain, record, origin);
    else measure.outcome(origin, { kind: 'skipped', reason }, record, clock.now);
  }

  /** As `answerRequests` does when a relay asks for a domain. */
  function look(domain: Domain): void {
    const record = store.get(domain);
    const recent = record !== undefined && clock.now - record.lastUpdate < LIMITS.retryAfterMs;
    if (!recent || record.backoff) refresh(domain, record, 'request');
    else measure.outcome('request', { kind: 'skipped', reason: 'too-soon' }, record, clock.now);
  }

  /** As `refreshDomain` does, which cannot be used: its timers are real ones. Nothing is saved before the fetch ends. */
  function refresh(domain: Domain, record: PolicyRecord | undefined, origin: Origin): void {
    const host = hostOf.get(domain) ?? fail('nobody has this domain');
    const begun = clock.now;
    const lookup = lookUp(host, begun);
    measure.asked(record, 'lookups');
    const save = (decision: Decision) => {
      if (decision.action === 'fetch') fail('undecided after the fetch');
      const changed = decision.action === 'write';
      const conflict = changed && store.apply(domain, decision.change, record?.lastUpdate) === 'conflict';
      measure.outcome(origin, conflict ? { kind: 'conflict' } : decision.outcome, record, clock.now);
    };
    const first = decide({ record, lookup, fetched: undefined, now: begun, rules });
    if (first.action !== 'fetch') {
      save(first);
      return;
    }
    const longest = isDown(host, begun) ? FAILED_FETCH_MS : random() < 0.02 ? SLOW_FETCH_MS : FETCH_MS;
    clock.at(begun + random() * longest, () => {
      measure.asked(record, 'fetches');
      const fetched = fetchFrom(host, begun, clock.now);
      save(decide({ record, lookup, fetched, now: clock.now, rules }));
    });
  }

  /** A relay has mail: it reports the use once a day, and asks for a policy that it does not have. */
  function use(host: Host, i: number): void {
    const at = host.uses[i];
    if (at === undefined) return;
    clock.at(at, () => {
      store.use(host.domain, clock.now, clock.now - DAY);
      if ((store.get(host.domain)?.validEnd ?? 0) <= clock.now) look(host.domain);
      use(host, i + 1);
    });
  }

  for (const host of hosts) use(host, 0);
  for (let at = FIRST_DAILY; at < end; at += DAY) late(at, () => plan('daily'));
  for (let at = FIRST_RENEWAL, lost = false; at < end; at += renewalIntervalMs) {
    lost = !lost && random() < lostRenewals;
    if (rule.renewals && !lost) late(at, () => plan('renewal'));
  }
  await clock.run(end);
  return measure.finish(end, { rule: rule.name, pruned, schedules });
}

type Action = () => void | Promise<void>;

/** Virtual time: actions by the minute in which they are due; few enough to look for the next one. */
class Clock {
  now = START;
  readonly #minutes = new Map<number, { at: number; action: Action }[]>();

  /** What is due in the past is done now. */
  at(time: number, action: Action): void {
    const at = Math.max(Math.floor(time), this.now);
    const minute = Math.floor(at / MINUTE);
    const due = this.#minutes.get(minute);
    if (due === undefined) this.#minutes.set(minute, [{ at, action }]);
    else due.push({ at, action });
  }

  async run(until: number): Promise<void> {
    for (let minute = Math.floor(this.now / MINUTE); minute * MINUTE < until; minute++) {
      const due = this.#minutes.get(minute) ?? [];
      while (due.length > 0) {
        const next = due.reduce((earliest, event) => (event.at < earliest.at ? event : earliest));
        due.splice(due.indexOf(next), 1);
        this.now = next.at;
        const done = next.action();
        if (done !== undefined) await done;
      }
      this.#minutes.delete(minute);
    }
    this.now = until;
  }
}
