import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type Answer, AUTHENTIC_DATA, encode, type Packet } from 'dns-packet';
import fc from 'fast-check';
import {
  createDns,
  type DnsAnswer,
  type DnsLimits,
  type DnsServer,
  isOnLoopback,
  parseServer,
  type QuestionType,
} from '../../../infra/relay/dns.ts';
import { bindUdp, HANG_MS, type Scope, until } from '../../resources.ts';
import { type Entries, type Entry, startValidator, truncated } from './validator.ts';

/** Long enough for a busy machine; a test that waits for it has failed. */
const PATIENCE = new AbortController().signal;
const SILENT: Entry = { silent: true };

const validator = await startValidator({ after });

/** Closed with the scope. */
function client(
  scope: Scope,
  limits: Partial<DnsLimits> = {},
  servers: readonly DnsServer[] = [validator.server],
) {
  const counts: string[] = [];
  const observer = {
    count: (name: string, labels: Readonly<Record<string, string>> = {}) =>
      void counts.push([name, ...Object.values(labels)].join(' ')),
  };
  // A second try would hide what the first one did.
  const dns = createDns({ servers, observer, limits: { resendMs: HANG_MS, questionMs: HANG_MS, ...limits } });
  scope.after(() => dns.close());
  return Object.assign(dns, { counts });
}

function ask(scope: Scope, entries: Entries, name: string, type: QuestionType): Promise<DnsAnswer> {
  validator.set(entries);
  return client(scope).ask(name, type, PATIENCE);
}

const SHA256 = 'ab'.repeat(32);

const answers: [what: string, entries: Entries, question: [string, QuestionType], expected: object][] = [
  [
    'TXT, strings joined',
    { '_mta-sts.a.test TXT': { records: ['v=STSv1; |id=1;', 'other'] } },
    ['_mta-sts.a.test', 'TXT'],
    {
      status: 'found',
      authentic: true,
      ttlSeconds: 300,
      records: [
        { type: 'TXT', text: 'v=STSv1; id=1;' },
        { type: 'TXT', text: 'other' },
      ],
    },
  ],
  [
    'MX in any case and with a trailing dot in the question',
    { 'a.test MX': { records: ['10 MX1.A.test', '0 .'], ttl: 60, signed: false } },
    ['A.Test.', 'MX'],
    {
      status: 'found',
      authentic: false,
      ttlSeconds: 60,
      records: [
        { type: 'MX', preference: 10, exchange: 'mx1.a.test' },
        { type: 'MX', preference: 0, exchange: '.' },
      ],
    },
  ],
  [
    'TLSA',
    { '_25._tcp.a.test TLSA': { records: [`3 1 1 ${SHA256}`] } },
    ['_25._tcp.a.test', 'TLSA'],
    {
      status: 'found',
      authentic: true,
      ttlSeconds: 300,
      records: [{ type: 'TLSA', usage: 3, selector: 1, matchingType: 1, data: Buffer.from(SHA256, 'hex') }],
    },
  ],
  [
    'A and AAAA',
    { 'a.test AAAA': { records: ['2001:db8::1'] } },
    ['a.test', 'AAAA'],
    {
      status: 'found',
      authentic: true,
      ttlSeconds: 300,
      records: [{ type: 'AAAA', address: '2001:db8::1' }],
    },
  ],
  [
    'the SOA of the root',
    { '. SOA': { records: ['.'] } },
    ['.', 'SOA'],
    { status: 'found', authentic: true, ttlSeconds: 600, records: [{ type: 'SOA' }] },
  ],
  [
    'CNAMEs, with the least time to live and all of their signatures',
    {
      'a.test CNAME': { records: ['b.test'], ttl: 40 },
      'b.test CNAME': { records: ['c.test'], ttl: 90, signed: false },
      'c.test A': { records: ['192.0.2.1'] },
    },
    ['a.test', 'A'],
    {
      status: 'found',
      authentic: false,
      ttlSeconds: 40,
      records: [{ type: 'A', address: '192.0.2.1' }],
      alias: 'c.test',
    },
  ],
  [
    'a CNAME itself is not followed',
    { 'a.test CNAME': { records: ['B.test'] } },
    ['a.test', 'CNAME'],
    { status: 'found', authentic: true, ttlSeconds: 300, records: [{ type: 'CNAME', target: 'b.test' }] },
  ],
  ['no such name', {}, ['a.test', 'A'], { status: 'absent', authentic: true, ttlSeconds: 300 }],
  [
    'no such record, unsigned',
    { 'a.test MX': { ttl: 20, signed: false } },
    ['a.test', 'MX'],
    { status: 'absent', authentic: false, ttlSeconds: 20 },
  ],
  [
    'a CNAME of nothing, for no longer than the CNAME',
    { 'a.test CNAME': { records: ['b.test'], ttl: 7 } },
    ['a.test', 'A'],
    { status: 'absent', authentic: true, ttlSeconds: 7 },
  ],
  [
    'a denial without SOA is not to be remembered',
    { 'a.test A': { reply: (packet) => [{ ...packet, authorities: [] }] } },
    ['a.test', 'A'],
    { status: 'absent', authentic: true, ttlSeconds: 0 },
  ],
  [
    'a time to live with the highest bit set is 0',
    { 'a.test A': { records: ['192.0.2.1'], ttl: 0x80000001 } },
    ['a.test', 'A'],
    { status: 'found', authentic: true, ttlSeconds: 0, records: [{ type: 'A', address: '192.0.2.1' }] },
  ],
  [
    'records of another name, type or class are not the answer',
    {
      'a.test A': {
        reply: (packet) => [
          {
            ...packet,
            answers: [
              { name: 'b.test', type: 'A', ttl: 9, data: '192.0.2.1' },
              { name: 'a.test', type: 'AAAA', ttl: 9, data: '2001:db8::1' },
              { name: 'a.test', type: 'A', class: 'CH', ttl: 9, data: '192.0.2.1' },
            ],
            authorities: [],
          },
        ],
      },
    },
    ['a.test', 'A'],
    { status: 'absent', authentic: true, ttlSeconds: 0 },
  ],
];

for (const [what, entries, [name, type], expected] of answers) {
  test(`answer: ${what}`, async (t) => {
    assert.deepEqual(await ask(t, entries, name, type), expected);
  });
}

const withFlags =
  (set: number, clear = 0) =>
  (packet: Packet) => [{ ...packet, flags: ((packet.flags ?? 0) | set) & ~clear }];
const RECURSION_AVAILABLE = 0x0080;

/** The bytes of a reply, changed. */
const bytes = (change: (bytes: Buffer) => Buffer) => (packet: Packet) => [change(encode(packet))];

/** A reply to `a.test A` whose answer section is these bytes. */
const answering = (...section: number[]) =>
  bytes((reply) => {
    // Header and question, then nothing but the section.
    const start = Buffer.from(reply.subarray(0, 12 + 8 + 4));
    start.writeUInt16BE(1, 6);
    start.writeUInt32BE(0, 8);
    return Buffer.concat([start, Buffer.from(section)]);
  });
const A_RECORD = [0, 1, 0, 1, 0, 0, 0, 60];

const badvers: Answer = {
  name: '.',
  type: 'OPT',
  udpPayloadSize: 1232,
  extendedRcode: 1,
  ednsVersion: 0,
  flags: 0,
  flag_do: false,
  options: [],
};

const hostile: [what: string, reply: Required<Entry>['reply'], reason: RegExp][] = [
  ['a pointer to itself', answering(0xc0, 24, ...A_RECORD, 0, 4, 192, 0, 2, 1), /garbled/],
  ['a pointer forward', answering(0xc0, 40, ...A_RECORD, 0, 4, 192, 0, 2, 1), /garbled/],
  ['a pointer into the header', answering(0xc0, 2, ...A_RECORD, 0, 4, 192, 0, 2, 1), /garbled/],
  [
    'a name that goes on for ever',
    answering(
      ...Array(40)
        .fill([7, ...'abcdefg'].map(Number))
        .flat(),
    ),
    /garbled/,
  ],
  ['a label of a type that is no more', answering(0x41, 0, ...A_RECORD, 0, 4, 192, 0, 2, 1), /garbled/],
  ['a record that ends early', answering(0xc0, 12, ...A_RECORD, 0, 4, 192, 0), /garbled/],
  ['an address of three bytes', answering(0xc0, 12, ...A_RECORD, 0, 3, 192, 0, 2), /garbled/],
  ['a record without data', answering(0xc0, 12, ...A_RECORD, 0, 0), /garbled/],
  ['more records than there are', bytes((reply) => reply.fill(0xff, 6, 8)), /garbled/],
  ['bytes left over', bytes((reply) => Buffer.concat([reply, Buffer.alloc(1)])), /garbled/],
  ['a reply that is cut', bytes((reply) => reply.subarray(0, -3)), /garbled/],
  ['a header alone', bytes((reply) => reply.subarray(0, 12)), /garbled/],
  [
    'two CNAMEs',
    (packet) => [{ ...packet, answers: [cname('a.test', 'b.test'), cname('a.test', 'c.test')] }],
    /two CNAMEs/,
  ],
  [
    'a CNAME loop',
    (packet) => [{ ...packet, answers: [cname('a.test', 'b.test'), cname('b.test', 'A.test')] }],
    /loop/,
  ],
  ['17 CNAMEs', (packet) => [{ ...packet, answers: chain(17) }], /too many/],
  [
    'BADVERS, which is success but for the OPT record',
    (packet) => [{ ...packet, additionals: [badvers] }],
    /BADVERS/,
  ],
  ['a server without recursion', withFlags(0, RECURSION_AVAILABLE), /no recursion/],
  ['an error that nobody knows', withFlags(11), /says 11/],
];

function cname(name: string, data: string): Answer {
  return { name, type: 'CNAME', ttl: 60, data };
}

function chain(length: number): Answer[] {
  return Array.from({ length }, (_, i) => cname(i === 0 ? 'a.test' : `n${i}.test`, `n${i + 1}.test`));
}

for (const [what, reply, reason] of hostile) {
  test(`hostile: ${what}`, async (t) => {
    const answer = await ask(t, { 'a.test A': { records: ['192.0.2.1'], reply } }, 'a.test', 'A');
    assert.equal(answer.status, 'failed');
    assert.match(answer.status === 'failed' ? answer.reason : '', reason);
  });
}

test('a chain of 16 CNAMEs is followed to its end', async (t) => {
  const entries = Object.fromEntries(
    chain(16).map((each) => [`${each.name} CNAME`, { records: [each.type === 'CNAME' ? each.data : ''] }]),
  );
  const answer = await ask(t, { ...entries, 'n16.test A': { records: ['192.0.2.1'] } }, 'a.test', 'A');
  assert.equal(answer.status === 'found' && answer.alias, 'n16.test');
});

/** Before the true answer over UDP. None of them may count. */
const strays: [what: string, stray: (packet: Packet) => Packet | Buffer][] = [
  ['another id', (packet) => ({ ...packet, id: (packet.id ?? 0) ^ 1 })],
  ['another name', (packet) => ({ ...packet, questions: [{ name: 'b.test', type: 'A' }] })],
  ['another type', (packet) => ({ ...packet, questions: [{ name: 'a.test', type: 'AAAA' }] })],
  ['another class', (packet) => ({ ...packet, questions: [{ name: 'a.test', type: 'A', class: 'CH' }] })],
  ['no question', (packet) => ({ ...packet, questions: [] })],
  [
    'two questions',
    ({ questions = [], ...packet }) => ({ ...packet, questions: [...questions, ...questions] }),
  ],
  ['no response', (packet) => encode(packet).fill(0, 2, 4)],
  ['nothing', () => Buffer.alloc(0)],
  ['two bytes, the id', (packet) => encode(packet).subarray(0, 2)],
  ['more than was said to be accepted', (packet) => Buffer.concat([encode(packet), Buffer.alloc(1_232)])],
];

for (const [what, stray] of strays) {
  test(`stray: ${what} is passed over`, async (t) => {
    const reply: Entry['reply'] = (packet) => {
      const forged = {
        ...packet,
        answers: [{ name: 'a.test', type: 'A', ttl: 1, data: '203.0.113.66' } as const],
      };
      return [stray(forged), packet];
    };
    validator.set({ 'a.test A': { records: ['192.0.2.1'], reply } });
    const dns = client(t);
    const answer = await dns.ask('a.test', 'A', PATIENCE);
    assert.deepEqual(answer.status === 'found' && answer.records, [{ type: 'A', address: '192.0.2.1' }]);
    assert.deepEqual(dns.counts, ['dns_retries mismatch', 'dns_questions A found']);
  });
}

const overTcp: [what: string, tcp: Required<Entry>['reply'], expected: RegExp][] = [
  ['the answer', (packet) => [packet], /^found$/],
  ['truncation again', (packet) => [truncated(packet)], /truncated, even over TCP/],
  ['another id', (packet) => [{ ...packet, id: (packet.id ?? 0) ^ 1 }], /another question/],
  ['garbage', () => [Buffer.alloc(40)], /another question/],
  ['nothing, in a message of its own', () => [Buffer.alloc(0)], /another question/],
];

for (const [what, tcp, expected] of overTcp) {
  test(`truncated, then over TCP: ${what}`, async (t) => {
    const reply: Entry['reply'] = (packet, query, transport) =>
      transport === 'tcp' ? tcp(packet, query, transport) : [truncated(packet)];
    const answer = await ask(t, { 'a.test A': { records: ['192.0.2.1'], reply } }, 'a.test', 'A');
    assert.match(answer.status === 'failed' ? answer.reason : answer.status, expected);
  });
}

test('an answer of 200 records comes over TCP', async (t) => {
  const records = Array.from({ length: 200 }, (_, i) => `192.0.2.${i}`);
  const reply: Entry['reply'] = (packet, _, transport) => [transport === 'udp' ? truncated(packet) : packet];
  const answer = await ask(t, { 'a.test A': { records, reply } }, 'a.test', 'A');
  assert.equal(answer.status === 'found' && answer.records.length, 200);
});

const tcpFaults: [fault: Required<Entry>['tcp'], expected: RegExp][] = [
  ['byte by byte', /^found$/],
  ['half', /hung up before its answer was whole/],
  ['hang-up', /hung up before its answer was whole/],
];

for (const [fault, expected] of tcpFaults) {
  test(`over TCP the answer comes like this: ${fault}`, async (t) => {
    const reply: Entry['reply'] = (packet, _, transport) => [
      transport === 'udp' ? truncated(packet) : packet,
    ];
    const answer = await ask(t, { 'a.test A': { records: ['192.0.2.1'], reply, tcp: fault } }, 'a.test', 'A');
    assert.match(answer.status === 'failed' ? answer.reason : answer.status, expected);
  });
}

test('a port where nobody is', async (t) => {
  const socket = await bindUdp(t);
  const { address, port } = socket.address();
  socket.close();
  const answer = await client(t, {}, [{ address, port }]).ask('a.test', 'A', PATIENCE);
  assert.match(answer.status === 'failed' ? answer.reason : '', /nobody answers there/);
});

test('no message, whatever it is made of, is more than a failure', async (t) => {
  const packet = (id: number): Buffer =>
    encode({
      type: 'response',
      id,
      flags: RECURSION_AVAILABLE | AUTHENTIC_DATA,
      questions: [{ name: 'a.test', type: 'TLSA' }],
      answers: [
        cname('a.test', 'b.test'),
        {
          name: 'b.test',
          type: 'TLSA',
          ttl: 60,
          data: { usage: 3, selector: 1, matchingType: 1, certificate: Buffer.from(SHA256, 'hex') },
        },
      ],
    });
  const length = packet(0).length;
  const changes = fc.array(fc.tuple(fc.nat(length - 3), fc.nat(255)), { minLength: 1, maxLength: 6 });
  const dns = client(t);
  await fc.assert(
    fc.asyncProperty(changes, async (edits) => {
      const reply: Entry['reply'] = (_, query) => {
        const changed = packet(query.id ?? 0);
        for (const [at, byte] of edits) changed[at + 2] = byte;
        // The second one ends the wait, if the first was no answer at all.
        return [changed, packet(query.id ?? 0)];
      };
      validator.set({ 'a.test TLSA': { reply } });
      const answer = await dns.ask('a.test', 'TLSA', PATIENCE);
      assert.ok(['found', 'absent', 'failed'].includes(answer.status));
    }),
    { numRuns: 300 },
  );
});

test('a question asks for validation, takes 1232 bytes, and has an id and a port of its own', async (t) => {
  validator.set({});
  const before = validator.asked.length;
  const dns = client(t);
  await Promise.all(Array.from({ length: 64 }, (_, i) => dns.ask(`n${i}.test`, 'A', PATIENCE)));
  const asked = validator.asked.slice(before);
  assert.equal(asked.length, 64);
  for (const { query } of asked) {
    assert.ok(query.flag_rd && query.flag_ad && !query.flag_cd);
    const [opt] = query.additionals ?? [];
    assert.deepEqual(opt?.type === 'OPT' && [opt.udpPayloadSize, opt.flag_do], [1232, true]);
  }
  assert.equal(new Set(asked.map(({ port }) => port)).size, 64);
  assert.ok(new Set(asked.map(({ query }) => query.id)).size > 56, 'ids are random');
});

const names: [name: string, possible: boolean][] = [
  ['_25._tcp.a.test', true],
  ['a'.repeat(63), true],
  ['a'.repeat(64), false],
  [`${'a.'.repeat(127)}a`, false],
  ['a..test', false],
  ['', false],
  ['a b.test', false],
  ['a\\.b.test', false],
  ['ä.test', false],
  ['a\u0000.test', false],
];

for (const [name, possible] of names) {
  test(`${JSON.stringify(name.slice(0, 20))} ${possible ? 'can' : 'cannot'} be asked for`, async (t) => {
    const answer = await ask(t, {}, name, 'A');
    assert.equal(answer.status, possible ? 'absent' : 'failed');
  });
}

for (const rcode of ['SERVFAIL', 'REFUSED', 'FORMERR', 'NOTIMP'] as const) {
  test(`${rcode} is a failure of the first server, and the second is asked`, async (t) => {
    const other = await startValidator(t, { 'a.test A': { records: ['192.0.2.2'] } });
    validator.set({ 'a.test A': { rcode } });
    const dns = client(t, {}, [validator.server, other.server]);
    const answer = await dns.ask('a.test', 'A', PATIENCE);
    assert.equal(answer.status, 'found');
    assert.deepEqual(dns.counts, ['dns_retries error', 'dns_questions A found']);

    other.set({ 'a.test A': { rcode } });
    const failure = await dns.ask('a.test', 'A', PATIENCE);
    assert.match(failure.status === 'failed' ? failure.reason : '', new RegExp(`^A of a\\.test: .*${rcode}`));
  });
}

test('one server is asked twice, and no more', async (t) => {
  const before = validator.asked.length;
  const answer = await ask(t, { 'a.test A': { rcode: 'SERVFAIL' } }, 'a.test', 'A');
  assert.equal(answer.status, 'failed');
  assert.equal(validator.asked.length - before, 2);
});

test('a silent server: the next is asked, and the first one may still answer', async (t) => {
  const answered = Promise.withResolvers<void>();
  const other = await startValidator(t, { 'a.test A': SILENT });
  validator.set({ 'a.test A': { records: ['192.0.2.1'], after: answered.promise } });
  const dns = client(t, { resendMs: 20 }, [validator.server, other.server]);
  const answer = dns.ask('a.test', 'A', PATIENCE);
  await until(() => other.asked.length > 0, 'the other server is asked');
  answered.resolve();
  assert.equal((await answer).status, 'found');
  assert.deepEqual(dns.counts, ['dns_retries timeout', 'dns_questions A found']);
});

test('silence ends: by the time for a question, by the caller, by close', async (t) => {
  validator.set({ 'a.test A': SILENT });
  const brief = client(t, { questionMs: 50, resendMs: 10 });
  const failure = await brief.ask('a.test', 'A', PATIENCE);
  assert.match(failure.status === 'failed' ? failure.reason : '', /^A of a\.test: no answer in time/);

  const dns = client(t);
  const caller = new AbortController();
  const abandoned = dns.ask('a.test', 'A', caller.signal);
  caller.abort();
  assert.equal((await abandoned).status, 'failed');
  assert.equal((await dns.ask('a.test', 'A', caller.signal)).status, 'failed');

  const cut = dns.ask('a.test', 'A', PATIENCE);
  dns.close();
  assert.equal((await cut).status, 'failed');
  const late = await dns.ask('a.test', 'A', PATIENCE);
  assert.match(late.status === 'failed' ? late.reason : '', /closed/);
});

test('only so many questions are on their way at once, and only so many wait', async (t) => {
  const answered = Promise.withResolvers<void>();
  const entry: Entry = { records: ['192.0.2.1'], after: answered.promise };
  validator.set({ 'a.test A': entry, 'b.test A': entry, 'c.test A': entry, 'd.test A': entry });
  const before = validator.asked.length;
  const dns = client(t, { questions: 2, waiting: 2 });
  const impatient = new AbortController();
  const [first, second] = [dns.ask('a.test', 'A', PATIENCE), dns.ask('b.test', 'A', PATIENCE)];
  const third = dns.ask('c.test', 'A', PATIENCE);
  const fourth = dns.ask('d.test', 'A', impatient.signal);
  const fifth = await dns.ask('e.test', 'A', PATIENCE);
  assert.match(fifth.status === 'failed' ? fifth.reason : '', /too many/);
  impatient.abort();
  const gone = await fourth;
  assert.match(gone.status === 'failed' ? gone.reason : '', /before it was asked/);
  await until(() => validator.asked.length >= before + 2, 'two questions have arrived');
  answered.resolve();
  for (const each of await Promise.all([first, second, third])) assert.equal(each.status, 'found');
  assert.deepEqual(validator.questions().slice(before), ['a.test A', 'b.test A', 'c.test A']);
  // Nobody holds a place any more, the one who gave up neither.
  validator.set({ 'a.test A': SILENT, 'b.test A': { records: ['192.0.2.1'] } });
  const silent = dns.ask('a.test', 'A', PATIENCE);
  assert.equal((await dns.ask('b.test', 'A', PATIENCE)).status, 'found');
  dns.close();
  assert.equal((await silent).status, 'failed');
});

/** How many sockets and timers this process has. */
async function countHandles(kinds: readonly string[] = ['UDPWrap', 'TCPSocketWrap', 'Timeout']) {
  // In a turn of its own, or the timer of whoever polls would count.
  await new Promise((resolve) => setImmediate(resolve));
  return process.getActiveResourcesInfo().filter((kind) => kinds.includes(kind)).length;
}

/** The number of handles, when the connections of earlier tests have ended. */
async function settledHandles(): Promise<number> {
  await until(async () => (await countHandles(['TCPSocketWrap'])) === 0, 'no connection of another test');
  return countHandles();
}

test('after the last answer nothing is left', async (t) => {
  const own = await startValidator(t, { 'a.test A': SILENT, 'b.test A': { records: ['192.0.2.1'] } });
  const before = await settledHandles();
  const dns = client(t, { resendMs: 5 }, [own.server]);
  const silent = dns.ask('a.test', 'A', PATIENCE);
  assert.equal((await dns.ask('b.test', 'A', PATIENCE)).status, 'found');
  assert.ok((await countHandles()) > before, 'a socket waits');
  dns.close();
  assert.equal((await silent).status, 'failed');
  await until(async () => (await countHandles()) === before, 'neither a socket nor a timer is left');
});

test('a question that is given up leaves nothing, also while its socket is being made', async (t) => {
  validator.set({ 'a.test A': SILENT });
  const before = await settledHandles();
  const dns = client(t);
  for (let steps = 0; steps < 30; steps += 1) {
    const caller = new AbortController();
    const answer = dns.ask('a.test', 'A', caller.signal);
    for (let step = 0; step < steps; step += 1) await undefined;
    caller.abort();
    assert.equal((await answer).status, 'failed');
  }
  await until(async () => (await countHandles()) === before, 'neither a socket nor a timer is left', 10_000);
});

const servers: [text: string, expected: DnsServer | undefined, loopback?: boolean][] = [
  ['127.0.0.1', { address: '127.0.0.1', port: 53 }, true],
  ['127.3.2.1:5353', { address: '127.3.2.1', port: 5353 }, true],
  ['::1', { address: '::1', port: 53 }, true],
  ['[::1]:5353', { address: '::1', port: 5353 }, true],
  ['[::1]', { address: '::1', port: 53 }, true],
  ['::ffff:127.0.0.1', { address: '::ffff:127.0.0.1', port: 53 }, true],
  ['192.0.2.1', { address: '192.0.2.1', port: 53 }, false],
  ['[2001:db8::1]:53', { address: '2001:db8::1', port: 53 }, false],
  ['0.0.0.0', { address: '0.0.0.0', port: 53 }, false],
  ['localhost', undefined],
  ['127.0.0.1:0', undefined],
  ['127.0.0.1:65536', undefined],
  ['127.0.0.1:', undefined],
  ['[127.0.0.1]:53', undefined],
  ['::1:x', undefined],
  ['', undefined],
];

for (const [text, expected, loopback] of servers) {
  test(`the server "${text}" is ${expected ? 'understood' : 'refused'}`, () => {
    const server = parseServer(text);
    assert.deepEqual(server, expected);
    assert.equal(server && isOnLoopback(server), loopback);
  });
}
