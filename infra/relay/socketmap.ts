// The socketmap protocol of Postfix and Sendmail (socketmap_table(5)): requests and replies as netstrings. Pure.

import { quote } from '../../functions/mtasts/failure.ts';
import { deferral, MAPS, type MapName, type Reply } from './answer.ts';

/**
 * The longest request that is read: Postfix looks up no key of more than 10,000 bytes (dict_sockmap.c), and before it
 * come the name of the map and a blank.
 */
export const MAX_REQUEST_BYTES = 10_240;

const COLON = 0x3a;
const COMMA = 0x2c;
const DIGIT_0 = 0x30;
const DIGIT_9 = 0x39;

export type Netstring =
  | { readonly kind: 'whole'; readonly payload: Buffer; readonly end: number }
  | { readonly kind: 'incomplete' }
  /** What follows cannot be read either: where it begins is not known. */
  | { readonly kind: 'malformed'; readonly reason: string };

const malformed = (reason: string): Netstring => ({ kind: 'malformed', reason });

/** The netstring that starts at `start`, if all of it is there. Says so as soon as it can be none. */
export function decodeNetstring(bytes: Buffer, start: number, maxBytes: number): Netstring {
  let length = 0;
  let at = start;
  for (; at < bytes.length && bytes[at] !== COLON; at++) {
    const byte = bytes[at] ?? 0;
    if (byte < DIGIT_0 || byte > DIGIT_9)
      return malformed('a request is a netstring, as 19:mta-sts example.com,');
    // "a leading zero is prohibited" but in "0:" (cr.yp.to/proto/netstrings.txt). It also bounds the number of digits.
    if (at > start && length === 0) return malformed('the length of a request has a leading zero');
    length = length * 10 + (byte - DIGIT_0);
    if (length > maxBytes) return malformed(`a request has at most ${maxBytes} bytes`);
  }
  if (at === bytes.length) return { kind: 'incomplete' };
  if (at === start) return malformed('a request begins with its length');
  const end = at + 1 + length;
  if (bytes.length <= end) return { kind: 'incomplete' };
  if (bytes[end] !== COMMA) return malformed('a request ends with a comma');
  return { kind: 'whole', payload: bytes.subarray(at + 1, end), end: end + 1 };
}

export function encodeNetstring(text: string): string {
  return `${Buffer.byteLength(text)}:${text},`;
}

export type Request =
  | { readonly ok: true; readonly map: MapName; readonly key: string }
  | { readonly ok: false; readonly reply: Reply };

/** A request is "<name> <space> <key>"; the key may be empty and may have blanks. */
export function readRequest(payload: string): Request {
  const blank = payload.indexOf(' ');
  const name = blank < 0 ? payload : payload.slice(0, blank);
  const map = MAPS.find((known) => known === name);
  if (map === undefined) {
    const reason = `there is no map "${quote(name.slice(0, 40))}" here; the maps are ${MAPS.join(' and ')}`;
    return { ok: false, reply: deferral(reason, 'PERM') };
  }
  if (blank < 0)
    return { ok: false, reply: deferral('a request is the name of a map, a blank and a key', 'PERM') };
  return { ok: true, map, key: payload.slice(blank + 1) };
}
