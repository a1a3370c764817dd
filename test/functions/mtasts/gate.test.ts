import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import fc from 'fast-check';
import { createGate, type Slot } from '../../../functions/mtasts/gate.ts';

const A = '192.0.2.1';
const B = '192.0.2.2';
const never = new AbortController().signal;

/** What a promise has come to by now. */
async function now<T>(promise: Promise<T>): Promise<T | 'waiting'> {
  return Promise.race([promise, new Promise<'waiting'>((resolve) => setImmediate(resolve, 'waiting'))]);
}

async function enter(
  gate: ReturnType<typeof createGate>,
  addresses: string[],
  signal = never,
): Promise<Slot> {
  const slot = await now(gate.enter(addresses, signal));
  assert.ok(slot !== undefined && slot !== 'waiting');
  return slot;
}

test('so many are let in, the next when one of them leaves', async () => {
  const gate = createGate(2);
  const [first] = [await enter(gate, [A]), await enter(gate, [A])];
  const third = gate.enter([A], never);
  assert.equal(await now(third), 'waiting');
  first.leave();
  assert.equal((await third)?.address, A);
  assert.equal(await now(gate.enter([A], never)), 'waiting');
});

test('who leaves twice leaves once', async () => {
  const gate = createGate(1);
  const first = await enter(gate, [A]);
  first.leave();
  first.leave();
  const second = await enter(gate, [A]);
  first.leave();
  assert.equal(await now(gate.enter([A], never)), 'waiting');
  second.leave();
});

test('an address does not wait for another', async () => {
  const gate = createGate(1);
  await enter(gate, [A]);
  await enter(gate, [B]);
});

test('of several addresses it is the first with a slot, else whichever is free first', async () => {
  const gate = createGate(1);
  const first = await enter(gate, [A, B]);
  assert.equal(first.address, A);
  const second = await enter(gate, [A, B]);
  assert.equal(second.address, B);
  const third = gate.enter([A, B], never);
  assert.equal(await now(third), 'waiting');
  second.leave();
  assert.equal((await third)?.address, B);
});

test('who lists an address without connecting to it takes nothing of it', async () => {
  const gate = createGate(1);
  assert.equal((await enter(gate, [A, B])).address, A);
  assert.equal((await enter(gate, [B])).address, B);
});

test('who came first is first, and who comes as somebody leaves does not overtake', async () => {
  const gate = createGate(1);
  const order: number[] = [];
  let inside = await enter(gate, [A]);
  const visit = async (turn: number) => {
    const slot = await gate.enter([A], never);
    assert.ok(slot);
    inside = slot;
    order.push(turn);
  };
  const visits = [1, 2, 3].map(visit);
  for (let left = 0; left < visits.length; left++) {
    inside.leave();
    if (left < 3) visits.push(visit(4 + left));
    await visits[left];
  }
  assert.deepEqual(order, [1, 2, 3, 4, 5, 6]);
});

test('who gives up is let out at once, is no longer in the line, and leaves no listener', async () => {
  const gate = createGate(1);
  const first = await enter(gate, [A]);
  const patience = new AbortController();
  const impatient = gate.enter([A], patience.signal);
  const patient = gate.enter([A], never);
  patience.abort();
  assert.equal(await now(impatient), undefined);
  first.leave();
  assert.equal((await patient)?.address, A);
});

test('who has lost patience already is not let in', async () => {
  assert.equal(await now(createGate(1).enter([A], AbortSignal.abort())), undefined);
});

test('no listener is left on the signal of one who was let in', async () => {
  const gate = createGate(1);
  const first = await enter(gate, [A]);
  const { signal } = new AbortController();
  const second = gate.enter([A], signal);
  assert.equal(getEventListeners(signal, 'abort').length, 1);
  first.leave();
  await second;
  assert.equal(getEventListeners(signal, 'abort').length, 0);
});

test('whatever happens in whatever order: never more than so many, nobody waits beside a free slot, nothing is left', async () => {
  const addresses = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd'), { minLength: 1, maxLength: 4 });
  const step = fc.oneof(
    addresses.map((list) => ({ does: 'enter' as const, list, which: 0 })),
    fc.nat(30).map((which) => ({ does: 'leave' as const, list: [] as string[], which })),
    fc.nat(30).map((which) => ({ does: 'abort' as const, list: [] as string[], which })),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 3 }),
      fc.array(step, { maxLength: 60 }),
      async (limit, steps) => {
        const gate = createGate(limit);
        const inside: Slot[] = [];
        const line: { list: string[]; controller: AbortController; done: Promise<void> }[] = [];
        const check = async () => {
          await new Promise(setImmediate);
          const open = (address: string) => inside.filter((slot) => slot.address === address).length;
          for (const address of ['a', 'b', 'c', 'd']) assert.ok(open(address) <= limit);
          for (const { list } of line) for (const address of list) assert.equal(open(address), limit);
        };
        for (const { does, list, which } of steps) {
          if (does === 'enter') {
            const controller = new AbortController();
            const visitor = { list, controller, done: Promise.resolve() };
            visitor.done = gate.enter(list, controller.signal).then((slot) => {
              line.splice(line.indexOf(visitor), 1);
              if (slot) inside.push(slot);
            });
            line.push(visitor);
          } else if (does === 'leave' && inside.length > 0) {
            inside.splice(which % inside.length, 1)[0]?.leave();
          } else if (does === 'abort' && line.length > 0) {
            line[which % line.length]?.controller.abort();
          }
          await check();
        }
        while (inside.length > 0 || line.length > 0) {
          inside.shift()?.leave();
          await check();
        }
        // As new: every slot of every address is free again.
        for (const address of ['a', 'b', 'c', 'd']) {
          for (let i = 0; i < limit; i++) await enter(gate, [address]);
        }
      },
    ),
    { numRuns: 100 },
  );
});
