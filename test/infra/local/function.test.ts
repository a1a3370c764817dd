import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { localClientConfig, sandboxEnvironment } from '../../../infra/local/environment.ts';
import {
  type FailureRecord,
  FunctionError,
  type FunctionOptions,
  LocalFunction,
} from '../../../infra/local/function.ts';
import { until } from '../../resources.ts';

const fixture = (name: string) => join(import.meta.dirname, 'fixtures', name);

const endpoints = {
  dynamodb: 'http://127.0.0.1:2',
  sqs: 'http://127.0.0.1:3',
  scheduler: 'http://127.0.0.1:4',
};

function create(t: TestContext, options: Partial<FunctionOptions> = {}): LocalFunction {
  const local = new LocalFunction({
    name: 'probe',
    handler: fixture('probe.ts'),
    endpoints,
    timeoutSeconds: 600,
    concurrency: 1,
    retryDelayMs: 10,
    ...options,
  });
  t.after(() => local.close());
  return local;
}

test('a handler gets its event and a context like that of Lambda', async (t) => {
  const local = create(t, { memoryMegabytes: 256 });
  assert.deepEqual(await local.invoke({ do: 'echo', value: { a: [1, null] } }), { a: [1, null] });
  assert.equal(await local.invoke({ do: 'echo' }), null, 'no result is null');

  const context = (await local.invoke({ do: 'context' })) as Record<string, unknown>;
  assert.equal(context.functionName, 'probe');
  assert.equal(context.invokedFunctionArn, 'arn:aws:lambda:us-east-1:000000000000:function:probe');
  assert.equal(context.memoryLimitInMB, '256');
  assert.match(String(context.awsRequestId), /^[0-9a-f-]{36}$/);
  assert.ok(Number(context.remaining) > 500_000 && Number(context.remaining) <= 600_000);
  assert.equal(context.invocations, 3, 'the process stays warm');
  assert.notEqual(context.pid, process.pid);
});

test('a CommonJS bundle is run as well', async (t) => {
  const local = create(t, { handler: fixture('bundle.cjs') });
  assert.deepEqual(await local.invoke(1), { bundle: 1 });
});

test('a handler that throws fails its invocation with name, message and stack, and stays warm', async (t) => {
  const local = create(t);
  await assert.rejects(local.invoke({ do: 'fail' }), (error) => {
    assert.ok(error instanceof FunctionError);
    assert.equal(error.errorType, 'RangeError');
    assert.equal(error.message, 'as asked');
    assert.match(error.stack ?? '', /probe\.ts/);
    return true;
  });
  assert.equal(((await local.invoke({ do: 'context' })) as { invocations: number }).invocations, 2);
});

test('a handler that cannot be imported fails every invocation', async (t) => {
  const local = create(t, { handler: fixture('broken.ts') });
  for (let attempt = 0; attempt < 2; attempt++) {
    await assert.rejects(local.invoke({}), { errorType: 'SyntaxError', message: 'cannot be imported' });
  }
  const missing = create(t, { handler: fixture('missing.ts') });
  await assert.rejects(missing.invoke({}), /Cannot find module/);
});

test('a handler that is too slow is killed, even in an endless loop', async (t) => {
  const local = create(t, { timeoutSeconds: 0.3 });
  const expected = { errorType: 'Sandbox.Timedout', message: 'Task timed out after 0.3 seconds' };
  await assert.rejects(local.invoke({ do: 'spin' }), expected);
  // It has no more time than the one before, which a busy machine may use up.
  const next = () => local.invoke({ do: 'echo', value: 1 }).catch(() => undefined);
  assert.equal(await until(next, 'the next one gets a new process'), 1);
});

test('a process that ends fails its invocation, with its last lines delivered', async (t) => {
  const lines: string[] = [];
  const local = create(t, { onLine: (_name, line) => lines.push(line) });
  await assert.rejects(local.invoke({ do: 'exit' }), {
    errorType: 'Runtime.ExitError',
    message: /exit status 7/,
  });
  assert.deepEqual(lines, ['last words']);
  await assert.rejects(local.invoke({ do: 'reject' }), {
    errorType: 'Runtime.ExitError',
    message: /status 1/,
  });
  assert.match(lines.join('\n'), /nobody awaits this/);
  assert.equal(await local.invoke({ do: 'echo', value: 1 }), 1);
});

test('all lines of an invocation come before its result', async (t) => {
  const lines: string[] = [];
  const local = create(t, { onLine: (name, line) => lines.push(`${name}: ${line}`) });
  for (let round = 0; round < 20; round++) {
    await local.invoke({ do: 'print' });
    const expected = [
      'probe: no line end',
      'probe: to standard error',
      `probe: ${JSON.stringify({ text: 'zwei\u2028Zeilen' })}`,
    ];
    assert.deepEqual(lines.splice(0).sort(), expected);
  }
});

test('one process runs one invocation at a time; over the concurrency they wait', async (t) => {
  const local = create(t, { concurrency: 2 });
  const started = Date.now();
  const sleeps = Array.from({ length: 4 }, () => local.invoke({ do: 'sleep', milliseconds: 200 }));
  assert.equal(local.pending, 4);
  const pids = await Promise.all(sleeps);
  assert.equal(new Set(pids).size, 2);
  assert.ok(Date.now() - started >= 400);
  assert.equal(local.pending, 0);
});

test('an asynchronous invocation is retried, then handed to the on-failure destination', async (t) => {
  const records: FailureRecord[] = [];
  const local = create(t, { onFailure: (record) => void records.push(record) });
  await local.invokeAsync({ do: 'echo' });
  assert.equal(records.length, 0);

  await local.invokeAsync({ do: 'fail' });
  const [record] = records;
  assert.ok(record);
  assert.equal(record.requestContext.approximateInvokeCount, 3);
  assert.equal(record.requestContext.condition, 'RetriesExhausted');
  assert.deepEqual(record.requestPayload, { do: 'fail' });
  assert.deepEqual(record.responsePayload, { errorType: 'RangeError', errorMessage: 'as asked' });
  const context = (await local.invoke({ do: 'context' })) as { invocations: number };
  assert.equal(context.invocations, 5);
});

test('a process can be killed by its name, which its requests carry', async (t) => {
  const local = create(t, { concurrency: 2 });
  const sleeping = local.invoke({ do: 'sleep', milliseconds: 3_600_000 });
  const killed = assert.rejects(sleeping, { errorType: 'Runtime.ExitError', message: /SIGKILL/ });
  const { AWS_SDK_UA_APP_ID: other } = (await local.invoke({ do: 'environment' })) as Record<string, string>;
  assert.deepEqual([other, local.processes], ['probe-2', ['probe-1', 'probe-2']]);
  assert.equal(await local.kill('probe-1'), true);
  await killed;
  assert.deepEqual(local.processes, ['probe-2'], 'and no other');
  assert.equal(await local.kill('probe-1'), false, 'it is gone');
  await local.kill('probe-2');
  assert.equal(await local.invoke({ do: 'echo', value: 1 }), 1, 'the next one gets a new process');
  assert.deepEqual(local.processes, ['probe-3']);
});

test('close ends what runs, what waits and what would be retried', async (t) => {
  const local = create(t, { retryDelayMs: 60_000, onFailure: () => assert.fail('given up, not failed') });
  const retried = local.invokeAsync({ do: 'fail' });
  await local.invoke({ do: 'echo' });
  const running = assert.rejects(local.invoke({ do: 'spin' }), { errorType: 'Sandbox.Closed' });
  const waiting = assert.rejects(local.invoke({ do: 'echo' }), { errorType: 'Sandbox.Closed' });
  await local.close();
  await Promise.all([retried, running, waiting]);
  await assert.rejects(local.invoke({ do: 'echo' }), { errorType: 'Sandbox.Closed' });
});

test('a function inherits nothing that leads to a real account', async (t) => {
  const hostile = {
    AWS_PROFILE: 'production',
    AWS_ACCESS_KEY_ID: 'AKIAREAL',
    AWS_SESSION_TOKEN: 'real',
    AWS_WEB_IDENTITY_TOKEN_FILE: '/real',
    AWS_CONTAINER_CREDENTIALS_FULL_URI: 'http://169.254.170.2/',
    AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: 'true',
    HTTPS_PROXY: 'http://proxy.example:3128',
    https_proxy: 'http://proxy.example:3128',
    NODE_OPTIONS: '--no-warnings',
    HOME: '/home/real',
  };
  const before = { ...process.env };
  Object.assign(process.env, hostile);
  t.after(() => {
    for (const name of Object.keys(hostile)) delete process.env[name];
    Object.assign(process.env, before);
  });
  const local = create(t, { caFile: fixture('probe.ts'), variables: { POLICY_TABLE: 'policies' } });
  const seen = (await local.invoke({ do: 'environment' })) as Record<string, string>;
  for (const [name, value] of Object.entries(hostile)) assert.notEqual(seen[name], value, name);

  const aws = Object.keys(seen).filter((name) => name.startsWith('AWS_'));
  assert.deepEqual(aws.sort(), [
    'AWS_ACCESS_KEY_ID',
    'AWS_CONFIG_FILE',
    'AWS_DEFAULT_REGION',
    'AWS_EC2_METADATA_DISABLED',
    'AWS_ENDPOINT_URL',
    'AWS_ENDPOINT_URL_DYNAMODB',
    'AWS_ENDPOINT_URL_SCHEDULER',
    'AWS_ENDPOINT_URL_SQS',
    'AWS_LAMBDA_FUNCTION_MEMORY_SIZE',
    'AWS_LAMBDA_FUNCTION_NAME',
    'AWS_LAMBDA_FUNCTION_VERSION',
    'AWS_REGION',
    'AWS_SDK_UA_APP_ID',
    'AWS_SECRET_ACCESS_KEY',
    'AWS_SHARED_CREDENTIALS_FILE',
  ]);
  assert.equal(seen.AWS_ENDPOINT_URL_SQS, endpoints.sqs);
  assert.equal(seen.POLICY_TABLE, 'policies');
  assert.equal(seen.NODE_EXTRA_CA_CERTS, fixture('probe.ts'));
  assert.equal(seen.NODE_OPTIONS, undefined);
});

test('every endpoint of the environment and of our own clients is on loopback', () => {
  const environment = sandboxEnvironment({ endpoints });
  for (const [name, value] of Object.entries(environment)) {
    if (name.startsWith('AWS_ENDPOINT_URL')) assert.equal(new URL(value).hostname, '127.0.0.1', name);
  }
  const { credentials, endpoint, region } = localClientConfig(endpoints.sqs);
  assert.deepEqual([credentials.accessKeyId, endpoint, region], ['local', endpoints.sqs, 'us-east-1']);
});
