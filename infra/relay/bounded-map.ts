// A map that forgets what was used least lately. Whatever a stranger can make this relay remember is kept in one.

export interface BoundedMap<K, V> {
  /** Counts as use. */
  get(key: K): V | undefined;
  set(key: K, value: V): void;
  delete(key: K): boolean;
  readonly size: number;
  /** Least lately used first. */
  values(): IterableIterator<V>;
}

/**
 * @param limits.weight the most that all values may weigh together; one that weighs more alone is not kept.
 * @param limits.weigh what a value weighs; always the same for the same value.
 */
export function createBoundedMap<K, V>(limits: {
  readonly entries: number;
  readonly weight?: number;
  readonly weigh?: (value: V) => number;
}): BoundedMap<K, V> {
  const { entries, weight = Number.POSITIVE_INFINITY, weigh = () => 0 } = limits;
  // A Map iterates in the order of insertion: what is used is inserted anew.
  const map = new Map<K, V>();
  let total = 0;

  function remove(key: K): boolean {
    const value = map.get(key);
    if (value === undefined) return false;
    total -= weigh(value);
    return map.delete(key);
  }

  return {
    get size() {
      return map.size;
    },
    get(key) {
      const value = map.get(key);
      if (value !== undefined) {
        map.delete(key);
        map.set(key, value);
      }
      return value;
    },
    set(key, value) {
      remove(key);
      map.set(key, value);
      total += weigh(value);
      if (map.size <= entries && total <= weight) return;
      for (const oldest of map.keys()) {
        if (map.size <= entries && total <= weight) break;
        remove(oldest);
      }
    },
    delete: remove,
    values: () => map.values(),
  };
}
