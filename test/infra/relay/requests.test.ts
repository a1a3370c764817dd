import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CreateQueueCommand, SQSClient } from '@aws-sdk/client-sqs';
import fc from 'fast-check';
import { decodeRequest } from '../../../functions/request/request.ts';
import { localClientConfig } from '../../../infra/local/environment.ts';
import { startSqs } from '../../../infra/local/sqs.ts';
import { systemClock } from '../../../infra/relay/clock.ts';
import { createRequests } from '../../../infra/relay/requests.ts';
import {
  DAY,
  domain,
  EXAMPLE,
  fakeClient,
  HOUR,
  MINUTE,
  memorySnapshot,
  NOW,
  recordingObserver,
  SECOND,
  virtualClock,
} from './scene.ts';

const QUEUE = 'https://sqs.test/requests';
const OPEN = new AbortController().signal;
const MIDNIGHT = Math.floor(NOW / DAY) * DAY;

const name = (i: number) => domain(`d${i}.example`);

interface Sent {
  readonly QueueUrl: string;
  readonly MessageBody: string;
}

async function open({
  answer = () => Promise.resolve({}),
  disk = memorySnapshot(),
  random = () => 0,
  clock = virtualClock(),
}: {
  answer?: (input: Sent) => Promise<unknown> | undefined;
  disk?: ReturnType<typeof memorySnapshot>;
  random?: () => number;
  clock?: ReturnType<typeof virtualClock>;
} = {}) {
  const observer = recordingObserver();
  const fake = fakeClient(answer as never);
  const requests = await createRequests({
    client: fake.client,
    queueUrl: QUEUE,
    clock,
    random,
    observer,
    snapshot: disk,
  });
  const sent = () =>
    fake.inputs.map((input) => JSON.parse((input as Sent).MessageBody) as Record<string, unknown>);
  return { requests, clock, observer, fake, disk, sent };
}

describe('a look', () => {
  test('is one message that the functions read as a look at the domain', async () => {
    const { requests, clock, fake } = await open();
    assert.deepEqual(await clock.finish(requests.look(EXAMPLE)), { kind: 'sent', at: NOW });
    const [input] = fake.inputs as [Sent];
    assert.equal(input.QueueUrl, QUEUE);
    assert.deepEqual(decodeRequest(input.MessageBody), {
      ok: true,
      value: { kind: 'look', domain: EXAMPLE },
    });
  });

  test('is sent once in five minutes for a domain, and for each domain', async () => {
    const { requests, clock, sent } = await open();
    const both = await clock.finish(Promise.all([requests.look(EXAMPLE), requests.look(EXAMPLE)]));
    assert.deepEqual(both, [
      { kind: 'sent', at: NOW },
      { kind: 'recently', at: NOW },
    ]);
    await clock.pass(5 * MINUTE - 1);
    assert.deepEqual(await requests.look(EXAMPLE), { kind: 'recently', at: NOW });
    assert.equal((await clock.finish(requests.look(name(1)))).kind, 'sent');
    await clock.pass(1);
    assert.equal((await clock.finish(requests.look(EXAMPLE))).kind, 'sent');
    assert.equal(sent().length, 3);
  });

  test('a hundred go at once, then ten a second; the others may ask again at once', async () => {
    const { requests, clock, sent, observer } = await open();
    const look = (count: number, from: number) =>
      clock.finish(Promise.all(Array.from({ length: count }, (_, i) => requests.look(name(from + i)))));
    const kinds = (await look(150, 0)).map(({ kind }) => kind);
    assert.deepEqual([kinds.indexOf('limited'), kinds.lastIndexOf('sent')], [100, 99]);
    assert.equal((await look(1, 149))[0]?.kind, 'limited');
    await clock.pass(SECOND);
    assert.equal((await look(11, 139)).filter(({ kind }) => kind === 'sent').length, 10);
    assert.equal(sent().length, 110);
    assert.deepEqual(observer.outages, []);
    // What was saved up has an end.
    await clock.pass(HOUR);
    assert.equal((await look(200, 1_000)).filter(({ kind }) => kind === 'sent').length, 100);
  });

  const faults: [string, () => Promise<never> | undefined][] = [
    ['is denied', () => Promise.reject(Object.assign(new Error('no'), { name: 'AccessDenied' }))],
    ['gets no answer', () => undefined],
    ['gets no credentials', () => new Promise<never>(() => {})],
  ];
  for (const [what, fault] of faults) {
    test(`that ${what} fails within a second, and the next lookup sends it`, async () => {
      let down = true;
      const { requests, clock, observer, fake } = await open({
        answer: () => (down ? fault() : Promise.resolve({})),
      });
      for (let i = 0; i < 3; i++) {
        const start = clock.now();
        assert.deepEqual(await clock.finish(requests.look(EXAMPLE)), { kind: 'failed' });
        assert.ok(clock.now() - start <= SECOND);
      }
      assert.deepEqual(observer.outages, ['requests down']);
      for (let i = 0; i < 50; i++) assert.deepEqual(await requests.look(name(i)), { kind: 'failed' });
      assert.equal(fake.inputs.length, 3, 'while the queue is down, it is tried once in a while');
      down = false;
      await clock.pass(3 * SECOND);
      assert.equal((await clock.finish(requests.look(EXAMPLE))).kind, 'sent');
      assert.deepEqual(observer.outages, ['requests down', 'requests up']);
      const many = Array.from({ length: 99 }, (_, i) => requests.look(name(i)));
      const kinds = (await clock.finish(Promise.all(many))).map(({ kind }) => kind);
      assert.deepEqual(new Set(kinds), new Set(['sent']), 'what was not tried counts for nothing');
    });
  }
});

describe('the report of use', () => {
  test("goes once a day, at the time of day that is this host's own", async () => {
    const { requests, clock, sent } = await open({ random: () => 0.25 });
    const at: number[] = [];
    for (let minutes = 0; minutes < 4 * 24 * 60; minutes++) {
      const before = sent().length;
      requests.used(EXAMPLE);
      await clock.finish(requests.tend(OPEN));
      if (sent().length > before) at.push(clock.now());
      await clock.pass(MINUTE);
    }
    assert.deepEqual(
      at,
      [1, 2, 3, 4].map((day) => MIDNIGHT + (day + 0.25) * DAY),
    );
    assert.deepEqual(sent()[0], { used: ['example.com'] });
  });

  test('is not sent where nothing was used', async () => {
    const { requests, clock, sent } = await open();
    await clock.pass(3 * DAY);
    await clock.finish(requests.tend(OPEN));
    assert.deepEqual(sent(), []);
  });

  test('survives a restart, with its time of day, and is not sent twice', async () => {
    const disk = memorySnapshot();
    const clock = virtualClock();
    const first = await open({ disk, clock, random: () => 0.5 });
    first.requests.used(EXAMPLE);
    await clock.finish(first.requests.tend(OPEN));
    await clock.pass(HOUR);
    first.requests.used(name(1));
    await clock.finish(first.requests.close());
    assert.deepEqual(first.sent(), [], 'there is time until it is due');

    const second = await open({ disk, clock, random: () => 0.9 });
    await clock.pass(DAY - HOUR);
    second.requests.used(name(2));
    await clock.finish(second.requests.tend(OPEN));
    assert.deepEqual(second.sent(), [{ used: ['example.com', 'd1.example', 'd2.example'] }]);

    const third = await open({ disk, clock });
    await clock.finish(third.requests.tend(OPEN));
    await clock.pass(DAY - 1);
    await clock.finish(third.requests.tend(OPEN));
    assert.deepEqual(third.sent(), []);
  });

  test('that was due while the relay was down is made up for', async () => {
    const disk = memorySnapshot();
    disk.use = { domains: new Set([EXAMPLE]), reportedAt: NOW - 3 * DAY, timeOfDay: HOUR };
    const { requests, clock, sent } = await open({ disk });
    await clock.finish(requests.tend(OPEN));
    assert.deepEqual(sent(), [{ used: ['example.com'] }]);
  });

  test('a report from the future does not silence it', async () => {
    const disk = memorySnapshot();
    disk.use = { domains: new Set([EXAMPLE]), reportedAt: NOW + 300 * DAY, timeOfDay: 13 * HOUR };
    const { requests, clock, sent } = await open({ disk });
    await clock.pass(HOUR);
    await clock.finish(requests.tend(OPEN));
    assert.equal(sent().length, 1);
  });

  test('a clock that was put back does not silence it', async () => {
    const { requests, clock, sent } = await open({ random: () => 0.5 });
    clock.set(NOW + 300 * DAY);
    requests.used(EXAMPLE);
    await clock.finish(requests.tend(OPEN));
    clock.set(NOW);
    requests.used(EXAMPLE);
    await clock.finish(requests.tend(OPEN));
    assert.equal(sent().length, 1);
    await clock.pass(DAY);
    await clock.finish(requests.tend(OPEN));
    assert.equal(sent().length, 2);
  });

  test('without a disk it goes at the end', async () => {
    const disk = memorySnapshot();
    disk.writable = false;
    const { requests, clock, sent } = await open({ disk });
    requests.used(EXAMPLE);
    await clock.finish(requests.tend(OPEN));
    await clock.finish(requests.close());
    assert.deepEqual(sent(), [{ used: ['example.com'] }]);
  });

  test('a queue that hangs holds the end up for a few seconds', async () => {
    const disk = memorySnapshot();
    disk.writable = false;
    const { requests, clock } = await open({ disk, answer: () => undefined });
    for (let i = 0; i < 5_000; i++) requests.used(name(i));
    await clock.finish(requests.close());
    assert.ok(clock.now() - NOW <= 3 * SECOND);
  });

  test('what could not be sent is sent later, and what was sent is not sent again', async () => {
    let calls = 0;
    const { requests, clock, sent, fake } = await open({
      answer: () => (++calls === 2 ? Promise.reject(new Error('no')) : Promise.resolve({})),
    });
    for (let i = 0; i < 2_500; i++) requests.used(name(i));
    await clock.pass(DAY);
    await clock.finish(requests.tend(OPEN));
    assert.equal(fake.inputs.length, 2, 'the first failure ends it for now');
    await clock.pass(MINUTE);
    await clock.finish(requests.tend(OPEN));
    const messages = sent().map(({ used }) => used as string[]);
    assert.deepEqual(
      messages.map(({ length }) => length),
      [1_000, 1_000, 1_000, 500],
    );
    messages.splice(1, 1);
    assert.deepEqual(messages.flat().sort(), Array.from({ length: 2_500 }, (_, i) => name(i)).sort());
    await clock.pass(MINUTE);
    await clock.finish(requests.tend(OPEN));
    assert.equal(fake.inputs.length, 4, 'that was the report of the day');
  });

  test('ends with the relay between two messages, and loses nothing', async () => {
    const closing = new AbortController();
    const { requests, clock, sent, disk } = await open({
      answer: () => {
        closing.abort();
        return Promise.resolve({});
      },
    });
    for (let i = 0; i < 2_500; i++) requests.used(name(i));
    await clock.pass(DAY);
    await clock.finish(requests.tend(closing.signal));
    assert.equal(sent().length, 1);
    await clock.finish(requests.close());
    assert.equal(disk.use?.domains.size, 1_500);
  });

  test('a use while the report is on its way is in the next one', async () => {
    let arrived: (value: object) => void = () => {};
    const { requests, clock, sent, disk } = await open({
      answer: () =>
        new Promise((resolve) => {
          arrived = resolve;
        }),
    });
    requests.used(EXAMPLE);
    await clock.pass(DAY);
    const reporting = requests.tend(OPEN);
    await clock.pass(10);
    requests.used(EXAMPLE);
    arrived({});
    await clock.finish(reporting);
    assert.equal(sent().length, 1);
    assert.deepEqual([...(disk.use?.domains ?? [])], [EXAMPLE]);
  });

  test('has a bound, which is said once', async () => {
    const { requests, observer, clock, disk } = await open();
    for (let i = 0; i < 100_010; i++) requests.used(`d${i}.example` as typeof EXAMPLE);
    assert.equal(observer.events.length, 1);
    await clock.finish(requests.close());
    assert.equal(disk.use?.domains.size, 100_000);
  });

  test('is written down when there is something new, and only then', async () => {
    const { requests, clock, disk } = await open();
    requests.used(EXAMPLE);
    await clock.finish(requests.tend(OPEN));
    const saved = disk.use;
    assert.ok(saved);
    requests.used(EXAMPLE);
    await clock.finish(requests.tend(OPEN));
    assert.equal(disk.use, saved);
  });

  test('whatever was used, each message is one that the functions take, of 256 KiB at most', async () => {
    const label = fc.stringMatching(/^[a-z0-9]{1,61}$/);
    const names = fc.uniqueArray(fc.array(label, { minLength: 2, maxLength: 4 }), {
      maxLength: 50,
      selector: (labels) => labels.join('.'),
    });
    await fc.assert(
      fc.asyncProperty(names, fc.integer({ min: 1, max: 60 }), async (lists, times) => {
        const { requests, clock, fake } = await open();
        const used = new Set<string>();
        for (const labels of lists) {
          for (let i = 0; i < times; i++) {
            // Up to the longest that a policy domain can be.
            const full = `${labels.join('.').slice(0, 230)}${i}.example`.replace(/^\.+|\.(?=\.)/g, '');
            used.add(domain(full.slice(-244)));
          }
        }
        for (const each of used) requests.used(each as typeof EXAMPLE);
        await clock.pass(DAY);
        await clock.finish(requests.tend(OPEN));
        const reported: string[] = [];
        for (const input of fake.inputs as Sent[]) {
          assert.ok(Buffer.byteLength(input.MessageBody) <= 262_144);
          const decoded = decodeRequest(input.MessageBody);
          assert.ok(decoded.ok && decoded.value.kind === 'used' && decoded.value.ignored === 0);
          reported.push(...decoded.value.domains);
        }
        assert.deepEqual(reported.sort(), [...used].sort());
      }),
      { numRuns: 50 },
    );
  });

  test('a thousand of the longest names fit into one message', async () => {
    const { requests, clock, fake } = await open();
    const tail = `${'a'.repeat(63)}.${'b'.repeat(63)}.${'c'.repeat(63)}`;
    for (let i = 0; i < 1_000; i++) requests.used(domain(`${String(i).padStart(52, 'd')}.${tail}`));
    await clock.pass(DAY);
    await clock.finish(requests.tend(OPEN));
    const [input] = fake.inputs as [Sent];
    assert.equal(fake.inputs.length, 1);
    assert.equal(Buffer.byteLength(input.MessageBody), 10 + 1_000 * 247);
  });
});

describe('over the network', () => {
  test('looks and reports arrive in the queue', async (t) => {
    const sqs = await startSqs();
    t.after(sqs.close);
    const client = new SQSClient(localClientConfig(sqs.endpoint));
    t.after(() => client.destroy());
    await client.send(new CreateQueueCommand({ QueueName: 'requests' }));
    const disk = memorySnapshot();
    disk.use = { domains: new Set([name(1)]), reportedAt: 0, timeOfDay: 0 };
    const observer = recordingObserver();
    const requests = await createRequests({
      client,
      queueUrl: sqs.queueUrl('requests'),
      clock: systemClock,
      random: Math.random,
      observer,
      snapshot: disk,
    });
    assert.equal((await requests.look(EXAMPLE)).kind, 'sent');
    await requests.tend(OPEN);
    const bodies = (await sqs.messages('requests')).map(({ body }) => body).sort();
    assert.deepEqual(bodies, ['{"domain":"example.com"}', '{"used":["d1.example"]}']);
    assert.equal(disk.use?.domains.size, 0);
  });
});

test('one owner, however many names, does not use up the looks of the others', async () => {
  const { requests, clock } = await open();
  const look = async (names: readonly string[]) => {
    const asked = await clock.finish(Promise.all(names.map((each) => requests.look(domain(each)))));
    return asked.filter(({ kind }) => kind === 'sent').length;
  };
  const flood = (start: number) => Array.from({ length: 500 }, (_, i) => `n${start + i}.wild.example`);
  const others = (start: number) => Array.from({ length: 30 }, (_, i) => `o${start + i}.example`);
  assert.deepEqual([await look(flood(0)), await look(others(0))], [20, 30]);
  await clock.pass(3 * SECOND);
  assert.deepEqual([await look(flood(500)), await look(others(30))], [3, 30]);
  // A hosting company's customers are owners of their own.
  assert.equal(await look(['a.github.io', 'b.github.io']), 2);
});
