/**
 * Runs `work` for every item, at most `limit` at a time, and takes an item only when it is about to be worked on.
 * Rejects with the first error, after what was running then has ended; no further items are started.
 */
export async function eachConcurrently<T>(
  items: Iterable<T>,
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  // One generator for all workers: each takes the next item when it is free, and one that fails ends it for all.
  const queue = (function* () {
    yield* items;
  })();
  const errors: unknown[] = [];
  const worker = async () => {
    try {
      for (const item of queue) await work(item);
    } catch (error) {
      errors.push(error);
    }
  };
  await Promise.all(Array.from({ length: limit }, worker));
  if (errors.length > 0) throw errors[0];
}
