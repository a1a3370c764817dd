import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import {
  formatPolicy,
  isCanonical,
  MAX_MAX_AGE_SECONDS,
  MAX_MX_BYTES,
  MAX_POLICY_BYTES,
  MODES,
  matchesMx,
  type Policy,
  parsePolicy,
} from '../../../functions/mtasts/policy.ts';
import { anyText } from '../dispatch/tasks.ts';

const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

/** The policy of most rows: what differs is what the row is about. */
const PLAIN = { mode: 'enforce', mx: ['mx.example.com'], maxAgeSeconds: 86_400 } as const satisfies Policy;

const plainWith = (change: Partial<Policy>): Policy => ({ ...PLAIN, ...change });

/** The text of PLAIN with one line in place of, or besides, its own. */
const version = (line: string) => `${line}\nmode: enforce\nmx: mx.example.com\nmax_age: 86400\n`;
const mode = (line: string) => `version: STSv1\n${line}\nmx: mx.example.com\nmax_age: 86400\n`;
const mx = (line: string) => `version: STSv1\nmode: enforce\n${line}\nmax_age: 86400\n`;
const maxAge = (line: string) => `version: STSv1\nmode: enforce\nmx: mx.example.com\n${line}\n`;
const also = (line: string) => maxAge(`max_age: 86400\n${line}`);

/** Modelled on policies that domains really publish. */
const published: [name: string, text: string, policy: Policy][] = [
  [
    'the example of RFC 8461 §3.2',
    'version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n',
    {
      mode: 'enforce',
      mx: ['mail.example.com', '*.example.net', 'backupmx.example.com'],
      maxAgeSeconds: 604_800,
    },
  ],
  [
    'a big mail host, LF',
    'version: STSv1\nmode: enforce\nmx: aspmx.example.com\nmx: alt1.aspmx.example.com\nmx: alt2.aspmx.example.com\nmax_age: 1209600\n',
    {
      mode: 'enforce',
      mx: ['aspmx.example.com', 'alt1.aspmx.example.com', 'alt2.aspmx.example.com'],
      maxAgeSeconds: 1_209_600,
    },
  ],
  [
    'one tenant, CRLF, no line end at the end',
    'version: STSv1\r\nmode: testing\r\nmx: example-com.mail.protection.example.net\r\nmax_age: 86400',
    { mode: 'testing', mx: ['example-com.mail.protection.example.net'], maxAgeSeconds: 86_400 },
  ],
  [
    'max_age before mx',
    'version: STSv1\r\nmode: enforce\r\nmax_age: 1209600\r\nmx: mailserver.example.com\r\n',
    { mode: 'enforce', mx: ['mailserver.example.com'], maxAgeSeconds: 1_209_600 },
  ],
  [
    'values set out in a column',
    'version: STSv1\nmode:    testing\nmx:      mail.example.com\nmax_age: 86400\n',
    { mode: 'testing', mx: ['mail.example.com'], maxAgeSeconds: 86_400 },
  ],
  [
    'a host and everything below it',
    'version: STSv1\nmode: enforce\nmx: example.com\nmx: *.example.com\nmax_age: 604800\n\n',
    { mode: 'enforce', mx: ['example.com', '*.example.com'], maxAgeSeconds: 604_800 },
  ],
  [
    'the id of the record put into the policy as well',
    'version: STSv1\nmode: enforce\nid: 20260324120000Z\nmx: mx1.example.com\nmx: mx2.example.com\nmax_age: 604800\n',
    { mode: 'enforce', mx: ['mx1.example.com', 'mx2.example.com'], maxAgeSeconds: 604_800 },
  ],
  [
    'empty lines at the end',
    'version: STSv1\r\nmode: enforce\r\nmx: mx.example.com\r\nmax_age: 86400\r\n\r\n\r\n',
    PLAIN,
  ],
  [
    'MTA-STS taken back, with the mx left in',
    'version: STSv1\nmode: none\nmx: mx.example.com\nmax_age: 86400',
    plainWith({ mode: 'none' }),
  ],
  [
    'MTA-STS taken back',
    'version: STSv1\nmode: none\nmax_age: 86400\n',
    { mode: 'none', mx: [], maxAgeSeconds: 86_400 },
  ],
  [
    'a label of digits',
    'version: STSv1\r\nmode: testing\r\nmx: 329706630.pamx1.example.com\r\nmax_age: 86401\r\n',
    { mode: 'testing', mx: ['329706630.pamx1.example.com'], maxAgeSeconds: 86_401 },
  ],
  [
    'one mx twice',
    'version: STSv1\nmode: testing\nmx: mail.example.com\nmx: mail.example.com\nmax_age: 604800\n',
    { mode: 'testing', mx: ['mail.example.com'], maxAgeSeconds: 604_800 },
  ],
];

const accepted: [name: string, text: string, policy: Policy][] = [
  ['LF and CRLF mixed', 'version: STSv1\r\nmode: enforce\nmx: mx.example.com\r\nmax_age: 86400\n', PLAIN],
  ['fields in another order', 'max_age: 86400\nmx: mx.example.com\nmode: enforce\nversion: STSv1\n', PLAIN],
  ['no blank after the colon', 'version:STSv1\nmode:enforce\nmx:mx.example.com\nmax_age:86400\n', PLAIN],
  [
    'tabs after the colon',
    'version:\tSTSv1\nmode: \tenforce\nmx:\t\tmx.example.com\nmax_age:\t 86400',
    PLAIN,
  ],
  [
    'blanks at line ends',
    'version: STSv1 \nmode: enforce\t\r\nmx: mx.example.com \t \nmax_age: 86400  ',
    PLAIN,
  ],
  ['blank line first', `\n${also('')}`, PLAIN],
  ['blank lines between', mx('\n\r\n\nmx: mx.example.com\n'), PLAIN],
  ['line of blanks', mx(' \t\nmx: mx.example.com'), PLAIN],
  ['first of two versions', also('version: STSv2'), PLAIN],
  ['first of two modes', also('mode: none'), PLAIN],
  ['first of two modes, the second no mode at all', also('mode: off'), PLAIN],
  ['first of two max_ages', also('max_age: 0'), PLAIN],
  ['first of two max_ages, the second no number', also('max_age: a week'), PLAIN],
  ['extension', also('a: b'), PLAIN],
  ['extension twice', also('a: b\na: c'), PLAIN],
  ['extension with blanks and colons in its value', also('report: https://example.com/ and more'), PLAIN],
  ['extension in UTF-8', also('note: Grüße 例え 💌'), PLAIN],
  ['name of an extension with all its characters', also('9a_b-c.D: x'), PLAIN],
  ['name of an extension with 32 characters', also(`${'a'.repeat(32)}: x`), PLAIN],
  ['known name in capitals is an extension', also('Mode: off\nMX: *\nVERSION: 2'), PLAIN],
  ['mx in capitals', mx('mx: MX.Example.COM'), PLAIN],
  ['mx twice, in different case', mx('mx: mx.example.com\nmx: MX.EXAMPLE.COM'), PLAIN],
  ['mx keeps its order', mx('mx: b.example\nmx: a.example'), plainWith({ mx: ['b.example', 'a.example'] })],
  ['mx of one label', mx('mx: mx'), plainWith({ mx: ['mx'] })],
  ['mx below one label', mx('mx: *.example'), plainWith({ mx: ['*.example'] })],
  ['mx with an A-label', mx('mx: *.xn--bcher-kva.example'), plainWith({ mx: ['*.xn--bcher-kva.example'] })],
  ['mx with digits in front', mx('mx: 1.2.3.4.example'), plainWith({ mx: ['1.2.3.4.example'] })],
  ['max_age 0', maxAge('max_age: 0'), plainWith({ maxAgeSeconds: 0 })],
  ['max_age with zeros in front', maxAge('max_age: 0000086400'), PLAIN],
  ['greatest max_age', maxAge('max_age: 31557600'), plainWith({ maxAgeSeconds: MAX_MAX_AGE_SECONDS })],
  [
    'max_age over the greatest',
    maxAge('max_age: 31557601'),
    plainWith({ maxAgeSeconds: MAX_MAX_AGE_SECONDS }),
  ],
  ['max_age of 10 digits', maxAge('max_age: 9999999999'), plainWith({ maxAgeSeconds: MAX_MAX_AGE_SECONDS })],
];

const refused: [name: string, text: string, detail: RegExp][] = [
  ['empty', '', /no "version"/],
  ['blank lines only', '\r\n\n', /no "version"/],
  ['no version', 'mode: enforce\nmx: mx.example.com\nmax_age: 86400\n', /no "version"/],
  ['no mode', 'version: STSv1\nmx: mx.example.com\nmax_age: 86400\n', /no "mode"/],
  ['no max_age', 'version: STSv1\nmode: enforce\nmx: mx.example.com\n', /no "max_age"/],
  ['no mx, enforce', 'version: STSv1\nmode: enforce\nmax_age: 86400\n', /no "mx", and its mode is enforce/],
  ['no mx, testing', 'version: STSv1\nmode: testing\nmax_age: 86400\n', /no "mx", and its mode is testing/],
  ['other version', version('version: STSv2'), /^Line 1: the version is "STSv2"/],
  ['version in lower case', version('version: stsv1'), /^Line 1: the version is "stsv1"/],
  ['name of the version in capitals', version('Version: STSv1'), /no "version"/],
  ['good version after a bad one', version('version: STSv2\nversion: STSv1'), /^Line 1: the version/],
  ['text of the record', 'v=STSv1; id=1', /^Line 1: .* does not start with a field name/],
  ['mode of another name', mode('mode: enforcing'), /^Line 2: the mode is "enforcing"/],
  ['mode in capitals', mode('mode: Enforce'), /^Line 2: the mode is "Enforce"/],
  ['mode in brackets', mode('mode: [testing] '), /^Line 2: the mode is "\[testing\]"/],
  ['mode with a comment', mode('mode: enforce # at last'), /^Line 2: the mode is "enforce # at last"/],
  ['mode with a full-width letter', mode('mode: ｅnforce'), /^Line 2: the mode is/],
  ['good mode after a bad one', mode('mode: on\nmode: enforce'), /^Line 2: the mode/],
  ['max_age without digits', maxAge('max_age: a week'), /^Line 4: the max_age is "a week"/],
  ['max_age of 11 digits', maxAge('max_age: 00000086400'), /^Line 4: the max_age/],
  ['max_age with a sign', maxAge('max_age: +86400'), /^Line 4: the max_age/],
  ['max_age below zero', maxAge('max_age: -1'), /^Line 4: the max_age/],
  ['max_age with a fraction', maxAge('max_age: 86400.0'), /^Line 4: the max_age/],
  ['max_age with an exponent', maxAge('max_age: 1e5'), /^Line 4: the max_age/],
  ['max_age in hexadecimal', maxAge('max_age: 0x10'), /^Line 4: the max_age/],
  ['max_age with a unit', maxAge('max_age: 86400s'), /^Line 4: the max_age/],
  ['max_age in Arabic digits', maxAge('max_age: ٨٦٤٠٠'), /^Line 4: the max_age/],
  ['max_age of a hyphenated name', maxAge('max-age: 86400'), /no "max_age"/],
  ['empty version', version('version:'), /^Line 1: "version" has no value/],
  ['empty mode', mode('mode: \t'), /^Line 2: "mode" has no value/],
  ['empty max_age', maxAge('max_age: '), /^Line 4: "max_age" has no value/],
  ['empty extension', also('a:'), /^Line 5: "a" has no value/],
  ['empty mx', mx('mx:'), /^Line 3: "mx" has no value/],
  ['list of mx', mx('mx:\n  - mx.example.com'), /^Line 3: "mx" has no value/],
  ['mx with a trailing dot', mx('mx: mx.example.com.'), /^Line 3: the mx "mx.example.com." ends with a dot/],
  ['mx with a leading dot', mx('mx: .example.com'), /^Line 3: the mx ".example.com" has an empty label/],
  ['mx with an empty label', mx('mx: mx..example.com'), /^Line 3: .* an empty label/],
  ['mx "*"', mx('mx: *'), /^Line 3: the mx "\*"/],
  ['mx "*."', mx('mx: *.'), /^Line 3: the mx "\*\." is empty/],
  ['mx with two wildcards', mx('mx: *.*.example.com'), /^Line 3: the mx/],
  ['mx with a wildcard inside', mx('mx: mx.*.example.com'), /^Line 3: the mx/],
  ['mx with a wildcard in a label', mx('mx: mx*.example.com'), /^Line 3: the mx/],
  ['mx with an underscore', mx('mx: _mx.example.com'), /^Line 3: the mx/],
  ['mx with a hyphen in front', mx('mx: -mx.example.com'), /^Line 3: the mx/],
  ['mx with a label of 64 characters', mx(`mx: ${'a'.repeat(64)}.example`), /^Line 3: the mx/],
  ['mx of 254 characters', mx(`mx: ${'a.'.repeat(125)}abcd`), /^Line 3: the mx .* longer than 253/],
  [
    'mx with a U-label',
    mx('mx: bücher.example'),
    /^Line 3: the mx "bücher.example" has characters other than/,
  ],
  ['mx with a Kelvin sign', mx('mx: \u212A.example'), /^Line 3: the mx/],
  ['mx that is an IPv4 address', mx('mx: 192.0.2.1'), /^Line 3: the mx "192.0.2.1" ends in a number/],
  ['mx that is a wildcard of addresses', mx('mx: *.2.1'), /^Line 3: the mx .* ends in a number/],
  ['mx that is an address literal', mx('mx: [192.0.2.1]'), /^Line 3: the mx/],
  ['mx that is an IPv6 address', mx('mx: 2001:db8::1'), /^Line 3: the mx/],
  ['mx with a port', mx('mx: mx.example.com:25'), /^Line 3: the mx/],
  ['mx with a preference', mx('mx: 10 mx.example.com'), /^Line 3: the mx/],
  ['two mx on a line', mx('mx: a.example, b.example'), /^Line 3: the mx/],
  ['mx with a comment', mx('mx: a.example # new'), /^Line 3: the mx/],
  ['bad mx after a good one', mx('mx: a.example\nmx: b.example.'), /^Line 4: the mx/],
  ['bad mx, mode none', 'version: STSv1\nmode: none\nmx: ü\nmax_age: 1\n', /^Line 3: the mx/],
  ['blank before a field', ` ${also('')}`, /^Line 1: .* without blanks before/],
  ['blank before all fields', also('').replace(/^/gm, '      '), /^Line 1: .* without blanks before/],
  ['blank before the colon', mode('mode : enforce'), /^Line 2: .* without blanks before/],
  ['folded line', mode('mode:\n enforce'), /^Line 2: "mode" has no value/],
  ['no colon', mode('mode enforce'), /^Line 2: .* field name/],
  ['"=" for the colon', mode('mode=enforce'), /^Line 2: .* field name/],
  ['full-width colon', mode('mode： enforce'), /^Line 2: .* field name/],
  ['comment', `# our policy\n${also('')}`, /^Line 1: .* field name/],
  ['front matter of a site generator', `---\nlayout: none\n---\n${also('')}`, /^Line 1: .* field name/],
  ['HTML', '<!DOCTYPE html>\n<title>404</title>\n', /^Line 1: .* field name/],
  ['prose', 'No MTA-STS policy is applicable for this domain.\n', /^Line 1: .* field name/],
  ['JSON', '{"version":"STSv1"}', /^Line 1: .* field name/],
  ['byte order mark', `\uFEFF${also('')}`, /^Line 1: .* field name/],
  ['no-break space before a field', `\u00A0${also('')}`, /^Line 1: .* field name/],
  ['no-break space after the colon', mode('mode:\u00A0enforce'), /^Line 2: the mode/],
  ['name of an extension with 33 characters', also(`${'a'.repeat(33)}: x`), /^Line 5: .* field name/],
  ['name of an extension that starts with "_"', also('_a: x'), /^Line 5: .* field name/],
  ['name of an extension that is not ASCII', also('ä: x'), /^Line 5: .* field name/],
  ['no name', also(': x'), /^Line 5: .* field name/],
  ['tab in a value', also('a: b\tc'), /^Line 5: the value of "a" has a control character/],
  ['escape in a value', also('a: \x1B[31mred'), /^Line 5: the value of "a" has a control character/],
  ['DEL in a value', also('a: \x7F'), /^Line 5: the value of "a" has a control character/],
  ['NUL at the end', also('a: b\0'), /^Line 5: the value of "a" has a control character/],
  ['lone surrogate', also('a: \uD800'), /^Line 5: the value of "a"/],
  ['CR for line ends', also('').replaceAll('\n', '\r'), /^Line 1: the value of "version" has a control/],
  ['CR before CRLF', mode('mode: enforce\r\r'), /^Line 2: the value of "mode" has a control/],
  [
    'CR at the end of the text',
    'version: STSv1\nmode: none\nmax_age: 1\r',
    /^Line 3: the value of "max_age"/,
  ],
  ['CR alone on a line', mode('\r\r\nmode: enforce'), /^Line 2: .* field name/],
  ['form feed for a blank line', mode('\f\nmode: enforce'), /^Line 2: .* field name/],
  ['line separator for a line end', mode('mode: enforce\u2028'), /^Line 2: the mode/],
];

for (const [name, text, policy] of [...published, ...accepted]) {
  test(`parsePolicy accepts: ${name}`, () => {
    assert.deepEqual(parsePolicy(text), { ok: true, policy });
  });
}

for (const [name, text, detail] of refused) {
  test(`parsePolicy refuses: ${name}`, () => {
    const parsed = parsePolicy(text);
    assert.ok(!parsed.ok, `accepted as ${JSON.stringify(parsed)}`);
    assert.equal(parsed.failure.code, 'policy-invalid');
    assert.match(parsed.failure.detail, detail);
    assert.doesNotMatch(parsed.failure.detail, UNSAFE);
    assert.match(parsed.failure.detail, /^(?:Line \d+: |The policy has no ).*\.$/);
  });
}

test('formatPolicy ends every line with CRLF', () => {
  assert.equal(
    formatPolicy({ mode: 'testing', mx: ['a.example', '*.b.example'], maxAgeSeconds: 60 }),
    'version: STSv1\r\nmode: testing\r\nmx: a.example\r\nmx: *.b.example\r\nmax_age: 60\r\n',
  );
});

const matches: [name: string, patterns: string[], host: string, expected: boolean][] = [
  ['same name', ['mx.example.com'], 'mx.example.com', true],
  ['other name', ['mx.example.com'], 'mx2.example.com', false],
  ['no patterns', [], 'mx.example.com', false],
  ['second pattern', ['a.example', 'mx.example.com'], 'mx.example.com', true],
  ['host in capitals', ['mx.example.com'], 'MX.EXAMPLE.COM', true],
  ['pattern in capitals', ['*.EXAMPLE.com'], 'mx.example.com', true],
  ['trailing dot', ['mx.example.com'], 'mx.example.com.', true],
  ['trailing dot and wildcard', ['*.example.com'], 'mx.example.com.', true],
  ['two trailing dots', ['mx.example.com', '*.example.com'], 'mx.example.com..', false],
  ['wildcard for one label', ['*.example.com'], 'mail.example.com', true],
  ['wildcard for no label', ['*.example.com'], 'example.com', false],
  ['wildcard for two labels', ['*.example.com'], 'foo.bar.example.com', false],
  ['wildcard for an empty label', ['*.example.com'], '.example.com', false],
  ['wildcard for a part of a label', ['*.example.com'], 'mx.badexample.com', false],
  ['wildcard below one label', ['*.example'], 'mx.example', true],
  ['subdomain of a plain name', ['example.com'], 'mx.example.com', false],
  ['parent of a plain name', ['mx.example.com'], 'example.com', false],
  ['one label', ['mx'], 'mx', true],
  ['empty host', ['mx', '*.mx'], '', false],
  ['root', ['mx', '*.mx'], '.', false],
  ['Kelvin sign is no k', ['k.example'], '\u212A.example', false],
];

for (const [name, patterns, host, expected] of matches) {
  test(`matchesMx: ${name}`, () => {
    assert.equal(matchesMx(patterns, host), expected);
  });
}

const label = fc
  .string({ unit: fc.constantFrom(...'abcxyz019-'), minLength: 1, maxLength: 12 })
  .filter((text) => !text.startsWith('-') && !text.endsWith('-'));
const hostName = fc
  .tuple(fc.array(label, { maxLength: 4 }), fc.constantFrom('com', 'example', 'xn--p1ai'))
  .map(([labels, top]) => [...labels, top].join('.'));
const pattern = fc.tuple(fc.constantFrom('', '*.'), hostName).map(([wildcard, name]) => wildcard + name);
const validPolicy: fc.Arbitrary<Policy> = fc
  .record(
    {
      mode: fc.constantFrom(...MODES),
      mx: fc.uniqueArray(pattern, { maxLength: 20 }),
      maxAgeSeconds: fc.nat(MAX_MAX_AGE_SECONDS),
    },
    { noNullPrototype: true },
  )
  .filter((policy) => policy.mode === 'none' || policy.mx.length > 0);

test('parsePolicy gives back the policy that formatPolicy wrote', () => {
  fc.assert(
    fc.property(validPolicy, (policy) => {
      assert.deepEqual(parsePolicy(formatPolicy(policy)), { ok: true, policy });
    }),
  );
});

test('blanks, line ends, extensions and repeated fields leave a policy as it is', () => {
  const blanks = fc.string({ unit: fc.constantFrom(' ', '\t'), maxLength: 3 });
  const lineEnd = fc
    .tuple(blanks, fc.constantFrom('\n', '\r\n', '\n\n', '\r\n \r\n'))
    .map((parts) => parts.join(''));
  const extra = fc.constantFrom('', 'note: é: x\n', 'version: x\n', 'mode: none\n', 'max_age: 1\n');
  fc.assert(
    fc.property(validPolicy, blanks, lineEnd, fc.array(extra), (policy, blank, end, extras) => {
      const text =
        formatPolicy(policy).replaceAll(': ', `:${blank}`).replaceAll('\r\n', end) + extras.join('');
      assert.deepEqual(parsePolicy(text), { ok: true, policy });
    }),
  );
});

test('parsePolicy never throws; what it accepts it accepts again, and a failure is fit for a log line', () => {
  const line = fc.constantFrom(
    ...['version: STSv1', 'mode: enforce', 'mode: none', 'max_age: 9999999999', 'mx: *.Example.com', 'mx: ü'],
    ...['mx:', 'a: b', ' ', '', '\r', '\u202E', '\uFEFF', ':', '*'],
  );
  const lines = fc.array(fc.tuple(line, fc.constantFrom('\n', '\r\n', '\r', '')), { maxLength: 10 });
  const complete = fc.shuffledSubarray(
    [
      'version: STSv1\n',
      'mode: none\n',
      'max_age: 60\n',
      'mx: A.example\n',
      'mx: *.a.example\r\n',
      '\n',
      'x: y\n',
    ],
    { minLength: 5 },
  );
  const text = fc.oneof(
    anyText,
    lines.map((all) => all.flat().join('')),
    complete.map((all) => all.join('')),
  );
  fc.assert(
    fc.property(text, (body) => {
      const parsed = parsePolicy(body);
      if (parsed.ok) assert.deepEqual(parsePolicy(formatPolicy(parsed.policy)), parsed);
      else assert.doesNotMatch(parsed.failure.detail, UNSAFE);
    }),
    { numRuns: 2000 },
  );
});

/** RFC 8461 §4.1, label by label. */
function naiveMatch(published: string, host: string): boolean {
  const wanted = published.toLowerCase().split('.');
  const given = host.toLowerCase().split('.');
  if (given.at(-1) === '') given.pop();
  if (wanted.length !== given.length) return false;
  return wanted.every(
    (each, index) => each === given[index] || (index === 0 && each === '*' && given[0] !== ''),
  );
}

test('matchesMx agrees with a comparison label by label', () => {
  const short = fc
    .array(fc.constantFrom('a', 'B', 'b', ''), { minLength: 1, maxLength: 4 })
    .map((all) => all.join('.'));
  const shortPattern = fc
    .tuple(
      fc.constantFrom('', '*.'),
      fc.array(fc.constantFrom('a', 'A', 'b'), { minLength: 1, maxLength: 3 }),
    )
    .map(([wildcard, labels]) => wildcard + labels.join('.'));
  const patterns = fc.array(fc.oneof(pattern, shortPattern), { maxLength: 4 });
  fc.assert(
    fc.property(patterns, fc.oneof(hostName, short, fc.string()), (all, host) => {
      assert.equal(
        matchesMx(all, host),
        all.some((each) => naiveMatch(each, host)),
      );
    }),
    { numRuns: 5000 },
  );
});

/** Distinct patterns, `bytes` of them together. */
function patternsOf(bytes: number): string[] {
  const patterns = Array.from({ length: Math.floor(bytes / 16) - 1 }, (_, i) =>
    `mx${i}`.padEnd(14, 'x').concat('.a'),
  );
  const rest = bytes - 16 * patterns.length;
  return [...patterns, `${'y'.repeat(rest - 2)}.b`];
}

test('patterns are at most 8 KiB together, repeats not counted; in a policy of "none" as well', () => {
  for (const mode of MODES) {
    const fits: Policy = { mode, mx: patternsOf(MAX_MX_BYTES), maxAgeSeconds: 1 };
    assert.equal(fits.mx.join('').length, MAX_MX_BYTES);
    assert.deepEqual(parsePolicy(formatPolicy(fits)), { ok: true, policy: fits });
    const repeated = { ...fits, mx: [...fits.mx, ...fits.mx.map((name) => name.toUpperCase())] };
    assert.deepEqual(parsePolicy(formatPolicy(repeated)), { ok: true, policy: fits });

    const parsed = parsePolicy(formatPolicy({ ...fits, mx: patternsOf(MAX_MX_BYTES + 1) }));
    assert.equal(!parsed.ok && parsed.failure.code, 'policy-too-large');
    assert.match(
      parsed.ok ? '' : parsed.failure.detail,
      /^The policy's 512 "mx" are 8193 bytes together, more than 8192\.$/,
    );
  }
});

// A policy has no more, so in quadratic time one of these takes some 3 s, and 0.1 s are what all of them take. It is
// processor time that is measured, as others take the processor away at any moment.
test('a policy of 64 KiB is read in linear time', () => {
  const fill = (unit: string) => unit.repeat(MAX_POLICY_BYTES / unit.length);
  const hostile = [
    fill(' '),
    `${fill(' ')}x`,
    `mode:${fill(' \t')}x`,
    `a: x${fill(' ')}x`,
    fill('\n'),
    fill('\r'),
    fill('\r\n'),
    fill('a'),
    fill(':'),
    `mx: ${fill('a')}`,
    `mx: ${fill('a.')}`,
    `mx: *.${fill('*.')}`,
    `max_age: ${fill('1')}`,
    fill('mx: a\n'),
    fill('a: b c d'),
    `a: ${fill('é')}\t`,
  ];
  const start = process.cpuUsage();
  for (const text of hostile) assert.ok(!parsePolicy(text).ok);
  const lines = Array.from({ length: 6_000 }, (_, index) => `mx:${index.toString(36).padStart(4, '0')}.a\n`);
  assert.ok(!parsePolicy(`version:STSv1\nmode:enforce\nmax_age:1\n${lines.join('')}`).ok);
  const extensions = Array.from({ length: 9_000 }, (_, index) => `x${index}:y\n`);
  assert.ok(parsePolicy(`version:STSv1\nmode:none\nmax_age:1\n${extensions.join('')}`).ok);
  const { user } = process.cpuUsage(start);
  assert.ok(user < 2_000_000, `${user} microseconds`);
});

test('what is called canonical is exactly what is read back as it is', () => {
  const pattern = fc.oneof(
    fc.constantFrom('mx.example.com', '*.example.net', 'a', 'MX.example.com', '*.', '*', '*.*.a', '1.2', ''),
    fc.constantFrom('b\u00FCcher.example', 'a.', '.a', '-a.b', `${'x'.repeat(64)}.a`, 'a b', 'a\r\nmx: b'),
    fc.constantFrom(...patternsOf(MAX_MX_BYTES)),
    fc.string(),
  );
  const age = fc.oneof(
    fc.constantFrom(0, -0, 1, 0.5, -1, 1e21, Number.NaN, Number.POSITIVE_INFINITY),
    fc.constantFrom(MAX_MAX_AGE_SECONDS, MAX_MAX_AGE_SECONDS + 1),
    fc.nat(),
  );
  const policy = fc.record(
    {
      mode: fc.oneof(fc.constantFrom(...MODES), fc.constantFrom('Enforce', '', 'constructor')),
      mx: fc.oneof(
        fc.array(pattern, { maxLength: 4 }),
        fc.constantFrom(patternsOf(MAX_MX_BYTES), patternsOf(MAX_MX_BYTES + 1)),
      ),
      maxAgeSeconds: age,
    },
    { noNullPrototype: true },
  );
  let canonical = 0;
  fc.assert(
    fc.property(policy, (given) => {
      const parsed = parsePolicy(formatPolicy(given as Policy));
      const same = parsed.ok && isDeepStrictEqual(parsed.policy, given);
      assert.equal(isCanonical(given as Policy), same);
      if (same) canonical += 1;
    }),
    { numRuns: 5_000 },
  );
  assert.ok(canonical > 100, 'some were');
});
