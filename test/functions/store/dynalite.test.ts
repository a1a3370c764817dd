import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { startDynamoDb } from '../../../infra/local/dynamodb.ts';
import { localClientConfig } from '../../../infra/local/environment.ts';
import { testPolicyStore } from './contract.ts';

testPolicyStore('dynalite', async () => {
  const server = await startDynamoDb();
  const client = new DynamoDBClient(localClientConfig(server.endpoint));
  return {
    client,
    async close() {
      client.destroy();
      await server.close();
    },
  };
});
