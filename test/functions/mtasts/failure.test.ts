import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { failure, legible, quote, RESULT_TYPES } from '../../../functions/mtasts/failure.ts';

test('every code has a result type of RFC 8460 §4.3.2.2', () => {
  const types = ['sts-policy-fetch-error', 'sts-policy-invalid', 'sts-webpki-invalid'];
  for (const [code, type] of Object.entries(RESULT_TYPES)) {
    assert.match(code, /^[a-z]+(-[a-z]+)*$/);
    assert.ok(types.includes(type), `${code}: ${type}`);
  }
});

test('what is wrong with a certificate, and only that, is sts-webpki-invalid', () => {
  for (const [code, type] of Object.entries(RESULT_TYPES)) {
    assert.equal(type === 'sts-webpki-invalid', code.startsWith('certificate-'), code);
  }
});

test('a failure has a cause only if there is one', () => {
  assert.deepEqual(failure('dns-error', 'detail'), { code: 'dns-error', detail: 'detail' });
  const cause = new Error('why');
  assert.equal(failure('dns-error', 'detail', cause).cause, cause);
});

test('a detail is short and safe whatever it is made of', () => {
  const sentence = `The mx "${quote('é'.repeat(999))}" is not "${quote('x'.repeat(999))}"; it should be a name.`;
  assert.equal(failure('policy-invalid', sentence).detail, sentence, 'two quotations fit');
  const careless = failure('policy-invalid', `\u{1B}[2J\n${'x'.repeat(1_000)}`).detail;
  assert.equal(careless, `\u{FFFD}[2J\u{FFFD}${'x'.repeat(499 - 5)}…`);
  assert.equal(careless.length, 500);
});

const quotations: [name: string, text: string, expected: string][] = [
  ['nothing', '', ''],
  ['plain text', 'v=STSv1; id=1', 'v=STSv1; id=1'],
  ['letters of any script', 'Grüße 日本語 🙂', 'Grüße 日本語 🙂'],
  ['line ends', 'a\r\nb', 'a\u{FFFD}\u{FFFD}b'],
  ['line ends of Unicode', 'a\u{85}\u{2028}\u{2029}b', 'a\u{FFFD}\u{FFFD}\u{FFFD}b'],
  ['escape sequence of a terminal', '\u{1B}[31mred', '\u{FFFD}[31mred'],
  ['the same in one character', '\u{9B}31mred', '\u{FFFD}31mred'],
  ['NUL, backspace and delete', '\0\b\x7F', '\u{FFFD}\u{FFFD}\u{FFFD}'],
  ['bidirectional override', '\u{202E}txt.exe', '\u{FFFD}txt.exe'],
  ['bidirectional isolate', '\u{2066}x\u{2069}', '\u{FFFD}x\u{FFFD}'],
  ['byte order mark and zero width space', '\u{FEFF}\u{200B}', '\u{FFFD}\u{FFFD}'],
  ['tags', '\u{E0041}', '\u{FFFD}'],
  ['half of a character', 'a\u{D83D}', 'a\u{FFFD}'],
  ['200 characters', 'a'.repeat(200), 'a'.repeat(200)],
  ['201 characters', 'a'.repeat(201), `${'a'.repeat(200)}…`],
  ['a cut within a character', `${'a'.repeat(199)}🙂`, `${'a'.repeat(199)}\u{FFFD}…`],
];
for (const [name, text, expected] of quotations) {
  test(`quote: ${name}`, () => assert.equal(quote(text), expected));
}

test('a quotation is fit for a log line, and quoting it again changes nothing', () => {
  const anything = fc.uint16Array({ maxLength: 300 }).map((codes) => String.fromCharCode(...codes));
  fc.assert(
    fc.property(anything, (text) => {
      const quoted = quote(text);
      assert.doesNotMatch(quoted, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u);
      assert.ok(quoted.length <= 201);
      if (text.length <= 200) assert.equal(quote(quoted), quoted);
    }),
  );
});

test('a text of any length is cut at once', () => {
  const text = '\0'.repeat(10_000_000);
  const took = (work: () => string, length: number) => {
    const start = performance.now();
    assert.equal(work().length, length);
    return performance.now() - start;
  };
  const whole = took(() => text.replace(/\p{Cc}/gu, '?'), text.length);
  // The least of some, as one alone may be interrupted.
  const cut = Math.min(...Array.from({ length: 5 }, () => took(() => quote(text), 201)));
  assert.ok(cut < whole / 5, `${cut} ms of ${whole}`);
});

test('what signs requests to AWS is never quoted, not even its beginning, and the limit holds all the same', () => {
  assert.equal(legible('x-amz-security-token:IQoJ', 100), 'x-amz-security-token:[redacted]');
  assert.equal(legible('"sessionToken":"IQoJ"', 100), '"sessionToken":"[redacted]"');
  assert.equal(legible(`Signature=${'f'.repeat(64)}`, 20), 'Signature=[redacted]…');
  assert.equal(legible('signature=x '.repeat(100), 30).length, 31);
  assert.equal(legible('a signature that does not match', 100), 'a signature that does not match');
});
