// What a relay asks of the functions: to look at a domain now, and to note which policies were in use. Both are messages
// on the request queue; that they cannot be sent is never a reason to hold an answer to Postfix back.

import { SendMessageCommand, type SQSClient } from '@aws-sdk/client-sqs';
import type { Domain } from '../../functions/mtasts/domain.ts';
import { registrableDomain } from '../../functions/request/discovery.ts';
import { createBoundedMap } from './bounded-map.ts';
import { createCircuit } from './circuit.ts';
import { type Clock, isRecent } from './clock.ts';
import type { Observer } from './metrics.ts';
import type { Snapshot } from './snapshot.ts';

export type Asked =
  /** `at`: when, epoch milliseconds. */
  | { readonly kind: 'sent' | 'recently'; readonly at: number }
  /** Too many domains at once, or the queue is down: the next lookup asks again. */
  | { readonly kind: 'limited' | 'failed' };

export interface Requests {
  /** Asks for the domain, at most once in five minutes. Never rejects. */
  look(domain: Domain): Promise<Asked>;
  /** Notes that the policy was in use, for the report of the day. */
  used(domain: Domain): void;
  /** Reports use if it is time, and puts on disk what is not reported. To be called every minute or so, and to end soon. */
  tend(signal: AbortSignal): Promise<void>;
  /** Puts on disk what is not reported; where that is not possible, reports it, for a few seconds at most. */
  close(): Promise<void>;
}

/** The functions refresh a domain no more often. */
const LOOK_AGAIN_MS = 300_000;

/** Domains asked for lately. Should there be more, some are asked for again sooner, which the functions ignore. */
const MAX_ASKED = 50_000;

/**
 * A wave of mail to a stranger's many domains must not fill the queue that the fleet shares. A domain that has
 * neither an item nor, as its DNS says, a record is never asked for.
 */
const LOOKS: Rate = { perSecond: 10, atOnce: 100 };

/**
 * Of these, for all names below one registrable domain: a stranger's wildcard must not use up the looks of everybody, whose
 * mail would then go out without the policies that nobody looked for. The functions discover 100 of them a day by default.
 */
const LOOKS_OF_ONE_OWNER: Rate = { perSecond: 1, atOnce: 20 };

/** Registrable domains asked for lately. Who is forgotten, in a flood of others, starts anew. */
const MAX_OWNERS = 10_000;

const LOOK_MS = 1_000;

const DAY_MS = 86_400_000;

/** More than domains with MTA-STS that there are. */
const MAX_USED = 100_000;

/** The contract of the request queue. */
const USED_PER_MESSAGE = 1_000;

/** A thousand of the longest names: 250 KB. */
const REPORT_MS = 5_000;

/** A service manager is not patient. */
const CLOSE_MS = 3_000;

export async function createRequests(options: {
  readonly client: Pick<SQSClient, 'send'>;
  readonly queueUrl: string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly observer: Pick<Observer, 'count' | 'event' | 'outage'>;
  readonly snapshot: Pick<Snapshot, 'loadUse' | 'saveUse'>;
}): Promise<Requests> {
  const { client, queueUrl, clock, random, observer, snapshot } = options;
  const circuit = createCircuit('requests', { ...options, ordinaryMs: LOOK_MS });
  const asked = createBoundedMap<Domain, number>({ entries: MAX_ASKED });
  const bucket = createBucket(clock, LOOKS);
  const owners = createBoundedMap<string, Bucket>({ entries: MAX_OWNERS });

  const saved = await snapshot.loadUse();
  const used = new Set<Domain>();
  // A report from the future was made before the clock was put back.
  let reportedAt = Math.min(saved?.reportedAt ?? clock.now(), clock.now());
  // A fleet that is started at once must not report at once, every day.
  const timeOfDay = saved?.timeOfDay ?? Math.floor(random() * DAY_MS);
  let dirty = saved === undefined;
  let full = false;
  for (const domain of saved?.domains ?? []) note(domain);

  async function send(body: unknown, milliseconds: number): Promise<boolean> {
    const answer = await circuit.attempt(milliseconds, (abortSignal) =>
      client.send(new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: JSON.stringify(body) }), {
        abortSignal,
      }),
    );
    return answer.ok;
  }

  function ownerOf(domain: Domain): Bucket {
    const key = registrableDomain(domain);
    const known = owners.get(key);
    if (known !== undefined) return known;
    const owner = createBucket(clock, LOOKS_OF_ONE_OWNER);
    owners.set(key, owner);
    return owner;
  }

  function note(domain: Domain): boolean {
    if (used.has(domain)) return false;
    if (used.size >= MAX_USED) {
      if (!full) observer.event('warn', 'more policies in use than a report can hold', { domains: MAX_USED });
      full = true;
      return false;
    }
    used.add(domain);
    return true;
  }

  /**
   * @param patience milliseconds for the next message; 0 ends the report.
   * @returns whether all that was noted before is reported.
   */
  async function report(patience: () => number): Promise<boolean> {
    const domains = [...used];
    for (let i = 0; i < domains.length; i += USED_PER_MESSAGE) {
      const some = domains.slice(i, i + USED_PER_MESSAGE);
      const milliseconds = patience();
      if (milliseconds <= 0) return false;
      // Before the message is sent: a use while it is on its way belongs to the next report.
      for (const domain of some) used.delete(domain);
      dirty = true;
      const sent = await send({ used: some }, milliseconds);
      observer.count('requests', { kind: 'used', result: sent ? 'sent' : 'failed' }, some.length);
      if (sent) continue;
      for (const domain of some) note(domain);
      return false;
    }
    full = false;
    return true;
  }

  /** @returns whether a restart would lose nothing. */
  async function save(): Promise<boolean> {
    if (!dirty) return true;
    dirty = false;
    if (await snapshot.saveUse({ domains: new Set(used), reportedAt, timeOfDay })) return true;
    dirty = true;
    return false;
  }

  return {
    async look(domain) {
      const before = asked.get(domain);
      if (before !== undefined && isRecent(before, LOOK_AGAIN_MS, clock.now()))
        return { kind: 'recently', at: before };
      if (circuit.refuses()) return { kind: 'failed' };
      // The narrow limit first: what it refuses uses up nothing of what is for everybody.
      if (!ownerOf(domain).take() || !bucket.take()) {
        observer.count('requests', { kind: 'look', result: 'limited' });
        return { kind: 'limited' };
      }
      const at = clock.now();
      // Before it is sent, so that another lookup does not send it too.
      asked.set(domain, at);
      const sent = await send({ domain }, LOOK_MS);
      observer.count('requests', { kind: 'look', result: sent ? 'sent' : 'failed' });
      if (sent) return { kind: 'sent', at };
      asked.delete(domain);
      return { kind: 'failed' };
    },

    used(domain) {
      if (note(domain)) dirty = true;
    },

    async tend(signal) {
      const now = clock.now();
      // The clock may have been put back since.
      reportedAt = Math.min(reportedAt, now);
      const due = now >= nextReport(reportedAt, timeOfDay);
      if (due && (await report(() => (signal.aborted ? 0 : REPORT_MS)))) {
        reportedAt = now;
        dirty = true;
      }
      await save();
    },

    async close() {
      if (await save()) return;
      const end = clock.now() + CLOSE_MS;
      await report(() => Math.min(REPORT_MS, end - clock.now()));
    },
  };
}

/** The first time of day `timeOfDay` after the last report. */
function nextReport(reportedAt: number, timeOfDay: number): number {
  return (Math.floor((reportedAt - timeOfDay) / DAY_MS) + 1) * DAY_MS + timeOfDay;
}

interface Rate {
  readonly perSecond: number;
  readonly atOnce: number;
}

interface Bucket {
  /** Whether one more may go. */
  take(): boolean;
}

/** So many at once, and then so many a second. */
function createBucket(clock: Clock, { perSecond, atOnce }: Rate): Bucket {
  let tokens = atOnce;
  let filledAt = clock.now();
  return {
    take() {
      const now = clock.now();
      // A clock that was put back fills nothing, and takes nothing.
      const elapsed = Math.max(0, now - filledAt);
      filledAt = now;
      tokens = Math.min(atOnce, tokens + (elapsed / 1_000) * perSecond);
      if (tokens < 1) return false;
      tokens -= 1;
      return true;
    },
  };
}
