// A stand-in for EventBridge Scheduler, for one-time schedules, over the SDK's own REST protocol. What it does not
// know it refuses, so that nothing passes here that AWS would treat differently. It knows nothing of its targets.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { ACCOUNT, REGION } from './environment.ts';
import { type LoopbackServer, listenOnLoopback } from './loopback.ts';

/** "Maximum payload size", quotas of EventBridge Scheduler. */
const MAX_INPUT_BYTES = 256 * 1_024;

/** setTimeout cannot wait longer. */
const MAX_TIMER_MS = 2 ** 31 - 1;

const SCHEDULE_FIELDS = [
  'ActionAfterCompletion',
  'FlexibleTimeWindow',
  'ScheduleExpression',
  'ScheduleExpressionTimezone',
  'Target',
];
const TARGET_FIELDS = ['Arn', 'RoleArn', 'Input', 'RetryPolicy', 'DeadLetterConfig'];

const NAME = /^[0-9a-zA-Z-_.]{1,64}$/;
const TARGET_ARN = /^arn:aws[a-z-]*:\w+:[a-z0-9-]*:\d*:.+$/;
const ROLE_ARN = /^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]+$/;
const QUEUE_ARN = /^arn:aws[a-z-]*:sqs:[a-z0-9-]+:\d{12}:[a-zA-Z0-9_-]+$/;

export interface SchedulerOptions {
  /** Names of the schedule groups that exist. */
  readonly groups: readonly string[];
  /** Hands the input to the target. If it throws, the delivery is retried as the schedule's RetryPolicy says. */
  readonly target: (arn: string, input: string) => void | Promise<void>;
  /** Takes what could not be delivered, with the attributes that AWS puts on the message. */
  readonly deadLetter?: (
    queueArn: string,
    input: string,
    attributes: Readonly<Record<string, string>>,
  ) => void | Promise<void>;
  /** Schedules fire up to this much after their time; AWS says 60 s. */
  readonly latenessMs?: number;
  readonly retryDelayMs?: number;
  readonly random?: () => number;
  /** Epoch milliseconds; the system's clock by default. */
  readonly now?: () => number;
  /** By that clock. Rejects if `signal` comes first. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
}

interface PendingSchedule {
  readonly name: string;
  readonly groupName: string;
  /** Epoch milliseconds. */
  readonly at: number;
  readonly targetArn: string;
  readonly input: string;
}

export interface LocalScheduler extends LoopbackServer {
  /** Schedules that have not been delivered yet. */
  pending(): number;
  list(): PendingSchedule[];
}

type Json = Record<string, unknown>;

interface Schedule extends PendingSchedule {
  /** The request, to tell whether another one repeats it. */
  readonly request: string;
  /** What GetSchedule answers. */
  readonly description: Json;
  readonly arn: string;
  readonly maximumAttempts: number;
  readonly maximumAgeMs: number;
  readonly deadLetterArn: string | undefined;
  readonly cancel: AbortController;
  done: boolean;
}

class ApiError extends Error {
  readonly type: string;
  readonly status: number;

  constructor(type: string, status: number, message: string) {
    super(message);
    this.type = type;
    this.status = status;
  }
}

const notFound = (message: string) => new ApiError('ResourceNotFoundException', 404, message);

function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new ApiError('ValidationException', 400, message);
}

function object(value: unknown, name: string, fields?: readonly string[]): Json {
  check(typeof value === 'object' && value !== null && !Array.isArray(value), `${name} must be an object`);
  const unknown = Object.keys(value).filter((field) => fields && !fields.includes(field));
  check(unknown.length === 0, `This stand-in does not know ${unknown.join(', ')} of ${name}`);
  return value as Json;
}

function text(value: unknown, name: string, pattern: RegExp): string {
  check(typeof value === 'string' && pattern.test(value), `${name} must match ${pattern.source}`);
  return value;
}

function integer(value: unknown, name: string, from: number, to: number): number {
  const valid = Number.isInteger(value) && Number(value) >= from && Number(value) <= to;
  check(valid, `${name} must be ${from} to ${to}`);
  return Number(value);
}

function oneOf(value: unknown, name: string, ...known: string[]): void {
  check(
    known.some((each) => each === value),
    `${name} must be ${known.join(' or ')} for this stand-in`,
  );
}

function epochOf(expression: unknown): number {
  const [, time = ''] = /^at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)$/.exec(String(expression)) ?? [];
  const epoch = Date.parse(`${time}Z`);
  // Date.parse takes the 30th of February for the 2nd of March.
  const real = time !== '' && !Number.isNaN(epoch) && new Date(epoch).toISOString().startsWith(time);
  check(real, 'Invalid Schedule Expression: this stand-in knows at(yyyy-mm-ddThh:mm:ss) only');
  return epoch;
}

function parseSchedule(name: string, body: Json): Schedule {
  const { ClientToken = 'none', GroupName = 'default', ...rest } = body;
  const schedule = object(rest, 'the schedule', SCHEDULE_FIELDS);
  text(name, 'Name', NAME);
  text(ClientToken, 'ClientToken', /^[a-zA-Z0-9-_]{1,64}$/);
  const groupName = text(GroupName, 'GroupName', NAME);
  oneOf(object(schedule.FlexibleTimeWindow, 'FlexibleTimeWindow').Mode, 'FlexibleTimeWindow.Mode', 'OFF');
  oneOf(schedule.ScheduleExpressionTimezone ?? 'UTC', 'ScheduleExpressionTimezone', 'UTC');
  oneOf(schedule.ActionAfterCompletion ?? 'NONE', 'ActionAfterCompletion', 'DELETE', 'NONE');

  const { RetryPolicy = {}, DeadLetterConfig, ...target } = object(schedule.Target, 'Target', TARGET_FIELDS);
  const targetArn = text(target.Arn, 'Target.Arn', TARGET_ARN);
  text(target.RoleArn, 'Target.RoleArn', ROLE_ARN);
  const input = text(target.Input ?? '{}', 'Target.Input', /./s);
  check(Buffer.byteLength(input) <= MAX_INPUT_BYTES, `Target.Input must be at most ${MAX_INPUT_BYTES} bytes`);
  if (targetArn.includes(':lambda:')) check(isJson(input), 'Target.Input must be JSON for a Lambda target');
  check(!input.includes('<aws.scheduler.'), 'This stand-in does not know context attributes');
  const { MaximumRetryAttempts = 185, MaximumEventAgeInSeconds = 86_400 } = object(
    RetryPolicy,
    'RetryPolicy',
  );
  const letters =
    DeadLetterConfig === undefined ? undefined : object(DeadLetterConfig, 'DeadLetterConfig').Arn;

  const arn = `arn:aws:scheduler:${REGION}:${ACCOUNT}:schedule/${groupName}/${name}`;
  const now = Date.now() / 1_000;
  const dates = { CreationDate: now, LastModificationDate: now };
  return {
    name,
    groupName,
    arn,
    request: JSON.stringify(body),
    description: { ...schedule, Name: name, GroupName: groupName, Arn: arn, State: 'ENABLED', ...dates },
    at: epochOf(schedule.ScheduleExpression),
    targetArn,
    input,
    maximumAttempts: 1 + integer(MaximumRetryAttempts, 'MaximumRetryAttempts', 0, 185),
    maximumAgeMs: 1_000 * integer(MaximumEventAgeInSeconds, 'MaximumEventAgeInSeconds', 60, 86_400),
    deadLetterArn: letters === undefined ? undefined : text(letters, 'DeadLetterConfig.Arn', QUEUE_ARN),
    cancel: new AbortController(),
    done: false,
  };
}

function isJson(input: string): boolean {
  try {
    JSON.parse(input);
    return true;
  } catch {
    return false;
  }
}

async function readBody(request: IncomingMessage): Promise<Json> {
  const body = Buffer.concat(await request.toArray()).toString();
  check(isJson(body), 'The request is not JSON');
  return object(JSON.parse(body), 'The request');
}

/** Starts the stand-in on a free port of 127.0.0.1. */
export async function startScheduler(options: SchedulerOptions): Promise<LocalScheduler> {
  const { latenessMs = 0, retryDelayMs = 200, random = Math.random, now = Date.now } = options;
  const { sleep = (ms, signal) => delay(ms, undefined, { signal }) } = options;
  const schedules = new Map<string, Schedule>();
  const waiting = () => [...schedules.values()].filter((schedule) => !schedule.done);

  async function fire(schedule: Schedule): Promise<void> {
    const { signal } = schedule.cancel;
    // A time in the past fires at once, not late.
    const time = schedule.at + (schedule.at > now() ? Math.floor(random() * latenessMs) : 0);
    for (let left = time - now(); left > 0; left = time - now()) {
      await sleep(Math.min(left, MAX_TIMER_MS), signal);
    }
    await deliver(schedule);
    schedule.done = true;
    if (schedule.description.ActionAfterCompletion !== 'DELETE') return;
    schedules.delete(`${schedule.groupName}/${schedule.name}`);
  }

  async function deliver(schedule: Schedule): Promise<void> {
    const started = now();
    for (let attempt = 1; ; attempt++) {
      try {
        return await options.target(schedule.targetArn, schedule.input);
      } catch (error) {
        const tooOld = now() + retryDelayMs - started > schedule.maximumAgeMs;
        if (tooOld || attempt === schedule.maximumAttempts) {
          if (schedule.deadLetterArn === undefined) return;
          return await options.deadLetter?.(schedule.deadLetterArn, schedule.input, {
            ERROR_CODE: error instanceof Error ? error.name : 'Error',
            ERROR_MESSAGE: error instanceof Error ? error.message : String(error),
            EXHAUSTED_RETRY_CONDITION: tooOld ? 'MaximumEventAgeInSeconds' : 'MaximumRetryAttempts',
            RETRY_ATTEMPTS: String(attempt - 1),
            SCHEDULE_ARN: schedule.arn,
            TARGET_ARN: schedule.targetArn,
          });
        }
      }
      await sleep(retryDelayMs, schedule.cancel.signal);
    }
  }

  function create(name: string, body: Json): Json {
    const schedule = parseSchedule(name, body);
    if (!options.groups.includes(schedule.groupName)) {
      throw notFound(`Schedule group ${schedule.groupName} does not exist.`);
    }
    const key = `${schedule.groupName}/${name}`;
    const existing = schedules.get(key);
    if (existing) {
      const repeated = body.ClientToken !== undefined && existing.request === schedule.request;
      if (!repeated) throw new ApiError('ConflictException', 409, `Schedule ${name} already exists.`);
      return { ScheduleArn: existing.arn };
    }
    schedules.set(key, schedule);
    fire(schedule).catch((error: unknown) => {
      if (!schedule.cancel.signal.aborted) throw error;
    });
    return { ScheduleArn: schedule.arn };
  }

  function find(name: string, query: URLSearchParams): [string, Schedule] {
    const key = `${query.get('groupName') ?? 'default'}/${name}`;
    const schedule = schedules.get(key);
    if (!schedule) throw notFound(`Schedule ${name} does not exist.`);
    return [key, schedule];
  }

  function search(query: URLSearchParams): Json {
    const { ScheduleGroup, NamePrefix = '', ...rest } = Object.fromEntries(query);
    check(Object.keys(rest).length === 0, `This stand-in does not know ${Object.keys(rest).join(', ')}`);
    const found = [...schedules.values()]
      .filter(
        ({ name, groupName }) => groupName === (ScheduleGroup ?? groupName) && name.startsWith(NamePrefix),
      )
      .map(({ description, targetArn }) => ({ ...description, Target: { Arn: targetArn } }));
    return { Schedules: found };
  }

  async function answer(request: IncomingMessage): Promise<Json> {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://scheduler');
    const [, resource, encodedName = '', ...rest] = pathname.split('/');
    const name = decodeURIComponent(encodedName);
    const operation = resource === 'schedules' && rest.length === 0 ? request.method : undefined;
    if (operation === 'GET' && name === '') return search(searchParams);
    if (operation === 'POST') return create(name, await readBody(request));
    if (operation === 'GET') return find(name, searchParams)[1].description;
    if (operation === 'DELETE') {
      const [key, schedule] = find(name, searchParams);
      schedule.cancel.abort();
      schedules.delete(key);
      return {};
    }
    throw new ApiError(
      'ValidationException',
      400,
      `This stand-in does not know ${request.method} ${pathname}`,
    );
  }

  async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('content-type', 'application/json');
    try {
      response.end(JSON.stringify(await answer(request)));
    } catch (thrown) {
      const error =
        thrown instanceof ApiError ? thrown : new ApiError('InternalServerException', 500, String(thrown));
      response.writeHead(error.status, { 'x-amzn-errortype': error.type });
      response.end(JSON.stringify({ Message: error.message }));
    }
  }

  const server = await listenOnLoopback(createServer((request, response) => void respond(request, response)));
  return {
    endpoint: server.endpoint,
    pending: () => waiting().length,
    list: () =>
      waiting().map(({ name, groupName, at, targetArn, input }) => ({
        name,
        groupName,
        at,
        targetArn,
        input,
      })),
    close: () => {
      for (const schedule of schedules.values()) schedule.cancel.abort();
      return server.close();
    },
  };
}
