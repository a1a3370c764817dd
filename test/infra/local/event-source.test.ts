import assert from 'node:assert/strict';
import { after, type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import {
  ChangeMessageVisibilityCommand,
  CreateQueueCommand,
  DeleteMessageBatchCommand,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
  SQSClient,
  SQSServiceException,
} from '@aws-sdk/client-sqs';
import type { SQSBatchResponse, SQSEvent, SQSRecord } from 'aws-lambda';
import { localClientConfig } from '../../../infra/local/environment.ts';
import { type EventSourceOptions, startEventSource } from '../../../infra/local/event-source.ts';
import { queueArn, startSqs } from '../../../infra/local/sqs.ts';
import { until } from '../../resources.ts';

const sqs = await startSqs();
const client = new SQSClient(localClientConfig(sqs.endpoint));
after(async () => {
  client.destroy();
  await sqs.close();
});
let queues = 0;

async function createQueue(attributes: Record<string, string> = {}) {
  const name = `queue-${++queues}`;
  await client.send(new CreateQueueCommand({ QueueName: name, Attributes: attributes }));
  const url = sqs.queueUrl(name);
  const send = async (count: number, delaySeconds = 0) => {
    for (let start = 0; start < count; start += 10) {
      const Entries = Array.from({ length: Math.min(10, count - start) }, (_, index) => ({
        Id: String(index),
        MessageBody: `message ${start + index}`,
        DelaySeconds: delaySeconds,
      }));
      const { Failed = [] } = await client.send(new SendMessageBatchCommand({ QueueUrl: url, Entries }));
      assert.equal(Failed.length, 0);
    }
  };
  const size = async () => {
    const summary = (await sqs.summaries()).find((each) => each.name === name);
    return summary ? summary.visible + summary.inFlight + summary.delayed : Number.NaN;
  };
  return { name, url, send, size };
}

interface Batch {
  readonly at: number;
  readonly event: SQSEvent;
}

function listen(t: TestContext, options: Partial<EventSourceOptions> & { queueUrl: string }) {
  const batches: Batch[] = [];
  const errors: unknown[] = [];
  const { invoke = async () => {} } = options;
  const source = startEventSource({
    client,
    batchSize: 10,
    batchingWindowSeconds: 0,
    maximumConcurrency: 1,
    onError: (error) => errors.push(error),
    ...options,
    invoke: (event) => {
      batches.push({ at: Date.now(), event });
      return invoke(event);
    },
  });
  t.after(() => source.close());
  return { batches, errors, source };
}

/** The client, but for what happens before a call, which fails the call if it fails. */
function intercepted(before: (command: unknown) => Promise<void>): SQSClient {
  const send: (...call: Parameters<SQSClient['send']>) => unknown = async (...call) => {
    await before(call[0]);
    return client.send(...call);
  };
  return { send } as unknown as SQSClient;
}

/** The client, but for calls that fail. */
function faulty(fails: (command: unknown) => boolean): SQSClient {
  return intercepted(async (command) => {
    if (fails(command)) throw new Error('no answer');
  });
}

/** Longer than any test lasts: a message comes again when `showAgain` says so, and not because a machine is slow. */
const HIDDEN = { VisibilityTimeout: '600' };

/** What the queue does by itself when the visibility timeout of these messages is over. */
async function showAgain(QueueUrl: string, records: readonly SQSRecord[]): Promise<void> {
  for (const { receiptHandle: ReceiptHandle } of records) {
    await client.send(new ChangeMessageVisibilityCommand({ QueueUrl, ReceiptHandle, VisibilityTimeout: 0 }));
  }
}

const bodies = (batch: Batch | undefined) => batch?.event.Records.map(({ body }) => body);
const named = (batch: Batch | undefined, name: string) =>
  batch?.event.Records.filter(({ body }) => body === name) ?? [];
const failing = (event: SQSEvent, ...which: string[]): SQSBatchResponse => ({
  batchItemFailures: event.Records.filter(({ body }) => which.includes(body)).map(({ messageId }) => ({
    itemIdentifier: messageId,
  })),
});

// All at once: most of each test is waiting for the end of a window.
test('event source', { concurrency: true }, async (t) => {
  t.test('a record looks as Lambda makes it', async (t) => {
    const { name, url, size } = await createQueue();
    await client.send(
      new SendMessageCommand({
        QueueUrl: url,
        MessageBody: 'hello',
        MessageAttributes: {
          text: { DataType: 'String', StringValue: 'value' },
          bytes: { DataType: 'Binary', BinaryValue: new Uint8Array([1, 2, 3]) },
        },
      }),
    );
    const { batches } = listen(t, { queueUrl: url });
    await until(async () => (await size()) === 0, 'the queue is empty');
    const [record] = batches[0]?.event.Records ?? [];
    assert.ok(record);
    const { messageId, receiptHandle, attributes, md5OfMessageAttributes, ...rest } = record;
    assert.ok(messageId && receiptHandle && md5OfMessageAttributes);
    assert.equal(attributes.ApproximateReceiveCount, '1');
    assert.ok(Math.abs(Number(attributes.SentTimestamp) - Date.now()) < 5_000);
    assert.ok(attributes.ApproximateFirstReceiveTimestamp && attributes.SenderId);
    const lists = { stringListValues: [], binaryListValues: [] };
    assert.deepEqual(rest, {
      body: 'hello',
      messageAttributes: {
        text: { dataType: 'String', stringValue: 'value', ...lists },
        bytes: { dataType: 'Binary', binaryValue: 'AQID', ...lists },
      },
      md5OfBody: '5d41402abc4b2a76b9719d911017c592',
      eventSource: 'aws:sqs',
      eventSourceARN: queueArn(name),
      awsRegion: 'us-east-1',
    });
  });

  t.test('a batch is filled up to its size within the window', async (t) => {
    const { url, send, size } = await createQueue();
    await send(200);
    // A window that no machine is too slow for: a batch is sent when it is full.
    const { batches } = listen(t, { queueUrl: url, batchSize: 100, batchingWindowSeconds: 600 });
    await until(async () => (await size()) === 0, 'the queue is empty');
    assert.deepEqual(
      batches.map(({ event }) => event.Records.length),
      [100, 100],
    );
  });

  t.test('a message waits for others no longer than the window', async (t) => {
    const { url, send } = await createQueue();
    await send(1);
    let windowBegan = Number.NaN;
    const watched = intercepted(async (command) => {
      // The first message is there, and the event source looks for others: now one comes.
      if (!(command instanceof ReceiveMessageCommand) || command.input.WaitTimeSeconds !== 0) return;
      if (!Number.isNaN(windowBegan)) return;
      windowBegan = Date.now();
      await send(1);
    });
    const { batches } = listen(t, {
      client: watched,
      queueUrl: url,
      batchSize: 100,
      batchingWindowSeconds: 1.5,
    });
    await until(() => batches.length > 0, 'a batch that is not full');
    assert.equal(bodies(batches[0])?.length, 2);
    const waited = (batches[0]?.at ?? 0) - windowBegan;
    // The window began with the first message, some time before it was seen here.
    assert.ok(waited >= 500, `waited ${waited} ms`);
  });

  t.test('a batch over 10 needs a window', () => {
    const options = {
      client,
      queueUrl: 'http://127.0.0.1:1/0/q',
      maximumConcurrency: 1,
      invoke: async () => {},
    };
    assert.throws(
      () => startEventSource({ ...options, batchSize: 11, batchingWindowSeconds: 0 }),
      RangeError,
    );
  });

  t.test('only the messages named as failures come again, when they are visible again', async (t) => {
    const { url, send, size } = await createQueue(HIDDEN);
    await send(3);
    let invocations = 0;
    const { batches, errors } = listen(t, {
      queueUrl: url,
      invoke: async (event) => failing(event, ...(++invocations === 1 ? ['message 1'] : [])),
    });
    await until(async () => (await size()) === 1, 'the others are deleted');
    assert.equal(batches.length, 1, 'it is not delivered before it is visible');
    await showAgain(url, named(batches[0], 'message 1'));
    await until(async () => (await size()) === 0, 'the queue is empty');
    assert.deepEqual(batches.map(bodies), [['message 0', 'message 1', 'message 2'], ['message 1']]);
    assert.equal(batches[1]?.event.Records[0]?.attributes.ApproximateReceiveCount, '2');
    assert.deepEqual(errors, []);
  });

  const complete: [string, unknown][] = [
    ['undefined', undefined],
    ['null', null],
    ['an empty object', {}],
    ['an empty list', { batchItemFailures: [] }],
    ['null for a list', { batchItemFailures: null }],
  ];
  for (const [what, response] of complete) {
    t.test(`${what} is success`, async (t) => {
      const { url, send, size } = await createQueue();
      await send(2);
      const { errors } = listen(t, { queueUrl: url, invoke: async () => response });
      await until(async () => (await size()) === 0, 'the queue is empty');
      assert.deepEqual(errors, []);
    });
  }

  const malformed: [string, (event: SQSEvent) => unknown][] = [
    ['an exception', () => Promise.reject(new Error('handler failed'))],
    ['an unknown identifier', () => ({ batchItemFailures: [{ itemIdentifier: 'unknown' }] })],
    ['an empty identifier', () => ({ batchItemFailures: [{ itemIdentifier: '' }] })],
    ['a null identifier', () => ({ batchItemFailures: [{ itemIdentifier: null }] })],
    [
      'a misspelt identifier',
      (event) => ({ batchItemFailures: [{ messageId: event.Records[0]?.messageId }] }),
    ],
    ['a null entry', () => ({ batchItemFailures: [null] })],
    ['no list', () => ({ batchItemFailures: 'all' })],
    ['no object', () => 'done'],
  ];
  for (const [what, respond] of malformed) {
    t.test(`${what} fails the whole batch`, async (t) => {
      const { url, send, size } = await createQueue(HIDDEN);
      await send(2);
      let invocations = 0;
      const { batches, errors } = listen(t, {
        queueUrl: url,
        invoke: async (event) => (++invocations === 1 ? respond(event) : undefined),
      });
      await until(() => errors.length > 0, 'the invocation fails');
      const [first, ...none] = batches;
      assert.deepEqual([bodies(first), none.length], [['message 0', 'message 1'], 0]);
      await showAgain(url, first?.event.Records ?? []);
      await until(async () => (await size()) === 0, 'the queue is empty');
      // The second may become visible when the first is already received.
      assert.deepEqual(batches.slice(1).flatMap(bodies).sort(), ['message 0', 'message 1']);
      assert.equal(errors.length, 1);
    });
  }

  t.test('without ReportBatchItemFailures every answer is success', async (t) => {
    const { url, send, size } = await createQueue();
    await send(1);
    const invoke = async (event: SQSEvent) => failing(event, 'message 0');
    listen(t, { queueUrl: url, reportBatchItemFailures: false, invoke });
    await until(async () => (await size()) === 0, 'the queue is empty');
  });

  t.test('the queue redrives a message after maxReceiveCount receives', async (t) => {
    const dead = await createQueue();
    const { url, send, size } = await createQueue({
      ...HIDDEN,
      RedrivePolicy: JSON.stringify({ deadLetterTargetArn: queueArn(dead.name), maxReceiveCount: 2 }),
    });
    await send(2);
    const { batches } = listen(t, { queueUrl: url, invoke: async (event) => failing(event, 'message 1') });
    for (const receives of [1, 2]) {
      await until(async () => batches.length === receives && (await size()) === 1, `receive ${receives}`);
      await showAgain(url, named(batches.at(-1), 'message 1'));
    }
    await until(async () => (await size()) === 0 && (await dead.size()) === 1, 'it is a dead letter');
    assert.deepEqual(batches.map(bodies), [['message 0', 'message 1'], ['message 1']]);
    assert.deepEqual(
      (await sqs.messages(dead.name)).map(({ body }) => body),
      ['message 1'],
    );
  });

  t.test('delays are kept, and beyond 900 seconds refused', async (t) => {
    const { url, send } = await createQueue();
    const { batches } = listen(t, { queueUrl: url });
    const sent = Date.now();
    await send(1, 1);
    await until(() => batches.length === 1, 'the delay is over');
    const waited = (batches[0]?.at ?? 0) - sent;
    assert.ok(waited >= 1_000, `came after ${waited} ms`);
    const tooLong = new SendMessageCommand({ QueueUrl: url, MessageBody: 'x', DelaySeconds: 901 });
    await assert.rejects(client.send(tooLong), (error) => {
      assert.ok(error instanceof SQSServiceException);
      assert.equal(error.name, 'InvalidParameterValue');
      return true;
    });
    await assert.rejects(send(1, -1), /DelaySeconds must be/);
  });

  t.test('as many batches run at once as the maximum concurrency allows', async (t) => {
    const { url, send, size } = await createQueue();
    await send(60);
    let running = 0;
    let most = 0;
    const third = Promise.withResolvers<void>();
    // Before the event source is closed, which waits for its invocations.
    t.after(() => third.resolve());
    listen(t, {
      queueUrl: url,
      maximumConcurrency: 3,
      invoke: async () => {
        most = Math.max(most, ++running);
        // Nobody ends before three have begun, however busy the machine is; a fourth would show in `most`.
        if (running === 3) setTimeout(third.resolve, 100);
        await third.promise;
        running -= 1;
      },
    });
    await until(async () => (await size()) === 0, 'the queue is empty');
    assert.equal(most, 3);
  });

  t.test('close is prompt when idle, and waits for running invocations', async (t) => {
    // A queue that never answers: whoever waits for its answer waits for ever.
    const polled = Promise.withResolvers<void>();
    const silent = (_: unknown, { abortSignal }: { abortSignal: AbortSignal }) => {
      polled.resolve();
      return new Promise((_, reject) => {
        abortSignal.addEventListener('abort', () => reject(abortSignal.reason), { once: true });
      });
    };
    const { source } = listen(t, {
      client: { send: silent } as unknown as SQSClient,
      queueUrl: sqs.queueUrl('idle'),
    });
    await polled.promise;
    await source.close();

    const busy = await createQueue();
    await busy.send(1);
    const goOn = Promise.withResolvers<void>();
    t.after(() => goOn.resolve());
    let closed = false;
    const { batches, source: running } = listen(t, { queueUrl: busy.url, invoke: () => goOn.promise });
    await until(() => batches.length === 1, 'an invocation runs');
    const closing = running.close().then(() => {
      closed = true;
    });
    for (let turn = 0; turn < 100; turn += 1) await setImmediate();
    assert.equal(closed, false);
    goOn.resolve();
    await closing;
    assert.equal(await busy.size(), 0);
  });

  t.test('what was received is worked on, although the batch cannot be filled up', async (t) => {
    const { url, send, size } = await createQueue();
    await send(15);
    const receives: unknown[] = [];
    const failing = faulty((command) => {
      if (command instanceof ReceiveMessageCommand) receives.push(command);
      return command instanceof ReceiveMessageCommand && receives.length === 2;
    });
    const options = { client: failing, batchSize: 20, batchingWindowSeconds: 0.5 };
    const { batches, errors } = listen(t, { queueUrl: url, ...options });
    await until(async () => (await size()) === 0, 'the queue is empty');
    assert.deepEqual(
      batches.map(({ event }) => event.Records.length),
      [10, 5],
    );
    assert.deepEqual(errors.map(String), ['Error: no answer']);
  });

  t.test('messages that cannot be deleted are nothing to the others', async (t) => {
    const { url, send, size } = await createQueue(HIDDEN);
    await send(15);
    let deletions = 0;
    const failing = faulty((command) => command instanceof DeleteMessageBatchCommand && ++deletions === 1);
    const options = { client: failing, batchSize: 15, batchingWindowSeconds: 1 };
    const { batches, errors } = listen(t, { queueUrl: url, ...options });
    await until(async () => errors.length > 0 && (await size()) === 10, 'the others are deleted');
    // In the order in which they were received: the first ten are those whose deletion failed.
    await showAgain(url, batches[0]?.event.Records.slice(0, 10) ?? []);
    await until(async () => (await size()) === 0, 'the queue is empty');
    const deliveries = batches.flatMap(({ event }) => event.Records);
    assert.equal(new Set(deliveries.map(({ messageId }) => messageId)).size, 15);
    assert.equal(deliveries.length, 25, 'ten of them twice');
    assert.deepEqual(errors.map(String), ['Error: no answer']);
  });

  t.test('a queue that cannot be read is reported, and tried again', async (t) => {
    const { errors } = listen(t, { queueUrl: sqs.queueUrl('missing') });
    await until(() => errors.length === 2, 'it is tried again');
    assert.equal((errors[0] as Error).name, 'QueueDoesNotExist');
  });
});
