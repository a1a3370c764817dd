import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseRecord, selectRecord } from '../../../functions/mtasts/record.ts';
import { anyText } from '../dispatch/tasks.ts';

const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

const accepted: [name: string, text: string, id: string][] = [
  ['the example of RFC 8461 §3.1', 'v=STSv1; id=20160831085700Z;', '20160831085700Z'],
  ['no ";" at the end', 'v=STSv1; id=1', '1'],
  ['no blanks', 'v=STSv1;id=1;', '1'],
  ['blanks and tabs around ";"', 'v=STSv1 \t; \tid=1\t ;\t ', '1'],
  ['id of 32 characters', `v=STSv1; id=${'a'.repeat(32)}`, 'a'.repeat(32)],
  ['case of the id is kept', 'v=STSv1; id=AbC', 'AbC'],
  ['id after an extension', 'v=STSv1; rua=x; id=1', '1'],
  ['name of an extension with all its characters', 'v=STSv1; a_b-c.D9=x; id=1', '1'],
  ['name of an extension with 32 characters', `v=STSv1; ${'a'.repeat(32)}=x; id=1`, '1'],
  ['value of an extension with all its characters', 'v=STSv1; a=!"#$%&\'()*+,-./:<>?@[\\]^_`{|}~; id=1', '1'],
  ['first of two ids', 'v=STSv1; id=1; id=2', '1'],
  ['first of two ids, the second no id at all', 'v=STSv1; id=1; id=2-3', '1'],
  ['first of two extensions', 'v=STSv1; a=1; a=2; id=1', '1'],
  ['version a second time', 'v=STSv1; v=STSv2; id=1', '1'],
  ['ID in capitals is an extension', 'v=STSv1; ID=2; id=1', '1'],
];

const refused: [name: string, text: string, detail: RegExp][] = [
  ['empty', '', /does not begin with/],
  ['version only', 'v=STSv1', /has no id/],
  ['version and ";"', 'v=STSv1;', /has no id/],
  ['no id', 'v=STSv1; a=b', /has no id/],
  ['blank before the version', ' v=STSv1; id=1', /does not begin with/],
  ['version in lower case', 'v=stsv1; id=1', /does not begin with/],
  ['name of the version in capitals', 'V=STSv1; id=1', /does not begin with/],
  ['other version', 'v=STSv2; id=1', /does not begin with/],
  ['longer version', 'v=STSv10; id=1', /does not begin with/],
  ['blank in the version', 'v= STSv1; id=1', /does not begin with/],
  ['id before the version', 'id=1; v=STSv1', /does not begin with/],
  ['comma for ";"', 'v=STSv1, id=1', /does not begin with/],
  ['quotation marks', '"v=STSv1; id=1"', /does not begin with/],
  ['empty id', 'v=STSv1; id=', /a field " id=" that is not name=value/],
  ['empty id and ";"', 'v=STSv1; id=;', /not name=value/],
  ['id of 33 characters', `v=STSv1; id=${'a'.repeat(33)}`, /not 1 to 32 letters and digits/],
  ['id with a hyphen', 'v=STSv1; id=2024-01-01', /the id "2024-01-01"/],
  ['id with a colon', 'v=STSv1; id=12:00', /the id "12:00"/],
  ['malformed id before a good one', 'v=STSv1; id=1-2; id=1', /the id "1-2"/],
  ['id with a blank', 'v=STSv1; id=1 2', /not name=value/],
  ['id with a letter that is not ASCII', 'v=STSv1; id=é', /not name=value/],
  ['blank before "="', 'v=STSv1; id =1', /not name=value/],
  ['blank after "="', 'v=STSv1; id= 1', /not name=value/],
  ['"=" in a value', 'v=STSv1; id=1; a=b=c', /not name=value/],
  ['empty extension', 'v=STSv1; id=1; a=;', /not name=value/],
  ['extension without "="', 'v=STSv1; id=1; a', /not name=value/],
  ['extension without a name', 'v=STSv1; id=1; =a', /not name=value/],
  ['name of an extension with 33 characters', `v=STSv1; id=1; ${'a'.repeat(33)}=x`, /not name=value/],
  ['name of an extension that starts with a dot', 'v=STSv1; id=1; .a=x', /not name=value/],
  ['two ";" in a row', 'v=STSv1;; id=1', /not name=value/],
  ['two ";" at the end', 'v=STSv1; id=1;;', /not name=value/],
  ['blank at the end without ";"', 'v=STSv1; id=1 ', /a blank at its end/],
  ['line end at the end', 'v=STSv1; id=1\n', /not name=value/],
  ['line end for a blank', 'v=STSv1;\nid=1', /not name=value/],
  ['NUL', 'v=STSv1; id=1\0', /not name=value/],
  ['no-break space', 'v=STSv1;\u00A0id=1', /not name=value/],
];

for (const [name, text, id] of accepted) {
  test(`parseRecord accepts: ${name}`, () => {
    assert.deepEqual(parseRecord(text), { ok: true, id });
    assert.deepEqual(selectRecord([text]), { status: 'found', id });
  });
}

for (const [name, text, detail] of refused) {
  test(`parseRecord refuses: ${name}`, () => {
    const parsed = parseRecord(text);
    assert.ok(!parsed.ok, `accepted as ${JSON.stringify(parsed)}`);
    assert.equal(parsed.failure.code, 'record-malformed');
    assert.match(parsed.failure.detail, detail);
    assert.doesNotMatch(parsed.failure.detail, UNSAFE);
    assert.match(parsed.failure.detail, /^The TXT record .*\.$/);
  });
}

const good = 'v=STSv1; id=1';
const selections: [name: string, texts: string[], expected: string][] = [
  ['no TXT record', [], 'absent record-absent'],
  ['only other TXT records', ['v=spf1 -all', 'v=TLSRPTv1; rua=mailto:a@example.com'], 'absent record-absent'],
  ['nothing but empty texts', ['', ''], 'absent record-absent'],
  ['one STS record', [good], 'found 1'],
  ['one STS record among others', ['v=spf1 -all', good, 'x'], 'found 1'],
  ['blank before the first ";"', ['v=STSv1 ;id=1'], 'found 1'],
  ['version without ";" is discarded', ['v=STSv1', good], 'found 1'],
  ['longer version is discarded', ['v=STSv10; id=2', good], 'found 1'],
  ['other case is discarded', ['V=STSv1; id=2', 'v=stsv1; id=3', good], 'found 1'],
  ['blank before the version is discarded', [' v=STSv1; id=2', good], 'found 1'],
  ['version without ";" alone', ['v=STSv1 id=1'], 'absent record-absent'],
  ['two STS records', [good, 'v=STSv1; id=2'], 'unusable record-multiple'],
  ['the same STS record twice', [good, good], 'unusable record-multiple'],
  ['two STS records, one malformed', ['v=STSv1;', good], 'unusable record-multiple'],
  ['one malformed STS record', ['v=STSv1; id=1-2'], 'unusable record-malformed'],
  ['one malformed STS record among others', ['v=spf1 -all', 'v=STSv1;'], 'unusable record-malformed'],
];

for (const [name, texts, expected] of selections) {
  test(`selectRecord: ${name}`, () => {
    const selected = selectRecord(texts);
    const result = selected.status === 'found' ? selected.id : selected.failure.code;
    assert.equal(`${selected.status} ${result}`, expected);
  });
}

test('selectRecord says what it found in place of a record', () => {
  const none = selectRecord([]);
  assert.ok(none.status === 'absent');
  assert.equal(none.failure.detail, 'There is no TXT record.');
  const other = selectRecord(['v=spf1\n-all', 'x']);
  assert.ok(other.status === 'absent');
  assert.match(other.failure.detail, /the first is "v=spf1\uFFFD-all"\.$/);
  const several = selectRecord([good, good, 'x']);
  assert.ok(several.status === 'unusable');
  assert.match(several.failure.detail, /^2 TXT records/);
});

const WSP = fc.string({ unit: fc.constantFrom(' ', '\t'), maxLength: 3 });
const ALNUM = [...'abcXYZ0189'];
const id = fc.string({ unit: fc.constantFrom(...ALNUM), minLength: 1, maxLength: 32 });
const extension = fc
  .tuple(
    fc.constantFrom(...ALNUM),
    fc.string({ unit: fc.constantFrom(...ALNUM, '_', '-', '.'), maxLength: 31 }),
    fc.string({ unit: fc.constantFrom(...'!"#:<>?@~aZ09'), minLength: 1, maxLength: 40 }),
  )
  .map(([start, rest, value]) => `${start}${rest}=${value}`)
  .filter((field) => !field.startsWith('id='));

test('parseRecord finds the id in every record that the ABNF derives', () => {
  const fields = fc.array(extension, { maxLength: 4 });
  const delimiters = fc.array(fc.tuple(WSP, WSP), { minLength: 10, maxLength: 10 });
  fc.assert(
    fc.property(id, fields, fields, delimiters, fc.boolean(), (value, before, after, blanks, ended) => {
      let text = 'v=STSv1';
      const delimit = (index: number) => `${blanks[index]?.[0]};${blanks[index]?.[1]}`;
      for (const [index, field] of [...before, `id=${value}`, ...after].entries())
        text += delimit(index) + field;
      if (ended) text += delimit(9);
      assert.deepEqual(selectRecord([text]), { status: 'found', id: value });
    }),
  );
});

test('parseRecord and selectRecord never throw, and a failure is fit for a log line', () => {
  const pieces = fc.constantFrom(
    'v=STSv1',
    ';',
    '; ',
    ' ',
    '\t',
    'id=',
    'id=1',
    'a=b',
    '=',
    'é',
    '\n',
    '\u202E',
  );
  const text = fc.oneof(
    anyText,
    fc.array(pieces, { maxLength: 12 }).map((all) => all.join('')),
  );
  fc.assert(
    fc.property(fc.array(text, { maxLength: 3 }), (texts) => {
      for (const each of texts) {
        const parsed = parseRecord(each);
        if (parsed.ok) assert.match(parsed.id, /^[A-Za-z0-9]{1,32}$/);
        else assert.doesNotMatch(parsed.failure.detail, UNSAFE);
      }
      const selected = selectRecord(texts);
      if (selected.status !== 'found') assert.doesNotMatch(selected.failure.detail, UNSAFE);
    }),
    { numRuns: 2000 },
  );
});

// Sixteen times what DNS can carry: what takes 0.2 s in linear time takes a quarter of an hour in quadratic time.
test('a record of 1 MiB is read in linear time', () => {
  const size = 16 * 65_536;
  const hostile = [
    `v=STSv1${' '.repeat(size)}x`,
    `v=STSv1;${' '.repeat(size)}x`,
    `v=STSv1;id=1${' \t'.repeat(size / 2)}x;`,
    `v=STSv1;id=1${' '.repeat(size)}`,
    `v=STSv1${';'.repeat(size)}`,
    `v=STSv1;${'a'.repeat(size)}=x`,
    `v=STSv1;a=${'x'.repeat(size)}=`,
    `v=STSv1;${'a=b;'.repeat(size / 4)}`,
  ];
  const start = performance.now();
  for (const text of hostile) assert.ok(!parseRecord(text).ok);
  assert.ok(performance.now() - start < 20_000);
});
