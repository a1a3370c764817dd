// The whole stack on loopback, wired as the CloudFormation templates wire it: table, queues, scheduler, functions and
// event sources. Tests and `npm start` use it. It knows no handler's inside and no policy.

import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { CreateQueueCommand, SendMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import { createPolicyTable, startDynamoDb } from './dynamodb.ts';
import { ACCOUNT, type Endpoints, localClientConfig, sandboxEnvironment } from './environment.ts';
import { startEventSource } from './event-source.ts';
import { functionArn, LocalFunction } from './function.ts';
import type { LoopbackServer } from './loopback.ts';
import { type LocalScheduler, startScheduler } from './scheduler.ts';
import { queueArn, type StoredMessage, startSqs } from './sqs.ts';

const FUNCTION_NAMES = ['plan', 'dispatch', 'refresh', 'request'] as const;
export type FunctionName = (typeof FUNCTION_NAMES)[number];

const WORK_QUEUES = ['refresh-queue', 'request-queue'] as const;
const DEAD_LETTER_QUEUES = ['refresh-dlq', 'request-dlq', 'failures'] as const;
type DeadLetterQueue = (typeof DEAD_LETTER_QUEUES)[number];
type QueueName = (typeof WORK_QUEUES)[number] | DeadLetterQueue;

const TABLE = 'policies';
const SCHEDULE_GROUP = 'waves';

/** EventBridge Scheduler is precise to the minute: a one-time schedule fires up to this late. */
const DEFAULT_LATENESS_SECONDS = 60;

/** More than a poll waits for messages. */
const POLL_TIMEOUT_MS = 5_000;

interface FunctionSettings {
  readonly timeoutSeconds: number;
  readonly memoryMegabytes: number;
  /** Processes; for refresh and request also the event source's maximum concurrency. */
  readonly concurrency: number;
}

const SETTINGS: Record<FunctionName, FunctionSettings> = {
  plan: { timeoutSeconds: 300, memoryMegabytes: 512, concurrency: 1 },
  dispatch: { timeoutSeconds: 60, memoryMegabytes: 256, concurrency: 2 },
  refresh: { timeoutSeconds: 150, memoryMegabytes: 512, concurrency: 4 },
  request: { timeoutSeconds: 75, memoryMegabytes: 256, concurrency: 2 },
};

export interface StackOptions {
  /** Those that exist; all by default. The queue of one that does not exist just fills. */
  readonly functions?: readonly FunctionName[];
  /** Other handlers than functions/<name>/handler.ts, such as bundles. */
  readonly handlers?: Partial<Record<FunctionName, string>>;
  readonly settings?: Partial<Record<FunctionName, Partial<FunctionSettings>>>;
  /** More variables for every function. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly caFile?: string;
  /** Default: six times the function's timeout, as AWS recommends. */
  readonly visibilityTimeoutSeconds?: number;
  readonly maxReceiveCount?: number;
  readonly refreshBatchSize?: number;
  readonly refreshWindowSeconds?: number;
  /** Default: SCHEDULE_LATENESS_SECONDS of `environment`, else 60 s. */
  readonly schedulerLatenessMs?: number;
  /** Between the retries of Lambda's asynchronous invocations and of the scheduler. */
  readonly retryDelayMs?: number;
  /**
   * Stands between the functions and event sources on the one side, and a service on the other, as a network that
   * fails would. Its own end comes with the stack's. The stack's own clients are not led through it.
   */
  readonly between?: (service: keyof Endpoints, endpoint: string) => Promise<LoopbackServer>;
  /** Carries out what a schedule does: once, unless told otherwise. AWS says "at least once". */
  readonly deliver?: (invoke: () => void) => void;
  readonly onLine?: (functionName: string, line: string) => void;
  /** Failed invocations of event sources, and whatever else has no caller to go to. */
  readonly onError?: (error: unknown) => void;
}

export interface Stack {
  readonly endpoints: Endpoints;
  readonly dynamodb: DynamoDBClient;
  readonly sqs: SQSClient;
  readonly tableName: string;
  readonly queueUrls: Readonly<Record<QueueName, string>>;
  readonly functions: Readonly<Record<FunctionName, LocalFunction>>;
  readonly scheduler: LocalScheduler;
  /** Environment for any other process that shall see this stack and nothing else. */
  readonly env: Readonly<Record<string, string>>;
  /** Resolves when no schedule, message or invocation is left; throws with what is left after `timeoutMs`. */
  drained(timeoutMs?: number): Promise<void>;
  deadLetters(queue: DeadLetterQueue): Promise<StoredMessage[]>;
  /** Lets running invocations finish for `graceMs`, then ends everything. */
  close(graceMs?: number): Promise<void>;
}

export async function startStack(options: StackOptions = {}): Promise<Stack> {
  const closers: (() => unknown)[] = [];
  const closeAll = async () => {
    for (const close of closers.splice(0).reverse()) await close();
  };
  try {
    return await compose(options, closers, closeAll);
  } catch (error) {
    await closeAll();
    throw error;
  }
}

async function compose(
  options: StackOptions,
  closers: (() => unknown)[],
  closeAll: () => Promise<void>,
): Promise<Stack> {
  const {
    environment = {},
    caFile,
    maxReceiveCount = 5,
    retryDelayMs = 200,
    deliver = (invoke) => invoke(),
    onError = console.error,
  } = options;
  const exists = (name: string) => (options.functions ?? FUNCTION_NAMES).some((each) => each === name);
  const settingsOf = (name: FunctionName) => ({ ...SETTINGS[name], ...options.settings?.[name] });

  const database = await startDynamoDb();
  closers.push(database.close);
  const queues = await startSqs();
  closers.push(queues.close);
  const dynamodb = new DynamoDBClient(localClientConfig(database.endpoint));
  const sqs = new SQSClient(localClientConfig(queues.endpoint));
  closers.push(() => dynamodb.destroy());
  closers.push(() => sqs.destroy());

  await createPolicyTable(dynamodb, TABLE);
  const createQueue = (QueueName: string, Attributes: Record<string, string> = {}) =>
    sqs.send(new CreateQueueCommand({ QueueName, Attributes }));
  for (const name of DEAD_LETTER_QUEUES) await createQueue(name);
  for (const name of ['refresh', 'request'] as const) {
    const visibility = options.visibilityTimeoutSeconds ?? 6 * settingsOf(name).timeoutSeconds;
    const redrive = { deadLetterTargetArn: queueArn(`${name}-dlq`), maxReceiveCount };
    await createQueue(`${name}-queue`, {
      VisibilityTimeout: String(visibility),
      RedrivePolicy: JSON.stringify(redrive),
    });
  }
  const names = [...WORK_QUEUES, ...DEAD_LETTER_QUEUES];
  const queueUrls = Object.fromEntries(
    names.map((name) => [name, queues.queueUrl(name)]),
  ) as Stack['queueUrls'];

  const send = (queue: string, body: string, attributes: Readonly<Record<string, string>> = {}) => {
    const entries = Object.entries(attributes);
    const MessageAttributes = Object.fromEntries(
      entries.map(([name, StringValue]) => [name, { DataType: 'String', StringValue }]),
    );
    return sqs.send(
      new SendMessageCommand({ QueueUrl: queues.queueUrl(queue), MessageBody: body, MessageAttributes }),
    );
  };

  const lateness = Number(environment.SCHEDULE_LATENESS_SECONDS ?? DEFAULT_LATENESS_SECONDS) * 1_000;
  const scheduler = await startScheduler({
    groups: ['default', SCHEDULE_GROUP],
    latenessMs: options.schedulerLatenessMs ?? lateness,
    retryDelayMs,
    target: (arn, input) => {
      const name = FUNCTION_NAMES.find((each) => functionArn(each) === arn && exists(each));
      if (!name) throw new Error(`There is no function ${arn}`);
      // Accepted is delivered: a handler's failure is Lambda's to retry, not the scheduler's.
      deliver(() => void functions[name].invokeAsync(JSON.parse(input)).catch(onError));
    },
    deadLetter: async (arn, input, attributes) => {
      await send(arn.split(':').at(-1) ?? '', input, attributes).catch(onError);
    },
  });
  closers.push(scheduler.close);

  const endpoints = { dynamodb: database.endpoint, sqs: queues.endpoint, scheduler: scheduler.endpoint };
  const reached = { ...endpoints };
  for (const service of ['dynamodb', 'sqs', 'scheduler'] as const) {
    const between = await options.between?.(service, endpoints[service]);
    if (between === undefined) continue;
    closers.push(between.close);
    reached[service] = between.endpoint;
  }
  // The SDK sends to a queue's URL, whatever endpoint it is given.
  const reachedQueue = (name: QueueName) => queueUrls[name].replace(endpoints.sqs, reached.sqs);

  const table = { POLICY_TABLE: TABLE };
  const refreshQueue = { REFRESH_QUEUE_URL: reachedQueue('refresh-queue') };
  const schedules = {
    SCHEDULE_GROUP,
    DISPATCH_FUNCTION_ARN: functionArn('dispatch'),
    SCHEDULER_ROLE_ARN: `arn:aws:iam::${ACCOUNT}:role/scheduler`,
    SCHEDULER_DLQ_ARN: queueArn('failures'),
  };
  // Each gets only its own, so that one that reads another's fails here and not first when deployed.
  const variables: Record<FunctionName, Record<string, string>> = {
    plan: { ...table, ...refreshQueue, ...schedules, ...environment },
    dispatch: { ...refreshQueue, ...environment },
    refresh: { ...table, ...environment },
    request: { ...table, ...environment },
  };
  const deploy = (name: FunctionName) =>
    new LocalFunction({
      name,
      handler: options.handlers?.[name] ?? join(import.meta.dirname, '../../functions', name, 'handler.ts'),
      endpoints: reached,
      variables: variables[name],
      caFile,
      ...settingsOf(name),
      retryDelayMs,
      onFailure: async (record) => {
        await send('failures', JSON.stringify(record));
      },
      onLine: options.onLine,
    });
  const functions = {
    plan: deploy('plan'),
    dispatch: deploy('dispatch'),
    refresh: deploy('refresh'),
    request: deploy('request'),
  };
  const closeFunctions = () => Promise.all(Object.values(functions).map((each) => each.close()));
  closers.push(closeFunctions);

  const poll = (name: 'refresh' | 'request', batchSize: number, batchingWindowSeconds: number) => {
    const client = new SQSClient({
      ...localClientConfig(reached.sqs),
      userAgentAppId: `poller-${name}`,
      // It must not wait for ever where an answer never comes, or stops half way.
      requestHandler: {
        requestTimeout: POLL_TIMEOUT_MS,
        socketTimeout: POLL_TIMEOUT_MS,
        throwOnRequestTimeout: true,
      },
    });
    closers.push(() => client.destroy());
    return startEventSource({
      client,
      queueUrl: reachedQueue(`${name}-queue`),
      batchSize,
      batchingWindowSeconds,
      maximumConcurrency: settingsOf(name).concurrency,
      invoke: (event) => functions[name].invoke(event),
      onError,
    });
  };
  const { refreshBatchSize = 100, refreshWindowSeconds = 1 } = options;
  const sources = [
    ...(exists('refresh') ? [poll('refresh', refreshBatchSize, refreshWindowSeconds)] : []),
    ...(exists('request') ? [poll('request', 10, 0)] : []),
  ];

  function unfinished(): string[] {
    const counts = FUNCTION_NAMES.map((name) => [`invocations of ${name}`, functions[name].pending] as const);
    return [...counts, ['schedules', scheduler.pending()] as const]
      .filter(([, count]) => count > 0)
      .map(([what, count]) => `${count} ${what}`);
  }

  async function left(): Promise<string[]> {
    const before = unfinished();
    const summaries = (await queues.summaries()).filter(({ name }) =>
      WORK_QUEUES.some((work) => work === name),
    );
    const messages = summaries
      .filter(({ visible, inFlight, delayed }) => visible + inFlight + delayed > 0)
      .map(
        (queue) =>
          `${queue.name}: ${queue.visible} visible, ${queue.inFlight} in flight, ${queue.delayed} delayed`,
      );
    // Looked at again: a message that was in flight may have become an invocation, or one a message.
    return [...new Set([...before, ...messages, ...unfinished()])];
  }

  return {
    endpoints,
    dynamodb,
    sqs,
    tableName: TABLE,
    queueUrls,
    functions,
    scheduler,
    env: sandboxEnvironment({ endpoints, caFile, variables: { ...variables.plan } }),
    drained: async (timeoutMs = 30_000) => {
      const end = Date.now() + timeoutMs;
      for (let rest = await left(); rest.length > 0; rest = await left()) {
        if (Date.now() >= end) throw new Error(`Not drained after ${timeoutMs} ms: ${rest.join('; ')}`);
        await delay(25);
      }
    },
    deadLetters: (queue) => queues.messages(queue),
    close: async (graceMs = 2_000) => {
      const stopped = Promise.all(sources.map((source) => source.close()));
      const timer = setTimeout(closeFunctions, graceMs);
      await stopped;
      clearTimeout(timer);
      await closeAll();
    },
  };
}
