// How many connections there may be at once to one address, however many domains it serves: a provider with 10,000
// policy domains behind one address sees a few connections, and not a batch's hundred.

/** The right to one connection to `address`. */
export interface Slot {
  readonly address: string;
  /** It was not free at once. */
  readonly waited: boolean;
  /** Gives it back, to whoever has waited longest. To call it twice does no harm. */
  readonly leave: () => void;
}

export interface Gate {
  /**
   * Waits for a slot of any of the addresses, in order of arrival; of several that are free it is the first one's.
   * Resolves to undefined if `signal` came first.
   */
  enter(addresses: readonly string[], signal: AbortSignal): Promise<Slot | undefined>;
}

interface Waiter {
  readonly addresses: readonly string[];
  readonly admit: (slot: Slot) => void;
}

/** It holds nothing but open slots and those who wait, at most one of each for every domain under way. */
export function createGate(perAddress: number): Gate {
  const taken = new Map<string, number>();
  const waiting = new Set<Waiter>();

  function slot(address: string, waited: boolean): Slot {
    let left = false;
    const leave = () => {
      if (left) return;
      left = true;
      for (const waiter of waiting) {
        if (!waiter.addresses.includes(address)) continue;
        // Handed over, and never free in between: who comes now cannot overtake.
        waiting.delete(waiter);
        return waiter.admit(slot(address, true));
      }
      const others = (taken.get(address) ?? 0) - 1;
      if (others > 0) taken.set(address, others);
      else taken.delete(address);
    };
    return { address, waited, leave };
  }

  return {
    enter(addresses, signal) {
      if (signal.aborted) return Promise.resolve(undefined);
      const free = addresses.find((address) => (taken.get(address) ?? 0) < perAddress);
      if (free !== undefined) {
        taken.set(free, (taken.get(free) ?? 0) + 1);
        return Promise.resolve(slot(free, false));
      }
      return new Promise((resolve) => {
        const giveUp = () => {
          waiting.delete(waiter);
          resolve(undefined);
        };
        const waiter: Waiter = {
          addresses,
          admit(given) {
            signal.removeEventListener('abort', giveUp);
            resolve(given);
          },
        };
        waiting.add(waiter);
        signal.addEventListener('abort', giveUp, { once: true });
      });
    },
  };
}
