import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Domain, parseDomain } from '../../../functions/mtasts/domain.ts';
import type { Mode } from '../../../functions/mtasts/policy.ts';
import type { DaneAnswer } from '../../../infra/relay/dane.ts';
import type { Override } from '../../../infra/relay/overrides.ts';
import type { Found } from '../../../infra/relay/policies.ts';
import { createResolve, createResponder, type Deciders } from '../../../infra/relay/resolve.ts';
import { createRecorder } from './observer.ts';

const policy = (mode: Mode): Found => ({
  kind: 'policy',
  policy: { mode, mx: mode === 'none' ? [] : ['mx.example.com'], maxAgeSeconds: 86_400 },
  recordId: '1',
  validEnd: Date.now() + 86_400_000,
  source: 'table',
});
const ENFORCE = policy('enforce');
const without = (reason: (Found & { kind: 'no-policy' })['reason']): Found => ({ kind: 'no-policy', reason });
const UNKNOWN: Found = { kind: 'unknown', reason: 'the table cannot be read' };
const NONE: DaneAnswer = { kind: 'none' };
const UNCLEAR: DaneAnswer = { kind: 'unclear', reason: 'TLSA of _25._tcp.mx.example.com: SERVFAIL' };
const STAYS =
  'TEMP example.com: whether it has DANE cannot be told: TLSA of _25._tcp.mx.example.com: SERVFAIL';
const SECURE = 'OK secure match=mx.example.com servername=hostname';

interface Scene {
  readonly override?: Override;
  /** `off`: by the settings; `silent`: never answers; `broken`: a bug. */
  readonly dane?: DaneAnswer | 'off' | 'silent' | 'broken';
  readonly found?: Found | 'silent' | 'broken';
}

const silence = () => new Promise<never>(() => undefined);
const bug = () => Promise.reject(new Error('a bug'));

function scene({ override, dane = NONE, found = ENFORCE }: Scene) {
  const recorder = createRecorder();
  const asked: string[] = [];
  const given = <T>(what: T | 'silent' | 'broken'): Promise<T> => {
    if (what === 'silent') return silence();
    return what === 'broken' ? bug() : Promise.resolve(what as T);
  };
  const deciders: Deciders = {
    overrides: { get: () => override },
    dane:
      dane === 'off'
        ? undefined
        : {
            check: ({ domain, port, direct }) => {
              asked.push(`dane ${direct ? `[${domain}]` : domain}:${port}`);
              return given(dane);
            },
          },
    policies: {
      find: (domain) => {
        asked.push(`policy ${domain}`);
        return given(found);
      },
    },
  };
  const resolve = createResolve({
    ...deciders,
    limits: { daneMs: 20, answerMs: 40 },
    observer: recorder.metrics,
  });
  const { respond, refuse } = createResponder({ resolve, metrics: recorder.metrics });
  return { ...recorder, asked, resolve, respond, refuse };
}

const answers: [name: string, scene: Scene, reply: RegExp | string][] = [
  ['enforce', {}, SECURE],
  ['enforce, and DANE is not looked at', { dane: 'off' }, SECURE],
  ['testing', { found: policy('testing') }, 'NOTFOUND '],
  ['none', { found: policy('none') }, 'NOTFOUND '],
  ['no MTA-STS', { found: without('not-implemented') }, 'NOTFOUND '],
  ['back-off', { found: without('back-off') }, 'NOTFOUND '],
  ['first contact', { found: without('requested') }, 'NOTFOUND '],
  ['an outage, and mail is to go out', { found: without('unavailable') }, 'NOTFOUND '],
  ['nobody knows', { found: UNKNOWN }, 'TEMP example.com: the table cannot be read'],
  ['all have DANE', { dane: { kind: 'all', hosts: ['mx.example.com'] } }, 'OK dane-only'],
  ['some have DANE', { dane: { kind: 'some', hosts: ['mx.example.com'] } }, 'OK dane'],
  [
    'DANE goes before the end of a policy',
    { dane: { kind: 'all', hosts: [] }, found: without('back-off') },
    'OK dane-only',
  ],
  [
    'DANE does not wait for the policy',
    { dane: { kind: 'all', hosts: [] }, found: 'silent' },
    'OK dane-only',
  ],
  [
    'DANE does not care for a bug beside it',
    { dane: { kind: 'some', hosts: [] }, found: 'broken' },
    'OK dane',
  ],
  [
    'bogus: never secure, whatever the policy',
    { dane: { kind: 'failed', reason: 'MX of example.com: SERVFAIL' } },
    'TEMP example.com: whether it has DANE cannot be told: MX of example.com: SERVFAIL',
  ],
  [
    'bogus, and no policy',
    { dane: { kind: 'failed', reason: 'bogus' }, found: without('not-implemented') },
    /^TEMP /,
  ],
  [
    'DANE lookups without end',
    { dane: 'silent' },
    'TEMP example.com: no answer to the DANE lookups within 20 ms.',
  ],
  [
    'a policy lookup without end',
    { found: 'silent' },
    'TEMP example.com: no answer about its policy within 40 ms.',
  ],
  [
    'both without end',
    { dane: 'silent', found: 'silent' },
    /^TEMP example\.com: no answer to the DANE lookups/,
  ],
  ['DANE unclear, and a policy to lose', { dane: UNCLEAR }, STAYS],
  ['DANE unclear, and nobody knows of a policy', { dane: UNCLEAR, found: UNKNOWN }, STAYS],
  [
    'DANE unclear, and a policy lookup without end',
    { dane: UNCLEAR, found: 'silent' },
    'TEMP example.com: no answer about its policy within 40 ms.',
  ],
  ['DANE unclear, and testing', { dane: UNCLEAR, found: policy('testing') }, 'OK dane'],
  ['DANE unclear, and none', { dane: UNCLEAR, found: policy('none') }, 'OK dane'],
  ['DANE unclear, and no MTA-STS', { dane: UNCLEAR, found: without('not-implemented') }, 'OK dane'],
  ['DANE unclear, and a back-off', { dane: UNCLEAR, found: without('back-off') }, 'OK dane'],
  ['DANE unclear, on first contact', { dane: UNCLEAR, found: without('requested') }, 'OK dane'],
  ['DANE unclear, and mail is to go out', { dane: UNCLEAR, found: without('unavailable') }, 'OK dane'],
  ['a bug in DANE', { dane: 'broken' }, 'TEMP the relay failed to look this up, as its log says'],
  ['a bug in the policies', { found: 'broken' }, 'TEMP the relay failed to look this up, as its log says'],
  ['override: off', { override: { action: 'off' } }, 'NOTFOUND '],
  ['override: defer', { override: { action: 'defer' } }, 'TEMP example.com: the override map says "defer".'],
  ['override: a policy', { override: { action: 'policy', text: 'encrypt' } }, 'OK encrypt'],
];

for (const [name, given, reply] of answers) {
  test(`what Postfix is told: ${name}`, async () => {
    const { respond } = scene(given);
    const said = await respond('mta-sts example.com');
    if (typeof reply === 'string') assert.equal(said, reply);
    else assert.match(said, reply);
  });
}

test('a policy is asked for although DANE decides, so that it is there on the day when DANE goes', async () => {
  const { respond, asked } = scene({ dane: { kind: 'all', hosts: [] } });
  await respond('mta-sts example.com');
  assert.deepEqual(asked.sort(), ['dane example.com:25', 'policy example.com']);
});

const keys: [key: string, asked: string[], reply: string][] = [
  ['EXAMPLE.com.', ['policy example.com', 'dane example.com:25'], SECURE],
  ['[smtp.example.com]:587', ['policy smtp.example.com', 'dane [smtp.example.com]:587'], SECURE],
  ['.example.com', [], 'NOTFOUND '],
  ['[192.0.2.1]:25', [], 'NOTFOUND '],
  ['localhost', [], 'NOTFOUND '],
  ['', [], 'NOTFOUND '],
  ['[smtp.example.com]:mail', [], 'TEMP smtp.example.com: write the port of this next hop as a number.'],
];

for (const [key, expected, reply] of keys) {
  test(`who is asked about "${key}"`, async () => {
    const { respond, asked } = scene({});
    assert.equal(await respond(`mta-sts ${key}`), reply);
    assert.deepEqual(asked, expected);
  });
}

test('what the operator has decided is not asked of anybody', async () => {
  for (const override of [
    { action: 'off' },
    { action: 'defer' },
    { action: 'policy', text: 'may' },
  ] as const) {
    const { respond, asked, counted } = scene({ override });
    await respond('mta-sts example.com');
    assert.deepEqual(asked, []);
    assert.equal(counted('overrides', override.action), 1);
  }
});

test('those who are asked are told when it is too late', async () => {
  const aborted: string[] = [];
  const wait = (name: string, signal: AbortSignal) =>
    new Promise<never>(() => signal.addEventListener('abort', () => aborted.push(name)));
  const resolve = createResolve({
    overrides: { get: () => undefined },
    dane: undefined,
    policies: { find: (_, signal) => wait('policies', signal) },
    limits: { daneMs: 10, answerMs: 10 },
    observer: createRecorder().metrics,
  });
  assert.equal((await resolve('example.com')).kind, 'defer');
  assert.deepEqual(aborted, ['policies']);
});

test('an answer leaves no timer behind', async () => {
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
  const before = timers();
  const { resolve } = scene({});
  await resolve('example.com');
  assert.equal(timers(), before);
});

test('a bug is logged with its stack and the key, made safe', async () => {
  const { respond, told } = scene({ found: 'broken' });
  await respond('mta-sts b\u00FCcher.example.');
  assert.equal(told[0]?.level, 'error');
  assert.equal(told[0]?.details.key, 'b\u00FCcher.example.');
  assert.match(String(told[0]?.details.error), /^Error: a bug\n {4}at /);
});

const counts: [scene: Scene, payload: string, counted: string][] = [
  [{}, 'mta-sts example.com', 'mta-sts secure'],
  [{}, 'mta-sts-tlsrpt example.com', 'mta-sts-tlsrpt secure'],
  [{ dane: { kind: 'all', hosts: [] } }, 'mta-sts example.com', 'mta-sts dane-only'],
  [{ found: UNKNOWN }, 'mta-sts example.com', 'mta-sts temp'],
  [{}, 'mta-sts .com', 'mta-sts notfound'],
  [{}, 'virtual example.com', 'unknown perm'],
];

for (const [given, payload, counted] of counts) {
  test(`counted as ${counted}: ${payload}`, async () => {
    const { respond, answers: all, gauge } = scene(given);
    await respond(payload);
    assert.deepEqual(all, [counted]);
    assert.equal(gauge('lookups_running'), 0);
  });
}

test('what cannot be read is refused for good', () => {
  assert.equal(scene({}).refuse('a request ends with a comma'), 'PERM a request ends with a comma');
});

test('a domain is the same in every spelling', async () => {
  const asked: Domain[] = [];
  const resolve = createResolve({
    overrides: { get: () => undefined },
    dane: undefined,
    policies: {
      find: async (domain) => {
        asked.push(domain);
        return ENFORCE;
      },
    },
    limits: { daneMs: 1_000, answerMs: 1_000 },
    observer: createRecorder().metrics,
  });
  for (const key of ['b\u00FCcher.example', 'XN--BCHER-KVA.example.', '[b\u00FCcher.example]'])
    await resolve(key);
  const parsed = parseDomain('b\u00FCcher.example');
  assert.ok(parsed.ok);
  assert.deepEqual(asked, [parsed.domain, parsed.domain, parsed.domain]);
});
