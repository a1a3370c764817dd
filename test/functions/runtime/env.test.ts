import assert from 'node:assert/strict';
import { Resolver } from 'node:dns';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ConfigurationError,
  dispatchEnvironment,
  planEnvironment,
  refreshEnvironment,
  requestEnvironment,
} from '../../../functions/runtime/env.ts';

const PLAN = {
  POLICY_TABLE: 'policies',
  REFRESH_QUEUE_URL: 'https://sqs.us-east-1.amazonaws.com/123456789012/refresh',
  SCHEDULE_GROUP: 'waves',
  DISPATCH_FUNCTION_ARN: 'arn:aws:lambda:us-east-1:123456789012:function:dispatch',
  SCHEDULER_ROLE_ARN: 'arn:aws:iam::123456789012:role/scheduler',
  SCHEDULER_DLQ_ARN: 'arn:aws:sqs:us-east-1:123456789012:failures',
};
const DISPATCH = { REFRESH_QUEUE_URL: PLAN.REFRESH_QUEUE_URL };
const REFRESH = { POLICY_TABLE: 'policies' };
const LOCAL = { ...REFRESH, AWS_ENDPOINT_URL_DYNAMODB: 'http://127.0.0.1:8000' };

type Variables = Record<string, string | undefined>;
type Read = (variables: Variables) => object;

function complaints(read: Read, variables: Variables): string[] {
  try {
    read(variables);
  } catch (error) {
    assert.ok(error instanceof ConfigurationError);
    assert.equal(error.code, 'configuration');
    return error.message.split('; ');
  }
  return [];
}

test('what is required is enough: everything else has its default', () => {
  assert.deepEqual(planEnvironment(PLAN), {
    table: 'policies',
    queueUrl: PLAN.REFRESH_QUEUE_URL,
    scheduleGroup: 'waves',
    dispatchFunctionArn: PLAN.DISPATCH_FUNCTION_ARN,
    schedulerRoleArn: PLAN.SCHEDULER_ROLE_ARN,
    schedulerDlqArn: PLAN.SCHEDULER_DLQ_ARN,
    spreadSeconds: 10_800,
    waveSeconds: 840,
    latenessSeconds: 60,
    staleAfterSeconds: 43_200,
    unusedAfterSeconds: 15_552_000,
    scanSegments: 4,
    renewalIntervalSeconds: 3_600,
    renewalMarginSeconds: 21_600,
    renewalSpreadSeconds: 900,
  });
  assert.deepEqual(dispatchEnvironment(DISPATCH), { queueUrl: PLAN.REFRESH_QUEUE_URL });
  assert.deepEqual(refreshEnvironment(REFRESH), {
    table: 'policies',
    dnsServers: undefined,
    policyHostPort: 443,
    allowPrivateAddresses: false,
    maxFetchAgeSeconds: 604_800,
  });
  assert.deepEqual(requestEnvironment(REFRESH), {
    ...refreshEnvironment(REFRESH),
    discoveriesPerDomainPerDay: 100,
    discoveriesPerDay: 20_000,
  });
});

test('every variable is read', () => {
  const plan = planEnvironment({
    ...PLAN,
    SPREAD_SECONDS: '12',
    WAVE_SECONDS: '3',
    SCHEDULE_LATENESS_SECONDS: '1',
    STALE_AFTER_SECONDS: '0',
    UNUSED_AFTER_SECONDS: '0',
    SCAN_SEGMENTS: '16',
    RENEWAL_INTERVAL_SECONDS: '2',
    RENEWAL_MARGIN_SECONDS: '200',
    RENEWAL_SPREAD_SECONDS: '5',
  });
  assert.partialDeepStrictEqual(plan, {
    spreadSeconds: 12,
    waveSeconds: 3,
    latenessSeconds: 1,
    staleAfterSeconds: 0,
    unusedAfterSeconds: 0,
    scanSegments: 16,
    renewalIntervalSeconds: 2,
    renewalMarginSeconds: 200,
    renewalSpreadSeconds: 5,
  });
  assert.deepEqual(
    refreshEnvironment({
      ...LOCAL,
      DNS_SERVERS: ' 127.0.0.1:5353, ::1 ,[::1]:53',
      POLICY_HOST_PORT: '8443',
      ALLOW_PRIVATE_ADDRESSES: '1',
      MAX_FETCH_AGE_SECONDS: '0',
    }),
    {
      table: 'policies',
      dnsServers: ['127.0.0.1:5353', '::1', '[::1]:53'],
      policyHostPort: 8443,
      allowPrivateAddresses: true,
      maxFetchAgeSeconds: 0,
    },
  );
});

test('request reads all that refresh does, and its limits', () => {
  const variables = {
    ...LOCAL,
    DNS_SERVERS: '192.0.2.1',
    POLICY_HOST_PORT: '8443',
    ALLOW_PRIVATE_ADDRESSES: '1',
    MAX_FETCH_AGE_SECONDS: '0',
  };
  const limits = { DISCOVERIES_PER_DOMAIN_PER_DAY: '5', DISCOVERIES_PER_DAY: '6' };
  assert.deepEqual(requestEnvironment({ ...variables, ...limits }), {
    ...refreshEnvironment(variables),
    discoveriesPerDomainPerDay: 5,
    discoveriesPerDay: 6,
  });
});

test('a limit for one domain that is above that for all is refused', () => {
  const variables = (perDomain: string, perDay: string) => ({
    ...REFRESH,
    DISCOVERIES_PER_DOMAIN_PER_DAY: perDomain,
    DISCOVERIES_PER_DAY: perDay,
  });
  assert.deepEqual(complaints(requestEnvironment, variables('6', '6')), []);
  assert.match(
    complaints(requestEnvironment, variables('7', '6')).join(),
    /^DISCOVERIES_PER_DOMAIN_PER_DAY \(7\) is more than DISCOVERIES_PER_DAY \(6\), /,
  );
});

test('an empty variable, or one of blanks, is one that is not set', () => {
  const optional = ['SPREAD_SECONDS', 'WAVE_SECONDS', 'UNUSED_AFTER_SECONDS', 'SCAN_SEGMENTS'];
  const blank = Object.fromEntries(optional.map((name, i) => [name, ' '.repeat(i)]));
  assert.deepEqual(planEnvironment({ ...PLAN, ...blank }), planEnvironment(PLAN));
  const unset = { DNS_SERVERS: '', POLICY_HOST_PORT: ' ', ALLOW_PRIVATE_ADDRESSES: '' };
  assert.deepEqual(refreshEnvironment({ ...REFRESH, ...unset }), refreshEnvironment(REFRESH));
});

test('environments are frozen, lists included', () => {
  const refresh = refreshEnvironment({ ...REFRESH, DNS_SERVERS: '192.0.2.1' });
  for (const value of [planEnvironment(PLAN), dispatchEnvironment(DISPATCH), refresh, refresh.dnsServers]) {
    assert.ok(Object.isFrozen(value));
  }
});

const required: [read: Read, variables: Variables][] = [
  [planEnvironment, PLAN],
  [dispatchEnvironment, DISPATCH],
  [refreshEnvironment, REFRESH],
  [requestEnvironment, REFRESH],
];

for (const [read, variables] of required) {
  for (const name of Object.keys(variables)) {
    for (const value of [undefined, '', ' ']) {
      test(`${read.name}: ${name} ${value === undefined ? 'missing' : `"${value}"`}: says what it should be`, () => {
        const [complaint = '', ...others] = complaints(read, { ...variables, [name]: value });
        assert.match(complaint, new RegExp(`^${name} is missing: it should be the (name|URL|ARN) of `));
        assert.deepEqual(others, []);
      });
    }
  }
}

test('all complaints come at once', () => {
  const names = (found: string[]) => found.map((complaint) => complaint.split(' ')[0]);
  assert.deepEqual(names(complaints(planEnvironment, {})), Object.keys(PLAN));
  const bad = {
    ...PLAN,
    POLICY_TABLE: '',
    SPREAD_SECONDS: '3h',
    SCAN_SEGMENTS: '0',
    SCHEDULER_DLQ_ARN: 'dlq',
  };
  assert.deepEqual(names(complaints(planEnvironment, bad)).sort(), [
    'POLICY_TABLE',
    'SCAN_SEGMENTS',
    'SCHEDULER_DLQ_ARN',
    'SPREAD_SECONDS',
  ]);
  const worse = { DNS_SERVERS: 'a,192.0.2.1,b', POLICY_HOST_PORT: '0', ALLOW_PRIVATE_ADDRESSES: '1' };
  assert.deepEqual(names(complaints(refreshEnvironment, worse)).sort(), [
    'ALLOW_PRIVATE_ADDRESSES',
    'DNS_SERVERS',
    'DNS_SERVERS',
    'POLICY_HOST_PORT',
    'POLICY_TABLE',
  ]);
});

const bad: [read: Read, variables: Variables, name: string, value: string, shouldBe: RegExp][] = [
  [planEnvironment, PLAN, 'REFRESH_QUEUE_URL', 'refresh-queue', /the URL of the refresh queue/],
  [planEnvironment, PLAN, 'REFRESH_QUEUE_URL', PLAN.SCHEDULER_DLQ_ARN, /the URL of the refresh queue/],
  [dispatchEnvironment, DISPATCH, 'REFRESH_QUEUE_URL', 'sqs.us-east-1.amazonaws.com/q', /the URL of/],
  [planEnvironment, PLAN, 'DISPATCH_FUNCTION_ARN', 'dispatch', /the ARN of the dispatch function/],
  [
    planEnvironment,
    PLAN,
    'DISPATCH_FUNCTION_ARN',
    PLAN.SCHEDULER_ROLE_ARN,
    /the ARN of the dispatch function/,
  ],
  [planEnvironment, PLAN, 'SCHEDULER_ROLE_ARN', PLAN.DISPATCH_FUNCTION_ARN, /the ARN of the role/],
  [planEnvironment, PLAN, 'SCHEDULER_DLQ_ARN', PLAN.REFRESH_QUEUE_URL, /the ARN of the schedules'/],
  [planEnvironment, PLAN, 'SPREAD_SECONDS', '0', /a whole number from 1 to 86400/],
  [planEnvironment, PLAN, 'SPREAD_SECONDS', '86401', /a whole number from 1 to 86400/],
  [planEnvironment, PLAN, 'SPREAD_SECONDS', '3h', /a whole number/],
  [planEnvironment, PLAN, 'SPREAD_SECONDS', '1e3', /a whole number/],
  [planEnvironment, PLAN, 'SPREAD_SECONDS', '1.5', /a whole number/],
  [planEnvironment, PLAN, 'SPREAD_SECONDS', '-1', /a whole number/],
  [planEnvironment, PLAN, 'WAVE_SECONDS', '0', /a whole number from 1 to 900/],
  [planEnvironment, PLAN, 'SCHEDULE_LATENESS_SECONDS', '0', /a whole number from 1 to 900/],
  [planEnvironment, PLAN, 'STALE_AFTER_SECONDS', 'never', /a whole number/],
  [planEnvironment, PLAN, 'UNUSED_AFTER_SECONDS', '-1', /a whole number/],
  [planEnvironment, PLAN, 'SCAN_SEGMENTS', '0', /a whole number from 1/],
  [refreshEnvironment, REFRESH, 'POLICY_HOST_PORT', '0', /a whole number from 1 to 65535/],
  [refreshEnvironment, REFRESH, 'POLICY_HOST_PORT', '65536', /a whole number from 1 to 65535/],
  [refreshEnvironment, LOCAL, 'ALLOW_PRIVATE_ADDRESSES', 'true', /1 or unset/],
  [refreshEnvironment, LOCAL, 'ALLOW_PRIVATE_ADDRESSES', '0', /1 or unset/],
  [requestEnvironment, REFRESH, 'POLICY_HOST_PORT', '0', /a whole number from 1 to 65535/],
  [requestEnvironment, REFRESH, 'DISCOVERIES_PER_DOMAIN_PER_DAY', '0', /from 1 to 1000000000/],
  [requestEnvironment, REFRESH, 'DISCOVERIES_PER_DAY', '1000000001', /from 1 to 1000000000/],
];

for (const [read, variables, name, value, shouldBe] of bad) {
  test(`${read.name}: ${name}=${value} is refused, saying what it should be`, () => {
    const [complaint = '', ...others] = complaints(read, { ...variables, [name]: value });
    assert.ok(complaint.startsWith(`${name} is "${value}": it should be `), complaint);
    assert.match(complaint, shouldBe);
    assert.deepEqual(others, []);
  });
}

const waves: [wave: string, lateness: string, ok: boolean][] = [
  ['840', '60', true],
  ['841', '60', false],
  ['840', '61', false],
  ['899', '1', true],
  ['900', '1', false],
  ['1', '899', true],
];

for (const [wave, lateness, ok] of waves) {
  test(`waves of ${wave} s with schedules ${lateness} s late ${ok ? 'fit' : 'do not fit'} into an SQS delay`, () => {
    const found = complaints(planEnvironment, {
      ...PLAN,
      WAVE_SECONDS: wave,
      SCHEDULE_LATENESS_SECONDS: lateness,
    });
    assert.equal(found.length, ok ? 0 : 1);
    if (!ok)
      assert.match(
        found.join(),
        /^WAVE_SECONDS \+ SCHEDULE_LATENESS_SECONDS is 9\d\d, .* at most 900 seconds/,
      );
  });
}

const servers: [text: string, ok: boolean][] = [
  ['192.0.2.1', true],
  ['192.0.2.1:53', true],
  ['192.0.2.1:65535', true],
  ['2001:db8::1', true],
  ['[2001:db8::1]:53', true],
  ['fe80::1%eth0', true],
  ['192.0.2.1,[2001:db8::1]:53', true],
  ['192.0.2.1:0', false],
  ['192.0.2.1:65536', false],
  ['192.0.2.1:', false],
  ['192.0.2.256', false],
  ['192.0.2', false],
  ['[2001:db8::1', false],
  ['[2001:db8::1:53', false],
  ['2001:db8::1]:53', false],
  ['[192.0.2.1]:53', false],
  ['[2001:db8::1]', false],
  ['1:2:3:4:5:6:7:8:53', false],
  ['dns.example', false],
  ['192.0.2.1,', false],
  ['192.0.2.1;192.0.2.2', false],
  ['https://dns.example/dns-query', false],
];

for (const [text, ok] of servers) {
  test(`DNS_SERVERS=${text} is ${ok ? 'read, and Node takes it' : 'refused, naming the one that is wrong'}`, () => {
    const found = complaints(refreshEnvironment, { ...REFRESH, DNS_SERVERS: text });
    if (ok) {
      assert.deepEqual(found, []);
      const { dnsServers = [] } = refreshEnvironment({ ...REFRESH, DNS_SERVERS: text });
      new Resolver().setServers(dnsServers);
    } else {
      assert.match(
        found.join(),
        /^DNS_SERVERS has "[^",]*": it should be a comma-separated list of addresses/,
      );
    }
  });
}

test('what DNS_SERVERS lets pass, Node takes', () => {
  const address = fc.oneof(
    fc.ipV4(),
    fc.ipV6(),
    fc.ipV4Extended(),
    fc.stringMatching(/^[0-9a-f:.[\]]{1,20}$/),
  );
  const port = fc.oneof(fc.constant(''), fc.nat(70_000).map(String));
  fc.assert(
    fc.property(address, port, fc.boolean(), (host, digits, brackets) => {
      const server = `${brackets ? `[${host}]` : host}${digits === '' ? '' : `:${digits}`}`;
      if (complaints(refreshEnvironment, { ...REFRESH, DNS_SERVERS: server }).length > 0) return;
      new Resolver().setServers([server]);
    }),
    { numRuns: 1_000 },
  );
});

const endpoints: [endpoint: string | undefined, loopback: boolean][] = [
  ['http://127.0.0.1:8000', true],
  ['http://127.255.255.254', true],
  ['http://127.1:8000', true],
  ['http://0x7f000001', true],
  ['http://localhost:8000', true],
  ['http://LOCALHOST', true],
  ['http://[::1]:8000', true],
  ['http://[0:0:0:0:0:0:0:1]', true],
  [undefined, false],
  ['', false],
  ['127.0.0.1:8000', false],
  ['localhost:8000', false],
  ['http://127.0.0.1.example.com', false],
  ['http://localhost.example.com', false],
  ['http://127.0.0.1@dynamodb.us-east-1.amazonaws.com', false],
  ['http://dynamodb.us-east-1.amazonaws.com/127.0.0.1', false],
  ['http://dynamodb.us-east-1.amazonaws.com#localhost', false],
  ['http://128.0.0.1', false],
  ['http://0.0.0.0:8000', false],
  ['http://169.254.169.254', false],
  ['http://[::]', false],
  ['http://[::ffff:10.0.0.1]', false],
  ['https://dynamodb.us-east-1.amazonaws.com', false],
];

for (const [endpoint, loopback] of endpoints) {
  test(`private addresses are ${loopback ? 'allowed' : 'refused'} with the database at ${endpoint}`, () => {
    const found = complaints(refreshEnvironment, {
      ...REFRESH,
      AWS_ENDPOINT_URL_DYNAMODB: endpoint,
      ALLOW_PRIVATE_ADDRESSES: '1',
    });
    assert.equal(found.length, loopback ? 0 : 1);
    if (!loopback) assert.match(found.join(), /^ALLOW_PRIVATE_ADDRESSES is for local use only/);
    assert.deepEqual(complaints(refreshEnvironment, { ...REFRESH, AWS_ENDPOINT_URL_DYNAMODB: endpoint }), []);
  });
}

test('private addresses are refused where the SDK is told to ignore the endpoint', () => {
  const variables = { ...LOCAL, ALLOW_PRIVATE_ADDRESSES: '1', AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: 'true' };
  assert.match(
    complaints(refreshEnvironment, variables).join(),
    /^ALLOW_PRIVATE_ADDRESSES .* local use only/,
  );
  assert.deepEqual(
    complaints(refreshEnvironment, { ...variables, AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: 'false' }),
    [],
  );
});

const renewals: [name: string, settings: Record<string, string>, complaint: RegExp | undefined][] = [
  ['the least margin', { RENEWAL_MARGIN_SECONDS: '8280' }, undefined],
  [
    'a second less',
    { RENEWAL_MARGIN_SECONDS: '8279' },
    /^2 x RENEWAL_INTERVAL_SECONDS \(3600\) \+ .*\(60\) \+ .*\(900\) \+ processing \(120\) is 8280, more than .*\(8279\)/,
  ],
  ['the longest interval', { RENEWAL_INTERVAL_SECONDS: '6120' }, undefined],
  [
    'a second more',
    { RENEWAL_INTERVAL_SECONDS: '6121' },
    /is 7201, more than the 7200 seconds that the shortest/,
  ],
];
for (const [name, settings, complaint] of renewals) {
  test(`renewal settings with which a policy could lapse are refused, with the arithmetic: ${name}`, () => {
    const check = () => planEnvironment({ ...PLAN, ...settings });
    if (complaint === undefined) assert.doesNotThrow(check);
    else assert.throws(check, { message: complaint });
  });
}
