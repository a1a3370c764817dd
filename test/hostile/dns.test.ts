// What a domain's DNS, or somebody on the way to it, can do to the lookup of the record and of the policy host. Faults
// that know neither are played at both.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import {
  type Answer,
  AUTHORITATIVE_ANSWER,
  encode,
  type Packet,
  type Question,
  RECURSION_AVAILABLE,
  TRUNCATED_RESPONSE,
} from 'dns-packet';
import type { FailureCode, ResultType } from '../../functions/mtasts/failure.ts';
import { policyText } from '../../infra/local/internet/behaviours.ts';
import { type Site, startInternet } from '../../infra/local/internet/internet.ts';
import type { Name } from '../../infra/local/internet/site.ts';
import { startTrustedInternet } from '../functions/mtasts/network.ts';
import { bindUdp } from '../resources.ts';
import {
  answers,
  changed,
  flagged,
  message,
  onlyFor,
  otherId,
  overTcp,
  pointer,
  record,
  THE_NAME,
  text,
} from './dns-messages.ts';
import { type HostileCase, play } from './frame.ts';

const internet = await startTrustedInternet({ after });
const withoutTcp = await startInternet({ dnsOverTcp: false });
after(() => withoutTcp.close());
const gone = await startInternet();
await gone.close();
const silent = await Promise.all(Array.from({ length: 8 }, () => bindUdp({ after })));

const SOUND_SERVER = internet.dnsServer;
/** Where nobody listens any more. */
const DEAD_SERVER = gone.dnsServer;
const SILENT_SERVERS = silent.map((socket) => `127.0.0.1:${socket.address().port}`);

type Said = 'sound' | readonly [FailureCode, ResultType];
type Extra = Pick<HostileCase, 'waits' | 'limits' | 'dnsServers' | 'domain' | 'heavy' | 'also'>;

const RECORD = 'v=STSv1; id=id1;';
const NEW_RECORD: Name = { txt: [['v=STSv1; id=id2;']] };
const ADDRESS: Name = { a: ['127.0.0.1'] };

const SOUND: Said = 'sound';
const TIMEOUT: Said = ['dns-timeout', 'sts-policy-fetch-error'];
const SERVFAIL: Said = ['dns-servfail', 'sts-policy-fetch-error'];
const REFUSED: Said = ['dns-refused', 'sts-policy-fetch-error'];
const ERROR: Said = ['dns-error', 'sts-policy-fetch-error'];
const NO_RECORD: Said = ['record-absent', 'sts-policy-fetch-error'];
const NO_HOST: Said = ['host-absent', 'sts-policy-fetch-error'];
const MULTIPLE: Said = ['record-multiple', 'sts-policy-invalid'];
const MALFORMED: Said = ['record-malformed', 'sts-policy-invalid'];

function site(differs: Partial<Site>) {
  return (domain: string): Site => ({
    record: NEW_RECORD,
    host: ADDRESS,
    https: { policy: { body: policyText(domain) } },
    ...differs,
  });
}

/** The host is sound, so that a policy that is held is refreshed all the same: RFC 8461 §10.2. */
function atRecord(name: string, does: Name, said: Said, extra: Extra = {}): HostileCase {
  return {
    name: `record: ${name}`,
    does: site({ record: does }),
    refresh: said === 'sound' ? ['extended'] : ['replaced', ...said],
    discovery: said === 'sound' ? ['discovered'] : ['not-implemented', ...said],
    ...extra,
  };
}

/** The record is sound and has a new id. */
function atHost(name: string, does: Name, said: Said, extra: Extra = {}): HostileCase {
  return {
    name: `host: ${name}`,
    does: site({ host: does }),
    refresh: said === 'sound' ? ['replaced'] : ['kept', ...said],
    discovery: said === 'sound' ? ['discovered'] : ['backed-off', ...said],
    ...extra,
  };
}

/** Long enough for the other questions of the domain. */
const ONE_WAIT: Extra = { waits: ['dnsMs'], limits: { dnsMs: 120 } };
const noise = Buffer.from('noise, noise, noise');
const OPT: Answer = {
  type: 'OPT',
  name: '.',
  udpPayloadSize: 1232,
  extendedRcode: 0,
  ednsVersion: 0,
  flags: 0,
  flag_do: false,
  options: [],
};

/** A name that exists, without the records. */
const NODATA: Name = { txt: [], a: [] };

/** What is wrong with answers of any kind; what the record, and the policy host, come to with it. */
const faults: [name: string, does: Name, ofRecord: Said, ofHost: Said, extra?: Extra][] = [
  // Truncation, and TCP.
  ['truncated over UDP, whole over TCP', { truncated: 'empty' }, SOUND, SOUND],
  ['truncated over UDP with the records in it', { truncated: 'whole' }, SOUND, SOUND],
  ['truncated over TCP as well', { respond: flagged(TRUNCATED_RESPONSE) }, SOUND, SOUND],
  ['truncated, and no TCP', { truncated: 'empty' }, ERROR, ERROR, { dnsServers: [withoutTcp.dnsServer] }],
  [
    'truncated with the records in it, and no TCP',
    { truncated: 'whole' },
    ERROR,
    ERROR,
    { dnsServers: [withoutTcp.dnsServer] },
  ],
  ['TCP stalls', { truncated: 'empty', tcp: { cutAfter: 0 } }, TIMEOUT, TIMEOUT, ONE_WAIT],
  ['TCP stalls in the answer', { truncated: 'empty', tcp: { cutAfter: 20 } }, TIMEOUT, TIMEOUT, ONE_WAIT],
  ['TCP ends without an answer', { truncated: 'empty', tcp: { cutAfter: 0, end: 'close' } }, ERROR, ERROR],
  ['TCP is reset', { truncated: 'empty', tcp: { cutAfter: 0, end: 'reset' } }, ERROR, ERROR],
  [
    'TCP ends in the answer',
    { truncated: 'empty', tcp: { cutAfter: 20, end: 'close' } },
    TIMEOUT,
    TIMEOUT,
    ONE_WAIT,
  ],
  [
    'TCP announces 64 KiB and sends little',
    { truncated: 'empty', tcp: { claimedBytes: 65_535 } },
    TIMEOUT,
    TIMEOUT,
    ONE_WAIT,
  ],
  ['TCP announces less than it sends', { truncated: 'empty', tcp: { claimedBytes: 5 } }, ERROR, ERROR],
  [
    'TCP announces nothing at all',
    { truncated: 'empty', tcp: { claimedBytes: 0 } },
    TIMEOUT,
    TIMEOUT,
    ONE_WAIT,
  ],
  ['TCP trickles', { truncated: 'empty', tcp: { trickle: { bytes: 10, everyMs: 2 } } }, SOUND, SOUND],
  [
    'TCP trickles for ever',
    { truncated: 'empty', tcp: { trickle: { bytes: 1, everyMs: 100 } } },
    TIMEOUT,
    TIMEOUT,
    ONE_WAIT,
  ],
  ['noise over TCP', { truncated: 'empty', respond: overTcp(() => [noise]) }, ERROR, ERROR],
  [
    'another id over TCP, then the answer',
    { truncated: 'empty', respond: overTcp((reply) => [otherId(reply), reply]) },
    SOUND,
    SOUND,
  ],

  // Answers to something else.
  ['another id', { respond: (reply) => [otherId(reply)] }, TIMEOUT, TIMEOUT, ONE_WAIT],
  ['another id, then the answer', { respond: (reply) => [otherId(reply), reply] }, SOUND, SOUND],
  ['the answer, then another', { respond: (reply) => [reply, { ...reply, answers: [] }] }, SOUND, SOUND],
  [
    'a flood of other ids',
    { respond: (reply) => Array(500).fill(encode(otherId(reply))) },
    TIMEOUT,
    TIMEOUT,
    ONE_WAIT,
  ],
  [
    'another name in the question',
    { respond: changed(() => ({ questions: [{ type: 'TXT', name: 'x.test' }] })) },
    TIMEOUT,
    TIMEOUT,
    ONE_WAIT,
  ],
  [
    'another type in the question',
    {
      respond: changed(({ questions = [] }) => ({
        questions: questions.map((it) => ({ ...it, type: 'MX' })),
      })),
    },
    TIMEOUT,
    TIMEOUT,
    ONE_WAIT,
  ],
  [
    'another class in the question',
    {
      respond: changed(({ questions = [] }) => ({
        questions: questions.map((it) => ({ ...it, class: 'CH' })),
      })),
    },
    TIMEOUT,
    TIMEOUT,
    ONE_WAIT,
  ],
  ['no question', { respond: changed(() => ({ questions: [] })) }, ERROR, ERROR],
  [
    'the question twice',
    { respond: changed(({ questions = [] }) => ({ questions: [...questions, ...questions] })) },
    ERROR,
    ERROR,
  ],
  [
    'the question in capitals',
    {
      respond: changed(({ questions = [] }) => ({
        questions: questions.map((it) => ({ ...it, name: it.name.toUpperCase() })),
      })),
    },
    SOUND,
    SOUND,
  ],
  ['from another port, and then the answer', { forge: changed(() => ({ answers: [] })) }, SOUND, SOUND],
  ['from another port only', { forge: (reply) => [reply], respond: () => [] }, TIMEOUT, TIMEOUT, ONE_WAIT],
  [
    // c-ares does not look at the owner of records: it takes the resolver's word.
    'records of another name',
    {
      respond: changed(({ answers = [] }) => ({ answers: answers.map((it) => ({ ...it, name: 'x.test' })) })),
    },
    SOUND,
    SOUND,
  ],
  [
    'records of another class',
    {
      respond: changed(({ answers = [] }) => ({
        answers: answers.map((it) => ({ ...it, class: 'HS' as const })),
      })),
    },
    NO_RECORD,
    NO_HOST,
  ],
  [
    'records of another type',
    {
      respond: changed(({ questions }) => ({
        answers: [{ name: questions?.[0]?.name ?? '', type: 'NS', data: 'ns.test' }],
      })),
    },
    NO_RECORD,
    NO_HOST,
  ],
  [
    'records in the wrong sections',
    { respond: changed(({ answers = [] }) => ({ answers: [], authorities: answers, additionals: answers })) },
    NO_RECORD,
    NO_HOST,
  ],

  // Flags and codes.
  ['AA', { respond: flagged(AUTHORITATIVE_ANSWER) }, SOUND, SOUND],
  ['no RA', { respond: flagged(0, RECURSION_AVAILABLE) }, SOUND, SOUND],
  ['the reserved flag', { respond: flagged(1 << 6) }, SOUND, SOUND],
  ['another opcode', { respond: flagged(4 << 11) }, SOUND, SOUND],
  ['a question with answers', { respond: changed(() => ({ type: 'query' })) }, SOUND, SOUND],
  ['the question come back', { respond: (_, query) => [encode(query)] }, NO_RECORD, NO_HOST],
  ['FORMERR', { rcode: 'FORMERR' }, ERROR, ERROR],
  ['SERVFAIL', { rcode: 'SERVFAIL' }, SERVFAIL, SERVFAIL],
  ['SERVFAIL with records', { respond: flagged(2) }, SERVFAIL, SERVFAIL],
  ['SERVFAIL, then the answer', { servfailFirst: 1 }, SOUND, SOUND],
  ['NXDOMAIN', { rcode: 'NXDOMAIN' }, NO_RECORD, NO_HOST],
  ['NXDOMAIN without SOA', { rcode: 'NXDOMAIN', soa: false }, NO_RECORD, NO_HOST],
  ['NXDOMAIN with records', { respond: flagged(3) }, NO_RECORD, NO_HOST],
  ['NOTIMP', { rcode: 'NOTIMP' }, ERROR, ERROR],
  ['REFUSED', { rcode: 'REFUSED' }, REFUSED, REFUSED],
  // Of codes above 5 c-ares does not tell: they are what the number of records makes of them.
  ['YXDOMAIN', { rcode: 'YXDOMAIN' }, NO_RECORD, NO_HOST],
  ['YXRRSET', { rcode: 'YXRRSET' }, NO_RECORD, NO_HOST],
  ['NXRRSET', { rcode: 'NXRRSET' }, NO_RECORD, NO_HOST],
  ['NOTAUTH', { rcode: 'NOTAUTH' }, NO_RECORD, NO_HOST],
  ['NOTAUTH with records', { respond: flagged(9) }, SOUND, SOUND],
  ['NOTZONE', { rcode: 'NOTZONE' }, NO_RECORD, NO_HOST],
  ['DSOTYPENI', { rcode: 'DSOTYPENI' }, NO_RECORD, NO_HOST],
  [
    'BADVERS',
    { respond: changed(() => ({ answers: [], additionals: [{ ...OPT, extendedRcode: 1 }] })) },
    NO_RECORD,
    NO_HOST,
  ],
  ['EDNS that nobody asked for', { respond: changed(() => ({ additionals: [OPT] })) }, SOUND, SOUND],
  ['EDNS twice', { respond: changed(() => ({ additionals: [OPT, OPT] })) }, ERROR, ERROR],

  // No messages at all.
  ['noise', { respond: () => [noise] }, ERROR, ERROR],
  ['empty datagrams', { respond: () => [Buffer.alloc(0)] }, TIMEOUT, TIMEOUT, ONE_WAIT],
  ['an empty datagram, then the answer', { respond: (reply) => [Buffer.alloc(0), reply] }, SOUND, SOUND],
  ['the header alone', { respond: (reply) => [encode(reply).subarray(0, 12)] }, ERROR, ERROR],
  ['less than a header', { respond: (reply) => [encode(reply).subarray(0, 11)] }, ERROR, ERROR],
  ['an answer cut short', { respond: (reply) => [encode(reply).subarray(0, -15)] }, ERROR, ERROR],
  [
    'the header, and then ones',
    { respond: (reply) => [Buffer.concat([encode(reply).subarray(0, 12), Buffer.alloc(60, 0xff)])] },
    ERROR,
    ERROR,
  ],
  [
    'an answer, and then noise',
    { respond: (reply) => [Buffer.concat([encode(reply), noise])] },
    SOUND,
    SOUND,
  ],
  [
    'more records announced than there are',
    { respond: (reply) => [message(reply, [], 65_535)] },
    ERROR,
    ERROR,
  ],

  // Names, aliases, times.
  ['NODATA', NODATA, NO_RECORD, NO_HOST],
  ['NODATA without SOA', { ...NODATA, soa: false }, NO_RECORD, NO_HOST],
  ['an alias', { cname: ['a.test'] }, SOUND, SOUND],
  ['a chain of a hundred aliases', { cname: names(100) }, SOUND, SOUND],
  ['an alias of a name of 255 bytes', { cname: [longName()] }, SOUND, SOUND],
  ['an alias of a name that does not exist', { cname: ['a.test'], rcode: 'NXDOMAIN' }, NO_RECORD, NO_HOST],
  ['an alias of NODATA', { ...NODATA, cname: ['a.test'] }, NO_RECORD, NO_HOST],
  ['aliases in a circle', { ...NODATA, cname: ['a.test', 'b.test', 'a.test'] }, NO_RECORD, NO_HOST],
  [
    'an alias of itself',
    { respond: changed(({ questions }) => ({ answers: [alias(questions, questions?.[0]?.name)] })) },
    NO_RECORD,
    NO_HOST,
  ],
  ['an alias of SERVFAIL', { cname: ['a.test'], rcode: 'SERVFAIL' }, SERVFAIL, SERVFAIL],
  [
    'an alias beside the records',
    {
      respond: changed(({ answers = [], questions }) => ({ answers: [alias(questions), ...answers] })),
    },
    SOUND,
    SOUND,
  ],
  ['a time to live of 68 years', { ttl: 0x7fff_ffff }, SOUND, SOUND],
  ['a negative time to live', { ttl: 0xffff_ffff }, SOUND, SOUND],
  ['an answer that is late', { delayMs: 50 }, SOUND, SOUND],

  // Servers.
  ['the first of two servers is dead', {}, SOUND, SOUND, { dnsServers: [DEAD_SERVER, SOUND_SERVER] }],
  ['the second of two servers is dead', {}, SOUND, SOUND, { dnsServers: [SOUND_SERVER, DEAD_SERVER] }],
  [
    'SERVFAIL, and the second of two servers is dead',
    { servfailFirst: 1 },
    SOUND,
    SOUND,
    { dnsServers: [SOUND_SERVER, DEAD_SERVER] },
  ],
  [
    'the first of two servers is silent',
    {},
    SOUND,
    SOUND,
    { limits: { dnsMs: 400 }, dnsServers: [...SILENT_SERVERS.slice(0, 1), SOUND_SERVER] },
  ],
];

const MANY_STRINGS = txtOf(Buffer.concat([text(RECORD), ...Array(12_000).fill(text('a=b;'))]));

/** As many as there is room for in an answer of 64 KiB. */
const TINY_RECORDS = Array.from({ length: 3_600 }, (_, index) => txt(`${index}`));

/** The right one, and thousands where nobody is. */
const MANY_ADDRESSES = Array.from({ length: 4_000 }, (_, index) =>
  record(THE_NAME, 'A', Buffer.from(index === 0 ? [127, 0, 0, 1] : [127, 1, index >> 8, index & 255])),
);

/** TXT records at `_mta-sts`. */
const records: [name: string, does: Name, said: Said, extra?: Extra][] = [
  ['silence', { silent: true }, TIMEOUT, { ...ONE_WAIT, heavy: true }],
  ['strings of 255 bytes', { txt: [[RECORD, padding(255), padding(255)]] }, SOUND],
  ['hundreds of strings', { txt: [[RECORD, ...Array(300).fill('a=b;')]] }, SOUND],
  ['hundreds of empty strings', { txt: [[...Array(300).fill(''), RECORD]] }, SOUND],
  ['a string for each character', { txt: [[...RECORD]] }, SOUND],
  [
    'thousands of strings',
    { truncated: 'empty', respond: overTcp(answers(MANY_STRINGS)) },
    SOUND,
    { heavy: true },
  ],
  ['more than 4 KiB of text', { txt: [[RECORD, ...Array(20).fill(padding(255))]] }, SOUND],
  ['60 KiB of text', { txt: [[RECORD, ...Array(240).fill(padding(255))]] }, SOUND],
  ['60 KiB of text without an end', { txt: [[RECORD, ...Array(240).fill('a'.repeat(255))]] }, MALFORMED],
  ['60 KiB of blanks', { txt: [['v=STSv1', ...Array(240).fill(' '.repeat(255)), '; id=id1;']] }, SOUND],
  ['60 KiB of semicolons', { txt: [[RECORD, ...Array(240).fill(';'.repeat(255))]] }, MALFORMED],
  ['hundreds of other records', { txt: [...others(500, 80), [RECORD]] }, SOUND],
  [
    'thousands of other records',
    { truncated: 'empty', respond: overTcp((reply) => [message(reply, [...TINY_RECORDS, txt(RECORD)])]) },
    SOUND,
  ],
  ['40 KiB over UDP', { txt: [...others(350, 80), [RECORD]], respond: (reply) => [encode(reply)] }, SOUND],
  ['a thousand STS records', { txt: Array(1_000).fill([RECORD]) }, MULTIPLE],
  ['the same record twice', { txt: [[RECORD], [RECORD]] }, MULTIPLE],
  ['an empty string', { txt: [['']] }, NO_RECORD],
  ['an empty string in a record beside', { txt: [[''], [RECORD]] }, SOUND],
  ['a record without strings', { respond: answers(txtOf(Buffer.alloc(0))) }, ERROR],
  ['a record without strings beside', { respond: answers(txtOf(Buffer.alloc(0)), txt(RECORD)) }, ERROR],
  ['UTF-8', { txt: [[`${RECORD} a=\u00e9;`]] }, MALFORMED],
  ['Latin-1', { txt: [[Buffer.from(`${RECORD} a=\u00e9;`, 'latin1')]] }, MALFORMED],
  ['a blank that is none', { txt: [['v=STSv1;\u00a0id=id1;']] }, MALFORMED],
  ['a byte order mark', { txt: [[`\ufeff${RECORD}`]] }, NO_RECORD],
  ['NUL in an extension', { txt: [[`${RECORD} a=\0;`]] }, MALFORMED],
  ['NUL in the id', { txt: [['v=STSv1; id=id\x001;']] }, MALFORMED],
  ['NUL at the start', { txt: [[`\0${RECORD}`]] }, NO_RECORD],
  ['NUL at the end', { txt: [[`${RECORD}\0`]] }, MALFORMED],
  ['NUL in a record beside', { txt: [['\0'], [RECORD]] }, SOUND],
  [
    'every byte there is',
    { txt: [[Buffer.from(Array.from({ length: 255 }, (_, byte) => byte))]] },
    NO_RECORD,
  ],
  ['a string longer than its record', { respond: answers(txtOf(Buffer.from([200, 65]))) }, ERROR],
  [
    'a record longer than the message',
    { respond: answers(record(THE_NAME, 'TXT', text(RECORD), 5_000)) },
    ERROR,
  ],
  ['a record shorter than its string', { respond: answers(record(THE_NAME, 'TXT', text(RECORD), 5)) }, ERROR],
  [
    'more records than announced',
    { respond: (reply) => [message(reply, [txt(RECORD), txt(RECORD)], 1)] },
    SOUND,
  ],
  [
    'a name that points at itself',
    { respond: (reply) => [message(reply, [pointingAtItself(reply)])] },
    ERROR,
  ],
  ['a name that points ahead', { respond: answers(txt(RECORD, pointer(300))) }, ERROR],
  ['a name that points beyond the end', { respond: answers(txt(RECORD, pointer(0x3fff))) }, ERROR],
  [
    'a name with an unknown kind of label',
    { respond: answers(txt(RECORD, Buffer.from([0x41, 0x41, 0]))) },
    ERROR,
  ],
  ['a name of 640 bytes', { respond: answers(txt(RECORD, ownName(10))) }, ERROR],
  [
    'a name of NUL and other bytes',
    { respond: answers(txt(RECORD, Buffer.from([3, 0, 255, 46, 0]))) },
    ERROR,
  ],
  ['the longest name', { txt: [[RECORD]] }, SOUND, { domain: longDomain() }],
];

/** Address records of the policy host. */
const addresses: [name: string, does: Name, said: Said, extra?: Extra][] = [
  ['silence', { silent: true }, TIMEOUT, ONE_WAIT],
  // Prompt, although the whole time for a DNS question would not be.
  ['AAAA is silent', { ...ADDRESS, respond: onlyFor('AAAA', () => []) }, SOUND],
  ['AAAA is noise', { ...ADDRESS, respond: onlyFor('AAAA', () => [noise]) }, SOUND],
  ['AAAA is SERVFAIL', { ...ADDRESS, respond: onlyFor('AAAA', flagged(2)) }, SOUND],
  ['AAAA is NXDOMAIN', { ...ADDRESS, respond: onlyFor('AAAA', flagged(3)) }, SOUND],
  ['AAAA of four bytes', { ...ADDRESS, respond: onlyFor('AAAA', answers(of('AAAA', 4))) }, SOUND],
  ['A is silent, and no AAAA', { respond: onlyFor('A', () => []) }, TIMEOUT, ONE_WAIT],
  ['A is noise, and no AAAA', { respond: onlyFor('A', () => [noise]) }, ERROR],
  ['A is SERVFAIL, and no AAAA', { respond: onlyFor('A', flagged(2)) }, SERVFAIL],
  ['A of three bytes', { respond: onlyFor('A', answers(of('A', 3))) }, ERROR],
  ['A of no bytes', { respond: onlyFor('A', answers(of('A', 0))) }, ERROR],
  ['A of four bytes that are AAAA', { respond: onlyFor('A', answers(of('AAAA', 16))) }, NO_HOST],
  ['the same address a thousand times', { a: Array(1_000).fill('127.0.0.1') }, SOUND],
  [
    'thousands of addresses',
    { truncated: 'empty', respond: overTcp(onlyFor('A', (reply) => [message(reply, MANY_ADDRESSES)])) },
    SOUND,
    { heavy: true },
  ],
];

const everywhere: HostileCase[] = [
  {
    name: 'every server is dead',
    does: site({}),
    refresh: ['kept', 'dns-error', 'sts-policy-fetch-error'],
    discovery: ['not-implemented', 'dns-error', 'sts-policy-fetch-error'],
    dnsServers: [DEAD_SERVER, DEAD_SERVER],
  },
  {
    // To be patient with each of them would take six times as long.
    name: 'eight servers, and all are silent',
    does: site({}),
    refresh: ['kept', 'dns-timeout', 'sts-policy-fetch-error'],
    discovery: ['not-implemented', 'dns-timeout', 'sts-policy-fetch-error'],
    waits: ['dnsMs', 'dnsMs'],
    limits: { dnsMs: 200 },
    dnsServers: SILENT_SERVERS,
    also: ({ outcome }) => {
      const { detail } = ('failure' in outcome && outcome.failure) || assert.fail();
      assert.match(detail, /: no answer within 200 ms$/, 'not all servers in vain, one after the other');
    },
  },
  {
    name: 'silence for longer than the domain has',
    does: 'no-answer',
    refresh: ['kept', 'deadline-exceeded', 'sts-policy-fetch-error'],
    discovery: ['not-implemented', 'deadline-exceeded', 'sts-policy-fetch-error'],
    waits: ['domainMs'],
  },
  {
    name: 'SERVFAIL for record and host',
    does: 'servfail-all',
    refresh: ['kept', 'dns-servfail', 'sts-policy-fetch-error'],
    discovery: ['not-implemented', 'dns-servfail', 'sts-policy-fetch-error'],
  },
  {
    name: 'neither record nor host',
    does: 'nxdomain',
    refresh: ['kept', 'host-absent', 'sts-policy-fetch-error'],
    discovery: ['not-implemented', 'record-absent', 'sts-policy-fetch-error'],
  },
];

function names(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `a${index}.test`);
}

/** Four labels of 63, 63, 63 and 61 bytes: RFC 1035 §2.3.4. */
function longName(): string {
  return [63, 63, 63, 61].map((length) => 'n'.repeat(length)).join('.');
}

/** With `_mta-sts.` in front, as long as a name may be. */
function longDomain(): string {
  return [...[63, 63, 63, 47].map((length) => 'n'.repeat(length)), 'test'].join('.');
}

/** A field of a record, of so many bytes, that is ignored. */
function padding(bytes: number): string {
  return `${'a='.padEnd(bytes - 1, 'b')};`;
}

function others(count: number, bytes: number): string[][] {
  return Array.from({ length: count }, (_, index) => [`${index}`.padEnd(bytes, '.')]);
}

function txtOf(data: Buffer): Buffer {
  return record(THE_NAME, 'TXT', data);
}

function txt(string: string, owner = THE_NAME): Buffer {
  return record(owner, 'TXT', text(string));
}

function of(type: 'A' | 'AAAA', bytes: number): Buffer {
  return record(THE_NAME, type, Buffer.alloc(bytes, 1));
}

/** So many labels of 63 bytes. */
function ownName(labels: number): Buffer {
  const label = Buffer.concat([Buffer.from([63]), Buffer.alloc(63, 'n')]);
  return Buffer.concat([...Array(labels).fill(label), Buffer.from([0])]);
}

/** Of the first record, right after header and question. */
function pointingAtItself(reply: Packet): Buffer {
  return txt(RECORD, pointer(message(reply, []).length));
}

function alias(questions: readonly Question[] | undefined, target = 'a.test'): Answer {
  return { name: questions?.[0]?.name ?? '', type: 'CNAME', data: target };
}

/** What waits for a limit is played in one position at each place, and alone if it can be, for the sake of time. */
function bothPlaces([name, does, ofRecord, ofHost, extra]: (typeof faults)[number]): HostileCase[] {
  const looksUp = atRecord(name, { txt: [[RECORD]], ...does }, ofRecord, extra);
  const fetches = atHost(name, { ...ADDRESS, ...does }, ofHost, extra);
  if (!extra?.waits) return [looksUp, fetches];
  const { refresh: _r, limits: _l, ...discovered } = looksUp;
  const { discovery: _d, ...refreshed } = fetches;
  return [discovered, refreshed];
}

const cases: HostileCase[] = [
  ...faults.flatMap(bothPlaces),
  ...records.map((row) => atRecord(...row)),
  ...addresses.map((row) => atHost(...row)),
  ...everywhere,
];
play({ what: 'DNS', internet, others: [withoutTcp] }, cases);
