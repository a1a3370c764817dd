// Time, as this relay's modules take it: given from outside, so that tests can make it.

export interface Clock {
  /** Epoch milliseconds. */
  now(): number;
  /** Resolves after so many milliseconds, or as soon as the signal is aborted. */
  sleep(milliseconds: number, signal: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: Date.now,
  sleep: (milliseconds, signal) =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', end);
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      signal.addEventListener('abort', end);
    }),
};

/** The work was not done in the time that it was given: whoever gave it knows whether that was much. */
export class LateError extends Error {
  readonly code = 'late';
}

/**
 * Rejects with a LateError if the work is not done after so many milliseconds, also if it does not listen to the signal that it is given,
 * as with AWS credentials that never come.
 */
export async function within<T>(
  milliseconds: number,
  clock: Clock,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const late = new AbortController();
  const done = new AbortController();
  const giveUp = async () => {
    await clock.sleep(milliseconds, done.signal);
    throw new LateError(`no answer within ${milliseconds} ms`);
  };
  try {
    return await Promise.race([work(late.signal), giveUp()]);
  } catch (error) {
    late.abort(error);
    throw error;
  } finally {
    // Without a reason of ours, an exception with a stack is made, which takes longer than all the rest.
    done.abort('done');
  }
}

/**
 * Whether something that happened at `then` is less than so many milliseconds ago. What seems to be in the future was
 * noted before the clock was put back, and is no reason to wait until it is there again.
 */
export function isRecent(then: number, milliseconds: number, now: number): boolean {
  return now >= then && now - then < milliseconds;
}
