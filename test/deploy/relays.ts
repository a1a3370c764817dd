// What relays may do, what they may not, and what becomes of their requests.

import assert from 'node:assert/strict';
import {
  BatchGetItemCommand,
  DeleteItemCommand,
  GetItemCommand,
  PutItemCommand,
  QueryCommand,
  ScanCommand,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb';
import { InvokeCommand } from '@aws-sdk/client-lambda';
import { ReceiveMessageCommand, SendMessageCommand } from '@aws-sdk/client-sqs';
import type { Resident } from '../../infra/local/population.ts';
import { type Aws, clients, createRelay } from './account.ts';
import { count, counted, type Deployed, drained, functionName, output, physicalId } from './stack.ts';
import { say } from './transcript.ts';

/** @param residents among them some that are not in the table, for which relays ask. */
export async function serveRelays(
  deployed: Deployed,
  residents: readonly Resident[],
  start: number,
): Promise<void> {
  const { aws, endpoint } = deployed;
  const policies = [output(deployed, 'RelayReadPolicyArn'), output(deployed, 'RelayRequestPolicyArn')];
  const relay = clients(endpoint, await createRelay(aws, policies));
  const known = residents.find(({ expected }) => expected === 'fresh') as Resident;
  const unknown = residents.filter((resident) => resident.seed === undefined);
  await tryEverything(deployed, relay, known.domain);

  const bodies = [
    ...unknown.map(({ domain }) => JSON.stringify({ domain })),
    JSON.stringify({ used: [known.domain, 'nobody-knows-it.test'] }),
    'this is no request',
    '{"domain":"this is no domain"}',
  ];
  for (const MessageBody of bodies) {
    await relay.sqs.send(
      new SendMessageCommand({ QueueUrl: output(deployed, 'RequestQueueUrl'), MessageBody }),
    );
  }
  await drained(deployed, 'RequestQueue');
  await counted(aws, 'request', start, 'Refused', 2);
  assert.equal(await count(deployed, 'RequestDeadLetters'), 0);
  const { Item } = await relay.dynamodb.send(
    new GetItemCommand({
      TableName: output(deployed, 'PolicyTableName'),
      Key: { Domain: { S: known.domain } },
    }),
  );
  assert.ok(Number(Item?.LastUse?.N) >= start, 'the use is noted');
  say(
    `its requests were served: ${unknown.length} unknown domains looked at, a use noted, two messages that cannot be ` +
      'decoded refused and acknowledged',
  );
}

async function tryEverything(deployed: Deployed, relay: Aws, domain: string): Promise<void> {
  const TableName = output(deployed, 'PolicyTableName');
  const item = { TableName, Key: { Domain: { S: domain } } };
  const refresh = { QueueUrl: physicalId(deployed, 'RefreshQueue'), MessageBody: '{}' };
  const forbidden: Record<string, () => Promise<unknown>> = {
    'change a policy': () =>
      relay.dynamodb.send(
        new UpdateItemCommand({
          ...item,
          UpdateExpression: 'SET #mode = :none',
          ExpressionAttributeNames: { '#mode': 'Mode' },
          ExpressionAttributeValues: { ':none': { S: 'none' } },
        }),
      ),
    'add one': () => relay.dynamodb.send(new PutItemCommand({ TableName, Item: item.Key })),
    'delete one': () => relay.dynamodb.send(new DeleteItemCommand(item)),
    'scan the table': () => relay.dynamodb.send(new ScanCommand({ TableName })),
    'query it': () =>
      relay.dynamodb.send(
        new QueryCommand({
          TableName,
          KeyConditionExpression: '#domain = :domain',
          ExpressionAttributeNames: { '#domain': 'Domain' },
          ExpressionAttributeValues: { ':domain': { S: domain } },
        }),
      ),
    'read a batch of it': () =>
      relay.dynamodb.send(new BatchGetItemCommand({ RequestItems: { [TableName]: { Keys: [item.Key] } } })),
    'ask for a refresh': () => relay.sqs.send(new SendMessageCommand(refresh)),
    'receive requests': () =>
      relay.sqs.send(new ReceiveMessageCommand({ QueueUrl: output(deployed, 'RequestQueueUrl') })),
    'run plan': () => relay.lambda.send(new InvokeCommand({ FunctionName: functionName('plan') })),
  };
  const { Item } = await relay.dynamodb.send(new GetItemCommand(item));
  assert.equal(Item?.Mode?.S, 'enforce');
  for (const [what, attempt] of Object.entries(forbidden)) {
    await assert.rejects(attempt(), /not authorized/, `a relay should not be able to ${what}`);
  }
  say(`a relay can read a policy; it cannot ${Object.keys(forbidden).join(', ')}`);
  await assert.rejects(
    deployed.aws.sqs.send(new SendMessageCommand(refresh)),
    /not authorized .* explicit deny in a resource-based policy/,
  );
  say('nor can an administrator send to the refresh queue');
}
