import assert from 'node:assert/strict';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { SendMessageBatchCommand, SQSClient } from '@aws-sdk/client-sqs';
import { CLIENT_OPTIONS } from '../../../functions/runtime/clients.ts';
import { listen, until } from '../../resources.ts';

test('a service that accepts the connection and never answers is given up', async (t) => {
  const silent = createServer();
  const port = await listen(t, silent);
  const client = new SQSClient({
    ...CLIENT_OPTIONS,
    // The options as they are, but for the patience that a test has.
    requestHandler: { ...CLIENT_OPTIONS.requestHandler, requestTimeout: 50 },
    maxAttempts: 2,
    region: 'test',
    endpoint: `http://127.0.0.1:${port}`,
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  });
  t.after(() => client.destroy());
  let connections = 0;
  silent.on('connection', () => connections++);
  await assert.rejects(
    client.send(new SendMessageBatchCommand({ QueueUrl: 'https://sqs.test/queue', Entries: [] })),
    { name: 'TimeoutError' },
  );
  await until(() => connections >= 2, 'the server has seen both attempts');
  assert.equal(connections, 2);
});

test('a service that stops in the middle of its answer is given up', async (t) => {
  let requests = 0;
  const stopping = createHttpServer((_request, response) => {
    requests += 1;
    response.writeHead(200, { 'content-type': 'application/x-amz-json-1.0', 'content-length': 100 });
    response.write('{"Successful":');
  });
  const port = await listen(t, stopping);
  const client = new SQSClient({
    ...CLIENT_OPTIONS,
    requestHandler: { ...CLIENT_OPTIONS.requestHandler, socketTimeout: 50 },
    maxAttempts: 2,
    region: 'test',
    endpoint: `http://127.0.0.1:${port}`,
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  });
  t.after(() => client.destroy());
  await assert.rejects(
    client.send(new SendMessageBatchCommand({ QueueUrl: 'https://sqs.test/queue', Entries: [] })),
    { name: 'TimeoutError' },
  );
  await until(() => requests >= 2, 'the server has seen both attempts');
  assert.equal(requests, 2);
});

test('every client has time limits that fit into the shortest function, retries included', () => {
  const { maxAttempts, requestHandler } = CLIENT_OPTIONS;
  assert.ok(maxAttempts > 1);
  assert.ok(maxAttempts * (requestHandler.connectionTimeout + requestHandler.requestTimeout) < 30_000);
  assert.ok(requestHandler.throwOnRequestTimeout);
  assert.ok(requestHandler.socketTimeout <= requestHandler.requestTimeout);
});
