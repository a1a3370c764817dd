// Every resource of the stack as its own service describes it, held against the template: what that says, with its
// references resolved, is what there is. The words are the template's; where a service has others, or wraps a document
// in text, they are translated here.

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { DescribeStackResourcesCommand } from '@aws-sdk/client-cloudformation';
import { DescribeAlarmsCommand, GetDashboardCommand } from '@aws-sdk/client-cloudwatch';
import { DescribeLogGroupsCommand } from '@aws-sdk/client-cloudwatch-logs';
import { DescribeTableCommand } from '@aws-sdk/client-dynamodb';
import {
  GetPolicyCommand,
  GetPolicyVersionCommand,
  GetRoleCommand,
  GetRolePolicyCommand,
  ListRolePoliciesCommand,
} from '@aws-sdk/client-iam';
import {
  GetEventSourceMappingCommand,
  GetFunctionConfigurationCommand,
  GetFunctionEventInvokeConfigCommand,
} from '@aws-sdk/client-lambda';
import {
  GetBucketEncryptionCommand,
  GetBucketPolicyCommand,
  GetPublicAccessBlockCommand,
} from '@aws-sdk/client-s3';
import { GetScheduleCommand, GetScheduleGroupCommand } from '@aws-sdk/client-scheduler';
import { GetQueueAttributesCommand } from '@aws-sdk/client-sqs';
import { ACCOUNT, REGION } from '../../infra/local/environment.ts';
import type { Json, Template } from '../infra/packaging.ts';
import type { Aws } from './account.ts';
import type { Package } from './service.ts';

interface Described {
  /** As in the template. */
  readonly properties: Json;
  /** What Fn::GetAtt finds. */
  readonly attributes: Readonly<Record<string, string | undefined>>;
}

type Describe = (id: string, aws: Aws, expected: Json) => Promise<Described>;

const DESCRIBE: Readonly<Record<string, Describe>> = {
  async 'AWS::CloudWatch::Alarm'(name, { cloudwatch }) {
    const { MetricAlarms } = await cloudwatch.send(new DescribeAlarmsCommand({ AlarmNames: [name] }));
    return { properties: MetricAlarms?.[0], attributes: { Arn: MetricAlarms?.[0]?.AlarmArn } };
  },
  async 'AWS::CloudWatch::Dashboard'(name, { cloudwatch }) {
    return {
      properties: await cloudwatch.send(new GetDashboardCommand({ DashboardName: name })),
      attributes: {},
    };
  },
  async 'AWS::DynamoDB::Table'(name, { dynamodb }) {
    const { Table } = await dynamodb.send(new DescribeTableCommand({ TableName: name }));
    return {
      properties: { ...Table, BillingMode: Table?.BillingModeSummary?.BillingMode },
      attributes: { Arn: Table?.TableArn },
    };
  },
  async 'AWS::IAM::ManagedPolicy'(arn, { iam }) {
    const { Policy } = await iam.send(new GetPolicyCommand({ PolicyArn: arn }));
    const version = { PolicyArn: arn, VersionId: Policy?.DefaultVersionId };
    const { PolicyVersion } = await iam.send(new GetPolicyVersionCommand(version));
    return { properties: { ...Policy, PolicyDocument: document(PolicyVersion?.Document) }, attributes: {} };
  },
  async 'AWS::IAM::Role'(name, { iam }) {
    const { Role } = await iam.send(new GetRoleCommand({ RoleName: name }));
    const { PolicyNames = [] } = await iam.send(new ListRolePoliciesCommand({ RoleName: name }));
    const Policies = await Promise.all(
      PolicyNames.map(async (PolicyName) => {
        const policy = await iam.send(new GetRolePolicyCommand({ RoleName: name, PolicyName }));
        return { PolicyName, PolicyDocument: document(policy.PolicyDocument) };
      }),
    );
    return {
      properties: { ...Role, Policies, AssumeRolePolicyDocument: document(Role?.AssumeRolePolicyDocument) },
      attributes: { Arn: Role?.Arn },
    };
  },
  async 'AWS::Lambda::EventInvokeConfig'(_, { lambda }, { FunctionName, Qualifier }) {
    const config = await lambda.send(new GetFunctionEventInvokeConfigCommand({ FunctionName, Qualifier }));
    const [name, qualifier] = config.FunctionArn?.split(':').slice(6) ?? [];
    return { properties: { ...config, FunctionName: name, Qualifier: qualifier }, attributes: {} };
  },
  async 'AWS::Lambda::EventSourceMapping'(uuid, { lambda }) {
    const mapping = await lambda.send(new GetEventSourceMappingCommand({ UUID: uuid }));
    return { properties: { ...mapping, FunctionName: mapping.FunctionArn }, attributes: {} };
  },
  async 'AWS::Lambda::Function'(name, { lambda }) {
    const config = await lambda.send(new GetFunctionConfigurationCommand({ FunctionName: name }));
    return { properties: config, attributes: { Arn: config.FunctionArn } };
  },
  async 'AWS::Logs::LogGroup'(name, { logs }) {
    const { logGroups } = await logs.send(new DescribeLogGroupsCommand({ logGroupNamePrefix: name }));
    const group = logGroups?.find(({ logGroupName }) => logGroupName === name);
    return {
      properties: group && { LogGroupName: group.logGroupName, RetentionInDays: group.retentionInDays },
      attributes: { Arn: group?.arn },
    };
  },
  async 'AWS::S3::Bucket'(name, { s3 }) {
    const encryption = await s3.send(new GetBucketEncryptionCommand({ Bucket: name }));
    const access = await s3.send(new GetPublicAccessBlockCommand({ Bucket: name }));
    const rules = encryption.ServerSideEncryptionConfiguration?.Rules?.map((rule) => ({
      ServerSideEncryptionByDefault: rule.ApplyServerSideEncryptionByDefault,
    }));
    return {
      properties: { ...access, BucketEncryption: { ServerSideEncryptionConfiguration: rules } },
      attributes: {},
    };
  },
  async 'AWS::S3::BucketPolicy'(_, { s3 }, { Bucket }) {
    const { Policy } = await s3.send(new GetBucketPolicyCommand({ Bucket }));
    return { properties: { Bucket, PolicyDocument: document(Policy) }, attributes: {} };
  },
  async 'AWS::SQS::Queue'(url, { sqs }) {
    const { Attributes: attributes = {} } = await sqs.send(
      new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ['All'] }),
    );
    const QueueName = basename(url);
    const { RedrivePolicy, RedriveAllowPolicy, QueueArn } = attributes;
    return {
      properties: {
        ...attributes,
        QueueName,
        RedrivePolicy: document(RedrivePolicy),
        RedriveAllowPolicy: document(RedriveAllowPolicy),
      },
      attributes: { Arn: QueueArn, QueueName },
    };
  },
  async 'AWS::SQS::QueuePolicy'(_, { sqs }, { Queues }) {
    const [QueueUrl] = Queues;
    const policy = await sqs.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ['Policy'] }));
    // Each policy here is of one queue.
    return {
      properties: { Queues: [QueueUrl], PolicyDocument: document(policy.Attributes?.Policy) },
      attributes: {},
    };
  },
  async 'AWS::Scheduler::Schedule'(name, { scheduler }, { GroupName }) {
    return {
      properties: await scheduler.send(new GetScheduleCommand({ Name: name, GroupName })),
      attributes: {},
    };
  },
  async 'AWS::Scheduler::ScheduleGroup'(name, { scheduler }) {
    const group = await scheduler.send(new GetScheduleGroupCommand({ Name: name }));
    return { properties: group, attributes: { Arn: group.Arn } };
  },
};

/** Types and properties that the emulator's CloudFormation takes no notice of. */
export const IGNORED: readonly string[] = [
  'AWS::DynamoDB::Table PointInTimeRecoverySpecification',
  'AWS::DynamoDB::Table SSESpecification',
  'AWS::DynamoDB::Table TimeToLiveSpecification',
];

/** IAM's documents come as URL-encoded JSON, others as JSON. */
function document(text: string | undefined): Json {
  return text === undefined ? undefined : JSON.parse(text.startsWith('%') ? decodeURIComponent(text) : text);
}

export interface Comparison {
  readonly resources: readonly Resource[];
  /** How many were compared. */
  readonly properties: number;
  readonly differences: readonly string[];
  /** By logical id: what Ref gives. */
  readonly physicalIds: ReadonlyMap<string, string>;
}

interface Resource {
  readonly id: string;
  readonly type: string;
  readonly physicalId: string;
  /** As in the template, resolved. */
  readonly expected: Json;
}

export async function compareWithTemplate(
  aws: Aws,
  stackName: string,
  { template, folder }: Package,
): Promise<Comparison> {
  const { StackResources = [] } = await aws.cloudformation.send(
    new DescribeStackResourcesCommand({ StackName: stackName }),
  );
  const physicalIds = new Map(
    StackResources.map((each) => [each.LogicalResourceId ?? '', each.PhysicalResourceId ?? '']),
  );
  const scope: Scope = { template, stackName, physicalIds, attributes: new Map() };
  const differences: string[] = [];
  for (const id of physicalIds.keys()) {
    if (!(id in template.Resources)) differences.push(`${id} exists, but is not in the template`);
  }

  const actual = new Map<string, Json>();
  for (const [id, { Type, Properties }] of Object.entries(template.Resources)) {
    const physicalId = physicalIds.get(id);
    const describe = DESCRIBE[Type];
    if (physicalId === undefined) differences.push(`${id} (${Type}) is not there`);
    else if (describe === undefined) differences.push(`${id}: nobody here can describe ${Type}`);
    else {
      const { properties, attributes } = await describe(physicalId, aws, resolve(Properties, scope));
      actual.set(id, properties ?? {});
      scope.attributes.set(id, attributes);
    }
  }

  // Only now can every reference to an attribute be resolved.
  const resources: Resource[] = [];
  let properties = 0;
  for (const [id, found] of actual) {
    const { Type: type, Properties } = template.Resources[id] as Template['Resources'][string];
    const expected = resolve(Properties, scope);
    resources.push({ id, type, physicalId: physicalIds.get(id) ?? '', expected });
    if (expected.Code !== undefined) {
      const zip = await readFile(join(folder, basename(expected.Code.S3Key)));
      // Code is described by its digest.
      found.Code =
        found.CodeSha256 === createHash('sha256').update(zip).digest('base64') ? expected.Code : undefined;
    }
    for (const [path, wanted, is] of leaves(expected, found)) {
      if (IGNORED.includes(`${type} ${path.split('.')[0]}`)) continue;
      properties++;
      if (same(wanted, is)) continue;
      differences.push(`${id} (${type}) ${path}: ${JSON.stringify(is)} instead of ${JSON.stringify(wanted)}`);
    }
  }
  return { resources, properties, differences, physicalIds };
}

/** @returns the logical ids of those that are still there. */
export async function stillThere(aws: Aws, resources: readonly Resource[]): Promise<string[]> {
  const left: string[] = [];
  for (const { id, type, physicalId, expected } of resources) {
    try {
      const described = await DESCRIBE[type]?.(physicalId, aws, expected);
      if (described?.properties !== undefined) left.push(id);
    } catch (error) {
      if (!/NotFound|NoSuch|NonExistent|DoesNotExist/.test((error as Error).name)) throw error;
    }
  }
  return left;
}

/** Values that are no objects, by their path, with what is found there. */
function* leaves(
  expected: Json,
  actual: Json,
  path = '',
): Generator<[path: string, expected: Json, actual: Json]> {
  if (Array.isArray(expected) && Array.isArray(actual) && expected.length === actual.length) {
    for (const [i, each] of expected.entries()) yield* leaves(each, actual[i], `${path}[${i}]`);
  } else if (typeof expected === 'object' && expected !== null && !Array.isArray(expected)) {
    for (const [name, each] of Object.entries(expected))
      yield* leaves(each, actual?.[name], path === '' ? name : `${path}.${name}`);
  } else {
    yield [path, expected, actual];
  }
}

/** Services answer with numbers and truth values as text here and there, as the template may have them. */
function same(expected: Json, actual: Json): boolean {
  if (Array.isArray(expected) || Array.isArray(actual))
    return JSON.stringify(expected) === JSON.stringify(actual);
  return String(expected) === String(actual);
}

interface Scope {
  readonly template: Template;
  readonly stackName: string;
  readonly physicalIds: ReadonlyMap<string, string>;
  readonly attributes: Map<string, Described['attributes']>;
}

const NO_VALUE = 'AWS::NoValue';

/** CloudFormation's functions, as far as this template uses them ("Intrinsic function reference"). */
function resolve(value: Json, scope: Scope): Json {
  if (Array.isArray(value))
    return value.map((each) => resolve(each, scope)).filter((each) => each !== undefined);
  if (typeof value !== 'object' || value === null) return value;
  const [[name, argument] = ['', undefined], ...others] = Object.entries<Json>(value);
  if (others.length === 0) {
    switch (name) {
      case 'Ref':
        return reference(argument, scope);
      case 'Fn::GetAtt':
        return scope.attributes.get(argument[0])?.[argument[1]];
      case 'Fn::Sub':
        return argument.replace(/\$\{([^}]+)\}/g, (_: string, what: string) => {
          const [id = '', attribute] = what.split('.');
          return attribute === undefined ? reference(id, scope) : scope.attributes.get(id)?.[attribute];
        });
      case 'Fn::Join':
        return resolve(argument[1], scope).join(argument[0]);
      case 'Fn::If':
        return resolve(
          holds(scope.template.Conditions[argument[0]], scope) ? argument[1] : argument[2],
          scope,
        );
    }
  }
  return Object.fromEntries(
    Object.entries(value)
      .map(([key, each]) => [key, resolve(each, scope)])
      .filter(([, each]) => each !== undefined),
  );
}

function reference(id: string, { template, stackName, physicalIds }: Scope): string | undefined {
  const known: Record<string, string | undefined> = {
    'AWS::AccountId': ACCOUNT,
    'AWS::Partition': 'aws',
    'AWS::Region': REGION,
    'AWS::StackName': stackName,
    'AWS::URLSuffix': 'amazonaws.com',
    [NO_VALUE]: undefined,
  };
  if (id in known) return known[id];
  return physicalIds.get(id) ?? template.Parameters[id]?.Default;
}

function holds(condition: Json, scope: Scope): boolean {
  const [[name, argument] = ['', []]] = Object.entries<Json>(condition);
  if (name === 'Fn::Not') return !holds(argument[0], scope);
  if (name === 'Fn::Equals') return resolve(argument[0], scope) === resolve(argument[1], scope);
  throw new Error(`a condition that is not understood here: ${name}`);
}
