// What CloudFormation is given: the packaged template, with the promises that the README makes for it. And what is
// uploaded, which is not the sources but bundles made of them: they tell the story too, so that a fault of bundling
// cannot hide. All of it is here, since each packaging takes seconds.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import AdmZip from 'adm-zip';
import { LIMITS } from '../../functions/mtasts/limits.ts';
import { LAST_DELIVERY } from '../../functions/refresh/batch.ts';
import {
  dispatchEnvironment,
  planEnvironment,
  refreshEnvironment,
  requestEnvironment,
} from '../../functions/runtime/env.ts';
import { METRIC_NAMES } from '../../functions/runtime/telemetry.ts';
import { makeFolder } from '../resources.ts';
import { tellStory } from '../story.ts';
import { type Json, packageService, readDefaults, removePackages } from './packaging.ts';

const ROOT = join(import.meta.dirname, '../..');

/** Another value for every parameter. */
const PARAMETERS = {
  dailySchedule: 'rate(12 hours)',
  spreadSeconds: 7200,
  waveSeconds: 600,
  scheduleLatenessSeconds: 90,
  staleAfterSeconds: 40000,
  unusedAfterSeconds: 0,
  scanSegments: 8,
  renewalIntervalSeconds: 1800,
  renewalMarginSeconds: 20000,
  renewalSpreadSeconds: 600,
  maxFetchAgeSeconds: 0,
  dnsServers: '9.9.9.9,[2620:fe::fe]:53',
  policyHostPort: 8443,
  discoveriesPerDomainPerDay: 7,
  discoveriesPerDay: 70,
  refreshConcurrency: 20,
  requestConcurrency: 3,
  logLevel: 'DEBUG',
  logRetentionDays: 90,
  alarmTopicArn: 'arn:aws:sns:eu-central-1:123456789012:mail-alarms',
  alarmRefreshesFailingPercent: 41,
  alarmPoliciesFailingPercent: 42,
  alarmPoliciesLapsedPercent: 43,
  alarmPrunedPercent: 44,
  alarmDiscoveredPercent: 45,
};

after(removePackages);
const [dev, prod] = await Promise.all([
  packageService(),
  packageService(
    ...['--stage', 'prod', '--region', 'eu-central-1'],
    ...Object.entries(PARAMETERS).flatMap(([name, value]) => ['--param', `${name}=${value}`]),
  ),
]);

test('the defaults are those that other tests read in serverless.yml', async () => {
  assert.deepEqual(dev.parameters, await readDefaults());
});

const { template } = dev;
const { Resources } = template;

function ofType(type: string, { Resources: resources } = template): [id: string, properties: Json][] {
  return Object.entries(resources)
    .filter(([, { Type }]) => Type === type)
    .map(([id, { Properties }]) => [id, Properties]);
}

const properties = (id: string, { Resources: resources } = template): Json => resources[id]?.Properties;
const functions = ofType('AWS::Lambda::Function');
const queues = ofType('AWS::SQS::Queue');
const alarms = ofType('AWS::CloudWatch::Alarm');

/** Every value below another, with what it is called there. */
function* walk(value: Json, key = ''): Generator<[key: string, value: Json]> {
  yield [key, value];
  if (typeof value !== 'object' || value === null) return;
  for (const [name, member] of Object.entries(value)) yield* walk(member, name);
}

/** The logical ids and pseudo parameters that a value refers to. */
function references(value: Json): string[] {
  return [...walk(value)].flatMap(([key, found]) => {
    if (key === 'Ref') return [found as string];
    if (key === 'Fn::GetAtt') return [found[0] as string];
    if (key === 'Fn::Sub') {
      assert.equal(typeof found, 'string', 'Fn::Sub with variables of its own is not looked into');
      return [...found.matchAll(/\$\{([^.}]+)/g)].map(([, name]) => name as string);
    }
    return [];
  });
}

function isReference(value: Json): boolean {
  return value.Ref !== undefined || value['Fn::GetAtt'] !== undefined;
}

/** Intrinsic functions in words, as `PolicyTable.Arn`. */
function text(value: Json): string {
  if (typeof value === 'string') return value;
  if (value.Ref !== undefined) return value.Ref;
  if (value['Fn::GetAtt'] !== undefined) return value['Fn::GetAtt'].join('.');
  return value['Fn::Sub'] ?? JSON.stringify(value);
}

const list = (value: Json): Json[] => (Array.isArray(value) ? value : [value]);

test('references resolve, and nothing is left of the variables of osls', () => {
  const known = new Set([...Object.keys(Resources), ...Object.keys(template.Parameters)]);
  for (const name of references(template)) assert.ok(known.has(name) || name.startsWith('AWS::'), name);
  for (const [id, { DependsOn = [] }] of Object.entries(Resources)) {
    for (const other of list(DependsOn)) assert.ok(known.has(other), `${id} depends on ${other}`);
  }
  for (const [key, value] of walk(template)) {
    if (key === 'Fn::If') assert.ok(value[0] in template.Conditions, value[0]);
  }
  assert.doesNotMatch(JSON.stringify(template), /\$\{(self|param|opt|sls|rate|file):/);
});

test('names are unique for each stage', () => {
  for (const [stage, packaged] of Object.entries({ dev, prod })) {
    const names = Object.values(packaged.template.Resources).flatMap(({ Type, Properties }) =>
      Object.entries(Properties ?? {})
        .filter(([key, value]) => key.endsWith('Name') && key !== 'MetricName' && !isReference(value))
        .map(([, name]) => `${Type} ${text(name)}`),
    );
    assert.ok(names.length > 40, `${names.length} names`);
    assert.equal(new Set(names).size, names.length);
    const pattern = new RegExp(`mta-sts-refresher[-/]${stage}[-/]`);
    assert.deepEqual(
      names.filter((name) => !pattern.test(name)),
      [],
    );
  }
  // Roles and policies are shared by all regions of an account, so CloudFormation names them.
  for (const [id, { RoleName, ManagedPolicyName }] of [
    ...ofType('AWS::IAM::Role'),
    ...ofType('AWS::IAM::ManagedPolicy'),
  ]) {
    assert.equal(RoleName ?? ManagedPolicyName, undefined, id);
  }
});

test('every parameter arrives where it belongs', () => {
  assert.deepEqual(Object.keys(PARAMETERS).sort(), Object.keys(dev.parameters).sort());
  const t = prod.template;
  const plan = properties('PlanLambdaFunction', t).Environment.Variables;
  for (const id of ['RefreshLambdaFunction', 'RequestLambdaFunction']) {
    const { Environment, LoggingConfig } = properties(id, t);
    assert.equal(Environment.Variables.MAX_FETCH_AGE_SECONDS, '0');
    assert.equal(Environment.Variables.DNS_SERVERS, PARAMETERS.dnsServers);
    assert.equal(Environment.Variables.POLICY_HOST_PORT, '8443');
    assert.equal(Environment.Variables.POWERTOOLS_LOG_LEVEL, 'DEBUG');
    assert.equal(LoggingConfig.ApplicationLogLevel, 'DEBUG');
  }
  const request = properties('RequestLambdaFunction', t).Environment.Variables;
  const threshold = (id: string) => Number(properties(`${id}Alarm`, t).Threshold);
  const concurrency = (id: string) => Number(properties(id, t).ScalingConfig.MaximumConcurrency);
  assert.deepEqual(
    {
      ...PARAMETERS,
      dailySchedule: properties('DailySchedule', t).ScheduleExpression,
      spreadSeconds: Number(plan.SPREAD_SECONDS),
      waveSeconds: Number(plan.WAVE_SECONDS),
      scheduleLatenessSeconds: Number(plan.SCHEDULE_LATENESS_SECONDS),
      staleAfterSeconds: Number(plan.STALE_AFTER_SECONDS),
      unusedAfterSeconds: Number(plan.UNUSED_AFTER_SECONDS),
      scanSegments: Number(plan.SCAN_SEGMENTS),
      renewalIntervalSeconds: Number(plan.RENEWAL_INTERVAL_SECONDS),
      renewalMarginSeconds: Number(plan.RENEWAL_MARGIN_SECONDS),
      renewalSpreadSeconds: Number(plan.RENEWAL_SPREAD_SECONDS),
      discoveriesPerDomainPerDay: Number(request.DISCOVERIES_PER_DOMAIN_PER_DAY),
      discoveriesPerDay: Number(request.DISCOVERIES_PER_DAY),
      refreshConcurrency: concurrency('RefreshEventSource'),
      requestConcurrency: concurrency('RequestEventSource'),
      logRetentionDays: Number(properties('PlanLogGroup', t).RetentionInDays),
      alarmTopicArn: t.Parameters.AlarmTopicArn.Default,
      alarmRefreshesFailingPercent: threshold('RefreshesFailing'),
      alarmPoliciesFailingPercent: threshold('PoliciesFailing'),
      alarmPoliciesLapsedPercent: threshold('PoliciesLapsed'),
      alarmPrunedPercent: threshold('PoliciesPruned'),
      alarmDiscoveredPercent: threshold('PoliciesDiscovered'),
    },
    PARAMETERS,
  );
  assert.equal(properties('RenewalSchedule', t).ScheduleExpression, 'rate(30 minutes)');
  assert.equal(properties('RenewalSchedule').ScheduleExpression, 'rate(60 minutes)');
});

// Functions

/** What CloudFormation puts in for a reference in a variable, roughly. */
const STAND_INS: Readonly<Record<string, string>> = {
  RefreshQueue: 'https://sqs.us-east-1.amazonaws.com/123456789012/refresh',
  'DispatchLambdaFunction.Arn': 'arn:aws:lambda:us-east-1:123456789012:function:dispatch',
  'WaveScheduleRole.Arn': 'arn:aws:iam::123456789012:role/waves',
  'FailuresQueue.Arn': 'arn:aws:sqs:us-east-1:123456789012:failures',
};

function variables(id: string): Record<string, string> {
  const entries = Object.entries(properties(id).Environment.Variables as Record<string, Json>);
  return Object.fromEntries(
    entries.map(([name, value]) => [
      name,
      isReference(value) ? (STAND_INS[text(value)] ?? text(value)) : value,
    ]),
  );
}

test("every function's variables pass its own check, and set nothing but the program's defaults", () => {
  const plan = variables('PlanLambdaFunction');
  const required = Object.fromEntries(
    Object.entries(plan).filter(([name]) => /TABLE|URL|ARN|GROUP/.test(name)),
  );
  assert.deepEqual(planEnvironment(plan), planEnvironment(required));
  dispatchEnvironment(variables('DispatchLambdaFunction'));
  for (const [id, environment] of [
    ['RefreshLambdaFunction', refreshEnvironment],
    ['RequestLambdaFunction', requestEnvironment],
  ] as const) {
    const { POLICY_TABLE } = variables(id);
    assert.deepEqual(environment(variables(id)), environment({ POLICY_TABLE }));
  }
});

test('every variable that functions read can be set, but the one that is for local use only', async () => {
  const source = await readFile(join(ROOT, 'functions/runtime/env.ts'), 'utf8');
  const read = new Set([...source.matchAll(/reader\.\w+\(\s*'([A-Z_]+)'/g)].map(([, name]) => name));
  const set = new Set(functions.flatMap(([id]) => Object.keys(variables(id))));
  assert.deepEqual(
    [...read].filter((name) => !set.has(name ?? '')),
    ['ALLOW_PRIVATE_ADDRESSES'],
  );
});

test('functions run on Node.js 24 on arm64, log JSON, and map their stacks', () => {
  assert.equal(functions.length, 4);
  for (const [id, found] of functions) {
    assert.equal(found.Runtime, 'nodejs24.x', id);
    assert.deepEqual(found.Architectures, ['arm64'], id);
    assert.deepEqual(found.LoggingConfig, { LogFormat: 'JSON', ApplicationLogLevel: 'INFO' }, id);
    assert.equal(found.Environment.Variables.NODE_OPTIONS, '--enable-source-maps', id);
    assert.equal(found.ReservedConcurrentExecutions, undefined, id);
  }
});

test('every function has a role and a log group of its own', () => {
  const roles = functions.map(([, { Role }]) => text(Role));
  assert.deepEqual(roles.sort(), ['DispatchRole.Arn', 'PlanRole.Arn', 'RefreshRole.Arn', 'RequestRole.Arn']);
  const groups = ofType('AWS::Logs::LogGroup');
  assert.deepEqual(
    groups.map(([, { LogGroupName }]) => LogGroupName).sort(),
    functions.map(([, { FunctionName }]) => `/aws/lambda/${FunctionName}`).sort(),
  );
  for (const [id, { RetentionInDays }] of groups) assert.equal(Number(RetentionInDays), 30, id);
});

test('a function that works on domains has time for the slowest, and ten seconds to answer', () => {
  for (const id of ['RefreshLambdaFunction', 'RequestLambdaFunction']) {
    assert.ok(properties(id).Timeout >= LIMITS.domainMs / 1_000 + 10 + 10, id);
  }
});

test('one address of a policy host never has more than 60 connections from the whole fleet', () => {
  const batches = ['RefreshEventSource', 'RequestEventSource'].map((id) =>
    Number(properties(id).ScalingConfig.MaximumConcurrency),
  );
  // A process works on one batch at a time, and nothing else connects to policy hosts.
  const processes = batches.reduce((sum, each) => sum + each);
  assert.equal(LIMITS.connectionsPerAddress * processes, 60);
});

test('no failure of an asynchronous invocation is silent', () => {
  const configs = ofType('AWS::Lambda::EventInvokeConfig');
  assert.deepEqual(
    configs.map(([, found]) => [
      text(found.FunctionName),
      text(found.DestinationConfig.OnFailure.Destination),
    ]),
    [
      ['PlanLambdaFunction', 'FailuresQueue.Arn'],
      ['DispatchLambdaFunction', 'FailuresQueue.Arn'],
    ],
  );
});

// The table, queues and schedules

test('the table is billed by use, encrypted, recoverable, and outlives the stack', () => {
  const { DeletionPolicy, UpdateReplacePolicy, Properties } = Resources.PolicyTable as Json;
  assert.deepEqual([DeletionPolicy, UpdateReplacePolicy], ['Retain', 'Retain']);
  assert.equal(Properties.BillingMode, 'PAY_PER_REQUEST');
  assert.equal(Properties.DeletionProtectionEnabled, true);
  assert.deepEqual(Properties.PointInTimeRecoverySpecification, { PointInTimeRecoveryEnabled: true });
  assert.deepEqual(Properties.SSESpecification, { SSEEnabled: true });
  assert.deepEqual(Properties.TimeToLiveSpecification, { AttributeName: 'Expires', Enabled: true });
});

const DEAD_LETTER_SECONDS = 14 * 86_400;

test('every queue is encrypted, and its dead letters are kept for 14 days, or it is where they end', () => {
  const ends: string[] = [];
  for (const [id, found] of queues) {
    assert.equal(found.SqsManagedSseEnabled, true, id);
    if (found.RedrivePolicy === undefined) {
      ends.push(id);
      assert.equal(found.MessageRetentionPeriod, DEAD_LETTER_SECONDS, id);
      continue;
    }
    const [deadLetters = ''] = references(found.RedrivePolicy.deadLetterTargetArn);
    assert.ok(found.RedrivePolicy.maxReceiveCount >= 5, id);
    assert.ok(found.RedrivePolicy.maxReceiveCount > LAST_DELIVERY, id);
    assert.ok(found.MessageRetentionPeriod < DEAD_LETTER_SECONDS, id);
    assert.deepEqual(found.RedriveAllowPolicy, { redrivePermission: 'denyAll' }, id);
    const { redrivePermission, sourceQueueArns } = properties(deadLetters).RedriveAllowPolicy;
    assert.equal(redrivePermission, 'byQueue', deadLetters);
    assert.deepEqual(
      sourceQueueArns.map((arn: Json) => text(arn).split(':').at(-1)),
      [found.QueueName],
    );
  }
  assert.deepEqual(ends, ['RefreshDeadLetters', 'RequestDeadLetters', 'FailuresQueue']);
});

test('event sources report failures one by one, and leave messages hidden for six times the timeout and the window', () => {
  const sources = Object.fromEntries(ofType('AWS::Lambda::EventSourceMapping'));
  assert.deepEqual(Object.keys(sources), ['RefreshEventSource', 'RequestEventSource']);
  for (const [id, source] of Object.entries(sources)) {
    const [queue = ''] = references(source.EventSourceArn);
    const [name = ''] = references(source.FunctionName);
    const window = source.MaximumBatchingWindowInSeconds ?? 0;
    assert.ok(properties(queue).VisibilityTimeout >= 6 * properties(name).Timeout + window, id);
    assert.deepEqual(source.FunctionResponseTypes, ['ReportBatchItemFailures'], id);
    assert.ok(Number(source.ScalingConfig.MaximumConcurrency) >= 2, id);
    assert.ok(source.BatchSize <= 10 || window >= 1, id);
  }
  assert.equal(sources.RefreshEventSource.BatchSize, 100);
  assert.ok(sources.RefreshEventSource.MaximumBatchingWindowInSeconds <= 10);
  assert.equal(sources.RequestEventSource.MaximumBatchingWindowInSeconds, undefined);
});

test('schedules have retries, an end to them, a dead-letter queue, a role and a group of their own', () => {
  for (const [id, kind, maxAge] of [
    ['DailySchedule', 'daily', 86_400 / 2],
    ['RenewalSchedule', 'renewal', 3_600],
  ] as const) {
    const { Target, GroupName, FlexibleTimeWindow } = properties(id);
    assert.deepEqual(JSON.parse(Target.Input), { kind, runId: '<aws.scheduler.execution-id>' });
    assert.equal(text(Target.Arn), 'PlanLambdaFunction.Arn');
    assert.equal(text(Target.RoleArn), 'PlanScheduleRole.Arn');
    assert.equal(text(Target.DeadLetterConfig.Arn), 'FailuresQueue.Arn');
    assert.ok(Target.RetryPolicy.MaximumEventAgeInSeconds < maxAge, id);
    assert.equal(text(GroupName), 'PlanScheduleGroup');
    assert.deepEqual(FlexibleTimeWindow, { Mode: 'OFF' });
  }
});

// Who may do what

interface Statement {
  readonly owner: string;
  readonly Sid: string;
  readonly Effect: string;
  readonly Action: Json;
  readonly Resource: Json;
  readonly Principal?: Json;
  readonly Condition?: Json;
}

/** The statements of every policy of a type. */
function statements(type: string): Statement[] {
  return ofType(type).flatMap(([owner, { PolicyDocument, Policies = [{ PolicyDocument }] }]) =>
    Policies.flatMap((policy: Json) =>
      policy.PolicyDocument.Statement.map((one: Json) => ({ owner, ...one })),
    ),
  );
}

const granted = [...statements('AWS::IAM::Role'), ...statements('AWS::IAM::ManagedPolicy')];
const onQueues = statements('AWS::SQS::QueuePolicy');

const WAVES =
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is CloudFormation that puts them in.
  'arn:${AWS::Partition}:scheduler:${AWS::Region}:${AWS::AccountId}:schedule/${WaveScheduleGroup}/*';

test('roles and relays may do exactly this', () => {
  const may: Record<string, string[]> = {};
  for (const { owner, Effect, Action, Resource } of granted) {
    assert.equal(Effect, 'Allow', owner);
    may[owner] ??= [];
    for (const resource of list(Resource)) {
      for (const action of list(Action)) may[owner].push(`${action} ${text(resource)}`);
    }
  }
  const log = (name: string) => [
    `logs:CreateLogStream ${name}LogGroup.Arn`,
    `logs:PutLogEvents ${name}LogGroup.Arn`,
  ];
  const receive = (queue: string) => [
    `sqs:ReceiveMessage ${queue}.Arn`,
    `sqs:DeleteMessage ${queue}.Arn`,
    `sqs:GetQueueAttributes ${queue}.Arn`,
  ];
  const policies = [
    'dynamodb:BatchGetItem PolicyTable.Arn',
    'dynamodb:UpdateItem PolicyTable.Arn',
    'dynamodb:DeleteItem PolicyTable.Arn',
  ];
  assert.deepEqual(may, {
    PlanRole: [
      ...log('Plan'),
      'dynamodb:Scan PolicyTable.Arn',
      'dynamodb:DeleteItem PolicyTable.Arn',
      'sqs:SendMessage RefreshQueue.Arn',
      `scheduler:CreateSchedule ${WAVES}`,
      'iam:PassRole WaveScheduleRole.Arn',
      'sqs:SendMessage FailuresQueue.Arn',
    ],
    DispatchRole: [
      ...log('Dispatch'),
      'sqs:SendMessage RefreshQueue.Arn',
      'sqs:SendMessage FailuresQueue.Arn',
    ],
    RefreshRole: [...log('Refresh'), ...receive('RefreshQueue'), ...policies],
    RequestRole: [...log('Request'), ...receive('RequestQueue'), ...policies],
    PlanScheduleRole: ['lambda:InvokeFunction PlanLambdaFunction.Arn', 'sqs:SendMessage FailuresQueue.Arn'],
    WaveScheduleRole: [
      'lambda:InvokeFunction DispatchLambdaFunction.Arn',
      'sqs:SendMessage FailuresQueue.Arn',
    ],
    RelayReadPolicy: ['dynamodb:GetItem PolicyTable.Arn'],
    RelayRequestPolicy: ['sqs:SendMessage RequestQueue.Arn'],
  });
});

/** Why a statement has a wildcard. Who adds one adds a reason. */
const WILDCARDS: Readonly<Record<string, string>> = {
  'PlanRole.ScheduleWaves':
    "schedules' names are made from the run and the wave's content; the group is named",
};

test('nothing is allowed with a wildcard, but what is argued', () => {
  const wide = granted.filter((statement) => JSON.stringify(statement).includes('*'));
  assert.deepEqual(
    wide.map(({ owner, Sid }) => `${owner}.${Sid}`),
    Object.keys(WILDCARDS),
  );
  // A denial is for everyone and everything, or it is none.
  for (const { Effect } of [...onQueues, ...statements('AWS::S3::BucketPolicy')])
    assert.equal(Effect, 'Deny');
});

test('plan may pass one role, to EventBridge Scheduler', () => {
  const [pass, ...others] = granted.filter(({ Action }) => list(Action).includes('iam:PassRole'));
  assert.deepEqual(pass?.Condition, { StringEquals: { 'iam:PassedToService': 'scheduler.amazonaws.com' } });
  assert.deepEqual(others, []);
});

test('roles can be taken by one service, for schedules by those of one group of this account', () => {
  const groups: Record<string, string> = {
    PlanScheduleRole: 'PlanScheduleGroup.Arn',
    WaveScheduleRole: 'WaveScheduleGroup.Arn',
  };
  for (const [id, { AssumeRolePolicyDocument }] of ofType('AWS::IAM::Role')) {
    const [{ Principal, Condition }, ...others] = AssumeRolePolicyDocument.Statement;
    assert.deepEqual(others, [], id);
    const group = groups[id];
    if (group === undefined) {
      assert.deepEqual(Principal, { Service: 'lambda.amazonaws.com' }, id);
      continue;
    }
    assert.deepEqual(Principal, { Service: 'scheduler.amazonaws.com' }, id);
    assert.deepEqual(Condition, {
      StringEquals: { 'aws:SourceAccount': { Ref: 'AWS::AccountId' } },
      ArnEquals: { 'aws:SourceArn': { 'Fn::GetAtt': group.split('.') } },
    });
  }
});

test('every queue refuses plain text, and the refresh queue everybody but plan and dispatch', () => {
  const plain = onQueues.filter(({ Condition }) => Condition.Bool?.['aws:SecureTransport'] === 'false');
  assert.deepEqual(
    plain.map(({ Resource }) => text(Resource)).sort(),
    queues.map(([id]) => `${id}.Arn`).sort(),
  );
  for (const { Action, Principal } of plain) assert.deepEqual([Action, Principal], ['sqs:*', '*']);
  for (const [id, { Queues, PolicyDocument }] of ofType('AWS::SQS::QueuePolicy')) {
    for (const { Resource } of PolicyDocument.Statement)
      assert.deepEqual(references(Resource), references(Queues), id);
  }

  const [senders, ...others] = onQueues.filter((statement) => !plain.includes(statement));
  assert.deepEqual(others, []);
  assert.equal(text(senders?.Resource), 'RefreshQueue.Arn');
  assert.equal(senders?.Action, 'sqs:SendMessage');
  const roles = senders?.Condition.ArnNotEquals['aws:PrincipalArn'].map(text);
  // Whoever is let through by the queue is allowed to by its role, and the other way round.
  const allowed = granted.filter(
    ({ Action, Resource }) => Action === 'sqs:SendMessage' && text(Resource) === 'RefreshQueue.Arn',
  );
  assert.deepEqual(
    roles,
    allowed.map(({ owner }) => `${owner}.Arn`),
  );
});

// What operators see

/** Every metric that a value names: what CloudWatch calls namespace, name and dimensions. */
function metricsOf({ Namespace, MetricName, Dimensions, Metrics = [] }: Json): [string, string, Json][] {
  const single: [string, string, Json][] =
    MetricName === undefined ? [] : [[Namespace, MetricName, Dimensions]];
  return [
    ...single,
    ...Metrics.flatMap(({ MetricStat }: Json) => (MetricStat ? metricsOf(MetricStat.Metric) : [])),
  ];
}

/** The metrics of AWS that are used, by namespace, and the dimension by which they are known. */
const AWS_METRICS: Readonly<Record<string, { dimension: string; names: string[] }>> = {
  'AWS/Lambda': {
    dimension: 'FunctionName',
    names: ['Errors', 'Throttles', 'Duration', 'ConcurrentExecutions'],
  },
  'AWS/SQS': {
    dimension: 'QueueName',
    names: [
      'ApproximateAgeOfOldestMessage',
      'ApproximateNumberOfMessagesVisible',
      'ApproximateNumberOfMessagesNotVisible',
      'ApproximateNumberOfMessagesDelayed',
      'NumberOfMessagesSent',
      'NumberOfMessagesReceived',
      'NumberOfMessagesDeleted',
      'NumberOfEmptyReceives',
    ],
  },
  'AWS/DynamoDB': {
    dimension: 'TableName',
    names: ['ConsumedWriteCapacityUnits', 'ConsumedReadCapacityUnits'],
  },
  'AWS/Logs': { dimension: 'LogGroupName', names: ['IncomingBytes'] },
};

const { POWERTOOLS_METRICS_NAMESPACE: NAMESPACE, POWERTOOLS_SERVICE_NAME: SERVICE } =
  variables('PlanLambdaFunction');

function checkMetric(namespace: string, name: string, dimension: string, value: Json, where: string): void {
  if (namespace === NAMESPACE) {
    assert.ok(METRIC_NAMES.includes(name), `${where}: ${name} is not emitted`);
    assert.deepEqual([dimension, value], ['service', SERVICE], where);
    return;
  }
  const known = AWS_METRICS[namespace];
  assert.ok(known?.names.includes(name), `${where}: ${namespace} has no ${name}`);
  assert.equal(dimension, known?.dimension, where);
}

test('every alarm is about metrics that exist', () => {
  assert.match(NAMESPACE ?? '', /^mta-sts-refresher\/dev$/);
  for (const [id, found] of alarms) {
    const metrics = metricsOf(found);
    assert.ok(metrics.length > 0, id);
    for (const [namespace, name, dimensions] of metrics) {
      assert.equal(dimensions.length, 1, id);
      checkMetric(namespace, name, dimensions[0].Name, dimensions[0].Value, id);
    }
    for (const { Id, Expression } of found.Metrics ?? []) {
      const used = Expression?.match(/\b[a-z]\w*\b/g) ?? [];
      const known = found.Metrics.map((metric: Json) => metric.Id);
      for (const name of used) assert.ok(known.includes(name), `${id}: ${Id} uses ${name}`);
    }
  }
});

test('every alarm says what it means and what to do, and knows what silence means', () => {
  for (const [id, found] of alarms) {
    const { AlarmName, AlarmDescription, TreatMissingData } = found;
    assert.ok(AlarmDescription.length <= 1_024, id);
    assert.match(AlarmDescription, /^[A-Z][^.]*: [^.]+\. [A-Z].* \(README, Runbook, [a-z-]+\)\.$/, id);
    const [, heading = ''] = /Runbook, ([a-z-]+)\)/.exec(AlarmDescription) ?? [];
    assert.ok(AlarmName.endsWith(`-${heading}`), `${AlarmName} is not in the runbook under ${heading}`);
    assert.ok(['breaching', 'notBreaching', 'ignore'].includes(TreatMissingData), id);
    assert.ok(found.DatapointsToAlarm <= found.EvaluationPeriods, id);
    // CloudWatch's limits for how far an alarm looks back ("PutMetricAlarm").
    for (const [key, period] of walk(found)) {
      if (key !== 'Period') continue;
      assert.ok(period * found.EvaluationPeriods <= (period >= 3_600 ? 604_800 : 86_400), id);
    }
    for (const actions of [found.AlarmActions, found.OKActions]) {
      assert.deepEqual(actions, {
        'Fn::If': ['HasAlarmTopic', [{ Ref: 'AlarmTopicArn' }], { Ref: 'AWS::NoValue' }],
      });
    }
  }
});

test('every queue where things end, every function and every work queue is watched', () => {
  const watched = alarms.flatMap(([, found]) =>
    metricsOf(found).map(([, name, [{ Value }]]) => `${name} ${text(Value)}`),
  );
  for (const [id] of functions) {
    assert.ok(watched.includes(`Errors ${id}`), id);
    assert.ok(watched.includes(`Throttles ${id}`), id);
  }
  for (const [id, { RedrivePolicy }] of queues) {
    const metric = RedrivePolicy ? 'ApproximateAgeOfOldestMessage' : 'ApproximateNumberOfMessagesVisible';
    assert.ok(watched.includes(`${metric} ${id}.QueueName`), id);
  }
});

const dashboard: { widgets: Json[] } = JSON.parse(text(properties('Dashboard').DashboardBody));

test('the dashboard shows metrics that exist, and every alarm', () => {
  const shown = dashboard.widgets.flatMap(({ properties: { alarms: arns = [] } }) => arns);
  assert.deepEqual(shown.sort(), alarms.map(([id]) => `\${${id}.Arn}`).sort());

  for (const { properties: widget } of dashboard.widgets) {
    const expanded: string[][] = [];
    for (const entry of widget.metrics ?? []) {
      let names = entry.filter((part: Json) => typeof part === 'string');
      if (names.length === 0) continue;
      const before = expanded.at(-1) ?? [];
      if (names[0] === '...') names = [...before.slice(0, 1 - names.length), ...names.slice(1)];
      expanded.push(names.map((name: string, i: number) => (name === '.' ? before[i] : name)));
    }
    for (const names of expanded) {
      const [namespace = '', name = '', dimension = '', value] = names;
      assert.equal(names.length, 4, `${widget.title}: ${names}`);
      checkMetric(namespace, name, dimension, value, widget.title);
    }
  }
});

test('the dashboard reckons the cost with the memory that functions have', () => {
  const cost = JSON.stringify(dashboard.widgets.at(-1));
  const sized = (megabytes: number) =>
    functions.filter(([, { MemorySize }]) => MemorySize === megabytes).map(([id]) => id);
  assert.deepEqual(
    [sized(0.3125 * 1_024), sized(0.25 * 1_024)],
    [
      ['PlanLambdaFunction', 'RefreshLambdaFunction'],
      ['DispatchLambdaFunction', 'RequestLambdaFunction'],
    ],
  );
  assert.match(
    cost,
    /0\.3125 \* \(FILL\(lp, 0\) \+ FILL\(lf, 0\)\) \+ 0\.25 \* \(FILL\(ld, 0\) \+ FILL\(lq, 0\)\)/,
  );
});

test('queries ask for fields that are logged', async () => {
  const sources = await Promise.all(
    ['functions/runtime/telemetry.ts', 'functions/plan/handler.ts'].map((file) =>
      readFile(join(ROOT, file), 'utf8'),
    ),
  );
  const queries = [
    ...ofType('AWS::Logs::QueryDefinition').map(([, { QueryString }]) => QueryString),
    ...dashboard.widgets.flatMap(({ properties: { query = [] } }) => query),
  ];
  assert.equal(queries.length, 7);
  const fields = queries.flatMap((query: string) => [
    ...[...query.matchAll(/\b(?:latest|count_distinct|max|avg|ispresent)\(([a-z_]+)\)/g)].map(
      ([, field]) => field,
    ),
    ...[...query.matchAll(/display @timestamp, (.*)/g)].flatMap(([, shown = '']) =>
      shown.split('|')[0]?.split(','),
    ),
  ]);
  const logged = sources.join('\n');
  for (const field of new Set(fields.map((name) => name?.trim() ?? ''))) {
    if (field === 'message') continue;
    assert.match(logged, new RegExp(`\\b${field}\\b`), field);
  }
});

// What is uploaded

const BUNDLES = ['plan', 'dispatch', 'refresh', 'request'] as const;

test('osls says how large the bundles are', () => {
  for (const name of BUNDLES) {
    const line = new RegExp(`^${name}: (\\d+) kB of code, \\d+ kB of source map, \\d+ kB to upload$`, 'm');
    const [, code] = line.exec(dev.output) ?? [];
    assert.ok(Number(code) > 100 && Number(code) < 2_000, dev.output);
  }
});

test('each package holds its own bundle and source map, and nothing else', async () => {
  const packages = (await readdir(dev.folder)).filter((name) => name.endsWith('.zip'));
  assert.deepEqual(packages.sort(), BUNDLES.map((name) => `${name}.zip`).sort());
  for (const name of BUNDLES) {
    const entries = new AdmZip(join(dev.folder, `${name}.zip`)).getEntries();
    const bundle = `functions/${name}/handler.mjs`;
    assert.deepEqual(entries.map((entry) => entry.entryName).sort(), [bundle, `${bundle}.map`]);
  }
});

test('the packaged bundles tell the story', async (t) => {
  const unpacked = await makeFolder(t, 'bundles');
  const handlers = Object.fromEntries(
    BUNDLES.map((name) => {
      const target = join(unpacked, name);
      new AdmZip(join(dev.folder, `${name}.zip`)).extractAllTo(target);
      return [name, join(target, 'functions', name, 'handler.mjs')];
    }),
  ) as Record<(typeof BUNDLES)[number], string>;
  await tellStory(t, handlers);
});

test('the bundles hold nothing of development dependencies', async () => {
  const lock: { packages: Record<string, { dev?: boolean }> } = JSON.parse(
    await readFile(join(ROOT, 'package-lock.json'), 'utf8'),
  );
  for (const name of BUNDLES) {
    const zip = new AdmZip(join(dev.folder, `${name}.zip`));
    const map: { sources: string[] } = JSON.parse(zip.readAsText(`functions/${name}/handler.mjs.map`));
    const packages = new Set(
      map.sources.flatMap(
        (source) => /node_modules\/(?:.*node_modules\/)?(?:@[^/]+\/)?[^/]+/.exec(source) ?? [],
      ),
    );
    assert.ok(packages.size > 5, name);
    for (const path of packages) {
      assert.notEqual(lock.packages[path], undefined, `${name}: ${path} is not in the lockfile`);
      assert.ok(!lock.packages[path]?.dev, `${name}: ${path}`);
    }
  }
});

test('the deployment bucket is closed to the public', () => {
  assert.deepEqual(properties('ServerlessDeploymentBucket').PublicAccessBlockConfiguration, {
    BlockPublicAcls: true,
    BlockPublicPolicy: true,
    IgnorePublicAcls: true,
    RestrictPublicBuckets: true,
  });
});

test('the stack says what operators of relays need', () => {
  const values = Object.fromEntries(
    Object.entries(template.Outputs).map(([name, { Value }]) => [name, text(Value)]),
  );
  const { ServerlessDeploymentBucketName, ...ours } = values;
  assert.deepEqual(ours, {
    PolicyTableName: 'PolicyTable',
    PolicyTableArn: 'PolicyTable.Arn',
    RequestQueueUrl: 'RequestQueue',
    RelayReadPolicyArn: 'RelayReadPolicy',
    RelayRequestPolicyArn: 'RelayRequestPolicy',
    DashboardName: 'Dashboard',
  });
});
