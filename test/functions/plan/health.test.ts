import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import { type Health, HealthCheck } from '../../../functions/plan/health.ts';
import type { ScannedRecord } from '../../../functions/store/policy-store.ts';

const NOW = 1_763_788_800_000;
const HOUR = 3_600_000;

const FINE: ScannedRecord = {
  domain: 'example.com' as Domain,
  lastUpdate: NOW - HOUR,
  lastUse: NOW - HOUR,
  lastFetch: NOW - HOUR,
  mode: 'enforce',
  backoff: false,
  validEnd: NOW + 100 * HOUR,
  failingSince: undefined,
  lastFailure: undefined,
};

const HEALTHY = { valid: 10, backoff: 0, lapsed: 0, expiring: 0, failingSafe: 0, failing: 0 };
const FAILING = { failingSince: NOW - HOUR };

const rows: [what: string, record: Partial<ScannedRecord>, differs: Partial<Health>][] = [
  ['nothing wrong', {}, {}],
  ['expires soon, but nothing fails', { validEnd: NOW + 1 }, {}],
  ['failing, expires in six hours', { ...FAILING, validEnd: NOW + 6 * HOUR }, { failingSafe: 1 }],
  ['failing, expires a millisecond earlier', { ...FAILING, validEnd: NOW + 6 * HOUR - 1 }, { expiring: 1 }],
  ['failing, expires now', { ...FAILING, validEnd: NOW }, { valid: 9, lapsed: 1 }],
  ['expires now', { validEnd: NOW }, { valid: 9, lapsed: 1 }],
  ['expired a day ago', { validEnd: NOW - 24 * HOUR + 1 }, { valid: 9, lapsed: 1 }],
  ['expired longer ago', { validEnd: NOW - 24 * HOUR }, { valid: 9 }],
  ['no ValidEnd', { validEnd: undefined }, { valid: 9 }],
  ['failing for 48 hours', { failingSince: NOW - 48 * HOUR }, { failingSafe: 1 }],
  ['failing for longer', { failingSince: NOW - 48 * HOUR - 1 }, { failingSafe: 1, failing: 1 }],
  [
    'failing for longer, and lapsed',
    { failingSince: NOW - 72 * HOUR, validEnd: NOW - HOUR },
    { valid: 9, failing: 1, lapsed: 1 },
  ],
  ['failing, never fetched', { failingSince: NOW - 72 * HOUR, lastFetch: undefined }, { failingSafe: 1 }],
  ['none, failing', { mode: 'none', failingSince: NOW - 72 * HOUR }, {}],
  ['none, expired', { mode: 'none', validEnd: NOW - HOUR }, { valid: 9 }],
  ['back-off', { backoff: true, mode: 'none' }, { valid: 9, backoff: 1 }],
  [
    'back-off, failing and expired',
    { backoff: true, failingSince: 0, validEnd: 0 },
    { valid: 9, backoff: 1 },
  ],
];

for (const [what, record, differs] of rows) {
  test(`of ten policies, one: ${what}`, () => {
    const health = new HealthCheck(NOW);
    health.see({ ...FINE, ...record });
    const { stored, oldestUpdate, ...counts } = health.report(10);
    assert.equal(stored, 10);
    assert.equal(oldestUpdate, FINE.lastUpdate);
    assert.deepEqual(counts, { ...HEALTHY, ...differs });
  });
}

test('the oldest update is the least of those seen, and unknown where none is', () => {
  const health = new HealthCheck(NOW);
  assert.equal(health.report(3).oldestUpdate, undefined);
  for (const lastUpdate of [5, 3, 4]) health.see({ ...FINE, lastUpdate });
  assert.equal(health.report(3).oldestUpdate, 3);
});
