import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { DynamoDBClient, GetItemCommand } from '@aws-sdk/client-dynamodb';
import { describeFault, type Fault, toThrow } from '../../../functions/runtime/fault.ts';
import { listen } from '../../resources.ts';
import { UNSAFE, written } from './written.ts';

/** In the shape of one, and of nobody's. */
const TOKEN = `IQoJb3JpZ2luX2Vj${'Ab1+/'.repeat(80)}==`;
const SHORT_TOKEN = 'FwoGZXIvYXdzEJr';
const SIGNATURE = '5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7';

/** As AWS refuses a signature: with the request as it should have been signed. */
const CANONICAL = `The request signature we calculated does not match the signature you provided.

The Canonical String for this request should have been
'POST
/

content-type:application/x-amz-json-1.0
host:dynamodb.eu-central-1.amazonaws.com
x-amz-date:20261128T120000Z
x-amz-security-token:${SHORT_TOKEN}
x-amz-target:DynamoDB_20120810.BatchGetItem

content-type;host;x-amz-date;x-amz-security-token;x-amz-target
44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a'`;

/** Everything that a line says of an error, with its causes. */
const BIGGEST_LINE_BYTES = 40_000;

const secrets: [where: string, text: string][] = [
  ['a canonical request', CANONICAL],
  ['a canonical request with a real token', CANONICAL.replace(SHORT_TOKEN, TOKEN)],
  ['a header', `X-Amz-Security-Token: ${SHORT_TOKEN}`],
  ['a URL', `https://sqs.test/?X-Amz-Security-Token=${SHORT_TOKEN}&X-Amz-Signature=${SIGNATURE}&x=y`],
  ['JSON', JSON.stringify({ SessionToken: SHORT_TOKEN })],
  ['JSON in JSON', JSON.stringify({ body: JSON.stringify({ sessionToken: SHORT_TOKEN }) })],
  ['an authorization', `AWS4-HMAC-SHA256 Credential=ASIA/x, SignedHeaders=host, Signature=${SIGNATURE}`],
  ['no name', `The token ${TOKEN} has expired`],
  ['a token encoded in a URL, without a name', encodeURIComponent(TOKEN)],
  ['a token at the cut', `${'x '.repeat(499)}x-amz-security-token:${SHORT_TOKEN}`],
];
for (const [where, text] of secrets) {
  test(`a secret in ${where} is in no part of what is logged`, async () => {
    const error = new Error(text, { cause: new Error(text) });
    const thrown = toThrow(error);
    const lines = await written(['error', 'batch failed', error]);
    const all = JSON.stringify([describeFault(error), thrown.message, thrown.stack, lines]);
    for (const secret of [TOKEN.slice(0, 20), SHORT_TOKEN, SIGNATURE]) assert.ok(!all.includes(secret), all);
  });
}

test('what is no secret stays', () => {
  const texts = [
    'Signature expired: 20261128T120000Z is now earlier than 20261128T120500Z',
    'User: arn:aws:sts::123456789012:assumed-role/refresh/refresh is not authorized to perform: dynamodb:GetItem',
    `Requested resource not found: Table: ${'a'.repeat(63)}.${'b'.repeat(63)} not found`,
  ];
  for (const text of texts) assert.equal(describeFault(new Error(text)).message, text);
});

test('every part of an error is bounded, whatever its length, and how many causes it has', async () => {
  const long = '\u{FFFD}"\u001b[31m\n    at forged (x:1:1)'.repeat(2_000);
  let error: Error = new Error(long);
  for (let depth = 0; depth < 100; depth++)
    error = Object.assign(new Error(long, { cause: error }), { name: long });
  Object.assign(error, {
    code: long,
    $metadata: { requestId: long, httpStatusCode: 400 },
    $response: { body: long },
  });
  const [line = {}, ...more] = await written(['error', 'batch failed', error]);
  assert.deepEqual(more, []);
  assert.ok(Buffer.byteLength(JSON.stringify(line)) <= BIGGEST_LINE_BYTES, `${JSON.stringify(line).length}`);
  let depth = 0;
  for (let fault = line.error as Fault | undefined; fault !== undefined; fault = fault.cause) {
    depth++;
    const { cause, stack, ...parts } = fault;
    for (const part of Object.values(parts)) assert.doesNotMatch(String(part), UNSAFE);
    assert.ok(stack.split('\n').length <= 11);
    for (const frame of stack.split('\n')) assert.doesNotMatch(frame, UNSAFE);
  }
  assert.equal(depth, 4);
  const thrown = toThrow(error);
  assert.ok(`${thrown.name}${thrown.message}${thrown.stack}`.length <= 10_000);
});

test('an error that is its own cause is no endless one', () => {
  const error = new Error('again');
  error.cause = error;
  assert.equal(describeFault(error).cause?.cause?.cause?.cause, undefined);
});

test('what the SDK throws says what AWS support asks for, and where it was thrown', async (t) => {
  const server = createServer((_, response) => {
    response
      .writeHead(400, { 'content-type': 'application/x-amz-json-1.0', 'x-amzn-requestid': 'REQUEST1' })
      .end(
        JSON.stringify({ __type: 'com.amazon.coral.service#InvalidSignatureException', message: CANONICAL }),
      );
  });
  const port = await listen(t, server);
  const client = new DynamoDBClient({
    endpoint: `http://127.0.0.1:${port}`,
    region: 'test',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test', sessionToken: TOKEN },
    maxAttempts: 1,
  });
  t.after(() => client.destroy());
  const error = await client
    .send(new GetItemCommand({ TableName: 'policies', Key: { Domain: { S: 'a.example' } } }))
    .then(
      () => assert.fail('answered'),
      (reason: unknown) => reason,
    );
  const fault = describeFault(error);
  assert.partialDeepStrictEqual(fault, {
    name: 'InvalidSignatureException',
    status: 400,
    request_id: 'REQUEST1',
  });
  assert.match(fault.stack, /^InvalidSignatureException: The request signature .*\n {4}at /);
  assert.ok(!JSON.stringify(fault).includes(SHORT_TOKEN));
});
