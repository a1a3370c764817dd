// The example readers in other languages, asked the same questions over the embedded table and request queue. Between
// them stands a proxy that checks each request's signature, as AWS would and the embedded services do not, and that can
// take the table away. Needs Python 3 and Go: run `npm run test:readers`.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { type AttributeValue, DynamoDBClient, PutItemCommand } from '@aws-sdk/client-dynamodb';
import { CreateQueueCommand, SQSClient } from '@aws-sdk/client-sqs';
import { SignatureV4 } from '@smithy/signature-v4';
import { createPolicyTable, startDynamoDb } from '../../../infra/local/dynamodb.ts';
import { ACCOUNT, localClientConfig, REGION, sandboxEnvironment } from '../../../infra/local/environment.ts';
import { listenOnLoopback } from '../../../infra/local/loopback.ts';
import { startSqs } from '../../../infra/local/sqs.ts';
import { run } from '../../deploy/child.ts';
import { obtainVirtualEnvironment, Unavailable } from '../../deploy/virtual-environment.ts';
import { HANG_MS, killAfter, makeFolder, type Scope } from '../../resources.ts';

const READERS = join(import.meta.dirname, '../../../infra/relay/readers');
const TABLE = 'policies';
const BUILD_MS = 180_000;
const SECRET = 'a-secret-of-nobody';
const TOKEN = 'a-session-token';

/** So long that it never ends within a test, and so short that it always has. */
const LONG = '300';
const NEVER = '0';

type Action = 'enforce' | 'testing' | 'none' | 'unknown';
type Item = Record<string, AttributeValue>;

interface Case {
  readonly name: string;
  readonly domain: string;
  /** As stored; undefined: not in the table. */
  readonly item?: Item;
  readonly action: Action;
  /** MX hosts asked about, and whether they are allowed. */
  readonly mx?: Readonly<Record<string, boolean>>;
  /** Whether the domain is asked for. Whatever else is known was used, and has to be reported. */
  readonly requested?: boolean;
  /** Under another name than the question's. */
  readonly used?: string;
}

function item(domain: string, mode: string, mx: readonly string[], rest: Item = {}): Item {
  const now = Date.now();
  return {
    Domain: { S: domain },
    ValidEnd: { N: String(now + 86_400_000) },
    Backoff: { BOOL: false },
    Mode: { S: mode },
    MX: { L: mx.map((pattern) => ({ S: pattern })) },
    MaxAgeSeconds: { N: '86400' },
    RecordID: { S: 'id1' },
    Version: { S: 'STSv1' },
    LastUpdate: { N: String(now) },
    ...rest,
  };
}

const CASES: readonly Case[] = [
  {
    name: 'enforce',
    domain: 'enforce.test',
    item: item('enforce.test', 'enforce', ['mail.enforce.test', '*.mx.enforce.test']),
    action: 'enforce',
    mx: {
      'mail.enforce.test': true,
      'MAIL.Enforce.Test.': true,
      'a.mx.enforce.test': true,
      'mx.enforce.test': false,
      'a.b.mx.enforce.test': false,
      'mail.evil.test': false,
    },
  },
  {
    name: 'testing',
    domain: 'testing.test',
    item: item('testing.test', 'testing', ['mail.testing.test']),
    action: 'testing',
    mx: { 'mail.testing.test': true, 'mail.evil.test': false },
  },
  { name: 'none', domain: 'none.test', item: item('none.test', 'none', []), action: 'none' },
  {
    name: 'a back-off',
    domain: 'backoff.test',
    item: item('backoff.test', 'none', [], { Backoff: { BOOL: true } }),
    action: 'none',
  },
  {
    name: 'upper case and a trailing dot',
    domain: 'Spelled.TEST.',
    used: 'spelled.test',
    item: item('spelled.test', 'enforce', ['mail.spelled.test']),
    action: 'enforce',
    mx: { 'mail.spelled.test': true },
  },
  {
    name: 'attributes of a version to come',
    domain: 'future.test',
    item: item('future.test', 'enforce', ['mail.future.test'], { Pins: { SS: ['x'] } }),
    action: 'enforce',
    mx: { 'mail.future.test': true },
  },
  {
    name: 'expired',
    domain: 'expired.test',
    item: item('expired.test', 'enforce', ['mail.expired.test'], { ValidEnd: { N: '1700000000000' } }),
    action: 'none',
    requested: true,
  },
  { name: 'absent', domain: 'absent.test', action: 'none', requested: true },
  { name: 'a subdomain does not inherit', domain: 'sub.enforce.test', action: 'none', requested: true },
  { name: 'an address', domain: '192.0.2.1', action: 'none' },
  { name: 'a single label', domain: 'localhost', action: 'none' },
  { name: 'no name at all', domain: 'x{}"=\n.test', action: 'none' },
  {
    name: 'not an item',
    domain: 'halfway.test',
    item: { Domain: { S: 'halfway.test' }, LastUse: { N: '1' } },
    action: 'none',
    requested: true,
  },
  {
    name: 'a mode that nobody knows',
    domain: 'mode.test',
    item: item('mode.test', 'strict', ['mail.mode.test']),
    action: 'none',
    requested: true,
  },
  {
    name: 'a pattern that is none',
    domain: 'pattern.test',
    item: item('pattern.test', 'enforce', ['mail.pattern.test', '*']),
    action: 'none',
    requested: true,
  },
  {
    name: 'enforce without patterns',
    domain: 'empty.test',
    item: item('empty.test', 'enforce', []),
    action: 'none',
    requested: true,
  },
  {
    name: 'types that are wrong',
    domain: 'types.test',
    item: item('types.test', 'enforce', ['mail.types.test'], { ValidEnd: { S: 'tomorrow' } }),
    action: 'none',
    requested: true,
  },
];

interface Reader {
  readonly name: string;
  readonly command: readonly string[];
}

/** Passes requests on to the services, if they are signed as AWS wants them. Closed with the scope. */
async function startProxy(scope: Scope, services: Readonly<Record<string, string>>) {
  const unsigned: string[] = [];
  const state = { tableIsThere: true };
  const { endpoint, close } = await listenOnLoopback(
    createServer(async (incoming, answer) => {
      const body = Buffer.concat(await incoming.toArray());
      const service = /\/([a-z]+)\/aws4_request/.exec(incoming.headers.authorization ?? '')?.[1] ?? '';
      if (!(await isSigned(incoming, body, service))) {
        unsigned.push(`${service} ${incoming.headers['x-amz-target']}`);
        return refuse(answer, 'InvalidSignatureException');
      }
      if (service === 'dynamodb' && !state.tableIsThere) return refuse(answer, 'ExpiredTokenException');
      const { hostname, port } = new URL(services[service] ?? '');
      const passed = request({ hostname, port, method: 'POST', path: '/', headers: incoming.headers });
      passed.end(body);
      const [response] = (await once(passed, 'response')) as [IncomingMessage];
      answer.writeHead(response.statusCode ?? 500, response.headers);
      response.pipe(answer);
    }),
  );
  scope.after(close);
  return { endpoint, unsigned, state };
}

function refuse(answer: ServerResponse, type: string): void {
  answer.writeHead(400, { 'content-type': 'application/x-amz-json-1.0' });
  answer.end(JSON.stringify({ __type: `com.amazon.coral.service#${type}`, message: 'refused' }));
}

/** Signs the same request again, with the code of AWS's own SDK. */
async function isSigned(
  { headers, url = '/' }: IncomingMessage,
  body: Buffer,
  service: string,
): Promise<boolean> {
  const signedHeaders = /SignedHeaders=([^,]+)/.exec(headers.authorization ?? '')?.[1]?.split(';') ?? [];
  const stamp = String(headers['x-amz-date']);
  const signingDate = new Date(stamp.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, '$1-$2-$3T$4:$5:$6Z'));
  if (Number.isNaN(signingDate.getTime()) || headers['x-amz-security-token'] !== TOKEN) return false;
  const signer = new SignatureV4({
    service,
    region: REGION,
    credentials: { accessKeyId: 'local', secretAccessKey: SECRET },
    sha256: Digest,
    applyChecksum: false,
  });
  const given = Object.fromEntries(
    signedHeaders.filter((name) => name !== 'x-amz-date').map((name) => [name, String(headers[name])]),
  );
  const signed = await signer.sign(
    { method: 'POST', protocol: 'http:', hostname: '127.0.0.1', path: url, headers: given, body },
    { signingDate, signableHeaders: new Set(signedHeaders) },
  );
  const signature = (text: unknown) => /Signature=([0-9a-f]{64})$/.exec(String(text))?.[1];
  return signature(signed.headers.authorization) === signature(headers.authorization);
}

/** What the SDK's signer takes for a digest. */
class Digest {
  readonly #digest;
  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    if (secret === undefined) this.#digest = createHash('sha256');
    else this.#digest = createHmac('sha256', typeof secret === 'string' ? secret : bytes(secret));
  }
  update(data: string | ArrayBuffer | ArrayBufferView): void {
    this.#digest.update(typeof data === 'string' ? data : bytes(data));
  }
  async digest(): Promise<Uint8Array> {
    return this.#digest.digest();
  }
  reset(): void {}
}

function bytes(data: ArrayBuffer | ArrayBufferView): Uint8Array {
  return ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
}

function testReader({ name, command: [file = '', ...options] }: Reader): void {
  describe(`the reader in ${name}`, () => {
    let queues: Awaited<ReturnType<typeof startSqs>>;
    let proxy: Awaited<ReturnType<typeof startProxy>>;
    let client: DynamoDBClient;
    let queueNumber = 0;

    /** Last opened, first closed. */
    const releases: (() => unknown)[] = [];
    const scope: Scope = { after: (release) => void releases.unshift(release) };
    after(async () => {
      for (const release of releases) await release();
    });

    before(async () => {
      const database = await startDynamoDb();
      scope.after(database.close);
      queues = await startSqs();
      scope.after(queues.close);
      proxy = await startProxy(scope, { dynamodb: database.endpoint, sqs: queues.endpoint });
      client = new DynamoDBClient(localClientConfig(database.endpoint));
      scope.after(() => client.destroy());
      await createPolicyTable(client, TABLE);
      for (const { item } of CASES) {
        if (item) await client.send(new PutItemCommand({ TableName: TABLE, Item: item }));
      }
    });

    /** A process of the reader, killed with the scope if it still runs, and a queue of its own. */
    async function start(scope: Scope, cacheSeconds: string) {
      const queueName = `requests-${++queueNumber}`;
      const sqs = new SQSClient(localClientConfig(queues.endpoint));
      scope.after(() => sqs.destroy());
      await sqs.send(new CreateQueueCommand({ QueueName: queueName }));
      const endpoints = { dynamodb: proxy.endpoint, sqs: proxy.endpoint, scheduler: proxy.endpoint };
      const env = sandboxEnvironment({
        endpoints,
        variables: {
          AWS_SECRET_ACCESS_KEY: SECRET,
          AWS_SESSION_TOKEN: TOKEN,
          POLICY_TABLE: TABLE,
          REQUEST_QUEUE_URL: `${proxy.endpoint}/${ACCOUNT}/${queueName}`,
          CACHE_SECONDS: cacheSeconds,
        },
      });
      const process = spawn(file, options, { env, stdio: ['pipe', 'pipe', 'pipe'], timeout: HANG_MS });
      killAfter(scope, process);
      let said = '';
      process.stderr.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      const lines = createInterface(process.stdout)[Symbol.asyncIterator]();
      return {
        async ask(
          domain: string,
          mx: readonly string[] = [],
        ): Promise<{ action: Action; allowed: string[] }> {
          process.stdin.write(`${JSON.stringify({ domain, mx })}\n`);
          const { value, done } = await lines.next();
          assert.ok(!done, said);
          return JSON.parse(value);
        },
        /** What it sent to the queue, and what it said on its standard error, until its end. */
        async end() {
          process.stdin.end();
          const [status] = await once(process, 'close');
          assert.equal(status, 0, said);
          const messages = (await queues.messages(queueName)).map(({ body }) => JSON.parse(body));
          const used = messages.flatMap((message): string[] => message.used ?? []).sort();
          const requested = messages.flatMap((message): string[] => message.domain ?? []).sort();
          return { used, requested, said };
        },
      };
    }

    test('answers, asks for what is missing, and reports what it used', async (t) => {
      const reader = await start(t, LONG);
      for (const { name, domain, action, mx = {} } of CASES) {
        const hosts = Object.keys(mx);
        const allowed = hosts.filter((host) => mx[host]);
        for (const answer of [await reader.ask(domain, hosts), await reader.ask(domain, hosts)]) {
          assert.deepEqual(answer, { domain, action, allowed }, name);
        }
      }
      const { used, requested, said } = await reader.end();
      const asked = CASES.filter((each) => each.requested).map((each) => each.domain);
      assert.deepEqual(requested, asked.sort(), 'each domain is asked for once');
      const inUse = CASES.filter((each) => each.item && !each.requested);
      assert.deepEqual(used, inUse.map((each) => each.used ?? each.domain).sort());
      assert.equal(said, '');
      t.diagnostic(`${CASES.length} domains`);
    });

    test('goes on with what it knows while the table cannot be read', async (t) => {
      const reader = await start(t, NEVER);
      const asked = () => reader.ask('enforce.test', ['mail.enforce.test']);
      const known = { domain: 'enforce.test', action: 'enforce', allowed: ['mail.enforce.test'] };
      assert.deepEqual(await asked(), known);
      t.after(() => {
        proxy.state.tableIsThere = true;
      });
      proxy.state.tableIsThere = false;
      assert.deepEqual(await asked(), known);
      assert.deepEqual(await asked(), known);
      assert.equal((await reader.ask('testing.test')).action, 'unknown');
      assert.equal((await reader.ask('absent.test')).action, 'unknown');
      proxy.state.tableIsThere = true;
      assert.equal((await reader.ask('testing.test')).action, 'testing');
      const { used, requested, said } = await reader.end();
      assert.deepEqual({ used, requested }, { used: ['enforce.test', 'testing.test'], requested: [] });
      const [begin, end, ...more] = said.trim().split('\n');
      assert.match(begin ?? '', /cannot be read, last known policies are used: .*ExpiredToken/);
      assert.match(end ?? '', /can be read again/);
      assert.deepEqual(more, []);
    });

    test('reads a policy again when it has changed', async (t) => {
      const reader = await start(t, NEVER);
      assert.equal((await reader.ask('testing.test')).action, 'testing');
      const changed = item('testing.test', 'enforce', ['mail.testing.test']);
      await client.send(new PutItemCommand({ TableName: TABLE, Item: changed }));
      assert.equal((await reader.ask('testing.test')).action, 'enforce');
      await reader.end();
    });

    test('signs its requests', () => assert.deepEqual(proxy.unsigned, []));
  });
}

const folder = await makeFolder({ after }, 'readers');
try {
  const python = await obtainVirtualEnvironment('reader', join(READERS, 'python/requirements.txt'));
  const go = join(folder, 'reader');
  await run('go', ['version'], { timeout: BUILD_MS }).catch((cause) => {
    throw new Unavailable('Go 1.19 or newer is missing: there should be a `go` in the PATH.', { cause });
  });
  await run('go', ['vet', '.'], { cwd: join(READERS, 'go'), timeout: BUILD_MS });
  await run('go', ['build', '-o', go, '.'], { cwd: join(READERS, 'go'), timeout: BUILD_MS });
  testReader({ name: 'Python', command: [python, join(READERS, 'python/mta_sts_reader.py')] });
  testReader({ name: 'Go', command: [go] });
} catch (error) {
  if (!(error instanceof Unavailable)) throw error;
  console.error(`The example readers were not tested. ${error.message}`);
  process.exitCode = 1;
}
