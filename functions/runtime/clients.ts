import type { DynamoDBClientConfig } from '@aws-sdk/client-dynamodb';

type Logger = NonNullable<DynamoDBClientConfig['logger']>;

/**
 * What the SDK tells its logger about every call (`info`) is put together, item by item, also for one that
 * drops it: a third of the processor time of a plan. So this one has nothing to be told with.
 */
const QUIET = { trace() {}, debug() {}, warn() {}, error() {} } as unknown as Logger;

/**
 * Options for every AWS client. The SDK has no time limits of its own: without them one lost packet could hold a
 * function until it is killed. `maxSockets` lets a whole batch write at once.
 */
export const CLIENT_OPTIONS = {
  maxAttempts: 4,
  logger: QUIET,
  requestHandler: {
    connectionTimeout: 1_000,
    requestTimeout: 5_000,
    throwOnRequestTimeout: true,
    // That one ends with the head of the answer: without this one, a body could stand still for ever.
    socketTimeout: 5_000,
    httpsAgent: { maxSockets: 128 },
    httpAgent: { maxSockets: 128 },
  },
} as const;

/** The SDK would check MD5 sums of every message against those that SQS answers: what TLS does already. */
export const SQS_OPTIONS = { ...CLIENT_OPTIONS, md5: false } as const;
