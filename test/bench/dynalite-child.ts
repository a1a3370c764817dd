import { startDynamoDb } from '../../infra/local/dynamodb.ts';
import { serve } from './remote.ts';

export type DynaliteOperations = { start(): Promise<string> };

serve({ start: async () => (await startDynamoDb()).endpoint } satisfies DynaliteOperations);
