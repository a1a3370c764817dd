// `dispatch`: a whole wave into a queue, one that answers at once and a real one.

import { CreateQueueCommand, SQSClient } from '@aws-sdk/client-sqs';
import { encodeWaves } from '../../functions/dispatch/wave.ts';
import type { Domain } from '../../functions/mtasts/domain.ts';
import { localClientConfig } from '../../infra/local/environment.ts';
import { type Bench, child, type Section } from './bench.ts';
import { domainName } from './domains.ts';
import { everything, QUEUE, startFunction } from './function.ts';
import type { QueueOperations } from './queue-child.ts';
import { startRemote } from './remote.ts';
import { median } from './table.ts';

interface Sending {
  readonly messages: number;
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly peakBytes: number;
  readonly callsPerMessage: number;
  readonly bytesPerMessage: number;
}

export interface DispatchResult {
  readonly synthetic: Sending;
  readonly queue: Sending;
}

/** More than a schedule's input can hold. */
const MANY = 6_000;

/** As full as a wave can be. */
function wave(now: number): { text: string; messages: number } {
  const tasks = Array.from({ length: MANY }, (_, i) => ({
    domain: domainName(i, 'same') as Domain,
    lastUpdate: now,
    due: now + (i % 840) * 1_000,
  }));
  const [text = ''] = encodeWaves('bench', tasks);
  return { text, messages: (JSON.parse(text) as { tasks: unknown[] }).tasks.length };
}

async function send(bench: Bench, endpoint: string): Promise<Sending> {
  const dispatch = await startFunction(bench.packages.functions.dispatch, {
    endpoints: everything(endpoint),
  });
  const invoked = [];
  const { text, messages } = wave(Date.now());
  for (let i = 0; i < (bench.options.quick ? 2 : 5); i++)
    invoked.push(await dispatch.invoke(JSON.parse(text)));
  await dispatch.close();
  const { count = 0, bytes = 0 } = invoked.at(-1)?.calls.SendMessageBatch ?? {};
  return {
    messages,
    wallMs: median(invoked.map(({ wallMs }) => wallMs)),
    cpuMs: median(invoked.map(({ cpuMs }) => cpuMs)),
    peakBytes: Math.max(...invoked.map(({ peakBytes }) => peakBytes)),
    callsPerMessage: count / messages,
    bytesPerMessage: bytes / messages,
  };
}

export const dispatchSection: Section<DispatchResult> = {
  name: 'dispatch',
  what: 'dispatch, messages into the queue',
  async measure(bench) {
    bench.progress('waves into the queue');
    const { remote: aws, endpoint } = await bench.aws();
    await aws.call('begin', Date.now());
    const synthetic = await send(bench, endpoint);
    const queue = await startRemote<QueueOperations>(child('queue'));
    const queueEndpoint = await queue.call('start');
    const client = new SQSClient(localClientConfig(queueEndpoint));
    await client.send(new CreateQueueCommand({ QueueName: QUEUE }));
    client.destroy();
    const real = await send(bench, queueEndpoint);
    const arrived = await queue.call('count', QUEUE);
    await queue.close();
    if (arrived % real.messages !== 0 || arrived === 0) throw new Error(`${arrived} messages arrived`);
    return { synthetic, queue: real };
  },
  tables({ synthetic, queue }) {
    const each = (of: (sending: Sending) => number) => [of(synthetic), of(queue)];
    return [
      {
        title: 'DISPATCH, a wave as full as it can be',
        columns: ['answered at once', 'fauxqs'],
        rows: [
          {
            label: 'messages',
            unit: 'a second',
            digits: 0,
            cells: each((one) => (1_000 * one.messages) / one.wallMs),
          },
          { label: 'messages of a wave', digits: 0, cells: each((one) => one.messages) },
          {
            label: 'CPU time of a message',
            unit: 'ms',
            digits: 3,
            cells: each((one) => one.cpuMs / one.messages),
          },
          { label: 'calls of a message', digits: 3, cells: each((one) => one.callsPerMessage) },
          { label: 'bytes of a message', unit: 'B', digits: 0, cells: each((one) => one.bytesPerMessage) },
          { label: 'peak memory', unit: 'MB', digits: 0, cells: each((one) => one.peakBytes / 1e6) },
        ],
      },
    ];
  },
};
