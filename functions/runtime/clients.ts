/**
 * Options for every AWS client. The SDK has no time limits of its own: without them one lost packet could hold a
 * function until it is killed. `maxSockets` lets a whole batch write at once.
 */
export const CLIENT_OPTIONS = {
  maxAttempts: 4,
  requestHandler: {
    connectionTimeout: 1_000,
    requestTimeout: 5_000,
    throwOnRequestTimeout: true,
    httpsAgent: { maxSockets: 128 },
    httpAgent: { maxSockets: 128 },
  },
} as const;
