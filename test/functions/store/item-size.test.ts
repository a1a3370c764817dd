// How large an item a hostile domain can make: DynamoDB charges for every kilobyte of it at every write, and for every
// four at every read, also by a scan.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type AttributeValue, type DynamoDBClient, UpdateItemCommand } from '@aws-sdk/client-dynamodb';
import { formatPolicy, MAX_MX_BYTES, parsePolicy } from '../../../functions/mtasts/policy.ts';
import { createDynamoStore } from '../../../functions/store/dynamo.ts';
import type { Change } from '../../../functions/store/policy-store.ts';
import { domain } from './contract.ts';

type Item = Record<string, AttributeValue>;

/** "DynamoDB item sizes and formats", at the upper end where it says "approximately". */
function sizeOf(value: AttributeValue): number {
  if (value.S !== undefined) return Buffer.byteLength(value.S);
  if (value.N !== undefined) return 2 + Math.ceil(value.N.replace(/^0+|0+$|[.-]/g, '').length / 2);
  if (value.BOOL !== undefined) return 1;
  assert.ok(value.L, 'no policy has an attribute of another type');
  return 3 + value.L.reduce((sum, each) => sum + 1 + sizeOf(each), 0);
}

/** What the store writes. */
async function written(name: string, ...changes: [Change, number | undefined][]): Promise<Item> {
  const item: Item = { Domain: { S: name } };
  const client = {
    async send(command: unknown) {
      assert.ok(command instanceof UpdateItemCommand);
      const { UpdateExpression = '', ExpressionAttributeValues = {} } = command.input;
      for (const [, attribute = ''] of UpdateExpression.matchAll(/#(\w+) = /g)) {
        item[attribute] = ExpressionAttributeValues[`:${attribute}`] ?? assert.fail();
      }
    },
  } as unknown as DynamoDBClient;
  const store = createDynamoStore({ client, table: 'policies' });
  for (const [change, lock] of changes) await store.write(domain(name), change, lock);
  return item;
}

/** The shortest names there are, since each costs a byte more than it has. */
function* shortest(): Generator<string> {
  const ends = [...'abcdefghijklmnopqrstuvwxyz0123456789'];
  for (const last of ends) if (last > '9') yield last;
  for (const first of ends) for (const last of ends) if (first + last > '99') yield first + last;
  for (const first of ends)
    for (const middle of [...ends, '-']) for (const last of ends) yield `${first}${middle}${last}`;
}

/** The policy with as many patterns as fit; its text at most so long. */
function largest(maxTextBytes: number): string {
  const mx: string[] = [];
  let [mxBytes, textBytes] = [0, 'version:STSv1\nmode:enforce\nmax_age:1\n'.length];
  for (const name of shortest()) {
    if (/^\d+$/.test(name)) continue;
    mxBytes += name.length;
    textBytes += `mx:${name}\n`.length;
    if (mxBytes > MAX_MX_BYTES || textBytes > maxTextBytes) break;
    mx.push(name);
  }
  return `version:STSv1\nmode:enforce\nmax_age:1\n${mx.map((name) => `mx:${name}\n`).join('')}`;
}

const LONG_NAME = `${'a'.repeat(60)}.`.repeat(4).slice(0, 240).concat('.com');
const TIME = 1_763_788_812_345;
const policies: [what: string, text: string][] = [
  ['as many patterns as there can be', largest(65_536)],
  ['as many as there can be in a text that is kept', largest(4_096)],
  [
    'as long patterns as there can be',
    formatPolicy({ mode: 'testing', maxAgeSeconds: 31_557_600, mx: longest() }),
  ],
];

function longest(): string[] {
  const label = 'x'.repeat(60);
  return Array.from(
    { length: 32 },
    (_, i) => `${label}.${label}.${label}.${label}.n${String(i).padStart(2, '0')}.abcd`,
  );
}

for (const [what, policyText] of policies) {
  test(`the item of a policy with ${what} has at most 12 KiB: twelve write units, three read units`, async (t) => {
    const parsed = parsePolicy(policyText);
    assert.ok(parsed.ok, JSON.stringify(parsed));
    const { policy } = parsed;
    const [validEnd, recordId] = [TIME + policy.maxAgeSeconds * 1_000, 'i'.repeat(32)];
    const item = await written(
      LONG_NAME,
      [
        {
          ...{ kind: 'insert', policy, policyText, backoff: false, validEnd, recordId },
          ...{ lastUpdate: TIME, lastFetch: TIME },
        },
        undefined,
      ],
      [{ kind: 'fail', lastAttempt: TIME, code: 'certificate-name-mismatch', since: TIME, recordId }, TIME],
    );
    assert.equal(Object.keys(item).length, what.endsWith('that is kept') ? 17 : 16);
    const bytes = Object.entries(item).reduce((sum, [name, value]) => sum + name.length + sizeOf(value), 0);
    t.diagnostic(`${bytes} bytes, ${policy.mx.length} patterns, a text of ${policyText.length}`);
    assert.ok(bytes <= 12 * 1_024, `${bytes} bytes`);
  });
}
