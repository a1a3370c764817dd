import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  decodeNetstring,
  encodeNetstring,
  MAX_REQUEST_BYTES,
  readRequest,
} from '../../../infra/relay/socketmap.ts';

const decode = (text: string, start = 0, maxBytes = MAX_REQUEST_BYTES) =>
  decodeNetstring(Buffer.from(text), start, maxBytes);

const incomplete = ['', '1', '19', '19:', '19:mta-sts example.com', '0', '0:'];

for (const text of incomplete) {
  test(`incomplete: ${JSON.stringify(text)}`, () => {
    assert.deepEqual(decode(text), { kind: 'incomplete' });
  });
}

const malformed: [name: string, text: string, reason: RegExp][] = [
  ['HTTP', 'GET / HTTP/1.1\r\n', /a netstring/],
  ['tcp_table', 'get example.com\n', /a netstring/],
  ['no length', ':x,', /begins with its length/],
  ['a sign', '-1:x,', /a netstring/],
  ['a blank', ' 1:x,', /a netstring/],
  ['a leading zero', '01:x,', /leading zero/],
  ['zeros without end', '00', /leading zero/],
  ['a line end instead of the comma', '1:x\n', /ends with a comma/],
  ['a length that is too short', '5:mta-sts x,', /ends with a comma/],
  ['too long', '10241:', /at most 10240 bytes/],
  ['too long, told by the digits alone', '99999', /at most 10240 bytes/],
  ['a length that is no safe integer', '9'.repeat(40), /at most 10240 bytes/],
];

for (const [name, text, reason] of malformed) {
  test(`malformed: ${name}`, () => {
    const result = decode(text);
    assert.ok(result.kind === 'malformed', result.kind);
    assert.match(result.reason, reason);
  });
}

test('a request of the greatest length is read', () => {
  const key = 'a'.repeat(MAX_REQUEST_BYTES);
  const result = decode(encodeNetstring(key));
  assert.ok(result.kind === 'whole');
  assert.equal(result.payload.length, MAX_REQUEST_BYTES);
});

test('what is encoded is decoded as itself, wherever it starts and wherever it is cut', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string(), (text, before) => {
      const bytes = Buffer.from(before + encodeNetstring(text));
      const start = Buffer.byteLength(before);
      const whole = decodeNetstring(bytes, start, MAX_REQUEST_BYTES);
      assert.ok(whole.kind === 'whole');
      assert.equal(whole.payload.toString(), Buffer.from(text).toString());
      assert.equal(whole.end, bytes.length);
      for (let cut = start; cut < bytes.length; cut++) {
        assert.equal(decodeNetstring(bytes.subarray(0, cut), start, MAX_REQUEST_BYTES).kind, 'incomplete');
      }
    }),
  );
});

test('no bytes make the decoder throw, or read past their end', () => {
  const piece = fc.constantFrom('1', '0', '9', ':', ',', 'x', ' ', '\0', '\xFF');
  fc.assert(
    fc.property(fc.array(piece), (pieces) => {
      const bytes = Buffer.from(pieces.join(''), 'latin1');
      const result = decodeNetstring(bytes, 0, 50);
      if (result.kind === 'whole') assert.ok(result.end <= bytes.length);
    }),
    { numRuns: 2_000 },
  );
});

const requests: [name: string, payload: string, map: string, key: string][] = [
  ['the plain map', 'mta-sts example.com', 'mta-sts', 'example.com'],
  ['the map with the attributes of reports', 'mta-sts-tlsrpt example.com', 'mta-sts-tlsrpt', 'example.com'],
  ['an empty key', 'mta-sts ', 'mta-sts', ''],
  ['a key with blanks', 'mta-sts  a b ', 'mta-sts', ' a b '],
];

for (const [name, payload, map, key] of requests) {
  test(`request: ${name}`, () => {
    assert.deepEqual(readRequest(payload), { ok: true, map, key });
  });
}

const refused: [name: string, payload: string, reason: RegExp][] = [
  ['nothing', '', /^there is no map "" here; the maps are mta-sts and mta-sts-tlsrpt$/],
  ['another map', 'postfix example.com', /no map "postfix"/],
  ['a map in upper case', 'MTA-STS example.com', /no map "MTA-STS"/],
  ['no key', 'mta-sts', /the name of a map, a blank and a key/],
  ['a map that is the start of one', 'mta example.com', /no map "mta"/],
  ['a property that every object has', 'constructor example.com', /no map "constructor"/],
];

for (const [name, payload, reason] of refused) {
  test(`refused for good: ${name}`, () => {
    const request = readRequest(payload);
    assert.ok(!request.ok);
    assert.equal(request.reply.status, 'PERM');
    assert.match(request.reply.text, reason);
  });
}
