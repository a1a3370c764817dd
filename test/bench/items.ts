// An item as DynamoDB holds it: what it looks like on the wire, and what it counts for on the bill.

import type { AttributeValue } from '@aws-sdk/client-dynamodb';
import type { BenchItem } from './domains.ts';

type Item = Record<string, AttributeValue>;

const n = (value: number): AttributeValue => ({ N: String(value) });

/** With the attributes of the README's contract. */
export function attributesOf({
  domain,
  policy,
  policyText,
  lastUpdate,
  lastFetch,
  failingSince,
}: BenchItem): Item {
  return {
    Domain: { S: domain },
    ValidEnd: n(lastUpdate + policy.maxAgeSeconds * 1_000),
    Backoff: { BOOL: false },
    Mode: { S: policy.mode },
    MX: { L: policy.mx.map((pattern) => ({ S: pattern })) },
    MaxAgeSeconds: n(policy.maxAgeSeconds),
    RecordID: { S: 'id1' },
    Version: { S: 'STSv1' },
    PolicyText: { S: policyText },
    LastUpdate: n(lastUpdate),
    LastFetch: n(lastFetch),
    LastUse: n(lastUpdate),
    Inserted: n(lastUpdate),
    ...(failingSince === undefined
      ? {}
      : { LastAttempt: n(lastUpdate), LastFailure: { S: 'connect-timeout' }, FailingSince: n(failingSince) }),
  };
}

/** "DynamoDB item sizes and formats", in bytes. */
export function itemBytes(item: Item): number {
  return Object.entries(item).reduce(
    (sum, [name, value]) => sum + Buffer.byteLength(name) + valueBytes(value),
    0,
  );
}

function valueBytes(value: AttributeValue): number {
  if (value.S !== undefined) return Buffer.byteLength(value.S);
  // "approximately (length of the number) = 1 byte per two significant digits, + 1"
  if (value.N !== undefined) return Math.ceil(value.N.replace(/^-|0+$/g, '').length / 2) + 1;
  if (value.BOOL !== undefined) return 1;
  if (value.L !== undefined) return value.L.reduce((sum, element) => sum + 1 + valueBytes(element), 3);
  throw new Error(`no item of the bench has ${JSON.stringify(value)}`);
}

/** Units of a write: 1 KB each, rounded up. */
export const writeUnits = (bytes: number) => Math.ceil(bytes / 1_024);

/** Units of a consistent read of one item: 4 KB each, rounded up. */
export const readUnits = (bytes: number) => Math.ceil(bytes / 4_096);

/** Units of an eventually consistent scan, which rounds up a page and not an item. */
export const scanUnits = (bytes: number) => bytes / 4_096 / 2;
