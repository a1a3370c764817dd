// Discovers and refreshes domains on the real internet, through the same functions on the embedded AWS, and shows
// each policy, or why there is none.

import { SendMessageCommand } from '@aws-sdk/client-sqs';
import type { Domain } from '../../functions/mtasts/domain.ts';
import { LIMITS } from '../../functions/mtasts/limits.ts';
import { requestEnvironment } from '../../functions/runtime/env.ts';
import { createDynamoStore } from '../../functions/store/dynamo.ts';
import type { PolicyRecord } from '../../functions/store/policy-store.ts';
import { createObserver, type LogEntry } from './observer.ts';
import { paint, table } from './screen.ts';
import { type Stack, startStack } from './stack.ts';

/** Taken from the caller's environment, so that a lookup can be pointed at another resolver. */
const PASSED_ON = ['DNS_SERVERS', 'POLICY_HOST_PORT', 'ALLOW_PRIVATE_ADDRESSES'];

/** @returns whether every domain has a policy; the stack runs on until `close`. */
export async function discover(
  domains: readonly Domain[],
): Promise<{ all: boolean; stack: Stack; close: () => Promise<void> }> {
  const observer = createObserver();
  const passedOn = PASSED_ON.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : []));
  // As the functions will: they would only fail, again and again, while everybody waits for the queue.
  requestEnvironment({
    ...Object.fromEntries(passedOn),
    POLICY_TABLE: 'policies',
    AWS_ENDPOINT_URL_DYNAMODB: 'http://127.0.0.1',
  });
  const stack = await startStack({
    environment: {
      ...Object.fromEntries(passedOn),
      // Everything is stale at once, and due at once: what was discovered is refreshed in the same breath.
      STALE_AFTER_SECONDS: '0',
      SPREAD_SECONDS: '1',
      POWERTOOLS_LOG_LEVEL: 'DEBUG',
    },
    ...(process.env.NODE_EXTRA_CA_CERTS ? { caFile: process.env.NODE_EXTRA_CA_CERTS } : {}),
    onLine: observer.line,
  });
  try {
    const patience = 2 * LIMITS.domainMs;
    for (const domain of domains) {
      const MessageBody = JSON.stringify({ domain });
      await stack.sqs.send(
        new SendMessageCommand({ QueueUrl: stack.queueUrls['request-queue'], MessageBody }),
      );
    }
    await stack.drained(patience);
    await stack.functions.plan.invoke({ kind: 'daily', runId: `local-${Date.now()}` });
    await stack.drained(patience);

    const store = createDynamoStore({ client: stack.dynamodb, table: stack.tableName });
    const { records } = await store.read(domains);
    for (const domain of domains) show(domain, records.get(domain), observer.entries);
    const faults = observer.entries.filter((entry) => entry.level === 'ERROR');
    for (const fault of faults) console.error(`${fault.function}: ${fault.message}`);
    if (faults.length > 0) throw new Error('the run itself failed, see above');
    return { all: domains.every((domain) => usable(records.get(domain))), stack, close: stack.close };
  } catch (error) {
    await stack.close();
    throw error;
  }
}

function usable(record: PolicyRecord | undefined): boolean {
  return record !== undefined && !record.backoff;
}

function show(domain: Domain, record: PolicyRecord | undefined, entries: readonly LogEntry[]): void {
  console.log(`\n${paint('bold', domain)}`);
  const told = entries.filter((entry) => entry.domain === domain && entry.code !== undefined);
  if (record === undefined || !usable(record)) {
    const reason = told.at(-1);
    const what = record === undefined ? 'no MTA-STS' : 'a record, but no policy';
    console.log(
      `  ${paint('yellow', what)}: ${reason?.detail ?? 'no reason known'} (${reason?.code ?? 'unknown'})`,
    );
    return;
  }
  const { policy, recordId = 'none', validEnd, lastUpdate, lastFetch } = record;
  const how =
    lastUpdate === lastFetch
      ? 'fetched over HTTPS'
      : 'discovered over HTTPS, then extended on its unchanged id';
  const rows = [
    ['mode', paint(policy.mode === 'enforce' ? 'green' : 'yellow', policy.mode)],
    ...policy.mx.map((pattern) => ['mx', pattern]),
    ['max_age', `${policy.maxAgeSeconds} s, valid until ${new Date(validEnd).toISOString()}`],
    ['record id', recordId],
    ['refresh', how],
  ];
  for (const line of table(rows)) console.log(`  ${line}`);
  for (const entry of told) console.log(`  ${paint('yellow', 'warning')}  ${entry.message}: ${entry.detail}`);
}
