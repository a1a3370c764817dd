import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';
import { SendMessageBatchCommand, SQSClient } from '@aws-sdk/client-sqs';
import { CLIENT_OPTIONS } from '../../../functions/runtime/clients.ts';

test('a service that accepts the connection and never answers is given up', async (t) => {
  const silent = createServer().listen(0, '127.0.0.1');
  t.after(() => silent.close());
  await once(silent, 'listening');
  const client = new SQSClient({
    ...CLIENT_OPTIONS,
    // The options as they are, but for the patience that a test has.
    requestHandler: { ...CLIENT_OPTIONS.requestHandler, requestTimeout: 50 },
    maxAttempts: 2,
    region: 'test',
    endpoint: `http://127.0.0.1:${(silent.address() as AddressInfo).port}`,
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  });
  t.after(() => client.destroy());
  let connections = 0;
  silent.on('connection', () => connections++);
  await assert.rejects(
    client.send(new SendMessageBatchCommand({ QueueUrl: 'https://sqs.test/queue', Entries: [] })),
    { name: 'TimeoutError' },
  );
  assert.equal(connections, 2);
});

test('every client has time limits that fit into the shortest function, retries included', () => {
  const { maxAttempts, requestHandler } = CLIENT_OPTIONS;
  assert.ok(maxAttempts > 1);
  assert.ok(maxAttempts * (requestHandler.connectionTimeout + requestHandler.requestTimeout) < 30_000);
  assert.ok(requestHandler.throwOnRequestTimeout);
});
