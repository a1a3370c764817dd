import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Domain, parseDomain } from '../../../functions/mtasts/domain.ts';
import type { Verdict } from '../../../infra/relay/answer.ts';
import { explain } from '../../../infra/relay/explain.ts';
import type { Override } from '../../../infra/relay/overrides.ts';

function domainOf(text: string): Domain {
  const parsed = parseDomain(text);
  assert.ok(parsed.ok);
  return parsed.domain;
}

const DOMAIN = domainOf('example.com');

interface Scene {
  readonly verdict: Verdict;
  readonly override?: Override;
  readonly dane?: readonly string[];
}

const run = (key: string, { verdict, override, dane }: Scene) =>
  explain(key, {
    overrides: { get: () => override },
    dane: dane && { explain: async () => dane },
    policies: { explain: async () => ['in memory: nothing', 'in the table: a policy'] },
    resolve: async () => verdict,
    signal: new AbortController().signal,
  });

const ENFORCE: Verdict = {
  kind: 'enforce',
  domain: DOMAIN,
  policy: { mode: 'enforce', mx: ['mx.example.com'], maxAgeSeconds: 86_400 },
};

test('every step is named, in the order in which it is taken', async () => {
  const lines = await run('Example.com', { verdict: ENFORCE, dane: ['the MX records are not signed'] });
  assert.deepEqual(lines, [
    'Lookup key',
    '  domain example.com',
    '  mail goes to its MX hosts, port 25',
    '',
    'Override map',
    '  has no line for the domain',
    '',
    'DANE',
    '  the MX records are not signed',
    '',
    'MTA-STS',
    '  in memory: nothing',
    '  in the table: a policy',
    '',
    'Postfix is told',
    '  mta-sts         OK secure match=mx.example.com servername=hostname',
    '  mta-sts-tlsrpt  OK secure match=mx.example.com servername=hostname policy_type=sts policy_domain=example.com ' +
      '{ policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: mx.example.com } ' +
      '{ policy_string = max_age: 86400 } mx_host_pattern=mx.example.com',
    '',
    'Because',
    '  example.com has a valid policy with the mode enforce, and no DANE that would go before it.',
  ]);
});

test('a key that is no domain ends there', async () => {
  const verdict: Verdict = { kind: 'not-found', reason: 'The key asks for a parent domain.' };
  const lines = await run('.example.com', { verdict, dane: ['not asked'] });
  assert.deepEqual(lines, [
    'Lookup key',
    '  The key asks for a parent domain, and policies are not inherited (RFC 8461 §3.4).',
    '',
    'Postfix is told',
    '  mta-sts         NOTFOUND',
    '  mta-sts-tlsrpt  NOTFOUND',
    '',
    'Because',
    '  The key asks for a parent domain.',
  ]);
});

const parts: [name: string, key: string, scene: Scene, line: string][] = [
  [
    'a smart host',
    '[smtp.example.com]:587',
    { verdict: ENFORCE },
    '  mail goes to the host itself, since it is in square brackets, port 587',
  ],
  ['DANE is off', 'example.com', { verdict: ENFORCE }, '  is not looked at, since RELAY_DANE is off'],
  [
    'overridden with a policy',
    'example.com',
    {
      verdict: { kind: 'override', domain: DOMAIN, text: 'may' },
      override: { action: 'policy', text: 'may' },
    },
    '  says "may", which decides; the rest is for information',
  ],
  [
    'overridden with a word',
    'example.com',
    { verdict: { kind: 'not-found', reason: 'off' }, override: { action: 'off' } },
    '  says "off", which decides; the rest is for information',
  ],
  [
    'because of the override map',
    'example.com',
    { verdict: { kind: 'override', domain: DOMAIN, text: 'may' } },
    '  The override map says so for example.com.',
  ],
  [
    'because all have DANE',
    'example.com',
    { verdict: { kind: 'dane', domain: DOMAIN, level: 'dane-only' } },
    '  All MX hosts of example.com have DANE, which goes before MTA-STS.',
  ],
  [
    'because some have DANE',
    'example.com',
    { verdict: { kind: 'dane', domain: DOMAIN, level: 'dane' } },
    '  Some MX hosts of example.com have DANE, which goes before MTA-STS.',
  ],
  [
    'because DANE cannot be told of one host',
    'example.com',
    { verdict: { kind: 'dane', domain: DOMAIN, level: 'dane', unclear: 'TLSA of it: SERVFAIL' } },
    '  Whether an MX host of example.com has DANE cannot be told, no other host has, and no policy would be lost: TLSA of it: SERVFAIL',
  ],
  [
    'deferred',
    'example.com',
    { verdict: { kind: 'defer', reason: 'example.com: the table cannot be read' } },
    '  mta-sts         TEMP example.com: the table cannot be read',
  ],
];

for (const [name, key, scene, line] of parts) {
  test(`said: ${name}`, async () => {
    assert.ok((await run(key, scene)).includes(line), line);
  });
}

test('an answer of a hundred kilobytes is not shown as a whole', async () => {
  const mx = Array.from({ length: 1_000 }, (_, index) => `mx${index}.example.com`);
  const verdict: Verdict = { ...ENFORCE, policy: { mode: 'enforce', mx, maxAgeSeconds: 86_400 } };
  const lines = await run('example.com', { verdict });
  const [plain = ''] = lines.filter((line) => line.startsWith('  mta-sts  '));
  assert.match(plain, /^ {2}mta-sts {9}OK secure match=mx0\.example\.com:.*… \(\d+ characters\)$/);
  assert.ok(plain.length < 2_100);
});
