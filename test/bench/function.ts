// A function of the stack in a process of its own, with Lambda's flags and the variables of its package.

import { join } from 'node:path';
import { ACCOUNT, type Endpoints, sandboxEnvironment } from '../../infra/local/environment.ts';
import type { FunctionOperations, Initialized, Invoked } from './function-child.ts';
import type { PackagedFunction } from './packages.ts';
import { startRemote } from './remote.ts';

const CHILD = join(import.meta.dirname, 'function-child.ts');

export interface MeasuredFunction {
  readonly initialized: Initialized;
  /** @param options.clockMs what the function's clock is ahead of the real one. */
  invoke(event: unknown, options?: { clockMs?: number }): Promise<Invoked>;
  startProfile(): Promise<void>;
  writeProfile(file: string): Promise<void>;
  close(): Promise<void>;
}

export interface Surroundings {
  /** Of AWS; one for all services will do. */
  readonly endpoints: Endpoints;
  readonly caFile?: string;
  readonly variables?: Readonly<Record<string, string>>;
}

/** What the functions take for the queue, the schedule group and so on. */
const REFERENCES = {
  POLICY_TABLE: 'policies',
  SCHEDULE_GROUP: 'waves',
  DISPATCH_FUNCTION_ARN: `arn:aws:lambda:us-east-1:${ACCOUNT}:function:dispatch`,
  SCHEDULER_ROLE_ARN: `arn:aws:iam::${ACCOUNT}:role/scheduler`,
  SCHEDULER_DLQ_ARN: `arn:aws:sqs:us-east-1:${ACCOUNT}:failures`,
};

export const QUEUE = 'refresh-queue';

export async function startFunction(
  { file, memoryMegabytes, timeoutSeconds, variables }: PackagedFunction,
  surroundings: Surroundings,
): Promise<MeasuredFunction> {
  const { endpoints, caFile } = surroundings;
  const environment = sandboxEnvironment({
    endpoints,
    memoryMegabytes,
    caFile,
    variables: {
      ...variables,
      ...REFERENCES,
      REFRESH_QUEUE_URL: `${endpoints.sqs}/${ACCOUNT}/${QUEUE}`,
      ...surroundings.variables,
    },
  });
  // As Lambda's own bootstrap for Node.js: a tenth of the memory is for young objects, the rest for old ones.
  const youngMegabytes = Math.floor(memoryMegabytes / 10);
  const flags = [
    '--expose-gc',
    `--max-semi-space-size=${Math.floor(youngMegabytes / 2)}`,
    `--max-old-space-size=${memoryMegabytes - youngMegabytes}`,
  ];
  const remote = await startRemote<FunctionOperations>(CHILD, { flags, environment });
  const initialized = await remote.call('initialize', file);
  return {
    initialized,
    invoke: (event, options = {}) =>
      remote.call('invoke', event, { timeoutMs: timeoutSeconds * 1_000, ...options }),
    startProfile: () => remote.call('startProfile'),
    writeProfile: (file) => remote.call('writeProfile', file),
    close: remote.close,
  };
}

/** One endpoint for every service. */
export const everything = (endpoint: string): Endpoints => ({
  dynamodb: endpoint,
  sqs: endpoint,
  scheduler: endpoint,
});
