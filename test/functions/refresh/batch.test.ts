import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { SQSBatchResponse } from 'aws-lambda';
import { answerBatch, type Job, runBatch } from '../../../functions/refresh/batch.ts';
import { refreshMessages } from '../../../functions/refresh/messages.ts';
import type { Outcome } from '../../../functions/refresh/outcome.ts';
import type { PolicyStore } from '../../../functions/store/policy-store.ts';
import {
  answeredAtTheEnd,
  cutShort,
  DAY,
  domain,
  forever,
  LOOKUP_CUT_SHORT,
  message,
  NEW_ID,
  NOW,
  neverAborted,
  notFetched,
  type Plan,
  planned,
  recordingTelemetry,
  SAME_ID,
  startTables,
} from './scene.ts';

const newTable = await startTables();

const FAULT = new Error('InternalServerError');
const DONE: Outcome = { kind: 'extended' };

function job(name: string, ...messageIds: string[]): Job {
  return { domain: domain(name), messages: messageIds.map((id) => message(id, '')) };
}

const task = (name: string, id: string) => message(id, { domain: name, lastUpdate: NOW - DAY });

/** A function that has still so much time when it is invoked. */
const context = (milliseconds: number) => ({ getRemainingTimeInMillis: () => milliseconds });

const failures = (response: SQSBatchResponse) =>
  response.batchItemFailures.map(({ itemIdentifier }) => itemIdentifier).sort();

test('a batch without jobs reads nothing', async () => {
  const { store } = await newTable();
  const read = () => assert.fail('nothing to read');
  const { telemetry } = recordingTelemetry();
  const options = { store: { ...store, read }, telemetry, signal: neverAborted };
  assert.deepEqual(await runBatch([], options, () => assert.fail('nothing to do')), []);
});

test('a fault of the read fails every message, and nothing is done for anybody', async () => {
  const { store } = await newTable();
  const { telemetry, told } = recordingTelemetry();
  const options = { store: { ...store, read: () => Promise.reject(FAULT) }, telemetry, signal: neverAborted };
  const jobs = [job('a.example', '1', '3'), job('b.example', '2')];
  const failed = await runBatch(jobs, options, () => assert.fail('nobody knows what is stored'));
  assert.deepEqual(failed.sort(), ['1', '2', '3']);
  assert.deepEqual(told.errors, [{ error: FAULT, domain: undefined }]);
  assert.deepEqual(told.outcomes, []);
});

test('what the database left unread fails alone, and is not taken for unknown', async () => {
  const table = await newTable();
  await table.seed('a.example');
  await table.seed('b.example');
  const read = async () => ({
    ...(await table.store.read([domain('a.example')])),
    unread: new Set([domain('b.example')]),
  });
  const { telemetry, told } = recordingTelemetry();
  const jobs = [job('a.example', '1'), job('b.example', '2', '3'), job('c.example', '4')];
  const given: [string, number | undefined][] = [];
  const options = { store: { ...table.store, read }, telemetry, signal: neverAborted };
  const failed = await runBatch(jobs, options, async (each, record) => {
    given.push([each.domain, record?.lastUpdate]);
    return DONE;
  });
  assert.deepEqual(failed, ['2', '3']);
  assert.deepEqual(given, [
    ['a.example', NOW - DAY],
    ['c.example', undefined],
  ]);
  assert.deepEqual(told.summary(), ['a.example extended', 'c.example extended']);
});

test('an unreadable item is reported by its name and acknowledged, and the others are done', async () => {
  const table = await newTable();
  await table.seed('a.example');
  const broken = { Domain: { S: 'b.example' }, LastUpdate: { N: '1' }, Mode: { S: 'Enforce' } };
  await table.put(broken);
  const { telemetry, told } = recordingTelemetry();
  const options = { store: table.store, telemetry, signal: neverAborted };
  const jobs = [job('a.example', '1'), job('b.example', '2')];
  const failed = await runBatch(jobs, options, async ({ domain: name }) => {
    assert.equal(name, 'a.example');
    return DONE;
  });
  assert.deepEqual(failed, []);
  assert.deepEqual(told.summary(), ['a.example extended', 'b.example skipped unreadable']);
  assert.deepEqual(told.unreadable, [
    { key: 'b.example', reason: 'Mode is not one of enforce, testing, none' },
  ]);
  assert.deepEqual(await table.item('b.example'), broken);
});

const exceptions: [what: string, work: (error: Error) => Promise<Outcome>][] = [
  ['rejection', (error) => Promise.reject(error)],
  [
    'exception',
    (error) => {
      throw error;
    },
  ],
];
for (const [what, work] of exceptions) {
  test(`an unexpected ${what} fails the messages of its own job, with its stack`, async () => {
    const { store } = await newTable();
    const { telemetry, told } = recordingTelemetry();
    const bug = new TypeError('undefined is not a function');
    const jobs = [job('a.example', '1'), job('b.example', '2', '3'), job('c.example', '4')];
    const options = { store, telemetry, signal: neverAborted };
    const failed = await runBatch(jobs, options, (each) =>
      each.domain === 'b.example' ? work(bug) : Promise.resolve(DONE),
    );
    assert.deepEqual(failed, ['2', '3']);
    assert.deepEqual(told.errors, [{ error: bug, domain: 'b.example' }]);
    assert.deepEqual(told.summary(), ['a.example extended', 'c.example extended']);
  });
}

test('all jobs run at once', async () => {
  const { store } = await newTable();
  const { telemetry } = recordingTelemetry();
  const jobs = Array.from({ length: 30 }, (_, i) => job(`d${i}.example`, String(i)));
  let running = 0;
  let most = 0;
  await runBatch(jobs, { store, telemetry, signal: neverAborted }, async () => {
    most = Math.max(most, ++running);
    await delay(1);
    running--;
    return undefined;
  });
  assert.equal(most, 30);
});

test('work without an outcome is not counted', async () => {
  const { store } = await newTable();
  const { telemetry, told } = recordingTelemetry();
  const options = { store, telemetry, signal: neverAborted };
  assert.deepEqual(await runBatch([job('a.example', '1')], options, async () => undefined), []);
  assert.deepEqual([told.outcomes, told.errors], [[], []]);
});

const POSTPONED: Outcome = { kind: 'postponed' };

test('what is postponed is for SQS to deliver again, and is said in one line', async () => {
  const { store } = await newTable();
  const { telemetry, told } = recordingTelemetry();
  const jobs = [job('a.example', '1'), job('b.example', '2', '3'), job('c.example', '4')];
  const failed = await runBatch(jobs, { store, telemetry, signal: neverAborted }, async ({ domain: name }) =>
    name === 'a.example' ? DONE : POSTPONED,
  );
  assert.deepEqual(failed.sort(), ['2', '3', '4']);
  assert.deepEqual(told.summary(), ['a.example extended', 'b.example postponed', 'c.example postponed']);
  assert.deepEqual(
    told.infos.map(({ details }) => details),
    [{ domains: 2, first: 'b.example' }],
  );
  assert.deepEqual([told.errors, told.warnings], [[], []]);
});

test('what is postponed comes back twice, and does not become a dead letter', async () => {
  const { store } = await newTable();
  const { telemetry } = recordingTelemetry();
  const deliveries = { first: 1, second: 2, third: 3, fourth: 4 };
  const messages = Object.entries(deliveries).map(([id, count]) => message(id, '', count));
  const options = { store, telemetry, signal: neverAborted };
  const jobs = [{ domain: domain('a.example'), messages }];
  assert.deepEqual(await runBatch(jobs, options, async () => POSTPONED), ['first', 'second']);
  // A fault is another matter.
  const fault = () => Promise.reject(FAULT);
  assert.deepEqual(await runBatch(jobs, options, fault), Object.keys(deliveries));
});

test('an answer names each failed message once, and what was counted is emitted', async () => {
  const { telemetry, told } = recordingTelemetry();
  const response = await answerBatch(context(60_000), telemetry, async () => ['2', '1', '2']);
  assert.deepEqual(failures(response), ['1', '2']);
  assert.equal(told.flushes, 1);
});

test('what was counted is emitted even if the work as a whole fails', async () => {
  const { telemetry, told } = recordingTelemetry();
  await assert.rejects(
    answerBatch(context(60_000), telemetry, () => Promise.reject(FAULT)),
    FAULT,
  );
  assert.equal(told.flushes, 1);
});

const STUCK = 'stuck.example';
const NAMES = ['done.example', STUCK, 'late.example'];
const OTHERS = { 'done.example': SAME_ID, 'late.example': () => delay(50, SAME_ID) };

const hung: [what: string, plan: (store: PolicyStore) => Plan, failed: string[]][] = [
  ['a lookup', (store) => ({ store, lookups: { ...OTHERS, [STUCK]: cutShort(LOOKUP_CUT_SHORT) } }), [STUCK]],
  [
    'a lookup that nothing can cut short',
    (store) => ({ store, lookups: { ...OTHERS, [STUCK]: () => forever } }),
    [STUCK],
  ],
  [
    'a fetch',
    (store) => ({
      store,
      lookups: { ...OTHERS, [STUCK]: NEW_ID },
      fetches: { [STUCK]: cutShort(notFetched('deadline-exceeded')) },
    }),
    [STUCK],
  ],
  ['the read of the database', (store) => ({ store: { ...store, read: () => forever } }), NAMES],
  [
    'one write',
    (store) => {
      const write: PolicyStore['write'] = (name, change, expected) =>
        name === STUCK ? forever : store.write(name, change, expected);
      return { store: { ...store, write }, lookups: { ...OTHERS, [STUCK]: SAME_ID } };
    },
    [STUCK],
  ],
];
for (const [what, plan, failing] of hung) {
  test(`when ${what} hangs, ten seconds before the function's end what is unfinished fails and nothing else`, async (t) => {
    const table = await newTable();
    for (const name of NAMES) await table.seed(name);
    const before = await table.item(STUCK);
    const { telemetry, told } = recordingTelemetry();
    const { refresher } = planned(t, plan(table.store));
    const messages = NAMES.map((name) => task(name, name));

    const finished = NAMES.filter((name) => !failing.includes(name));
    const response = await answeredAtTheEnd(
      t,
      (left) =>
        answerBatch(left, telemetry, (signal) => refreshMessages(messages, { refresher, telemetry, signal })),
      () => told.outcomes.length === finished.length,
    );
    assert.deepEqual(failures(response), failing.toSorted());
    assert.deepEqual(told.summary(), finished.map((name) => `${name} extended`).sort());
    for (const { error } of told.errors) assert.match(String(error), /10 s before the function's timeout/);
    assert.equal(told.flushes, 1);
    // What was cut short says nothing about the domain, neither now nor when its work notices.
    await delay(20);
    assert.deepEqual(await table.item(STUCK), before);
  });
}

test('with no time left at all, every message fails and nobody is asked', async (t) => {
  const table = await newTable();
  await table.seed('a.example');
  const { telemetry, told } = recordingTelemetry();
  const read: typeof table.store.read = async (names) => {
    await delay(20);
    return table.store.read(names);
  };
  const { refresher, asked } = planned(t, { store: { ...table.store, read } });
  for (const left of [10_000, 3_000, 0, -1]) {
    const response = await answerBatch(context(left), telemetry, (signal) =>
      refreshMessages([task('a.example', '1')], { refresher, telemetry, signal }),
    );
    assert.deepEqual(failures(response), ['1'], `${left} ms`);
  }
  await delay(40);
  assert.deepEqual([asked.lookups, told.outcomes], [[], []]);
});
