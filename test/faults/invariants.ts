// What must hold of every run, whatever went wrong in it, as a pure function over what the database accepted and what
// is in it at the end.

import type { Item, Write } from './journal.ts';
import { versionOf } from './journal.ts';

/** A domain's entry as it was when the journal began, and as it is now; undefined: none. */
export interface Entry {
  readonly domain: string;
  readonly first: Item | undefined;
  readonly last: Item | undefined;
}

/**
 * Nothing is overwritten or lost: a write changes the very version that its writer had read; at most one is successful
 * for each version read; LastUpdate grows; and the versions form one line from the first to the last, so that every
 * accepted write is in it. A note of a failure (`fail`) leaves LastUpdate as it is, and so may be written repeatedly
 * for one version; it may change nothing that relays read.
 *
 * @returns what is broken, in words.
 */
export function breachesOf(entries: readonly Entry[], writes: readonly Write[]): string[] {
  const byDomain = Map.groupBy(writes, ({ domain }) => domain);
  const known = new Set(entries.map(({ domain }) => domain));
  const strangers = [...byDomain.keys()].filter((domain) => !known.has(domain));
  return [
    ...strangers.map((domain) => `${domain}: written, although nobody asked for it`),
    ...entries.flatMap((entry) => {
      const own = byDomain.get(entry.domain) ?? [];
      const breaches = [
        ...own.flatMap(breachesOfWrite),
        ...breachesOfLine(entry, own),
        ...breachesOfVersions(entry, own),
      ];
      return breaches.map((breach) => `${entry.domain}: ${breach}`);
    }),
  ];
}

/** Those that make a new version of an entry, or end it. */
const VERSIONS: readonly Write['kind'][] = ['refresh', 'discovery', 'removal', 'prune'];

function breachesOfWrite({ kind, process, read, before, lastUpdate }: Write): string[] {
  const version = versionOf(before);
  const breaches: string[] = [];
  const check = (holds: boolean, what: string) => {
    if (!holds) breaches.push(`${kind} by ${process} ${what}`);
  };
  switch (kind) {
    case 'refresh':
      check(version === read, `is over version ${version}, but was made of ${read}`);
      check(version !== undefined && Number(lastUpdate) > version, `goes from ${version} to ${lastUpdate}`);
      break;
    case 'discovery':
      check(version === undefined, `is over version ${version}`);
      break;
    case 'removal':
    case 'failure':
      check(version !== undefined && version === read, `is over version ${version}, but was made of ${read}`);
      break;
    case 'prune':
      check(before?.LastUse?.N !== undefined, 'is of an entry whose use is not known');
      break;
    case 'use':
      check(version !== undefined, 'is of no entry');
      break;
  }
  return breaches;
}

function breachesOfLine({ first, last }: Entry, writes: readonly Write[]): string[] {
  const breaches: string[] = [];
  const left = writes.filter(({ kind }) => VERSIONS.includes(kind));

  const readers = new Set<string>();
  for (const { kind, read } of left) {
    if (kind !== 'refresh' && kind !== 'removal') continue;
    if (readers.has(`${read}`))
      breaches.push(`two successful writes for the one version ${read} that was read`);
    readers.add(`${read}`);
  }

  let version = versionOf(first);
  for (;;) {
    const at = left.findIndex(({ before }) => versionOf(before) === version);
    if (at < 0) break;
    const [next] = left.splice(at, 1) as [Write];
    version = next.lastUpdate;
  }
  for (const { kind, process, before } of left) {
    breaches.push(
      `${kind} by ${process} over version ${versionOf(before)}, which is in no line with the others`,
    );
  }
  if (versionOf(last) !== version)
    breaches.push(`is at version ${versionOf(last)}, but should be at ${version}`);
  return breaches;
}

/** What relays read. It changes with LastUpdate, and never without. */
const CONTRACT = [
  'ValidEnd',
  'Backoff',
  'Mode',
  'MX',
  'MaxAgeSeconds',
  'RecordID',
  'PolicyText',
  'LastFetch',
  'Inserted',
];

function breachesOfVersions({ first, last }: Entry, writes: readonly Write[]): string[] {
  const images = [first, ...writes.map(({ before }) => before), last].filter((image) => image !== undefined);
  return [...Map.groupBy(images, versionOf)].flatMap(([version, [one, ...others]]) =>
    CONTRACT.filter((name) =>
      others.some((other) => JSON.stringify(one?.[name]) !== JSON.stringify(other[name])),
    ).map((name) => `${name} of version ${version} was changed`),
  );
}
