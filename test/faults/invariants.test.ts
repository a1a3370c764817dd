// The checks of every bad day, on forged journals: each breach is found, and nothing else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { breachesOf } from './invariants.ts';
import type { Item, Write } from './journal.ts';

const DOMAIN = 'a.test';

function version(lastUpdate: number, differs: Item = {}): Item {
  return {
    Domain: { S: DOMAIN },
    LastUpdate: { N: String(lastUpdate) },
    ValidEnd: { N: String(lastUpdate + 1_000) },
    ...differs,
  };
}

/** A refresh by its own process, from the version that it read to the next. */
function refresh(read: number, lastUpdate: number, differs: Partial<Write> = {}): Write {
  const by = { process: `refresh-${lastUpdate}`, domain: DOMAIN };
  return { kind: 'refresh', ...by, read, before: version(read), lastUpdate, ...differs };
}

const deletion = (kind: 'prune' | 'removal', read: number, before: Item) =>
  refresh(read, 0, { kind, before, lastUpdate: undefined });

const noted = (read: number) => refresh(read, 0, { kind: 'failure', lastUpdate: undefined });

interface Row {
  readonly name: string;
  readonly first?: Item;
  readonly writes: readonly Write[];
  readonly last?: Item;
  readonly breaches: readonly RegExp[];
}

const rows: readonly Row[] = [
  { name: 'nothing happened', first: version(1), writes: [], last: version(1), breaches: [] },
  { name: 'there never was an entry', writes: [], breaches: [] },
  {
    name: 'one after the other',
    first: version(1),
    writes: [refresh(1, 2), refresh(2, 3)],
    last: version(3),
    breaches: [],
  },
  {
    name: 'in the order of their answers, which is not that of the database',
    first: version(1),
    writes: [refresh(2, 3), refresh(1, 2)],
    last: version(3),
    breaches: [],
  },
  {
    name: 'failures are noted again and again, and LastUpdate is as it was',
    first: version(1),
    writes: [noted(1), noted(1), refresh(1, 2), noted(2)],
    last: version(2),
    breaches: [],
  },
  {
    name: 'found, removed and found again',
    writes: [
      refresh(0, 1, { kind: 'discovery', before: undefined }),
      deletion('removal', 1, version(1)),
      refresh(0, 5, { kind: 'discovery', before: undefined }),
    ],
    last: version(5),
    breaches: [],
  },
  {
    name: 'pruned while its use is known',
    first: version(1, { LastUse: { N: '1' } }),
    writes: [deletion('prune', 1, version(1, { LastUse: { N: '1' } }))],
    breaches: [],
  },
  {
    name: 'pruned although nothing is known of its use',
    first: version(1),
    writes: [deletion('prune', 1, version(1))],
    breaches: [/prune by refresh-0 is of an entry whose use is not known/],
  },
  {
    name: 'somebody else was newer, and is overwritten',
    first: version(1),
    writes: [refresh(1, 2), refresh(1, 3, { before: version(2) })],
    last: version(3),
    breaches: [
      /refresh by refresh-3 is over version 2, but was made of 1/,
      /two successful writes for .* 1 /,
    ],
  },
  {
    name: 'two successes over one version, of which one is lost',
    first: version(1),
    writes: [refresh(1, 2), refresh(1, 3)],
    last: version(3),
    breaches: [
      /two successful writes/,
      /refresh-3 over version 1, which is in no line/,
      /is at version 3, but/,
    ],
  },
  {
    name: 'LastUpdate goes back',
    first: version(5),
    writes: [refresh(5, 4)],
    last: version(4),
    breaches: [/goes from 5 to 4/],
  },
  {
    name: 'LastUpdate stays',
    first: version(5),
    writes: [refresh(5, 5)],
    last: version(5),
    breaches: [/goes from 5 to 5/],
  },
  {
    name: 'a removal of what it had not read',
    first: version(1),
    writes: [refresh(1, 2), deletion('removal', 1, version(2))],
    breaches: [/removal by refresh-0 is over version 2, but was made of 1/, /two successful writes/],
  },
  {
    name: 'a discovery over an entry',
    first: version(1),
    writes: [refresh(0, 2, { kind: 'discovery', before: version(1) })],
    last: version(2),
    breaches: [/discovery by refresh-2 is over version 1/],
  },
  {
    name: 'a failure of another version',
    first: version(2),
    writes: [refresh(1, 0, { kind: 'failure', before: version(2), lastUpdate: undefined })],
    last: version(2),
    breaches: [/failure by refresh-0 is over version 2, but was made of 1/],
  },
  {
    name: 'a use of nothing',
    writes: [refresh(0, 0, { kind: 'use', before: undefined, lastUpdate: undefined })],
    breaches: [/use by refresh-0 is of no entry/],
  },
  {
    name: 'an entry is lost',
    first: version(1),
    writes: [],
    breaches: [/is at version undefined, but should be at 1/],
  },
  {
    name: 'a write is lost',
    first: version(1),
    writes: [refresh(1, 2)],
    last: version(1),
    breaches: [/is at version 1, but should be at 2/],
  },
  {
    name: 'an entry from nowhere',
    writes: [],
    last: version(1),
    breaches: [/is at version 1, but should be/],
  },
  {
    name: 'what relays read changes without LastUpdate',
    first: version(1),
    writes: [noted(1)],
    last: version(1, { ValidEnd: { N: '7' } }),
    breaches: [/ValidEnd of version 1 was changed/],
  },
];

for (const { name, first, writes, last, breaches } of rows) {
  test(name, () => {
    const found = breachesOf([{ domain: DOMAIN, first, last }], writes);
    assert.equal(found.length, breaches.length, found.join('\n'));
    for (const [i, breach] of breaches.entries()) assert.match(found[i] ?? '', breach);
  });
}

test('a domain that nobody knows is written', () => {
  const writes = [refresh(0, 1, { kind: 'discovery', before: undefined, domain: 'stranger.test' })];
  assert.match(breachesOf([], writes).join(), /^stranger.test: written, although nobody asked for it$/);
});
