import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { after, test } from 'node:test';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import { checkValidator, createDane, type DaneAnswer } from '../../../infra/relay/dane.ts';
import { createDns, type Dns } from '../../../infra/relay/dns.ts';
import type { Destination } from '../../../infra/relay/names.ts';
import { HANG_MS, type Scope, until } from '../../resources.ts';
import { type Entries, type Entry, startValidator } from './validator.ts';

const DOMAIN = to('a.test');
function to(domain: string, { port = 25, direct = false } = {}): Destination {
  return { domain: domain as Domain, port, direct };
}

const PATIENCE = new AbortController().signal;

/** Only for questions that are never answered: every other has all the time that a busy machine takes. */
const SILENCE_MS = 20;
/** A check that ends with its time: what is answered at all is answered in less. */
const WORK_MS = 3_000;

const validator = await startValidator({ after });

function scene(scope: Scope, entries: Entries) {
  validator.set(entries);
  const start = validator.asked.length;
  const counts: string[] = [];
  const gauges: Record<string, number> = {};
  const observer = {
    count: (name: string, labels: Readonly<Record<string, string>> = {}) =>
      void counts.push([name, ...Object.values(labels)].join(' ')),
    gauge: (name: string, value: number) => void Object.assign(gauges, { [name]: value }),
  };
  let time = 1_763_788_800_000;
  const open = (questionMs: number) => {
    const dns = createDns({
      servers: [validator.server],
      observer: { count: () => {} },
      limits: { resendMs: HANG_MS, questionMs },
    });
    scope.after(() => dns.close());
    return dns;
  };
  const [patient, impatient] = [open(HANG_MS), open(SILENCE_MS)];
  const dns: Dns = {
    ...patient,
    ask: (name, type, ...rest) =>
      (entries[`${name} ${type}`]?.silent ? impatient : patient).ask(name, type, ...rest),
  };
  return {
    dns,
    dane: createDane({ dns, observer, now: () => time, workMs: HANG_MS }),
    counts,
    gauges,
    pass: (ms: number) => {
      time += ms;
    },
    asked: () => validator.questions().slice(start),
  };
}

const SHA256 = 'ab'.repeat(32);
const SHA512 = 'cd'.repeat(64);
const USABLE: Entry = { records: [`3 1 1 ${SHA256}`] };
const UNSIGNED = { signed: false } as const;
const BOGUS: Entry = { rcode: 'SERVFAIL' };
const SILENT: Entry = { silent: true };
const ADDRESS: Entry = { records: ['192.0.2.1'] };

const mx = (...hosts: string[]): Entry => ({ records: hosts.map((host, i) => `${10 * (i + 1)} ${host}`) });
const tlsa = (...records: string[]): Entry => ({ records });
/** A host that has everything, or what is given. */
const host = (name: string, entries: { a?: Entry; tlsa?: Entry | undefined } = {}): Entries => ({
  [`${name} A`]: entries.a ?? ADDRESS,
  ...('tlsa' in entries && entries.tlsa === undefined
    ? {}
    : { [`_25._tcp.${name} TLSA`]: entries.tlsa ?? USABLE }),
});
const without = (name: string) => host(name, { tlsa: undefined });

const spki = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({
  type: 'spki',
  format: 'der',
});

const NONE = 'none';
const many = (count: number) => Array.from({ length: count }, (_, i) => `mx${i}.test`);

/** What is in DNS, what is made of it (the hosts follow the kind; a failure's reason is matched), what must not be asked. */
const matrix: [what: string, entries: Entries, expected: string | RegExp, notAsked?: RegExp][] = [
  // The MX records
  ['no such domain', {}, NONE],
  ['MX bogus', { 'a.test MX': BOGUS }, /^MX of a\.test: .*SERVFAIL/],
  ['MX silent', { 'a.test MX': SILENT }, /^MX of a\.test: no answer in time/],
  ['MX refused', { 'a.test MX': { rcode: 'REFUSED' } }, /REFUSED/],
  [
    'MX unsigned, though the host has TLSA',
    { 'a.test MX': { ...mx('mx.test'), ...UNSIGNED }, ...host('mx.test') },
    NONE,
    /mx\.test/,
  ],
  ['MX absent and unsigned', { 'a.test MX': UNSIGNED, ...host('a.test') }, NONE, / (A|TLSA)$/],
  ['MX absent: the domain is its own host', host('a.test'), 'all a.test'],
  ['null MX', { 'a.test MX': { records: ['0 .'] } }, NONE, / (A|TLSA)$/],
  [
    'null MX beside another',
    { 'a.test MX': { records: ['0 .', '10 mx.test'] }, ...host('mx.test') },
    'all mx.test',
  ],
  ['an exchange that no host can have', { 'a.test MX': mx('m*x.test') }, NONE, / (A|TLSA)$/],
  [
    'an exchange with an underscore',
    { 'a.test MX': mx('my_mx.test'), ...host('my_mx.test') },
    'all my_mx.test',
  ],
  [
    'the domain is an alias',
    { 'a.test CNAME': { records: ['b.test'] }, 'b.test MX': mx('mx.test'), ...host('mx.test') },
    'all mx.test',
  ],
  [
    'the domain is an unsigned alias',
    { 'a.test CNAME': { records: ['b.test'], ...UNSIGNED }, 'b.test MX': mx('mx.test'), ...host('mx.test') },
    NONE,
  ],
  // All, some, none
  ['one host', { 'a.test MX': mx('mx.test'), ...host('mx.test') }, 'all mx.test'],
  ['in another case', { 'a.test MX': mx('MX.Test'), ...host('mx.test') }, 'all mx.test'],
  [
    'two hosts, the order is theirs',
    { 'a.test MX': { records: ['20 m2.test', '10 m1.test'] }, ...host('m1.test'), ...host('m2.test') },
    'all m1.test m2.test',
  ],
  ['the same host twice', { 'a.test MX': mx('mx.test', 'mx.test'), ...host('mx.test') }, 'all mx.test'],
  [
    'one of two',
    { 'a.test MX': mx('m1.test', 'm2.test'), ...host('m1.test'), ...without('m2.test') },
    'some m1.test',
  ],
  [
    'neither of two',
    { 'a.test MX': mx('m1.test', 'm2.test'), ...without('m1.test'), ...without('m2.test') },
    NONE,
  ],
  [
    'a host without address does not count',
    { 'a.test MX': mx('m1.test', 'm2.test'), ...host('m1.test') },
    'all m1.test',
    /_tcp\.m2/,
  ],
  ['no host has an address', { 'a.test MX': mx('m1.test', 'm2.test') }, NONE],
  [
    'an IPv6 address alone',
    {
      'a.test MX': mx('mx.test'),
      'mx.test AAAA': { records: ['2001:db8::1'] },
      '_25._tcp.mx.test TLSA': USABLE,
    },
    'all mx.test',
  ],
  [
    '25 hosts: the 20 preferred ones are looked at',
    Object.assign({ 'a.test MX': mx(...many(25)) }, ...many(25).map((each) => host(each))),
    `all ${many(20).join(' ')}`,
    /mx20\.test/,
  ],
  // The addresses
  [
    'addresses unsigned: no TLSA lookup',
    { 'a.test MX': mx('mx.test'), ...host('mx.test', { a: { ...ADDRESS, ...UNSIGNED } }) },
    NONE,
    /TLSA/,
  ],
  [
    'addresses unsigned, and the name server breaks on TLSA',
    { 'a.test MX': mx('mx.test'), ...host('mx.test', { a: { ...ADDRESS, ...UNSIGNED }, tlsa: BOGUS }) },
    NONE,
    /TLSA/,
  ],
  [
    'addresses unsigned, one of two',
    {
      'a.test MX': mx('m1.test', 'm2.test'),
      ...host('m1.test'),
      ...host('m2.test', { a: { ...ADDRESS, ...UNSIGNED } }),
    },
    'some m1.test',
  ],
  [
    'addresses bogus',
    { 'a.test MX': mx('mx.test'), ...host('mx.test', { a: BOGUS }) },
    /^A of mx\.test: .*SERVFAIL/,
  ],
  [
    'addresses silent',
    { 'a.test MX': mx('mx.test'), ...host('mx.test', { a: SILENT }) },
    /^A of mx\.test: no answer/,
  ],
  [
    'AAAA fails, A is there',
    { 'a.test MX': mx('mx.test'), ...host('mx.test'), 'mx.test AAAA': BOGUS },
    'all mx.test',
  ],
  ['AAAA fails, there is no A', { 'a.test MX': mx('mx.test'), 'mx.test AAAA': BOGUS }, /^AAAA of mx\.test/],
  // The TLSA records
  [
    'TLSA bogus',
    { 'a.test MX': mx('mx.test'), ...host('mx.test', { tlsa: BOGUS }) },
    /^TLSA of _25\._tcp\.mx\.test: .*SERVFAIL/,
  ],
  [
    'TLSA silent',
    { 'a.test MX': mx('mx.test'), ...host('mx.test', { tlsa: SILENT }) },
    /^TLSA of .* no answer in time/,
  ],
  [
    'TLSA unsigned',
    { 'a.test MX': mx('mx.test'), ...host('mx.test', { tlsa: { ...USABLE, ...UNSIGNED } }) },
    NONE,
  ],
  [
    'one bogus, another fine: Postfix tells them apart',
    { 'a.test MX': mx('m1.test', 'm2.test'), ...host('m1.test', { tlsa: BOGUS }), ...host('m2.test') },
    'all m2.test',
  ],
  [
    'one bogus, one fine, one without',
    {
      'a.test MX': mx('m1.test', 'm2.test', 'm3.test'),
      ...host('m1.test', { tlsa: BOGUS }),
      ...host('m2.test'),
      ...without('m3.test'),
    },
    'some m2.test',
  ],
  [
    'one bogus, one without',
    { 'a.test MX': mx('m1.test', 'm2.test'), ...host('m1.test', { tlsa: BOGUS }), ...without('m2.test') },
    /^unclear: TLSA of _25\._tcp\.m1\.test/,
  ],
  [
    'one silent, one without',
    { 'a.test MX': mx('m1.test', 'm2.test'), ...without('m1.test'), ...host('m2.test', { tlsa: SILENT }) },
    /^unclear: TLSA of _25\._tcp\.m2\.test/,
  ],
  [
    'the addresses of one bogus, one without',
    { 'a.test MX': mx('m1.test', 'm2.test'), ...without('m1.test'), ...host('m2.test', { a: BOGUS }) },
    /^unclear: A of m2\.test/,
  ],
  [
    'one bogus, one without address: there is no other host',
    { 'a.test MX': mx('m1.test', 'm2.test'), ...host('m1.test', { tlsa: BOGUS }) },
    /^TLSA of _25\._tcp\.m1\.test/,
  ],
  [
    'both bogus',
    {
      'a.test MX': mx('m1.test', 'm2.test'),
      ...host('m1.test', { tlsa: BOGUS }),
      ...host('m2.test', { tlsa: BOGUS }),
    },
    /^TLSA of _25\._tcp\.m1\.test/,
  ],
  // Aliases of hosts
  [
    'an alias: TLSA at its end',
    { 'a.test MX': mx('mx.test'), 'mx.test CNAME': { records: ['real.test'] }, ...host('real.test') },
    'all mx.test',
    /_tcp\.mx\./,
  ],
  [
    'an alias: none at its end, but at the name',
    {
      'a.test MX': mx('mx.test'),
      'mx.test CNAME': { records: ['real.test'] },
      ...without('real.test'),
      '_25._tcp.mx.test TLSA': USABLE,
    },
    'all mx.test',
  ],
  [
    'an alias: bogus at its end, which the name does not mend',
    {
      'a.test MX': mx('mx.test'),
      'mx.test CNAME': { records: ['real.test'] },
      ...host('real.test', { tlsa: BOGUS }),
      '_25._tcp.mx.test TLSA': USABLE,
    },
    /real\.test/,
  ],
  [
    'a signed alias of an unsigned name: TLSA at the name',
    {
      'a.test MX': mx('mx.test'),
      'mx.test CNAME': { records: ['real.test'] },
      ...host('real.test', { a: { ...ADDRESS, ...UNSIGNED } }),
      '_25._tcp.mx.test TLSA': USABLE,
    },
    'all mx.test',
    /_tcp\.real/,
  ],
  [
    'an unsigned alias',
    {
      'a.test MX': mx('mx.test'),
      'mx.test CNAME': { records: ['real.test'], ...UNSIGNED },
      ...host('real.test'),
      '_25._tcp.mx.test TLSA': USABLE,
    },
    NONE,
    /TLSA/,
  ],
  [
    'TLSA is an alias',
    {
      'a.test MX': mx('mx.test'),
      'mx.test A': ADDRESS,
      '_25._tcp.mx.test CNAME': { records: ['tlsa.test'] },
      'tlsa.test TLSA': USABLE,
    },
    'all mx.test',
  ],
  [
    'TLSA is an unsigned alias',
    {
      'a.test MX': mx('mx.test'),
      'mx.test A': ADDRESS,
      '_25._tcp.mx.test CNAME': { records: ['tlsa.test'], ...UNSIGNED },
      'tlsa.test TLSA': USABLE,
    },
    NONE,
  ],
  [
    'a host whose TLSA name would be too long',
    {
      'a.test MX': mx(`${'a.'.repeat(120)}long.test`),
      ...host(`${'a.'.repeat(120)}long.test`, { tlsa: undefined }),
    },
    NONE,
    /TLSA/,
  ],
];

for (const [what, entries, expected, notAsked] of matrix) {
  test(`DANE: ${what}`, async (t) => {
    const { dane, asked, counts } = scene(t, entries);
    const [answer, lines] = await Promise.all([dane.check(DOMAIN, PATIENCE), dane.explain(DOMAIN, PATIENCE)]);
    const explained = lines.at(-1);
    if (expected instanceof RegExp) {
      assert.match(summary(answer), expected);
      assert.match(explained ?? '', /cannot be told$/);
    } else {
      assert.equal(summary(answer), expected);
      const [kind] = expected.split(' ');
      assert.match(
        explained ?? '',
        { none: /DANE does not decide$/, all: /: dane-only$/, some: /: dane$/ }[kind ?? ''] ?? /^$/,
      );
    }
    assert.deepEqual(counts, [`dane ${answer.kind}`]);
    if (notAsked)
      assert.deepEqual(
        asked().filter((question) => notAsked.test(question)),
        [],
      );
  });
}

function summary(answer: DaneAnswer): string {
  if (answer.kind === 'unclear') return `unclear: ${answer.reason}`;
  return answer.kind === 'failed'
    ? answer.reason
    : [answer.kind, ...('hosts' in answer ? answer.hosts : [])].join(' ');
}

const usability: [record: string, usable: boolean][] = [
  [`3 1 1 ${SHA256}`, true],
  [`3 0 1 ${SHA256}`, true],
  [`2 1 1 ${SHA256}`, true],
  [`2 0 2 ${SHA512}`, true],
  [`3 1 2 ${SHA512}`, true],
  [`3 1 0 ${spki.toString('hex')}`, true],
  // RFC 7672 §3.1.3
  [`0 0 1 ${SHA256}`, false],
  [`1 1 1 ${SHA256}`, false],
  [`4 1 1 ${SHA256}`, false],
  [`255 1 1 ${SHA256}`, false],
  [`3 2 1 ${SHA256}`, false],
  [`3 1 3 ${SHA256}`, false],
  [`3 1 1 ${SHA512}`, false],
  [`3 1 2 ${SHA256}`, false],
  [`3 1 1 ${SHA256.slice(2)}`, false],
  ['3 1 1 ', false],
  ['3 1 0 00', false],
  ['3 0 0 00', false],
  [`3 0 0 ${spki.toString('hex')}`, false],
  [`3 1 0 ${createHash('sha256').update(spki).digest('hex')}`, false],
];

for (const [record, usable] of usability) {
  test(`TLSA ${record.slice(0, 20)} (${record.length}) is ${usable ? 'usable' : 'unusable'}`, async (t) => {
    const { dane } = scene(t, { 'a.test MX': mx('mx.test'), ...host('mx.test', { tlsa: tlsa(record) }) });
    assert.equal((await dane.check(DOMAIN, PATIENCE)).kind, usable ? 'all' : 'none');
  });
}

test('one usable record is enough', async (t) => {
  const records = [`1 1 1 ${SHA256}`, `3 1 1 ${SHA256}`];
  const { dane } = scene(t, { 'a.test MX': mx('mx.test'), ...host('mx.test', { tlsa: tlsa(...records) }) });
  assert.equal((await dane.check(DOMAIN, PATIENCE)).kind, 'all');
});

/** How long an answer is remembered: seconds, and the least time to live in the table. */
const times: [what: string, entries: Entries, seconds: number][] = [
  [
    'five minutes at most',
    {
      'a.test MX': { ...mx('mx.test'), ttl: 9_000 },
      ...host('mx.test', { a: { ...ADDRESS, ttl: 9_000 }, tlsa: { ...USABLE, ttl: 9_000 } }),
      'mx.test AAAA': { ttl: 9_000 },
    },
    300,
  ],
  [
    'the TLSA records',
    { 'a.test MX': mx('mx.test'), ...host('mx.test', { tlsa: { ...USABLE, ttl: 40 } }) },
    40,
  ],
  ['the MX records', { 'a.test MX': { ...mx('mx.test'), ttl: 30 }, ...host('mx.test') }, 30],
  ['the addresses', { 'a.test MX': mx('mx.test'), ...host('mx.test', { a: { ...ADDRESS, ttl: 20 } }) }, 20],
  ['a denial', { 'a.test MX': mx('mx.test'), ...host('mx.test', { tlsa: { ttl: 10 } }) }, 10],
  ['nothing, if it says so', { 'a.test MX': { ...mx('mx.test'), ttl: 0 }, ...host('mx.test') }, 0],
  [
    'ten seconds with a failure in it',
    { 'a.test MX': mx('m1.test', 'm2.test'), ...host('m1.test', { tlsa: BOGUS }), ...host('m2.test') },
    10,
  ],
  ['ten seconds a failure', { 'a.test MX': BOGUS }, 10],
];

for (const [what, entries, seconds] of times) {
  test(`remembered: ${what}: ${seconds} s`, async (t) => {
    const { dane, asked, pass, gauges } = scene(t, entries);
    const first = await dane.check(DOMAIN, PATIENCE);
    const once = asked().length;
    assert.equal(gauges.dane_cached, seconds > 0 ? 1 : 0);
    if (seconds > 0) {
      pass(seconds * 1_000 - 1);
      assert.deepEqual(await dane.check(DOMAIN, PATIENCE), first);
      assert.equal(asked().length, once);
      pass(1);
    }
    assert.deepEqual(await dane.check(DOMAIN, PATIENCE), first);
    assert.ok(asked().length > once);
  });
}

test('a clock that is set back does not make an answer last', async (t) => {
  const { dane, asked, pass } = scene(t, { 'a.test MX': mx('mx.test'), ...host('mx.test') });
  await dane.check(DOMAIN, PATIENCE);
  const once = asked().length;
  pass(-3_600_000);
  await dane.check(DOMAIN, PATIENCE);
  assert.ok(asked().length > once);
});

test('many callers at once are one look, and one who gives up leaves the answer to the next', async (t) => {
  const told = Promise.withResolvers<void>();
  const { dane, asked } = scene(t, {
    'a.test MX': { ...mx('mx.test'), after: told.promise },
    ...host('mx.test'),
  });
  const impatient = new AbortController();
  const gone = dane.check(DOMAIN, impatient.signal);
  const others = Array.from({ length: 20 }, () => dane.check(DOMAIN, PATIENCE));
  impatient.abort();
  assert.match(summary(await gone), /out of time/);
  told.resolve();
  for (const answer of await Promise.all(others)) assert.equal(answer.kind, 'all');
  assert.equal((await dane.check(DOMAIN, PATIENCE)).kind, 'all');
  assert.deepEqual(
    asked().filter((question) => question.endsWith(' MX')),
    ['a.test MX'],
  );
});

/** Smart hosts, from Postfix's transport map or relayhost. */
const destinations: [
  what: string,
  destination: Destination,
  entries: Entries,
  expected: string,
  notAsked?: RegExp,
][] = [
  [
    'in brackets: no MX lookup',
    to('mx.test', { direct: true }),
    { 'mx.test MX': mx('other.test'), ...host('mx.test') },
    'all mx.test',
    /MX|other/,
  ],
  [
    'in brackets, with a port',
    to('mx.test', { direct: true, port: 587 }),
    { 'mx.test A': ADDRESS, '_587._tcp.mx.test TLSA': USABLE },
    'all mx.test',
    /_25/,
  ],
  [
    'in brackets, unsigned',
    to('mx.test', { direct: true }),
    host('mx.test', { a: { ...ADDRESS, ...UNSIGNED } }),
    NONE,
  ],
  ['in brackets, no such host', to('mx.test', { direct: true }), {}, NONE],
  [
    'a port of the MX hosts',
    to('a.test', { port: 2525 }),
    { 'a.test MX': mx('mx.test'), ...without('mx.test'), '_2525._tcp.mx.test TLSA': USABLE },
    'all mx.test',
    /_25\./,
  ],
];

for (const [what, destination, entries, expected, notAsked] of destinations) {
  test(`DANE of a next hop: ${what}`, async (t) => {
    const { dane, asked } = scene(t, entries);
    assert.equal(summary(await dane.check(destination, PATIENCE)), expected);
    if (notAsked)
      assert.deepEqual(
        asked().filter((question) => notAsked.test(question)),
        [],
      );
  });
}

test('the same name is remembered apart as a domain, as a host, and with another port', async (t) => {
  const { dane, gauges } = scene(t, {
    'a.test MX': mx('mx.test'),
    ...host('mx.test'),
    ...without('a.test'),
    '_587._tcp.a.test TLSA': USABLE,
  });
  const answers = [
    to('a.test'),
    to('a.test', { direct: true }),
    to('a.test', { direct: true, port: 587 }),
  ].map((destination) => dane.check(destination, PATIENCE));
  assert.deepEqual((await Promise.all(answers)).map(summary), ['all mx.test', 'none', 'all a.test']);
  assert.equal(gauges.dane_cached, 3);
});

test('text from strangers is made safe', async (t) => {
  const { dane } = scene(t, {
    'a.test MX': mx('mx.test'),
    ...host('mx.test', { tlsa: tlsa('3 1 1 ', '7 7 7 00') }),
  });
  for (const line of await dane.explain(DOMAIN, PATIENCE)) assert.match(line, /^[\x20-\x7e]*$/);
});

test('what there is to say about a domain', async (t) => {
  const { dane } = scene(t, {
    'a.test MX': mx('m1.test', 'm2.test', 'm3.test'),
    ...host('m1.test', { tlsa: tlsa(`1 1 1 ${SHA256}`, `3 1 1 ${SHA256}`) }),
    ...host('m2.test', { a: { ...ADDRESS, signed: false } }),
  });
  assert.deepEqual(await dane.explain(DOMAIN, PATIENCE), [
    'the MX records of a.test are signed: m1.test, m2.test, m3.test',
    'm1.test: its addresses are signed',
    'm1.test: signed TLSA records at _25._tcp.m1.test: 1 1 1, 3 1 1; 1 usable',
    'm2.test: its addresses are not signed, so no TLSA lookup',
    'm3.test: it has no address, and is left out',
    'some hosts have usable signed TLSA records: dane',
  ]);
});

const resolvers: [what: string, entries: Entries, probe: string | undefined, expected: RegExp | undefined][] =
  [
    ['a validator', { '. SOA': { records: ['.'] } }, undefined, undefined],
    ['a validator of a zone of our own', { 'a.test SOA': { records: ['.'] } }, 'a.test', undefined],
    [
      'one that does not validate',
      { '. SOA': { records: ['.'], signed: false } },
      undefined,
      /does not validate/,
    ],
    ['one that fails', { '. SOA': BOGUS }, undefined, /No answer .*SERVFAIL/],
    ['one that is silent', { '. SOA': SILENT }, undefined, /No answer .*in time/],
    ['one that knows no root', {}, undefined, /no SOA record/],
  ];

for (const [what, entries, probe, expected] of resolvers) {
  test(`at the start: ${what}`, async (t) => {
    const { dns } = scene(t, entries);
    const result = await checkValidator(dns, probe);
    if (expected) assert.match(result.ok ? 'ok' : result.reason, expected);
    else assert.deepEqual(result, { ok: true });
  });
}

const silentHosts = (domain: string): Entries => {
  const hosts = Array.from({ length: 20 }, (_, i) => `m${i}.${domain}`);
  return Object.assign(
    { [`${domain} MX`]: mx(...hosts) },
    ...hosts.map((each) => ({ [`${each} A`]: SILENT, [`${each} AAAA`]: SILENT })),
  );
};

/** Domains with 20 MX hosts each, about all of which name servers are silent. */
const crowds: [who: string, domains: string[], pending: number][] = [
  ['one domain', ['h.test'], 6],
  ['seven names of one zone', Array.from({ length: 7 }, (_, i) => `h${i}.wild.test`), 8],
  ['a hundred names of one zone', Array.from({ length: 100 }, (_, i) => `h${i}.wild.test`), 8],
  ['ten strangers', Array.from({ length: 10 }, (_, i) => `h${i}.test`), 60],
  ['a hundred strangers', Array.from({ length: 100 }, (_, i) => `h${i}.test`), 129],
];

for (const [who, domains, pending] of crowds) {
  test(`other domains are looked at while nobody answers for ${who}`, async (t) => {
    const ordinary = Array.from({ length: 60 }, (_, i) => `o${i}.example`);
    validator.set(
      Object.assign(
        {},
        ...domains.map(silentHosts),
        ...ordinary.map((name) => ({ [`${name} MX`]: mx(`mx.${name}`), ...host(`mx.${name}`) })),
      ),
    );
    const limits = { resendMs: HANG_MS, questionMs: HANG_MS };
    const dns = createDns({ servers: [validator.server], observer: { count: () => {} }, limits });
    t.after(() => dns.close());
    const observer = { count: () => {}, gauge: () => {} };
    const dane = createDane({ dns, observer, now: () => 0, workMs: HANG_MS });
    const start = validator.asked.length;
    const held = domains.map((domain) => dane.check(to(domain), PATIENCE));
    const unanswered = () =>
      validator
        .questions()
        .slice(start)
        .filter((question) => /^m\d+\.\S+ A/.test(question)).length;
    await until(() => unanswered() >= pending, `${pending} questions are on their way`);

    const began = performance.now();
    const answers = await Promise.all(ordinary.map((name) => dane.check(to(name), PATIENCE)));
    t.diagnostic(`60 domains in ${Math.round(performance.now() - began)} ms`);
    for (const answer of answers) assert.equal(answer.kind, 'all');
    assert.ok(unanswered() >= pending, 'nobody was turned away for it');
    dns.close();
    for (const answer of await Promise.all(held)) assert.equal(answer.kind, 'failed');
  });
}

test('hosts are looked at in the order of their preference, a few at a time', async (t) => {
  const answered = Promise.withResolvers<void>();
  const names = many(20);
  const slow: Entry = { ...ADDRESS, after: answered.promise };
  const { dane, asked } = scene(
    t,
    Object.assign({ 'a.test MX': mx(...names) }, ...names.map((name) => host(name, { a: slow }))),
  );
  const check = dane.check(DOMAIN, PATIENCE);
  const addresses = () => asked().filter((question) => / A$/.test(question));
  await until(() => addresses().length === 4, 'the first hosts are asked about');
  assert.deepEqual(addresses().sort(), ['mx0.test A', 'mx1.test A', 'mx2.test A', 'mx3.test A']);
  answered.resolve();
  assert.equal((await check).kind, 'all');
  assert.equal(addresses().length, names.length);
});

test('when the time is over, what is known decides', async (t) => {
  validator.set({
    'a.test MX': mx('m1.test', 'm2.test'),
    ...host('m1.test', { a: SILENT }),
    ...host('m2.test'),
  });
  const limits = { resendMs: HANG_MS, questionMs: HANG_MS };
  const dns = createDns({ servers: [validator.server], observer: { count: () => {} }, limits });
  t.after(() => dns.close());
  const observer = { count: () => {}, gauge: () => {} };
  const dane = createDane({ dns, observer, now: () => 0, workMs: WORK_MS });
  assert.equal(summary(await dane.check(DOMAIN, PATIENCE)), 'all m2.test');
});
