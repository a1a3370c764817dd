import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import {
  ConflictException,
  type CreateScheduleCommandInput,
  SchedulerClient,
  ServiceQuotaExceededException,
} from '@aws-sdk/client-scheduler';
import fc from 'fast-check';
import { decodeWave } from '../../../functions/dispatch/wave.ts';
import type { PlannedWave } from '../../../functions/plan/plan.ts';
import { createScheduleWaves, scheduleName } from '../../../functions/plan/schedule.ts';
import { anyText, NOON, tasks } from '../dispatch/tasks.ts';

const TARGET = {
  group: 'waves',
  dispatchFunctionArn: 'arn:aws:lambda:us-east-1:123456789012:function:dispatch',
  roleArn: 'arn:aws:iam::123456789012:role/scheduler',
  dlqArn: 'arn:aws:sqs:us-east-1:123456789012:failures',
};

/** "CreateSchedule" in the API reference. */
const NAME = /^[0-9a-zA-Z-_.]{1,64}$/;

/** A client of EventBridge Scheduler that knows CreateSchedule only, and keeps what it is asked for. */
function fakeScheduler(answer: (call: number) => void | Promise<void> = () => {}) {
  const schedules: CreateScheduleCommandInput[] = [];
  const client = new SchedulerClient({ region: 'test' });
  client.middlewareStack.add(
    (_next, context) => async (args) => {
      assert.equal(context.commandName, 'CreateScheduleCommand');
      schedules.push(args.input as CreateScheduleCommandInput);
      await answer(schedules.length);
      return { response: {}, output: { ScheduleArn: 'arn:aws:scheduler:…', $metadata: {} } };
    },
    { step: 'initialize', priority: 'high' },
  );
  return { schedules, scheduleWaves: createScheduleWaves(client, TARGET) };
}

function conflict(): ConflictException {
  return new ConflictException({ message: 'exists', Message: 'exists', $metadata: {} });
}

const wave: PlannedWave = { releaseAt: NOON + 840_000, tasks: tasks(3, () => NOON + 900_000) };

test('a wave is a one-time schedule that hands its tasks to dispatch, and deletes itself', async () => {
  const { schedules, scheduleWaves } = fakeScheduler();
  assert.equal(await scheduleWaves('run', [wave]), 1);
  const [schedule] = schedules;
  const input = schedule?.Target?.Input ?? '';
  assert.deepEqual(schedule, {
    Name: scheduleName('run', input),
    GroupName: 'waves',
    // Without a time zone it is UTC.
    ScheduleExpression: 'at(2026-11-22T12:14:00)',
    FlexibleTimeWindow: { Mode: 'OFF' },
    ActionAfterCompletion: 'DELETE',
    Target: {
      Arn: TARGET.dispatchFunctionArn,
      RoleArn: TARGET.roleArn,
      Input: input,
      RetryPolicy: { MaximumEventAgeInSeconds: 10_800, MaximumRetryAttempts: 20 },
      DeadLetterConfig: { Arn: TARGET.dlqArn },
    },
  });
  assert.deepEqual(decodeWave(JSON.parse(input)), {
    ok: true,
    value: { runId: 'run', tasks: wave.tasks, refused: [] },
  });
});

test('a wave that does not fit into one schedule has several, all for the same time', async () => {
  const { schedules, scheduleWaves } = fakeScheduler();
  const large = { releaseAt: wave.releaseAt, tasks: tasks(20_000) };
  const later = { releaseAt: wave.releaseAt + 840_000, tasks: wave.tasks };
  const count = await scheduleWaves('run', [large, later]);
  assert.ok(count > 2);
  assert.equal(schedules.length, count);
  assert.equal(new Set(schedules.map((schedule) => schedule.Name)).size, count);
  const first = schedules.filter((schedule) => schedule.ScheduleExpression === 'at(2026-11-22T12:14:00)');
  assert.equal(first.length, count - 1);
  const domains = first.flatMap((schedule) => {
    const decoded = decodeWave(JSON.parse(schedule.Target?.Input ?? ''));
    return decoded.ok ? decoded.value.tasks.map((task) => task.domain) : [];
  });
  assert.deepEqual(new Set(domains), new Set(large.tasks.map((task) => task.domain)));
  assert.equal(domains.length, 20_000);
});

test('without waves there is no call', async () => {
  const { schedules, scheduleWaves } = fakeScheduler();
  assert.equal(await scheduleWaves('run', []), 0);
  assert.equal(schedules.length, 0);
});

test('a schedule of that name holds the very same wave: a conflict is success', async () => {
  const { schedules, scheduleWaves } = fakeScheduler((call) => {
    if (call % 2 === 1) throw conflict();
  });
  const waves = Array.from({ length: 4 }, (_, i) => ({ ...wave, tasks: tasks(1, () => NOON + i * 840_000) }));
  assert.equal(await scheduleWaves('run', waves), 4);
  assert.equal(schedules.length, 4);
});

test('any other error rejects, and no more schedules are created', async () => {
  const full = new ServiceQuotaExceededException({ message: 'too many', Message: 'too many', $metadata: {} });
  const { schedules, scheduleWaves } = fakeScheduler(async (call) => {
    await turn();
    if (call === 3) throw full;
  });
  const waves = Array.from({ length: 50 }, (_, i) => ({
    ...wave,
    tasks: tasks(1, () => NOON + i * 840_000),
  }));
  await assert.rejects(scheduleWaves('run', waves), full);
  assert.ok(schedules.length < 20);
});

test('no more than eight calls are under way at once', async () => {
  let running = 0;
  let most = 0;
  const { scheduleWaves } = fakeScheduler(async () => {
    most = Math.max(most, ++running);
    await turn();
    running--;
  });
  const waves = Array.from({ length: 50 }, (_, i) => ({
    ...wave,
    tasks: tasks(1, () => NOON + i * 840_000),
  }));
  await scheduleWaves('run', waves);
  assert.equal(most, 8);
});

test('a name is made from the run and the content: same content, same name; any other, another', () => {
  assert.equal(scheduleName('run', 'a'), 'run-ca978112ca1bbdca');
  assert.equal(scheduleName('run', 'a'), scheduleName('run', 'a'));
  assert.notEqual(scheduleName('run', 'a'), scheduleName('run', 'b'));
  assert.equal(scheduleName('2026-11-22T03:00:00Z', 'a'), '2026-11-22T03-00-00Z-ca978112ca1bbdca');
});

test('a name is one that EventBridge Scheduler takes, whatever the run is called', () => {
  fc.assert(
    fc.property(anyText, fc.string(), (runId, input) => {
      assert.match(scheduleName(runId, input), NAME);
    }),
  );
});
