import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import {
  ConflictException,
  CreateScheduleCommand,
  type CreateScheduleCommandInput,
  DeleteScheduleCommand,
  GetScheduleCommand,
  ListSchedulesCommand,
  type ListSchedulesCommandInput,
  ResourceNotFoundException,
  SchedulerClient,
  UpdateScheduleCommand,
  ValidationException,
} from '@aws-sdk/client-scheduler';
import { localClientConfig } from '../../../infra/local/environment.ts';
import { type SchedulerOptions, startScheduler } from '../../../infra/local/scheduler.ts';
import { until } from '../../resources.ts';

const TARGET = {
  Arn: 'arn:aws:lambda:us-east-1:000000000000:function:dispatch',
  RoleArn: 'arn:aws:iam::000000000000:role/scheduler',
  Input: '{"wave":1}',
};
const FUTURE = 'at(2999-01-01T00:00:00)';
const PAST = 'at(2020-01-01T00:00:00)';

interface Delivery {
  readonly arn: string;
  readonly input: string;
}

async function start(t: TestContext, options: Partial<SchedulerOptions> = {}) {
  const deliveries: Delivery[] = [];
  const target = (arn: string, input: string) => void deliveries.push({ arn, input });
  const scheduler = await startScheduler({ groups: ['waves'], target, retryDelayMs: 5, ...options });
  const client = new SchedulerClient({ ...localClientConfig(scheduler.endpoint), maxAttempts: 1 });
  t.after(async () => {
    client.destroy();
    await scheduler.close();
  });
  const create = (input: Partial<CreateScheduleCommandInput> = {}) =>
    client.send(
      new CreateScheduleCommand({
        Name: 'wave-1',
        GroupName: 'waves',
        ScheduleExpression: FUTURE,
        FlexibleTimeWindow: { Mode: 'OFF' },
        ActionAfterCompletion: 'DELETE',
        Target: TARGET,
        ...input,
      }),
    );
  return { scheduler, client, create, deliveries };
}

const atSecond = (epoch: number) => `at(${new Date(epoch).toISOString().slice(0, 19)})`;

test('a schedule fires after its time, at most the lateness later, and is deleted', async (t) => {
  const at = Date.UTC(2030, 0, 1);
  let now = at - 1_500;
  const slept: number[] = [];
  let wake = () => {};
  const { scheduler, create, deliveries } = await start(t, {
    latenessMs: 400,
    random: () => 0.999,
    now: () => now,
    sleep: (ms) => {
      slept.push(ms);
      return new Promise((resolve) => {
        wake = resolve;
      });
    },
  });
  const { ScheduleArn } = await create({ ScheduleExpression: atSecond(at) });
  assert.equal(ScheduleArn, 'arn:aws:scheduler:us-east-1:000000000000:schedule/waves/wave-1');
  assert.deepEqual(scheduler.list(), [
    { name: 'wave-1', groupName: 'waves', at, targetArn: TARGET.Arn, input: TARGET.Input },
  ]);
  // A timer that is early by one millisecond, as those of Node can be.
  now = at + 398;
  wake();
  await until(() => slept.length === 2, 'it sleeps again');
  assert.deepEqual(slept, [1_500 + 399, 1]);
  assert.deepEqual(deliveries, []);
  now = at + 399;
  wake();
  await until(() => scheduler.pending() === 0, 'all schedules have fired');
  assert.deepEqual(deliveries, [{ arn: TARGET.Arn, input: TARGET.Input }]);
});

test('a schedule in the past fires at once; deletion follows ActionAfterCompletion', async (t) => {
  const { scheduler, client, create, deliveries } = await start(t, {
    latenessMs: 3_600_000,
    random: () => 0.999,
  });
  await create({ ScheduleExpression: PAST });
  await create({ Name: 'kept', ScheduleExpression: PAST, ActionAfterCompletion: 'NONE' });
  await until(() => scheduler.pending() === 0, 'all schedules have fired');
  assert.equal(deliveries.length, 2);
  const get = (Name: string) => client.send(new GetScheduleCommand({ Name, GroupName: 'waves' }));
  await assert.rejects(get('wave-1'), ResourceNotFoundException);
  assert.equal((await get('kept')).ScheduleExpression, PAST);
});

test('schedules can be read, listed and deleted', async (t) => {
  const { scheduler, client, create } = await start(t);
  for (const Name of ['b', 'a', 'c']) await create({ Name });
  const seen = await client.send(new GetScheduleCommand({ Name: 'a', GroupName: 'waves' }));
  assert.deepEqual(seen.Target, TARGET);
  assert.ok(seen.CreationDate instanceof Date);

  const names = async (query: ListSchedulesCommandInput) =>
    (await client.send(new ListSchedulesCommand(query))).Schedules?.map(({ Name }) => Name);
  assert.deepEqual(await names({ GroupName: 'waves' }), ['b', 'a', 'c']);
  assert.deepEqual(await names({ NamePrefix: 'b' }), ['b']);
  assert.deepEqual(await names({ GroupName: 'default' }), []);

  await client.send(new DeleteScheduleCommand({ Name: 'a', GroupName: 'waves' }));
  assert.equal(scheduler.pending(), 2);
  const again = new DeleteScheduleCommand({ Name: 'a', GroupName: 'waves' });
  await assert.rejects(client.send(again), ResourceNotFoundException);
});

test('the same name conflicts, unless it is the same request repeated', async (t) => {
  const { scheduler, create } = await start(t);
  await create({ ClientToken: 'one' });
  await create({ ClientToken: 'one' });
  await assert.rejects(create({ ClientToken: 'two' }), ConflictException);
  await assert.rejects(create({ ClientToken: 'one', ScheduleExpression: PAST }), ConflictException);
  await assert.rejects(create(), ConflictException, 'the SDK makes a new token each time');
  assert.equal(scheduler.pending(), 1);
});

test('a schedule group must exist', async (t) => {
  const { create } = await start(t);
  await assert.rejects(create({ GroupName: 'other' }), ResourceNotFoundException);
  await assert.rejects(
    create({ GroupName: undefined }),
    ResourceNotFoundException,
    'default is not configured',
  );
});

test('what EventBridge Scheduler would refuse is refused', async (t) => {
  const { scheduler, client, create } = await start(t);
  const target = (change: object) => ({ Target: { ...TARGET, ...change } });
  const refused: [Partial<CreateScheduleCommandInput>, RegExp][] = [
    [{ Name: 'x'.repeat(65) }, /^Name must match/],
    [{ Name: 'a/b' }, /^Name must match/],
    [{ ScheduleExpression: 'rate(1 minute)' }, /Schedule Expression/],
    [{ ScheduleExpression: 'at(2999-01-01T00:00:00Z)' }, /Schedule Expression/],
    [{ ScheduleExpression: 'at(2999-02-30T00:00:00)' }, /Schedule Expression/],
    [{ ScheduleExpressionTimezone: 'Europe/Amsterdam' }, /Timezone/],
    [{ FlexibleTimeWindow: undefined }, /FlexibleTimeWindow must be an object/],
    [{ FlexibleTimeWindow: { Mode: 'FLEXIBLE', MaximumWindowInMinutes: 5 } }, /FlexibleTimeWindow.Mode/],
    [{ ActionAfterCompletion: 'KEEP' as 'NONE' }, /ActionAfterCompletion/],
    [{ StartDate: new Date() }, /does not know StartDate/],
    [{ Target: undefined }, /^Target must be an object/],
    [target({ Arn: 'dispatch' }), /^Target.Arn must match/],
    [target({ RoleArn: undefined }), /^Target.RoleArn must match/],
    [target({ Input: 'no JSON' }), /must be JSON/],
    [target({ Input: JSON.stringify('é'.repeat(131_072)) }), /at most 262144 bytes/],
    [target({ Input: '{"id":"<aws.scheduler.execution-id>"}' }), /context attributes/],
    [target({ SqsParameters: { MessageGroupId: '1' } }), /does not know SqsParameters of Target/],
    [target({ RetryPolicy: { MaximumRetryAttempts: 186 } }), /must be 0 to 185/],
    [target({ RetryPolicy: { MaximumEventAgeInSeconds: 59 } }), /must be 60 to 86400/],
    [target({ DeadLetterConfig: { Arn: 'failures' } }), /^DeadLetterConfig.Arn must match/],
  ];
  for (const [change, message] of refused) {
    await assert.rejects(create(change), (error: Error) => {
      assert.ok(error instanceof ValidationException, `${message}: ${error}`);
      assert.match(error.message, message);
      return true;
    });
  }
  assert.equal(scheduler.pending(), 0);
  await create(target({ Input: JSON.stringify('x'.repeat(262_142)) }));
  await assert.rejects(
    client.send(
      new UpdateScheduleCommand({
        Name: 'wave-1',
        ScheduleExpression: PAST,
        FlexibleTimeWindow: { Mode: 'OFF' },
        Target: TARGET,
      }),
    ),
    { name: 'ValidationException', message: /does not know PUT/ },
  );
});

test('a delivery that fails is retried, then given to the dead-letter queue', async (t) => {
  let attempts = 0;
  const dead: [string, string, Readonly<Record<string, string>>][] = [];
  const { scheduler, create } = await start(t, {
    target: () => {
      attempts += 1;
      throw new TypeError('no such function');
    },
    deadLetter: (...letter) => void dead.push(letter),
  });
  const queue = 'arn:aws:sqs:us-east-1:000000000000:failures';
  await create({
    ScheduleExpression: atSecond(Date.now()),
    Target: { ...TARGET, RetryPolicy: { MaximumRetryAttempts: 2 }, DeadLetterConfig: { Arn: queue } },
  });
  await until(() => scheduler.pending() === 0, 'all schedules have fired');
  assert.equal(attempts, 3);
  const [[arn, input, attributes] = [], ...more] = dead;
  assert.deepEqual([arn, input, more.length], [queue, TARGET.Input, 0]);
  assert.equal(attributes?.ERROR_MESSAGE, 'no such function');
  assert.equal(attributes?.RETRY_ATTEMPTS, '2');
  assert.equal(attributes?.EXHAUSTED_RETRY_CONDITION, 'MaximumRetryAttempts');
  assert.equal(attributes?.TARGET_ARN, TARGET.Arn);
});
