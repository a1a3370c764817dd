// Who may have a DNS question on its way, and who waits. Whoever can make mail go to a name of theirs makes this relay ask
// their name servers, and silence holds a place until the question is given up. So nobody gets more than a share, and who
// holds least is next. Nothing here knows DNS.

import type { Domain } from '../../functions/mtasts/domain.ts';
import { registrableDomain } from '../../functions/request/discovery.ts';

export interface PlaceLimits {
  /** Questions on their way at once. */
  readonly places: number;
  /** Questions that wait for a place; more than these are turned away. */
  readonly waiting: number;
  /** Places that one domain may hold. */
  readonly perDomain: number;
  /** Places that all domains below one registrable domain may hold: its owner can make as many names as they like. */
  readonly perRegistrable: number;
}

export type Taken =
  /** To be left, exactly once. */
  | { readonly kind: 'taken'; leave(): void }
  /** Too many wait, of all or of this registrable domain. */
  | { readonly kind: 'full' }
  | { readonly kind: 'aborted' };

export interface Places {
  /**
   * Waits for a place.
   * @param domain on whose account it goes: the domain that was looked up, whatever name the question is about.
   */
  take(domain: string, signal: AbortSignal): Promise<Taken>;
}

/**
 * Of all places, those that are only for who holds none: nobody gets a second one while fewer than this part is free. So
 * strangers with as many domains as half the places, each as greedy as can be, still leave a place to whoever comes next.
 */
const PART_FOR_FIRST = 1 / 2;

/**
 * Of what is free where questions wait, no registrable domain may take more than this part: whoever fills the room leaves
 * some of it to the others, and these some of that.
 */
const PART_OF_ROOM = 1 / 16;

interface Account {
  readonly key: string;
  held: number;
  waiting: number;
}

interface Waiter {
  readonly domain: Account;
  readonly registrable: Account;
  enter(): void;
}

export function createPlaces(limits: PlaceLimits): Places {
  // Two maps, as a domain and its registrable domain may have one name. Who holds nothing and waits for nothing is in neither.
  const domains = new Map<string, Account>();
  const registrables = new Map<string, Account>();
  /** In the order in which they came. None of them could enter now. */
  const queue = new Set<Waiter>();
  let held = 0;

  function mayEnter({ domain, registrable }: Waiter): boolean {
    const free = limits.places - held;
    if (free <= limits.places * PART_FOR_FIRST) return free > 0 && registrable.held === 0;
    return domain.held < limits.perDomain && registrable.held < limits.perRegistrable;
  }

  function mayWait({ registrable }: Waiter): boolean {
    const free = limits.waiting - queue.size;
    return free > 0 && registrable.waiting < Math.max(1, free * PART_OF_ROOM);
  }

  function move({ domain, registrable }: Waiter, change: { held?: number; waiting?: number }): void {
    for (const account of [domain, registrable]) {
      account.held += change.held ?? 0;
      account.waiting += change.waiting ?? 0;
    }
    held += change.held ?? 0;
    close(domains, domain);
    close(registrables, registrable);
  }

  function leave(waiter: Waiter): void {
    move(waiter, { held: -1 });
    for (let next = nextOf(queue, mayEnter); next !== undefined; next = nextOf(queue, mayEnter)) next.enter();
  }

  return {
    take: (name, signal) =>
      new Promise((resolve) => {
        if (signal.aborted) return resolve({ kind: 'aborted' });
        const waiter: Waiter = {
          domain: open(domains, name),
          registrable: open(registrables, registrableDomain(name as Domain)),
          enter: () => {
            signal.removeEventListener('abort', giveUp);
            if (queue.delete(waiter)) move(waiter, { held: 1, waiting: -1 });
            else move(waiter, { held: 1 });
            resolve({ kind: 'taken', leave: () => leave(waiter) });
          },
        };
        const giveUp = () => {
          queue.delete(waiter);
          move(waiter, { waiting: -1 });
          resolve({ kind: 'aborted' });
        };
        if (mayEnter(waiter)) return waiter.enter();
        if (!mayWait(waiter)) {
          move(waiter, {});
          return resolve({ kind: 'full' });
        }
        queue.add(waiter);
        move(waiter, { waiting: 1 });
        signal.addEventListener('abort', giveUp, { once: true });
      }),
  };
}

function open(accounts: Map<string, Account>, key: string): Account {
  const known = accounts.get(key);
  if (known !== undefined) return known;
  const account = { key, held: 0, waiting: 0 };
  accounts.set(key, account);
  return account;
}

function close(accounts: Map<string, Account>, { key, held, waiting }: Account): void {
  if (held === 0 && waiting === 0) accounts.delete(key);
}

/** Of those who may enter, the one whose owner holds least, then whose domain does, then who came first. */
function nextOf(queue: Iterable<Waiter>, mayEnter: (waiter: Waiter) => boolean): Waiter | undefined {
  let best: Waiter | undefined;
  for (const waiter of queue) {
    if (!mayEnter(waiter)) continue;
    if (best === undefined || isBefore(waiter, best)) best = waiter;
  }
  return best;
}

function isBefore(one: Waiter, other: Waiter): boolean {
  const registrable = one.registrable.held - other.registrable.held;
  return registrable < 0 || (registrable === 0 && one.domain.held < other.domain.held);
}
