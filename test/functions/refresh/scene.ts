// What the tests of `refresh` and `request` are played on: a real table, a DNS and policy hosts that do what was
// planned and fail the test for anything else, a clock that stands still, and a telemetry that remembers.

import assert from 'node:assert/strict';
import { after, type TestContext } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import {
  type AttributeValue,
  DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
} from '@aws-sdk/client-dynamodb';
import type { SQSRecord } from 'aws-lambda';
import { type Domain, parseDomain } from '../../../functions/mtasts/domain.ts';
import { type FailureCode, failure } from '../../../functions/mtasts/failure.ts';
import type { Fetched, NotStarted } from '../../../functions/mtasts/fetch.ts';
import { LIMITS, type Limits } from '../../../functions/mtasts/limits.ts';
import type { Lookup } from '../../../functions/mtasts/lookup.ts';
import { formatPolicy, type Policy } from '../../../functions/mtasts/policy.ts';
import type { Outcome } from '../../../functions/refresh/outcome.ts';
import type { Refresher } from '../../../functions/refresh/refresh.ts';
import type { Telemetry } from '../../../functions/runtime/telemetry.ts';
import { createDynamoStore } from '../../../functions/store/dynamo.ts';
import type { PolicyStore } from '../../../functions/store/policy-store.ts';
import { createPolicyTable, startDynamoDb } from '../../../infra/local/dynamodb.ts';
import { localClientConfig } from '../../../infra/local/environment.ts';
import { type Seed, seed } from '../../../infra/local/seed.ts';
import { until } from '../../resources.ts';

export const NOW = Date.UTC(2026, 10, 22, 12);
export const MINUTE = 60_000;
export const DAY = 86_400_000;

export const OLD: Policy = { mode: 'enforce', mx: ['old.example'], maxAgeSeconds: 604_800 };
export const NEW: Policy = { mode: 'testing', mx: ['new.example'], maxAgeSeconds: 86_400 };

export const found = (id: string): Lookup => ({ status: 'found', id });
export const SAME_ID = found('id1');
export const NEW_ID = found('id2');
export const ABSENT: Lookup = { status: 'absent', failure: failure('record-absent', '') };
export const UNUSABLE: Lookup = { status: 'unusable', failure: failure('record-multiple', '') };
export const UNAVAILABLE: Lookup = { status: 'unavailable', failure: failure('dns-servfail', '') };
export const FETCHED: Fetched = { ok: true, policy: NEW, text: formatPolicy(NEW) };
export const NOT_FETCHED = notFetched('http-status');

export function notFetched(code: FailureCode): Fetched & { ok: false } {
  return { ok: false, failure: failure(code, '') };
}

export function domain(text: string): Domain {
  const parsed = parseDomain(text);
  assert.ok(parsed.ok);
  return parsed.domain;
}

/** As SQS delivers it; what nobody reads is left out. */
export function message(messageId: string, body: unknown, deliveries = 1): SQSRecord {
  const attributes = { ApproximateReceiveCount: String(deliveries) };
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return { messageId, attributes, body: text } as SQSRecord;
}

/** Never settles. */
export const forever = new Promise<never>(() => {});

type Item = Record<string, AttributeValue>;

interface Table {
  readonly client: DynamoDBClient;
  readonly store: PolicyStore;
  /** An entry with the policy OLD and id1, updated and fetched a day ago, unless told otherwise. */
  seed(name: string, differs?: Partial<Seed>): Promise<void>;
  put(item: Item): Promise<void>;
  /** The item as it is; undefined if there is none. */
  item(name: string): Promise<Item | undefined>;
}

/** A database for all tests of the file that calls it; a table of its own for each that asks for one. */
export async function startTables(): Promise<() => Promise<Table>> {
  const server = await startDynamoDb();
  after(() => server.close());
  const client = new DynamoDBClient(localClientConfig(server.endpoint));
  after(() => client.destroy());
  let tables = 0;
  return async () => {
    const table = `policies-${++tables}`;
    await createPolicyTable(client, table);
    const store = createDynamoStore({ client, table });
    return {
      client,
      store,
      seed: (name, differs) =>
        seed(store, {
          domain: name,
          policy: OLD,
          recordId: 'id1',
          inserted: NOW - 30 * DAY,
          lastUpdate: NOW - DAY,
          ...differs,
        }),
      put: async (Item) => void (await client.send(new PutItemCommand({ TableName: table, Item }))),
      item: async (name) =>
        (await client.send(new GetItemCommand({ TableName: table, Key: { Domain: { S: name } } }))).Item,
    };
  };
}

/** What is planned for a question: an answer, or how it comes about. */
export type Does<T> = T | ((signal: AbortSignal) => Promise<T>);

export interface Plan {
  readonly store: PolicyStore;
  readonly lookups?: Readonly<Record<string, Does<Lookup>>>;
  readonly fetches?: Readonly<Record<string, Does<Fetched | NotStarted>>>;
  readonly limits?: Partial<Limits>;
  readonly maxFetchAgeMs?: number;
  readonly now?: () => number;
}

/** A refresher whose every question has to be planned, by domain. */
export function planned(t: TestContext, plan: Plan) {
  const asked = { lookups: [] as string[], fetches: [] as string[] };
  // Thrown as well, but that alone could pass for the fault that the test is about.
  const unplanned: string[] = [];
  t.after(() => assert.deepEqual(unplanned, [], 'questions that were not planned'));

  function answer<T>(kind: keyof typeof asked, answers: Readonly<Record<string, Does<T>>> = {}) {
    return async (name: Domain, signal: AbortSignal): Promise<T> => {
      asked[kind].push(name);
      const does = answers[name];
      if (does === undefined) {
        unplanned.push(`${kind} ${name}`);
        throw new Error(`not planned: ${kind} ${name}`);
      }
      return does instanceof Function ? does(signal) : does;
    };
  }
  const refresher: Refresher = {
    store: plan.store,
    lookup: answer('lookups', plan.lookups),
    fetch: answer('fetches', plan.fetches),
    limits: { ...LIMITS, ...plan.limits },
    maxFetchAgeMs: plan.maxFetchAgeMs ?? 7 * DAY,
    now: plan.now ?? (() => NOW),
  };
  return { refresher, asked };
}

/** What lookups and fetches do that are cut short: they end with this at once. */
export function cutShort<T>(value: T): (signal: AbortSignal) => Promise<T> {
  return (signal) =>
    new Promise((resolve) => {
      if (signal.aborted) resolve(value);
      signal.addEventListener('abort', () => resolve(value), { once: true });
    });
}

export const LOOKUP_CUT_SHORT: Lookup = { status: 'unavailable', failure: failure('deadline-exceeded', '') };

interface Said {
  readonly message: string;
  readonly details: Readonly<Record<string, string | number | undefined>>;
}

export interface Told {
  readonly outcomes: { domain: Domain; outcome: Outcome }[];
  readonly refused: { messageId: string; reason: string }[];
  readonly unreadable: { key: string; reason: string }[];
  readonly infos: Said[];
  readonly warnings: Said[];
  readonly errors: { error: unknown; domain: string | number | undefined }[];
  flushes: number;
  /** The outcomes as `<domain> <kind>`, and the reason or the failure's code if there is one; sorted. */
  summary(): string[];
}

export function recordingTelemetry(): { telemetry: Telemetry; told: Told } {
  const told: Told = {
    outcomes: [],
    refused: [],
    unreadable: [],
    infos: [],
    warnings: [],
    errors: [],
    flushes: 0,
    summary: () =>
      told.outcomes
        .map(({ domain: name, outcome }) => {
          const why =
            'reason' in outcome ? outcome.reason : 'failure' in outcome ? outcome.failure.code : undefined;
          return [name, outcome.kind, ...(why === undefined ? [] : [why])].join(' ');
        })
        .sort(),
  };
  const telemetry: Telemetry = {
    outcome: (name, outcome) => told.outcomes.push({ domain: name, outcome }),
    refused: (messageId, reason) => told.refused.push({ messageId, reason }),
    unreadable: (key, reason) => told.unreadable.push({ key, reason }),
    count: (counter) => assert.fail(`no count of ${counter} was planned`),
    gauge: (gauge) => assert.fail(`no gauge ${gauge} was planned`),
    info: (text, details) => told.infos.push({ message: text, details }),
    warn: (text, details) => told.warnings.push({ message: text, details }),
    error: (_, error, details) => told.errors.push({ error, domain: details?.domain }),
    flush: () => {
      told.flushes++;
    },
  };
  return { telemetry, told };
}

/**
 * Has `invoke` answer a batch with 10.2 s left. Its clock stands still until `finished`, however long that takes, and
 * then goes on to the moment in which ten seconds are left. Nothing is answered before that.
 */
export async function answeredAtTheEnd<T>(
  t: TestContext,
  invoke: (context: { getRemainingTimeInMillis: () => number }) => Promise<T>,
  finished: () => boolean | Promise<boolean>,
): Promise<T> {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let answered = false;
  const answer = invoke({ getRemainingTimeInMillis: () => 10_200 }).finally(() => {
    answered = true;
  });
  await until(finished, 'what does not hang has finished');
  t.mock.timers.tick(199);
  await turn();
  assert.equal(answered, false, 'answered before the time was over');
  t.mock.timers.tick(1);
  const response = await answer;
  t.mock.timers.reset();
  return response;
}

export const neverAborted = new AbortController().signal;

/** Where no limit of discoveries is what the test is about. */
export const admitsAll = async () => true;
