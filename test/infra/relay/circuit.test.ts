import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCircuit } from '../../../infra/relay/circuit.ts';
import { recordingObserver, SECOND, virtualClock } from './scene.ts';

function open() {
  const clock = virtualClock();
  const observer = recordingObserver();
  const circuit = createCircuit('table', { clock, observer });
  const call = async (outcome: 'up' | 'down') => {
    const work = () => (outcome === 'up' ? Promise.resolve(1) : Promise.reject(new Error('down')));
    return (await clock.finish(circuit.attempt(SECOND, work))).ok;
  };
  return { clock, circuit, call, outages: observer.outages };
}

test('an outage is said at its beginning and at its end', async () => {
  const { clock, call, outages } = open();
  for (let i = 0; i < 10; i++) await call('down');
  assert.deepEqual(outages, ['table down']);
  await clock.pass(3 * SECOND);
  await call('up');
  assert.deepEqual(outages, ['table down', 'table up']);
});

test('a service that fails now and then is said to be down until it has been up for a while', async () => {
  const { clock, circuit, call, outages } = open();
  for (let minute = 0; minute < 60; minute++) {
    for (let i = 0; i < 3; i++) await call('down');
    assert.equal(circuit.refuses(), true);
    await clock.pass(3 * SECOND);
    assert.equal(await call('up'), true);
    assert.equal(circuit.refuses(), false, 'it is used all the same');
    await clock.pass(10 * SECOND);
    await call('up');
  }
  assert.deepEqual(outages, ['table down', 'table up', 'table down']);
  await clock.pass(60 * SECOND);
  await call('up');
  assert.deepEqual(outages.slice(3), ['table up']);
  for (let i = 0; i < 3; i++) await call('down');
  assert.deepEqual(outages.slice(4), ['table down']);
});

test('a clock that is put back does not make an outage last', async () => {
  const { clock, call, outages } = open();
  for (const outcome of [
    'down',
    'down',
    'down',
    'wait',
    'up',
    'down',
    'down',
    'down',
    'back',
    'up',
  ] as const) {
    if (outcome === 'wait') await clock.pass(3 * SECOND);
    else if (outcome === 'back') clock.set(clock.now() - 1_000 * SECOND);
    else await call(outcome);
  }
  assert.deepEqual(outages, ['table down', 'table up', 'table down', 'table up']);
});
