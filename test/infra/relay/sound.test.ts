// The functions extend no item that a relay refuses to use, and refuse to extend none that it would use: both read items
// with the same eyes, whatever is in them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import { MAX_MX_BYTES } from '../../../functions/mtasts/policy.ts';
import { decide } from '../../../functions/refresh/decide.ts';
import { decodePolicyItem } from '../../../functions/store/dynamo.ts';
import { entryOf } from '../../../infra/relay/entry.ts';

const NOW = 1_763_788_800_000;
const HOUR_MS = 3_600_000;
const RULES = { retryAfterMs: 300_000, maxFetchAgeMs: 7 * 24 * HOUR_MS };

interface Stored {
  readonly mode: string;
  readonly mx: readonly string[];
  readonly maxAge: string;
}

/** An item of `a.example`, fetched an hour ago. undefined: functions and relays both report it as unreadable. */
function read({ mode, mx, maxAge }: Stored) {
  const decoded = decodePolicyItem({
    Domain: { S: 'a.example' as Domain },
    ValidEnd: { N: String(NOW + HOUR_MS) },
    Mode: { S: mode },
    MX: { L: mx.map((pattern) => ({ S: pattern })) },
    MaxAgeSeconds: { N: maxAge },
    RecordID: { S: 'id1' },
    LastUpdate: { N: String(NOW - HOUR_MS) },
    LastFetch: { N: String(NOW - HOUR_MS) },
  });
  return decoded.ok ? decoded.record : undefined;
}

/** What the functions do when the record still has the id of the item, and what a relay makes of it. */
function bothOn(stored: Stored, maxFetchAgeMs = RULES.maxFetchAgeMs) {
  const record = read(stored);
  if (record === undefined) return undefined;
  const decision = decide({
    record,
    lookup: { status: 'found', id: 'id1' },
    fetched: undefined,
    now: NOW,
    rules: { ...RULES, maxFetchAgeMs },
  });
  return {
    functions: decision.action === 'write' ? decision.change.kind : decision.action,
    relay: entryOf(record, NOW).ok ? 'uses' : 'refuses',
  };
}

const items: [what: string, stored: Partial<Stored>, sound: boolean][] = [
  ['a policy', {}, true],
  ['an upper-case MX', { mx: ['MX.A.EXAMPLE'] }, true],
  ['an MX twice', { mx: ['mx.a.example', 'mx.a.example'] }, true],
  ['a wildcard', { mx: ['*.a.example'] }, true],
  ['more seconds than a year', { maxAge: '99999999999' }, true],
  ['mode none without MX', { mode: 'none', mx: [] }, true],
  ['an MX with a blank', { mx: ['mx a.example'] }, false],
  ['an MX with a blank after it', { mx: ['mx.a.example '] }, false],
  ['a U-label', { mx: ['mx.bücher.example'] }, false],
  ['an MX with a trailing dot', { mx: ['mx.a.example.'] }, false],
  ['an address', { mx: ['[192.0.2.1]'] }, false],
  ['an empty MX', { mx: [''] }, false],
  ['an MX that is two lines', { mx: ['mx.a.example\nmx: mx.b.example'] }, false],
  ['one bad MX of several', { mx: ['mx.a.example', 'mx_b'] }, false],
  ['mode none with a bad MX', { mode: 'none', mx: ['mx a'] }, false],
  ['a fraction of a second', { maxAge: '86400.5' }, false],
  ['a fraction that JavaScript writes with an exponent', { maxAge: '1e-7' }, false],
  [
    'more MX than are taken',
    { mx: Array.from({ length: MAX_MX_BYTES / 8 }, (_, i) => `${String(i).padStart(4, '0')}.test`) },
    false,
  ],
];
for (const [what, stored, sound] of items) {
  test(`an item with ${what} is ${sound ? 'extended, and used' : 'fetched, and not used'}`, () => {
    for (const maxFetchAgeMs of [RULES.maxFetchAgeMs, 0]) {
      const both = bothOn(
        { mode: 'enforce', mx: ['mx.a.example'], maxAge: '86400', ...stored },
        maxFetchAgeMs,
      );
      assert.deepEqual(
        both,
        sound ? { functions: 'extend', relay: 'uses' } : { functions: 'fetch', relay: 'refuses' },
      );
    }
  });
}

const pattern = fc.oneof(
  fc.constantFrom(
    'mx.a.example',
    '*.a.example',
    'MX.a.example',
    'a',
    'mx.a.example.',
    '*.',
    '*',
    '1.2.3.4',
    'mx: b',
  ),
  fc.domain(),
  fc.string({ unit: 'binary', maxLength: 300 }),
  fc
    .tuple(fc.domain(), fc.constantFrom(' ', '\t', '\r\n', '\n', '\0', 'ü', '_'))
    .map((parts) => parts.join('')),
);
const anyItem: fc.Arbitrary<Stored> = fc.record({
  mode: fc.constantFrom('enforce', 'testing', 'none', 'Enforce'),
  mx: fc.oneof(fc.array(pattern, { maxLength: 3 }), fc.array(fc.domain(), { maxLength: 600 })),
  maxAge: fc.oneof(
    fc.constantFrom('0', '86400', '86400.0', '86400.5', '1e5', '1e-7', '1e21', '-1', '9999999999'),
    fc.nat().map(String),
    fc.double({ min: 0, max: 1e10, noNaN: true }).map(String),
  ),
});

test('functions and relay never disagree about an item', () => {
  const seen = { uses: 0, refuses: 0 };
  fc.assert(
    fc.property(anyItem, (stored) => {
      const both = bothOn(stored);
      if (both === undefined) return;
      seen[both.relay as keyof typeof seen]++;
      // A max_age of less than the hour that has passed since the fetch vouches for nothing either.
      if (both.functions === 'extend') assert.equal(both.relay, 'uses');
      if (both.relay === 'uses' && Number(stored.maxAge) * 1_000 > 2 * HOUR_MS) {
        assert.equal(both.functions, 'extend');
      }
    }),
    { numRuns: 2_000 },
  );
  assert.ok(seen.uses > 100 && seen.refuses > 100, JSON.stringify(seen));
});
