// The poller with which Lambda reads a standard SQS queue ("Using Lambda with Amazon SQS"). It knows nothing of the
// function behind `invoke`. Retries and dead letters are the queue's own: what is not deleted becomes visible again.

import { setTimeout as delay } from 'node:timers/promises';
import {
  DeleteMessageBatchCommand,
  type Message,
  type MessageAttributeValue,
  ReceiveMessageCommand,
  type SQSClient,
} from '@aws-sdk/client-sqs';
import type { SQSEvent, SQSMessageAttribute, SQSRecord, SQSRecordAttributes } from 'aws-lambda';
import { REGION } from './environment.ts';

/** ReceiveMessage and DeleteMessageBatch take at most this many messages. */
const MESSAGES_PER_CALL = 10;

/** How long an idle poll waits for the first message of a batch. */
const LONG_POLL_SECONDS = 1;

/** Between looks at an empty queue while a batch is being gathered. */
const WINDOW_POLL_MS = 25;

const PAUSE_AFTER_ERROR_MS = 500;

export interface EventSourceOptions {
  readonly client: SQSClient;
  readonly queueUrl: string;
  /** At most 10 without a window, as in Lambda. */
  readonly batchSize: number;
  /** From the first message of a batch on. */
  readonly batchingWindowSeconds: number;
  readonly maximumConcurrency: number;
  /** FunctionResponseTypes: [ReportBatchItemFailures]. */
  readonly reportBatchItemFailures?: boolean;
  readonly invoke: (event: SQSEvent) => Promise<unknown>;
  /** Failed invocations, malformed responses, and SQS faults. */
  readonly onError?: (error: unknown) => void;
}

export interface EventSource {
  /** Stops polling and waits for the running invocations. Messages of an unfinished batch become visible again. */
  close(): Promise<void>;
}

export function startEventSource(options: EventSourceOptions): EventSource {
  const { client, queueUrl, batchSize, maximumConcurrency, onError = () => {} } = options;
  const windowMs = options.batchingWindowSeconds * 1_000;
  if (batchSize > MESSAGES_PER_CALL && windowMs <= 0)
    throw new RangeError('A batch over 10 needs a batching window');
  const queueArn = `arn:aws:sqs:${REGION}:${new URL(queueUrl).pathname.slice(1).replace('/', ':')}`;
  const closing = new AbortController();
  const running = new Set<Promise<void>>();

  async function receive(count: number, waitSeconds: number): Promise<Message[]> {
    const command = new ReceiveMessageCommand({
      QueueUrl: queueUrl,
      MaxNumberOfMessages: Math.min(count, MESSAGES_PER_CALL),
      WaitTimeSeconds: waitSeconds,
      MessageSystemAttributeNames: ['All'],
      MessageAttributeNames: ['All'],
    });
    const { Messages = [] } = await client.send(command, { abortSignal: closing.signal });
    return Messages;
  }

  async function gather(): Promise<Message[]> {
    const batch = await receive(batchSize, LONG_POLL_SECONDS);
    const end = Date.now() + windowMs;
    while (batch.length > 0 && batch.length < batchSize && Date.now() < end) {
      let more: Message[];
      try {
        more = await receive(batchSize - batch.length, 0);
      } catch (error) {
        // What was received is received: not to work on it would use up one of its deliveries.
        if (closing.signal.aborted) throw error;
        onError(error);
        break;
      }
      batch.push(...more);
      const pause = Math.min(WINDOW_POLL_MS, end - Date.now());
      if (more.length === 0 && pause > 0) await delay(pause, undefined, { signal: closing.signal });
    }
    return batch;
  }

  /** What stays because its deletion failed is delivered again, and is none of the others' business. */
  async function remove(messages: Message[]): Promise<void> {
    const errors: unknown[] = [];
    for (let start = 0; start < messages.length; start += MESSAGES_PER_CALL) {
      const entries = messages
        .slice(start, start + MESSAGES_PER_CALL)
        .map(({ ReceiptHandle }, index) => ({ Id: String(index), ReceiptHandle }));
      try {
        const { Failed = [] } = await client.send(
          new DeleteMessageBatchCommand({ QueueUrl: queueUrl, Entries: entries }),
        );
        if (Failed.length > 0)
          throw new Error(`DeleteMessageBatch failed for ${Failed.length}: ${Failed[0]?.Message}`);
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }

  async function handle(batch: Message[]): Promise<void> {
    const records = batch.map((message) => toRecord(message, queueArn));
    const response = await options.invoke({ Records: records });
    const failed = new Set(options.reportBatchItemFailures === false ? [] : failedItems(response));
    const strangers = [...failed].filter((id) => !records.some(({ messageId }) => messageId === id));
    // Deleting the others would lose the message that was meant, so Lambda takes the whole batch for failed.
    if (strangers.length > 0)
      throw new Error(`batchItemFailures names no message: ${JSON.stringify(strangers)}`);
    await remove(batch.filter(({ MessageId }) => !failed.has(MessageId)));
  }

  async function poll(): Promise<void> {
    while (!closing.signal.aborted) {
      try {
        if (running.size >= maximumConcurrency) await Promise.race(running);
        const batch = await gather();
        if (batch.length === 0) continue;
        const invocation = handle(batch)
          .catch(onError)
          .finally(() => running.delete(invocation));
        running.add(invocation);
      } catch (error) {
        if (closing.signal.aborted) break;
        onError(error);
        await delay(PAUSE_AFTER_ERROR_MS, undefined, { signal: closing.signal }).catch(() => {});
      }
    }
    await Promise.all(running);
  }

  const polling = poll();
  return {
    close: () => {
      closing.abort();
      return polling;
    },
  };
}

/** Throws where Lambda fails the whole batch; "Reporting batch item failures" lists what counts as success. */
function failedItems(response: unknown): unknown[] {
  if (response === null || response === undefined || response === '') return [];
  const failures =
    typeof response === 'object' && 'batchItemFailures' in response ? response.batchItemFailures : [];
  if (failures === null || failures === undefined) return [];
  if (typeof response !== 'object' || !Array.isArray(failures)) {
    throw new Error(`The response is no batch response: ${JSON.stringify(response)?.slice(0, 200)}`);
  }
  return failures.map((failure: { itemIdentifier?: unknown } | null) => failure?.itemIdentifier ?? null);
}

function toRecord(message: Message, queueArn: string): SQSRecord {
  const attributes = Object.entries(message.MessageAttributes ?? {});
  return {
    messageId: message.MessageId ?? '',
    receiptHandle: message.ReceiptHandle ?? '',
    body: message.Body ?? '',
    attributes: { ...message.Attributes } as unknown as SQSRecordAttributes,
    messageAttributes: Object.fromEntries(attributes.map(([name, value]) => [name, toAttribute(value)])),
    md5OfBody: message.MD5OfBody ?? '',
    ...(message.MD5OfMessageAttributes ? { md5OfMessageAttributes: message.MD5OfMessageAttributes } : {}),
    eventSource: 'aws:sqs',
    eventSourceARN: queueArn,
    awsRegion: REGION,
  };
}

function toAttribute({
  DataType = 'String',
  StringValue,
  BinaryValue,
}: MessageAttributeValue): SQSMessageAttribute {
  return {
    dataType: DataType,
    ...(StringValue === undefined ? {} : { stringValue: StringValue }),
    ...(BinaryValue === undefined ? {} : { binaryValue: Buffer.from(BinaryValue).toString('base64') }),
    stringListValues: [],
    binaryListValues: [],
  };
}
