// What telemetry writes, line by line: it is called in a process of its own, since the output of this one is the test
// runner's.

import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after } from 'node:test';
import { killAfter } from '../../resources.ts';
import type { Call } from './telemetry-child.ts';

const CHILD = join(import.meta.dirname, 'telemetry-child.ts');

export type Line = Record<string, unknown>;

/** What no text in a log line may have: controls, formats, line and paragraph separators. */
export const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

/** Bytes of one line about a domain, with whatever a stranger can put into it. */
export const MAX_LINE_BYTES = 2_300;

const releases: (() => unknown)[] = [];
after(() => Promise.all(releases.map((release) => release())));

/** Each line as JSON. */
export async function written(...calls: Call[]): Promise<Line[]> {
  // They last a moment, so it is enough that none outlives the tests of its file.
  const child = killAfter(
    { after: (release) => releases.push(release) },
    fork(CHILD, {
      silent: true,
      serialization: 'advanced',
      env: {
        PATH: process.env.PATH,
        SystemRoot: process.env.SystemRoot,
        POWERTOOLS_SERVICE_NAME: 'mta-sts-refresher',
        POWERTOOLS_METRICS_NAMESPACE: 'mta-sts-refresher',
      },
    }),
  );
  assert.ok(child.stdout !== null && child.stderr !== null);
  child.send(calls);
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]);
  assert.equal(code, 0, err);
  return `${out}${err}`
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line);
}
