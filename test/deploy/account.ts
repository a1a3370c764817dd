// The account in the emulator, as those see it who work with it. Nobody here is the account's root, whom the emulator
// allows everything, but for making the administrator.

import { CloudFormationClient } from '@aws-sdk/client-cloudformation';
import { CloudWatchClient } from '@aws-sdk/client-cloudwatch';
import { CloudWatchLogsClient } from '@aws-sdk/client-cloudwatch-logs';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import {
  AttachUserPolicyCommand,
  CreateAccessKeyCommand,
  CreateUserCommand,
  IAMClient,
  PutUserPolicyCommand,
} from '@aws-sdk/client-iam';
import { LambdaClient } from '@aws-sdk/client-lambda';
import { S3Client } from '@aws-sdk/client-s3';
import { SchedulerClient } from '@aws-sdk/client-scheduler';
import { SQSClient } from '@aws-sdk/client-sqs';
import { localClientConfig, REGION } from '../../infra/local/environment.ts';

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** Made up, as everything here. */
export const ROOT: Credentials = { accessKeyId: 'local', secretAccessKey: 'local' };

export type Aws = ReturnType<typeof clients>;

export function clients(endpoint: string, credentials: Credentials) {
  const config = { ...localClientConfig(endpoint), credentials, maxAttempts: 2 };
  return {
    cloudformation: new CloudFormationClient(config),
    cloudwatch: new CloudWatchClient(config),
    dynamodb: new DynamoDBClient(config),
    iam: new IAMClient(config),
    lambda: new LambdaClient(config),
    logs: new CloudWatchLogsClient(config),
    s3: new S3Client({ ...config, forcePathStyle: true }),
    scheduler: new SchedulerClient(config),
    sqs: new SQSClient(config),
  };
}

/** All that osls, and the functions, get to know of AWS: no other account, and no way to find one. */
export function awsEnvironment(endpoint: string, nowhere: string): Record<string, string> {
  return {
    AWS_ENDPOINT_URL: endpoint,
    AWS_ENDPOINT_URL_DYNAMODB: endpoint,
    AWS_REGION: REGION,
    AWS_DEFAULT_REGION: REGION,
    AWS_CONFIG_FILE: nowhere,
    AWS_SHARED_CREDENTIALS_FILE: nowhere,
    AWS_EC2_METADATA_DISABLED: 'true',
  };
}

export function credentialVariables({ accessKeyId, secretAccessKey }: Credentials): Record<string, string> {
  return { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey };
}

/** A user who may do everything that policies of resources do not forbid. */
export async function createAdministrator({ iam }: Aws): Promise<Credentials> {
  const credentials = await createUser(iam, 'administrator');
  const everything = { Effect: 'Allow', Action: '*', Resource: '*' };
  await iam.send(
    new PutUserPolicyCommand({
      UserName: 'administrator',
      PolicyName: 'everything',
      PolicyDocument: JSON.stringify({ Version: '2012-10-17', Statement: [everything] }),
    }),
  );
  return credentials;
}

/** A user with these managed policies and nothing else. */
export async function createRelay({ iam }: Aws, policyArns: readonly string[]): Promise<Credentials> {
  const credentials = await createUser(iam, 'relay');
  for (const PolicyArn of policyArns)
    await iam.send(new AttachUserPolicyCommand({ UserName: 'relay', PolicyArn }));
  return credentials;
}

async function createUser(iam: IAMClient, name: string): Promise<Credentials> {
  await iam.send(new CreateUserCommand({ UserName: name }));
  const { AccessKey } = await iam.send(new CreateAccessKeyCommand({ UserName: name }));
  if (AccessKey?.AccessKeyId === undefined || AccessKey.SecretAccessKey === undefined)
    throw new Error('no key');
  return { accessKeyId: AccessKey.AccessKeyId, secretAccessKey: AccessKey.SecretAccessKey };
}
