import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import { decodeTask, encodeTask } from '../../../functions/refresh/task.ts';

const label = fc.stringMatching(/^[a-z]([a-z0-9-]{0,20}[a-z])?$/).filter((text) => text.slice(2, 4) !== '--');

test('a task is read as it was written', () => {
  assert.equal(
    encodeTask({ domain: 'example.com' as Domain, lastUpdate: 1_763_788_800_000 }),
    '{"domain":"example.com","lastUpdate":1763788800000}',
  );
  fc.assert(
    fc.property(label, label, fc.maxSafeInteger(), (name, top, lastUpdate) => {
      const task = { domain: `${name}.${top}` as Domain, lastUpdate };
      assert.deepEqual(decodeTask(encodeTask(task)), { ok: true, value: task });
    }),
  );
});

const readable: [what: string, body: string][] = [
  ['members that a newer version may add', '{"domain":"example.com","lastUpdate":1,"more":{"domain":"b"}}'],
  ['another order, and blanks', ' {\n"lastUpdate": 1,\t"domain": "example.com" } '],
  ['another spelling of the domain', '{"domain":"EXAMPLE.com.","lastUpdate":1}'],
  ['a number in another spelling', '{"domain":"example.com","lastUpdate":1.0e0}'],
  ['a member called __proto__', '{"__proto__":{"domain":"b.example"},"domain":"example.com","lastUpdate":1}'],
];
for (const [what, body] of readable) {
  test(`reads a task with ${what}`, () => {
    assert.deepEqual(decodeTask(body), { ok: true, value: { domain: 'example.com', lastUpdate: 1 } });
  });
}

const bad: [what: string, body: string, reason: RegExp][] = [
  ['nothing', '', /^not JSON: $/],
  ['text', 'example.com', /^not JSON: example\.com$/],
  ['half of a task', '{"domain":"example.com","lastUp', /^not JSON: /],
  ['two tasks', '{"domain":"a.example","lastUpdate":1}{}', /^not JSON: /],
  ['a byte order mark', '\u{FEFF}{"domain":"a.example","lastUpdate":1}', /^not JSON: \u{FFFD}\{/u],
  ['null', 'null', /^not a JSON object: null$/],
  ['a string', '"example.com"', /^not a JSON object: /],
  ['a number', '1', /^not a JSON object: /],
  ['an array', '["example.com",1]', /^not a JSON object: /],
  ['an empty object', '{}', /^domain should be a string$/],
  ['no domain', '{"lastUpdate":1}', /^domain should be a string$/],
  ['a domain in an array', '{"domain":["example.com"],"lastUpdate":1}', /^domain should be a string$/],
  ['a domain only by __proto__', '{"__proto__":{"domain":"a.example"},"lastUpdate":1}', /^domain should be/],
  ['an empty domain', '{"domain":"","lastUpdate":1}', /is empty/],
  ['one label', '{"domain":"com","lastUpdate":1}', /only one label/],
  ['an address', '{"domain":"192.0.2.1","lastUpdate":1}', /ends in a number/],
  ['a path', '{"domain":"example.com/x","lastUpdate":1}', /has the character/],
  ['a line end', '{"domain":"example.com\\n","lastUpdate":1}', /has the character "\u{FFFD}"/u],
  ['245 characters', `{"domain":"${'a.'.repeat(122)}b","lastUpdate":1}`, /longer than 244/],
  ['no lastUpdate', '{"domain":"example.com"}', /^lastUpdate should be a whole number/],
  ['lastUpdate as text', '{"domain":"example.com","lastUpdate":"1"}', /^lastUpdate should be/],
  ['lastUpdate null', '{"domain":"example.com","lastUpdate":null}', /^lastUpdate should be/],
  ['lastUpdate in fractions', '{"domain":"example.com","lastUpdate":1.5}', /^lastUpdate should be/],
  ['lastUpdate in nanoseconds', '{"domain":"example.com","lastUpdate":1763788800000000000}', /^lastUpdate/],
  ['lastUpdate beyond all numbers', '{"domain":"example.com","lastUpdate":1e999}', /^lastUpdate should be/],
  ['a request of a relay', '{"used":["example.com"]}', /^domain should be a string$/],
];
for (const [what, body, reason] of bad) {
  test(`refuses ${what}, and says why`, () => {
    const decoded = decodeTask(body);
    assert.match(decoded.ok ? '' : decoded.reason, reason);
  });
}

test('a reason shows no more than the start of a body', () => {
  const decoded = decodeTask('x'.repeat(1_000_000));
  assert.ok(!decoded.ok && decoded.reason.length < 300);
});

// Any UTF-16, halves of surrogate pairs too.
const anyText = fc.uint16Array().map((units) => String.fromCharCode(...units));

test('decoding never throws, and what it accepts is a task', () => {
  const json = fc.oneof(
    fc.anything(),
    fc.record({ domain: fc.anything(), lastUpdate: fc.anything() }),
    fc.record({ domain: fc.oneof(fc.domain(), anyText), lastUpdate: fc.double() }),
  );
  // What has no JSON (a bigint, a function) becomes a body that is none.
  const body = fc.oneof(
    anyText,
    json.map((value) => {
      try {
        return JSON.stringify(value) ?? 'undefined';
      } catch (error) {
        return String(error);
      }
    }),
  );
  fc.assert(
    fc.property(body, (given) => {
      const decoded = decodeTask(given);
      if (!decoded.ok) return assert.notEqual(decoded.reason, '');
      assert.deepEqual(decodeTask(encodeTask(decoded.value)), decoded);
    }),
    { numRuns: 1_000 },
  );
});
