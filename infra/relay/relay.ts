// The relay, put together from its parts: what `serve` runs, and what `explain` and `check` look through. Only this file
// knows all of them. It creates no AWS client and reads no environment; those come from the command line in main.ts.

import type { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import type { SQSClient } from '@aws-sdk/client-sqs';
import type { Clock } from './clock.ts';
import { checkValidator, createDane, type Dane } from './dane.ts';
import { createDns, type Dns } from './dns.ts';
import { explain } from './explain.ts';
import type { Metrics } from './metrics.ts';
import { type Overrides, openOverrides } from './overrides.ts';
import { openPolicies, type Policies } from './policies.ts';
import { createResolve, createResponder, RESOLVE_LIMITS, type Resolve } from './resolve.ts';
import { SERVER_LIMITS, startServer } from './server.ts';
import type { Settings } from './settings.ts';
import { MAX_REQUEST_BYTES } from './socketmap.ts';
import { startStatusServer } from './status.ts';
import { createTable, type Table } from './table.ts';

/** What the relay gets from the process that it runs in. */
export interface Surroundings {
  readonly settings: Settings;
  readonly dynamodb: Pick<DynamoDBClient, 'send'>;
  readonly sqs: Pick<SQSClient, 'send'>;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly random: () => number;
}

/** DANE is on, and nobody validates. */
export class ValidatorError extends Error {
  readonly code = 'validator';
}

/** Milliseconds for lookups that are under way when the relay is stopped; each has less than that. */
const GRACE_MS = 4_000;

export interface Relay {
  /** Where Postfix asks, in the order of the settings. */
  readonly addresses: readonly string[];
  /** `http://…`, or undefined if there are to be no metrics. */
  readonly status: string | undefined;
  /** Reads the override map again. */
  reload(): Promise<void>;
  /** Finishes what is under way, and writes down what should survive. */
  close(): Promise<void>;
}

/** Rejects with a coded error that says what to mend. AWS out of reach is no reason: last known policies are on disk. */
export async function startRelay(surroundings: Surroundings): Promise<Relay> {
  const { settings, metrics } = surroundings;
  const closers: (() => unknown)[] = [];
  let ready = false;
  const close = async () => {
    ready = false;
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  try {
    const overrides = await openOverrides(settings.overrides, { observer: metrics });
    closers.push(() => overrides.close());
    // Already before it can say that it is ready.
    const status =
      settings.metrics &&
      (await startStatusServer({ ...settings.metrics, metrics: metrics.text, ready: () => ready }));
    closers.push(() => status?.close());

    const dns = openDns(surroundings);
    closers.push(() => dns.close());
    if (settings.dane) await requireValidator(dns);
    const policies = await openPoliciesOf(surroundings, dns, { readOnly: false });
    closers.push(() => policies.close());

    const dane = settings.dane ? openDane(surroundings, dns) : undefined;
    const resolve = resolveWith(surroundings, { overrides, dane, policies });
    const { respond, refuse } = createResponder({ resolve, metrics });
    const server = await startServer({
      listeners: settings.listeners,
      respond,
      refuse,
      limits: { ...SERVER_LIMITS, requestBytes: MAX_REQUEST_BYTES, connections: settings.maxConnections },
      observer: metrics,
    });
    closers.push(() => server.close(GRACE_MS));
    ready = true;
    return {
      addresses: server.addresses,
      status: status?.address,
      reload: () => overrides.reload({ always: true }),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Why Postfix is told what it is told about the key, as lines; an unknown domain is requested, as by a lookup. */
export async function explainKey(key: string, surroundings: Surroundings): Promise<string[]> {
  const { settings, metrics } = surroundings;
  const overrides = await openOverrides(settings.overrides, { observer: metrics });
  const dns = openDns(surroundings);
  const policies = await openPoliciesOf(surroundings, dns, { readOnly: true });
  try {
    const dane = settings.dane ? openDane(surroundings, dns) : undefined;
    return await explain(key, {
      overrides,
      dane,
      policies,
      resolve: resolveWith(surroundings, { overrides, dane, policies }),
      signal: AbortSignal.timeout(EXPLAIN_MS),
    });
  } finally {
    await policies.close();
    dns.close();
    overrides.close();
  }
}

/** Longer than an answer to Postfix may take: an operator waits for the reason. */
const EXPLAIN_MS = 15_000;

export interface Finding {
  readonly ok: boolean;
  readonly line: string;
}

/** Whether everything is there that lookups need: one finding for each. */
export async function checkSurroundings(surroundings: Surroundings): Promise<Finding[]> {
  const { settings, metrics } = surroundings;
  const findings: Finding[] = [];
  const say = (ok: boolean, line: string) => findings.push({ ok, line });

  if (settings.overrides !== undefined) {
    try {
      (await openOverrides(settings.overrides, { observer: metrics })).close();
      say(true, `the override map ${settings.overrides} can be read`);
    } catch (error) {
      say(false, (error as Error).message);
    }
  }
  const dns = openDns(surroundings);
  try {
    if (settings.dane) {
      await requireValidator(dns);
      say(true, 'the DNS servers validate DNSSEC');
    }
  } catch (error) {
    say(false, (error as Error).message);
  } finally {
    dns.close();
  }
  const read = await openTable(surroundings).read(PROBE, { consistent: false, milliseconds: CHECK_MS });
  const readable = read.kind !== 'failed';
  say(
    readable,
    `the table ${settings.table} can${readable ? '' : 'not'} be read${readable ? '' : `: ${read.reason}`}`,
  );
  return findings;
}

/** RFC 2606 §3: whether there is an item for it does not matter. */
const PROBE = 'example.com' as Parameters<Policies['find']>[0];

/** Credentials may have to be fetched first. */
const CHECK_MS = 10_000;

export function openTable({ settings, dynamodb, clock, metrics }: Surroundings): Table {
  return createTable({ client: dynamodb, tableName: settings.table, clock, observer: metrics });
}

function openDns({ settings, metrics }: Surroundings): Dns {
  return createDns({ servers: settings.dnsServers, observer: metrics });
}

function openDane({ metrics, clock }: Surroundings, dns: Dns): Dane {
  return createDane({ dns, observer: metrics, now: clock.now });
}

async function requireValidator(dns: Dns): Promise<void> {
  const validator = await checkValidator(dns);
  if (validator.ok) return;
  throw new ValidatorError(
    `${validator.reason} RELAY_DNS_SERVERS should be a validating resolver on this machine; or, if nobody you ` +
      'write to has DANE, set RELAY_DANE=off.',
  );
}

/** @param readOnly for a process beside the daemon: it reads what that has left on disk, and changes nothing there. */
function openPoliciesOf(surroundings: Surroundings, dns: Dns, { readOnly }: { readOnly: boolean }) {
  const { settings, metrics: observer, ...rest } = surroundings;
  const { table: tableName, requestQueueUrl: queueUrl, stateDirectory } = settings;
  return openPolicies({ ...rest, observer, tableName, queueUrl, stateDirectory, settings, dns, readOnly });
}

function resolveWith(
  { settings, metrics }: Surroundings,
  { overrides, dane, policies }: { overrides: Overrides; dane: Dane | undefined; policies: Policies },
): Resolve {
  const { daneMs, answerMs, firstContactMs } = RESOLVE_LIMITS;
  return createResolve({
    overrides,
    dane,
    policies,
    limits: { daneMs, answerMs: settings.firstContact === 'async' ? answerMs : firstContactMs },
    observer: metrics,
  });
}
