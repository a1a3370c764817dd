// Policies, well delivered, that are too large, not text, or not policies (RFC 8461 §3.2, §3.3).

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { MAX_MX_BYTES } from '../../functions/mtasts/policy.ts';
import { startTrustedInternet } from '../functions/mtasts/network.ts';
import { type HostileCase, type Played, play } from './frame.ts';
import { answering, failing, grouped, type More, POLICY, serves } from './https.ts';

const internet = await startTrustedInternet({ after });

const invalidPolicy = failing('policy-invalid', 'sts-policy-invalid');
const tooLargePolicy = failing('policy-too-large', 'sts-policy-invalid');
const abortedPolicy = failing('http-aborted', 'sts-policy-fetch-error');
const deadline = failing('deadline-exceeded', 'sts-policy-fetch-error', 'domainMs');

type Body = string | Buffer;
const valid = (name: string, body: Body, more: More = {}) => serves(name, answering({ body }), more);
const invalid = (name: string, body: Body, more: More = {}) => invalidPolicy(name, answering({ body }), more);
const tooLarge = (name: string, body: Body, more: More = {}) =>
  tooLargePolicy(name, answering({ body }), more);

const LIMIT = 65_536;
const filled = (bytes: number) => POLICY + '\n'.repeat(bytes - POLICY.length);
/** The sound policy with a line, or more, at its end. */
const also = (line: Body) => Buffer.concat([POLICY, line, '\r\n'].map((part) => Buffer.from(part)));
const withMx = (...mx: string[]) =>
  `version: STSv1\r\nmode: enforce\r\n${mx.map((name) => `mx: ${name}\r\n`).join('')}max_age: 604800\r\n`;
const withMaxAge = (value: string) => POLICY.replace('604800', value);
const many = (count: number, name: (index: number) => string) =>
  Array.from({ length: count }, (_, i) => name(i));

const stores = (mx: number) => ({
  also: ({ entry }: Played) => assert.equal(entry?.policy.mx.length, mx),
});
const lives = (seconds: number) => ({
  also: ({ entry }: Played) => assert.equal(entry?.policy.maxAgeSeconds, seconds),
});

const groups: Record<string, HostileCase[]> = {
  size: [
    valid('65,535 bytes', filled(LIMIT - 1)),
    valid('65,536 bytes', filled(LIMIT)),
    tooLargePolicy('65,537 bytes', answering({ body: filled(LIMIT + 1) })),
    serves('65,536 bytes in chunks', answering({ body: filled(LIMIT), chunked: true })),
    tooLargePolicy('65,537 bytes in chunks', answering({ body: filled(LIMIT + 1), chunked: true })),
    serves(
      '65,536 bytes without a length',
      answering({ body: filled(LIMIT), headers: { 'content-length': null } }),
    ),
    tooLargePolicy(
      '65,537 bytes without a length',
      answering({ body: filled(LIMIT + 1), headers: { 'content-length': null } }),
    ),
    tooLargePolicy('10 MB', answering({ body: filled(10_000_000) })),
    deadline('64 KB in drops', answering({ body: filled(LIMIT), trickle: { bytes: 100, everyMs: 10 } })),
    abortedPolicy(
      'cut within max_age, without a length',
      answering({ body: POLICY.slice(0, -5), headers: { 'content-length': null } }),
    ),
  ],

  'many of a kind': [
    valid('8,192 bytes of mx', withMx(...mxOf(MAX_MX_BYTES)), { ...stores(MAX_MX_BYTES / 8), heavy: true }),
    tooLarge('8,193 bytes of mx', withMx(...mxOf(MAX_MX_BYTES), 'x')),
    tooLarge('3,500 mx', withMx(...many(3_500, (i) => `m${i}.test`)), { heavy: true }),
    tooLarge('10,000 mx', withMx(...many(10_000, (i) => `m${i}.test`))),
    valid('32 mx of 253 characters', withMx(...many(32, (i) => longName(i))), stores(32)),
    tooLarge('33 mx of 253 characters', withMx(...many(33, (i) => longName(i)))),
    valid('3,000 times the same mx', withMx(...many(3_000, () => 'mx.test')), stores(1)),
    valid('the same mx in any case', withMx('MX.test', 'mx.TEST', 'Mx.TesT'), stores(1)),
    valid('2,000 versions', also('version: STSv1\r\n'.repeat(2_000))),
    valid('3,000 unknown fields', also('a: b\r\n'.repeat(3_000))),
    valid('60,000 empty lines', '\n'.repeat(60_000) + POLICY),
    valid('30,000 empty lines ended by CRLF', '\r\n'.repeat(30_000) + POLICY),
    valid('60,000 blanks at the end of a line', POLICY.replace('STSv1', `STSv1${' '.repeat(60_000)}`)),
    valid('60,000 blanks before a value', POLICY.replace('STSv1', `${' '.repeat(60_000)}STSv1`)),
    valid('a line of 60,000 blanks', also(' \t'.repeat(30_000))),
    valid('a value of 60,000 characters', also(`x: ${'y'.repeat(60_000)}`)),
    valid('a value of 15,000 emoji', also(`x: ${'💌'.repeat(15_000)}`)),
    invalid('blanks within 60,000 blanks', also(`${' '.repeat(60_000)}x`)),
    invalid('a name of 60,000 characters', also(`${'x'.repeat(60_000)}: y`)),
    invalid('60,000 colons', also(':'.repeat(60_000))),
    invalid('an mx of 60,000 characters', withMx('x'.repeat(60_000))),
    invalid('an mx of 30,000 labels', withMx('x.'.repeat(30_000))),
    invalid('3,500 mx and a bad one', withMx(...many(3_500, (i) => `m${i}.test`), '-')),
  ],

  text: [
    valid('UTF-8 in an unknown field', also('x: Grüße 例え 💌')),
    valid('no line end at the end', POLICY.trimEnd()),
    valid('LF alone', POLICY.replaceAll('\r\n', '\n')),
    invalid('empty', ''),
    invalid('a NUL at the end', `${POLICY}\0`),
    invalid('a NUL in a value', POLICY.replace('STSv1', 'STSv1\0')),
    invalid('a NUL in an unknown field', also('x: y\0z')),
    invalid('zeros', Buffer.alloc(60_000)),
    invalid('a byte order mark', `\u{FEFF}${POLICY}`),
    invalid('UTF-16', Buffer.from(POLICY, 'utf16le')),
    invalid('UTF-16 with its mark', Buffer.from(`\u{FEFF}${POLICY}`, 'utf16le')),
    invalid('Latin-1', also(Buffer.from('x: Grüße', 'latin1'))),
    invalid('a lone continuation', also(Buffer.from('783a2080', 'hex'))),
    invalid('half of a character', Buffer.from(`${POLICY}x: é`).subarray(0, -1)),
    invalid('an overlong slash', also(Buffer.from('783a20c0af', 'hex'))),
    invalid('an overlong NUL', also(Buffer.from('783a20c080', 'hex'))),
    invalid('a surrogate', also(Buffer.from('783a20eda080', 'hex'))),
    invalid('beyond Unicode', also(Buffer.from('783a20f4908080', 'hex'))),
    invalid('bytes of no character', also(Buffer.from('783a20feff', 'hex'))),
    invalid('noise', Buffer.alloc(60_000, 0xa5)),
    invalid('CR alone', POLICY.replaceAll('\r\n', '\r')),
    invalid('two CR', POLICY.replaceAll('\r\n', '\r\r\n')),
    invalid('LF and CR', POLICY.replaceAll('\r\n', '\n\r')),
    invalid('the line end of IBM', POLICY.replaceAll('\r\n', '\u{85}')),
    invalid('the line end of Unicode', POLICY.replaceAll('\r\n', '\u{2028}')),
    invalid('form feeds', POLICY.replaceAll('\r\n', '\f')),
    invalid('a non-breaking space', POLICY.replace('version: ', 'version:\u{A0}')),
    invalid('a zero-width space', POLICY.replace('mode', '\u{200B}mode')),
    invalid('a terminal escape', also('x: \x1b]0;title\x07')),
    invalid('letters that look alike', POLICY.replace('mode', 'mоde')),
  ],

  fields: [
    valid('names of JavaScript', also('constructor: x\r\ntoString: x\r\nhasOwnProperty: x')),
    valid('the first version of two', also('version: STSv2')),
    valid('the first mode of two', also('mode: none'), {
      also: ({ entry }) => assert.equal(entry?.policy.mode, 'enforce'),
    }),
    valid('the first max_age of two', also('max_age: 1'), lives(604_800)),
    invalid('a name of JavaScript that is no name', also('__proto__: x')),
    invalid('HTML', '<!doctype html><title>404</title>\r\n'),
    invalid('a policy after HTML', `<!-- -->\r\n${POLICY}`),
    invalid('JSON', '{"version":"STSv1"}'),
    invalid('the record', 'v=STSv1; id=id2;'),
    invalid('another version', POLICY.replace('STSv1', 'STSv2')),
    invalid('the version in small letters', POLICY.replace('STSv1', 'stsv1')),
    invalid('no version', POLICY.replace('version: STSv1\r\n', '')),
    invalid('no mode', POLICY.replace('mode: enforce\r\n', '')),
    invalid('no mx', withMx()),
    invalid('no max_age', POLICY.replace(/max_age.*\r\n/, '')),
    invalid('an unknown mode', POLICY.replace('enforce', 'report')),
    invalid('a mode in capitals', POLICY.replace('enforce', 'ENFORCE')),
    invalid('two modes in one', POLICY.replace('enforce', 'enforce none')),
    invalid('a mode with a comment', POLICY.replace('enforce', 'enforce # yes')),
    invalid('a field without a value', also('x:')),
    invalid('a field without a name', also(': x')),
    invalid('a blank before a name', also(' x: y')),
    invalid('a blank after a name', also('x : y')),
    invalid('an equals sign', also('x=y')),
    invalid('a comment', also('# x')),
  ],

  max_age: [
    valid('0', withMaxAge('0'), lives(0)),
    valid('1', withMaxAge('1'), lives(1)),
    valid('a year and a second', withMaxAge('31557601'), lives(31_557_600)),
    valid('ten nines', withMaxAge('9999999999'), lives(31_557_600)),
    valid('zeros before it', withMaxAge('0000604800'), lives(604_800)),
    invalid('eleven digits', withMaxAge('10000000000')),
    invalid('sixty thousand digits', withMaxAge('9'.repeat(60_000))),
    invalid('negative', withMaxAge('-1')),
    invalid('signed', withMaxAge('+1')),
    invalid('a fraction', withMaxAge('1.5')),
    invalid('an exponent', withMaxAge('1e9')),
    invalid('hexadecimal', withMaxAge('0x10')),
    invalid('Infinity', withMaxAge('Infinity')),
    invalid('Arabic digits', withMaxAge('٦٠٤٨٠٠')),
    invalid('wide digits', withMaxAge('６０４８００')),
    invalid('with commas', withMaxAge('604,800')),
    invalid('words', withMaxAge('a week')),
  ],

  mx: [
    valid('one label', withMx('mx')),
    valid('a wildcard', withMx('*.served.test')),
    valid('an A-label', withMx('xn--bcher-kva.test')),
    invalid('a U-label', withMx('bücher.test')),
    invalid('a wildcard alone', withMx('*')),
    invalid('a wildcard and a dot', withMx('*.')),
    invalid('two wildcards', withMx('*.*.served.test')),
    invalid('a wildcard within', withMx('mx.*.served.test')),
    invalid('a partial wildcard', withMx('mx*.served.test')),
    invalid('a leading dot', withMx('.served.test')),
    invalid('a trailing dot', withMx('mail.served.test.')),
    invalid('an empty label', withMx('mail..served.test')),
    invalid('a label of 64 characters', withMx(`${'x'.repeat(64)}.test`)),
    invalid('a name of 254 characters', withMx(`x${longName(0)}`)),
    invalid('a hyphen first', withMx('-mail.served.test')),
    invalid('an underscore', withMx('_mail.served.test')),
    invalid('an address', withMx('192.0.2.1')),
    invalid('an address literal', withMx('[192.0.2.1]')),
    invalid('an IPv6 literal', withMx('[IPv6:2001:db8::1]')),
    invalid('a port', withMx('mail.served.test:25')),
    invalid('a list', withMx('a.test, b.test')),
    invalid('a list with blanks', withMx('a.test b.test')),
    invalid('an email address', withMx('postmaster@served.test')),
    invalid('a URL', withMx('https://mail.served.test/')),
    invalid('a match keyword of Postfix', withMx('hostname:nexthop')),
    invalid('an attribute of Postfix', withMx('a.test } policy_type=none {')),
    invalid('a shell', withMx('$(reboot)')),
    invalid('nothing', withMx('')),
  ],
};

/** Patterns of eight bytes each. */
function mxOf(bytes: number): string[] {
  return many(bytes / 8, (index) => `${String(index).padStart(6, '0')}.x`);
}

/** Of 253 characters, the most that there can be. */
function longName(index: number): string {
  const label = 'x'.repeat(63);
  return `m${String(index).padStart(60, '0')}.${label}.${label}.${label}`;
}

play({ what: 'policy', internet }, grouped(groups));
