import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { type AttributeValue, DynamoDBClient, PutItemCommand } from '@aws-sdk/client-dynamodb';
import { createDynamoStore } from '../../../functions/store/dynamo.ts';
import { createPolicyTable, startDynamoDb } from '../../../infra/local/dynamodb.ts';
import { localClientConfig } from '../../../infra/local/environment.ts';
import { seed } from '../../../infra/local/seed.ts';
import { type Clock, systemClock } from '../../../infra/relay/clock.ts';
import { createTable, type Table } from '../../../infra/relay/table.ts';
import { HANG_MS, listen, type Scope, until } from '../../resources.ts';
import {
  DAY,
  EXAMPLE,
  fakeClient,
  HOUR,
  idle,
  MINUTE,
  NOW,
  POLICY,
  recordingObserver,
  SECOND,
  virtualClock,
} from './scene.ts';

type Item = Record<string, AttributeValue | undefined>;

const ITEM: Item = {
  Domain: { S: EXAMPLE },
  ValidEnd: { N: String(NOW + DAY) },
  Backoff: { BOOL: false },
  Mode: { S: 'enforce' },
  MX: { L: [{ S: 'mail.example.com' }, { S: '*.example.net' }] },
  MaxAgeSeconds: { N: '604800' },
  RecordID: { S: 'id1' },
  Version: { S: 'STSv1' },
  PolicyText: { S: 'version: STSv1' },
  LastUpdate: { N: String(NOW - HOUR) },
};

const mx = (...patterns: string[]): Item => ({ MX: { L: patterns.map((pattern) => ({ S: pattern })) } });
const READ = { consistent: false, milliseconds: 700 } as const;

function open(answer: (input: never) => unknown) {
  const clock = virtualClock();
  const observer = recordingObserver();
  const fake = fakeClient(answer as never);
  return {
    clock,
    observer,
    fake,
    table: createTable({ client: fake.client, tableName: 'policies', clock, observer }),
  };
}

describe('an item', () => {
  const long = 'a'.repeat(63);
  const rows: [what: string, changes: Item, expected: string | RegExp][] = [
    ['as it should be', {}, 'policy enforce mail.example.com *.example.net id1'],
    [
      'without a record id',
      { RecordID: undefined },
      'policy enforce mail.example.com *.example.net undefined',
    ],
    ['in testing', { Mode: { S: 'testing' } }, 'policy testing mail.example.com *.example.net id1'],
    ['none, without patterns', { Mode: { S: 'none' }, MX: { L: [] } }, 'policy none id1'],
    ['a back-off', { Backoff: { BOOL: true }, Mode: { S: 'none' }, MX: { L: [] } }, 'back-off'],
    [
      'with attributes from the future',
      { Later: { S: 'x' } },
      'policy enforce mail.example.com *.example.net id1',
    ],
    [
      'in upper case, twice',
      mx('MAIL.Example.com', 'mail.example.com'),
      'policy enforce mail.example.com id1',
    ],
    ['of one label', mx('localhost'), 'policy enforce localhost id1'],
    ['without LastUpdate, which is none', { LastUpdate: undefined }, 'absent'],
    // What no policy can say must not reach Postfix.
    ['with a blank in a pattern', mx('mail.example.com servername=evil'), /^unreadable .*the mx/],
    ['with a blank after a pattern', mx('mail.example.com '), /^unreadable .*not read as what it says/],
    ['with a blank before a pattern', mx(' mail.example.com'), /^unreadable .*not read as what it says/],
    ['with a line end in a pattern', mx('mail.example.com\r\nmx: evil.example'), /^unreadable .*not read as/],
    ['with a line end and a field', mx('mail.example.com\nother: x'), /^unreadable .*not read as/],
    ['with only a line end more', mx('mail.example.com\n'), /^unreadable .*not read as/],
    ['with another mode in a pattern', mx('a.example\nmode: none'), /^unreadable .*not read as/],
    ['with a brace in a pattern', mx('{mail.example.com}'), /^unreadable .*the mx/],
    ['with a colon in a pattern', mx('a.example:b.example'), /^unreadable .*the mx/],
    ['with an address as pattern', mx('192.0.2.1'), /^unreadable .*the mx/],
    ['with a U-label in a pattern', mx('mäil.example'), /^unreadable .*the mx/],
    ['with an empty pattern', mx('mail.example.com', ''), /^unreadable .*no value/],
    ['with a trailing dot', mx('mail.example.com.'), /^unreadable .*the mx/],
    ['with a wildcard in the middle', mx('mail.*.example.com'), /^unreadable .*the mx/],
    ['with a wildcard alone', mx('*.'), /^unreadable .*the mx/],
    ['with too long a pattern', mx(`${long}.${long}.${long}.${long}.example`), /^unreadable .*the mx/],
    ['without patterns', { MX: { L: [] } }, /^unreadable .*MX is missing or empty/],
    ['with a number for a pattern', { MX: { L: [{ N: '1' }] } }, /^unreadable .*not a string/],
    ['with a mode that is none', { Mode: { S: 'enforced' } }, /^unreadable .*Mode/],
    ['with a fraction of a second', { MaxAgeSeconds: { N: '0.5' } }, /^unreadable .*max_age/],
    ['with a negative age', { MaxAgeSeconds: { N: '-1' } }, /^unreadable .*MaxAgeSeconds/],
    ['with a text for its end', { ValidEnd: { S: 'never' } }, /^unreadable .*ValidEnd/],
    ['with a text for Backoff', { Backoff: { S: 'true' } }, /^unreadable .*Backoff/],
    [
      'with a record id that is none',
      { RecordID: { S: 'a b; id=c' } },
      'policy enforce mail.example.com *.example.net undefined',
    ],
    ['with another key than asked for', { Domain: { S: 'Example.COM' } }, /^unreadable .*key/],
    // What does not count any more is no reason to hold mail back.
    ['that has ended, whatever it says', { ...mx('{}'), ValidEnd: { N: String(NOW) } }, 'ended'],
    ['a back-off, whatever it says', { ...mx('{}'), Backoff: { BOOL: true } }, 'back-off'],
  ];
  for (const [what, changes, expected] of rows) {
    test(what, async () => {
      const Item = Object.fromEntries(
        Object.entries({ ...ITEM, ...changes }).filter(([, value]) => value !== undefined),
      );
      const { table, clock, observer } = open(() => Promise.resolve({ Item }));
      const read = await clock.finish(table.read(EXAMPLE, READ));
      let said: string = read.kind;
      if (read.kind === 'unreadable') said = `unreadable ${read.reason}`;
      if (read.kind === 'item') {
        const { policy, backoff, validEnd, recordId } = read.entry;
        const ends = validEnd <= NOW ? 'ended' : undefined;
        said =
          ends ?? (backoff ? 'back-off' : ['policy', policy.mode, ...policy.mx, `${recordId}`].join(' '));
      }
      if (typeof expected === 'string') assert.equal(said, expected);
      else assert.match(said, expected);
      assert.equal(observer.counts.size, 1);
      assert.deepEqual(observer.outages, [], 'a bad item is no outage');
    });
  }

  test('lives no longer than a year', async () => {
    const Item = { ...ITEM, ValidEnd: { N: String(NOW + 36_500 * DAY) } };
    const { table, clock } = open(() => Promise.resolve({ Item }));
    const read = await clock.finish(table.read(EXAMPLE, READ));
    assert.ok(read.kind === 'item');
    assert.equal(read.entry.validEnd, NOW + 31_557_600_000);
  });

  const ended = { ValidEnd: { N: String(NOW - HOUR) } };
  const failing = (lastAttempt: number, more: Item = {}): Item => ({
    ...ended,
    LastAttempt: { N: String(lastAttempt) },
    LastFailure: { S: 'http-status' },
    FailingSince: { N: String(NOW - 2 * DAY) },
    ...more,
  });
  const attempts: [what: string, changes: Item, backoffUntil: number | undefined][] = [
    ['has ended, and was not tried since', failing(NOW - HOUR - 1), undefined],
    ['has ended, and was tried since', failing(NOW - MINUTE), NOW + 4 * MINUTE],
    ['has ended, and was tried long ago', failing(NOW - 10 * MINUTE), NOW - 5 * MINUTE],
    ['has ended, and was tried in the future', failing(NOW + DAY), NOW + 5 * MINUTE],
    [
      'is an ended back-off that was tried again',
      failing(NOW - MINUTE, { Backoff: { BOOL: true } }),
      NOW + 4 * MINUTE,
    ],
    ['is an ended back-off that was never tried again', { ...ended, Backoff: { BOOL: true } }, NOW - HOUR],
  ];
  for (const [what, changes, backoffUntil] of attempts) {
    test(`that ${what}`, async () => {
      const { table, clock } = open(() => Promise.resolve({ Item: { ...ITEM, ...changes } }));
      const read = await clock.finish(table.read(EXAMPLE, READ));
      assert.ok(read.kind === 'item');
      const { backoff, validEnd } = read.entry;
      assert.deepEqual(
        [backoff, validEnd],
        backoffUntil === undefined ? [false, NOW - HOUR] : [true, backoffUntil],
      );
    });
  }
});

test('a read is one GetItem of one key', async () => {
  const { table, clock, fake } = open(() => Promise.resolve({}));
  assert.deepEqual(await clock.finish(table.read(EXAMPLE, READ)), { kind: 'absent' });
  await clock.finish(table.read(EXAMPLE, { consistent: true, milliseconds: 700 }));
  const input = { TableName: 'policies', Key: { Domain: { S: 'example.com' } } };
  assert.deepEqual(fake.inputs, [
    { ...input, ConsistentRead: false },
    { ...input, ConsistentRead: true },
  ]);
});

describe('an outage', () => {
  const named = (name: string) => Object.assign(new Error('no'), { name });
  const faults: [what: string, fault: () => Promise<never> | undefined][] = [
    [
      'a network that refuses',
      () => Promise.reject(Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })),
    ],
    ['throttling', () => Promise.reject(named('ProvisionedThroughputExceededException'))],
    ['expired credentials', () => Promise.reject(named('ExpiredTokenException'))],
    ['denied access', () => Promise.reject(named('AccessDeniedException'))],
    ['no credentials', () => Promise.reject(named('CredentialsProviderError'))],
    ['a missing table', () => Promise.reject(named('ResourceNotFoundException'))],
    ['an error that is none', () => Promise.reject('no')],
    ['silence', () => undefined],
    // The SDK does not give up for credentials.
    ['silence that does not listen', () => new Promise<never>(() => {})],
  ];
  for (const [what, fault] of faults) {
    test(`${what}: said once, asked once in three seconds, and over with the first answer`, async () => {
      let down = true;
      const { table, clock, observer, fake } = open(() => (down ? fault() : Promise.resolve({ Item: ITEM })));
      const read = () => clock.finish(table.read(EXAMPLE, READ));
      for (let i = 0; i < 3; i++) {
        assert.equal(table.refuses(), false, 'one failure, or two, is no outage');
        assert.equal((await read()).kind, 'failed');
      }
      assert.ok(clock.now() - NOW <= 3 * 700);
      assert.deepEqual(observer.outages, ['table down']);
      assert.equal(table.refuses(), true);

      const start = clock.now();
      for (let i = 0; i < 600; i++) {
        await read();
        clock.set(start + i * 100);
      }
      assert.ok(fake.inputs.length - 3 >= 19 && fake.inputs.length - 3 <= 21, `${fake.inputs.length} calls`);
      assert.deepEqual(observer.outages, ['table down']);

      down = false;
      await clock.pass(3 * SECOND);
      assert.equal((await read()).kind, 'item');
      assert.deepEqual(observer.outages, ['table down', 'table up']);
      assert.equal(table.refuses(), false);
      assert.equal(clock.sleepers, 0);
    });
  }

  test('of one call in three is none', async () => {
    let calls = 0;
    const { table, clock, observer } = open(() =>
      ++calls % 3 === 0 ? Promise.reject(named('TimeoutError')) : Promise.resolve({ Item: ITEM }),
    );
    for (let i = 0; i < 30; i++) await clock.finish(table.read(EXAMPLE, READ));
    assert.deepEqual(observer.outages, []);
    assert.equal(observer.counts.get('table_reads{failed}'), 10);
  });

  test('while one looks whether it is over, nobody else waits', async () => {
    const { table, clock } = open(() => undefined);
    for (let i = 0; i < 3; i++) await clock.finish(table.read(EXAMPLE, READ));
    await clock.pass(3 * SECOND);
    const probe = table.read(EXAMPLE, READ);
    assert.deepEqual(await table.read(EXAMPLE, READ), {
      kind: 'failed',
      reason: 'Error: no answer within 700 ms',
    });
    assert.equal((await clock.finish(probe)).kind, 'failed');
  });

  test('a clock that is put back does not prolong it', async () => {
    const { table, clock } = open(() => undefined);
    for (let i = 0; i < 3; i++) await clock.finish(table.read(EXAMPLE, READ));
    clock.set(NOW - DAY);
    assert.equal(table.refuses(), false);
  });

  test('a hung table piles up no calls', async () => {
    const { table, clock, fake } = open(() => undefined);
    let reads = 0;
    let most = 0;
    for (let i = 0; i < 200; i++) {
      void table.read(EXAMPLE, READ).then(() => {
        reads += 1;
      });
      await clock.pass(50);
      most = Math.max(most, fake.open);
    }
    await clock.pass(SECOND);
    assert.equal(reads, 200);
    assert.ok(most <= 15, `${most} calls at once`);
    assert.equal(fake.open, 0);
  });
});

describe('over the network', () => {
  const observer = recordingObserver();
  const connect = (scope: Scope, endpoint: string, options: object = {}): DynamoDBClient => {
    const client = new DynamoDBClient({ ...localClientConfig(endpoint), maxAttempts: 1, ...options });
    scope.after(() => client.destroy());
    return client;
  };
  const tableOf = (client: DynamoDBClient, tableName = 'policies', clock: Clock = systemClock): Table =>
    createTable({ client, tableName, clock, observer });
  let database: Awaited<ReturnType<typeof startDynamoDb>> | undefined;
  let endpoint: string;
  let raw: DynamoDBClient;
  before(async () => {
    database = await startDynamoDb();
    endpoint = database.endpoint;
    raw = new DynamoDBClient(localClientConfig(endpoint));
    await createPolicyTable(raw, 'policies');
  });
  after(async () => {
    raw?.destroy();
    await database?.close();
  });

  const PATIENTLY = { consistent: true, milliseconds: HANG_MS };

  test('what the store writes is what is read', async () => {
    const store = createDynamoStore({ client: raw, table: 'policies' });
    const now = Date.now();
    const times = { inserted: now - DAY, lastUpdate: now, lastFetch: now, lastUse: now };
    await seed(store, { domain: EXAMPLE, policy: POLICY, recordId: 'id1', ...times });
    const read = await tableOf(raw).read(EXAMPLE, PATIENTLY);
    assert.ok(read.kind === 'item');
    assert.deepEqual(read.entry, {
      domain: EXAMPLE,
      policy: POLICY,
      backoff: false,
      validEnd: now + POLICY.maxAgeSeconds * 1_000,
      recordId: 'id1',
    });
    assert.deepEqual(read.record, (await store.read([EXAMPLE])).records.get(EXAMPLE));
  });

  test('an item that breaks the contract is unreadable, and no item is absent', async () => {
    const key = { Domain: { S: 'broken.example' } };
    await raw.send(
      new PutItemCommand({ TableName: 'policies', Item: { ...ITEM, ...key, Mode: { N: '1' } } as never }),
    );
    const table = tableOf(raw);
    const [broken, none] = ['broken.example', 'none.example'] as never[];
    assert.equal((await table.read(broken as never, PATIENTLY)).kind, 'unreadable');
    assert.equal((await table.read(none as never, PATIENTLY)).kind, 'absent');
  });

  test('a server that accepts and says nothing is given up, with its connections', async (t) => {
    const open = new Set<Socket>();
    const silent = createServer((socket) => {
      open.add(socket.resume());
      socket.on('error', () => {}).on('close', () => open.delete(socket));
    });
    const port = await listen(t, silent);
    // Its time goes on only when every connection is there, or some could still come after they are counted.
    const clock = virtualClock();
    const hung = tableOf(connect(t, `http://127.0.0.1:${port}`), 'policies', clock);
    const reading = Promise.all(Array.from({ length: 20 }, () => hung.read(EXAMPLE, READ)));
    await until(() => open.size === 20, 'each read has a connection');
    await clock.pass(READ.milliseconds);
    const reads = await reading;
    assert.deepEqual(new Set(reads.map(({ kind }) => kind)), new Set(['failed']));
    await until(() => open.size === 0, 'no connection is left');
    assert.equal(hung.refuses(), true);
  });

  const down: [what: string, start: (scope: Scope) => Table][] = [
    ['nobody listens', (scope) => tableOf(connect(scope, 'http://127.0.0.1:1'))],
    ['there is no such table', (scope) => tableOf(connect(scope, endpoint), 'others')],
    [
      'there are no credentials',
      (scope) => tableOf(connect(scope, endpoint, { credentials: () => Promise.reject(new Error('none')) })),
    ],
    [
      'credentials never come',
      (scope) => tableOf(connect(scope, endpoint, { credentials: () => new Promise(() => {}) })),
    ],
  ];
  for (const [what, start] of down) {
    test(`where ${what}, the read fails and nothing else happens`, async (t) => {
      const milliseconds = what === 'credentials never come' ? 50 : HANG_MS;
      assert.equal((await start(t).read(EXAMPLE, { consistent: false, milliseconds })).kind, 'failed');
      await idle();
    });
  }
});

test('a table that takes 300 ms is not down for those who wait 250', async () => {
  const { table, clock, observer } = open(() =>
    clock.sleep(300, new AbortController().signal).then(() => ({ Item: ITEM })),
  );
  const impatient = { consistent: true, milliseconds: 250 };
  for (let i = 0; i < 10; i++) {
    const read = await clock.finish(table.read(EXAMPLE, impatient));
    assert.deepEqual(read, { kind: 'failed', reason: 'Error: no answer within 250 ms' });
    await clock.pass(SECOND);
  }
  assert.equal(table.refuses(), false);
  assert.deepEqual(observer.outages, []);
  assert.equal((await clock.finish(table.read(EXAMPLE, READ))).kind, 'item');
});
