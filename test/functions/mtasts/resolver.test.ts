import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type Packet, TRUNCATED_RESPONSE } from 'dns-packet';
import { type Answer, createResolver } from '../../../functions/mtasts/resolver.ts';
import { type Internet, startInternet } from '../../../infra/local/internet/internet.ts';
import type { Name, Respond } from '../../../infra/local/internet/site.ts';
import { until } from '../../resources.ts';
import { assertSafe, leavingNothing, PATIENT, SHORT_MS, undisturbed } from './network.ts';

const domain = 'd1.example.test';
const record = `_mta-sts.${domain}`;
const host = `mta-sts.${domain}`;
const RECORD: Name = { txt: [['v=STSv1; id=id1;']] };
const SERVFAIL = 2;
const REFUSED = 5;
const FOUND = 'v=STSv1; id=id1;';

const first = await startInternet();
after(() => first.close());
const second = await startInternet();
after(() => second.close());
/** Where nobody listens any more. */
const dead = await startInternet();
await dead.close();

function outcome(answer: Answer): string {
  if (answer.status === 'found') return answer.values.join(' | ');
  if (answer.status === 'absent') return `absent: ${answer.detail}`;
  assertSafe(answer.failure);
  return answer.failure.code;
}

interface Question {
  readonly servers?: readonly Internet[];
  readonly dnsMs?: number;
  readonly abortAfterMs?: number;
}

type Kind = 'txt' | 'addresses' | 'first address';

/** `addresses`: what is said of IPv4, and then of IPv6; `first address`: IPv6 is not asked for. */
async function ask(kind: Kind, options: Question = {}): Promise<string> {
  const { servers = [first], dnsMs = PATIENT.dnsMs, abortAfterMs } = options;
  const resolver = createResolver(
    { dnsMs },
    servers.map((server) => server.dnsServer),
  );
  return leavingNothing([first, second], async (controller) => {
    if (abortAfterMs === 0) controller.abort();
    else if (abortAfterMs) void delay(abortAfterMs).then(() => controller.abort());
    if (kind === 'txt') return outcome(await resolver.txt(record, controller.signal));
    const said: string[] = [];
    for await (const answer of resolver.addresses(host, controller.signal)) {
      said.push(outcome(answer));
      if (kind === 'first address') break;
    }
    return said.join(', then ');
  });
}

function setRecord(does: Name, also?: Name): void {
  first.set(domain, { record: does });
  second.set(domain, { record: also ?? RECORD });
  first.traffic.reset();
  second.traffic.reset();
}

function setHost(does: Name): void {
  first.set(domain, { host: does });
  first.traffic.reset();
}

// One server: what is said of the name, and how often it is asked.
const answers: [name: string, does: Name, expected: string, questions: number][] = [
  ['a record', RECORD, FOUND, 1],
  ['several records', { txt: [['one'], ['two']] }, 'one | two', 1],
  ['strings joined without spaces', { txt: [['v=STSv1; ', 'id=', 'id1;']] }, FOUND, 1],
  ['a record of one empty string', { txt: [['']] }, '', 1],
  ['an alias', { ...RECORD, cname: ['a.test'] }, FOUND, 1],
  ['a chain of aliases', { ...RECORD, cname: ['a.test', 'b.test', 'c.test'] }, FOUND, 1],
  ['NODATA', {}, `absent: no TXT record at ${record}`, 1],
  ['other records only', { a: ['127.0.0.1'] }, `absent: no TXT record at ${record}`, 1],
  ['NXDOMAIN', { rcode: 'NXDOMAIN' }, `absent: the name ${record} does not exist`, 1],
  ['an alias of NODATA', { cname: ['a.test'] }, `absent: no TXT record at ${record}`, 1],
  ['an alias of itself', { cname: [record] }, `absent: no TXT record at ${record}`, 1],
  [
    'an alias of NXDOMAIN',
    { cname: ['a.test'], rcode: 'NXDOMAIN' },
    `absent: the name ${record} does not exist`,
    1,
  ],
  ['an alias of SERVFAIL', { cname: ['a.test'], rcode: 'SERVFAIL' }, 'dns-servfail', 2],
  ['SERVFAIL is asked again, once', { rcode: 'SERVFAIL' }, 'dns-servfail', 2],
  ['SERVFAIL once', { ...RECORD, servfailFirst: 1 }, FOUND, 2],
  ['SERVFAIL twice', { ...RECORD, servfailFirst: 2 }, 'dns-servfail', 2],
  ['REFUSED is the last word of the only server', { rcode: 'REFUSED' }, 'dns-refused', 1],
  ['NOTIMP', { rcode: 'NOTIMP' }, 'dns-error', 1],
  ['FORMERR', { rcode: 'FORMERR' }, 'dns-error', 1],
  ['a late answer', { ...RECORD, delayMs: 100 }, FOUND, 1],
  ['noise before the answer', { ...RECORD, respond: (reply) => [otherId(reply), reply] }, FOUND, 1],
  ['an answer to another question', { respond: (reply) => [otherName(reply)] }, 'dns-timeout', 0],
  ['an answer over UDP that does not fit, whole over TCP', long(30), long(30).txt?.join(' | ') ?? '', 2],
  [
    'truncated over UDP, SERVFAIL over TCP',
    {
      respond: (reply, _, transport) =>
        transport === 'udp' ? [truncated(reply)] : [failed(reply, SERVFAIL)],
    },
    'dns-servfail',
    4,
  ],
  [
    'truncated over UDP, silent over TCP',
    { respond: (reply, _, transport) => (transport === 'udp' ? [truncated(reply)] : []) },
    'dns-timeout',
    0,
  ],
  ['silent', { silent: true }, 'dns-timeout', 0],
  ['garbled', { respond: () => [Buffer.from('noise')] }, 'dns-error', 0],
];
for (const [name, does, expected, questions] of answers) {
  test(name, async () => {
    setRecord(does);
    const dnsMs = expected === 'dns-timeout' ? SHORT_MS : PATIENT.dnsMs;
    assert.equal(await ask('txt', { dnsMs }), expected);
    if (questions > 0) assert.equal(first.traffic.queries(record), questions);
  });
}

function long(count: number): Name {
  return { txt: Array.from({ length: count }, (_, index) => [`${index}`.padEnd(90, '.')]) };
}
function truncated(reply: Packet): Packet {
  return { ...reply, flags: (reply.flags ?? 0) | TRUNCATED_RESPONSE, answers: [] };
}
function failed(reply: Packet, rcode: number): Packet {
  return { ...reply, flags: (reply.flags ?? 0) | rcode, answers: [] };
}
function otherId(reply: Packet): Packet {
  return { ...reply, id: ((reply.id ?? 0) + 1) & 0xffff, answers: [] };
}
function otherName(reply: Packet): Packet {
  return { ...reply, questions: [{ type: 'TXT', name: `x.${record}` }] };
}

// Two servers: does the second one get a say?
const pairs: [name: string, does: Name, also: Name, expected: string, questions: [number, number]][] = [
  ['the first one answers', RECORD, { txt: [['second']] }, FOUND, [1, 0]],
  ['SERVFAIL, then an answer', { rcode: 'SERVFAIL' }, RECORD, FOUND, [1, 1]],
  ['REFUSED, then an answer', { rcode: 'REFUSED' }, RECORD, FOUND, [1, 1]],
  ['NOTIMP, then an answer', { rcode: 'NOTIMP' }, RECORD, FOUND, [1, 1]],
  ['FORMERR, then an answer', { rcode: 'FORMERR' }, RECORD, FOUND, [1, 1]],
  ['garbled, then an answer', { respond: () => [Buffer.from('noise')] }, RECORD, FOUND, [1, 1]],
  ['SERVFAIL, then NXDOMAIN', { rcode: 'SERVFAIL' }, { rcode: 'NXDOMAIN' }, 'absent', [1, 1]],
  ['SERVFAIL, then NODATA', { rcode: 'SERVFAIL' }, {}, 'absent', [1, 1]],
  ['SERVFAIL, then REFUSED', { rcode: 'SERVFAIL' }, { rcode: 'REFUSED' }, 'dns-refused', [1, 1]],
  ['REFUSED, then SERVFAIL', { rcode: 'REFUSED' }, { rcode: 'SERVFAIL' }, 'dns-servfail', [1, 1]],
  ['SERVFAIL from both', { rcode: 'SERVFAIL' }, { rcode: 'SERVFAIL' }, 'dns-servfail', [1, 1]],
  ['NXDOMAIN is an answer', { rcode: 'NXDOMAIN' }, RECORD, 'absent', [1, 0]],
  ['NODATA is an answer', {}, RECORD, 'absent', [1, 0]],
];
for (const [name, does, also, expected, questions] of pairs) {
  test(`two servers: ${name}`, async () => {
    setRecord(does, also);
    assert.equal((await ask('txt', { servers: [first, second] })).split(':')[0], expected);
    assert.deepEqual([first.traffic.queries(record), second.traffic.queries(record)], questions);
  });
}

test('two servers: the first is dead', async () => {
  setRecord(RECORD);
  assert.equal(await ask('txt', { servers: [dead, first] }), FOUND);
});

test('two servers: the first is silent', () =>
  undisturbed(async () => {
    setRecord({ silent: true });
    assert.equal(await ask('txt', { servers: [first, second], dnsMs: 400 }), FOUND);
  }));

test('two servers: both are silent', async () => {
  setRecord({ silent: true }, { silent: true });
  assert.equal(await ask('txt', { servers: [first, second], dnsMs: SHORT_MS }), 'dns-timeout');
});

test('two servers: both are dead', async () => {
  assert.equal(await ask('txt', { servers: [dead, dead] }), 'dns-error');
});

test('SERVFAIL, and a second server that is dead: the first is asked again', async () => {
  setRecord({ ...RECORD, servfailFirst: 1 });
  assert.equal(await ask('txt', { servers: [first, dead] }), FOUND);
});

// Addresses: two questions.
const V4: Name = { a: ['127.0.0.1'] };
const V6: Name = { aaaa: ['::1'] };
const NO_A = `absent: no A record at ${host}`;
const NO_AAAA = `absent: no AAAA record at ${host}`;
const NO_NAME = `absent: the name ${host} does not exist`;
const failingFor =
  (type: string, rcode: number): Respond =>
  (reply, query) =>
    query.questions?.[0]?.type === type ? [failed(reply, rcode)] : [reply];
const silentFor =
  (type: string): Respond =>
  (reply, query) =>
    query.questions?.[0]?.type === type ? [] : [reply];
const truncatedFor =
  (type: string): Respond =>
  (reply, query, transport) =>
    transport === 'udp' && query.questions?.[0]?.type === type ? [truncated(reply)] : [reply];
/** As if the first packet were lost: the question is repeated after a fifth of the time. */
const silentOnce = (type: string): Respond => {
  let asked = 0;
  return (reply, query) => (query.questions?.[0]?.type === type && ++asked === 1 ? [] : [reply]);
};
const addresses: [name: string, does: Name, ipv4: string, ipv6: string][] = [
  ['IPv4', V4, '127.0.0.1', NO_AAAA],
  ['IPv6', V6, NO_A, '::1'],
  ['both', { ...V4, ...V6 }, '127.0.0.1', '::1'],
  ['several', { a: ['127.0.0.1', '127.0.0.2'] }, '127.0.0.1 | 127.0.0.2', NO_AAAA],
  ['an alias', { ...V4, cname: ['a.test', 'b.test'] }, '127.0.0.1', NO_AAAA],
  ['an alias of an IPv6 address', { ...V6, cname: ['a.test'] }, NO_A, '::1'],
  ['none', {}, NO_A, NO_AAAA],
  ['an alias of none', { cname: ['a.test'] }, NO_A, NO_AAAA],
  ['NXDOMAIN', { rcode: 'NXDOMAIN' }, NO_NAME, NO_NAME],
  ['SERVFAIL', { rcode: 'SERVFAIL' }, 'dns-servfail', 'dns-servfail'],
  ['REFUSED', { rcode: 'REFUSED' }, 'dns-refused', 'dns-refused'],
  ['SERVFAIL once', { ...V4, servfailFirst: 1 }, '127.0.0.1', NO_AAAA],
  ['SERVFAIL for IPv6', { ...V4, respond: failingFor('AAAA', SERVFAIL) }, '127.0.0.1', 'dns-servfail'],
  ['SERVFAIL for IPv4', { ...V6, respond: failingFor('A', SERVFAIL) }, 'dns-servfail', '::1'],
  ['REFUSED for IPv4', { respond: failingFor('A', REFUSED) }, 'dns-refused', NO_AAAA],
  ['silence for IPv4', { ...V6, respond: silentFor('A') }, 'dns-timeout', '::1'],
  ['no IPv4, and silence for IPv6', { respond: silentFor('AAAA') }, NO_A, 'dns-timeout'],
  ['silence', { silent: true }, 'dns-timeout', 'dns-timeout'],
];
for (const [name, does, ipv4, ipv6] of addresses) {
  const silence = /silence/.test(name);
  const play = async () => {
    first.set(domain, { host: does });
    const dnsMs = silence ? SHORT_MS : PATIENT.dnsMs;
    assert.equal(await ask('addresses', { dnsMs }), `${ipv4}, then ${ipv6}`);
  };
  test(`addresses: ${name}`, () => (silence ? undisturbed(play) : play()));
}

function questions(): string[] {
  return first.traffic.events().flatMap(({ kind, detail }) => (kind === 'query' ? detail : []));
}

test('addresses: IPv6 is not asked for when IPv4 was enough', async () => {
  setHost({ ...V4, ...V6 });
  assert.equal(await ask('first address'), '127.0.0.1');
  assert.deepEqual(questions(), ['A udp']);
});

test('addresses: while IPv4 keeps it waiting, IPv6 is asked for', async (t) => {
  setHost({ ...V6, respond: silentFor('A') });
  const controller = new AbortController();
  t.after(() => controller.abort());
  const { signal } = controller;
  const ipv4 = createResolver(PATIENT, [first.dnsServer])
    .addresses(host, signal)
    [Symbol.asyncIterator]()
    .next();
  await until(() => questions().includes('AAAA udp'), 'IPv6 is asked for');
  controller.abort();
  const { value } = await ipv4;
  assert.equal(outcome(value), 'deadline-exceeded', 'A was still waited for');
});

test('addresses: where IPv6 was asked for and is not needed, nobody waits for it', async () => {
  // Nothing that comes of it is left, see leavingNothing. c-ares may have asked for A twice.
  setHost({ ...V4, delayMs: 200, respond: silentFor('AAAA') });
  assert.equal(await ask('first address', { dnsMs: 1_000 }), '127.0.0.1');
  assert.deepEqual([...new Set(questions())].sort(), ['A udp', 'AAAA udp']);
});

test('addresses: with IPv4 at hand, IPv6 has a tenth of the time', async () => {
  // `dns-timeout` would be the end of the whole time.
  setHost({ ...V4, respond: silentFor('AAAA') });
  assert.equal(await ask('addresses', { dnsMs: 1_000 }), '127.0.0.1, then deadline-exceeded');
  await undisturbed(async () => {
    const late = { respond: truncatedFor('AAAA'), tcp: { trickle: { bytes: 10, everyMs: 10 } } };
    setHost({ ...V4, ...V6, ...late });
    assert.equal(await ask('addresses'), '127.0.0.1, then ::1');
  });
});

test('addresses: with IPv6 at hand, IPv4 has the whole time', () =>
  undisturbed(async () => {
    setHost({ ...V4, ...V6, respond: silentOnce('A') });
    assert.equal(await ask('addresses', { dnsMs: 1_000 }), '127.0.0.1, then ::1');
  }));

test('the end of the time for the domain ends a question at once', async () => {
  first.set(domain, { record: { silent: true }, host: { silent: true } });
  for (const kind of ['txt', 'first address'] as const) {
    assert.equal(await ask(kind, { abortAfterMs: 50 }), 'deadline-exceeded');
  }
});

test('nothing is asked after the end', async () => {
  setRecord(RECORD);
  assert.equal(await ask('txt', { abortAfterMs: 0 }), 'deadline-exceeded');
  setRecord({ rcode: 'SERVFAIL', delayMs: 100 });
  assert.equal(await ask('txt', { abortAfterMs: 50, servers: [first, second] }), 'deadline-exceeded');
  await delay(100);
  assert.equal(second.traffic.queries(), 0, 'no retry');
});

test('the end of one question leaves the others alone', async () => {
  setRecord({ ...RECORD, delayMs: 20 });
  const resolver = createResolver(PATIENT, [first.dnsServer]);
  const controllers = Array.from({ length: 20 }, () => new AbortController());
  const asked = controllers.map((controller) => resolver.txt(record, controller.signal));
  controllers[0]?.abort();
  const outcomes = (await Promise.all(asked)).map(outcome);
  assert.deepEqual(outcomes, ['deadline-exceeded', ...outcomes.slice(1).map(() => FOUND)]);
});

test('the servers of the system are used without a list', async () => {
  const { signal } = new AbortController();
  // RFC 7686 §2 keeps .onion out of DNS, so that this test asks nobody.
  assert.equal(
    outcome(await createResolver(PATIENT).txt('x.onion', signal)),
    'absent: the name x.onion does not exist',
  );
});
