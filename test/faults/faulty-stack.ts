// The embedded stack with proxies between its parts, and what there is to be known of it from outside.

import { type AttributeValue, DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb';
import { SendMessageBatchCommand } from '@aws-sdk/client-sqs';
import { CLIENT_OPTIONS } from '../../functions/runtime/clients.ts';
import { createDynamoStore } from '../../functions/store/dynamo.ts';
import type { PolicyStore } from '../../functions/store/policy-store.ts';
import { localClientConfig } from '../../infra/local/environment.ts';
import type { Internet } from '../../infra/local/internet/internet.ts';
import { createObserver, type LogEntry } from '../../infra/local/observer.ts';
import { type FunctionName, type Stack, type StackOptions, startStack } from '../../infra/local/stack.ts';
import type { Scope } from '../resources.ts';
import type { Bundles } from './bundles.ts';
import { createJournal, type Item, type Journal } from './journal.ts';
import { createProxies, type Proxies } from './proxy.ts';

export const DEAD_LETTER_QUEUES = ['refresh-dlq', 'request-dlq', 'failures'] as const;

export interface DeadLetter {
  readonly queue: (typeof DEAD_LETTER_QUEUES)[number];
  readonly body: string;
}

/** Carries out what a schedule does, as often and as late as it likes. */
export type Deliver = (invoke: () => void) => void;

export interface FaultyStack {
  readonly stack: Stack;
  readonly proxies: Proxies;
  readonly journal: Journal;
  /** Past the proxies. */
  readonly store: PolicyStore;
  /** Somebody else who writes the table, through the proxies, by the same rules. */
  readonly rival: PolicyStore;
  /** What the functions have logged as errors, and what the event sources ran into. May be emptied. */
  readonly errors: string[];
  /** The whole table, past the proxies. */
  items(): Promise<Map<string, Item>>;
  deadLetters(): Promise<DeadLetter[]>;
  send(queue: 'refresh-queue' | 'request-queue', bodies: readonly string[]): Promise<void>;
  /** From now on. */
  deliver(how: Deliver): void;
}

type Ours = 'between' | 'deliver' | 'caFile' | 'handlers' | 'onLine' | 'onError';

export interface FaultyOptions extends Omit<StackOptions, Ours> {
  readonly functions: readonly FunctionName[];
  /** A bundle in place of that of `plan`. */
  readonly plan?: string | undefined;
}

/** While the table is empty. */
const NOTHING_TO_DO: Record<FunctionName, object> = {
  plan: { kind: 'daily', runId: 'nothing' },
  dispatch: { runId: 'nothing', tasks: [] },
  refresh: { Records: [] },
  request: { Records: [] },
};

const ENTRIES_PER_CALL = 10;

/** It is closed when the scope ends. */
export async function startFaultyStack(
  scope: Scope,
  { internet, bundles }: { internet: Internet; bundles: Bundles },
  { plan = 'plan', ...options }: FaultyOptions,
): Promise<FaultyStack> {
  const journal = createJournal();
  const errors: string[] = [];
  const observer = createObserver();
  let deliver: Deliver = (invoke) => invoke();
  let reached = '';
  const proxies = createProxies(journal, async (process) => {
    const name = process.replace(/-\d+$/, '') as FunctionName;
    return stack.functions[name].kill(process);
  });
  const stack = await startStack({
    ...options,
    caFile: internet.caFile,
    handlers: {
      plan: bundles.file(plan),
      dispatch: bundles.file('dispatch'),
      refresh: bundles.file('refresh'),
      request: bundles.file('request'),
    },
    environment: {
      DNS_SERVERS: internet.dnsServer,
      POLICY_HOST_PORT: String(internet.policyHostPort),
      ALLOW_PRIVATE_ADDRESSES: '1',
      ...options.environment,
    },
    between: async (service, endpoint) => {
      const proxy = await proxies.between(service, endpoint);
      if (service === 'dynamodb') reached = proxy.endpoint;
      return proxy;
    },
    deliver: (invoke) => deliver(invoke),
    onLine(name, line) {
      const known = observer.entries.length;
      observer.line(name, line);
      for (const entry of observer.entries.slice(known)) {
        if (entry.level === 'ERROR') errors.push(told(entry));
      }
    },
    onError: (error) => errors.push(`event source: ${firstLine(error)}`),
  });
  scope.after(() => stack.close());
  const TableName = stack.tableName;
  const client = new DynamoDBClient({
    ...CLIENT_OPTIONS,
    ...localClientConfig(reached),
    userAgentAppId: 'rival',
  });
  scope.after(() => client.destroy());
  // Cold starts are not what this is about, and take long where many begin at once.
  await Promise.all(options.functions.map((name) => stack.functions[name].invoke(NOTHING_TO_DO[name])));

  return {
    stack,
    proxies,
    journal,
    errors,
    store: createDynamoStore({ client: stack.dynamodb, table: TableName }),
    rival: createDynamoStore({ client, table: TableName }),

    async items() {
      const found = new Map<string, Item>();
      let ExclusiveStartKey: Record<string, AttributeValue> | undefined;
      do {
        const page = await stack.dynamodb.send(new ScanCommand({ TableName, ExclusiveStartKey }));
        for (const item of page.Items ?? []) found.set(item.Domain?.S ?? '', item);
        ExclusiveStartKey = page.LastEvaluatedKey;
      } while (ExclusiveStartKey !== undefined);
      return found;
    },

    async deadLetters() {
      const letters = DEAD_LETTER_QUEUES.map(async (queue) => {
        const messages = await stack.deadLetters(queue);
        return messages.map(({ body }) => ({ queue, body }));
      });
      return (await Promise.all(letters)).flat();
    },

    async send(queue, bodies) {
      const QueueUrl = stack.queueUrls[queue];
      for (let i = 0; i < bodies.length; i += ENTRIES_PER_CALL) {
        const some = bodies.slice(i, i + ENTRIES_PER_CALL);
        const Entries = some.map((MessageBody, id) => ({ Id: String(id), MessageBody }));
        await stack.sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
      }
    },

    deliver(how) {
      deliver = how;
    },
  };
}

function told({ function: name, message, ...entry }: LogEntry): string {
  const { error } = entry as { error?: { name?: string; message?: string } };
  return `${name}: ${message}${error ? ` (${error.name}: ${firstLine(error.message)})` : ''}`;
}

function firstLine(text: unknown): string {
  return String(text).split('\n', 1)[0] ?? '';
}
