// Who lives through a soak, what their servers do day by day, and how each should be at its end.

import type { Domain } from '../../functions/mtasts/domain.ts';
import type { Mode } from '../../functions/mtasts/policy.ts';
import { type BehaviourName, behaviours, type Site } from '../../infra/local/internet/internet.ts';
import type { Seed } from '../../infra/local/seed.ts';
import { seeded } from '../functions/dispatch/tasks.ts';

const DAY = 86_400_000;
const WEEK_SECONDS = 604_800;
/** In the renewal lane for most of its life. */
const SHORT_SECONDS = 140;

/**
 * `fresh`: refreshed by the last run, with what its host serves now. `kept`: its host fails to the end, and the policy is
 * what it was. `gone`: deleted, for a reason. `fresh or gone`: it depends on who was first. `backed-off`, `absent`: as
 * relays' requests leave it.
 */
type End = 'fresh' | 'kept' | 'gone' | 'fresh or gone' | 'backed-off' | 'absent';

export interface Neighbour {
  readonly domain: Domain;
  readonly kind: string;
  readonly end: End;
  /** The entry in the table at first; undefined: relays ask for it. */
  readonly seed: Seed | undefined;
  /** Relays report its use. */
  readonly used: boolean;
  /** Its place among its kind. */
  readonly turn: number;
  /** What it does on this day. On a calm one, everybody is well who can be. */
  readonly site: (day: number, calm?: boolean) => Site;
  /** The mode that its policy has at the end. */
  readonly mode: Mode;
}

interface Kind {
  readonly kind: string;
  /** Of a hundred domains. */
  readonly share: number;
  readonly end: End;
  readonly site: (domain: string, day: Day) => Site;
  readonly mode?: Mode;
  readonly maxAgeSeconds?: number;
  readonly unknown?: true;
  readonly unused?: true;
  readonly used?: true;
}

interface Day {
  readonly number: number;
  readonly calm: boolean;
  /** Drawn for this domain and day, in [0, 1). */
  readonly chance: number;
}

const always =
  (behaviour: BehaviourName, options: { maxAgeSeconds?: number; mode?: Mode } = {}) =>
  (domain: string): Site =>
    behaviours[behaviour](domain, options);

const BROKEN = [
  'server-error',
  'host-down',
  'servfail-all',
  'not-found',
  'wrong-certificate',
  'reset',
  'invalid-policy',
] as const;

/** Broken on most days. RFC 8461 §3.3: a failed id is left alone for five minutes, so each day has a new one. */
function flapping(domain: string, { number, calm, chance }: Day): Site {
  const id = `day${number}`;
  if (calm || chance < 0.4) return behaviours.healthy(domain, { id });
  const broken = BROKEN[Math.floor(chance * 1_000) % BROKEN.length] as BehaviourName;
  return behaviours[broken](domain, { id });
}

const changing = (domain: string, { number }: Day): Site =>
  behaviours.healthy(domain, { id: `day${number}`, mx: [`mx${number}.${domain}`] });

const KINDS: readonly Kind[] = [
  { kind: 'steady', share: 30, end: 'fresh', site: always('healthy') },
  { kind: 'used', share: 4, end: 'fresh', site: always('healthy'), used: true },
  { kind: 'testing', share: 5, end: 'fresh', site: always('healthy', { mode: 'testing' }), mode: 'testing' },
  {
    kind: 'short-lived',
    share: 10,
    end: 'fresh',
    site: always('healthy', { maxAgeSeconds: SHORT_SECONDS }),
    maxAgeSeconds: SHORT_SECONDS,
  },
  { kind: 'without-record', share: 3, end: 'fresh', site: always('servfail') },
  { kind: 'changing', share: 10, end: 'fresh', site: changing },
  { kind: 'flapping', share: 12, end: 'fresh', site: flapping },
  { kind: 'leaving', share: 3, end: 'fresh', site: always('mode-none'), mode: 'none' },
  { kind: 'left', share: 3, end: 'gone', site: always('nxdomain'), mode: 'none' },
  { kind: 'hostile', share: 2, end: 'kept', site: always('oversized') },
  { kind: 'babbling', share: 2, end: 'kept', site: always('garbage') },
  { kind: 'redirecting', share: 2, end: 'kept', site: always('redirect') },
  { kind: 'slow', share: 1, end: 'fresh', site: always('slow') },
  { kind: 'unused', share: 2, end: 'gone', site: always('healthy'), unused: true },
  { kind: 'used-again', share: 2, end: 'fresh or gone', site: always('healthy'), unused: true, used: true },
  { kind: 'asked-for', share: 6, end: 'fresh', site: always('healthy'), unknown: true },
  { kind: 'asked-in-vain', share: 2, end: 'backed-off', site: always('not-found'), unknown: true },
  { kind: 'asked-without', share: 1, end: 'absent', site: always('nxdomain'), unknown: true },
];

/** @returns so many domains, of each kind at least one. */
export function settleTown({ seed, domains }: { seed: number; domains: number }, now: number): Neighbour[] {
  return KINDS.flatMap((kind, i) => {
    const count = Math.max(1, Math.round((kind.share / 100) * domains));
    return Array.from({ length: count }, (_, j) => settle(kind, j, seed * 1_000 + i, now));
  });
}

function settle(kind: Kind, number: number, seed: number, now: number): Neighbour {
  const domain = `${kind.kind}-${number}.test` as Domain;
  const { mode = 'enforce', maxAgeSeconds = WEEK_SECONDS, end, used = false } = kind;
  return {
    ...{ domain, kind: kind.kind, end, mode, used, turn: number },
    site(day, calm = false) {
      const chance = seeded(seed * 100_003 + number * 101 + day)();
      return kind.site(domain, { number: day, calm, chance });
    },
    seed: kind.unknown
      ? undefined
      : {
          domain,
          // What says `none` today said something else before.
          policy: { mode: kind.kind === 'leaving' ? 'enforce' : mode, mx: [`mail.${domain}`], maxAgeSeconds },
          recordId: 'id1',
          inserted: now - 200 * DAY,
          lastUpdate: now - 60_000,
          ...(kind.unused ? {} : { lastUse: now - 2 * DAY }),
        },
  };
}
