// What the tests of the relay's policies are played on: a clock that goes only as fast as it is waited for, a table, a
// queue and a DNS that say what was planned and remember what they were asked.

import assert from 'node:assert/strict';
import { GetItemCommand } from '@aws-sdk/client-dynamodb';
import { SendMessageBatchCommand, SendMessageCommand } from '@aws-sdk/client-sqs';
import { type Domain, parseDomain } from '../../../functions/mtasts/domain.ts';
import type { Policy } from '../../../functions/mtasts/policy.ts';
import type { PolicyRecord } from '../../../functions/store/policy-store.ts';
import type { Clock } from '../../../infra/relay/clock.ts';
import type { Dns, DnsAnswer } from '../../../infra/relay/dns.ts';
import { type Entry, entryOf } from '../../../infra/relay/entry.ts';
import type { Observer } from '../../../infra/relay/metrics.ts';
import type { Use } from '../../../infra/relay/snapshot.ts';
import type { Read } from '../../../infra/relay/table.ts';

export const NOW = Date.UTC(2026, 10, 22, 12);
export const SECOND = 1_000;
export const MINUTE = 60_000;
export const HOUR = 3_600_000;
export const DAY = 86_400_000;

export function domain(text: string): Domain {
  const parsed = parseDomain(text);
  assert.ok(parsed.ok, text);
  return parsed.domain;
}

export const EXAMPLE = domain('example.com');

export interface VirtualClock extends Clock {
  /** Lets all that sleeps go on, until the work is done. */
  finish<T>(work: Promise<T>): Promise<T>;
  /** Lets so much time pass, and all that falls due in it happen. */
  pass(milliseconds: number): Promise<void>;
  /** Puts the time on or back; nobody who sleeps notices. */
  set(time: number): void;
  readonly sleepers: number;
}

/** More than anything here takes; a loop that never ends is a failure and no hang. */
const MAX_STEPS = 10_000;

export function virtualClock(start = NOW): VirtualClock {
  let time = start;
  const sleepers = new Set<{ readonly at: number; readonly wake: () => void }>();

  const next = () => [...sleepers].sort((a, b) => a.at - b.at)[0];
  const wake = (sleeper: { at: number; wake: () => void }) => {
    sleepers.delete(sleeper);
    time = Math.max(time, sleeper.at);
    sleeper.wake();
  };

  return {
    now: () => time,
    set: (to) => {
      time = to;
    },
    get sleepers() {
      return sleepers.size;
    },
    sleep: (milliseconds, signal) =>
      new Promise((resolve) => {
        if (signal.aborted) return resolve();
        const sleeper = { at: time + milliseconds, wake: () => resolve() };
        sleepers.add(sleeper);
        signal.addEventListener('abort', () => {
          sleepers.delete(sleeper);
          resolve();
        });
      }),
    async finish(work) {
      let done = false;
      const settled = work.finally(() => {
        done = true;
      });
      settled.catch(() => {});
      for (let steps = 0; ; steps++) {
        await idle();
        if (done) return settled;
        const first = next();
        if (first === undefined || steps >= MAX_STEPS) throw new Error('nothing would ever end this work');
        wake(first);
      }
    },
    async pass(milliseconds) {
      const end = time + milliseconds;
      for (;;) {
        await idle();
        const first = next();
        if (first === undefined || first.at > end) break;
        wake(first);
      }
      time = end;
    },
  };
}

/** Until what is ready to go on has gone on. */
export async function idle(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
}

export const POLICY: Policy = {
  mode: 'enforce',
  mx: ['mail.example.com', '*.example.net'],
  maxAgeSeconds: 604_800,
};

function record(changes: Partial<PolicyRecord> = {}): PolicyRecord {
  return {
    domain: EXAMPLE,
    policy: POLICY,
    backoff: false,
    validEnd: NOW + 7 * DAY,
    recordId: 'id1',
    lastUpdate: NOW - HOUR,
    lastFetch: NOW - HOUR,
    lastUse: NOW - DAY,
    inserted: NOW - 30 * DAY,
    failing: undefined,
    ...changes,
  };
}

/** The item as the table's reader gives it at the time. */
export function item(changes: Partial<PolicyRecord> = {}, now = NOW): Read {
  const checked = entryOf(record(changes), now);
  assert.ok(checked.ok);
  return { kind: 'item', entry: checked.entry, record: record(changes) };
}

export const ABSENT: Read = { kind: 'absent' };
export const UNREADABLE: Read = { kind: 'unreadable', reason: 'Mode is not one of them' };
export const DOWN: Read = { kind: 'failed', reason: 'TimeoutError: no answer' };

/** What a DNS says of a TXT record: an id, other texts, nothing for so many seconds, or an error. */
export const txt = (...texts: string[]): DnsAnswer => ({
  status: 'found',
  authentic: false,
  ttlSeconds: 300,
  records: texts.map((text) => ({ type: 'TXT', text })),
});
export const sts = (id: string): DnsAnswer => txt(`v=STSv1; id=${id};`);
export const gone = (ttlSeconds = 900): DnsAnswer => ({ status: 'absent', authentic: false, ttlSeconds });
export const BROKEN: DnsAnswer = { status: 'failed', reason: 'TXT of it: SERVFAIL' };

export const SILENT = 'silent';

/** @param answers what it says now. */
export function fakeDns(
  answers: (name: string) => DnsAnswer | typeof SILENT,
): Pick<Dns, 'ask'> & { asked: string[] } {
  const asked: string[] = [];
  return {
    asked,
    ask: (name, type, signal) => {
      asked.push(`${type} ${name}`);
      const answer = answers(name);
      if (answer !== SILENT) return Promise.resolve(answer);
      return new Promise((resolve) => {
        signal.addEventListener('abort', () => resolve({ status: 'failed', reason: 'out of time' }));
      });
    },
  };
}

export interface RecordingObserver extends Observer {
  /** Counters, as `name{label values}`. */
  readonly counts: Map<string, number>;
  readonly gauges: Map<string, number>;
  readonly events: string[];
  /** `table down`, `table up` and so on. */
  readonly outages: string[];
}

export function recordingObserver(): RecordingObserver {
  const counts = new Map<string, number>();
  const gauges = new Map<string, number>();
  const events: string[] = [];
  const outages: string[] = [];
  return {
    counts,
    gauges,
    events,
    outages,
    count: (name, labels = {}, by = 1) => {
      const key = `${name}{${Object.values(labels).join(',')}}`;
      counts.set(key, (counts.get(key) ?? 0) + by);
    },
    gauge: (name, value) => void gauges.set(name, value),
    event: (level, message, details = {}) =>
      void events.push(`${level} ${message} ${JSON.stringify(details)}`),
    outage: (what, error) => void outages.push(`${what} ${error === undefined ? 'up' : 'down'}`),
  };
}

/** A disk that is there as long as the test. */
export function memorySnapshot(entries: readonly Entry[] = []) {
  const disk = {
    entries,
    use: undefined as Use | undefined,
    saves: 0,
    writable: true,
    loadPolicies: async (keep: (entry: Entry) => void) => {
      for (const entry of disk.entries) keep(entry);
      return 'read' as const;
    },
    loadUse: () => Promise.resolve(disk.use),
    savePolicies: (saved: readonly Entry[]) => {
      if (!disk.writable) return Promise.resolve(false);
      disk.saves += 1;
      disk.entries = saved;
      return Promise.resolve(true);
    },
    saveUse: (use: Use) => {
      if (!disk.writable) return Promise.resolve(false);
      disk.use = use;
      return Promise.resolve(true);
    },
  };
  return disk;
}

/** Stands for an AWS client: what it is sent, and an answer to each. It rejects when it is aborted, as the SDK does. */
export function fakeClient<Answer>(answer: (input: never) => Promise<Answer> | Answer | undefined) {
  const inputs: unknown[] = [];
  const signals: AbortSignal[] = [];
  let open = 0;
  const send = async (command: unknown, options?: { abortSignal?: AbortSignal }) => {
    assert.ok(
      command instanceof GetItemCommand ||
        command instanceof SendMessageCommand ||
        command instanceof SendMessageBatchCommand,
      'a relay may do nothing else',
    );
    inputs.push(command.input);
    const signal = options?.abortSignal;
    assert.ok(signal, 'every call can be ended');
    signals.push(signal);
    open += 1;
    try {
      const given = answer(command.input as never);
      if (given !== undefined) return await given;
      return await new Promise<never>((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason));
      });
    } finally {
      open -= 1;
    }
  };
  return {
    inputs,
    get open() {
      return open;
    },
    client: { send } as never,
  };
}
