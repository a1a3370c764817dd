import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import type { Context, SQSBatchResponse, SQSEvent } from 'aws-lambda';
import { LIMITS } from '../mtasts/limits.ts';
import { answerBatch } from '../refresh/batch.ts';
import { createRefresher } from '../refresh/refresh.ts';
import { CLIENT_OPTIONS } from '../runtime/clients.ts';
import { requestEnvironment } from '../runtime/env.ts';
import { createTelemetry } from '../runtime/telemetry.ts';
import { createDynamoStore } from '../store/dynamo.ts';
import { createDiscoveryLimit } from './discovery.ts';
import { answerRequests } from './request.ts';

const environment = requestEnvironment(process.env);
const telemetry = createTelemetry();
const store = createDynamoStore({ client: new DynamoDBClient(CLIENT_OPTIONS), table: environment.table });
const refresher = createRefresher(store, environment, LIMITS);
const admits = createDiscoveryLimit({ store, telemetry, limits: environment, now: Date.now });

/** Serves what relays ask in a batch of the request queue. */
export function handler(event: SQSEvent, context: Context): Promise<SQSBatchResponse> {
  return answerBatch(context, telemetry, (signal) =>
    answerRequests(event.Records, { refresher, admits, telemetry, signal }),
  );
}
