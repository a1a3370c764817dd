import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { eachConcurrently } from '../../../functions/runtime/concurrent.ts';

test('every item is worked on once, and never more than the limit at a time', async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(40), fc.integer({ min: 1, max: 10 }), async (count, limit) => {
      const items = Array.from({ length: count }, (_, i) => i);
      const done: number[] = [];
      let running = 0;
      let most = 0;
      await eachConcurrently(items, limit, async (item) => {
        most = Math.max(most, ++running);
        for (let turns = item % 3; turns > 0; turns--) await turn();
        running--;
        done.push(item);
      });
      assert.deepEqual(
        done.sort((a, b) => a - b),
        items,
      );
      assert.ok(most <= limit);
      assert.equal(running, 0);
    }),
    { numRuns: 50 },
  );
});

test('as many run at once as the limit allows, and a slow one holds nobody up', async () => {
  const started: number[] = [];
  let release = () => {};
  const slow = new Promise<void>((resolve) => {
    release = resolve;
  });
  const all = eachConcurrently([0, 1, 2, 3, 4, 5], 2, async (item) => {
    started.push(item);
    if (item === 0) await slow;
  });
  assert.deepEqual(started, [0, 1]);
  await turn();
  assert.deepEqual(started, [0, 1, 2, 3, 4, 5]);
  release();
  await all;
});

test('items are taken only when they are worked on, and a generator is closed after an error', async () => {
  let taken = 0;
  let closed = false;
  function* endless() {
    try {
      for (;;) yield taken++;
    } finally {
      closed = true;
    }
  }
  await assert.rejects(
    eachConcurrently(endless(), 3, async (item) => {
      assert.ok(taken <= item + 3);
      await turn();
      if (item === 10) throw new Error('enough');
    }),
    /enough/,
  );
  assert.ok(taken <= 14);
  assert.ok(closed);
});

test('the first error in time rejects, once what was running has ended, and nothing new is started', async () => {
  const started: number[] = [];
  const ended: number[] = [];
  const turns = [5, 3, 1, 4];
  await assert.rejects(
    eachConcurrently([0, 1, 2, 3, 4, 5, 6], 4, async (item) => {
      started.push(item);
      for (let left = turns[item] ?? 0; left > 0; left--) await turn();
      ended.push(item);
      if (item === 1 || item === 2) throw new Error(`failed: ${item}`);
    }),
    /failed: 2/,
  );
  assert.deepEqual(started, [0, 1, 2, 3]);
  assert.deepEqual(ended, [2, 1, 3, 0]);
});

test('an error of the items themselves rejects too, as does one that is thrown at once', async () => {
  function* broken() {
    yield 1;
    throw new Error('no more items');
  }
  await assert.rejects(
    eachConcurrently(broken(), 2, async () => {}),
    /no more items/,
  );
  await assert.rejects(
    eachConcurrently([1, 2], 2, () => {
      throw new Error('at once');
    }),
    /at once/,
  );
});

test('a falsy error is an error', async () => {
  await assert.rejects(
    eachConcurrently([1], 1, () => Promise.reject(undefined)),
    (error) => error === undefined,
  );
});
