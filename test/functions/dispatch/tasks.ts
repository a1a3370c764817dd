import fc from 'fast-check';
import type { WaveTask } from '../../../functions/dispatch/wave.ts';
import type { Domain } from '../../../functions/mtasts/domain.ts';

/** A Sunday in November 2026, epoch milliseconds. */
export const NOON = Date.UTC(2026, 10, 22, 12);

/** `count` tasks for domains that all differ, in a form that nobody would sort by. */
export function tasks(count: number, due: (i: number) => number = () => NOON): WaveTask[] {
  return Array.from({ length: count }, (_, i) => ({
    domain: `d${i}.example` as Domain,
    lastUpdate: NOON - 86_400_000 - i,
    due: due(i),
  }));
}

/** Random numbers that are the same in every run (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Any string that there is, of UTF-16 code units, lone surrogates and controls included. */
export const anyText: fc.Arbitrary<string> = fc
  .array(fc.oneof(fc.nat(0x7f), fc.nat(0xffff)), { maxLength: 150 })
  .map((units) => String.fromCharCode(...units));
