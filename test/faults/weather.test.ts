import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Call, Service } from './call.ts';
import { nameOf } from './fault.ts';
import { createWeather } from './weather.ts';

const CALLS: readonly (readonly [string, Service, string])[] = [
  ['refresh', 'dynamodb', 'UpdateItem'],
  ['refresh', 'dynamodb', 'BatchGetItem'],
  ['plan', 'sqs', 'SendMessageBatch'],
  ['plan', 'scheduler', 'CreateSchedule'],
  ['poller-refresh', 'sqs', 'ReceiveMessage'],
];

function callOf([by, service, operation]: (typeof CALLS)[number]): Call {
  const process = `${by}-1`;
  return { by, process, service, operation, attempt: 1, body: {}, domains: [], turn: 1 };
}

/** The faults that each kind of call meets, one call after the other, in this order of kinds. */
function faultsOf(seed: number, order: readonly (typeof CALLS)[number][], at = 0) {
  const weather = createWeather({ seed, days: 1, dayMs: 15_000 }, () => at);
  const met = new Map(order.map((each) => [each[2], [] as string[]]));
  for (let i = 0; i < 300; i++) {
    for (const each of order) {
      const fault = weather.programme(callOf(each));
      met.get(each[2])?.push(fault === undefined ? '' : nameOf(fault));
    }
  }
  return met;
}

test('the same seed brings the same, however the calls interleave', () => {
  const reversed = faultsOf(1, CALLS.toReversed());
  for (const [operation, faults] of faultsOf(1, CALLS)) assert.deepEqual(reversed.get(operation), faults);
  assert.notDeepEqual(faultsOf(2, CALLS), faultsOf(1, CALLS));
  const { outages, kills } = createWeather({ seed: 1, days: 3, dayMs: 15_000 }, () => 0);
  const again = createWeather({ seed: 1, days: 3, dayMs: 15_000 }, () => 0);
  assert.deepEqual([again.outages, again.kills], [outages, kills]);
});

test('every kind of fault comes, partial ones to batches, and neither pollers nor rivals are killed', () => {
  const met = faultsOf(3, CALLS);
  const kinds = new Set([...met.values()].flat().map((name) => name.split(/[ ,]/)[0]));
  const all = [
    '',
    'throttle',
    'error',
    'cut',
    'truncate',
    'delay',
    'hold',
    'twice',
    'kill',
    'partial',
    'redeliver',
  ];
  assert.deepEqual(
    all.filter((kind) => !kinds.has(kind)),
    [],
  );
  assert.ok(!met.get('UpdateItem')?.some((name) => name.startsWith('partial')));
  assert.ok(!met.get('ReceiveMessage')?.some((name) => name.startsWith('kill')));
  const share = met.get('UpdateItem')?.filter((name) => name !== '').length ?? 0;
  assert.ok(share > 20 && share < 80, `${share} of 300 calls`);
});

test('in an outage everything of the service fails, and draws go on as if it had not been', () => {
  const { outages } = createWeather({ seed: 4, days: 1, dayMs: 15_000 }, () => 0);
  const [outage] = outages[0] ?? [];
  assert.ok(outage);
  const hit = CALLS.filter(([, service]) => service === outage.service);
  let now = outage.from;
  const weather = createWeather({ seed: 4, days: 1, dayMs: 15_000 }, () => now);
  const during = hit.map((each) => weather.programme(callOf(each)));
  assert.ok(during.every((fault) => fault?.kind === 'error' && fault.status === 503));
  now = outage.to + 15_000;
  const calm = createWeather({ seed: 4, days: 1, dayMs: 15_000 }, () => 1e9);
  for (const each of hit) {
    calm.programme(callOf(each));
    const fault = weather.programme(callOf(each));
    assert.equal(fault?.kind, calm.programme(callOf(each))?.kind);
  }
});
