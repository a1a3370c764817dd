// Loaded into a process of tests by `npm run test:leaks`: makes assertions fail that would pass, so that it shows what
// tests leave open when they fail. At its end, the process writes down which assertions it met, and which of them failed.

import assert, { AssertionError } from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { beforeEach } from 'node:test';
import { isMainThread } from 'node:worker_threads';

/** What becomes of one run of a file. */
export interface Injection {
  /** Files with their lines and columns. */
  readonly met: readonly string[];
  readonly failed: readonly string[];
}

const ASYNCHRONOUS = new Set(['rejects', 'doesNotReject']);

const { searchParams } = new URL(import.meta.url);
/** In each test, the assertion of this number fails: the first is 0. */
const number = searchParams.get('number');
/** The assertion at this place fails, in whichever test. */
const place = searchParams.get('place');
const report = searchParams.get('report');

const met = new Set<string>();
const failed = new Set<string>();
/** Of the assertions since the last test began; none before the first. */
let sinceTestBegan: number | undefined;

function callSite(): string | undefined {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 8;
  const { stack = '' } = new Error();
  Error.stackTraceLimit = limit;
  // The nearest frame is this function, then the replaced assertion.
  return stack
    .split('\n')
    .slice(3)[0]
    ?.match(/file:\/\/[^)]+/)?.[0];
}

function replace(
  name: string,
  original: (...values: unknown[]) => unknown,
): (...values: unknown[]) => unknown {
  return (...values) => {
    const site = callSite();
    const chosen = place === null ? String(sinceTestBegan) === number : site === place;
    if (sinceTestBegan !== undefined) sinceTestBegan += 1;
    if (site !== undefined) met.add(site);
    if (!chosen) return original(...values);
    if (site !== undefined) failed.add(site);
    const error = new AssertionError({ message: 'made to fail', operator: name });
    if (ASYNCHRONOUS.has(name)) return Promise.reject(error);
    throw error;
  };
}

if (isMainThread && report !== null) {
  const mine = process.execArgv.findIndex((option) => option.includes('runner/inject.ts'));
  if (mine > 0) process.execArgv.splice(mine - 1, 2);
  const assertions = assert as unknown as Record<string, unknown>;
  for (const [name, value] of Object.entries(assertions)) {
    if (typeof value !== 'function' || !/^[a-z]/.test(name) || name === 'strict') continue;
    assertions[name] = replace(name, value as (...values: unknown[]) => unknown);
  }
  beforeEach(() => {
    sinceTestBegan = 0;
  });
  process.on('exit', () => {
    writeFileSync(report, JSON.stringify({ met: [...met], failed: [...failed] } satisfies Injection));
  });
}
