import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodePlanEvent } from '../../../functions/plan/event.ts';
import { anyText } from '../dispatch/tasks.ts';

const OURS = 'the-invocation';

/** The classic event as EventBridge documents it ("Creating an EventBridge rule that runs on a schedule"). */
const CLASSIC = {
  version: '0',
  id: '53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa',
  'detail-type': 'Scheduled Event',
  source: 'aws.events',
  account: '123456789012',
  time: '2026-11-22T03:00:00Z',
  region: 'us-east-1',
  resources: ['arn:aws:events:us-east-1:123456789012:rule/daily'],
  detail: {},
};

const daily: [name: string, event: unknown, runId: string][] = [
  [
    "EventBridge Scheduler's, with its execution's id",
    { kind: 'daily', runId: 'd32c5kddcf5bb8c3' },
    'd32c5kddcf5bb8c3',
  ],
  ['members that a newer version may add', { kind: 'daily', runId: 'run', more: 1 }, 'run'],
  ['spaces and punctuation', { kind: 'daily', runId: 'by hand: 2' }, 'by hand: 2'],
  ['no run id', { kind: 'daily' }, OURS],
  ['an empty run id', { kind: 'daily', runId: '' }, OURS],
  ['a run id that is a number', { kind: 'daily', runId: 7 }, OURS],
  ['a run id with a line end', { kind: 'daily', runId: 'run\n{"level":"ERROR"}' }, OURS],
  ['a run id that is not ASCII', { kind: 'daily', runId: 'täglich' }, OURS],
  ['100 characters', { kind: 'daily', runId: 'r'.repeat(100) }, 'r'.repeat(100)],
  ['101 characters', { kind: 'daily', runId: 'r'.repeat(101) }, OURS],
  ['the classic Scheduled Event', CLASSIC, CLASSIC.id],
  ['the classic Scheduled Event without its id', { ...CLASSIC, id: undefined }, OURS],
];

for (const [name, event, runId] of daily) {
  test(`daily: ${name}`, () => {
    assert.deepEqual(decodePlanEvent(event, OURS), { ok: true, value: { kind: 'daily', runId } });
  });
}

const refused: [name: string, event: unknown][] = [
  ['nothing', undefined],
  ['null', null],
  ['an empty object', {}],
  ['text', '{"kind":"daily"}'],
  ['another kind', { kind: 'hourly', runId: 'run' }],
  ['another kind in a Scheduled Event', { ...CLASSIC, kind: 'hourly' }],
  ["EventBridge's other events", { ...CLASSIC, 'detail-type': 'EC2 Instance State-change Notification' }],
  ['a wave', { runId: 'run', tasks: [] }],
];

for (const [name, event] of refused) {
  test(`refused, saying what it should be: ${name}`, () => {
    const decoded = decodePlanEvent(event, OURS);
    assert.match(decoded.ok ? '' : decoded.reason, /^it should be \{"kind":"daily"/);
  });
}

test('decodePlanEvent never throws, and its run id is one line of ASCII', () => {
  const event = fc.oneof(
    fc.anything(),
    fc.record({ kind: fc.constant('daily'), runId: fc.anything() }),
    fc.record({ 'detail-type': fc.constant('Scheduled Event'), id: anyText }),
  );
  fc.assert(
    fc.property(event, (given) => {
      const decoded = decodePlanEvent(given, OURS);
      if (decoded.ok) assert.match(decoded.value.runId, /^[\x20-\x7e]{1,100}$/);
    }),
    { numRuns: 1_000 },
  );
});
