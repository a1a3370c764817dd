// DynamoDB on loopback: dynalite, in memory, with the one table of the stack.

import { Server } from 'node:http';
import { CreateTableCommand, type DynamoDBClient, waitUntilTableExists } from '@aws-sdk/client-dynamodb';
import dynalite from 'dynalite';
import { type LoopbackServer, listenOnLoopback } from './loopback.ts';

export async function startDynamoDb(): Promise<LoopbackServer> {
  const server = dynalite({ createTableMs: 0, deleteTableMs: 0, updateTableMs: 0 });
  // dynalite throws when a client goes away in the middle of a request, as a killed function does, and that would
  // end this process. Without its listener, Node drops the request quietly.
  server.on('request', (request) => request.removeAllListeners('error'));
  // With the server dynalite would close its database, and an operation that a client has given up but that is still
  // under way would be an uncaught error. The database is only memory: it goes when nothing refers to it.
  server.close = Server.prototype.close;
  return listenOnLoopback(server);
}

export async function createPolicyTable(client: DynamoDBClient, tableName: string): Promise<void> {
  await client.send(
    new CreateTableCommand({
      TableName: tableName,
      AttributeDefinitions: [{ AttributeName: 'Domain', AttributeType: 'S' }],
      KeySchema: [{ AttributeName: 'Domain', KeyType: 'HASH' }],
      BillingMode: 'PAY_PER_REQUEST',
    }),
  );
  // dynalite can answer before the table is there.
  await waitUntilTableExists(
    { client, maxWaitTime: 10, minDelay: 0.02, maxDelay: 0.2 },
    { TableName: tableName },
  );
}
