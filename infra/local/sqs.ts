// SQS on loopback: fauxqs, in memory, a little stricter and a little more private than it comes.

import { buildApp } from 'fauxqs';
import { ACCOUNT, REGION } from './environment.ts';

/** SQS: "Valid values: 0 to 900". */
const MAX_DELAY_SECONDS = 900;

interface QueueSummary {
  readonly name: string;
  readonly visible: number;
  readonly inFlight: number;
  readonly delayed: number;
}

export interface StoredMessage {
  readonly messageId: string;
  readonly body: string;
  readonly messageAttributes: Readonly<Record<string, { readonly StringValue?: string }>>;
}

export interface LocalSqs {
  readonly endpoint: string;
  queueUrl(name: string): string;
  summaries(): Promise<QueueSummary[]>;
  /** All messages of a queue, in whatever state, without receiving them. */
  messages(name: string): Promise<StoredMessage[]>;
  close(): Promise<void>;
}

export function queueArn(name: string): string {
  return `arn:aws:sqs:${REGION}:${ACCOUNT}:${name}`;
}

export async function startSqs(): Promise<LocalSqs> {
  // Its own startFauxqs listens on every address.
  const app = buildApp({ logger: false });
  app.addHook('preHandler', async (request, reply) => {
    const { DelaySeconds, Entries = [] } = (request.body ?? {}) as Sending;
    // fauxqs takes any delay. SQS does not, and a plan that counts on more would fail only there.
    const delays = [DelaySeconds, ...Entries.map((entry) => entry.DelaySeconds)];
    if (delays.every((seconds = 0) => seconds >= 0 && seconds <= MAX_DELAY_SECONDS)) return;
    const message = `DelaySeconds must be >= 0 and <= ${MAX_DELAY_SECONDS}`;
    await reply
      .status(400)
      .header('x-amzn-query-error', 'InvalidParameterValue;Sender')
      .type('application/x-amz-json-1.0')
      .send(JSON.stringify({ __type: 'com.amazonaws.sqs#InvalidParameterValue', message }));
  });
  const endpoint = await app.listen({ port: 0, host: '127.0.0.1' });
  return {
    endpoint,
    // The URLs that fauxqs makes up name hosts below localhost, which not every resolver knows.
    queueUrl: (name) => `${endpoint}/${ACCOUNT}/${name}`,
    summaries: async () => {
      const response = await app.inject('/_fauxqs/queues');
      return response.json<Listed[]>().map((queue) => ({
        name: queue.name,
        visible: queue.approximateMessageCount,
        inFlight: queue.approximateInflightCount,
        delayed: queue.approximateDelayedCount,
      }));
    },
    messages: async (name) => {
      const response = await app.inject(`/_fauxqs/queues/${name}`);
      const { ready, delayed, inflight } = response.json<Inspected>().messages;
      return [...ready, ...delayed, ...inflight.map(({ message }) => message)];
    },
    close: () => app.close(),
  };
}

interface Sending {
  readonly DelaySeconds?: number;
  readonly Entries?: readonly { readonly DelaySeconds?: number }[];
}

interface Listed {
  readonly name: string;
  readonly approximateMessageCount: number;
  readonly approximateInflightCount: number;
  readonly approximateDelayedCount: number;
}

interface Inspected {
  readonly messages: {
    readonly ready: StoredMessage[];
    readonly delayed: StoredMessage[];
    readonly inflight: { readonly message: StoredMessage }[];
  };
}
