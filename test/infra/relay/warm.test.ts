import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CreateQueueCommand, SQSClient } from '@aws-sdk/client-sqs';
import { decodeRequest } from '../../../functions/request/request.ts';
import { localClientConfig } from '../../../infra/local/environment.ts';
import { startSqs } from '../../../infra/local/sqs.ts';
import { systemClock } from '../../../infra/relay/clock.ts';
import type { Read } from '../../../infra/relay/table.ts';
import { DEFAULT_RATE, type WarmOptions, warm } from '../../../infra/relay/warm.ts';
import { ABSENT, DOWN, fakeClient, item, NOW, POLICY, SECOND, UNREADABLE, virtualClock } from './scene.ts';

interface Batch {
  readonly Entries: readonly { readonly Id: string; readonly MessageBody: string }[];
}

type Answer = (batch: Batch, call: number) => Promise<object> | undefined;

const domains = (count: number) => Array.from({ length: count }, (_, i) => `d${i}.example`);

function open(answer: Answer = () => Promise.resolve({}), given: Partial<WarmOptions> = {}) {
  let calls = 0;
  const clock = virtualClock();
  const fake = fakeClient((batch: never) => answer(batch, ++calls));
  const said: string[] = [];
  const complaints: string[] = [];
  const progress: string[] = [];
  const options: Omit<WarmOptions, 'lines'> = {
    client: fake.client,
    queueUrl: 'https://sqs.test/requests',
    rate: DEFAULT_RATE,
    from: 1,
    dryRun: false,
    table: undefined,
    clock,
    signal: new AbortController().signal,
    say: (line) => said.push(line),
    complain: (line) => complaints.push(line),
    progress: (line) => progress.push(line),
    ...given,
  };
  return {
    clock,
    fake,
    said,
    complaints,
    progress,
    start: (lines: WarmOptions['lines']) => warm({ ...options, lines }),
    run: (lines: WarmOptions['lines']) => clock.finish(warm({ ...options, lines })),
    /** What was sent, in order; what failed is there each time. */
    sent: () =>
      (fake.inputs as Batch[]).map(({ Entries }) =>
        Entries.map(({ MessageBody }) => (JSON.parse(MessageBody) as { domain: string }).domain),
      ),
  };
}

const failing = (Id: string, SenderFault = false) => ({
  Id,
  SenderFault,
  Code: 'InternalError',
  Message: 'no',
});

test('a list is sent ten a call, five a second', async () => {
  const { run, sent, clock, said, progress } = open();
  assert.equal(await run(domains(101)), 0);
  assert.deepEqual(sent().flat(), domains(101));
  assert.deepEqual(
    sent().map(({ length }) => length),
    [...Array(10).fill(10), 1],
  );
  assert.equal(clock.now() - NOW, 20 * SECOND);
  assert.deepEqual(said, ['101 domains', 'Sent 101 of 101.']);
  assert.equal(progress[0], '20 of 101, 10.0 a second, 17 s left');
});

test('another rate is kept', async () => {
  const { run, clock } = open(undefined, { rate: 0.5 });
  assert.equal(await run(domains(30)), 0);
  assert.equal(clock.now() - NOW, 40 * SECOND);
});

test('every message is a look', async () => {
  const { run, fake } = open();
  await run(['example.com']);
  const [batch] = fake.inputs as [Batch];
  assert.deepEqual(decodeRequest(batch.Entries[0]?.MessageBody ?? ''), {
    ok: true,
    value: { kind: 'look', domain: 'example.com' },
  });
});

describe('a list', () => {
  const rows: [what: string, lines: string[], sent: string[], complaints: RegExp[]][] = [
    [
      'with comments and blank lines',
      ['# all', '', '  ', 'a.example # ours', '\ta.test  ', 'b.example\r'],
      ['a.example', 'a.test', 'b.example'],
      [],
    ],
    ['that begins with a byte order mark', ['\u{FEFF}a.example'], ['a.example'], []],
    ['with one domain in many spellings', ['a.example', 'A.Example.', 'a.example'], ['a.example'], []],
    ['with U-labels', ['bücher.example'], ['xn--bcher-kva.example'], []],
    [
      'with lines that are no domains',
      [
        'a.example',
        'user@b.example',
        'localhost',
        '192.0.2.1',
        'c.example d.example',
        '{"domain":"e.example"}',
        'z.example',
      ],
      ['a.example', 'z.example'],
      [
        /^line 2: The domain "user@b.example" has the character "@"/,
        /^line 3: .*one label/,
        /^line 4: /,
        /^line 5: /,
        /^line 6: /,
      ],
    ],
    [
      'with control characters',
      ['\u001b[31mred.example'],
      [],
      [/^line 1: The domain "\u{FFFD}\[31mred\.example"/u],
    ],
    ['of nothing', [], [], []],
  ];
  for (const [what, lines, expected, complaints] of rows) {
    test(what, async () => {
      const played = open();
      assert.equal(await played.run(lines), complaints.length > 0 ? 1 : 0);
      assert.deepEqual(played.sent().flat(), expected);
      assert.equal(played.complaints.length, complaints.length);
      for (const [i, complaint] of complaints.entries()) assert.match(played.complaints[i] ?? '', complaint);
    });
  }

  test('of something else does not flood the terminal', async () => {
    const { run, complaints, said } = open();
    assert.equal(await run(Array.from({ length: 5_000 }, () => 'GET / HTTP/1.1')), 1);
    assert.equal(complaints.length, 101);
    assert.equal(complaints.at(-1), 'and 4900 more bad lines');
    assert.match(said[0] ?? '', /^0 domains, 5000 bad lines$/);
  });

  test('that comes piece by piece', async () => {
    const { run, sent } = open();
    async function* lines() {
      yield 'a.example';
      await Promise.resolve();
      yield 'b.example';
    }
    assert.equal(await run(lines()), 0);
    assert.deepEqual(sent().flat(), ['a.example', 'b.example']);
  });

  test('with more domains than are discovered in a day says so', async () => {
    const { run, said } = open(undefined, { dryRun: true });
    await run(domains(20_001));
    assert.match(said[1] ?? '', /20000 domains with MTA-STS in a day.*--from/);
  });
});

test('from a line on, with what was before it known', async () => {
  const { run, sent, said } = open(undefined, { from: 3 });
  assert.equal(await run(['a.example', '# comment', 'b.example', 'a.example', 'c.example']), 0);
  assert.deepEqual(sent().flat(), ['b.example', 'c.example']);
  assert.equal(said[0], '3 domains, 1 repeated; 2 of them from line 3 on');
});

test('a dry run sends nothing, and says what it would do', async () => {
  const { run, fake, said } = open(undefined, { dryRun: true });
  assert.equal(await run(domains(3_000)), 0);
  assert.deepEqual(fake.inputs, []);
  assert.deepEqual(said, ['3000 domains', 'Would send 3000 in 10 min, 5 a second. Nothing was sent.']);
  assert.equal(await run(['localhost']), 1);
});

describe('what SQS does not take', () => {
  test('is sent again, and nothing else', async () => {
    const { run, sent, complaints } = open((_, call) =>
      Promise.resolve(call === 1 ? { Failed: [failing('1'), failing('4')] } : {}),
    );
    assert.equal(await run(domains(10)), 0);
    assert.deepEqual(sent(), [domains(10), ['d1.example', 'd4.example']]);
    assert.deepEqual(complaints, []);
  });

  test('five times ends it, with the line to go on with', async () => {
    const { run, sent, complaints, clock } = open((batch) =>
      Promise.resolve({
        Failed: batch.Entries.filter(({ MessageBody }) => /d1[37]\./.test(MessageBody)).map(({ Id }) =>
          failing(Id),
        ),
      }),
    );
    assert.equal(await run(['# first', ...domains(30)]), 1);
    assert.equal(sent().length, 6);
    assert.deepEqual(sent().at(-1), ['d13.example', 'd17.example']);
    assert.deepEqual(complaints, ['SQS fails: InternalError (no)', 'To go on where this ended: --from 15']);
    assert.ok(clock.now() - NOW < 20 * SECOND);
  });

  test('whoever sends it is named and left out', async () => {
    const { run, sent, complaints, said } = open((_, call) =>
      Promise.resolve(call === 1 ? { Failed: [failing('1', true)] } : {}),
    );
    assert.equal(await run(domains(11)), 1);
    assert.equal(sent().length, 2);
    assert.deepEqual(complaints, ['line 2: d1.example: SQS refuses it: InternalError (no)']);
    assert.equal(said.at(-1), 'Sent 10 of 11.');
  });

  test('because of the network is tried again', async () => {
    const { run, sent } = open((_, call) =>
      call < 3 ? Promise.reject(new Error('ECONNRESET')) : Promise.resolve({}),
    );
    assert.equal(await run(domains(3)), 0);
    assert.equal(sent().length, 3);
  });

  test('because it is silent is tried again, and ends', async () => {
    const { run, complaints } = open(() => undefined);
    assert.equal(await run(domains(3)), 1);
    assert.match(complaints[0] ?? '', /^Requests cannot be sent: Error: no answer within 20000 ms$/);
    assert.equal(complaints[1], 'To go on where this ended: --from 1');
  });

  test('because access is denied ends it at once', async () => {
    const { run, sent, complaints } = open(() =>
      Promise.reject(Object.assign(new Error('not for you'), { name: 'AccessDenied', $fault: 'client' })),
    );
    assert.equal(await run(domains(30)), 1);
    assert.equal(sent().length, 1);
    assert.match(complaints[0] ?? '', /^Requests cannot be sent: AccessDenied: not for you$/);
  });
});

test('an interruption is one, also when there was nothing to send, or no more', async () => {
  assert.equal(await open(undefined, { signal: AbortSignal.abort() }).run([]), 130);
  const interrupted = new AbortController();
  const table = {
    read: () => {
      interrupted.abort();
      return Promise.resolve(ABSENT);
    },
  };
  const { run, said } = open(undefined, { signal: interrupted.signal, table });
  assert.equal(await run(domains(1)), 130);
  assert.deepEqual(said, ['1 domains', 'Sent 1 of 1.']);
});

test('an interruption says where to go on, and what is sent twice is nothing', async () => {
  const interrupted = new AbortController();
  const { run, sent, complaints, said } = open(
    (_, call) => {
      if (call === 2) interrupted.abort();
      return Promise.resolve({});
    },
    { signal: interrupted.signal },
  );
  assert.equal(await run(['', ...domains(100)]), 130);
  assert.equal(sent().length, 2, 'what was under way is finished');
  assert.equal(said.at(-1), 'Sent 20 of 100.');
  assert.deepEqual(complaints, ['To go on where this ended: --from 22']);

  const rest = open(undefined, { from: 22 });
  assert.equal(await rest.run(['', ...domains(100)]), 0);
  assert.deepEqual([...sent().flat(), ...rest.sent().flat()], domains(100));
});

test('afterwards the table says what has become of them', async () => {
  const reads: Read[] = [
    item(),
    item(),
    item({ policy: { ...POLICY, mode: 'testing' } }),
    item({ policy: { mode: 'none', mx: [], maxAgeSeconds: 1 } }),
    item({ backoff: true }),
    item({ validEnd: NOW }),
    ABSENT,
    UNREADABLE,
    DOWN,
  ];
  const asked: string[] = [];
  const { run, said, complaints, clock } = open(undefined, {
    table: {
      read: async (name) => {
        asked.push(name);
        return reads[asked.length - 1] ?? ABSENT;
      },
    },
  });
  assert.equal(await run(domains(reads.length)), 0);
  assert.deepEqual(asked.sort(), domains(reads.length).sort());
  assert.ok(clock.now() - NOW >= 60 * SECOND, 'the functions have a minute for each domain');
  assert.deepEqual(said.slice(2), [
    '4 have a policy now (2 enforce, 1 testing, 1 none), 1 a record without a policy that can be had, 1 nothing: ' +
      'no MTA-STS, or not looked at yet.',
    '1 have a policy that has ended.',
  ]);
  assert.deepEqual(complaints, [
    '1 have an item that cannot be used.',
    '1 could not be read: TimeoutError: no answer',
  ]);
});

describe('over the network', () => {
  test('the list arrives in the queue', async (t) => {
    const sqs = await startSqs();
    t.after(sqs.close);
    const client = new SQSClient(localClientConfig(sqs.endpoint));
    t.after(() => client.destroy());
    await client.send(new CreateQueueCommand({ QueueName: 'requests' }));
    const { start, complaints } = open(undefined, {
      client,
      queueUrl: sqs.queueUrl('requests'),
      clock: systemClock,
      rate: 1_000,
    });
    assert.deepEqual([await start(domains(25)), complaints], [0, []]);
    const bodies = (await sqs.messages('requests')).map(
      ({ body }) => (JSON.parse(body) as { domain: string }).domain,
    );
    assert.deepEqual(bodies.sort(), domains(25).sort());
  });
});
