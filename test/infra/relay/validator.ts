// A validating resolver on loopback that answers from a table: what it is said to have found out about signatures is
// data, too. Its faults are those that a DNS client may meet.

import type { Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import {
  type Answer,
  AUTHENTIC_DATA,
  type DecodedPacket,
  decode,
  encode,
  type Packet,
  RECURSION_AVAILABLE,
  RECURSION_DESIRED,
  TRUNCATED_RESPONSE,
} from 'dns-packet';
import type { DnsServer } from '../../../infra/relay/dns.ts';
import { bindUdp, listen, type Scope } from '../../resources.ts';

type Transport = 'udp' | 'tcp';

/** What is at a name for a type. */
export interface Entry {
  /** Each as in a zone file: `10 mx.example.test`, `192.0.2.1`, `3 1 1 <hex>`. None: the name exists, the record does not. */
  readonly records?: readonly string[];
  /** Default: true. */
  readonly signed?: boolean;
  /** Default: 300. */
  readonly ttl?: number;
  readonly rcode?: 'FORMERR' | 'SERVFAIL' | 'NXDOMAIN' | 'NOTIMP' | 'REFUSED';
  readonly silent?: boolean;
  /** Answers only when this is fulfilled. */
  readonly after?: Promise<unknown>;
  /** Over TCP the reply comes byte by byte, or its first half and then the end, or only the end. */
  readonly tcp?: 'byte by byte' | 'half' | 'hang-up';
  /** Replaces the reply by any messages, in this order. */
  readonly reply?: (
    packet: Packet,
    query: DecodedPacket,
    transport: Transport,
  ) => readonly (Packet | Buffer)[];
}

/** By `name TYPE`. A name with a CNAME entry is an alias for every other type. All others do not exist. */
export type Entries = Readonly<Record<string, Entry>>;

interface Asked {
  readonly name: string;
  readonly type: string;
  readonly transport: Transport;
  readonly query: DecodedPacket;
  readonly port: number;
}

export interface Validator {
  readonly server: DnsServer;
  readonly asked: readonly Asked[];
  /** Answers from another table from now on. */
  set(entries: Entries): void;
  /** `name TYPE` of everything that was asked so far, in order. */
  questions(): string[];
}

const RCODES = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 } as const;

const MAX_ALIASES = 40;
const NEGATIVE: Entry = { rcode: 'NXDOMAIN' };

/** Stops with the scope. */
export async function startValidator(scope: Scope, entries: Entries = {}): Promise<Validator> {
  let table = entries;
  const asked: Asked[] = [];
  let open = true;
  scope.after(() => {
    // An answer that comes later has no socket to go to.
    open = false;
  });

  async function answer(
    message: Buffer,
    transport: Transport,
    port: number,
    send: (bytes: Buffer, tcp: Entry['tcp']) => void,
  ) {
    const query = decode(message);
    const { name = '.', type = 'A' } = query.questions?.[0] ?? {};
    asked.push({ name, type, transport, query, port });
    const { packet, entry } = reply(query, name, type, table);
    await entry.after;
    if (entry.silent) return;
    for (const each of entry.reply?.(packet, query, transport) ?? [packet]) {
      if (open) send(Buffer.isBuffer(each) ? each : encode(each), entry.tcp);
    }
  }

  const tcp = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => {});
    let received = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
      const end = 2 + received.readUInt16BE(0);
      void answer(received.subarray(2, end), 'tcp', socket.remotePort ?? 0, (bytes, fault) => {
        const length = Buffer.alloc(2);
        length.writeUInt16BE(bytes.length);
        const whole = Buffer.concat([length, bytes]);
        if (fault === 'byte by byte') for (const byte of whole) socket.write(Buffer.of(byte));
        else if (fault === 'half') socket.end(whole.subarray(0, whole.length / 2));
        else if (fault === 'hang-up') socket.end();
        else socket.write(whole);
      });
    });
  });
  const { udp, port } = await listenOnBoth(scope, tcp);
  udp.on('error', () => {});
  udp.on('message', (message, { port, address }) => {
    void answer(message, 'udp', port, (bytes) => udp.send(bytes, port, address));
  });

  return {
    server: { address: '127.0.0.1', port },
    asked,
    set(other) {
      table = other;
    },
    questions: () => asked.map(({ name, type }) => `${name} ${type}`),
  };
}

/** UDP and TCP on one port, which has to be free for both. */
async function listenOnBoth(scope: Scope, tcp: Server): Promise<{ udp: UdpSocket; port: number }> {
  for (let attempt = 0; ; attempt += 1) {
    const port = await listen(scope, tcp);
    try {
      return { udp: await bindUdp(scope, port), port };
    } catch (error) {
      const closed = once(tcp, 'close');
      tcp.close();
      await closed;
      if (attempt === 20) throw error;
    }
  }
}

function reply(query: DecodedPacket, name: string, type: string, entries: Entries) {
  const answers: Answer[] = [];
  let owner = name;
  let signed = true;
  for (let alias = entries[`${owner} CNAME`]; alias && type !== 'CNAME'; alias = entries[`${owner} CNAME`]) {
    const [target = ''] = alias.records ?? [];
    signed &&= alias.signed ?? true;
    answers.push(...records(owner, 'CNAME', alias));
    owner = target;
    if (answers.length >= MAX_ALIASES) break;
  }
  const entry = entries[`${owner} ${type}`] ?? (existsIn(entries, owner) ? {} : NEGATIVE);
  const found = entry.rcode ? [] : records(owner, type, entry);
  signed &&= entry.signed ?? true;
  const negative = found.length === 0 && [undefined, 'NXDOMAIN'].includes(entry.rcode);
  const failing = entry.rcode !== undefined && entry.rcode !== 'NXDOMAIN';
  const packet: Packet = {
    type: 'response',
    id: query.id ?? 0,
    flags:
      RECURSION_AVAILABLE |
      ((query.flags ?? 0) & RECURSION_DESIRED) |
      (signed && !failing ? AUTHENTIC_DATA : 0) |
      RCODES[entry.rcode ?? 'NOERROR'],
    questions: query.questions ?? [],
    answers: failing ? [] : [...answers, ...found],
    authorities: negative ? [soa(owner, entry.ttl ?? 300)] : [],
    additionals: [OPT],
  };
  return { packet, entry };
}

function existsIn(entries: Entries, name: string): boolean {
  return Object.keys(entries).some((key) => key.startsWith(`${name} `));
}

function records(name: string, type: string, { records: texts = [], ttl = 300 }: Entry): Answer[] {
  return texts.map((text): Answer => {
    const fields = text.split(' ');
    switch (type) {
      case 'MX':
        return { name, type, ttl, data: { preference: Number(fields[0]), exchange: fields[1] ?? '' } };
      case 'TLSA': {
        const [usage = 0, selector = 0, matchingType = 0] = fields.map(Number);
        const certificate = Buffer.from(fields[3] ?? '', 'hex');
        return { name, type, ttl, data: { usage, selector, matchingType, certificate } };
      }
      case 'SOA':
        return soa(name, ttl);
      case 'TXT':
        // dns-packet changes the array that it is given.
        return { name, type, ttl, data: text.split('|') };
      case 'A':
      case 'AAAA':
      case 'CNAME':
        return { name, type, ttl, data: text };
      default:
        throw new Error(`no records of type ${type} here`);
    }
  });
}

/** Its own time to live is above MINIMUM, so that it shows which of the two counts. */
function soa(name: string, minimum: number): Answer {
  const times = { serial: 1, refresh: 3_600, retry: 600, expire: 86_400, minimum };
  return { name, type: 'SOA', ttl: 2 * minimum, data: { mname: 'ns.test', rname: 'mail.test', ...times } };
}

const OPT: Answer = {
  name: '.',
  type: 'OPT',
  udpPayloadSize: 1232,
  extendedRcode: 0,
  ednsVersion: 0,
  flags: 0,
  flag_do: false,
  options: [],
};

/** What a server says that wants to be asked over TCP. */
export function truncated(packet: Packet): Packet {
  return { ...packet, flags: (packet.flags ?? 0) | TRUNCATED_RESPONSE, answers: [], authorities: [] };
}
