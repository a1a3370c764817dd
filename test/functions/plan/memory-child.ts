// A whole plan of as many stale domains as the first argument says, in a process of its own: everything is real but
// the AWS clients, which swallow what they are given. Prints what it did and the most memory it took.

import { SchedulerClient } from '@aws-sdk/client-scheduler';
import { SQSClient } from '@aws-sdk/client-sqs';
import { createEnqueue } from '../../../functions/dispatch/enqueue.ts';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import { runPlan } from '../../../functions/plan/run.ts';
import { createScheduleWaves } from '../../../functions/plan/schedule.ts';
import type { PolicyStore, ScanPage } from '../../../functions/store/policy-store.ts';

const HOUR = 3_600_000;
const count = Number(process.argv[2]);
const now = Date.now();
let peakHeap = 0;
let messages = 0;

function sample(): void {
  peakHeap = Math.max(peakHeap, process.memoryUsage().heapUsed);
}

/** A page of a scan is 1 MB: a thousand items of the size that policies have. */
async function* scan(): AsyncGenerator<ScanPage> {
  for (let i = 0; i < count; i += 1_000) {
    const length = Math.min(1_000, count - i);
    const records = Array.from({ length }, (_, j) => ({
      // As a string of its own from a parsed answer, not a view of a longer one.
      domain: JSON.parse(`"mail-${i + j}.customers.example.org"`) as Domain,
      lastUpdate: now - 24 * HOUR - i - j,
      lastUse: now - 48 * HOUR,
      lastFetch: now - 48 * HOUR,
      mode: 'enforce' as const,
      backoff: false,
      validEnd: now + 48 * HOUR,
      failingSince: undefined,
      lastFailure: undefined,
    }));
    yield { records, examined: length, unreadable: [] };
    sample();
  }
}

function swallow(client: SchedulerClient | SQSClient, onInput: (input: object) => void): void {
  const { middlewareStack } = client as SQSClient;
  middlewareStack.add(
    () => async (args) => {
      onInput(args.input);
      sample();
      return { response: {}, output: { $metadata: {} } as never };
    },
    { step: 'initialize', priority: 'high' },
  );
}

const sqs = new SQSClient({ region: 'test' });
const scheduler = new SchedulerClient({ region: 'test' });
swallow(sqs, (input) => {
  messages += (input as { Entries: unknown[] }).Entries.length;
});
swallow(scheduler, (input) => {
  const { tasks } = JSON.parse((input as { Target: { Input: string } }).Target.Input) as { tasks: unknown[] };
  messages += tasks.length;
});

const summary = await runPlan(
  { kind: 'daily', runId: 'memory' },
  {
    store: { scan } as unknown as PolicyStore,
    enqueue: createEnqueue({ client: sqs, queueUrl: 'https://sqs.test/refresh-queue', now: Date.now }),
    scheduleWaves: createScheduleWaves(scheduler, {
      group: '',
      dispatchFunctionArn: '',
      roleArn: '',
      dlqArn: '',
    }),
    telemetry: { count: () => {}, gauge: () => {} } as never,
    now: Date.now,
    random: Math.random,
    times: {
      spreadMs: 3 * HOUR,
      waveMs: 840_000,
      latenessMs: 60_000,
      staleAfterMs: 12 * HOUR,
      unusedAfterMs: 4_320 * HOUR,
      renewalMarginMs: 6 * HOUR,
      renewalSpreadMs: 900_000,
    },
  },
);

console.log(
  JSON.stringify({ ...summary, messages, peakHeap, peakRss: process.resourceUsage().maxRSS * 1_024 }),
);
