// A stack at work: the daily run and the renewal run as their schedules start them, and what fails.

import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { DeleteRolePolicyCommand, PutRolePolicyCommand } from '@aws-sdk/client-iam';
import { InvokeCommand } from '@aws-sdk/client-lambda';
import { GetQueueAttributesCommand, PurgeQueueCommand, SetQueueAttributesCommand } from '@aws-sdk/client-sqs';
import { behaviours } from '../../infra/local/internet/internet.ts';
import { populate, type Resident } from '../../infra/local/population.ts';
import { seed } from '../../infra/local/seed.ts';
import {
  count,
  counted,
  DAY,
  type Deployed,
  drained,
  eventually,
  eventuallyRight,
  functionName,
  HOUR,
  PATIENCE_MS,
  physicalId,
  planCompleted,
  readLog,
  receive,
  SECOND,
  waves,
  wrong,
} from './stack.ts';
import { say } from './transcript.ts';

/** A domain that only the renewal run has reason to refresh: not stale, but about to expire. */
const RENEWED = 'about-to-expire.test';

/** Puts policies in every state into the table, of domains that do everything that domains do. */
export async function settle({ internet, store }: Deployed, now: number): Promise<Resident[]> {
  const maxAgeSeconds = 36_000;
  const renewed: Resident = {
    domain: RENEWED,
    site: behaviours.healthy(RENEWED, { maxAgeSeconds }),
    seed: {
      domain: RENEWED,
      policy: { mode: 'enforce', mx: [`mail.${RENEWED}`], maxAgeSeconds },
      recordId: 'id1',
      inserted: now - 10 * DAY,
      lastUpdate: now - 6 * HOUR,
    },
    // Half of its life is over: an unchanged id is not enough.
    expected: 'replaced',
  };
  // But for those that every renewal run would try again: here there is one each minute, and what it skips is counted.
  const others = populate(now).filter(({ expected, seed: entry }) => {
    const expires = entry && entry.lastUpdate + entry.policy.maxAgeSeconds * SECOND;
    return expected !== 'kept' || expires === undefined || expires > now + 7 * HOUR;
  });
  const residents = [...others, renewed];
  for (const { domain, site } of residents) internet.set(domain, site);
  const seeds = residents.flatMap((resident) => resident.seed ?? []);
  await Promise.all(seeds.map((each) => seed(store, each)));
  say(`${seeds.length} policies are put into the table`);
  return residents;
}

/** A run that fails for good, as a run in a later version's format would. */
export async function failRun(deployed: Deployed): Promise<void> {
  const { aws } = deployed;
  const event = { kind: 'yearly' };
  await aws.lambda.send(
    new InvokeCommand({
      FunctionName: functionName('plan'),
      InvocationType: 'Event',
      Payload: JSON.stringify(event),
    }),
  );
  const body = await eventually('the report of a failed run', PATIENCE_MS, () =>
    receive(deployed, 'FailuresQueue'),
  );
  const { requestContext, requestPayload } = JSON.parse(body);
  assert.equal(requestContext.condition, 'RetriesExhausted');
  assert.deepEqual(requestPayload, event);
  await aws.sqs.send(new PurgeQueueCommand({ QueueUrl: physicalId(deployed, 'FailuresQueue') }));
  say('a run of plan that fails is repeated twice, then reported to the failures queue');
}

/** @param dailyRun when the schedule should start it. */
export async function runDaily(
  deployed: Deployed,
  residents: readonly Resident[],
  { start, dailyRun, spreadSeconds }: { start: number; dailyRun: Date; spreadSeconds: number },
): Promise<void> {
  const { aws, internet } = deployed;
  say(`waiting for ${deployed.parameters.dailySchedule}`);
  await delay(Math.max(0, dailyRun.getTime() - Date.now()));
  const { planned, pruned, schedules, stored } = await planCompleted(aws, 'daily', dailyRun.getTime());
  say(
    `the schedule started plan: ${planned} of ${stored} planned, ${pruned} pruned, ${schedules} one-time schedules`,
  );
  assert.ok(schedules > 1, 'the window takes several waves');
  assert.ok((await waves(deployed)) > 0, 'they wait in their group');

  await eventuallyRight(spreadSeconds * SECOND + PATIENCE_MS, async () => {
    const left = await waves(deployed);
    const { invocations } = await readLog(aws, 'dispatch', start);
    return left === 0 && invocations === schedules
      ? []
      : [`${left} schedules, ${invocations} runs of dispatch`];
  });
  say(`they started dispatch ${schedules} times and deleted themselves: their group is empty`);

  await eventuallyRight(PATIENCE_MS, () => wrong(deployed, residents, start));
  await drained(deployed, 'RefreshQueue', 'RequestQueue');
  const outcomes = [...Map.groupBy(residents, ({ expected }) => expected)];
  const counts = outcomes.map(([outcome, group]) => `${group.length} ${outcome}`).join(', ');
  say(`each of the ${residents.length} domains ended as it should: ${counts}`);

  const begun = residents
    .filter(({ seed: entry }) => entry !== undefined)
    .flatMap(({ domain }) => internet.traffic.firstLookup(domain) ?? [])
    // The renewal run may have been there before.
    .filter((time) => time >= dailyRun.getTime());
  const seconds = (Math.max(...begun) - Math.min(...begun)) / SECOND;
  assert.ok(seconds > 0.8 * spreadSeconds, `${seconds} s`);
  say(`the refreshes began over ${seconds.toFixed(0)} s`);

  const refresh = await readLog(aws, 'refresh', start);
  const dispatch = await readLog(aws, 'dispatch', start);
  assert.deepEqual([...dispatch.errors, ...refresh.errors], [], 'a domain that fails is no error');
  for (const queue of ['RefreshDeadLetters', 'RequestDeadLetters', 'FailuresQueue']) {
    assert.equal(await count(deployed, queue), 0, queue);
  }
  say(`refresh ran ${refresh.invocations} times; nothing is in a dead-letter queue, no error in a log`);

  await planCompleted(aws, 'renewal', start);
  const left = residents.filter(({ expected }) => expected === 'fresh');
  for (const { domain } of left) assert.equal(internet.traffic.queries(domain), 0, domain);
  assert.ok(internet.traffic.queries(RENEWED) > 0);
  say(`the renewal schedule refreshed ${RENEWED}, which the daily run leaves alone`);
}

/** AWS's 10 minutes five times over would be the better part of an hour. */
const SHORT_VISIBILITY_SECONDS = 3;

/** maxReceiveCount. */
const RECEIVES = 5;

/**
 * Takes a permission from refresh, which one message of two needs, and gives it back.
 * @returns the domain that the next run finds: its policy says none, and its record is gone.
 */
export async function breakAndMend(deployed: Deployed): Promise<Resident> {
  const { aws, internet, store } = deployed;
  const now = Date.now();
  const lastUpdate = now - DAY;
  const failing = resident('cannot-be-deleted.test', 'none', 'removed');
  const beside = resident('in-the-same-batch.test', 'enforce', 'extended');
  for (const { domain, site, seed: entry } of [failing, beside]) {
    internet.set(domain, site);
    await seed(store, entry);
  }

  const denial = { RoleName: physicalId(deployed, 'RefreshRole'), PolicyName: 'fault' };
  const statement = { Effect: 'Deny', Action: 'dynamodb:DeleteItem', Resource: '*' };
  await aws.iam.send(
    new PutRolePolicyCommand({
      ...denial,
      PolicyDocument: JSON.stringify({ Version: '2012-10-17', Statement: [statement] }),
    }),
  );
  const QueueUrl = physicalId(deployed, 'RefreshQueue');
  const { Attributes } = await aws.sqs.send(
    new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ['VisibilityTimeout'] }),
  );
  const setVisibility = (VisibilityTimeout: string) =>
    aws.sqs.send(new SetQueueAttributesCommand({ QueueUrl, Attributes: { VisibilityTimeout } }));
  await setVisibility(String(SHORT_VISIBILITY_SECONDS));
  say(
    `the role of refresh is denied dynamodb:DeleteItem; to save time, messages come back after ` +
      `${SHORT_VISIBILITY_SECONDS} s instead of ${Attributes?.VisibilityTimeout}`,
  );

  const tasks = [failing, beside].map(({ domain }) => [domain, lastUpdate, Math.floor(now / SECOND)]);
  const answer = await aws.lambda.send(
    new InvokeCommand({
      FunctionName: functionName('dispatch'),
      Payload: JSON.stringify({ runId: 'fault', tasks: [...tasks, ['this is no task']] }),
    }),
  );
  assert.equal(answer.FunctionError, undefined);
  assert.deepEqual(JSON.parse(answer.Payload?.transformToString() ?? ''), { sent: 2 });
  await counted(aws, 'dispatch', now, 'Refused', 1);
  say('dispatch was given three tasks: it sent two and refused one, which cannot be decoded');

  const body = await eventually('a dead letter', PATIENCE_MS, () => receive(deployed, 'RefreshDeadLetters'));
  assert.deepEqual(JSON.parse(body), { domain: failing.domain, lastUpdate });
  const { errors, total } = await readLog(aws, 'refresh', now);
  assert.deepEqual(
    errors.map(({ domain, error }) => [domain, (error as { name: string }).name]),
    Array(RECEIVES).fill([failing.domain, 'AccessDeniedException']),
  );
  assert.deepEqual(await wrong(deployed, [{ ...failing, expected: 'fresh' }, beside], now), []);
  assert.equal(total('Extended'), 1);
  assert.equal(total('Skipped'), 0, 'it was not delivered again with the other');
  say(
    `one failed ${RECEIVES} times and is a dead letter, while the other of its batch succeeded, and only once`,
  );

  await aws.iam.send(new DeleteRolePolicyCommand(denial));
  await setVisibility(Attributes?.VisibilityTimeout ?? '');
  await aws.sqs.send(new PurgeQueueCommand({ QueueUrl: physicalId(deployed, 'RefreshDeadLetters') }));
  say(
    'mended as the runbook says: the cause is removed and the queue purged; the next run plans the domain again',
  );
  return failing;

  function resident(domain: string, mode: 'none' | 'enforce', expected: Resident['expected']) {
    const policy = { mode, mx: [`mail.${domain}`], maxAgeSeconds: 604_800 };
    return {
      domain,
      site: mode === 'none' ? behaviours.nxdomain() : behaviours.healthy(domain),
      seed: { domain, policy, recordId: 'id1', inserted: now - 9 * DAY, lastUpdate },
      expected,
    };
  }
}
