// What a relay knows of a domain's policy: memory first, then the shared table, then, while the table is down, what was
// last known. Nothing here knows Postfix or DANE; what follows from what is in judgement.ts.

import { isDeepStrictEqual } from 'node:util';
import type { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import type { SQSClient } from '@aws-sdk/client-sqs';
import { type Domain, recordName } from '../../functions/mtasts/domain.ts';
import type { Policy } from '../../functions/mtasts/policy.ts';
import { selectRecord } from '../../functions/mtasts/record.ts';
import { describeFault } from '../../functions/runtime/fault.ts';
import type { PolicyRecord } from '../../functions/store/policy-store.ts';
import { type BoundedMap, createBoundedMap } from './bounded-map.ts';
import { type Clock, isRecent, within } from './clock.ts';
import type { Dns, DnsAnswer } from './dns.ts';
import { type Entry, weighEntry } from './entry.ts';
import { describeEntry, describeRead, describeRecord, formatTime } from './explanation.ts';
import {
  counts,
  type Judgement,
  judge,
  type LastKnown,
  type Otherwise,
  type Settled,
  settle,
  type TxtRecord,
} from './judgement.ts';
import type { Observer } from './metrics.ts';
import { createRequests, type Requests } from './requests.ts';
import type { FirstContact, OnUnknown } from './settings.ts';
import { openSnapshot, type Snapshot } from './snapshot.ts';
import { createTable, READ_MS, type Read, type Table } from './table.ts';

/** What a relay may act on. */
export type Found =
  /** Valid now and no back-off, in any mode; its patterns were checked again. */
  | {
      readonly kind: 'policy';
      readonly policy: Policy;
      readonly recordId: string | undefined;
      /** Epoch milliseconds. */
      readonly validEnd: number;
      readonly source: 'table' | 'cache' | 'disk';
    }
  /**
   * There is none that counts: the answer is "not found". `unavailable`: it could not be told, and mail is to go out all
   * the same.
   */
  | {
      readonly kind: 'no-policy';
      readonly reason: 'not-implemented' | 'back-off' | 'requested' | 'unavailable';
    }
  /** It cannot be told: the mail waits. */
  | { readonly kind: 'unknown'; readonly reason: string };

export interface Policies {
  /**
   * Within two seconds, three on first contact. Rejects for nothing that a table, a queue, a disk or somebody's DNS does;
   * when the signal is aborted, it is unknown.
   */
  find(domain: Domain, signal: AbortSignal): Promise<Found>;
  /**
   * Everything that is known about the domain and why, in order, one line each. Asks the table and DNS, and neither
   * requests nor remembers anything.
   */
  explain(domain: Domain, signal: AbortSignal): Promise<readonly string[]>;
  /** Writes what a restart should not lose, or reports pending use if that cannot be written; leaves no timer behind. */
  close(): Promise<void>;
}

export interface PolicySettings {
  /**
   * What to answer for a domain that is not in the table yet, and has a record, or DNS does not say. `wait`: what the table
   * says within three seconds, else "not found"; `async`: "not found" at once; `defer`: with a record as `wait`, but
   * unknown until the table says something; without DNS it cannot be told.
   */
  readonly firstContact: FirstContact;
  /** What to answer where it cannot be told. */
  readonly onUnknown: OnUnknown;
  readonly cachedDomains: number;
}

/** How soon another policy is learned of, in the table or in DNS. */
const FRESH_MS = 300_000;

/** The table is read again so long after the functions were asked to look at a domain with a new record id. */
const CHANGED_MS = 15_000;

const HOUR_MS = 3_600_000;

/** Of memory, for each of the cached domains: more than most need, and a tenth of what a hostile one can take. */
const BYTES_PER_DOMAIN = 2_048;

/** Domains that are being asked about: some hundred bytes each, and three seconds at most. */
const MAX_FLIGHTS = 10_000;

const RECORD_MS = 1_500;

/** From the lookup's beginning to its end, the last read of the table included: within Postfix's three seconds. */
const FIRST_CONTACT_MS = 2_850;
const LAST_READ_MS = 250;
const FIRST_PAUSE_MS = 100;
const MAX_PAUSE_MS = 800;

/** Between two looks at whether there is something to write or to report. */
const TEND_MS = 60_000;

interface Held {
  readonly entry: Entry;
  /** When the table said so, epoch milliseconds; undefined: it is from disk. */
  readonly readAt: number | undefined;
  readonly freshMs: number;
}

interface Negative {
  readonly since: number;
  readonly milliseconds: number;
}

/** @param options.readOnly nothing on disk is changed: for a second process beside the one that serves. */
export async function openPolicies(options: {
  readonly dynamodb: Pick<DynamoDBClient, 'send'>;
  readonly tableName: string;
  readonly sqs: Pick<SQSClient, 'send'>;
  readonly queueUrl: string;
  readonly dns: Pick<Dns, 'ask'>;
  readonly stateDirectory: string;
  readonly readOnly: boolean;
  readonly settings: PolicySettings;
  readonly clock: Clock;
  readonly random: () => number;
  readonly observer: Observer;
}): Promise<Policies> {
  const { dynamodb, sqs, stateDirectory, ...rest } = options;
  const snapshot = openSnapshot({ ...rest, directory: stateDirectory });
  const requests = await createRequests({ ...rest, client: sqs, snapshot });
  return createPolicies({ ...rest, table: createTable({ ...rest, client: dynamodb }), requests, snapshot });
}

/** Answers at once; what is on disk is read meanwhile, and a lookup waits for it only where the table cannot say. */
export function createPolicies(options: {
  readonly table: Table;
  readonly requests: Requests;
  readonly dns: Pick<Dns, 'ask'>;
  readonly snapshot: Pick<Snapshot, 'loadPolicies' | 'savePolicies'>;
  readonly settings: PolicySettings;
  readonly clock: Clock;
  readonly observer: Pick<Observer, 'count' | 'gauge' | 'event'>;
}): Policies {
  const { table, requests, dns, snapshot, settings, clock, observer } = options;
  const held = createBoundedMap<Domain, Held>({
    entries: settings.cachedDomains,
    weight: settings.cachedDomains * BYTES_PER_DOMAIN,
    weigh: ({ entry }) => weighEntry(entry),
  });
  // Apart from the policies, so that a wave of mail to domains without MTA-STS does not push those out.
  const negatives = createBoundedMap<Domain, Negative>({ entries: settings.cachedDomains });
  /** Items that cannot be used, of which the log was told lately. */
  const complaints = createBoundedMap<Domain, number>({ entries: 1_000 });
  const flights = new Map<Domain, Promise<Found>>();
  /** Work that nobody waits for. */
  const background = new Set<Promise<void>>();
  const closing = new AbortController();
  let dirty = false;
  /** Until all is read that is on disk: domains of which the table has said something that is newer. */
  let newer: BoundedMap<Domain, true> | undefined = createBoundedMap({ entries: settings.cachedDomains });
  const loading = load().catch(unexpected);
  const tending = tend();

  async function load(): Promise<void> {
    const loaded = await snapshot.loadPolicies((entry) => {
      if (newer?.get(entry.domain)) return;
      held.set(entry.domain, { entry, readAt: undefined, freshMs: 0 });
    }, closing.signal);
    if (loaded === 'stopped') return;
    newer = undefined;
    dirty ||= loaded === 'set-aside';
    observer.gauge('policies_cached', held.size);
    observer.gauge('policies_on_disk', held.size);
  }

  function inBackground(work: Promise<unknown>): void {
    const done: Promise<void> = work.then(
      () => {
        background.delete(done);
      },
      (error) => {
        background.delete(done);
        unexpected(error);
      },
    );
    background.add(done);
  }

  /** A bug in what nobody waits for is no reason to end. */
  function unexpected(error: unknown): void {
    observer.event('error', 'unexpected error', { error: describeFault(error).stack });
  }

  async function tend(): Promise<void> {
    for (;;) {
      await clock.sleep(TEND_MS, closing.signal);
      if (closing.signal.aborted) return;
      try {
        await requests.tend(closing.signal);
        await save();
      } catch (error) {
        unexpected(error);
      }
    }
  }

  async function save(): Promise<void> {
    // What is on disk and not read yet would be lost.
    if (!dirty || newer !== undefined) return;
    dirty = false;
    // A back-off lives five minutes: a restart need not know it. A policy that has ended is kept: the clock may be wrong, and
    // only the table says that there is none any more.
    const entries = [...held.values()].map(({ entry }) => entry).filter((entry) => !entry.backoff);
    if (await snapshot.savePolicies(entries)) observer.gauge('policies_on_disk', entries.length);
    else dirty = true;
  }

  function fromMemory(domain: Domain): Found | undefined {
    const now = clock.now();
    const { entry, readAt, freshMs } = held.get(domain) ?? {};
    if (
      entry !== undefined &&
      readAt !== undefined &&
      isRecent(readAt, freshMs ?? 0, now) &&
      counts(entry, now)
    ) {
      return foundOf(entry, 'cache');
    }
    const negative = negatives.get(domain);
    return negative !== undefined && isRecent(negative.since, negative.milliseconds, now)
      ? NOT_IMPLEMENTED
      : undefined;
  }

  /** What stands in for the table while that is down. */
  function lastKnown(domain: Domain): LastKnown | undefined {
    const known = held.get(domain);
    return known && { entry: known.entry, source: known.readAt === undefined ? 'disk' : 'cache' };
  }

  function standIn({ entry, source }: LastKnown): Found {
    observer.count('cache', { result: source === 'disk' ? 'disk' : 'stale' });
    return foundOf(entry, source);
  }

  function remember(entry: Entry): void {
    const before = held.get(entry.domain)?.entry;
    held.set(entry.domain, { entry, readAt: clock.now(), freshMs: FRESH_MS });
    negatives.delete(entry.domain);
    dirty ||= !isDeepStrictEqual(before, entry);
    observer.gauge('policies_cached', held.size);
  }

  function forget(domain: Domain): void {
    if (held.delete(domain)) dirty = true;
    observer.gauge('policies_cached', held.size);
  }

  /**
   * Whether an item that has ended leaves what is known of the domain as it is: the item lives at least as long. That it has
   * ended is then the word of this host's clock alone, and a clock can be put right: what is known does not count until then.
   */
  function confirms(record: PolicyRecord, domain: Domain): boolean {
    const known = held.get(domain);
    return known !== undefined && !record.backoff && record.validEnd >= known.entry.validEnd;
  }

  /** Reads the table, whose word becomes the last known one. */
  async function read(domain: Domain, how: { consistent: boolean; milliseconds: number }): Promise<Read> {
    const result = await table.read(domain, how);
    if (result.kind === 'item' || result.kind === 'absent') newer?.set(domain, true);
    switch (result.kind) {
      case 'item':
        if (counts(result.entry, clock.now())) remember(result.entry);
        else if (!confirms(result.record, domain)) forget(domain);
        break;
      case 'absent':
        // The domain has taken MTA-STS down, or the fleet has not used it for long.
        forget(domain);
        break;
      case 'unreadable':
        complain(domain, result.reason);
        break;
      case 'failed':
        break;
    }
    return result;
  }

  function complain(domain: Domain, reason: string): void {
    const last = complaints.get(domain);
    if (last !== undefined && isRecent(last, HOUR_MS, clock.now())) return;
    complaints.set(domain, clock.now());
    observer.event('warn', 'an item of the table cannot be used', { domain, reason });
  }

  /** Never rejects. */
  async function lookUp(domain: Domain): Promise<TxtRecord> {
    const answer = await within(RECORD_MS, clock, (signal) =>
      dns.ask(recordName(domain), 'TXT', signal, domain),
    ).catch((error): DnsAnswer => ({ status: 'failed', reason: (error as Error).message }));
    if (answer.status === 'failed') return { status: 'unavailable', reason: answer.reason };
    const records = answer.status === 'found' ? answer.records : [];
    const selected = selectRecord(records.flatMap((record) => (record.type === 'TXT' ? [record.text] : [])));
    return selected.status === 'found'
      ? selected
      : { status: selected.status, reason: selected.failure.detail, ttlSeconds: answer.ttlSeconds };
  }

  /** A changed policy has a changed id: the functions are to look, and the table is read again before long. */
  async function compare(entry: Entry, looking: Promise<TxtRecord>): Promise<void> {
    const txt = await looking;
    const same = txt.status === 'found' && txt.id === entry.recordId;
    observer.count('record_lookups', {
      result: same ? 'same' : txt.status === 'found' ? 'changed' : txt.status,
    });
    if (txt.status !== 'found' || same) return;
    const asked = await requests.look(entry.domain);
    const now = held.get(entry.domain);
    if (asked.kind !== 'sent' || now?.entry !== entry || now.readAt === undefined) return;
    held.set(entry.domain, { ...now, freshMs: Math.min(now.freshMs, clock.now() - now.readAt + CHANGED_MS) });
  }

  /** For a domain that is not in memory, or not fresh there. */
  async function inquire(domain: Domain): Promise<Found> {
    const started = clock.now();
    const known = lastKnown(domain);
    // Nothing can be learned now, and nobody can be asked to look.
    if (known !== undefined && counts(known.entry, started) && table.refuses()) return standIn(known);

    const looking = lookUp(domain);
    const result = await read(domain, { consistent: false, milliseconds: READ_MS });
    if (result.kind === 'failed' || result.kind === 'unreadable') await loading;
    const settled = settle(result, lastKnown(domain), clock.now());
    switch (settled.kind) {
      case 'item':
        inBackground(compare(settled.entry, looking));
        return foundOf(settled.entry, 'table');
      case 'last-known':
      case 'unknown':
        inBackground(looking);
        // An item that breaks only the grammar of policies is overwritten when the functions look.
        if (result.kind === 'unreadable') inBackground(requests.look(domain));
        return settled.kind === 'unknown' ? unknown(settled.reason) : standIn(settled.known);
      case 'open': {
        const txt = await looking;
        observer.count('record_lookups', { result: txt.status });
        return conclude(domain, judge(settled.read, txt, settings.firstContact), started);
      }
    }
  }

  async function conclude(domain: Domain, judgement: Judgement, started: number): Promise<Found> {
    switch (judgement.kind) {
      case 'not-implemented':
        if (judgement.request) inBackground(requests.look(domain));
        if (judgement.rememberMs > 0) {
          negatives.set(domain, { since: clock.now(), milliseconds: judgement.rememberMs });
        }
        return NOT_IMPLEMENTED;
      case 'first-contact':
        return firstContact(domain, OTHERWISE[judgement.otherwise], started);
      case 'unknown':
        if (judgement.request) inBackground(requests.look(domain));
        return unknown(judgement.reason);
    }
  }

  function unknown(reason: string): Found {
    return settings.onUnknown === 'none' ? UNAVAILABLE : { kind: 'unknown', reason };
  }

  async function firstContact(domain: Domain, otherwise: Found, started: number): Promise<Found> {
    const asking = requests.look(domain);
    if (settings.firstContact === 'async') {
      inBackground(asking);
      return otherwise;
    }
    const asked = await asking;
    // Where nobody was asked, there is nothing to wait for; where it was long ago, no more.
    const entry = 'at' in asked && (await waitFor(domain, Math.min(started, asked.at) + FIRST_CONTACT_MS));
    observer.count('first_contacts', { result: entry ? (entry.backoff ? 'absent' : 'found') : 'timeout' });
    return entry ? foundOf(entry, 'table') : otherwise;
  }

  /** Polls the table until there is an item that counts. Consistently: the first read after the write shall see it. */
  async function waitFor(domain: Domain, until: number): Promise<Entry | undefined> {
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, MAX_PAUSE_MS)) {
      const left = until - LAST_READ_MS - clock.now();
      if (left <= 0 || closing.signal.aborted) return undefined;
      await clock.sleep(Math.min(pause, left), closing.signal);
      const milliseconds = Math.min(READ_MS, Math.max(LAST_READ_MS, until - clock.now()));
      const result = await read(domain, { consistent: true, milliseconds });
      if (result.kind === 'item' && counts(result.entry, clock.now())) return result.entry;
    }
  }

  /** The one inquiry of a domain that is under way, for everybody who asks meanwhile. */
  function join(domain: Domain): Promise<Found> {
    const running = flights.get(domain);
    if (running !== undefined) return running;
    if (closing.signal.aborted) return Promise.resolve(unknown('the relay is closing'));
    if (flights.size >= MAX_FLIGHTS) return Promise.resolve(unknown('too many domains are being looked up'));
    const flight = inquire(domain).finally(() => flights.delete(domain));
    flights.set(domain, flight);
    return flight;
  }

  return {
    async find(domain, signal) {
      const remembered = fromMemory(domain);
      observer.count('cache', remembered ? HIT : MISS);
      const found = remembered ?? (await unlessAborted(join(domain), signal, () => unknown('out of time')));
      // A back-off is in use too: it spares the fleet the next first contact.
      if (found.kind === 'policy' || found === BACK_OFF) requests.used(domain);
      return found;
    },

    async explain(domain, signal) {
      const asking = Promise.all([
        table.read(domain, { consistent: true, milliseconds: READ_MS }),
        lookUp(domain),
        loading,
      ]);
      const [result, txt] = await unlessAborted<readonly [Read, TxtRecord, ...unknown[]]>(
        asking,
        signal,
        () => OUT_OF_TIME,
      );
      const before = held.get(domain);
      const now = clock.now();
      const settled = settle(result, lastKnown(domain), now);
      return [
        describeHeld(before, now),
        ...describeRead(result, now),
        describeRecord(txt, settled.kind === 'item' ? settled.entry : undefined),
        `answer: ${explainSettled(settled, txt, settings)}`,
      ];
    },

    async close() {
      closing.abort();
      await loading;
      await Promise.allSettled(flights.values());
      while (background.size > 0) await Promise.all(background);
      await tending;
      await requests.close();
      await save();
    },
  };
}

const NOT_IMPLEMENTED: Found = { kind: 'no-policy', reason: 'not-implemented' };
const BACK_OFF: Found = { kind: 'no-policy', reason: 'back-off' };
const REQUESTED: Found = { kind: 'no-policy', reason: 'requested' };
const UNAVAILABLE: Found = { kind: 'no-policy', reason: 'unavailable' };
const DISCOVERING: Found = { kind: 'unknown', reason: 'its policy is being looked for' };

const OTHERWISE: Readonly<Record<Otherwise, Found>> = {
  'back-off': BACK_OFF,
  requested: REQUESTED,
  discovering: DISCOVERING,
  unavailable: UNAVAILABLE,
};

const HIT = { result: 'hit' };
const MISS = { result: 'miss' };

const OUT_OF_TIME: [Read, TxtRecord] = [
  { kind: 'failed', reason: 'out of time' },
  { status: 'unavailable', reason: 'out of time' },
];

function foundOf({ policy, backoff, recordId, validEnd }: Entry, source: 'table' | 'cache' | 'disk'): Found {
  return backoff ? BACK_OFF : { kind: 'policy', policy, recordId, validEnd, source };
}

/** The work's result, or another as soon as the signal is aborted; the work goes on for whoever else waits for it. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal, otherwise: () => T): Promise<T> {
  if (signal.aborted) {
    work.catch(() => {});
    return Promise.resolve(otherwise());
  }
  return new Promise((resolve, reject) => {
    const abort = () => resolve(otherwise());
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

function describeHeld(held: Held | undefined, now: number): string {
  if (held === undefined) return 'memory and disk: nothing';
  const { entry, readAt } = held;
  return readAt === undefined
    ? `disk: ${describeEntry(entry, now)}`
    : `memory: ${describeEntry(entry, now)}; read ${formatTime(readAt, now)}`;
}

/** What `find` would answer, and why. */
function explainSettled(settled: Settled, txt: TxtRecord, settings: PolicySettings): string {
  switch (settled.kind) {
    case 'item':
      return settled.entry.backoff ? 'no policy: the item is a back-off' : "the item's policy";
    case 'last-known':
      return `the last known policy, from ${settled.known.source === 'disk' ? 'disk' : 'memory'}, since the table cannot say`;
    case 'unknown':
      return explainUnknown(settled.reason, settings);
    case 'open':
      return explainJudgement(judge(settled.read, txt, settings.firstContact), settings);
  }
}

const OTHERWISE_WORDS: Readonly<Record<Otherwise, string>> = {
  'back-off': 'no policy: it could not be fetched lately',
  requested: 'no policy',
  discovering: 'unknown (RELAY_FIRST_CONTACT=defer)',
  unavailable: 'no policy, since whether it has MTA-STS cannot be told',
};

function explainJudgement(judgement: Judgement, { firstContact, ...settings }: PolicySettings): string {
  switch (judgement.kind) {
    case 'not-implemented':
      return `no policy: the domain does not implement MTA-STS${
        judgement.request ? '; its item has ended, and the functions would be asked to look' : ''
      }`;
    case 'first-contact': {
      const otherwise = OTHERWISE_WORDS[judgement.otherwise];
      return firstContact === 'async'
        ? `${otherwise}; the functions would be asked to look (RELAY_FIRST_CONTACT=async)`
        : `what the functions find within ${FIRST_CONTACT_MS} ms, when asked to look; else ${otherwise}`;
    }
    case 'unknown':
      return explainUnknown(judgement.reason, { firstContact, ...settings });
  }
}

function explainUnknown(reason: string, { onUnknown }: PolicySettings): string {
  return `${onUnknown === 'none' ? 'no policy (RELAY_ON_UNKNOWN=none)' : 'unknown'}: ${reason}`;
}
