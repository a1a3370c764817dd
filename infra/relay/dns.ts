// DNS questions whose answers say whether they are authentic, which Node's own resolver does not pass on. Every server
// asked is a recursive resolver; whoever relies on `authentic` must ask a validating one on this very host. What comes
// back is taken for hostile: it is bounded, checked against the question, and never ends in an exception.

import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { BlockList, connect, isIP, isIPv6 } from 'node:net';
import {
  type Answer,
  AUTHENTIC_DATA,
  type DecodedPacket,
  DNSSEC_OK,
  decode,
  encode,
  RECURSION_DESIRED,
} from 'dns-packet';
import { asciiLowerCase } from '../../functions/mtasts/domain.ts';
import { quote } from '../../functions/mtasts/failure.ts';
import type { Observer } from './metrics.ts';
import { createPlaces } from './places.ts';

export type QuestionType = 'TXT' | 'MX' | 'TLSA' | 'A' | 'AAAA' | 'CNAME' | 'SOA';

export type DnsRecord =
  /** Its strings, joined without spaces; every byte is one character. */
  | { readonly type: 'TXT'; readonly text: string }
  /** The exchange is lower-case, without a trailing dot; the root, of a null MX, is `.`. */
  | { readonly type: 'MX'; readonly preference: number; readonly exchange: string }
  | {
      readonly type: 'TLSA';
      readonly usage: number;
      readonly selector: number;
      readonly matchingType: number;
      readonly data: Buffer;
    }
  | { readonly type: 'A' | 'AAAA'; readonly address: string }
  | { readonly type: 'CNAME'; readonly target: string }
  | { readonly type: 'SOA' };

export type DnsAnswer =
  /** Records of the type that was asked for, CNAMEs followed. */
  | {
      readonly status: 'found';
      /** The validator's word (the AD bit) for all of the answer, CNAMEs included. */
      readonly authentic: boolean;
      /** The least of the records and of the CNAMEs before them. */
      readonly ttlSeconds: number;
      readonly records: readonly DnsRecord[];
      /** The name at the end of the CNAMEs, if there were any. */
      readonly alias?: string;
    }
  /** No such name, or no such record: for `ttlSeconds` (RFC 2308 §5), which is 0 if the answer does not say. */
  | { readonly status: 'absent'; readonly authentic: boolean; readonly ttlSeconds: number }
  /** Nobody could say: SERVFAIL (also for what is bogus), REFUSED, silence, garbage. Text in it is made safe. */
  | { readonly status: 'failed'; readonly reason: string };

export interface Dns {
  /**
   * Never rejects, whatever servers do.
   * @param account the domain that was looked up, if that is another than `name`: what it makes this relay ask, about
   * whomever, counts against its share of the places.
   */
  ask(name: string, type: QuestionType, signal: AbortSignal, account?: string): Promise<DnsAnswer>;
  /** Ends every question at once, as failed; afterwards no socket and no timer is left. */
  close(): void;
}

export interface DnsServer {
  readonly address: string;
  readonly port: number;
}

export interface DnsLimits {
  /** Milliseconds for one question, the wait for a free place included. */
  readonly questionMs: number;
  /** Milliseconds of silence before a question is sent again, to the next server if there is one. */
  readonly resendMs: number;
  /** Questions on their way at once, each with a socket or a few of its own; others wait for a place. */
  readonly questions: number;
  /** Questions that wait; more than these fail at once. */
  readonly waiting: number;
  /** Of the places, those that one looked-up domain may have: for the addresses, A and AAAA, of three hosts at once. */
  readonly perDomain: number;
  /** Of the places, those that all looked-up domains below one registrable domain may have. */
  readonly perRegistrable: number;
}

const LIMITS: DnsLimits = {
  questionMs: 4_000,
  resendMs: 1_200,
  questions: 256,
  waiting: 4_096,
  perDomain: 6,
  perRegistrable: 8,
};

/** To one server twice; to several, each once. */
const MIN_TRIES = 2;

const DNS_PORT = 53;

/** What we say we accept over UDP: the size that DNS Flag Day 2020 settled on. */
const EDNS_UDP_BYTES = 1232;

/** RFC 1035 §4.2.2: over TCP, two bytes say how long the message is. */
const LENGTH_BYTES = 2;
const MAX_TCP_BYTES = 65_535;

/** RFC 1035 §4.1.1. */
const HEADER_BYTES = 12;

/** As many CNAMEs as unbound and BIND follow, and no loop. */
const MAX_ALIASES = 16;

/** RFC 1035 §2.3.4, as text. */
const MAX_NAME_CHARACTERS = 253;
const LABEL = /^[!-\-/-[\]-~]{1,63}$/;

/** RFC 2181 §8: "a value with the most significant bit set" is to be treated "as if the entire value received was zero". */
const MAX_TTL_SECONDS = 2 ** 31 - 1;

/** RFC 6895 §2.3: the errors that a resolver gives. */
const RCODES: Readonly<Record<number, string>> = {
  1: 'FORMERR',
  2: 'SERVFAIL',
  4: 'NOTIMP',
  5: 'REFUSED',
  16: 'BADVERS',
};
const NXDOMAIN = 3;

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

/** Reads `address`, `address:port` or `[address]:port`; undefined for anything else. */
export function parseServer(text: string): DnsServer | undefined {
  if (isIP(text) !== 0) return { address: text, port: DNS_PORT };
  const { bare, bracketed, port } =
    /^(?:(?<bare>[^[\]:]+)|\[(?<bracketed>[^[\]]+)\])(?::(?<port>\d{1,5}))?$/.exec(text)?.groups ?? {};
  const address = bare ?? bracketed ?? '';
  const number = port === undefined ? DNS_PORT : Number(port);
  if (isIP(address) !== (bare === undefined ? 6 : 4) || number < 1 || number > 65_535) return undefined;
  return { address, port: number };
}

/** RFC 7672 §2.1.3 and RFC 6698 §A.3: the AD bit is worth what the path to the validator is. */
export function isOnLoopback({ address }: DnsServer): boolean {
  return LOOPBACK.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
}

/** Whether it can be asked for at all: labels of RFC 1035 §2.3.4's lengths, without the characters that need escaping. */
export function isDnsName(name: string): boolean {
  if (name === '.') return true;
  return name.length <= MAX_NAME_CHARACTERS && name.split('.').every((label) => LABEL.test(label));
}

/** @param servers recursive resolvers, asked in this order. */
export function createDns({
  servers,
  observer,
  limits: given = {},
}: {
  readonly servers: readonly DnsServer[];
  readonly observer: Pick<Observer, 'count'>;
  readonly limits?: Partial<DnsLimits>;
}): Dns {
  if (servers.length === 0) throw new Error('createDns needs a server');
  const limits = { ...LIMITS, ...given };
  const tries = Math.max(MIN_TRIES, servers.length);
  const closing = new AbortController();
  const places = createPlaces({ ...limits, places: limits.questions });

  async function ask(question: Question, signal: AbortSignal, account: string): Promise<DnsAnswer> {
    const { name, type } = question;
    const failed = (reason: string): DnsAnswer => ({
      status: 'failed',
      reason: `${type} of ${quote(name)}: ${reason}`,
    });
    if (!isDnsName(name)) return failed('this is not a name that DNS can have');
    if (closing.signal.aborted) return failed('the DNS client is closed');
    if (signal.aborted) return failed('out of time');

    const over = new AbortController();
    const outOfTime = () => over.abort();
    const timer = setTimeout(outOfTime, limits.questionMs);
    signal.addEventListener('abort', outOfTime, { once: true });
    closing.signal.addEventListener('abort', outOfTime, { once: true });
    try {
      const place = await places.take(account, over.signal);
      if (place.kind !== 'taken') {
        return failed(
          place.kind === 'full' ? 'too many questions are waiting' : 'out of time before it was asked',
        );
      }
      try {
        const result = await tryServers(question, over.signal);
        return result.kind === 'answer' ? result.answer : failed(result.reason);
      } finally {
        place.leave();
      }
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', outOfTime);
      closing.signal.removeEventListener('abort', outOfTime);
    }
  }

  /** The first answer wins, also one to an earlier try: a resolver can take longer than our patience. */
  function tryServers(question: Question, over: AbortSignal): Promise<Result> {
    const settled = new AbortController();
    const signal = AbortSignal.any([over, settled.signal]);
    return new Promise((resolve) => {
      let started = 0;
      let running = 0;
      let timer: NodeJS.Timeout | undefined;
      let reason = 'no answer in time';
      const finish = (result: Result) => {
        clearTimeout(timer);
        settled.abort();
        resolve(result);
      };
      const again = (why: 'timeout' | 'error') => {
        observer.count('dns_retries', { reason: why });
        start();
      };
      const start = () => {
        clearTimeout(timer);
        const server = servers[started % servers.length] as DnsServer;
        started += 1;
        running += 1;
        if (started < tries) timer = setTimeout(() => again('timeout'), limits.resendMs);
        void exchange(server, question, signal).then((result) => {
          running -= 1;
          if (settled.signal.aborted) return;
          if (result.kind === 'answer' || over.aborted) {
            finish(result.kind === 'answer' ? result : { kind: 'trouble', reason });
            return;
          }
          reason = result.reason;
          if (started < tries) again('error');
          else if (running === 0) finish(result);
        });
      };
      start();
    });
  }

  async function exchange(server: DnsServer, question: Question, signal: AbortSignal): Promise<Result> {
    const id = randomInt(0x10000);
    const message = encodeQuestion(id, question);
    const read = (bytes: Buffer) => readReply(bytes, id, question);
    const where = server.port === DNS_PORT ? server.address : `port ${server.port} of ${server.address}`;
    const trouble = (reason: string): Result => ({ kind: 'trouble', reason: `${reason} (${where})` });

    const overUdp = await askOverUdp(server, message, read, signal, () => {
      observer.count('dns_retries', { reason: 'mismatch' });
    });
    if (overUdp.kind === 'answer') return overUdp;
    if (overUdp.kind !== 'truncated') return trouble(overUdp.reason);
    observer.count('dns_retries', { reason: 'truncated' });
    const overTcp = await askOverTcp(server, message, read, signal);
    switch (overTcp.kind) {
      case 'answer':
        return overTcp;
      case 'trouble':
        return trouble(overTcp.reason);
      case 'stray':
        return trouble('the answer is to another question');
      case 'truncated':
        return trouble('the answer is truncated, even over TCP');
    }
  }

  return {
    async ask(name, type, signal, account = name) {
      const answer = await ask({ name: canonical(name), type }, signal, canonical(account));
      observer.count('dns_questions', { type, result: answer.status });
      return answer;
    },
    close: () => closing.abort(),
  };
}

interface Question {
  readonly name: string;
  readonly type: QuestionType;
}

type Result =
  | { readonly kind: 'answer'; readonly answer: DnsAnswer }
  | { readonly kind: 'trouble'; readonly reason: string };

type Reply =
  | Result
  | { readonly kind: 'truncated' }
  /** Not an answer to this question: a late one, or somebody's guess. */
  | { readonly kind: 'stray' };

const trouble = (reason: string) => ({ kind: 'trouble', reason }) as const;

/** DNS compares names in ASCII without regard to case (RFC 4343). */
function canonical(name: string): string {
  const lower = asciiLowerCase(name);
  return lower.length > 1 && lower.endsWith('.') ? lower.slice(0, -1) : lower;
}

function encodeQuestion(id: number, { name, type }: Question): Buffer {
  return encode({
    type: 'query',
    id,
    // RFC 6840 §5.7: a set AD bit asks for the AD bit. Some resolvers want DO for that (RFC 4035 §3.2.1).
    flags: RECURSION_DESIRED | AUTHENTIC_DATA,
    questions: [{ name, type, class: 'IN' }],
    additionals: [
      {
        name: '.',
        type: 'OPT',
        udpPayloadSize: EDNS_UDP_BYTES,
        extendedRcode: 0,
        ednsVersion: 0,
        flags: DNSSEC_OK,
        flag_do: true,
        options: [],
      },
    ],
  });
}

function readReply(bytes: Buffer, id: number, question: Question): Reply {
  if (bytes.length < HEADER_BYTES || bytes.readUInt16BE(0) !== id) return { kind: 'stray' };
  const flags = bytes.readUInt16BE(2);
  const [isResponse, isTruncated] = [(flags & 0x8000) !== 0, (flags & 0x0200) !== 0];
  if (!isResponse) return { kind: 'stray' };
  // RFC 2181 §9: nothing of it counts, and it need not even be whole.
  if (isTruncated) return { kind: 'truncated' };

  let packet: DecodedPacket;
  try {
    packet = decode(bytes);
  } catch {
    return trouble('the answer is garbled');
  }
  const [asked, ...more] = packet.questions ?? [];
  if (
    asked === undefined ||
    more.length > 0 ||
    canonical(asked.name) !== question.name ||
    asked.type !== question.type ||
    asked.class !== 'IN'
  ) {
    return { kind: 'stray' };
  }
  // The decoder believes some records more than their stated length; afterwards the two disagree.
  if (decode.bytes !== bytes.length) return trouble('the answer is garbled');

  const opt = packet.additionals?.find((record) => record.type === 'OPT');
  // RFC 6891 §6.1.3: the upper bits of the code are there; BADVERS alone would look like success.
  const rcode = ((opt?.extendedRcode ?? 0) << 4) | (flags & 0xf);
  if (rcode !== 0 && rcode !== NXDOMAIN) {
    return trouble(
      rcode === 2 ? 'the resolver failed (SERVFAIL)' : `the resolver says ${RCODES[rcode] ?? rcode}`,
    );
  }
  // Without recursion an empty answer is a referral, not a denial.
  if (!packet.flag_ra) return trouble('the server offers no recursion');
  return readAnswer(packet, question);
}

function readAnswer(packet: DecodedPacket, { name, type }: Question): Reply {
  const authentic = packet.flag_ad;
  const answers = (packet.answers ?? []).filter(isInternet);
  const aliases = new Map<string, { target: string; ttl: number }>();
  for (const record of answers) {
    if (record.type !== 'CNAME') continue;
    const [owner, target] = [canonical(record.name), canonical(record.data)];
    if ((aliases.get(owner)?.target ?? target) !== target)
      return trouble('the answer has two CNAMEs of one name');
    aliases.set(owner, { target, ttl: ttlOf(record) });
  }

  let owner = name;
  let ttlSeconds = MAX_TTL_SECONDS;
  for (let followed = 0; type !== 'CNAME'; followed += 1) {
    const alias = aliases.get(owner);
    if (alias === undefined) break;
    if (followed === MAX_ALIASES) return trouble('the CNAMEs are a loop, or too many');
    owner = alias.target;
    ttlSeconds = Math.min(ttlSeconds, alias.ttl);
  }

  const records: DnsRecord[] = [];
  for (const record of answers) {
    if (record.type !== type || canonical(record.name) !== owner) continue;
    records.push(toRecord(record));
    ttlSeconds = Math.min(ttlSeconds, ttlOf(record));
  }
  if (records.length > 0) {
    const answer = { status: 'found', authentic, ttlSeconds, records } as const;
    return { kind: 'answer', answer: owner === name ? answer : { ...answer, alias: owner } };
  }

  const soa = (packet.authorities ?? []).filter(isInternet).find((record) => record.type === 'SOA');
  // RFC 2308 §5: the lesser of the SOA's own time to live and its MINIMUM. §2.2.3 forbids caching without one.
  const negative = soa ? Math.min(ttlOf(soa), clamp(soa.data.minimum ?? 0)) : 0;
  return {
    kind: 'answer',
    answer: { status: 'absent', authentic, ttlSeconds: Math.min(ttlSeconds, negative) },
  };
}

type InternetRecord = Exclude<Answer, { type: 'OPT' }>;

function isInternet(record: Answer): record is InternetRecord {
  return record.type !== 'OPT' && record.class === 'IN';
}

function ttlOf({ ttl = 0 }: InternetRecord): number {
  return clamp(ttl);
}

function clamp(seconds: number): number {
  return seconds > MAX_TTL_SECONDS ? 0 : seconds;
}

function toRecord(record: InternetRecord): DnsRecord {
  switch (record.type) {
    case 'TXT':
      return { type: 'TXT', text: Buffer.concat(record.data as Buffer[]).toString('latin1') };
    case 'MX':
      return {
        type: 'MX',
        preference: record.data.preference ?? 0,
        exchange: canonical(record.data.exchange),
      };
    case 'TLSA': {
      const { usage, selector, matchingType, certificate } = record.data;
      return { type: 'TLSA', usage, selector, matchingType, data: certificate };
    }
    case 'A':
    case 'AAAA':
      return { type: record.type, address: record.data };
    case 'CNAME':
      return { type: 'CNAME', target: canonical(record.data) };
    case 'SOA':
      return { type: 'SOA' };
    default:
      throw new Error(`${record.type} was never asked for`);
  }
}

/** A socket of its own for each try has a port of its own, which the kernel draws; connected, it hears only this server. */
function askOverUdp(
  { address, port }: DnsServer,
  message: Buffer,
  read: (bytes: Buffer) => Reply,
  signal: AbortSignal,
  onStray: () => void,
): Promise<Exclude<Reply, { kind: 'stray' }>> {
  return new Promise((resolve) => {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    const finish = (reply: Exclude<Reply, { kind: 'stray' }>) => {
      signal.removeEventListener('abort', outOfTime);
      // Only what is ours: Node closes a socket that is being bound when it is bound, which its own listener tells it.
      for (const event of ['message', 'connect', 'error']) socket.removeAllListeners(event);
      // After `close`, a send that was on its way may still report.
      socket.on('error', () => {});
      socket.close();
      resolve(reply);
    };
    const outOfTime = () => finish(trouble('no answer in time'));
    if (signal.aborted) return outOfTime();
    signal.addEventListener('abort', outOfTime, { once: true });
    socket.on('error', (error) => finish(trouble(faultOf(error))));
    socket.on('message', (bytes) => {
      const reply: Reply = bytes.length > EDNS_UDP_BYTES ? { kind: 'stray' } : read(bytes);
      if (reply.kind === 'stray') onStray();
      else finish(reply);
    });
    socket.on('connect', () => socket.send(message));
    socket.connect(port, address);
  });
}

function askOverTcp(
  { address, port }: DnsServer,
  message: Buffer,
  read: (bytes: Buffer) => Reply,
  signal: AbortSignal,
): Promise<Reply> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port, noDelay: true });
    const bytes = Buffer.alloc(LENGTH_BYTES + MAX_TCP_BYTES);
    let received = 0;
    const finish = (reply: Reply) => {
      signal.removeEventListener('abort', outOfTime);
      socket.removeAllListeners().on('error', () => {});
      socket.destroy();
      resolve(reply);
    };
    const outOfTime = () => finish(trouble('no answer in time'));
    if (signal.aborted) return outOfTime();
    signal.addEventListener('abort', outOfTime, { once: true });
    socket.on('error', (error) => finish(trouble(faultOf(error))));
    socket.on('close', () => finish(trouble('the server hung up before its answer was whole')));
    socket.on('data', (chunk) => {
      received += chunk.copy(bytes, received);
      if (received < LENGTH_BYTES) return;
      const end = LENGTH_BYTES + bytes.readUInt16BE(0);
      if (received >= end) finish(read(bytes.subarray(LENGTH_BYTES, end)));
    });
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt16BE(message.length);
    socket.write(Buffer.concat([length, message]));
  });
}

function faultOf(error: Error): string {
  const { code = error.message } = error as NodeJS.ErrnoException;
  return code === 'ECONNREFUSED' ? 'nobody answers there' : `it cannot be asked (${code})`;
}
