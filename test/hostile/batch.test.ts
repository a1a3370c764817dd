// A hundred domains at once, of which thirty are hostile in every large way, each with an address of its own; and a
// hundred with one address. `npm run test:hostile` has those that are slow, too.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS } from '../../functions/mtasts/limits.ts';
import { noFleet, PROVIDER, playHostile, repeat, soundMember, startFleet } from './batch.ts';
import { PROMPT } from './batch-rows.ts';

// All in one process, as Lambda would do with batches in a row.
test('batches of a hundred domains', { skip: noFleet }, async (t) => {
  const fleet = await startFleet(t);

  await t.test('all at one provider', async (t) => {
    const { tookMs } = await fleet.refresh(
      repeat(100, (index) => soundMember(`customer ${index}`, 'replaced', PROVIDER, 20)),
    );
    const atOnce = fleet.internet.mostAtOnce();
    t.diagnostic(`100 domains on one address: ${tookMs} ms, ${atOnce} at once`);
    // A client may be back before its host has seen it leave, so the host can count some more than there are.
    const cap = LIMITS.connectionsPerAddress;
    assert.ok(atOnce >= cap && atOnce <= 4 * cap, `${atOnce} connections at once`);
  });

  await t.test('thirty of them hostile', (t) => playHostile(t, fleet, [...PROMPT, ...PROMPT], 0));
});
