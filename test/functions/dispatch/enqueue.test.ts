import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import {
  type BatchResultErrorEntry,
  type SendMessageBatchCommandInput,
  type SendMessageBatchRequestEntry,
  SQSClient,
} from '@aws-sdk/client-sqs';
import fc from 'fast-check';
import { createEnqueue, delaySeconds } from '../../../functions/dispatch/enqueue.ts';
import type { WaveTask } from '../../../functions/dispatch/wave.ts';
import { decodeTask } from '../../../functions/refresh/task.ts';
import { NOON, tasks } from './tasks.ts';

const QUEUE = 'https://sqs.test/refresh-queue';

type Failed = readonly BatchResultErrorEntry[];

/**
 * An SQS client whose calls end in `answer`: it says which entries of a call, the first being number 1, have failed.
 * Fails on any other call than SendMessageBatch to the queue.
 */
function fakeSqs(
  answer: (entries: SendMessageBatchRequestEntry[], call: number) => Failed | Promise<Failed>,
) {
  const calls: SendMessageBatchRequestEntry[][] = [];
  const client = new SQSClient({ region: 'test' });
  client.middlewareStack.add(
    (_next, context) => async (args) => {
      assert.equal(context.commandName, 'SendMessageBatchCommand');
      const { QueueUrl, Entries = [] } = args.input as SendMessageBatchCommandInput;
      assert.equal(QueueUrl, QUEUE);
      calls.push(Entries);
      const Failed = await answer(Entries, calls.length);
      return { response: {}, output: { Failed: [...Failed], Successful: [], $metadata: {} } };
    },
    { step: 'initialize', priority: 'high' },
  );
  return {
    client,
    calls,
    enqueue: createEnqueue({ client, queueUrl: QUEUE, now: () => NOON, firstPauseMs: 1 }),
  };
}

function failure(
  entry: SendMessageBatchRequestEntry | undefined,
  SenderFault = false,
): BatchResultErrorEntry {
  return { Id: entry?.Id, Code: 'InternalError', Message: 'try again', SenderFault };
}

function domainsOf(entries: readonly SendMessageBatchRequestEntry[]): string[] {
  return entries.map((entry) => {
    const task = decodeTask(entry.MessageBody ?? '');
    assert.ok(task.ok);
    return task.value.domain;
  });
}

function domainNames(given: readonly WaveTask[]): string[] {
  return given.map((task) => task.domain);
}

test('every task is sent once, ten a call, as the message that refresh reads, delayed until it is due', async () => {
  const { enqueue, calls } = fakeSqs(() => []);
  const given = tasks(25, (i) => NOON + i * 1_000);
  await enqueue(given);
  assert.deepEqual(
    calls.map((entries) => entries.length),
    [10, 10, 5],
  );
  const entries = calls.flat();
  assert.deepEqual(domainsOf(entries), domainNames(given));
  assert.deepEqual(JSON.parse(entries[3]?.MessageBody ?? ''), {
    domain: 'd3.example',
    lastUpdate: NOON - 86_400_000 - 3,
  });
  assert.deepEqual(
    entries.map((entry) => entry.DelaySeconds),
    given.map((_, i) => i),
  );
  for (const call of calls) assert.equal(new Set(call.map((entry) => entry.Id)).size, call.length);
});

test('without tasks there is no call', async () => {
  const { enqueue, calls } = fakeSqs(() => []);
  await enqueue([]);
  assert.equal(calls.length, 0);
});

test('several calls are under way at once, but no more than sixteen', async () => {
  let running = 0;
  let most = 0;
  const { enqueue, calls } = fakeSqs(async () => {
    most = Math.max(most, ++running);
    await turn();
    running--;
    return [];
  });
  await enqueue(tasks(1_000));
  assert.equal(calls.length, 100);
  assert.equal(most, 16);
});

test('only the entries that failed are sent again, each for the time that is left', async () => {
  let now = NOON;
  const { client, calls } = fakeSqs((entries, call) => {
    now += 60_000;
    if (call === 1) return [failure(entries[2]), failure(entries[7])];
    return call === 2 ? [failure(entries[1])] : [];
  });
  const enqueue = createEnqueue({ client, queueUrl: QUEUE, now: () => now, firstPauseMs: 1 });
  await enqueue(tasks(10, (i) => NOON + 100_000 + i * 1_000));
  assert.deepEqual(calls.slice(1).map(domainsOf), [['d2.example', 'd7.example'], ['d7.example']]);
  assert.deepEqual(
    calls.slice(1).map((entries) => entries.map((entry) => entry.DelaySeconds)),
    [[42, 47], [0]],
  );
});

test('entries that keep failing are given up after five attempts, with their number and code', async () => {
  const { enqueue, calls } = fakeSqs((entries) => entries.slice(0, 3).map((entry) => failure(entry)));
  await assert.rejects(enqueue(tasks(10)), /^Error: SQS failed 3 tasks, .*InternalError \(try again\)/);
  assert.deepEqual(
    calls.map((entries) => entries.length),
    [10, 3, 3, 3, 3],
  );
});

test('nothing more is sent once some were given up: the whole is repeated anyway', async () => {
  const { enqueue, calls } = fakeSqs((entries) => entries.map((entry) => failure(entry)));
  await assert.rejects(enqueue(tasks(10_000)), /SQS failed 10 tasks/);
  assert.equal(calls.length, 16 * 5);
});

test('an entry that SQS refuses as ours is not sent again, and keeps no other from being sent', async () => {
  const { enqueue, calls } = fakeSqs((entries, call) => {
    if (call === 1)
      return [{ ...failure(entries[4], true), Code: 'InvalidMessageContents' }, failure(entries[5])];
    return call === 3 ? [failure(entries[0], true)] : [];
  });
  await assert.rejects(
    enqueue(tasks(1_000)),
    /^Error: SQS refused 2 tasks, .*(InvalidMessageContents|InternalError)/,
  );
  const sent = calls.flatMap(domainsOf);
  assert.equal(calls.length, 101);
  assert.equal(sent.length, 1_001);
  assert.deepEqual(new Set(sent), new Set(domainNames(tasks(1_000))));
  assert.equal(sent.filter((domain) => domain === 'd4.example').length, 1);
  assert.equal(sent.filter((domain) => domain === 'd5.example').length, 2);
});

test('a failed call rejects with its error, after the calls under way have ended, and starts no others', async () => {
  let running = 0;
  const { enqueue, calls } = fakeSqs(async (_entries, call) => {
    running++;
    await turn();
    running--;
    if (call === 2) throw new Error('SQS is down');
    return [];
  });
  await assert.rejects(enqueue(tasks(1_000)), /SQS is down/);
  assert.equal(running, 0);
  assert.ok(calls.length < 2 * 16, `${calls.length} calls`);
});

const delays: [name: string, due: number, seconds: number][] = [
  ['due now', 0, 0],
  ['overdue', -1, 0],
  ['overdue for a day', -86_400_000, 0],
  ['due in less than a second', 999, 0],
  ['due in a second', 1_000, 1],
  ['due in as long as SQS delays', 900_000, 900],
  ['due in a little longer', 900_999, 900],
  ['due tomorrow', 86_400_000, 900],
];

for (const [name, due, seconds] of delays) {
  test(`delay: ${name}: ${seconds} s`, () => assert.equal(delaySeconds(NOON + due, NOON), seconds));
}

test('delay: always a whole number from 0 to 900; never late, and less than a second early unless SQS is the limit', () => {
  const time = fc.oneof(
    fc.double({ min: 0, max: 4e12, noNaN: true }),
    fc.integer({ min: NOON, max: NOON + 1e6 }),
  );
  fc.assert(
    fc.property(time, time, (due, now) => {
      const delay = delaySeconds(due, now);
      assert.ok(Number.isInteger(delay) && delay >= 0 && delay <= 900);
      if (due >= now) assert.ok(now + delay * 1_000 <= due + 1e-3);
      if (due <= now + 900_000) assert.ok(now + delay * 1_000 > due - 1_000 - 1e-3);
    }),
  );
});
