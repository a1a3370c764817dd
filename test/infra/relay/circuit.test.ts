import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCircuit } from '../../../infra/relay/circuit.ts';
import { recordingObserver, SECOND, virtualClock } from './scene.ts';

function open() {
  const clock = virtualClock();
  const observer = recordingObserver();
  const circuit = createCircuit('table', { clock, observer, ordinaryMs: SECOND });
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

/** Calls that take so long and are given so long, in milliseconds: how each ends, and what is said. */
const deadlines: [what: string, takes: number, given: number[], ends: boolean[], outages: string[]][] = [
  ['three in less than the ordinary time', 300, [250, 250, 250], [false, false, false], []],
  ['many, one a millisecond short of it', 999, Array(9).fill(998), Array(9).fill(false), []],
  ['three in the ordinary time', 1_001, [1_000, 1_000, 1_000], [false, false, false], ['table down']],
  ['three in more than that', 5_001, [5_000, 5_000, 5_000], [false, false, false], ['table down']],
  [
    'a short one between ordinary ones does not end the row',
    1_001,
    [1_000, 1_000, 250, 1_000],
    [false, false, false, false],
    ['table down'],
  ],
];

for (const [what, takes, given, ends, outages] of deadlines) {
  test(`silence and a deadline: ${what}`, async () => {
    const clock = virtualClock();
    const observer = recordingObserver();
    const circuit = createCircuit('table', { clock, observer, ordinaryMs: SECOND });
    const ended: boolean[] = [];
    for (const milliseconds of given) {
      const call = (signal: AbortSignal) => clock.sleep(takes, signal);
      ended.push((await clock.finish(circuit.attempt(milliseconds, call))).ok);
    }
    assert.deepEqual(ended, ends);
    assert.deepEqual(observer.outages, outages);
    assert.equal(circuit.refuses(), outages.length > 0);
    assert.equal(clock.sleepers, 0);
  });
}

test('an error is one however short the deadline was, and so is an answer', async () => {
  const clock = virtualClock();
  const observer = recordingObserver();
  const circuit = createCircuit('table', { clock, observer, ordinaryMs: SECOND });
  const refused = () => Promise.reject(new Error('ECONNREFUSED'));
  for (let i = 0; i < 3; i++) await clock.finish(circuit.attempt(250, refused));
  assert.deepEqual(observer.outages, ['table down']);
  await clock.pass(3 * SECOND);
  // Whether it is up again, an impatient call does not find out, and does not keep others from it.
  let calls = 0;
  const up = () => Promise.resolve(++calls);
  assert.equal((await clock.finish(circuit.attempt(250, up))).ok, false);
  assert.equal(calls, 0);
  assert.equal((await clock.finish(circuit.attempt(SECOND, up))).ok, true);
  assert.deepEqual(observer.outages, ['table down', 'table up']);
  assert.equal((await clock.finish(circuit.attempt(250, up))).ok, true);
});
