// The policy store in DynamoDB. This is the only file that names attributes; the README's table contract is what it
// writes. Every write is one conditional UpdateItem (or DeleteItem), so that repetition and races are harmless. Beside
// policies the table holds counters of discoveries, under keys that begin with "#", as no domain does.

import { setTimeout as delay } from 'node:timers/promises';
import {
  type AttributeValue,
  BatchGetItemCommand,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  type DynamoDBClient,
  ScanCommand,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb';
import { type Domain, parseDomain } from '../mtasts/domain.ts';
import { MAX_MAX_AGE_SECONDS, MODES, type Policy, VERSION } from '../mtasts/policy.ts';
import type {
  Change,
  PolicyRecord,
  PolicyStore,
  ReadResult,
  ScannedRecord,
  ScanPage,
  ScanRange,
  Unreadable,
  WriteResult,
} from './policy-store.ts';

type Item = Record<string, AttributeValue>;

/** A longer policy is not kept as text: an item's size is paid for at every write. */
const MAX_POLICY_TEXT_BYTES = 4_096;

/** BatchGetItem takes at most 100 keys. */
const KEYS_PER_READ = 100;

/** Attempts for keys that BatchGetItem leaves unprocessed (throttling), with pauses of 50, 100, 200, 400 ms. */
const READ_ATTEMPTS = 5;
const FIRST_PAUSE_MS = 50;

// All that a refresh needs. PolicyText, up to 4 KiB of every item, stays in the database.
const READ_ATTRIBUTES = [
  'Domain',
  'ValidEnd',
  'Backoff',
  'Mode',
  'MX',
  'MaxAgeSeconds',
  'RecordID',
  'LastUpdate',
  'LastFetch',
  'LastUse',
  'Inserted',
  'LastAttempt',
  'LastFailure',
  'FailingSince',
  'FailedRecordID',
];

const SCAN_ATTRIBUTES = [
  'Domain',
  'LastUpdate',
  'LastUse',
  'LastFetch',
  'Mode',
  'Backoff',
  'ValidEnd',
  'FailingSince',
  'LastFailure',
];

/** Of the keys of counters, and of no domain. */
const COUNTER_PREFIX = '#';

// An item without LastUpdate is no item. One whose LastUpdate is no number would never count as stale: it is asked for
// too, and reported. Comparisons with an attribute that is not there are false. Counters are asked for to know how many
// of those examined they were.
const SCAN_FILTER =
  'begins_with(#Domain, :counter) OR attribute_exists(#LastUpdate) AND (#LastUpdate < :updated OR #LastUse < :used OR #ValidEnd < :expiring ' +
  'OR #LastUpdate > :ahead OR #Backoff = :true OR attribute_exists(#FailingSince) ' +
  'OR NOT attribute_type(#LastUpdate, :number))';

/**
 * @param options.scanSegments how many parts of the table are scanned at once.
 * @param options.pause waits for so many milliseconds before a read is repeated.
 */
export function createDynamoStore(options: {
  client: DynamoDBClient;
  table: string;
  scanSegments?: number;
  pause?: (milliseconds: number) => Promise<unknown>;
}): PolicyStore {
  const { client, table, scanSegments = 1, pause = delay } = options;

  async function* scanSegment(range: ScanRange, segment: number): AsyncGenerator<ScanPage> {
    let start: Item | undefined;
    do {
      const page = await client.send(
        new ScanCommand({
          TableName: table,
          Segment: segment,
          TotalSegments: scanSegments,
          ExclusiveStartKey: start,
          FilterExpression: SCAN_FILTER,
          ProjectionExpression: SCAN_ATTRIBUTES.map((name) => `#${name}`).join(', '),
          ExpressionAttributeNames: Object.fromEntries(SCAN_ATTRIBUTES.map((name) => [`#${name}`, name])),
          ExpressionAttributeValues: {
            ':updated': bound(range.updatedBefore),
            ':used': bound(range.usedBefore),
            ':expiring': bound(range.expiringBefore),
            ':ahead': bound(range.updatedAfter),
            ':true': { BOOL: true },
            ':number': NUMBER_TYPE,
            ':counter': { S: COUNTER_PREFIX },
          },
        }),
      );
      const items = page.Items ?? [];
      const entries = items.filter((item) => !item.Domain?.S?.startsWith(COUNTER_PREFIX));
      const { decoded, unreadable } = decodeAll(entries, decodeScanned);
      const counters = items.length - entries.length;
      yield { records: decoded, examined: (page.ScannedCount ?? 0) - counters, unreadable };
      start = page.LastEvaluatedKey;
    } while (start !== undefined);
  }

  async function readChunk(domains: readonly Domain[]): Promise<{ items: Item[]; unread: Domain[] }> {
    const items: Item[] = [];
    let keys: Item[] = domains.map((domain) => ({ Domain: { S: domain } }));
    for (let attempt = 1; ; attempt++) {
      const answer = await client.send(
        new BatchGetItemCommand({
          RequestItems: {
            [table]: {
              Keys: keys,
              // Consistent: a task whose item has moved on must be recognized before any network traffic.
              ConsistentRead: true,
              ProjectionExpression: READ_ATTRIBUTES.map((name) => `#${name}`).join(', '),
              ExpressionAttributeNames: Object.fromEntries(READ_ATTRIBUTES.map((name) => [`#${name}`, name])),
            },
          },
        }),
      );
      items.push(...(answer.Responses?.[table] ?? []));
      keys = answer.UnprocessedKeys?.[table]?.Keys ?? [];
      if (keys.length === 0 || attempt === READ_ATTEMPTS) break;
      await pause(FIRST_PAUSE_MS * 2 ** (attempt - 1));
    }
    const left = new Set(keys.map((key) => key.Domain?.S));
    return { items, unread: domains.filter((domain) => left.has(domain)) };
  }

  async function conditionally(write: Promise<unknown>): Promise<WriteResult> {
    try {
      await write;
      return 'written';
    } catch (error) {
      if (error instanceof ConditionalCheckFailedException) return 'conflict';
      throw error;
    }
  }

  function update(domain: Domain, attributes: Attributes, condition: Condition): Promise<WriteResult> {
    const names = Object.keys(attributes);
    const set = names.filter((name) => attributes[name] !== undefined).map((name) => `#${name} = :${name}`);
    const remove = names.filter((name) => attributes[name] === undefined).map((name) => `#${name}`);
    const values = Object.entries(attributes).flatMap(([name, value]) =>
      value ? [[`:${name}`, value]] : [],
    );
    return conditionally(
      client.send(
        new UpdateItemCommand({
          TableName: table,
          Key: { Domain: { S: domain } },
          UpdateExpression: `SET ${set.join(', ')}${remove.length > 0 ? ` REMOVE ${remove.join(', ')}` : ''}`,
          ConditionExpression: condition.expression,
          ExpressionAttributeNames: {
            ...Object.fromEntries(names.map((name) => [`#${name}`, name])),
            ...condition.names,
          },
          ExpressionAttributeValues: { ...Object.fromEntries(values), ...condition.values },
        }),
      ),
    );
  }

  function remove(domain: Domain, condition: Condition): Promise<WriteResult> {
    return conditionally(
      client.send(
        new DeleteItemCommand({
          TableName: table,
          Key: { Domain: { S: domain } },
          ConditionExpression: condition.expression,
          ExpressionAttributeNames: condition.names,
          ExpressionAttributeValues: condition.values,
        }),
      ),
    );
  }

  return {
    scan: (range) => merge(Array.from({ length: scanSegments }, (_, segment) => scanSegment(range, segment))),

    async read(domains): Promise<ReadResult> {
      // A repeated key would be a ValidationException for the whole call.
      const distinct = [...new Set(domains)];
      const chunks: Domain[][] = [];
      for (let i = 0; i < distinct.length; i += KEYS_PER_READ)
        chunks.push(distinct.slice(i, i + KEYS_PER_READ));
      const answers = await Promise.all(chunks.map(readChunk));
      const items = answers.flatMap((answer) => answer.items).filter((item) => item.LastUpdate !== undefined);
      const { decoded, unreadable } = decodeAll(items, decodeRecord);
      return {
        records: new Map(decoded.map((record) => [record.domain, record])),
        unread: new Set(answers.flatMap((answer) => answer.unread)),
        unreadable,
      };
    },

    async write(domain, change, expected) {
      // Anything else "where there is no entry" would leave half an entry behind.
      if ((change.kind === 'insert') !== (expected === undefined)) {
        throw new TypeError('An insert, and nothing else, is for a domain without an entry');
      }
      const condition = expected === undefined ? IF_NO_ENTRY : ifLastUpdate(expected);
      if (change.kind === 'remove') return remove(domain, condition);
      return update(domain, encodeChange(change), condition);
    },

    prune(domain, usedBefore, expected) {
      const lock = ifLastUpdate(expected);
      return remove(domain, {
        // False where LastUse is missing: nothing is known of the entry's use.
        expression: `${lock.expression} AND #used < :used`,
        names: { ...lock.names, '#used': 'LastUse' },
        values: { ...lock.values, ':used': bound(usedBefore) },
      });
    },

    touch: (domain, now, before) =>
      update(
        domain,
        { LastUse: number(now) },
        {
          // A LastUse that is missing or no number is put right.
          expression:
            'attribute_exists(#updated) AND (NOT attribute_type(#LastUse, :number) OR #LastUse < :before)',
          names: { '#updated': 'LastUpdate' },
          values: { ':number': NUMBER_TYPE, ':before': bound(before) },
        },
      ),

    async admitDiscovery(within, limit, now) {
      const counted = client.send(
        new UpdateItemCommand({
          TableName: table,
          Key: { Domain: { S: counterKey(within, now) } },
          UpdateExpression: 'ADD #count :one SET #expires = :expires',
          ConditionExpression: 'attribute_not_exists(#count) OR #count < :limit',
          // Without LastUpdate it is no entry. `Expires` is what DynamoDB deletes it by, and of no policy's attributes:
          // only a refresh may end a policy.
          ExpressionAttributeNames: { '#count': 'Discoveries', '#expires': 'Expires' },
          ExpressionAttributeValues: {
            ':one': number(1),
            ':limit': number(limit),
            ':expires': number(Math.floor((now + COUNTER_LIFE_MS) / 1_000)),
          },
        }),
      );
      return (await conditionally(counted)) === 'written';
    },
  };
}

/** Longer than its day has, so that no clock is wrong enough to start a second count. */
const COUNTER_LIFE_MS = 2 * 86_400_000;

function counterKey(within: string | undefined, now: number): string {
  const day = new Date(now).toISOString().slice(0, 10);
  return `${COUNTER_PREFIX}discovered#${day}${within === undefined ? '' : `#${within}`}`;
}

interface Condition {
  readonly expression: string;
  readonly names: Record<string, string>;
  readonly values?: Record<string, AttributeValue>;
}

const IF_NO_ENTRY: Condition = {
  expression: 'attribute_not_exists(#lock)',
  names: { '#lock': 'LastUpdate' },
};

function ifLastUpdate(expected: number): Condition {
  return {
    expression: '#lock = :lock',
    names: { '#lock': 'LastUpdate' },
    values: { ':lock': number(expected) },
  };
}

/** What an update sets; undefined removes the attribute. */
type Attributes = Readonly<Record<string, AttributeValue | undefined>>;

const NOT_FAILING: Attributes = {
  LastAttempt: undefined,
  LastFailure: undefined,
  FailingSince: undefined,
  FailedRecordID: undefined,
};

function encodeChange(change: Exclude<Change, { kind: 'remove' }>): Attributes {
  switch (change.kind) {
    case 'extend':
      return { ValidEnd: number(change.validEnd), LastUpdate: number(change.lastUpdate), ...NOT_FAILING };
    case 'fail':
      return {
        LastAttempt: number(change.lastAttempt),
        LastFailure: { S: change.code },
        FailingSince: number(change.since),
        FailedRecordID: change.recordId === undefined ? undefined : { S: change.recordId },
      };
    case 'insert':
    case 'replace': {
      const { policy, policyText } = change;
      const keepText = policyText !== '' && Buffer.byteLength(policyText) <= MAX_POLICY_TEXT_BYTES;
      return {
        ValidEnd: number(change.validEnd),
        Backoff: { BOOL: change.backoff },
        Mode: { S: policy.mode },
        MX: { L: policy.mx.map((pattern) => ({ S: pattern })) },
        MaxAgeSeconds: number(policy.maxAgeSeconds),
        RecordID: change.recordId === undefined ? undefined : { S: change.recordId },
        Version: { S: VERSION },
        PolicyText: keepText ? { S: policyText } : undefined,
        LastUpdate: number(change.lastUpdate),
        LastFetch: change.lastFetch === undefined ? undefined : number(change.lastFetch),
        ...(change.kind === 'insert'
          ? { LastUse: number(change.lastUpdate), Inserted: number(change.lastUpdate) }
          : {}),
        ...NOT_FAILING,
      };
    }
  }
}

function number(value: number): AttributeValue {
  return { N: String(value) };
}

const NUMBER_TYPE: AttributeValue = { S: 'N' };

/** DynamoDB has no infinite numbers; its own end at 9.99e125 ("Supported data types and naming rules"). */
const LARGEST_BOUND = 1e125;

/** A number to compare with, and -Infinity is less than any. */
function bound(value: number): AttributeValue {
  return number(Math.min(Math.max(value, -LARGEST_BOUND), LARGEST_BOUND));
}

/** Says why an item cannot be used; never leaves this file. */
class UnreadableItem extends Error {}

/** An item as DynamoDB holds it, for whoever reads the table by itself. */
export function decodePolicyItem(
  item: Item,
): { readonly ok: true; readonly record: PolicyRecord } | { readonly ok: false; readonly reason: string } {
  try {
    return { ok: true, record: decodeRecord(item) };
  } catch (error) {
    if (error instanceof UnreadableItem) return { ok: false, reason: error.message };
    throw error;
  }
}

function decodeAll<T>(items: readonly Item[], decode: (item: Item) => T) {
  const decoded: T[] = [];
  const unreadable: Unreadable[] = [];
  for (const item of items) {
    try {
      decoded.push(decode(item));
    } catch (error) {
      if (!(error instanceof UnreadableItem)) throw error;
      unreadable.push({ key: item.Domain?.S ?? '', reason: error.message });
    }
  }
  return { decoded, unreadable };
}

function decodeScanned(item: Item): ScannedRecord {
  return {
    domain: decodeDomain(item),
    lastUpdate: decodeLastUpdate(item),
    lastUse: optionalTime(item, 'LastUse'),
    lastFetch: optionalTime(item, 'LastFetch'),
    mode: MODES.find((known) => known === item.Mode?.S),
    backoff: item.Backoff?.BOOL ?? false,
    validEnd: optionalTime(item, 'ValidEnd'),
    failingSince: optionalTime(item, 'FailingSince'),
    lastFailure: item.LastFailure?.S,
  };
}

// What says how a domain's mail is to be treated has to be right. The rest is bookkeeping, which is no reason to let a
// policy lapse: if it is not of its type, it counts as missing, and the next refresh writes it anew.
function decodeRecord(item: Item): PolicyRecord {
  const lastAttempt = optionalTime(item, 'LastAttempt');
  return {
    domain: decodeDomain(item),
    policy: decodePolicy(item),
    backoff: decodeBackoff(item),
    validEnd: optionalTime(item, 'ValidEnd') ?? unreadable(`ValidEnd is missing or ${NO_TIME}`),
    recordId: item.RecordID?.S,
    lastUpdate: decodeLastUpdate(item),
    lastFetch: optionalTime(item, 'LastFetch'),
    lastUse: optionalTime(item, 'LastUse'),
    inserted: optionalTime(item, 'Inserted'),
    failing:
      lastAttempt === undefined
        ? undefined
        : {
            lastAttempt,
            code: item.LastFailure?.S ?? 'unknown',
            since: optionalTime(item, 'FailingSince') ?? lastAttempt,
            recordId: item.FailedRecordID?.S,
          },
  };
}

function decodeDomain(item: Item): Domain {
  const parsed = parseDomain(item.Domain?.S ?? '');
  if (!parsed.ok) return unreadable(parsed.reason);
  // A key in another spelling would be refreshed under one name and stored under another.
  return parsed.domain === item.Domain?.S ? parsed.domain : unreadable(`the key should be ${parsed.domain}`);
}

function decodePolicy(item: Item): Policy {
  const mode =
    MODES.find((known) => known === item.Mode?.S) ?? unreadable(`Mode is not one of ${MODES.join(', ')}`);
  const list = item.MX === undefined ? [] : (item.MX.L ?? unreadable('MX is not a list'));
  const mx = list.map((pattern) => pattern.S ?? unreadable('MX holds something that is not a string'));
  // RFC 8461 §3.2: "required at least once, except when mode is "none"". To extend this would be to refuse all mail.
  if (mx.length === 0 && mode !== 'none') unreadable(`MX is missing or empty, and Mode is ${mode}`);
  const maxAgeSeconds = optionalNumber(item, 'MaxAgeSeconds') ?? Number.NaN;
  // A refresh must not shorten a policy.
  if (!(maxAgeSeconds >= 0)) unreadable('MaxAgeSeconds is missing or not a number from 0');
  return { mode, mx, maxAgeSeconds: Math.min(maxAgeSeconds, MAX_MAX_AGE_SECONDS) };
}

function decodeBackoff(item: Item): boolean {
  return item.Backoff === undefined ? false : (item.Backoff.BOOL ?? unreadable('Backoff is not a boolean'));
}

/** A whole number as DynamoDB writes one, and as other implementations keep what they were given. */
const WHOLE = /^\+?0*([0-9]+)(?:\.0*)?$/;

/**
 * The lock has to survive being a JavaScript number: a rounded one would make every write a conflict. DynamoDB's numbers
 * have 38 digits, so it is the text that says whether there is a fraction.
 */
function decodeLastUpdate(item: Item): number {
  const value = optionalTime(item, 'LastUpdate') ?? unreadable(`LastUpdate is missing or ${NO_TIME}`);
  const [, digits] = WHOLE.exec(item.LastUpdate?.N ?? '') ?? [];
  return digits === String(value) ? value : unreadable('LastUpdate is not a whole number of milliseconds');
}

/** The year 10000, far within what a Date can show and a JavaScript number holds to the millisecond. */
const END_OF_TIME = Date.UTC(10_000);

const NO_TIME = 'not a number of milliseconds since 1970';

/** What is out of range is a mistake, as a time in nanoseconds is. */
function optionalTime(item: Item, name: string): number | undefined {
  const value = optionalNumber(item, name);
  return value !== undefined && value >= 0 && value < END_OF_TIME ? value : undefined;
}

function optionalNumber(item: Item, name: string): number | undefined {
  const value = item[name]?.N;
  return value === undefined ? undefined : Number(value);
}

function unreadable(reason: string): never {
  throw new UnreadableItem(reason);
}

/** Yields from all sources as they answer, with at most one answer of each waiting. */
async function* merge<T>(sources: readonly AsyncGenerator<T>[]): AsyncGenerator<T> {
  const waiting = new Map(sources.map((source) => [source, next(source)]));
  try {
    while (waiting.size > 0) {
      const { source, result } = await Promise.race(waiting.values());
      waiting.delete(source);
      if (result.done) continue;
      // At the end of the line: the race goes to the first that is ready, and no source may starve the others.
      waiting.set(source, next(source));
      yield result.value;
    }
  } finally {
    await Promise.allSettled(sources.map((source) => source.return(undefined)));
  }
}

function next<T>(source: AsyncGenerator<T>) {
  const answer = source.next().then((result) => ({ source, result }));
  // It may fail while the consumer is busy or has stopped, when nobody is waiting for it: whoever races it is told.
  answer.catch(() => {});
  return answer;
}
