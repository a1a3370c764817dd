// Items by anybody's hand: of other versions, of other programs, typed into a console. Each is read as something that
// makes sense, or reported with the attribute that does not, and nothing throws.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type AttributeValue,
  BatchGetItemCommand,
  type DynamoDBClient,
  ScanCommand,
} from '@aws-sdk/client-dynamodb';
import fc from 'fast-check';
import { MAX_MAX_AGE_SECONDS } from '../../../functions/mtasts/policy.ts';
import { createDynamoStore, decodePolicyItem } from '../../../functions/store/dynamo.ts';
import { anyText } from '../dispatch/tasks.ts';
import { domain } from './contract.ts';

type Item = Record<string, AttributeValue>;

const TABLE = 'policies';
const RANGE = { updatedBefore: 10, usedBefore: 0, expiringBefore: 0, updatedAfter: 20 };

const PROPER: Item = {
  Domain: { S: 'a.example' },
  ValidEnd: { N: '1763788800000' },
  Mode: { S: 'enforce' },
  MX: { L: [{ S: 'mx.a.example' }] },
  MaxAgeSeconds: { N: '86400' },
  LastUpdate: { N: '1763702400000' },
};
const OPTIONAL = ['Backoff', 'RecordID', 'LastFetch', 'LastUse', 'Inserted', 'LastAttempt', 'LastFailure'];
const NAMES = [...Object.keys(PROPER), ...OPTIONAL, 'FailingSince', 'FailedRecordID'];

// What DynamoDB takes for a number: 38 digits, from 1E-130 to 9.99E+125, of either sign ("Data types"). It knows no
// NaN and no infinity, but the decoder is not told so.
const numeral = fc.oneof(
  fc.constantFrom(
    '0',
    '-0',
    '1e100',
    '-1e100',
    '9.99e125',
    '1e-130',
    '8640000000000001',
    '253402300800000',
    'NaN',
  ),
  fc.constantFrom(
    '1763788800000',
    '1763788800000.5',
    '-1763788800000',
    '1.7637888E+12',
    'Infinity',
    '',
    '0x10',
  ),
  fc.integer().map(String),
  fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e125, max: 1e125 }).map(String),
  fc.bigInt({ min: -(10n ** 38n), max: 10n ** 38n }).map(String),
);
const text = fc.oneof(anyText, fc.constantFrom('enforce', 'testing', 'none', 'a.example', 'A.example', ''));
const { value } = fc.letrec<{ value: AttributeValue }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    text.map((S) => ({ S })),
    numeral.map((N) => ({ N })),
    fc.boolean().map((BOOL) => ({ BOOL })),
    fc.constant({ NULL: true as const }),
    fc.uint8Array().map((B) => ({ B })),
    fc.array(text).map((SS) => ({ SS })),
    fc.array(numeral).map((NS) => ({ NS })),
    fc.array(tie('value')).map((L) => ({ L })),
    fc.dictionary(fc.string(), tie('value')).map((M) => ({ M })),
  ),
}));
const alike = fc.oneof(
  value,
  numeral.map((N) => ({ N })),
  fc.array(text.map((S) => ({ S }))).map((L) => ({ L })),
);
const changed = fc
  .dictionary(fc.constantFrom(...NAMES, 'Version', 'Tags'), fc.option(alike, { nil: undefined }))
  .map((changes) => {
    const attributes = Object.entries({ ...PROPER, ...changes });
    return Object.fromEntries(attributes.filter(([, each]) => each !== undefined)) as Item;
  });
const anything = fc.dictionary(fc.oneof(fc.constantFrom(...NAMES), fc.string()), value);
const anyItem = fc.oneof({ weight: 4, arbitrary: changed }, { weight: 1, arbitrary: anything });

function isTime(time: number | undefined): boolean {
  // What toISOString takes, and what a lock can be counted up from.
  return time === undefined || (time >= 0 && time <= Date.UTC(10_000));
}

test('what is read makes sense, and what is not says which attribute does not', () => {
  let read = 0;
  fc.assert(
    fc.property(anyItem, (item) => {
      const decoded = decodePolicyItem(item);
      if (!decoded.ok) {
        assert.match(decoded.reason, /Mode|MX|MaxAgeSeconds|ValidEnd|LastUpdate|Backoff|[Dd]omain|key/);
        assert.doesNotMatch(decoded.reason, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u);
        return;
      }
      read++;
      const { record } = decoded;
      assert.equal(record.domain, item.Domain?.S);
      assert.equal(record.backoff, item.Backoff?.BOOL ?? false);
      const { policy, failing, validEnd, lastUpdate, lastFetch, lastUse, inserted } = record;
      assert.ok(['enforce', 'testing', 'none'].includes(policy.mode));
      assert.ok(policy.mode === 'none' || policy.mx.length > 0);
      assert.ok(policy.maxAgeSeconds >= 0 && policy.maxAgeSeconds <= MAX_MAX_AGE_SECONDS);
      assert.ok(Number.isSafeInteger(lastUpdate + 1));
      for (const time of [validEnd, lastUpdate, lastFetch, lastUse, inserted])
        assert.ok(isTime(time), `${time}`);
      assert.ok(isTime(failing?.lastAttempt) && isTime(failing?.since));
    }),
    { numRuns: 2_000 },
  );
  assert.ok(read > 200, `${read} items were read`);
});

test('it is read, or reported, or no entry, and keeps no other from being read', async () => {
  const other: Item = { ...PROPER, Domain: { S: 'other.example' } };
  await fc.assert(
    fc.asyncProperty(changed, async (item) => {
      const answer = (command: unknown) =>
        command instanceof ScanCommand
          ? { Items: [item, other], ScannedCount: 2 }
          : { Responses: { [TABLE]: [item, other] } };
      const client = {
        async send(command: unknown) {
          assert.ok(command instanceof ScanCommand || command instanceof BatchGetItemCommand);
          return answer(command);
        },
      } as unknown as DynamoDBClient;
      const store = createDynamoStore({ table: TABLE, client });
      const { records, unreadable } = await store.read([domain('a.example'), domain('other.example')]);
      assert.ok(records.has(domain('other.example')));
      assert.equal(records.size + unreadable.length, item.LastUpdate === undefined ? 1 : 2);
      for await (const page of store.scan(RANGE)) {
        assert.equal(page.records.length + page.unreadable.length, page.examined);
        for (const record of page.records) {
          const { lastUpdate, lastUse, lastFetch, validEnd, failingSince } = record;
          for (const time of [lastUpdate, lastUse, lastFetch, validEnd, failingSince])
            assert.ok(isTime(time));
        }
      }
    }),
    { numRuns: 500 },
  );
});
