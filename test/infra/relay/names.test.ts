import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseDomain } from '../../../functions/mtasts/domain.ts';
import { readKey } from '../../../infra/relay/names.ts';

const destinations: [name: string, key: string, domain: string, port: number, direct: boolean][] = [
  ['a domain', 'example.com', 'example.com', 25, false],
  ['upper case', 'EXAMPLE.Com', 'example.com', 25, false],
  ['a trailing dot', 'example.com.', 'example.com', 25, false],
  ['U-labels', 'bücher.example', 'xn--bcher-kva.example', 25, false],
  ['A-labels', 'xn--bcher-kva.example', 'xn--bcher-kva.example', 25, false],
  ['a subdomain is a domain of its own', 'lists.example.com', 'lists.example.com', 25, false],
  ['a domain with a port', 'example.com:587', 'example.com', 587, false],
  ['a smart host', '[smtp.example.com]', 'smtp.example.com', 25, true],
  ['a smart host with a port', '[smtp.example.com]:587', 'smtp.example.com', 587, true],
  ['a smart host in upper case with a trailing dot', '[SMTP.example.com.]:25', 'smtp.example.com', 25, true],
  ['a smart host in U-labels', '[post.bücher.example]', 'post.xn--bcher-kva.example', 25, true],
  ['a service by name', '[smtp.example.com]:submission', 'smtp.example.com', 587, true],
  ['a service in upper case', 'example.com:SMTP', 'example.com', 25, false],
  ['submission over TLS', '[smtp.example.com]:submissions', 'smtp.example.com', 465, true],
];

for (const [name, key, domain, port, direct] of destinations) {
  test(`${name}: ${key}`, () => {
    assert.deepEqual(readKey(key), { kind: 'destination', destination: { domain, port, direct } });
  });
}

const notFound: [name: string, key: string, reason: RegExp][] = [
  ['nothing', '', /empty/],
  ['a parent domain', '.example.com', /not inherited/],
  ['a top-level domain as parent', '.com', /not inherited/],
  ['a dot', '.', /not inherited/],
  ['a single label', 'localhost', /only one label/],
  ['a single label in brackets', '[localhost]:10025', /only one label/],
  ['an IPv4 address literal', '[192.0.2.1]', /an address/],
  ['an IPv4 address literal with a port', '[192.0.2.1]:10025', /an address/],
  ['an IPv6 address literal as Postfix writes it', '[ipv6:2001:db8::1]', /an address/],
  ['an IPv6 address literal as RFC 5321 writes it, with a port', '[IPv6:2001:db8::1]:25', /an address/],
  ['an IPv6 address in brackets', '[2001:db8::1]:25', /an address/],
  ['a bare IPv4 address', '192.0.2.1', /an address/],
  ['a bare IPv4 address with a port', '192.0.2.1:25', /an address/],
  ['a bare IPv6 address', '2001:db8::1', /an address/],
  ['a path, as of LMTP', '/var/run/lmtp', /the character "\/"/],
  ['a path with a host', 'private/dovecot-lmtp', /the character "\/"/],
  ['a mail address', 'alice@example.com', /the character "@"/],
  ['a blank', 'example.com example.net', /the character " "/],
  ['a line end', 'example.com\n', /the character/],
  ['NUL', 'example.com\0', /the character/],
  ['a byte that is not UTF-8', 'ex\u{FFFD}mple.com', /not a valid internationalized/],
  ['a bracket too few', '[smtp.example.com', /the character "\["/],
  ['a bracket too many', '[[smtp.example.com]]', /the character "\["/],
  ['something after the bracket', '[smtp.example.com]x', /the character/],
  ['two ports', '[smtp.example.com]:25:25', /an address|the character/],
  ['nothing in brackets', '[]', /empty/],
  ['an underscore', '_25._tcp.example.com', /the character "_"/],
  ['longer than a policy domain can be', `${'a.'.repeat(121)}example`, /longer than 244/],
  ['as long as Postfix lets a key be', 'a.'.repeat(5_000), /longer than 244/],
];

for (const [name, key, reason] of notFound) {
  test(`not found: ${name}`, () => {
    const read = readKey(key);
    assert.ok(read.kind === 'none', read.kind);
    assert.match(read.reason, reason);
  });
}

const unclear: [name: string, key: string][] = [
  ['a service that is not known', '[smtp.example.com]:mail-in'],
  ['port 0', 'example.com:0'],
  ['a port too high', 'example.com:65536'],
  ['no port after the colon', 'example.com:'],
  ['no port after the bracket', '[smtp.example.com]:'],
  ['a negative port', 'example.com:-25'],
];

for (const [name, key] of unclear) {
  test(`unclear: ${name}`, () => {
    const read = readKey(key);
    assert.ok(read.kind === 'unclear', read.kind);
    assert.match(read.reason, /^(?:smtp\.)?example\.com: write the port of this next hop as a number\.$/);
  });
}

test('whatever the key is, what is looked up is a policy domain, and what is said can be printed', () => {
  const part = fc.constantFrom(
    '[',
    ']',
    ':',
    '.',
    '25',
    'example',
    'com',
    'ipv6:',
    '::1',
    '*',
    ' ',
    '\n',
    'ü',
  );
  const key = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.array(part).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(key, (text) => {
      const read = readKey(text);
      if (read.kind === 'destination') {
        assert.deepEqual(parseDomain(read.destination.domain), { ok: true, domain: read.destination.domain });
      } else {
        assert.doesNotMatch(read.reason, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u);
      }
    }),
    { numRuns: 2_000 },
  );
});
