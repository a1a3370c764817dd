// What every implementation of the policy store on every DynamoDB promises. Each test has a table of its own, and
// looks at the items themselves where their attributes matter: relays read them without this program.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  type AttributeValue,
  BatchWriteItemCommand,
  type DynamoDBClient,
  GetItemCommand,
  waitUntilTableExists,
} from '@aws-sdk/client-dynamodb';
import { parseDomain } from '../../../functions/mtasts/domain.ts';
import { MAX_MAX_AGE_SECONDS, type Policy } from '../../../functions/mtasts/policy.ts';
import { createDynamoStore } from '../../../functions/store/dynamo.ts';
import type { Change, PolicyRecord, ScanPage } from '../../../functions/store/policy-store.ts';
import { createPolicyTable } from '../../../infra/local/dynamodb.ts';

export interface Database {
  readonly client: DynamoDBClient;
  close(): Promise<void>;
}

type Item = Record<string, AttributeValue>;

const DAY = 86_400_000;
const T0 = Date.parse('2026-03-01T00:00:00Z');
const T1 = T0 + DAY;

const EXAMPLE = domain('example.com');
const POLICY: Policy = { mode: 'enforce', mx: ['mx.example.com', '*.example.net'], maxAgeSeconds: 604_800 };
const TEXT =
  'version: STSv1\r\nmode: enforce\r\nmx: MX.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n';

const INSERT = {
  kind: 'insert',
  policy: POLICY,
  policyText: TEXT,
  backoff: false,
  validEnd: T0 + 7 * DAY,
  recordId: '20260301T000000',
  lastUpdate: T0,
  lastFetch: T0,
} as const satisfies Change;

const REPLACE = {
  kind: 'replace',
  policy: { mode: 'testing', mx: ['mx2.example.com'], maxAgeSeconds: 86_400 },
  policyText: 'version: STSv1\nmode: testing\nmx: mx2.example.com\nmax_age: 86400\n',
  backoff: false,
  validEnd: T1 + DAY,
  recordId: 'b2',
  lastUpdate: T1,
  lastFetch: T1,
} as const satisfies Change;

const EXTEND: Change = { kind: 'extend', validEnd: T1 + 7 * DAY, lastUpdate: T1 };
const FAIL = {
  kind: 'fail',
  lastAttempt: T1,
  code: 'dns-timeout',
  since: T0 + 5,
  recordId: 'a7',
} as const satisfies Change;
const REMOVE: Change = { kind: 'remove' };

/** The item of INSERT, attribute by attribute. */
const INSERTED: Item = {
  Domain: { S: 'example.com' },
  ValidEnd: { N: String(T0 + 7 * DAY) },
  Backoff: { BOOL: false },
  Mode: { S: 'enforce' },
  MX: { L: [{ S: 'mx.example.com' }, { S: '*.example.net' }] },
  MaxAgeSeconds: { N: '604800' },
  RecordID: { S: '20260301T000000' },
  Version: { S: 'STSv1' },
  PolicyText: { S: TEXT },
  LastUpdate: { N: String(T0) },
  LastFetch: { N: String(T0) },
  LastUse: { N: String(T0) },
  Inserted: { N: String(T0) },
};

/** The attributes that FAIL adds. */
const FAILING: Item = {
  LastAttempt: { N: String(T1) },
  LastFailure: { S: 'dns-timeout' },
  FailingSince: { N: String(T0 + 5) },
  FailedRecordID: { S: 'a7' },
};

export function domain(text: string) {
  const parsed = parseDomain(text);
  assert.ok(parsed.ok);
  return parsed.domain;
}

/** The item with some attributes changed, or left out where undefined. */
function altered(item: Item, changes: Record<string, AttributeValue | undefined>): Item {
  return Object.fromEntries(Object.entries({ ...item, ...changes }).flatMap(([k, v]) => (v ? [[k, v]] : [])));
}

async function all<T>(pages: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const page of pages) list.push(page);
  return list;
}

function scanned(pages: readonly ScanPage[]) {
  return {
    domains: pages.flatMap((page) => page.records.map((record) => record.domain as string)).sort(),
    examined: pages.reduce((sum, page) => sum + page.examined, 0),
    unreadable: pages.flatMap((page) => page.unreadable),
  };
}

/** Registers the tests. `start` is called once; the tests make and leave tables. */
export function testPolicyStore(name: string, start: () => Promise<Database>): void {
  describe(`the policy store on ${name}`, () => {
    let database: Database;
    let tables = 0;
    before(async () => {
      database = await start();
    });
    after(() => database?.close());

    async function setUp({ items = [] as readonly Item[], scanSegments = 1 } = {}) {
      const { client } = database;
      const table = `policies-${++tables}`;
      await createPolicyTable(client, table);
      await waitUntilTableExists(
        { client, maxWaitTime: 10, minDelay: 0.02, maxDelay: 0.2 },
        { TableName: table },
      );
      for (let i = 0; i < items.length; i += 25) {
        const puts = items.slice(i, i + 25).map((Item) => ({ PutRequest: { Item } }));
        const { UnprocessedItems } = await client.send(
          new BatchWriteItemCommand({ RequestItems: { [table]: puts } }),
        );
        assert.deepEqual(UnprocessedItems, {});
      }
      return {
        store: createDynamoStore({ client, table, scanSegments }),
        /** The item as it is stored. */
        async item(key = 'example.com'): Promise<Item | undefined> {
          const Key = { Domain: { S: key } };
          const { Item } = await client.send(
            new GetItemCommand({ TableName: table, Key, ConsistentRead: true }),
          );
          return Item;
        },
      };
    }

    describe('insert', () => {
      test('stores the whole entry, and no attribute more', async () => {
        const { store, item } = await setUp();
        assert.equal(await store.write(EXAMPLE, INSERT, undefined), 'written');
        assert.deepEqual(await item(), INSERTED);
      });

      test('stores a back-off without text and time of a fetch', async () => {
        const { store, item } = await setUp();
        const backoff: Change = {
          kind: 'insert',
          policy: { mode: 'none', mx: [], maxAgeSeconds: 300 },
          policyText: '',
          backoff: true,
          validEnd: T0 + 300_000,
          recordId: 'a1',
          lastUpdate: T0,
          lastFetch: undefined,
        };
        assert.equal(await store.write(EXAMPLE, backoff, undefined), 'written');
        assert.deepEqual(
          await item(),
          altered(INSERTED, {
            Backoff: { BOOL: true },
            Mode: { S: 'none' },
            MX: { L: [] },
            MaxAgeSeconds: { N: '300' },
            ValidEnd: { N: String(T0 + 300_000) },
            RecordID: { S: 'a1' },
            PolicyText: undefined,
            LastFetch: undefined,
          }),
        );
      });

      test('leaves an entry that is there alone', async () => {
        const { store, item } = await setUp({ items: [INSERTED] });
        const other = { ...REPLACE, kind: 'insert' } as const;
        assert.equal(await store.write(EXAMPLE, other, undefined), 'conflict');
        assert.deepEqual(await item(), INSERTED);
      });

      test('takes an item without LastUpdate for no entry, and keeps attributes that it does not know', async () => {
        const remains: Item = {
          Domain: { S: 'example.com' },
          Note: { S: 'kept' },
          LastUse: { N: '5' },
          PolicyText: { S: 'old' },
          LastFetch: { N: '5' },
          ...FAILING,
        };
        const { store, item } = await setUp({ items: [remains] });
        const { RecordID, PolicyText, LastFetch, ...bare } = INSERTED;
        const change = { ...INSERT, recordId: undefined, policyText: '', lastFetch: undefined };
        assert.equal(await store.write(EXAMPLE, change, undefined), 'written');
        assert.deepEqual(await item(), { ...bare, Note: { S: 'kept' } });
      });

      test('lets one of several at once through', async () => {
        const { store } = await setUp();
        const results = await Promise.all(
          Array.from({ length: 8 }, () => store.write(EXAMPLE, INSERT, undefined)),
        );
        assert.equal(results.filter((result) => result === 'written').length, 1);
      });
    });

    describe('a change under the right lock', () => {
      const LATER = { LastUpdate: { N: String(T1) } };
      const REPLACED: Item = {
        ...INSERTED,
        ...LATER,
        ValidEnd: { N: String(T1 + DAY) },
        Mode: { S: 'testing' },
        MX: { L: [{ S: 'mx2.example.com' }] },
        MaxAgeSeconds: { N: '86400' },
        RecordID: { S: 'b2' },
        PolicyText: { S: REPLACE.policyText },
        LastFetch: { N: String(T1) },
      };
      const EXTENDED: Item = { ...INSERTED, ...LATER, ValidEnd: { N: String(T1 + 7 * DAY) } };
      const NOTE: Item = { Note: { S: 'of a newer version' }, LastUse: { N: String(T1 - 5) } };

      const cases: [promise: string, before: Item, change: Change, after: Item | undefined][] = [
        ['replace changes the policy and neither LastUse nor Inserted', INSERTED, REPLACE, REPLACED],
        ['replace ends a failure', { ...INSERTED, ...FAILING }, REPLACE, REPLACED],
        [
          'replace ends a back-off',
          altered(INSERTED, { Backoff: { BOOL: true }, LastFetch: undefined, PolicyText: undefined }),
          REPLACE,
          REPLACED,
        ],
        [
          'replace removes a RecordID that is no longer known',
          INSERTED,
          { ...REPLACE, recordId: undefined },
          altered(REPLACED, { RecordID: undefined }),
        ],
        [
          'replace keeps attributes that it does not know',
          { ...INSERTED, ...NOTE },
          REPLACE,
          { ...REPLACED, ...NOTE },
        ],
        ['extend changes ValidEnd and LastUpdate', INSERTED, EXTEND, EXTENDED],
        ['extend ends a failure', { ...INSERTED, ...FAILING }, EXTEND, EXTENDED],
        [
          'extend keeps attributes that it does not know',
          { ...INSERTED, ...NOTE },
          EXTEND,
          { ...EXTENDED, ...NOTE },
        ],
        ['fail leaves policy and LastUpdate as they are', INSERTED, FAIL, { ...INSERTED, ...FAILING }],
        [
          'fail takes FailingSince as it is told',
          { ...INSERTED, ...FAILING },
          { ...FAIL, lastAttempt: T1 + 7, code: 'connect-refused', recordId: 'a8' },
          {
            ...INSERTED,
            ...FAILING,
            LastAttempt: { N: String(T1 + 7) },
            LastFailure: { S: 'connect-refused' },
            FailedRecordID: { S: 'a8' },
          },
        ],
        [
          'fail without a record stores no FailedRecordID',
          INSERTED,
          { ...FAIL, recordId: undefined },
          altered({ ...INSERTED, ...FAILING }, { FailedRecordID: undefined }),
        ],
        [
          'fail without a record removes that of an earlier failure',
          { ...INSERTED, ...FAILING },
          { ...FAIL, recordId: undefined },
          altered({ ...INSERTED, ...FAILING }, { FailedRecordID: undefined }),
        ],
        [
          'fail adds FailedRecordID to a failure without one',
          altered({ ...INSERTED, ...FAILING }, { FailedRecordID: undefined }),
          FAIL,
          { ...INSERTED, ...FAILING },
        ],
        [
          'extend removes a FailedRecordID without a failure',
          { ...INSERTED, FailedRecordID: { S: 'a7' } },
          EXTEND,
          EXTENDED,
        ],
        ['remove deletes the item', { ...INSERTED, ...NOTE }, REMOVE, undefined],
      ];
      for (const [promise, stored, change, expected] of cases) {
        test(promise, async () => {
          const { store, item } = await setUp({ items: [stored] });
          assert.equal(await store.write(EXAMPLE, change, T0), 'written');
          assert.deepEqual(await item(), expected);
        });
      }

      test('lets one of several at once through', async () => {
        const { store } = await setUp({ items: [INSERTED] });
        const changes = [REPLACE, EXTEND, REMOVE, REPLACE, EXTEND, REMOVE];
        const results = await Promise.all(changes.map((change) => store.write(EXAMPLE, change, T0)));
        assert.equal(results.filter((result) => result === 'written').length, 1);
      });
    });

    describe('a change under the wrong lock is a conflict and changes nothing', () => {
      const changes = { replace: REPLACE, extend: EXTEND, fail: FAIL, remove: REMOVE };
      const locks: [situation: string, stored: Item | undefined, lock: number][] = [
        ['somebody was newer', INSERTED, T0 - 1],
        ['the entry is older than it was', INSERTED, T0 + 1],
        ['the entry has vanished', undefined, T0],
        ['an item without LastUpdate is left', altered(INSERTED, { LastUpdate: undefined }), T0],
        ['LastUpdate is a string now', { ...INSERTED, LastUpdate: { S: String(T0) } }, T0],
      ];
      for (const [kind, change] of Object.entries(changes)) {
        for (const [situation, stored, lock] of locks) {
          test(`${kind}: ${situation}`, async () => {
            const { store, item } = await setUp({ items: stored ? [stored] : [] });
            assert.equal(await store.write(EXAMPLE, change, lock), 'conflict');
            assert.deepEqual(await item(), stored);
          });
        }
        test(`${kind}: without any lock it is refused as a bug`, async () => {
          const { store, item } = await setUp();
          await assert.rejects(store.write(EXAMPLE, change, undefined), TypeError);
          assert.equal(await item(), undefined);
        });
      }
      test('insert: with a lock it is refused as a bug', async () => {
        const { store, item } = await setUp({ items: [INSERTED] });
        await assert.rejects(store.write(EXAMPLE, INSERT, T0), TypeError);
        assert.deepEqual(await item(), INSERTED);
      });
    });

    describe('PolicyText', () => {
      const cases: [what: string, text: string, kept: boolean][] = [
        ['4,096 bytes are kept', 'x'.repeat(4_096), true],
        ['4,097 bytes are left out', 'x'.repeat(4_097), false],
        ['2,048 characters of two bytes are kept', 'é'.repeat(2_048), true],
        ['2,049 characters of two bytes are left out', 'é'.repeat(2_049), false],
        ['1,025 characters of four bytes are left out', '😀'.repeat(1_025), false],
        ['nothing is left out', '', false],
        ['line ends and controls are kept as they are', 'a\r\nb\n\0\t\u{FEFF}', true],
      ];
      for (const [what, policyText, kept] of cases) {
        test(what, async () => {
          const { store, item } = await setUp();
          const expected = kept ? { S: policyText } : undefined;
          await store.write(EXAMPLE, { ...INSERT, policyText }, undefined);
          assert.deepEqual((await item())?.PolicyText, expected);
          await store.write(EXAMPLE, { ...REPLACE, policyText: 'short' }, T0);
          await store.write(EXAMPLE, { ...REPLACE, policyText, lastUpdate: T1 + 1 }, T1);
          assert.deepEqual((await item())?.PolicyText, expected, 'also in the place of another');
        });
      }
    });

    describe('prune', () => {
      const cases: [what: string, stored: Item | undefined, pruned: boolean][] = [
        ['deletes an entry last used before', { ...INSERTED, LastUse: { N: String(T0 - 1) } }, true],
        ['leaves one used at that very time', INSERTED, false],
        ['leaves one used since', { ...INSERTED, LastUse: { N: String(T0 + 1) } }, false],
        [
          'leaves one that was updated since it was read',
          { ...INSERTED, LastUse: { N: String(T0 - 1) }, LastUpdate: { N: String(T0 + 1) } },
          false,
        ],
        ['leaves one of whose use nothing is known', altered(INSERTED, { LastUse: undefined }), false],
        ['leaves one whose LastUse is no number', { ...INSERTED, LastUse: { S: '0' } }, false],
        ['creates nothing', undefined, false],
      ];
      for (const [what, stored, pruned] of cases) {
        test(what, async () => {
          const { store, item } = await setUp({ items: stored ? [stored] : [] });
          assert.equal(await store.prune(EXAMPLE, T0, T0), pruned ? 'written' : 'conflict');
          assert.deepEqual(await item(), pruned ? undefined : stored);
        });
      }

      test('deletes nothing before -Infinity', async () => {
        const stored = { ...INSERTED, LastUse: { N: '-1e30' } };
        const { store, item } = await setUp({ items: [stored] });
        assert.equal(await store.prune(EXAMPLE, Number.NEGATIVE_INFINITY, T0), 'conflict');
        assert.ok(await item());
      });
    });

    describe('touch', () => {
      const NOW = T0 + 10 * DAY;
      const cases: [what: string, stored: Item | undefined, touched: boolean][] = [
        ['sets a LastUse that is older', { ...INSERTED, LastUse: { N: String(NOW - DAY - 1) } }, true],
        ['leaves a LastUse of that very time', { ...INSERTED, LastUse: { N: String(NOW - DAY) } }, false],
        ['leaves a newer LastUse', { ...INSERTED, LastUse: { N: String(NOW - 5) } }, false],
        ['leaves a LastUse in the future', { ...INSERTED, LastUse: { N: String(NOW + 5) } }, false],
        ['sets a LastUse that is missing', altered(INSERTED, { LastUse: undefined }), true],
        ['puts a LastUse that is no number right', { ...INSERTED, LastUse: { S: 'yesterday' } }, true],
        ['leaves an item without LastUpdate', altered(INSERTED, { LastUpdate: undefined }), false],
        ['creates nothing', undefined, false],
      ];
      for (const [what, stored, touched] of cases) {
        test(what, async () => {
          const { store, item } = await setUp({ items: stored ? [stored] : [] });
          assert.equal(await store.touch(EXAMPLE, NOW, NOW - DAY), touched ? 'written' : 'conflict');
          assert.deepEqual(await item(), touched ? { ...stored, LastUse: { N: String(NOW) } } : stored);
        });
      }

      test('is in no refresh’s way', async () => {
        const { store, item } = await setUp({ items: [INSERTED] });
        const results = await Promise.all([
          store.touch(EXAMPLE, NOW, NOW - DAY),
          store.write(EXAMPLE, EXTEND, T0),
        ]);
        assert.deepEqual(results, ['written', 'written']);
        const stored = await item();
        assert.deepEqual(stored?.LastUse, { N: String(NOW) });
        assert.deepEqual(stored?.LastUpdate, { N: String(T1) });
      });
    });

    describe('read', () => {
      const RECORD: PolicyRecord = {
        domain: EXAMPLE,
        policy: POLICY,
        backoff: false,
        validEnd: T0 + 7 * DAY,
        recordId: '20260301T000000',
        lastUpdate: T0,
        lastFetch: T0,
        lastUse: T0,
        inserted: T0,
        failing: undefined,
      };

      test('gives back what was written', async () => {
        const { store } = await setUp();
        await store.write(EXAMPLE, INSERT, undefined);
        assert.deepEqual((await store.read([EXAMPLE])).records.get(EXAMPLE), RECORD);
        await store.write(EXAMPLE, FAIL, T0);
        assert.deepEqual((await store.read([EXAMPLE])).records.get(EXAMPLE), {
          ...RECORD,
          failing: { lastAttempt: T1, code: 'dns-timeout', since: T0 + 5, recordId: 'a7' },
        });
        await store.write(EXAMPLE, { ...REPLACE, recordId: undefined, lastFetch: undefined }, T0);
        assert.deepEqual((await store.read([EXAMPLE])).records.get(EXAMPLE), {
          ...RECORD,
          policy: REPLACE.policy,
          validEnd: T1 + DAY,
          recordId: undefined,
          lastUpdate: T1,
          lastFetch: undefined,
        });
      });

      test('takes any number of domains, repeated and absent ones too', async () => {
        const present = Array.from({ length: 205 }, (_, i) => domain(`d${i}.example`));
        const absent = Array.from({ length: 45 }, (_, i) => domain(`absent${i}.example`));
        const items = present.map((name) => ({ ...INSERTED, Domain: { S: name } }));
        const { store } = await setUp({ items });
        const asked = new Set([...present, ...absent]);
        const { records, unread, unreadable } = await store.read(asked.values());
        assert.deepEqual([...records.keys()].sort(), present.toSorted());
        for (const [name, record] of records) assert.equal(record.domain, name);
        assert.deepEqual([...unread], []);
        assert.deepEqual(unreadable, []);

        const repeated = await store.read([...present, ...absent, ...present, ...absent, ...present]);
        assert.deepEqual([...repeated.records.keys()].sort(), present.toSorted());
      });

      test('takes no domain at all', async () => {
        const { store } = await setUp();
        assert.deepEqual(await store.read([]), { records: new Map(), unread: new Set(), unreadable: [] });
      });

      type Changes = Record<string, AttributeValue | undefined>;
      const readable: [what: string, changes: Changes, record: Partial<PolicyRecord>][] = [
        ['unknown attributes', { Note: { S: 'x' }, Tags: { SS: ['a'] }, Extra: { M: {} } }, {}],
        ['no Version', { Version: undefined }, {}],
        ['a LastUpdate with a fraction of 0', { LastUpdate: { N: `${T0}.000` } }, { lastUpdate: T0 }],
        ['no Backoff', { Backoff: undefined }, { backoff: false }],
        ['no RecordID', { RecordID: undefined }, { recordId: undefined }],
        ['no PolicyText', { PolicyText: undefined }, {}],
        [
          'no times but ValidEnd and LastUpdate',
          { LastFetch: undefined, LastUse: undefined, Inserted: undefined },
          { lastFetch: undefined, lastUse: undefined, inserted: undefined },
        ],
        [
          'mode none without MX',
          { Mode: { S: 'none' }, MX: undefined },
          { policy: { ...POLICY, mode: 'none', mx: [] } },
        ],
        [
          'a MaxAgeSeconds beyond the maximum',
          { MaxAgeSeconds: { N: '9999999999' } },
          { policy: { ...POLICY, maxAgeSeconds: MAX_MAX_AGE_SECONDS } },
        ],
        [
          'LastAttempt alone',
          { LastAttempt: { N: '7' } },
          { failing: { lastAttempt: 7, code: 'unknown', since: 7, recordId: undefined } },
        ],
        [
          'a failure without FailedRecordID',
          altered(FAILING, { FailedRecordID: undefined }),
          { failing: { lastAttempt: T1, code: 'dns-timeout', since: T0 + 5, recordId: undefined } },
        ],
        [
          'a failure code that is not known',
          { ...FAILING, LastFailure: { S: 'of-a-newer-version' } },
          { failing: { lastAttempt: T1, code: 'of-a-newer-version', since: T0 + 5, recordId: 'a7' } },
        ],
        [
          'FailingSince and FailedRecordID without LastAttempt',
          { FailingSince: { N: '7' }, FailedRecordID: { S: 'a7' } },
          { failing: undefined },
        ],
        [
          'bookkeeping of a wrong type counts as missing',
          {
            RecordID: { N: '20260301' },
            LastFetch: { S: '1' },
            LastUse: { BOOL: true },
            Inserted: { NULL: true },
            LastAttempt: { S: '1' },
          },
          { recordId: undefined, lastFetch: undefined, lastUse: undefined, inserted: undefined },
        ],
        [
          'times of bookkeeping that no clock shows count as missing',
          {
            LastFetch: { N: '1e100' },
            LastUse: { N: '-1' },
            Inserted: { N: `${T0}000000` },
            LastAttempt: { N: '-9e99' },
          },
          { lastFetch: undefined, lastUse: undefined, inserted: undefined },
        ],
        [
          'details of a failure of a wrong type count as missing',
          {
            LastAttempt: { N: '7' },
            LastFailure: { N: '1' },
            FailingSince: { S: '1' },
            FailedRecordID: { N: '7' },
          },
          { failing: { lastAttempt: 7, code: 'unknown', since: 7, recordId: undefined } },
        ],
      ];
      for (const [what, changes, record] of readable) {
        test(`reads an item with ${what}`, async () => {
          const { store } = await setUp({ items: [altered(INSERTED, changes)] });
          const { records, unreadable } = await store.read([EXAMPLE]);
          assert.deepEqual(unreadable, []);
          assert.deepEqual(records.get(EXAMPLE), { ...RECORD, ...record });
        });
      }

      const unreadable: [what: string, changes: Changes, reason: RegExp][] = [
        ['no Mode', { Mode: undefined }, /^Mode is not one of enforce, testing, none$/],
        ['an unknown Mode', { Mode: { S: 'Enforce' } }, /^Mode is not/],
        ['a Mode of a wrong type', { Mode: { L: [{ S: 'enforce' }] } }, /^Mode is not/],
        ['no MX', { MX: undefined }, /^MX is missing or empty, and Mode is enforce$/],
        ['an empty MX', { MX: { L: [] } }, /^MX is missing or empty/],
        ['a set as MX', { MX: { SS: ['mx.example.com'] } }, /^MX is not a list$/],
        ['a string as MX', { MX: { S: 'mx.example.com' } }, /^MX is not a list$/],
        ['MX with a number', { MX: { L: [{ S: 'a.example' }, { N: '1' }] } }, /^MX holds something/],
        ['MX with null', { MX: { L: [{ NULL: true }] } }, /^MX holds something/],
        [
          'no MaxAgeSeconds',
          { MaxAgeSeconds: undefined },
          /^MaxAgeSeconds is missing or not a number from 0$/,
        ],
        ['MaxAgeSeconds as a string', { MaxAgeSeconds: { S: '86400' } }, /^MaxAgeSeconds is missing or not/],
        [
          'a negative MaxAgeSeconds',
          { MaxAgeSeconds: { N: '-1' } },
          /^MaxAgeSeconds is missing or not a number/,
        ],
        ['no ValidEnd', { ValidEnd: undefined }, /^ValidEnd is missing or not a number of milliseconds/],
        ['ValidEnd as a string', { ValidEnd: { S: '2026-03-01' } }, /^ValidEnd is missing or not/],
        ['LastUpdate as a string', { LastUpdate: { S: String(T0) } }, /^LastUpdate is missing or not/],
        ['LastUpdate with a fraction', { LastUpdate: { N: `${T0}.5` } }, /^LastUpdate is not a whole number/],
        [
          'LastUpdate with a fraction that a JavaScript number cannot hold',
          { LastUpdate: { N: `${T0}.00000001` } },
          /^LastUpdate is not a whole number/,
        ],
        ['LastUpdate in nanoseconds', { LastUpdate: { N: `${T0}000001` } }, /^LastUpdate is missing or not/],
        ['LastUpdate before 1970', { LastUpdate: { N: '-1' } }, /^LastUpdate is missing or not a number of/],
        ['ValidEnd in nanoseconds', { ValidEnd: { N: `${T0}000001` } }, /^ValidEnd is missing or not/],
        ['ValidEnd for ever', { ValidEnd: { N: '9.99e125' } }, /^ValidEnd is missing or not/],
        ['Backoff as a string', { Backoff: { S: 'false' } }, /^Backoff is not a boolean$/],
      ];
      for (const [what, changes, reason] of unreadable) {
        test(`reports an item with ${what}, and reads the others`, async () => {
          const other = domain('other.example');
          const items = [altered(INSERTED, changes), { ...INSERTED, Domain: { S: other } }];
          const { store } = await setUp({ items });
          const result = await store.read([EXAMPLE, other]);
          assert.deepEqual([...result.records.keys()], [other]);
          assert.deepEqual([...result.unread], []);
          assert.equal(result.unreadable.length, 1);
          assert.equal(result.unreadable[0]?.key, 'example.com');
          assert.match(result.unreadable[0]?.reason ?? '', reason);
        });
      }

      test('takes an item without LastUpdate for no entry', async () => {
        const { store } = await setUp({ items: [altered(INSERTED, { LastUpdate: undefined })] });
        assert.deepEqual(await store.read([EXAMPLE]), {
          records: new Map(),
          unread: new Set(),
          unreadable: [],
        });
      });

      test('sees the last write', async () => {
        const { store } = await setUp({ items: [INSERTED] });
        for (let lock = T0; lock < T0 + 10; lock++) {
          await store.write(EXAMPLE, { kind: 'extend', validEnd: lock, lastUpdate: lock + 1 }, lock);
          assert.equal((await store.read([EXAMPLE])).records.get(EXAMPLE)?.lastUpdate, lock + 1);
        }
      });
    });

    describe('scan', () => {
      const NEVER = Number.NEGATIVE_INFINITY;
      const USED_BEFORE = T0 - 100 * DAY;
      const NO_LATER = Number.POSITIVE_INFINITY;
      const RANGE = {
        updatedBefore: T0,
        usedBefore: USED_BEFORE,
        expiringBefore: NEVER,
        updatedAfter: NO_LATER,
      };

      function entry(key: string, updated: number, used: number | undefined): Item {
        return altered(INSERTED, {
          Domain: { S: key },
          LastUpdate: { N: String(updated) },
          LastUse: used === undefined ? undefined : { N: String(used) },
        });
      }

      const MIXED = [
        entry('stale.example', T0 - 1, T0),
        entry('stale-use-unknown.example', T0 - 1, undefined),
        entry('stale-unused.example', T0 - 1, USED_BEFORE - 1),
        entry('fresh-unused.example', T0, USED_BEFORE - 1),
        entry('fresh.example', T0, USED_BEFORE),
        entry('fresh-use-unknown.example', T0, undefined),
      ];

      for (const scanSegments of [1, 3, 16]) {
        test(`finds what is stale or unused and counts everything, in ${scanSegments} parts`, async () => {
          const { store } = await setUp({ items: MIXED, scanSegments });
          const pages = await all(store.scan(RANGE));
          assert.deepEqual(scanned(pages), {
            domains: [
              'fresh-unused.example',
              'stale-unused.example',
              'stale-use-unknown.example',
              'stale.example',
            ],
            examined: MIXED.length,
            unreadable: [],
          });
          const records = new Map(
            pages.flatMap((page) => page.records.map((record) => [record.domain, record])),
          );
          assert.deepEqual(records.get(domain('stale-unused.example')), {
            domain: 'stale-unused.example',
            lastUpdate: T0 - 1,
            lastUse: USED_BEFORE - 1,
            lastFetch: Number(INSERTED.LastFetch?.N),
            mode: INSERTED.Mode?.S,
            backoff: false,
            validEnd: Number(INSERTED.ValidEnd?.N),
            failingSince: undefined,
            lastFailure: undefined,
          });
          assert.equal(records.get(domain('stale-use-unknown.example'))?.lastUse, undefined);
        });

        test(`pages through more than a megabyte, in ${scanSegments} parts`, async () => {
          const padding: Item = { Note: { S: 'x'.repeat(50_000) } };
          const items = Array.from({ length: 90 }, (_, i) => ({
            ...entry(`d${i}.example`, T0 - 1 - i, T0),
            ...padding,
          }));
          const { store } = await setUp({ items, scanSegments });
          const pages = await all(store.scan(RANGE));
          const expected = items.map((item) => item.Domain?.S ?? '').sort();
          assert.deepEqual(scanned(pages), { domains: expected, examined: 90, unreadable: [] });
          if (scanSegments <= 3) assert.ok(pages.length > scanSegments, `${pages.length} pages`);
        });
      }

      const STALE = ['stale-unused.example', 'stale-use-unknown.example', 'stale.example'];
      const infinities: [what: string, updatedBefore: number, usedBefore: number, domains: string[]][] = [
        ['nothing is ever unused', T0, NEVER, STALE],
        ['nothing is ever stale', NEVER, USED_BEFORE, ['fresh-unused.example', 'stale-unused.example']],
        ['neither', NEVER, NEVER, []],
        [
          'everything is stale',
          Number.POSITIVE_INFINITY,
          NEVER,
          MIXED.map((item) => item.Domain?.S ?? '').sort(),
        ],
      ];
      for (const [what, updatedBefore, usedBefore, domains] of infinities) {
        test(`takes infinite times: ${what}`, async () => {
          const { store } = await setUp({ items: MIXED });
          const result = scanned(await all(store.scan({ ...RANGE, updatedBefore, usedBefore })));
          assert.deepEqual(result, { domains, examined: MIXED.length, unreadable: [] });
        });
      }

      test('finds what is about to expire, in back-off or failing, however fresh', async () => {
        const fresh = (key: string, more: Item) => ({ ...entry(key, T0, T0), ...more });
        const items = [
          fresh('healthy.example', { ValidEnd: { N: String(T0 + DAY) } }),
          fresh('expiring.example', { ValidEnd: { N: String(T0 + DAY - 1) } }),
          fresh('backoff.example', { ValidEnd: { N: String(T0 + DAY) }, Backoff: { BOOL: true } }),
          fresh('failing.example', {
            ValidEnd: { N: String(T0 + DAY) },
            FailingSince: { N: String(T0) },
            LastFailure: { S: 'connect-timeout' },
          }),
        ];
        const { store } = await setUp({ items });
        const pages = await all(store.scan({ ...RANGE, expiringBefore: T0 + DAY }));
        const found = pages.flatMap((page) => page.records).sort((a, b) => (a.domain < b.domain ? -1 : 1));
        assert.deepEqual(
          found.map(({ domain: name, backoff, validEnd, failingSince, lastFailure }) => [
            name,
            backoff,
            validEnd,
            failingSince,
            lastFailure,
          ]),
          [
            ['backoff.example', true, T0 + DAY, undefined, undefined],
            ['expiring.example', false, T0 + DAY - 1, undefined, undefined],
            ['failing.example', false, T0 + DAY, T0, 'connect-timeout'],
          ],
        );
      });

      test('finds what was updated in the future, and reports what no clock shows', async () => {
        const items = [
          entry('tomorrow.example', T0 + DAY, T0),
          entry('later.example', T0 + DAY + 1, T0),
          { ...entry('never.example', T0, T0), LastUpdate: { N: '9.99e125' } },
        ];
        const { store } = await setUp({ items });
        const result = scanned(await all(store.scan({ ...RANGE, updatedAfter: T0 + DAY })));
        assert.deepEqual(result.domains, ['later.example']);
        assert.deepEqual(
          result.unreadable.map(({ key }) => key),
          ['never.example'],
        );
        assert.deepEqual(scanned(await all(store.scan(RANGE))).domains, []);
      });

      test('reports what cannot be read, and finds the rest', async () => {
        const items: Item[] = [
          ...MIXED,
          entry('Upper.example', T0 - 1, T0),
          entry('trailing.example.', T0 - 1, T0),
          entry('bücher.example', T0 - 1, T0),
          entry('single', T0 - 1, T0),
          entry('line\nend.example', T0 - 1, T0),
          { ...entry('fraction.example', T0, T0), LastUpdate: { N: `${T0 - 1}.5` } },
          { ...entry('string.example', T0, T0), LastUpdate: { S: String(T0) } },
          { ...entry('string-unused.example', T0, USED_BEFORE - 1), LastUpdate: { S: String(T0) } },
        ];
        const { store } = await setUp({ items, scanSegments: 2 });
        const result = scanned(await all(store.scan(RANGE)));
        assert.equal(result.domains.length, 4);
        assert.equal(result.examined, items.length);
        assert.deepEqual(Object.fromEntries(result.unreadable.map(({ key, reason }) => [key, reason])), {
          'Upper.example': 'the key should be upper.example',
          'trailing.example.': 'the key should be trailing.example',
          'bücher.example': 'the key should be xn--bcher-kva.example',
          single: 'The domain "single" has only one label.',
          'line\nend.example':
            'The domain "line\u{FFFD}end.example" has the character "\u{FFFD}", which no domain has.',
          'fraction.example': 'LastUpdate is not a whole number of milliseconds',
          'string.example': 'LastUpdate is missing or not a number of milliseconds since 1970',
          'string-unused.example': 'LastUpdate is missing or not a number of milliseconds since 1970',
        });
      });

      test('takes an item without LastUpdate for no entry, and a LastUse of a wrong type for unknown', async () => {
        const items = [
          altered(entry('remains.example', 0, 0), { LastUpdate: undefined }),
          { ...entry('stale.example', T0 - 1, T0), LastUse: { S: '0' } },
          { ...entry('fresh.example', T0, T0), LastUse: { S: '0' } },
        ];
        const { store } = await setUp({ items });
        const pages = await all(store.scan(RANGE));
        assert.deepEqual(scanned(pages), { domains: ['stale.example'], examined: 3, unreadable: [] });
        assert.equal(pages[0]?.records[0]?.lastUse, undefined);
      });

      test('gives an empty table’s parts as empty pages', async () => {
        const { store } = await setUp({ scanSegments: 4 });
        const pages = await all(store.scan(RANGE));
        assert.deepEqual(scanned(pages), { domains: [], examined: 0, unreadable: [] });
      });
    });

    describe('discoveries', () => {
      const ALL = '#discovered#2026-03-01';
      const COUNTER: Item = {
        Domain: { S: `${ALL}#example.com` },
        Discoveries: { N: '1' },
        // In seconds, as DynamoDB wants it.
        Expires: { N: String((T0 + 2 * DAY) / 1_000) },
      };

      test('are counted up to the limit, and no further', async () => {
        const { store, item } = await setUp();
        const admitted = [];
        for (let i = 0; i < 4; i++) admitted.push(await store.admitDiscovery('example.com', 2, T0));
        assert.deepEqual(admitted, [true, true, false, false]);
        assert.deepEqual(await item(COUNTER.Domain?.S), { ...COUNTER, Discoveries: { N: '2' } });
      });

      test('are counted for each registrable domain, for all together, and for each day, UTC', async () => {
        const { store, item } = await setUp();
        const last = T0 + DAY - 1;
        for (const [within, now] of [
          ['example.com', T0],
          ['example.net', T0],
          [undefined, T0],
          ['example.com', T1],
        ] as const) {
          assert.equal(await store.admitDiscovery(within, 1, now), true);
          assert.equal(await store.admitDiscovery(within, 1, now), false);
        }
        assert.equal(await store.admitDiscovery('example.com', 1, last), false);
        assert.deepEqual(await item(COUNTER.Domain?.S), COUNTER);
        assert.deepEqual(await item(ALL), { ...COUNTER, Domain: { S: ALL } });
      });

      test('are exactly as many as the limit when many are asked for at once', async () => {
        const { store, item } = await setUp();
        const admitted = await Promise.all(
          Array.from({ length: 30 }, () => store.admitDiscovery('example.com', 7, T0)),
        );
        assert.equal(admitted.filter(Boolean).length, 7);
        assert.equal((await item(COUNTER.Domain?.S))?.Discoveries?.N, '7');
      });

      test('may have a limit that was lowered since', async () => {
        const { store } = await setUp({ items: [{ ...COUNTER, Discoveries: { N: '9' } }] });
        assert.equal(await store.admitDiscovery('example.com', 5, T0), false);
        assert.equal(await store.admitDiscovery('example.com', 10, T0), true);
      });

      test('a counter that is no number admits none', async () => {
        const stored = { ...COUNTER, Discoveries: { S: 'many' } };
        const { store, item } = await setUp({ items: [stored] });
        assert.equal(await store.admitDiscovery('example.com', 5, T0), false);
        assert.deepEqual(await item(COUNTER.Domain?.S), stored);
      });

      test('their counters are no entries, and not counted as such, in one part and in several', async () => {
        for (const scanSegments of [1, 4]) {
          const { store } = await setUp({ items: [INSERTED], scanSegments });
          for (const within of [undefined, 'example.com', 'example.net']) {
            await store.admitDiscovery(within, 5, T0);
          }
          const everything = {
            updatedBefore: Number.POSITIVE_INFINITY,
            usedBefore: Number.POSITIVE_INFINITY,
            expiringBefore: Number.POSITIVE_INFINITY,
            updatedAfter: Number.NEGATIVE_INFINITY,
          };
          const expected = { domains: ['example.com'], examined: 1, unreadable: [] };
          assert.deepEqual(scanned(await all(store.scan(everything))), expected);
        }
      });

      test('no change of an entry sets the attribute by which counters expire', async () => {
        const { store, item } = await setUp();
        const changes: [Change, number | undefined][] = [
          [INSERT, undefined],
          [FAIL, T0],
          [EXTEND, T0],
          [{ ...REPLACE, lastUpdate: T1 + 1 }, T1],
        ];
        for (const [change, lock] of changes) {
          assert.equal(await store.write(EXAMPLE, change, lock), 'written');
          assert.equal((await item())?.Expires, undefined);
        }
        assert.equal(await store.touch(EXAMPLE, T1 + 5, T1 + 5), 'written');
        assert.equal((await item())?.Expires, undefined);
      });
    });
  });
}
