import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import {
  type Answer,
  type DecodedPacket,
  decode,
  encode,
  type Packet,
  type Question,
  RECURSION_AVAILABLE,
  RECURSION_DESIRED,
  TRUNCATED_RESPONSE,
} from 'dns-packet';
import { type Listener, listen, pause } from './listener.ts';
import type { Name, Rcode, Transport } from './site.ts';

/** RFC 1035 §4.2.1: what a UDP answer may hold if the question does not say otherwise by EDNS. */
const MAX_PLAIN_UDP_BYTES = 512;
/** What we say we accept over UDP: the size that DNS Flag Day 2020 settled on. */
const EDNS_UDP_BYTES = 1232;
/** Room for the questions of hundreds of domains at once; Linux gives what net.core.rmem_max allows. */
const UDP_BUFFER_BYTES = 1_048_576;
/** How often to draw another port, if UDP is taken on the one that TCP was given. */
const PORT_ATTEMPTS = 20;

/** RFC 6895 §2.3, RFC 8490 §5.4. */
const RCODES: Readonly<Record<Rcode | 'NOERROR', number>> = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
  YXDOMAIN: 6,
  YXRRSET: 7,
  NXRRSET: 8,
  NOTAUTH: 9,
  NOTZONE: 10,
  DSOTYPENI: 11,
};

/** What a name does, and how many questions of this type it was asked before this one; undefined: no such name. */
export type Ask = (
  name: string,
  type: string,
  transport: Transport,
) => { does: Name; asked: number } | undefined;

export interface DnsOptions {
  /** 0 takes a free one. */
  readonly port: number;
  /** Whether it listens on TCP at all. */
  readonly tcp: boolean;
}

/** A recursive resolver for the zone `test`, on UDP and TCP at one port of 127.0.0.1. */
export async function startDns(ask: Ask, options: DnsOptions): Promise<Listener> {
  const closing = new AbortController();

  /** The messages that answer this one, when it is time for them. */
  async function answer(message: Buffer, transport: Transport): Promise<Messages | undefined> {
    const query = parse(message);
    const question = query?.questions?.[0];
    if (!query || !question) return undefined;
    const { does: first, asked } = ask(question.name.toLowerCase(), question.type, transport) ?? UNKNOWN;
    const does = (asked > 0 && first.afterwards) || first;
    if (does.delayMs && !(await pause(does.delayMs, closing.signal))) return undefined;
    if (does.silent) return undefined;
    const failing = asked < (does.servfailFirst ?? 0);
    const full = reply(query, question, failing ? { rcode: 'SERVFAIL' } : does);
    const bytes = (packet: Packet | Buffer) => {
      if (Buffer.isBuffer(packet)) return packet;
      return transport === 'udp' ? fit(packet, query, does) : encode(packet);
    };
    return {
      does,
      forged: transport === 'udp' ? (does.forge?.(full, query, transport) ?? []).map(bytes) : [],
      own: (does.respond?.(full, query, transport) ?? [full]).map(bytes),
    };
  }

  async function serveTcp(message: Buffer, socket: Socket, gone: AbortSignal): Promise<void> {
    const messages = await answer(message, 'tcp');
    for (const bytes of messages?.own ?? []) await sendOverTcp(bytes, messages?.does.tcp ?? {}, socket, gone);
  }

  async function serveUdp(message: Buffer, client: RemoteInfo): Promise<void> {
    const messages = await answer(message, 'udp');
    for (const bytes of messages?.forged ?? []) await sendFromElsewhere(bytes, client);
    for (const bytes of messages?.own ?? []) {
      if (!closing.signal.aborted) udp.send(bytes, client.port, client.address);
    }
  }

  const serve: Parameters<typeof listen>[1] = (socket, gone) => {
    let received = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      // RFC 1035 §4.2.2: over TCP a message is preceded by its length in two bytes
      while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
        const end = 2 + received.readUInt16BE(0);
        void serveTcp(received.subarray(2, end), socket, gone);
        received = received.subarray(end);
      }
    });
  };
  const { port, tcp, udp } = options.tcp
    ? await listenOnBoth(options.port, serve)
    : await listenOnUdp(options.port);
  udp.on('error', () => {}); // the client of an answer may be gone
  udp.on('message', (message, client) => void serveUdp(message, client));

  return {
    port,
    openSockets: () => tcp?.openSockets() ?? 0,
    async close() {
      closing.abort();
      const closed = once(udp, 'close');
      udp.close();
      await Promise.all([closed, tcp?.close()]);
    },
  };
}

interface Messages {
  readonly does: Name;
  /** From a port that the client did not ask. */
  readonly forged: readonly Buffer[];
  readonly own: readonly Buffer[];
}

const UNKNOWN: { does: Name; asked: number } = { does: { rcode: 'NXDOMAIN' }, asked: 0 };

async function sendOverTcp(
  message: Buffer,
  { claimedBytes = message.length, cutAfter, trickle, end }: NonNullable<Name['tcp']>,
  socket: Socket,
  gone: AbortSignal,
): Promise<void> {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(claimedBytes);
  const bytes = Buffer.concat([length, message]).subarray(0, cutAfter);
  const step = trickle?.bytes ?? Math.max(1, bytes.length);
  for (let sent = 0; sent < bytes.length; sent += step) {
    if (trickle && !(await pause(trickle.everyMs, gone))) return;
    socket.write(bytes.subarray(sent, sent + step));
  }
  if (end === 'close') socket.end();
  if (end === 'reset') socket.resetAndDestroy();
}

async function sendFromElsewhere(message: Buffer, client: RemoteInfo): Promise<void> {
  const socket = createSocket('udp4');
  await new Promise((sent) => socket.send(message, client.port, client.address, sent));
  socket.close();
}

async function listenOnUdp(port: number) {
  const udp = createSocket({ type: 'udp4', recvBufferSize: UDP_BUFFER_BYTES });
  try {
    udp.bind(port, '127.0.0.1');
    await once(udp, 'listening');
  } catch (error) {
    udp.close();
    throw error;
  }
  return { port: udp.address().port, tcp: undefined, udp };
}

async function listenOnBoth(port: number, serve: Parameters<typeof listen>[1]) {
  for (let attempt = 1; ; attempt += 1) {
    const tcp = await listen(port, serve);
    try {
      return { ...(await listenOnUdp(tcp.port)), tcp };
    } catch (error) {
      await tcp.close();
      if (port !== 0 || attempt === PORT_ATTEMPTS) throw error;
    }
  }
}

function parse(message: Buffer): DecodedPacket | undefined {
  try {
    const packet = decode(message);
    return packet.type === 'query' ? packet : undefined;
  } catch {
    return undefined;
  }
}

function reply(query: DecodedPacket, question: Question, does: Name): Packet {
  const answers: Answer[] = [];
  const { ttl = 0 } = does;
  let owner = question.name;
  for (const target of does.cname ?? []) {
    answers.push({ name: owner, type: 'CNAME', ttl, data: target });
    owner = target;
  }
  const aliases = answers.length;
  if (!does.rcode) answers.push(...records(owner, question.type, does));
  const negative =
    answers.length === aliases && question.type !== 'CNAME' && [undefined, 'NXDOMAIN'].includes(does.rcode);
  const soa = negative && does.soa !== false;
  const edns = query.additionals?.some(({ type }) => type === 'OPT');
  return {
    type: 'response',
    id: query.id ?? 0,
    flags: RECURSION_AVAILABLE | ((query.flags ?? 0) & RECURSION_DESIRED) | RCODES[does.rcode ?? 'NOERROR'],
    questions: [question],
    answers,
    authorities: soa ? [SOA] : [],
    additionals: edns ? [OPT] : [],
  };
}

function records(name: string, type: string, { txt = [], a = [], aaaa = [], ttl = 0 }: Name): Answer[] {
  // dns-packet changes the arrays of strings that it is given, so it gets its own
  if (type === 'TXT') return txt.map((data) => ({ name, type, ttl, data: [...data] }));
  if (type === 'A') return a.map((data) => ({ name, type, ttl, data }));
  if (type === 'AAAA') return aaaa.map((data) => ({ name, type, ttl, data }));
  return [];
}

/** Encodes for UDP. RFC 2181 §9: an answer that does not fit is sent without it, with TC, to be asked over TCP. */
function fit(packet: Packet, query: DecodedPacket, { truncated }: Name): Buffer {
  const opt = query.additionals?.find((record) => record.type === 'OPT');
  const limit = Math.max(MAX_PLAIN_UDP_BYTES, opt?.udpPayloadSize ?? 0);
  const cut = { ...packet, flags: (packet.flags ?? 0) | TRUNCATED_RESPONSE };
  const bytes = encode(truncated === 'whole' ? cut : packet);
  if (bytes.length <= limit && truncated !== 'empty') return bytes;
  return encode({ ...cut, answers: [], authorities: [] });
}

const SOA: Answer = {
  name: 'test',
  type: 'SOA',
  ttl: 0,
  data: {
    mname: 'ns.test',
    rname: 'hostmaster.test',
    serial: 1,
    refresh: 3600,
    retry: 600,
    expire: 86400,
    minimum: 0,
  },
};

const OPT: Answer = {
  name: '.',
  type: 'OPT',
  udpPayloadSize: EDNS_UDP_BYTES,
  extendedRcode: 0,
  ednsVersion: 0,
  flags: 0,
  flag_do: false,
  options: [],
};
