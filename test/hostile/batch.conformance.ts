// `npm run test:hostile`: as batch.test.ts, with domains that are slow, and with thirty that use up the whole minute that a
// domain has.

import { test } from 'node:test';
import { LIMITS } from '../../functions/mtasts/limits.ts';
import type { PolicyHost } from '../../infra/local/internet/site.ts';
import { type Hostile, noFleet, playHostile, repeat, startFleet } from './batch.ts';
import { PROMPT, WAITING } from './batch-rows.ts';
import { answering, POLICY } from './https.ts';

const HEAD = 'HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n';
const PATIENT = 0.5 * LIMITS.bodyIdleMs;

const slow: Record<string, PolicyHost> = {
  'a body in drops': { policy: { raw: `${HEAD}\r\n${POLICY}`, more: [{ forever: '\n', everyMs: 50 }] } },
  'a body in rare drops': { policy: { raw: `${HEAD}\r\n`, more: [{ forever: '\n', everyMs: PATIENT }] } },
  'chunks in drops': {
    policy: {
      raw: `${HEAD}transfer-encoding: chunked\r\n\r\n`,
      more: [{ forever: '1\r\n\n\r\n', everyMs: 50 }],
    },
  },
  'a policy in drops': answering({ trickle: { bytes: 1, everyMs: 0.2 * LIMITS.bodyIdleMs } }),
  'late headers, and 64 KB in drops': answering({
    delayMs: 0.5 * LIMITS.headersMs,
    body: POLICY + '\n'.repeat(65_000),
    trickle: { bytes: 50, everyMs: 100 },
  }),
};
const hostile = Object.entries(slow).flatMap(([name, https]) =>
  repeat(6, (index): Hostile => [`${name} ${index}`, 'deadline-exceeded', https]),
);

test('a batch with thirty domains that take all their time', { skip: noFleet }, async (t) => {
  await playHostile(t, await startFleet(t), hostile, LIMITS.domainMs);
});

test('a batch with thirty domains that are large or slow', { skip: noFleet }, async (t) => {
  // DNS can be silent twice, first about the record and then about the host.
  const slowestMs = Math.max(2 * LIMITS.dnsMs, LIMITS.headersMs);
  await playHostile(t, await startFleet(t), [...PROMPT, ...WAITING], slowestMs);
});
