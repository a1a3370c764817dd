// What is known about a domain, in words for an operator.

import { quote } from '../../functions/mtasts/failure.ts';
import type { PolicyRecord } from '../../functions/store/policy-store.ts';
import type { Entry } from './entry.ts';
import type { TxtRecord } from './judgement.ts';
import type { Read } from './table.ts';

const MAX_PATTERNS = 20;

export function describeEntry({ policy, backoff, validEnd, recordId }: Entry, now: number): string {
  const until = `${validEnd > now ? 'until' : 'but it ended at'} ${formatTime(validEnd, now)}`;
  const id = recordId === undefined ? 'no record id' : `record id ${recordId}`;
  if (backoff) return `back-off (a record, whose policy could not be had), ${id}, ${until}`;
  const mx = policy.mx.slice(0, MAX_PATTERNS).join(', ');
  const more = policy.mx.length > MAX_PATTERNS ? ` and ${policy.mx.length - MAX_PATTERNS} more` : '';
  return `policy, mode ${policy.mode}, mx ${mx || 'none'}${more}, max_age ${policy.maxAgeSeconds}, ${id}, ${until}`;
}

export function describeRead(read: Read, now: number): string[] {
  switch (read.kind) {
    case 'item':
      return [`table: ${describeEntry(read.entry, now)}`, `table: ${describeHistory(read.record, now)}`];
    case 'absent':
      return ['table: no item'];
    case 'unreadable':
      return [`table: an item that cannot be used: ${read.reason}`];
    case 'failed':
      return [`table: cannot be read: ${read.reason}`];
  }
}

function describeHistory({ lastUpdate, lastFetch, failing }: PolicyRecord, now: number): string {
  const parts = [
    `refreshed ${formatTime(lastUpdate, now)}`,
    lastFetch === undefined ? 'never fetched' : `fetched ${formatTime(lastFetch, now)}`,
  ];
  if (failing !== undefined) {
    parts.push(
      `failing since ${formatTime(failing.since, now)}`,
      `last tried ${formatTime(failing.lastAttempt, now)}: ${quote(failing.code)}`,
    );
  }
  return parts.join('; ');
}

/** @param entry the item that counts; undefined: there is none. */
export function describeRecord(txt: TxtRecord, entry: Entry | undefined): string {
  switch (txt.status) {
    case 'found':
      if (entry === undefined) return `TXT record: id ${txt.id}`;
      return txt.id === entry.recordId
        ? `TXT record: id ${txt.id}, the same as the item's`
        : `TXT record: id ${txt.id}, another than the item's: the functions would be asked to look`;
    case 'absent':
    case 'unusable':
      return `TXT record: ${txt.status}, for ${txt.ttlSeconds} s: ${txt.reason}`;
    case 'unavailable':
      return `TXT record: cannot be told: ${txt.reason}`;
  }
}

const UNITS = [
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'min'],
  [1_000, 's'],
] as const;

/** The largest time that a Date can hold. */
const MAX_TIME = 8.64e15;

/** With the distance to now, which is what one looks for. */
export function formatTime(time: number, now: number): string {
  if (!(Math.abs(time) <= MAX_TIME)) return 'at a time that is none';
  const distance = Math.abs(time - now);
  const [size, unit] = UNITS.find(([milliseconds]) => distance >= milliseconds) ?? [1_000, 's'];
  const words = `${Math.round(distance / size)} ${unit}`;
  return `${new Date(time).toISOString()} (${time > now ? `in ${words}` : `${words} ago`})`;
}
