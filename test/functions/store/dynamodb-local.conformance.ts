// The store's contract on Amazon's own DynamoDB Local, for where it is stricter than dynalite. It needs Java and
// 57 MB from the npm registry, so it is no part of `npm test`: run `npm run test:dynamodb-local`.

import { testPolicyStore } from './contract.ts';
import { findDynamoDbLocal, Unavailable } from './dynamodb-local.ts';

// The default way to end on a signal would leave Java running.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

try {
  testPolicyStore('DynamoDB Local', await findDynamoDbLocal());
} catch (error) {
  if (!(error instanceof Unavailable)) throw error;
  console.error(`The contract of the policy store was not tested on DynamoDB Local. ${error.message}`);
  process.exitCode = 1;
}
