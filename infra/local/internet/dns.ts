import { createSocket } from 'node:dgram';
import { once } from 'node:events';
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
import type { Name, Transport } from './site.ts';

/** RFC 1035 §4.2.1: what a UDP answer may hold if the question does not say otherwise by EDNS. */
const MAX_PLAIN_UDP_BYTES = 512;
/** What we say we accept over UDP: the size that DNS Flag Day 2020 settled on. */
const EDNS_UDP_BYTES = 1232;
/** Room for the questions of hundreds of domains at once; Linux gives what net.core.rmem_max allows. */
const UDP_BUFFER_BYTES = 1_048_576;
/** How often to draw another port, if UDP is taken on the one that TCP was given. */
const PORT_ATTEMPTS = 20;

const RCODES = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 } as const;

/** What a name does, and how many questions of this type it was asked before this one; undefined: no such name. */
export type Ask = (
  name: string,
  type: string,
  transport: Transport,
) => { does: Name; asked: number } | undefined;

/** A recursive resolver for the zone `test`, on UDP and TCP at one port of 127.0.0.1. */
export async function startDns(ask: Ask, port: number): Promise<Listener> {
  const closing = new AbortController();

  async function answer(message: Buffer, transport: Transport, send: (reply: Buffer) => void): Promise<void> {
    const query = parse(message);
    const question = query?.questions?.[0];
    if (!query || !question) return;
    const known = ask(question.name.toLowerCase(), question.type, transport);
    const does: Name = known?.does ?? { rcode: 'NXDOMAIN' };
    if (does.delayMs && !(await pause(does.delayMs, closing.signal))) return;
    if (does.silent) return;
    const failing = known !== undefined && known.asked < (does.servfailFirst ?? 0);
    const full = reply(query, question, failing ? { rcode: 'SERVFAIL' } : does);
    for (const packet of does.respond?.(full, query, transport) ?? [full]) {
      send(Buffer.isBuffer(packet) ? packet : transport === 'udp' ? fit(packet, query) : encode(packet));
    }
  }

  const { tcp, udp } = await listenOnBoth(port, (socket) => {
    let received = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      // RFC 1035 §4.2.2: over TCP a message is preceded by its length in two bytes
      while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
        const end = 2 + received.readUInt16BE(0);
        void answer(received.subarray(2, end), 'tcp', (message) => {
          const length = Buffer.alloc(2);
          length.writeUInt16BE(message.length);
          socket.write(Buffer.concat([length, message]));
        });
        received = received.subarray(end);
      }
    });
  });
  udp.on('error', () => {}); // the client of an answer may be gone
  udp.on('message', (message, client) => {
    void answer(message, 'udp', (bytes) => {
      if (!closing.signal.aborted) udp.send(bytes, client.port, client.address);
    });
  });

  return {
    port: tcp.port,
    openSockets: tcp.openSockets,
    async close() {
      closing.abort();
      const closed = once(udp, 'close');
      udp.close();
      await Promise.all([closed, tcp.close()]);
    },
  };
}

async function listenOnBoth(port: number, serve: Parameters<typeof listen>[1]) {
  for (let attempt = 1; ; attempt += 1) {
    const tcp = await listen(port, serve);
    const udp = createSocket({ type: 'udp4', recvBufferSize: UDP_BUFFER_BYTES });
    try {
      udp.bind(tcp.port, '127.0.0.1');
      await once(udp, 'listening');
      return { tcp, udp };
    } catch (error) {
      udp.close();
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
  let owner = question.name;
  for (const target of does.cname ?? []) {
    answers.push({ name: owner, type: 'CNAME', ttl: 0, data: target });
    owner = target;
  }
  const aliases = answers.length;
  if (!does.rcode) answers.push(...records(owner, question.type, does));
  const negative =
    answers.length === aliases && question.type !== 'CNAME' && [undefined, 'NXDOMAIN'].includes(does.rcode);
  const edns = query.additionals?.some(({ type }) => type === 'OPT');
  return {
    type: 'response',
    id: query.id ?? 0,
    flags: RECURSION_AVAILABLE | ((query.flags ?? 0) & RECURSION_DESIRED) | RCODES[does.rcode ?? 'NOERROR'],
    questions: [question],
    answers,
    // RFC 2308 §3: a negative answer carries the zone's SOA
    authorities: negative ? [SOA] : [],
    additionals: edns ? [OPT] : [],
  };
}

function records(name: string, type: string, does: Name): Answer[] {
  // dns-packet changes the arrays of strings that it is given, so it gets its own
  if (type === 'TXT') return (does.txt ?? []).map((data) => ({ name, type, ttl: 0, data: [...data] }));
  if (type === 'A') return (does.a ?? []).map((data) => ({ name, type, ttl: 0, data }));
  if (type === 'AAAA') return (does.aaaa ?? []).map((data) => ({ name, type, ttl: 0, data }));
  return [];
}

/** Encodes for UDP. RFC 2181 §9: an answer that does not fit is sent without it, with TC, to be asked over TCP. */
function fit(packet: Packet, query: DecodedPacket): Buffer {
  const opt = query.additionals?.find((record) => record.type === 'OPT');
  const limit = Math.max(MAX_PLAIN_UDP_BYTES, opt?.udpPayloadSize ?? 0);
  const bytes = encode(packet);
  if (bytes.length <= limit) return bytes;
  return encode({ ...packet, flags: (packet.flags ?? 0) | TRUNCATED_RESPONSE, answers: [], authorities: [] });
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
