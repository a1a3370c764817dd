import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

const FUNCTIONS = join(import.meta.dirname, '../../../functions');

const VARIABLES = {
  POLICY_TABLE: 'policies',
  REFRESH_QUEUE_URL: 'https://sqs.test/refresh-queue',
  SCHEDULE_GROUP: 'waves',
  DISPATCH_FUNCTION_ARN: 'arn:aws:lambda:us-east-1:123456789012:function:dispatch',
  SCHEDULER_ROLE_ARN: 'arn:aws:iam::123456789012:role/scheduler',
  SCHEDULER_DLQ_ARN: 'arn:aws:sqs:us-east-1:123456789012:failures',
};

// Nothing here calls AWS. If it did, it would find nobody.
Object.assign(process.env, {
  AWS_ENDPOINT_URL: 'http://127.0.0.1:1',
  AWS_REGION: 'test',
  AWS_ACCESS_KEY_ID: 'test',
  AWS_SECRET_ACCESS_KEY: 'test',
});

let coldStarts = 0;

/** A cold start of a function with these variables, and no others of ours. */
async function coldStart(
  name: string,
  variables: Partial<typeof VARIABLES>,
): Promise<Record<string, unknown>> {
  for (const variable of Object.keys(VARIABLES)) delete process.env[variable];
  Object.assign(process.env, variables);
  // Another query is another module.
  return import(`${pathToFileURL(join(FUNCTIONS, name, 'handler.ts'))}?${coldStarts++}`);
}

const needs: [name: string, variables: (keyof typeof VARIABLES)[]][] = [
  ['plan', Object.keys(VARIABLES) as (keyof typeof VARIABLES)[]],
  ['dispatch', ['REFRESH_QUEUE_URL']],
  ['refresh', ['POLICY_TABLE']],
  ['request', ['POLICY_TABLE']],
];

for (const [name, variables] of needs) {
  test(`${name}: a cold start without its variables fails and names each of them`, async () => {
    await assert.rejects(coldStart(name, {}), (error: Error) => {
      for (const variable of variables) assert.match(error.message, new RegExp(`\\b${variable} is missing`));
      return true;
    });
  });

  test(`${name}: with them it exports its handler and nothing else`, async () => {
    const given = Object.fromEntries(variables.map((variable) => [variable, VARIABLES[variable]]));
    const module = await coldStart(name, given);
    assert.deepEqual(Object.keys(module), ['handler']);
    assert.equal(typeof module.handler, 'function');
  });
}

for (const name of ['plan', 'dispatch']) {
  for (const event of [{}, null, 'text', { kind: 'hourly' }, { runId: 'run' }]) {
    test(`${name} rejects ${JSON.stringify(event)}: an alarm shall tell of an event that it cannot use`, async () => {
      const { handler } = await coldStart(name, VARIABLES);
      const invoke = handler as (event: unknown, context: object) => Promise<unknown>;
      await assert.rejects(
        invoke(event, { awsRequestId: 'request' }),
        new RegExp(`${name} cannot use its event: `),
      );
    });
  }
}
