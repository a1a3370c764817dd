import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Arrangement,
  concurrency,
  estimate,
  fillOf,
  lambdaMs,
  SLOWER,
  type World,
} from './arrangements.ts';
import { alternatives, type Counted, costOf, growing, type Line, planMs, type Setup, total } from './cost.ts';
import { attributesOf, itemBytes, readUnits, scanUnits, writeUnits } from './items.ts';
import { failingShares } from './mix.ts';
import { PRICES } from './prices.ts';

const PATIENCE = { phaseMs: 10_000, headersMs: 30_000, domainMs: 60_000 };

const WORLD: World = {
  sound: { old: 0.95 },
  failing: failingShares(1),
  known: 0.05,
  newly: 0,
  cpuMs: { same: 1, fetched: 3, failing: 3 },
};

/** One refresh a policy and day, in the daily run, and nothing else. */
const COUNTED: Counted = {
  refreshes: { daily: 1, renewal: 0 },
  looks: 0,
  looksFailing: 0,
  refreshesWritten: 1,
  looksWritten: 0,
  uses: 0,
  fetchedShare: 0,
  itemBytes: 1_024,
  bytesOutPerFetch: 0,
  planCpuMs: { daily: 0.01, renewal: 0.005 },
  dispatchCpuMs: 0.1,
  schedulesPerTask: 0.0002,
  sendsPerTask: 0.1,
  logBytes: { batch: 200, failing: 400 },
  world: WORLD,
};

const SETUP: Setup = {
  batchSize: 100,
  windowSeconds: 10,
  patience: PATIENCE,
  requestPatience: PATIENCE,
  megabytes: { plan: 512, dispatch: 256, refresh: 512, request: 256 },
  spreadSeconds: 10_800,
  renewalSpreadSeconds: 900,
  alarms: 20,
  metrics: 15,
};

const dollars = (lines: readonly Line[], what: string) => total(lines, (line) => line.what === what);
const near = (actual: number, expected: number) =>
  assert.ok(Math.abs(actual - expected) < 1e-9 + 1e-6 * Math.abs(expected), `${actual} is not ${expected}`);

// A million refreshes a day, as one would reckon them by hand from the price pages.
const byHand: [what: string, dollars: number][] = [
  ['writes of refreshes', 0.625],
  ['reads before them', 0.125],
  // 25 of them: four items of 1 KB a unit, at half price.
  ['scans, daily and hourly', 25 * 0.015625],
  ['reports of use, of one relay', 0],
  ['refreshes: send', 0.04],
  ['refreshes: receive, delete', 0.08],
  ['polls of empty queues', 0.01728],
  ['waves', 0.0002],
  ['metrics, alarms, dashboard', 9.5 / 30],
  ['requests to policy hosts', 0],
];

for (const [what, expected] of byHand) {
  test(`a million refreshes of 1 KB: ${what}`, () => {
    near(dollars(costOf(1_000_000, COUNTED, SETUP, PRICES), what), expected);
  });
}

test('what grows with the table grows with it, and the rest does not', () => {
  const [small, large] = [100_000, 1_000_000].map((policies) => costOf(policies, COUNTED, SETUP, PRICES)) as [
    Line[],
    Line[],
  ];
  for (const { what, fixed } of large) {
    const ratio = dollars(large, what) / dollars(small, what);
    // Batches are fuller in a larger table, so that refresh and its logs cost less than ten times as much.
    if (['refresh', 'logs', 'plan and dispatch'].includes(what))
      assert.ok(ratio > 1 && ratio < 10.5, `${what}: ${ratio}`);
    else if (!Number.isNaN(ratio)) near(ratio, fixed ? 1 : 10);
  }
});

test('an index on LastUpdate costs two more writes of each refresh, and saves one scan', () => {
  const [base, ...others] = alternatives(1_000_000, COUNTED, SETUP, PRICES, []);
  const indexed = others.find(({ name }) => name.startsWith('an index on LastUpdate'));
  near((indexed?.dollars ?? 0) - (base?.dollars ?? 0), 1.25 - 0.015625);
  near(base?.dollars ?? 0, total(costOf(1_000_000, COUNTED, SETUP, PRICES), growing));
});

test('a plan waits for its pages, and works at the pace of its memory', () => {
  near(planMs(0, 1, 1_000, 512), 0);
  near(lambdaMs(100, 1_769), 100 * SLOWER);
  near(lambdaMs(100, 10_240), 100 * SLOWER);
  near(planMs(1_048_576, 0.01, 1, 1_769), 10_485.76 * SLOWER + 25);
});

const fills: [perSecond: number, windowSeconds: number, expected: number][] = [
  [0, 10, 1],
  [0.1, 10, 1],
  [10, 10, 20],
  [50, 10, 100],
  [1_000, 10, 100],
  [10, 60, 100],
];
for (const [perSecond, windowSeconds, expected] of fills) {
  test(`${perSecond} messages a second, window of ${windowSeconds} s: ${expected} in a batch`, () => {
    assert.equal(fillOf(perSecond, { windowSeconds, batchSize: 100 }), expected);
  });
}

const MIXED: Arrangement = { batchSize: 100, windowSeconds: 10, megabytes: 512, patience: PATIENCE };

test('a batch lasts as long as its slowest domain', () => {
  const alone = { ...WORLD, sound: {}, failing: { unconnected: 1 }, known: 1 };
  near(Math.round(estimate(MIXED, alone, 50).meanSeconds), 10);
  const sound = { ...WORLD, sound: { old: 1 }, known: 0 };
  assert.ok(estimate(MIXED, sound, 50).meanSeconds < 4);
  assert.ok(estimate(MIXED, WORLD, 50).meanSeconds > 10);
});

test('every refresh is in one batch, however they are arranged', () => {
  for (const whom of ['failing', 'slow'] as const) {
    for (const ownQueue of [false, true]) {
      const { batches, fill } = estimate(
        { ...MIXED, apart: { whom, everySeconds: 60, ownQueue } },
        WORLD,
        50,
      );
      near(batches * fill, 1_000_000);
      assert.ok(fill <= 100);
    }
  }
});

test('slow domains apart hold fewer batches', () => {
  const together = estimate(MIXED, WORLD, 50);
  const apart = estimate(
    { ...MIXED, apart: { whom: 'slow', everySeconds: 180, ownQueue: false } },
    WORLD,
    50,
  );
  assert.ok(apart.longBatches < together.longBatches / 4);
  assert.ok(apart.gigabyteSeconds < together.gigabyteSeconds / 2);
  near(concurrency(together, 100), 2 * concurrency(together, 50));
});

const sizes: [bytes: number, write: number, read: number][] = [
  [1, 1, 1],
  [1_024, 1, 1],
  [1_025, 2, 1],
  [4_096, 4, 1],
  [4_097, 5, 2],
];
for (const [bytes, write, read] of sizes) {
  test(`an item of ${bytes} bytes is ${write} units to write and ${read} to read`, () => {
    assert.deepEqual([writeUnits(bytes), readUnits(bytes)], [write, read]);
    near(scanUnits(bytes), bytes / 8_192);
  });
}

test('an item has the bytes of its names and values', () => {
  // "DynamoDB item sizes and formats": names and strings in UTF-8, two digits a byte and one, three for a list and one
  // for each of its elements.
  assert.equal(itemBytes({ Domain: { S: 'a.example' } }), 6 + 9);
  assert.equal(itemBytes({ N: { N: '604800' } }), 1 + 3);
  assert.equal(itemBytes({ MX: { L: [{ S: 'ab' }, { S: 'c' }] } }), 2 + 3 + 3 + 2);
  assert.equal(itemBytes({ Backoff: { BOOL: true } }), 8);
  const policy = { mode: 'enforce', mx: ['mx.example'], maxAgeSeconds: 604_800 } as const;
  const item = {
    domain: 'a.example',
    policy,
    policyText: '',
    lastUpdate: 1,
    lastFetch: 1,
    failingSince: undefined,
    lastFailure: undefined,
  };
  assert.ok(itemBytes(attributesOf(item)) > 150);
});
