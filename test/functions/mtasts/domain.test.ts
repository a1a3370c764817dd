import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hostNameFlaw, parseDomain, policyHost, recordName } from '../../../functions/mtasts/domain.ts';
import { quote } from '../../../functions/mtasts/failure.ts';
import { anyText } from '../dispatch/tasks.ts';

const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u;

/** A domain of exactly `length` characters, in labels that are short enough. */
function domainOfLength(length: number): string {
  const labels = 'a'.repeat(59).concat('.').repeat(5);
  return `${labels.slice(0, length - 4).replace(/\.$/, 'a')}.com`;
}

const accepted: [name: string, text: string, domain: string][] = [
  ['plain', 'example.com', 'example.com'],
  ['upper case', 'EXAMPLE.Com', 'example.com'],
  ['one trailing dot', 'example.com.', 'example.com'],
  ['subdomain', 'mail.example.com', 'mail.example.com'],
  ['labels of one character', 'x.y', 'x.y'],
  ['hyphens inside', 'a-b--c.example', 'a-b--c.example'],
  ['hyphens third and fourth, but no A-label', 'r4---sn.example', 'r4---sn.example'],
  ['digits in front', '1.2.example', '1.2.example'],
  ['digits, but not alone, at the end', 'example.c0m', 'example.c0m'],
  ['A-label', 'xn--bcher-kva.example', 'xn--bcher-kva.example'],
  ['A-label in upper case', 'XN--BCHER-KVA.example', 'xn--bcher-kva.example'],
  ['U-label', 'bücher.example', 'xn--bcher-kva.example'],
  ['U-label in upper case', 'BÜCHER.example', 'xn--bcher-kva.example'],
  ['U-label in NFD', 'bu\u0308cher.example', 'xn--bcher-kva.example'],
  ['sharp s is not ss', 'straße.example', 'xn--strae-oqa.example'],
  ['right to left', 'אב.example', 'xn--4dbc.example'],
  ['U-labels only', '例え.テスト', 'xn--r8jz45g.xn--zckzah'],
  ['ideographic full stops', '例え。テスト。', 'xn--r8jz45g.xn--zckzah'],
  ['zero width non-joiner where the script has it', 'نامه\u200cای.example', 'xn--mgba3gch31f060k.example'],
  ['label of 63 characters', `${'a'.repeat(63)}.example`, `${'a'.repeat(63)}.example`],
  ['244 characters', domainOfLength(244), domainOfLength(244)],
  ['244 characters and a dot', `${domainOfLength(244)}.`, domainOfLength(244)],
];

const refused: [name: string, text: string, reason: RegExp][] = [
  ['empty', '', /^The domain is empty\.$/],
  ['root', '.', /is empty/],
  ['two trailing dots', 'example.com..', /ends with a dot/],
  ['two trailing dots, one ideographic', 'example.com。.', /ends with a dot/],
  ['leading dot', '.example.com', /an empty label/],
  ['empty label', 'example..com', /an empty label/],
  ['one label', 'localhost', /only one label/],
  ['one label and a dot', 'com.', /only one label/],
  ['leading hyphen', '-a.example', /starts or ends with a hyphen/],
  ['trailing hyphen', 'a-.example', /starts or ends with a hyphen/],
  ['trailing hyphen in the last label', 'example.com-', /starts or ends with a hyphen/],
  ['underscore', '_mta-sts.example.com', /the character "_"/],
  ['wildcard', '*.example.com', /the character "\*"/],
  ['blank before', ' example.com', /the character " "/],
  ['blank after', 'example.com ', /the character " "/],
  ['line end after', 'example.com\n', /the character "\uFFFD"/],
  ['NUL', 'example.com\0', /the character "\uFFFD"/],
  ['no-break space', 'exam\u00A0ple.com', /the character/],
  ['byte order mark', '\uFEFFexample.com', /the character "\uFFFD"/],
  ['soft hyphen', 'exam\u00ADple.com', /the character "\uFFFD"/],
  ['zero width space', 'exam\u200Bple.com', /the character "\uFFFD"/],
  ['right-to-left override', '\u202Emoc.elpmaxe.example', /the character "\uFFFD"/],
  ['lone surrogate', 'a\uD800.example', /the character "\uFFFD"/],
  ['zero width joiner where no script has it', 'a\u200Db.example', /not a valid internationalized/],
  ['IPv4 address', '192.0.2.1', /ends in a number/],
  ['short IPv4 address', '127.1', /ends in a number/],
  ['hexadecimal IPv4 address', '127.0.0.0x1', /ends in a number/],
  ['IPv4 address in full-width digits', '１９２．０．２．１', /ends in a number/],
  ['last label all digits', 'example.123', /ends in a number/],
  ['U-label before a number', 'bücher.1', /not a valid internationalized/],
  ['address literal', '[192.0.2.1]', /the character "\["/],
  ['IPv6 address', '2001:db8::1', /the character ":"/],
  ['percent encoding', 'ex%61mple.com', /the character "%"/],
  ['percent encoding in full-width', 'ex％61mple.com', /not a valid internationalized/],
  ['low line in full-width', '＿mta-sts.example.com', /other than letters/],
  ['URL', 'https://example.com', /the character ":"/],
  ['path', 'example.com/x', /the character "\/"/],
  ['mail address', 'alice@example.com', /the character "@"/],
  ['false A-label', 'xn--a.example', /not an A-label/],
  ['A-label of plain ASCII', 'xn--example-x.com', /not an A-label/],
  ['label of 64 characters', `${'a'.repeat(64)}.example`, /a label of more than 63 characters/],
  ['245 characters', domainOfLength(245), /longer than 244 characters/],
  ['U-labels that become too long', `${'ü.'.repeat(40)}example`, /longer than 244 characters/],
  ['64 KiB', 'a'.repeat(65_536), /longer than 244 characters/],
  ['64 KiB of U-label', 'ü'.repeat(65_536), /longer than 244 characters/],
];

for (const [name, text, domain] of accepted) {
  test(`parseDomain accepts: ${name}`, () => {
    assert.deepEqual(parseDomain(text), { ok: true, domain });
  });
}

for (const [name, text, reason] of refused) {
  test(`parseDomain refuses: ${name}`, () => {
    const parsed = parseDomain(text);
    assert.ok(!parsed.ok, `accepted as ${JSON.stringify(parsed)}`);
    assert.match(parsed.reason, reason);
    assert.doesNotMatch(parsed.reason, UNSAFE);
    assert.match(parsed.reason, /^The domain .*\.$/);
  });
}

test('the longest domain still has a record name and a policy host that DNS can hold', () => {
  const parsed = parseDomain(domainOfLength(244));
  assert.ok(parsed.ok);
  assert.equal(recordName(parsed.domain).length, 253);
  assert.equal(policyHost(parsed.domain).length, 252);
});

test('policyHost and recordName put their label before the domain', () => {
  const parsed = parseDomain('Example.com.');
  assert.ok(parsed.ok);
  assert.equal(policyHost(parsed.domain), 'mta-sts.example.com');
  assert.equal(recordName(parsed.domain), '_mta-sts.example.com');
});

test('hostNameFlaw lets pass what RFC 5321 calls a Domain, and no more', () => {
  for (const name of ['mx', 'MX.example.com', '1.example', 'xn--a.example', 'a'.repeat(63)]) {
    assert.equal(hostNameFlaw(name), undefined, name);
  }
  for (const name of [
    '',
    '.',
    'mx.',
    '.mx',
    'a..b',
    'a b',
    'ü',
    'a_b',
    '*.a',
    '-a',
    'a-',
    '1',
    '\u212A.example',
  ]) {
    assert.equal(typeof hostNameFlaw(name), 'string', name);
  }
});

const character = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom(...'abcXYZ019') },
  { weight: 1, arbitrary: fc.constantFrom(...'-_.üßא例İ\u200D。％１\u212A') },
);
const label = fc.oneof(
  fc.string({ unit: character, maxLength: 12 }),
  fc.constantFrom('xn--', '0x1', '7', 'ü'),
);
const nearlyDomain = fc.array(label, { maxLength: 5 }).map((labels) => labels.join('.'));
const given = fc.oneof(anyText, fc.string({ unit: 'grapheme' }), nearlyDomain);

test('parseDomain never throws, and a domain is of the form that the table promises', () => {
  fc.assert(
    fc.property(given, (text) => {
      const parsed = parseDomain(text);
      if (parsed.ok) {
        assert.match(parsed.domain, /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!\d+$)[a-z0-9-]{1,63}$/);
        assert.ok(parsed.domain.length <= 244);
      } else {
        assert.doesNotMatch(parsed.reason, UNSAFE);
      }
    }),
    { numRuns: 2000 },
  );
});

test('parseDomain is idempotent, and the URL of the policy host keeps the domain as it is', () => {
  const url = fc.webUrl().map((text) => new URL(text).hostname);
  fc.assert(
    fc.property(fc.oneof(nearlyDomain, fc.domain(), url), (text) => {
      const parsed = parseDomain(text);
      if (!parsed.ok) return;
      assert.deepEqual(parseDomain(parsed.domain), parsed);
      assert.equal(new URL(`https://${policyHost(parsed.domain)}/`).hostname, policyHost(parsed.domain));
    }),
    { numRuns: 2000 },
  );
});

test('quote gives at most 201 characters, none of them a control or format character', () => {
  const hostile = fc.constantFrom('a', 'é', '\n', '\x1B', '\u202E', '\u2028', '\u{E0041}', '💌');
  const long = { maxLength: 450, size: 'max' } as const;
  const stranger = fc.oneof(
    fc.uint16Array({ maxLength: 450, size: 'max' }).map((units) => String.fromCharCode(...units)),
    fc.string({ unit: hostile, ...long }),
  );
  fc.assert(
    fc.property(stranger, (text) => {
      const quoted = quote(text);
      assert.ok(quoted.length <= 201, `${quoted.length} characters`);
      assert.doesNotMatch(quoted, UNSAFE);
    }),
  );
});
