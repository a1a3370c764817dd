// DNS messages that no encoder makes: by hand, or a sound one with something broken in it.

import { encode, type Packet } from 'dns-packet';
import type { Respond } from '../../infra/local/internet/site.ts';

const HEADER_BYTES = 12;
const TYPES = { A: 1, CNAME: 5, TXT: 16, AAAA: 28 } as const;
type Type = keyof typeof TYPES;

/** RFC 1035 §4.1.4: a pointer to the name in the question. */
export const THE_NAME = pointer(HEADER_BYTES);

export function pointer(offset: number): Buffer {
  return Buffer.from([0xc0 | (offset >> 8), offset & 0xff]);
}

/** A resource record; `claimedBytes` is what its RDLENGTH says, if not the truth. */
export function record(owner: Buffer, type: Type, data: Buffer, claimedBytes = data.length): Buffer {
  const fixed = Buffer.alloc(10);
  fixed.writeUInt16BE(TYPES[type], 0);
  fixed.writeUInt16BE(1, 2); // IN
  fixed.writeUInt16BE(claimedBytes, 8);
  return Buffer.concat([owner, fixed, data]);
}

/** The data of a TXT record of one string. */
export function text(string: string): Buffer {
  return Buffer.concat([Buffer.from([string.length]), Buffer.from(string, 'latin1')]);
}

/** The reply's header and question, then these records as its answers; `count` is what the header says of them. */
export function message(reply: Packet, records: readonly Buffer[], count = records.length): Buffer {
  const start = encode({ ...reply, answers: [], authorities: [], additionals: [] });
  start.writeUInt16BE(count, 6);
  return Buffer.concat([start, ...records]);
}

/** Answers with these records, made by hand. */
export function answers(...records: readonly Buffer[]): Respond {
  return (reply) => [message(reply, records)];
}

/** Answers with the reply, changed. */
export function changed(change: (reply: Packet) => Partial<Packet>): Respond {
  return (reply) => [{ ...reply, ...change(reply) }];
}

/** This over TCP, and the plain reply over UDP. */
export function overTcp(respond: Respond): Respond {
  return (reply, query, transport) => (transport === 'tcp' ? respond(reply, query, transport) : [reply]);
}

/** This to questions of one type, and the plain reply to others. */
export function onlyFor(type: Type, respond: Respond): Respond {
  return (reply, query, transport) =>
    query.questions?.[0]?.type === type ? respond(reply, query, transport) : [reply];
}

export function otherId(reply: Packet): Packet {
  return { ...reply, id: ((reply.id ?? 0) + 1) & 0xffff };
}

/** The same with other flags. */
export function flagged(set: number, clear = 0): Respond {
  return changed((reply) => ({ flags: ((reply.flags ?? 0) & ~clear) | set }));
}
