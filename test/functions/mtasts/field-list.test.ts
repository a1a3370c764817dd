import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fieldMembers } from '../../../functions/mtasts/field-list.ts';

// RFC 9110 §5.6.1 and §5.6.4.
const values: [name: string, value: Parameters<typeof fieldMembers>[0], members: string[]][] = [
  ['no field', undefined, []],
  ['an empty field', '', ['']],
  ['one', 'a', ['a']],
  ['blanks around it', ' \ta\t ', ['a']],
  ['several', 'a,b , c', ['a', 'b', 'c']],
  ['empty members', 'a,,b,', ['a', '', 'b', '']],
  ['several lines', ['a, b', 'c'], ['a', 'b', 'c']],
  ['a quoted comma', 'a; x="b, c", d', ['a; x="b, c"', 'd']],
  ['a quoted quote', 'a; x="\\", b", c', ['a; x="\\", b"', 'c']],
  ['a backslash outside of quotes', 'a\\, b', ['a\\', 'b']],
  ['a quote without end', 'a; x="b, c', ['a; x="b', 'c']],
  ['a quote that ends in a backslash', 'a; x="b, c\\', ['a; x="b', 'c\\']],
  ['a quote without end in the first line', ['a; x="', 'b'], ['a; x="', 'b']],
];
for (const [name, value, members] of values) {
  test(`members: ${name}`, () => assert.deepEqual(fieldMembers(value), members));
}
