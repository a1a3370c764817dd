// What each fault comes to on the wire: what the service gets, and what its caller.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  BatchGetItemCommand,
  DeleteItemCommand,
  DynamoDBClient,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb';
import { SendMessageBatchCommand, SQSClient } from '@aws-sdk/client-sqs';
import { localClientConfig } from '../../infra/local/environment.ts';
import { listenOnLoopback } from '../../infra/local/loopback.ts';
import { until } from '../resources.ts';
import type { Json } from './call.ts';
import type { Fault } from './fault.ts';
import { createJournal } from './journal.ts';
import { createProxies } from './proxy.ts';

const Key = { Domain: { S: 'a.test' } };
const TableName = 'policies';
const COMMANDS = {
  update: new UpdateItemCommand({
    TableName,
    Key,
    UpdateExpression: 'SET #LastUpdate = :LastUpdate',
    ConditionExpression: '#lock = :lock',
    ExpressionAttributeNames: { '#LastUpdate': 'LastUpdate', '#lock': 'LastUpdate' },
    ExpressionAttributeValues: { ':LastUpdate': { N: '2' }, ':lock': { N: '1' } },
  }),
  remove: new DeleteItemCommand({ TableName, Key }),
  read: new BatchGetItemCommand({
    RequestItems: { [TableName]: { Keys: [Key, { Domain: { S: 'b.test' } }] } },
  }),
  send: new SendMessageBatchCommand({
    QueueUrl: 'http://127.0.0.1:1/000000000000/queue',
    Entries: [
      { Id: '0', MessageBody: '{"domain":"a.test"}' },
      { Id: '1', MessageBody: '{"domain":"b.test"}' },
    ],
  }),
};

/** A service that does whatever it is asked, and remembers it; and a client with one attempt, which calls through a proxy. */
async function start(t: TestContext, fault: Fault) {
  const asked: Json[] = [];
  const service = await listenOnLoopback(
    createServer(async (request, response) => {
      const body = JSON.parse(Buffer.concat(await request.toArray()).toString()) as Json;
      asked.push(body);
      const entries = (body.Entries ?? []) as { Id: string }[];
      const tables = (body.RequestItems ?? {}) as Record<string, { Keys: Json[] }>;
      response.setHeader('content-type', 'application/x-amz-json-1.0');
      response.end(
        JSON.stringify({
          ...(body.ReturnValues ? { Attributes: { ...Key, LastUpdate: { N: '1' } } } : {}),
          ...(body.Entries ? { Successful: entries.map(({ Id }) => ({ Id })), Failed: [] } : {}),
          ...(body.RequestItems ? { Responses: { [TableName]: tables[TableName]?.Keys } } : {}),
        }),
      );
    }),
  );
  t.after(service.close);
  const journal = createJournal();
  const killed: string[] = [];
  const proxies = createProxies(journal, async (process) => void killed.push(process));
  const dynamodb = await proxies.between('dynamodb', service.endpoint);
  t.after(dynamodb.close);
  const sqs = await proxies.between('sqs', service.endpoint);
  t.after(sqs.close);
  const options = { maxAttempts: 1, userAgentAppId: 'refresh-7' };
  const database = new DynamoDBClient({ ...localClientConfig(dynamodb.endpoint), ...options });
  t.after(() => database.destroy());
  const queues = new SQSClient({ ...localClientConfig(sqs.endpoint), ...options, md5: false });
  t.after(() => queues.destroy());
  const call = async (which: keyof typeof COMMANDS): Promise<Json> => {
    const command = COMMANDS[which];
    const { $metadata, ...answer } =
      command instanceof SendMessageBatchCommand
        ? await queues.send(command)
        : await database.send(command as typeof COMMANDS.update);
    return answer;
  };
  let calls = 0;
  proxies.play(() => (++calls === 1 ? fault : undefined));
  return { asked, journal, killed, proxies, call };
}

interface Row {
  readonly fault: Fault;
  readonly call?: keyof typeof COMMANDS;
  /** What the service was asked, in calls. */
  readonly asked: number;
  readonly error?: object;
  readonly answer?: Json;
}

const rows: readonly Row[] = [
  { fault: { kind: 'throttle' }, asked: 0, error: { name: /ThrottlingException|ProvisionedThroughput/ } },
  { fault: { kind: 'throttle' }, call: 'send', asked: 0, error: { name: 'RequestThrottled' } },
  { fault: { kind: 'error', status: 500 }, asked: 0, error: { name: 'InternalServerError' } },
  { fault: { kind: 'error', status: 503 }, asked: 0, error: { name: 'SyntaxError' } },
  { fault: { kind: 'error', status: 500, applied: true }, asked: 1, error: { name: 'InternalServerError' } },
  { fault: { kind: 'cut', applied: false }, asked: 0, error: { message: /ECONNRESET|socket hang up/ } },
  { fault: { kind: 'cut', applied: true }, asked: 1, error: { message: /ECONNRESET|socket hang up/ } },
  { fault: { kind: 'truncate' }, call: 'send', asked: 1, error: { message: /aborted/ } },
  { fault: { kind: 'delay', ms: 30 }, asked: 1, answer: {} },
  { fault: { kind: 'delay', ms: 30, applied: true }, asked: 1, answer: {} },
  { fault: { kind: 'hold', passes: 1, atMostMs: 30 }, asked: 1, answer: {} },
  { fault: { kind: 'twice' }, asked: 2, answer: {} },
  { fault: { kind: 'kill', applied: false }, asked: 0, error: { message: /ECONNRESET|socket hang up/ } },
  { fault: { kind: 'kill', applied: true }, asked: 1, error: { message: /ECONNRESET|socket hang up/ } },
  {
    fault: { kind: 'partial', picks: (_, text) => text.includes('b.test') },
    call: 'send',
    asked: 1,
    answer: {
      Successful: [{ Id: '0' }],
      Failed: [{ Id: '1', SenderFault: false, Code: 'InternalError', Message: 'Failed' }],
    },
  },
  {
    fault: { kind: 'partial', picks: (index) => index === 0, senderFault: true, applied: true },
    call: 'send',
    asked: 1,
    answer: {
      Successful: [{ Id: '1' }],
      Failed: [{ Id: '0', SenderFault: true, Code: 'InvalidMessageContents', Message: 'Failed' }],
    },
  },
  {
    fault: { kind: 'partial', picks: () => true },
    call: 'read',
    asked: 0,
    answer: {
      Responses: { [TableName]: [] },
      UnprocessedKeys: { [TableName]: { Keys: [Key, { Domain: { S: 'b.test' } }] } },
    },
  },
  {
    fault: { kind: 'partial', picks: (index) => index === 1 },
    call: 'read',
    asked: 1,
    answer: {
      Responses: { [TableName]: [Key] },
      UnprocessedKeys: { [TableName]: { Keys: [{ Domain: { S: 'b.test' } }] } },
    },
  },
];

for (const { fault, call = 'update', asked, error, answer } of rows) {
  test(`${call}: ${JSON.stringify(fault)}`, async (t) => {
    const scene = await start(t, fault);
    if (error) {
      await assert.rejects(scene.call(call), error);
    } else {
      assert.deepEqual(await scene.call(call), answer);
    }
    assert.equal(scene.asked.length, asked);
    assert.deepEqual(scene.killed, fault.kind === 'kill' ? ['refresh-7'] : []);
    assert.deepEqual([...scene.proxies.injected.values()], [1]);
    assert.equal(scene.proxies.busy, 0);
    const Attributes = { ...Key, LastUpdate: { N: '1' } };
    await scene.call('remove');
    assert.deepEqual(scene.journal.writes.at(-1)?.before, Attributes, 'the next one goes through');
  });
}

test('an answer that stops half way comes to no end', async (t) => {
  const { asked, call } = await start(t, { kind: 'stop' });
  const answer = call('send').then(
    () => 'answered',
    () => 'failed',
  );
  await until(() => asked.length === 1, 'the service is asked');
  assert.equal(await Promise.race([answer, delay(200, 'nothing')]), 'nothing');
});

test('a later call overtakes one that is held', async (t) => {
  const { asked, call, proxies } = await start(t, { kind: 'hold', passes: 1, atMostMs: 60_000 });
  const held = call('update');
  await until(() => proxies.busy > 0, 'the first call is held');
  await call('update');
  assert.equal(asked.length, 1);
  await held;
  assert.equal(asked.length, 2);
});

test('the journal knows what the database did, whatever its caller was told', async (t) => {
  const fault: Fault = { kind: 'cut', applied: true };
  const { journal, proxies, call } = await start(t, fault);
  proxies.play(({ operation }) => (operation === 'BatchGetItem' ? undefined : fault));
  await call('read');
  await assert.rejects(call('update'));
  await assert.rejects(call('remove'));
  const before = { ...Key, LastUpdate: { N: '1' } };
  const written = { process: 'refresh-7', domain: 'a.test', read: undefined, before };
  assert.deepEqual(journal.writes, [
    { kind: 'refresh', ...written, lastUpdate: 2 },
    { kind: 'removal', ...written, lastUpdate: undefined },
  ]);
});

test('a condition can be forgotten', async (t) => {
  const { asked, call } = await start(t, { kind: 'stall', until: Promise.resolve(), forget: true });
  await call('update');
  const [body] = asked;
  assert.equal(body?.ConditionExpression, undefined);
  assert.deepEqual(body?.ExpressionAttributeValues, { ':LastUpdate': { N: '2' } });
  assert.deepEqual(body?.ExpressionAttributeNames, { '#LastUpdate': 'LastUpdate' });
});
