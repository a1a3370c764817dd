import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Domain, parseDomain } from '../../../functions/mtasts/domain.ts';
import type { Policy } from '../../../functions/mtasts/policy.ts';
import {
  answer,
  deferral,
  formatReply,
  MAPS,
  MAX_REPLY_BYTES,
  type MapName,
  type Verdict,
} from '../../../infra/relay/answer.ts';
import { readTlsPolicy } from './postfix-policy.ts';

const DOMAIN = domainOf('example.com');

function domainOf(text: string): Domain {
  const parsed = parseDomain(text);
  assert.ok(parsed.ok);
  return parsed.domain;
}

const enforce = (...mx: string[]): Verdict => ({
  kind: 'enforce',
  domain: DOMAIN,
  policy: { mode: 'enforce', mx, maxAgeSeconds: 604_800 },
});
const say = (map: MapName, verdict: Verdict) => formatReply(answer(map, verdict));

const REPORT_OF_THE_RFC =
  'policy_type=sts policy_domain=example.com { policy_string = version: STSv1 } { policy_string = mode: enforce } ' +
  '{ policy_string = mx: mail.example.com } { policy_string = mx: *.example.net } { policy_string = max_age: 604800 } ' +
  'mx_host_pattern=mail.example.com mx_host_pattern=*.example.net';

const answers: [name: string, verdict: Verdict, plain: string, tlsrpt?: string][] = [
  [
    'patterns as the RFC has them',
    enforce('mail.example.com', '*.example.net'),
    'OK secure match=mail.example.com:.example.net servername=hostname',
    `OK secure match=mail.example.com:.example.net servername=hostname ${REPORT_OF_THE_RFC}`,
  ],
  [
    'one host',
    enforce('mx.example.com'),
    'OK secure match=mx.example.com servername=hostname',
    'OK secure match=mx.example.com servername=hostname policy_type=sts policy_domain=example.com ' +
      '{ policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: mx.example.com } ' +
      '{ policy_string = max_age: 604800 } mx_host_pattern=mx.example.com',
  ],
  ['all hosts have DANE', { kind: 'dane', domain: DOMAIN, level: 'dane-only' }, 'OK dane-only'],
  ['some hosts have DANE', { kind: 'dane', domain: DOMAIN, level: 'dane' }, 'OK dane'],
  [
    'the word of the operator',
    { kind: 'override', domain: DOMAIN, text: 'secure match=mx.example.org' },
    'OK secure match=mx.example.org',
  ],
  ['not found', { kind: 'not-found', reason: 'example.com has no policy.' }, 'NOTFOUND '],
  ['deferred', { kind: 'defer', reason: 'example.com: nobody knows.' }, 'TEMP example.com: nobody knows.'],
  [
    'upper case and repeats, which only an item written by hand has',
    enforce('MX.example.com', 'mx.example.com'),
    'OK secure match=mx.example.com servername=hostname',
    say('mta-sts-tlsrpt', enforce('mx.example.com')),
  ],
];

for (const [name, verdict, plain, tlsrpt = plain] of answers) {
  test(`what Postfix is told: ${name}`, () => {
    assert.equal(say('mta-sts', verdict), plain);
    assert.equal(say('mta-sts-tlsrpt', verdict), tlsrpt);
  });
}

// Words of Postfix's own (tls_client.c), and what else a single label could be taken for.
for (const keyword of ['nexthop', 'hostname', 'dot-nexthop', 'NEXTHOP', 'localhost']) {
  test(`"${keyword}" as mx is never matched, and alone it defers`, () => {
    for (const map of MAPS) {
      assert.equal(answer(map, enforce(keyword)).status, 'TEMP');
      const policy = readTlsPolicy(answer(map, enforce(keyword, 'mx.example.com')).text);
      assert.deepEqual(policy.match, ['mx.example.com']);
    }
    const { attributes } = readTlsPolicy(answer('mta-sts-tlsrpt', enforce(keyword, 'mx.example.com')).text);
    assert.deepEqual(
      attributes.filter(([name]) => name === 'mx_host_pattern'),
      [['mx_host_pattern', 'mx.example.com']],
    );
  });
}

test('a wildcard is of names below, also where the name is a keyword', () => {
  const { text } = answer('mta-sts', enforce('*.nexthop'));
  assert.equal(text, 'secure match=.nexthop servername=hostname');
});

test('an empty list of mx defers', () => {
  for (const map of MAPS) assert.equal(answer(map, enforce()).status, 'TEMP');
});

const injections = [
  'mx.example.com policy_failure=validation-failure',
  'mx.example.com,servername=evil.example',
  'mx.example.com\tmatch=evil.example',
  'mx.example.com\nmatch=evil.example',
  'mx.example.com } match=evil.example { policy_string = x',
  '{ match=evil.example }',
  'mx.example.com:evil.example',
  'mx.example.com|evil.example',
  'match=evil.example',
  '*.*.example.com',
  '*',
  '*.',
  '.',
  '.example.com',
  'mx.example.com.',
  '192.0.2.1',
  '[192.0.2.1]',
  '-mx.example.com',
  'mx..example.com',
  'm\u00FCller.example',
  'mx.example.com\0',
  '',
  ' ',
  `${'a'.repeat(64)}.example`,
  `${'a.'.repeat(127)}example`,
];

for (const mx of injections) {
  test(`no name, and so nowhere in an answer: ${JSON.stringify(mx.slice(0, 60))}`, () => {
    for (const map of MAPS) {
      assert.equal(answer(map, enforce(mx)).status, 'TEMP');
      assert.equal(say(map, enforce(mx, 'good.example')), say(map, enforce('good.example')));
    }
  });
}

test('whatever a policy holds, Postfix reads the attributes that it is meant to read', () => {
  const label = fc.stringMatching(/^[a-z0-9-]{1,12}$/);
  const name = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join('.'));
  const dirt = fc.constantFrom(
    ' ',
    ',',
    '{',
    '}',
    '=',
    ':',
    '\n',
    '\t',
    '*',
    'match=',
    'servername=x',
    'nexthop',
  );
  const pattern = fc.oneof(
    name,
    name.map((text) => `*.${text}`),
    fc.array(fc.oneof(name, dirt)).map((parts) => parts.join('')),
    fc.string({ unit: 'binary' }),
  );
  fc.assert(
    fc.property(fc.array(pattern, { maxLength: 6 }), fc.nat(), (mx, maxAgeSeconds) => {
      const policy: Policy = { mode: 'enforce', mx, maxAgeSeconds };
      for (const map of MAPS) {
        const { status, text } = answer(map, { kind: 'enforce', domain: DOMAIN, policy });
        assert.match(text, /^[ -~]*$/);
        if (status === 'TEMP') continue;
        const { level, attributes, match } = readTlsPolicy(text);
        const valuesOf = (wanted: string) =>
          attributes.flatMap(([each, value]) => (each === wanted ? [value] : []));
        assert.equal(level, 'secure');
        assert.deepEqual(valuesOf('servername'), ['hostname']);
        assert.ok(match.length > 0);
        for (const one of match) {
          assert.match(one, /^\.?[a-z0-9.-]+$/);
          assert.ok(mx.some((each) => each.toLowerCase() === (one.startsWith('.') ? `*${one}` : one)));
        }
        if (map === 'mta-sts') {
          assert.deepEqual(
            attributes.map(([each]) => each),
            ['match', 'servername'],
          );
          continue;
        }
        assert.deepEqual(valuesOf('policy_type'), ['sts']);
        assert.deepEqual(valuesOf('policy_domain'), ['example.com']);
        // What is matched and what Postfix from 3.10.5 checks MX names against is the same.
        assert.deepEqual(
          valuesOf('mx_host_pattern').map((each) => (each.startsWith('*.') ? each.slice(1) : each)),
          match,
        );
        assert.deepEqual(valuesOf('policy_string').slice(0, 2), ['version: STSv1', 'mode: enforce']);
        assert.equal(valuesOf('policy_string').at(-1), `max_age: ${maxAgeSeconds}`);
      }
    }),
    { numRuns: 2_000 },
  );
});

const names = (count: number, length: number) =>
  Array.from(
    { length: count },
    (_, index) => `${String(index).padStart(length - '.example'.length, 'a')}.example`,
  );

test('a reply is as long as Postfix reads, and not a byte longer', () => {
  const overhead = Buffer.byteLength('OK secure match= servername=hostname');
  // Names of 62 characters and a colon each, one for the rest.
  const many = names(1_586, 62);
  const rest = MAX_REPLY_BYTES - overhead - 1_586 * 63;
  const exact = enforce(...many, ...names(1, rest));
  assert.equal(Buffer.byteLength(say('mta-sts', exact)), 100_000);
  assert.equal(answer('mta-sts', exact).status, 'OK');
  const longer = answer('mta-sts', enforce(...many, ...names(1, rest + 1)));
  assert.equal(longer.status, 'TEMP');
  assert.match(
    longer.text,
    /^example\.com: its policy names more MX hosts than a reply to Postfix can hold\.$/,
  );
});

test('what does not fit with the attributes of reports is told without them', () => {
  const fits = enforce(...names(400, 60));
  assert.match(say('mta-sts-tlsrpt', fits), / policy_type=sts /);
  const large = enforce(...names(1_000, 60));
  assert.equal(say('mta-sts-tlsrpt', large), say('mta-sts', large));
  assert.equal(answer('mta-sts', large).status, 'OK');
  assert.equal(answer('mta-sts-tlsrpt', enforce(...names(2_000, 60))).status, 'TEMP');
});

test('a reason is what Postfix can log: printable ASCII, 200 characters at most', () => {
  assert.deepEqual(deferral('b\u00FCcher: \u001b[31m\nno', 'PERM'), {
    status: 'PERM',
    text: 'b?cher: ?[31m?no',
  });
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 400 }), (reason) => {
      assert.match(deferral(reason).text, /^[ -~]{0,200}$/);
    }),
  );
});
