import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as connectTo, createServer } from 'node:http';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { DescribeTableCommand, ScanCommand } from '@aws-sdk/client-dynamodb';
import { SendMessageCommand } from '@aws-sdk/client-sqs';
import { listenOnLoopback } from '../../../infra/local/loopback.ts';
import { type Stack, type StackOptions, startStack } from '../../../infra/local/stack.ts';
import { HANG_MS, until } from '../../resources.ts';

const fixture = (name: string) => join(import.meta.dirname, 'fixtures', name);

async function start(t: TestContext, options: StackOptions = {}): Promise<Stack> {
  const stack = await startStack({
    handlers: {
      plan: fixture('plan.ts'),
      dispatch: fixture('dispatch.ts'),
      refresh: fixture('refresh.ts'),
      request: fixture('refresh.ts'),
    },
    refreshWindowSeconds: 0.2,
    schedulerLatenessMs: 100,
    retryDelayMs: 10,
    ...options,
  });
  t.after(() => stack.close());
  return stack;
}

async function domains(stack: Stack): Promise<(string | undefined)[]> {
  const { Items = [] } = await stack.dynamodb.send(new ScanCommand({ TableName: stack.tableName }));
  return Items.map(({ Domain }) => Domain?.S).sort();
}

// All at once: most of each test is waiting for a delay or a visibility timeout.
test('stack', { concurrency: true }, async (t) => {
  t.test('a plan flows through queue, scheduler and functions into the table', async (t) => {
    const lines: string[] = [];
    let deliver: (() => void) | undefined;
    const stack = await start(t, {
      onLine: (name, line) => lines.push(`${name} ${line}`),
      // Held back, so that the schedule comes last on any machine.
      deliver: (invoke) => {
        deliver = invoke;
      },
    });
    await stack.functions.plan.invoke({ now: 'now.example', later: 'later.example' });
    await until(() => deliver, 'the schedule fires');
    await until(async () => (await domains(stack)).length > 0, 'what was due at once is refreshed');
    assert.deepEqual(await domains(stack), ['now.example']);
    deliver?.();
    await stack.drained(HANG_MS);
    assert.deepEqual(await domains(stack), ['later.example', 'now.example']);
    assert.deepEqual(lines, ['refresh {"refreshed":1}', 'refresh {"refreshed":1}']);
  });

  t.test('what cannot be done ends in its dead-letter queue', async (t) => {
    const errors: unknown[] = [];
    const stack = await start(t, {
      visibilityTimeoutSeconds: 1,
      maxReceiveCount: 1,
      onError: (error) => errors.push(error),
    });
    await stack.functions.plan.invoke({ now: 'poison', later: 'broken.example' });
    const request = { QueueUrl: stack.queueUrls['request-queue'], MessageBody: 'poison too' };
    await stack.sqs.send(new SendMessageCommand(request));
    await stack.drained(HANG_MS);
    assert.deepEqual(
      (await stack.deadLetters('refresh-dlq')).map(({ body }) => body),
      ['poison'],
    );
    assert.deepEqual(
      (await stack.deadLetters('request-dlq')).map(({ body }) => body),
      ['poison too'],
    );
    const [failure, ...more] = await stack.deadLetters('failures');
    assert.equal(more.length, 0);
    const { requestPayload, responsePayload } = JSON.parse(failure?.body ?? '');
    assert.deepEqual(requestPayload, { domain: 'broken.example' });
    assert.deepEqual(responsePayload, { errorType: 'TypeError', errorMessage: 'cannot dispatch' });
    assert.deepEqual(errors, [], 'reported failures are not errors of the event source');
  });

  t.test('functions and event sources reach the services through what stands between', async (t) => {
    const seen = new Set<string>();
    const stack = await start(t, {
      between: (service, endpoint) => {
        const server = createServer(async (request, response) => {
          const [, process] = /app\/([a-z]+-[a-z0-9]+)/.exec(request.headers['user-agent'] ?? '') ?? [];
          seen.add(`${process} ${service}`);
          const { method = 'GET', url = '/', headers } = request;
          const through = connectTo(new URL(url, endpoint), { method, headers }, (answer) => {
            response.writeHead(answer.statusCode ?? 500, answer.headers);
            answer.pipe(response);
          });
          through.on('error', () => response.destroy());
          request.pipe(through);
        });
        return listenOnLoopback(server);
      },
    });
    await stack.functions.plan.invoke({ now: 'now.example', later: 'later.example' });
    await stack.drained(HANG_MS);
    assert.deepEqual(await domains(stack), ['later.example', 'now.example']);
    const expected = [
      'plan-1 sqs',
      'plan-1 scheduler',
      'dispatch-1 sqs',
      'poller-refresh sqs',
      'refresh-1 dynamodb',
    ];
    assert.deepEqual(
      expected.filter((each) => !seen.has(each)),
      [],
    );
  });

  t.test('a schedule can be delivered more than once', async (t) => {
    const twice = (invoke: () => void) => {
      invoke();
      invoke();
    };
    const stack = await start(t, { deliver: twice, functions: ['plan', 'dispatch'] });
    await stack.functions.plan.invoke({ now: 'now.example', later: 'later.example' });
    // One at once, and one twice; nobody takes them.
    await until(async () => {
      const left = await stack.drained(0).then(() => 'nothing is left', String);
      return /: refresh-queue: (3 visible, 0|2 visible, 0 in flight, 1)/.test(left);
    }, 'three tasks are in the queue');
  });

  t.test('with some functions left out, their work stays where it is', async (t) => {
    const stack = await start(t, { functions: ['plan'] });
    const hours = { now: 'now.example', nowSeconds: 900, later: 'hours.example', laterSeconds: 7_200 };
    await stack.functions.plan.invoke(hours);
    await assert.rejects(
      stack.drained(200),
      /Not drained after 200 ms: 1 schedules; refresh-queue: .* 1 delayed/,
    );
    await stack.functions.plan.invoke({ now: 'now.example', later: 'later.example' });
    await until(() => stack.scheduler.pending() === 1, 'the other schedule fires');
    const [failure] = await stack.deadLetters('failures');
    assert.equal(failure?.body, '{"domain":"later.example"}');
    assert.match(failure?.messageAttributes.ERROR_MESSAGE?.StringValue ?? '', /no function .*:dispatch/);
  });

  t.test('the table is the one of the template', async (t) => {
    const stack = await start(t);
    const { Table } = await stack.dynamodb.send(new DescribeTableCommand({ TableName: stack.tableName }));
    assert.equal(Table?.TableStatus, 'ACTIVE');
    assert.deepEqual(Table?.KeySchema, [{ AttributeName: 'Domain', KeyType: 'HASH' }]);
    assert.equal(stack.env.POLICY_TABLE, stack.tableName);
    assert.equal(stack.env.AWS_ENDPOINT_URL_DYNAMODB, stack.endpoints.dynamodb);
  });

  t.test('everything listens on loopback only', async (t) => {
    const stack = await start(t);
    const outside = Object.values(networkInterfaces())
      .flat()
      .find((address) => address && !address.internal && address.family === 'IPv4');
    for (const endpoint of Object.values(stack.endpoints)) {
      const { hostname, port } = new URL(endpoint);
      assert.equal(hostname, '127.0.0.1');
      if (!outside) continue;
      const socket = connect({ host: outside.address, port: Number(port), timeout: 1_000 });
      t.after(() => socket.destroy());
      await assert.rejects(once(socket, 'connect'), { code: 'ECONNREFUSED' });
    }
  });

  t.test('a client that goes away in the middle of a request does no harm', async (t) => {
    const stack = await start(t);
    for (const endpoint of Object.values(stack.endpoints)) {
      const socket = connect({ host: '127.0.0.1', port: Number(new URL(endpoint).port) });
      t.after(() => socket.destroy());
      const type = 'content-type: application/x-amz-json-1.0\r\nexpect: 100-continue';
      socket.write(`POST /schedules/x HTTP/1.1\r\nhost: x\r\n${type}\r\ncontent-length: 100\r\n\r\n{"half`);
      // It has the head of the request, and waits for the rest.
      const [answer] = await once(socket, 'data');
      assert.match(String(answer), /^HTTP\/1.1 100 /);
      const closed = once(socket, 'close');
      socket.destroy();
      await closed;
    }
    assert.deepEqual(await domains(stack), []);
  });

  t.test('close ends invocations that take too long', async (t) => {
    const stack = await start(t, { handlers: { refresh: fixture('probe.ts') }, onError: () => {} });
    const event = { do: 'sleep', milliseconds: 3_600_000 };
    const sleeping = stack.functions.refresh.invoke(event).catch(String);
    const message = { QueueUrl: stack.queueUrls['refresh-queue'], MessageBody: 'x' };
    await stack.sqs.send(new SendMessageCommand(message));
    await until(() => stack.functions.refresh.pending === 2, 'both are invoked');
    await stack.close(100);
    assert.equal(await sleeping, 'FunctionError: The function was closed');
  });
});
