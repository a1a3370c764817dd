// A stack in the emulator: what every act of its life knows of it, and how one looks at its queues, schedules and logs.

import { setTimeout as delay } from 'node:timers/promises';
import { FilterLogEventsCommand } from '@aws-sdk/client-cloudwatch-logs';
import { ListSchedulesCommand } from '@aws-sdk/client-scheduler';
import { GetQueueAttributesCommand, ReceiveMessageCommand } from '@aws-sdk/client-sqs';
import type { Domain } from '../../functions/mtasts/domain.ts';
import type { PolicyStore } from '../../functions/store/policy-store.ts';
import type { Internet } from '../../infra/local/internet/internet.ts';
import { becameOf, type Resident } from '../../infra/local/population.ts';
import type { Aws } from './account.ts';
import type { Comparison } from './resources.ts';
import { type Parameters, type Service, STAGE } from './service.ts';

export const SECOND = 1_000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/** The slowest domain takes its whole limits, twice over for DNS. */
export const PATIENCE_MS = 60 * SECOND;

export const STACK = `mta-sts-refresher-${STAGE}`;

/** Before there is a stack. */
export interface Scene {
  readonly service: Service;
  readonly internet: Internet;
  readonly endpoint: string;
  /** As the administrator. */
  readonly aws: Aws;
  readonly store: PolicyStore;
}

export interface Deployed extends Scene {
  readonly parameters: Parameters;
  readonly comparison: Comparison;
  readonly outputs: ReadonlyMap<string, string>;
}

/** By logical id: what CloudFormation's Ref gives. */
export function physicalId({ comparison }: Deployed, logicalId: string): string {
  const id = comparison.physicalIds.get(logicalId);
  if (id === undefined) throw new Error(`there is no ${logicalId}`);
  return id;
}

export function output({ outputs }: Deployed, key: string): string {
  const value = outputs.get(key);
  if (value === undefined) throw new Error(`the stack has no output ${key}`);
  return value;
}

/** Asks until there is an answer. */
export async function eventually<T>(
  what: string,
  limitMs: number,
  ask: () => Promise<T | undefined>,
): Promise<T> {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > deadline) throw new Error(`waited ${limitMs / SECOND} s in vain for ${what}`);
    await delay(250);
  }
}

/** Asks until there are no complaints. */
export async function eventuallyRight(limitMs: number, ask: () => Promise<readonly string[]>): Promise<void> {
  let complaints: readonly string[] = [];
  const right = async () => {
    complaints = await ask();
    return complaints.length === 0 ? true : undefined;
  };
  await eventually('things to be right', limitMs, right).catch((error: Error) => {
    throw new Error(`${error.message}:\n${complaints.join('\n')}`);
  });
}

/** What did not become of a domain what should. */
export async function wrong(
  { store }: Scene,
  residents: readonly Resident[],
  start: number,
): Promise<string[]> {
  const { records } = await store.read(residents.map(({ domain }) => domain as Domain));
  return residents.flatMap((resident) => {
    const became = becameOf(resident, records, start) ?? 'something else';
    return became === resident.expected ? [] : [`${resident.domain} is ${became}, not ${resident.expected}`];
  });
}

// Queues and schedules

/** How many messages there are in a queue: waiting, delayed or being worked on. */
export async function count(stack: Deployed, queue: string): Promise<number> {
  const { Attributes = {} } = await stack.aws.sqs.send(
    new GetQueueAttributesCommand({ QueueUrl: physicalId(stack, queue), AttributeNames: ['All'] }),
  );
  return (['', 'Delayed', 'NotVisible'] as const).reduce(
    (sum, state) => sum + Number(Attributes[`ApproximateNumberOfMessages${state}`] ?? 0),
    0,
  );
}

export async function receive(stack: Deployed, queue: string): Promise<string | undefined> {
  const { Messages } = await stack.aws.sqs.send(
    new ReceiveMessageCommand({ QueueUrl: physicalId(stack, queue) }),
  );
  return Messages?.[0]?.Body;
}

export function drained(stack: Deployed, ...queues: readonly string[]): Promise<void> {
  return eventuallyRight(PATIENCE_MS, async () => {
    const counts = await Promise.all(queues.map((queue) => count(stack, queue)));
    return queues.filter((_, i) => counts[i] !== 0).map((queue) => `${queue} is not empty`);
  });
}

/** How many one-time schedules wait. */
export async function waves(stack: Deployed): Promise<number> {
  const { Schedules = [] } = await stack.aws.scheduler.send(
    new ListSchedulesCommand({ GroupName: physicalId(stack, 'WaveScheduleGroup') }),
  );
  return Schedules.length;
}

// Functions

const FUNCTIONS = ['plan', 'dispatch', 'refresh', 'request'] as const;

type FunctionName = (typeof FUNCTIONS)[number];

/** A line of JSON: a log entry, or metrics. */
type Line = Readonly<Record<string, unknown>>;

export const functionName = (name: FunctionName) => `${STACK}-${name}`;

/** Of a function, since then, epoch milliseconds. */
export async function readLog(aws: Aws, name: FunctionName, since: number) {
  const text = await readLines(aws, name, since);
  // The rest is Lambda's own, and Node's.
  const lines: Line[] = text.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  return {
    lines,
    errors: lines.filter(({ level }) => level === 'ERROR'),
    invocations: text.filter((line) => line.startsWith('START ')).length,
    /** What a metric adds up to. */
    total: (metric: string) =>
      lines
        .filter((line) => line._aws !== undefined)
        .reduce((sum, line) => sum + Number(line[metric] ?? 0), 0),
  };
}

/** Waits for a metric to add up: logs come a little later than what they tell of. */
export function counted(
  aws: Aws,
  name: FunctionName,
  since: number,
  metric: string,
  expected: number,
): Promise<void> {
  return eventuallyRight(PATIENCE_MS, async () => {
    const total = (await readLog(aws, name, since)).total(metric);
    return total === expected ? [] : [`${metric} of ${name} is ${total}, not ${expected}`];
  });
}

/** Waits for a run of plan. @returns what it said at its end. */
export function planCompleted(aws: Aws, kind: 'daily' | 'renewal', since: number) {
  return eventually(`a ${kind} run of plan to be completed`, 30 * SECOND, async () => {
    const { lines } = await readLog(aws, 'plan', since);
    const found = lines.find((line) => line.message === 'plan completed' && line.kind === kind);
    return found as
      | { run_id: string; planned: number; pruned: number; schedules: number; stored: number }
      | undefined;
  });
}

/** The last lines of each function. */
export async function lastWords(aws: Aws): Promise<string> {
  const words = FUNCTIONS.map(async (name) => {
    const lines = await readLines(aws, name, 0).catch((error: Error) => [error.message]);
    return [`${name}:`, ...lines.slice(-30)].join('\n');
  });
  return (await Promise.all(words)).join('\n\n');
}

async function readLines({ logs }: Aws, name: FunctionName, since: number): Promise<string[]> {
  const lines: string[] = [];
  let nextToken: string | undefined;
  do {
    const page = await logs.send(
      new FilterLogEventsCommand({
        logGroupName: `/aws/lambda/${functionName(name)}`,
        startTime: since,
        ...(nextToken !== undefined && { nextToken }),
      }),
    );
    lines.push(...(page.events ?? []).map(({ message = '' }) => message));
    nextToken = page.nextToken;
  } while (nextToken !== undefined);
  return lines;
}
