// The beginning, the change and the end of a stack: osls deploys, updates and removes it.

import assert from 'node:assert/strict';
import { DescribeStacksCommand } from '@aws-sdk/client-cloudformation';
import { DescribeTableCommand, ScanCommand } from '@aws-sdk/client-dynamodb';
import { GetFunctionConfigurationCommand } from '@aws-sdk/client-lambda';
import type { Resident } from '../../infra/local/population.ts';
import type { Aws } from './account.ts';
import { type Comparison, compareWithTemplate, IGNORED, stillThere } from './resources.ts';
import { OslsError, type Package, type Parameters, STAGE } from './service.ts';
import {
  type Deployed,
  drained,
  eventuallyRight,
  functionName,
  output,
  PATIENCE_MS,
  planCompleted,
  type Scene,
  SECOND,
  STACK,
  waves,
  wrong,
} from './stack.ts';
import { say } from './transcript.ts';

/** @param complaint what osls should say to these parameters. */
export async function refuseParameters(
  { service, aws }: Scene,
  parameters: Parameters,
  complaint: string,
): Promise<void> {
  await assert.rejects(
    service.package(parameters),
    (error) => error instanceof OslsError && error.message.includes(complaint),
  );
  await assert.rejects(describeStack(aws), /does not exist/);
  say(`osls refuses parameters before there is a stack: ${complaint}`);
}

export async function deploy(scene: Scene, parameters: Parameters): Promise<Deployed> {
  const { service, aws } = scene;
  const start = Date.now();
  const made = await service.package(parameters);
  const all = Object.keys(made.template.Resources).length + made.withheld.length;
  say(
    `osls packaged ${all} resources; not known to the emulator, and taken out: ${made.withheld.join(', ')}`,
  );
  const said = await service.deploy(made, parameters);
  say('osls deployed them through CloudFormation');
  const { run_id: runId } = await planCompleted(aws, 'daily', start);
  assert.ok(said.includes(`Started plan once, as run ${runId}`), said);
  say('the deployment ran plan once, over the empty table');

  const stack = await describeStack(aws);
  assert.deepEqual(
    Object.fromEntries(stack?.Tags?.map(({ Key, Value }) => [Key, Value]) ?? []),
    { service: 'mta-sts-refresher', stage: STAGE },
    'tags of the stack',
  );
  const outputs = new Map(
    stack?.Outputs?.map(({ OutputKey = '', OutputValue = '' }) => [OutputKey, OutputValue]),
  );
  const comparison = await compare(aws, made);
  return { ...scene, parameters, comparison, outputs };
}

/** What was updated more than half an hour ago is stale from now on. */
const CHANGES = { staleAfterSeconds: 1_800, dailySchedule: 'cron(0 3 * * ? *)', logRetentionDays: 90 };

/** @param due what the run of plan that comes with the deployment should make of domains. */
export async function update(
  deployed: Deployed,
  due: readonly Resident[],
  spreadSeconds: number,
): Promise<void> {
  const { service, aws, comparison } = deployed;
  const parameters = { ...deployed.parameters, ...CHANGES };
  const start = Date.now();
  const made = await service.package(parameters);
  await service.deploy(made, parameters);
  say(`osls deployed it again, with another ${Object.keys(CHANGES).join(', ')}`);

  const { Environment } = await aws.lambda.send(
    new GetFunctionConfigurationCommand({ FunctionName: functionName('plan') }),
  );
  assert.equal(Environment?.Variables?.STALE_AFTER_SECONDS, String(CHANGES.staleAfterSeconds));
  const { physicalIds } = await compare(aws, made);
  assert.deepEqual(physicalIds, comparison.physicalIds, 'nothing was replaced');

  const { planned } = await planCompleted(aws, 'daily', start);
  await eventuallyRight(spreadSeconds * SECOND + PATIENCE_MS, () => wrong(deployed, due, start));
  await drained(deployed, 'RefreshQueue');
  assert.equal(await waves(deployed), 0);
  const domains = [...Map.groupBy(due, ({ expected }) => expected)].map(
    ([outcome, { length }]) => `${length} ${outcome}`,
  );
  say(`its run of plan planned ${planned}; of those that were not due before, ${domains.join(', ')}`);
}

export async function remove(deployed: Deployed): Promise<void> {
  const { service, aws, comparison, parameters } = deployed;
  const TableName = output(deployed, 'PolicyTableName');
  const items = async () =>
    (await aws.dynamodb.send(new ScanCommand({ TableName, Select: 'COUNT' }))).Count ?? 0;
  const before = await items();
  assert.ok(before > 0);
  await service.remove(parameters);
  await assert.rejects(describeStack(aws), /does not exist/);
  say('osls removed the stack');
  assert.deepEqual(await stillThere(aws, comparison.resources), ['PolicyTable']);
  const { Table } = await aws.dynamodb.send(new DescribeTableCommand({ TableName }));
  assert.equal(Table?.DeletionProtectionEnabled, true);
  assert.equal(await items(), before);
  say(
    `of its ${comparison.resources.length} resources the table is left, with ${before} items, protected against deletion`,
  );
}

async function compare(aws: Aws, made: Package): Promise<Comparison> {
  const comparison = await compareWithTemplate(aws, STACK, made);
  const { differences, resources, properties } = comparison;
  assert.deepEqual(differences, [], 'what there is, is what the template says');
  say(
    `${resources.length} resources are what the template says, in ${properties} properties (ignored: ${IGNORED.join(', ')})`,
  );
  return comparison;
}

async function describeStack({ cloudformation }: Aws) {
  const { Stacks } = await cloudformation.send(new DescribeStacksCommand({ StackName: STACK }));
  return Stacks?.[0];
}
