// Lambda's runtime logs what a handler throws, word by word. So what handlers throw for a fault of AWS is bounded and
// redacted first.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { listen } from '../../resources.ts';

const FUNCTIONS = join(import.meta.dirname, '../../../functions');
const TOKEN = 'FwoGZXIvYXdzEJr';
const QUOTED = `The Canonical String should have been 'POST\nx-amz-security-token:${TOKEN}\n${'x'.repeat(50_000)}`;

const VARIABLES = {
  POLICY_TABLE: 'policies',
  REFRESH_QUEUE_URL: 'https://sqs.test/refresh-queue',
  SCHEDULE_GROUP: 'waves',
  DISPATCH_FUNCTION_ARN: 'arn:aws:lambda:us-east-1:123456789012:function:dispatch',
  SCHEDULER_ROLE_ARN: 'arn:aws:iam::123456789012:role/scheduler',
  SCHEDULER_DLQ_ARN: 'arn:aws:sqs:us-east-1:123456789012:failures',
  AWS_REGION: 'test',
  AWS_ACCESS_KEY_ID: 'test',
  AWS_SECRET_ACCESS_KEY: 'test',
  AWS_SESSION_TOKEN: TOKEN,
};

const events: [name: string, event: unknown][] = [
  ['plan', { kind: 'daily', runId: 'run' }],
  ['dispatch', { runId: 'run', tasks: [['a.example', 1, 1]] }],
];

test('a handler that rejects because AWS refused its signature tells nothing of the request', async (t) => {
  const server = createServer((_, response) => {
    response
      .writeHead(400, { 'content-type': 'application/x-amz-json-1.0' })
      .end(JSON.stringify({ __type: 'InvalidSignatureException', message: QUOTED }));
  });
  const endpoint = `http://127.0.0.1:${await listen(t, server)}`;
  Object.assign(process.env, VARIABLES, {
    AWS_ENDPOINT_URL: endpoint,
    REFRESH_QUEUE_URL: `${endpoint}/queue`,
  });
  for (const [name, event] of events) {
    const { handler } = await import(pathToFileURL(join(FUNCTIONS, name, 'handler.ts')).href);
    await assert.rejects(handler(event, { awsRequestId: 'request' }), (error: Error) => {
      assert.equal(error.name, 'InvalidSignatureException');
      assert.match(error.message, /^The Canonical String/);
      const all = `${error.message}${error.stack}${JSON.stringify(error)}`;
      assert.ok(!all.includes(TOKEN) && all.length <= 10_000, all);
      return true;
    });
  }
});
