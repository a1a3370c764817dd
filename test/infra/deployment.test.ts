// What osls is taught: wrong parameters stop it with a sentence each, bundles are measured, and a deployment starts plan.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { after, test } from 'node:test';
import { complaintsAbout, type Parameters, rate } from '../../infra/deployment/parameters.ts';
import Deployment, { type Osls } from '../../infra/deployment/plugin.ts';
import { listen } from '../resources.ts';
import { packageService, readDefaults, removePackages } from './packaging.ts';

after(removePackages);

const TARGET = { service: 'mta-sts-refresher', stage: 'prod', region: 'eu-central-1' };

const DEFAULTS = await readDefaults();

const right: [name: string, given: Parameters][] = [
  ['the defaults', {}],
  ['numbers as the command line has them', { spreadSeconds: '3600', refreshConcurrency: '1000' }],
  ['the longest wave', { waveSeconds: 870, scheduleLatenessSeconds: 30 }],
  ['a spread of one wave', { spreadSeconds: 840 }],
  ['no pruning', { unusedAfterSeconds: 0 }],
  ['as many discoveries of one domain as of all', { discoveriesPerDomainPerDay: 5, discoveriesPerDay: 5 }],
  ['resolvers', { dnsServers: '9.9.9.9, [2620:fe::fe]:53' }],
  ['an alarm topic', { alarmTopicArn: 'arn:aws:sns:eu-central-1:123456789012:mail' }],
  ['another daily schedule', { dailySchedule: 'rate(1 day)' }],
];

for (const [name, given] of right) {
  test(`these parameters are right: ${name}`, () => {
    assert.deepEqual(complaintsAbout(TARGET, DEFAULTS, given), []);
  });
}

const wrong: [name: string, given: Parameters, complaint: RegExp][] = [
  [
    'a name that there is not',
    { spreadSecond: 5 },
    /^there is no parameter spreadSecond: it should be one of dailySchedule, /,
  ],
  [
    'no number',
    { spreadSeconds: '3h' },
    /^spreadSeconds is "3h": it should be a whole number from 1 to 86400$/,
  ],
  [
    'a number out of range',
    { scanSegments: 0 },
    /^scanSegments is "0": it should be a whole number from 1 to 1000$/,
  ],
  [
    'a spread shorter than a wave',
    { spreadSeconds: 600 },
    /^spreadSeconds is 600, shorter than a wave, waveSeconds, which is 840: /,
  ],
  [
    'a wave longer than SQS delays',
    { waveSeconds: 870 },
    /^waveSeconds \+ scheduleLatenessSeconds is 930, but SQS delays a message by at most 900 seconds: /,
  ],
  [
    'stale too late',
    { staleAfterSeconds: 80_000 },
    /^staleAfterSeconds \+ spreadSeconds is 90800, more than a day, 86400: /,
  ],
  [
    'pruning what is in use',
    { unusedAfterSeconds: 86_400 },
    /^unusedAfterSeconds is 86400: use is known to within a day .* 172800 /,
  ],
  [
    'renewals too seldom',
    { renewalIntervalSeconds: 6_600 },
    /^renewalIntervalSeconds \(6600\) \+ scheduleLatenessSeconds \(60\) .* is 7680, more than /,
  ],
  [
    'renewals with too little margin',
    { renewalMarginSeconds: 3_600 },
    /^2 x renewalIntervalSeconds \(3600\) .* more than renewalMarginSeconds \(3600\)/,
  ],
  [
    'half a minute',
    { renewalIntervalSeconds: 1_830 },
    /^renewalIntervalSeconds is 1830: it should be a multiple of 60/,
  ],
  ['no address', { dnsServers: 'dns.example' }, /^dnsServers has "dns.example": it should be /],
  [
    'a port that there is not',
    { policyHostPort: 70_000 },
    /^policyHostPort is "70000": it should be a whole number from 1 to 65535$/,
  ],
  [
    'no discoveries at all',
    { discoveriesPerDay: 0 },
    /^discoveriesPerDay is "0": it should be a whole number from 1 to 1000000000$/,
  ],
  [
    'no discoveries of one domain',
    { discoveriesPerDomainPerDay: 0 },
    /^discoveriesPerDomainPerDay is "0": it should be a whole number from 1 to 1000000000$/,
  ],
  [
    'discoveries of which one domain could use up all',
    { discoveriesPerDay: 99 },
    /^discoveriesPerDomainPerDay \(100\) is more than discoveriesPerDay \(99\), so that one domain could use up /,
  ],
  [
    'concurrency that Lambda does not take',
    { refreshConcurrency: 1 },
    /^refreshConcurrency is "1": it should be a whole number from 2 to 1000$/,
  ],
  [
    'concurrency that Lambda does not take',
    { requestConcurrency: 1_001 },
    /^requestConcurrency is "1001": it should be /,
  ],
  [
    'a level that hides the metrics',
    { logLevel: 'WARN' },
    /^logLevel is "WARN": it should be INFO or DEBUG$/,
  ],
  [
    'a retention that CloudWatch does not have',
    { logRetentionDays: 31 },
    /^logRetentionDays is "31": it should be one of 1, 3, 5, /,
  ],
  [
    'no topic',
    { alarmTopicArn: 'mail' },
    /^alarmTopicArn is "mail": it should be empty, or the ARN of an SNS topic in the region of the stack$/,
  ],
  [
    'a topic of another region',
    { alarmTopicArn: 'arn:aws:sns:us-east-1:123456789012:mail' },
    /^alarmTopicArn is /,
  ],
  [
    'no share',
    { alarmPrunedPercent: 0 },
    /^alarmPrunedPercent is "0": it should be a whole number from 1 to 100$/,
  ],
  [
    'no schedule',
    { dailySchedule: '0 3 * * *' },
    /^dailySchedule is "0 3 \* \* \*": it should be an expression of EventBridge Scheduler/,
  ],
];

for (const [name, given, complaint] of wrong) {
  test(`these parameters are wrong: ${name}, ${JSON.stringify(given)}`, () => {
    const [first, ...others] = complaintsAbout(TARGET, DEFAULTS, given);
    assert.match(first ?? '', complaint);
    assert.deepEqual(others, []);
  });
}

const stages: [stage: string, right: boolean][] = [
  ['dev', true],
  ['p', true],
  ['eu-2', true],
  ['a'.repeat(37), true],
  ['a'.repeat(38), false],
  ['', false],
  ['Prod', false],
  ['2nd', false],
  ['prod-', false],
  ['pro_d', false],
];

for (const [stage, isRight] of stages) {
  test(`the stage "${stage}" is ${isRight ? 'right' : 'wrong'}`, () => {
    const [complaint = ''] = complaintsAbout({ ...TARGET, stage }, DEFAULTS, {});
    assert.match(complaint, isRight ? /^$/ : /^the stage is ".*": it should be .* at most 37 characters/);
  });
}

for (const [region, isRight] of [
  ['us-east-1', true],
  ['us-gov-west-1', true],
  ['ap-southeast-2', true],
  ['frankfurt', false],
  ['', false],
] as const) {
  test(`the region "${region}" has ${isRight ? 'the' : 'not the'} form of one`, () => {
    const [complaint = ''] = complaintsAbout({ ...TARGET, region }, DEFAULTS, {});
    assert.match(complaint, isRight ? /^$/ : /^the region is ".*": it should be a region's code/);
  });
}

test('all problems are told at once', () => {
  const given = { spreadSeconds: 600, logLevel: 'WARN', policyHostPort: 0, waveSeconds: 'long' };
  assert.equal(complaintsAbout({ ...TARGET, stage: 'Prod' }, DEFAULTS, given).length, 4);
});

test('schedules are in minutes, one of them in the singular', () => {
  assert.deepEqual([60, 1_800, 3_600].map(rate), ['rate(1 minute)', 'rate(30 minutes)', 'rate(60 minutes)']);
});

test("osls stops at wrong parameters with a sentence for each, of which none is CloudFormation's", async () => {
  const options = [
    '--param',
    'spreadSeconds=600',
    '--param',
    'waveSeconds=870',
    '--param',
    'refreshConcurrency=1',
  ];
  await assert.rejects(packageService('--stage', 'Prod', ...options), ({ code, stdout }) => {
    assert.equal(code, 1);
    const lines = stdout.split('\n').filter((line: string) => line.startsWith('- '));
    assert.equal(lines.length, 4, stdout);
    assert.match(
      stdout,
      /^Error:\nNothing was done, since the parameters cannot be used:\n- the stage is "Prod": /,
    );
    return true;
  });
});

interface Scene {
  readonly commands?: string[];
  readonly param?: string[];
  readonly params?: Record<string, unknown>;
  readonly endpoint?: string;
  readonly shouldNotDeploy?: boolean;
}

class Stop extends Error {}

/** The plugin in an osls of which there is only what it uses. */
function deployment({
  commands = ['deploy'],
  param = [],
  params = {},
  endpoint = 'http://127.0.0.1:1',
  shouldNotDeploy = false,
}: Scene) {
  const lines: string[] = [];
  const osls: Osls = {
    processedInput: { commands, options: { param } },
    configurationInput: { params: { ...params, default: DEFAULTS } },
    service: {
      service: 'mta-sts-refresher',
      provider: { shouldNotDeploy },
      getAllFunctions: () => [],
      getFunction: (name) => ({ name: `mta-sts-refresher-prod-${name}` }),
    },
    classes: { Error: Stop },
    getProvider: () => ({
      getStage: () => 'prod',
      getRegion: () => 'eu-central-1',
      getAwsSdkV3Config: async () => ({
        region: 'eu-central-1',
        endpoint,
        maxAttempts: 1,
        credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
      }),
    }),
  };
  const say = (level: string) => (message: string) => void lines.push(`${level}: ${message}`);
  const plugin = new Deployment(osls, {}, { log: { notice: say('notice'), warning: say('warning') } });
  return { plugin, lines };
}

test('the command line wins over the stage, the stage over the defaults', async () => {
  const wave = { prod: { waveSeconds: 870 }, dev: { waveSeconds: 'long' } };
  await deployment({ params: { prod: { waveSeconds: 800 } } }).plugin.asyncInit();
  await assert.rejects(deployment({ params: wave }).plugin.asyncInit(), Stop);
  await deployment({ params: wave, param: ['waveSeconds=830'] }).plugin.asyncInit();
});

test('a stack with wrong parameters can still be looked at and removed', async () => {
  const param = ['waveSeconds=long'];
  for (const commands of [['info'], ['remove'], ['deploy', 'list']]) {
    await deployment({ commands, param }).plugin.asyncInit();
  }
  for (const commands of [['package'], ['deploy'], ['deploy', 'function']]) {
    await assert.rejects(deployment({ commands, param }).plugin.asyncInit(), Stop);
  }
});

test('a deployment starts plan once, without waiting for it', async (t) => {
  const requests: { url: string | undefined; type: unknown; body: string }[] = [];
  const server = createServer(async (request, response) => {
    const type = request.headers['x-amz-invocation-type'];
    requests.push({ url: request.url, type, body: await text(request) });
    response.writeHead(202).end();
  });
  const endpoint = `http://127.0.0.1:${await listen(t, server)}`;
  await deployment({ endpoint, shouldNotDeploy: true }).plugin.hooks['after:deploy:deploy']();
  assert.equal(requests.length, 0);

  const { plugin, lines } = deployment({ endpoint });
  await plugin.hooks['after:deploy:deploy']();
  const [request, ...others] = requests;
  assert.deepEqual(others, []);
  assert.equal(request?.url, '/2015-03-31/functions/mta-sts-refresher-prod-plan/invocations');
  assert.equal(request.type, 'Event');
  const { kind, runId } = JSON.parse(request.body);
  assert.equal(kind, 'daily');
  assert.deepEqual(lines, [`notice: Started plan once, as run ${runId}`]);
});

test('that plan cannot be started does not fail a deployment', async () => {
  const { plugin, lines } = deployment({});
  await plugin.hooks['after:deploy:deploy']();
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /^warning: plan could not be started now, and waits for its schedule: .+/);
});
