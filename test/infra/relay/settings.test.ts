import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeSettings, readSettings, SettingsError } from '../../../infra/relay/settings.ts';

const PID = 4711;
const REQUIRED = {
  RELAY_TABLE: 'policies',
  RELAY_REQUEST_QUEUE_URL: 'https://sqs.eu-west-1.amazonaws.com/123456789012/requests',
};

type Variables = Record<string, string | undefined>;

function complaints(variables: Variables): string[] {
  try {
    readSettings(variables, PID);
  } catch (error) {
    assert.ok(error instanceof SettingsError);
    assert.equal(error.code, 'settings');
    return error.message.split('; ');
  }
  return [];
}

const UNIX = { kind: 'unix', path: '/run/mta-sts-relay/socket', mode: 0o666 };

test('what is required is enough: everything else has its default', () => {
  assert.deepEqual(readSettings(REQUIRED, PID), {
    table: 'policies',
    requestQueueUrl: REQUIRED.RELAY_REQUEST_QUEUE_URL,
    region: 'eu-west-1',
    listeners: [UNIX],
    maxConnections: 1_000,
    dnsServers: [{ address: '127.0.0.1', port: 53 }],
    dane: true,
    firstContact: 'wait',
    onUnknown: 'defer',
    cachedDomains: 50_000,
    stateDirectory: '/var/lib/mta-sts-relay',
    overrides: undefined,
    metrics: { host: '127.0.0.1', port: 8_462 },
    logFormat: 'text',
  });
});

const accepted: [name: string, variables: Variables, expected: object][] = [
  [
    'several listeners',
    { RELAY_LISTEN: 'unix:/a/b, inet:127.0.0.1:8461,inet:[::1]:8461', RELAY_SOCKET_MODE: '0660' },
    {
      listeners: [
        { kind: 'unix', path: '/a/b', mode: 0o660 },
        { kind: 'inet', host: '127.0.0.1', port: 8_461 },
        { kind: 'inet', host: '::1', port: 8_461 },
      ],
    },
  ],
  [
    'any free port',
    { RELAY_LISTEN: 'inet:127.9.9.9:0' },
    { listeners: [{ kind: 'inet', host: '127.9.9.9', port: 0 }] },
  ],
  [
    'anywhere, if that is wanted',
    { RELAY_LISTEN: 'inet:0.0.0.0:8461', RELAY_LISTEN_ANYWHERE: 'on' },
    { listeners: [{ kind: 'inet', host: '0.0.0.0', port: 8_461 }] },
  ],
  [
    'sockets of systemd instead of the default',
    { LISTEN_PID: String(PID), LISTEN_FDS: '2' },
    {
      listeners: [
        { kind: 'fd', fd: 3 },
        { kind: 'fd', fd: 4 },
      ],
    },
  ],
  [
    'sockets of systemd beside others',
    { LISTEN_PID: String(PID), LISTEN_FDS: '1', RELAY_LISTEN: 'inet:127.0.0.1:8461' },
    {
      listeners: [
        { kind: 'fd', fd: 3 },
        { kind: 'inet', host: '127.0.0.1', port: 8_461 },
      ],
    },
  ],
  ['sockets for another process', { LISTEN_PID: '1', LISTEN_FDS: '1' }, { listeners: [UNIX] }],
  ['sockets without a number', { LISTEN_PID: String(PID), LISTEN_FDS: 'x' }, { listeners: [UNIX] }],
  [
    'several validators',
    { RELAY_DNS_SERVERS: '[::1]:5353,127.0.0.1' },
    {
      dnsServers: [
        { address: '::1', port: 5_353 },
        { address: '127.0.0.1', port: 53 },
      ],
    },
  ],
  [
    'other resolvers without DANE',
    { RELAY_DANE: 'off', RELAY_DNS_SERVERS: '192.0.2.53' },
    { dane: false, dnsServers: [{ address: '192.0.2.53', port: 53 }] },
  ],
  ["systemd's state directory", { STATE_DIRECTORY: '/var/lib/x' }, { stateDirectory: '/var/lib/x' }],
  [
    'a state directory before that of systemd',
    { STATE_DIRECTORY: '/var/lib/x', RELAY_STATE_DIRECTORY: '/srv/y' },
    { stateDirectory: '/srv/y' },
  ],
  [
    "the first of systemd's state directories",
    { STATE_DIRECTORY: '/var/lib/x:/var/lib/y' },
    { stateDirectory: '/var/lib/x' },
  ],
  ['no metrics', { RELAY_METRICS: 'off' }, { metrics: undefined }],
  [
    'metrics for a scraper elsewhere',
    { RELAY_METRICS: '[2001:db8::1]:9000' },
    { metrics: { host: '2001:db8::1', port: 9_000 } },
  ],
  [
    'an override map',
    { RELAY_OVERRIDES: '/etc/mta-sts-relay.overrides' },
    { overrides: '/etc/mta-sts-relay.overrides' },
  ],
  ['a region before that of the queue', { AWS_REGION: 'us-west-2' }, { region: 'us-west-2' }],
  ['the older variable for it', { AWS_DEFAULT_REGION: 'us-west-2' }, { region: 'us-west-2' }],
  [
    'the region of another partition',
    { RELAY_REQUEST_QUEUE_URL: 'https://sqs.us-gov-west-1.amazonaws.com/1/q' },
    { region: 'us-gov-west-1' },
  ],
  [
    'other ways',
    { RELAY_FIRST_CONTACT: 'async', RELAY_ON_UNKNOWN: 'none' },
    { firstContact: 'async', onUnknown: 'none' },
  ],
  [
    'blanks, and an empty variable for the default',
    { RELAY_TABLE: ' policies ', RELAY_DANE: ' ' },
    { table: 'policies', dane: true },
  ],
  ['JSON', { RELAY_LOG_FORMAT: 'json' }, { logFormat: 'json' }],
];

for (const [name, variables, expected] of accepted) {
  test(`accepted: ${name}`, () => {
    const settings = readSettings({ ...REQUIRED, ...variables }, PID);
    assert.deepEqual({ ...settings, ...expected }, settings);
  });
}

const refused: [variables: Variables, complaint: RegExp][] = [
  [{ RELAY_TABLE: '' }, /^RELAY_TABLE is missing: it should be the name of the policy table/],
  [
    { RELAY_REQUEST_QUEUE_URL: undefined, AWS_REGION: 'x' },
    /^RELAY_REQUEST_QUEUE_URL is missing: it should be the URL/,
  ],
  [
    { RELAY_REQUEST_QUEUE_URL: 'requests', AWS_REGION: 'x' },
    /^RELAY_REQUEST_QUEUE_URL is "requests": it should be the URL/,
  ],
  [{ RELAY_REQUEST_QUEUE_URL: 'http://127.0.0.1:4566/q' }, /^AWS_REGION is missing/],
  [{ RELAY_LISTEN: 'unix:socket' }, /^RELAY_LISTEN has "unix:socket": it should be a comma-separated list/],
  [{ RELAY_LISTEN: '/run/socket' }, /^RELAY_LISTEN has "\/run\/socket"/],
  [{ RELAY_LISTEN: 'inet:localhost:8461' }, /^RELAY_LISTEN has "inet:localhost:8461"/],
  [{ RELAY_LISTEN: 'inet:127.0.0.1' }, /^RELAY_LISTEN has "inet:127\.0\.0\.1"/],
  [{ RELAY_LISTEN: 'inet:127.0.0.1:65536' }, /^RELAY_LISTEN has/],
  [{ RELAY_LISTEN: 'inet:::1:8461' }, /^RELAY_LISTEN has/],
  [{ RELAY_LISTEN: 'inet:[127.0.0.1]:8461' }, /^RELAY_LISTEN has/],
  [{ RELAY_LISTEN: 'unix:/a,' }, /^RELAY_LISTEN has ""/],
  [{ RELAY_LISTEN: 'inet:0.0.0.0:8461' }, /^RELAY_LISTEN has "inet:0\.0\.0\.0:8461", which is not loopback/],
  [{ RELAY_LISTEN: 'inet:[::]:8461' }, /which is not loopback/],
  [{ RELAY_LISTEN: 'inet:10.0.0.1:8461', RELAY_LISTEN_ANYWHERE: 'off' }, /which is not loopback/],
  [{ RELAY_LISTEN_ANYWHERE: 'yes' }, /^RELAY_LISTEN_ANYWHERE is "yes": it should be one of off, on$/],
  [{ RELAY_SOCKET_MODE: '0888' }, /^RELAY_SOCKET_MODE is "0888": it should be three octal digits/],
  [{ RELAY_SOCKET_MODE: '4777' }, /^RELAY_SOCKET_MODE is "4777"/],
  [
    { RELAY_MAX_CONNECTIONS: '0' },
    /^RELAY_MAX_CONNECTIONS is "0": it should be a whole number from 1 to 100000$/,
  ],
  [{ RELAY_MAX_CONNECTIONS: '1e3' }, /^RELAY_MAX_CONNECTIONS is "1e3"/],
  [{ RELAY_CACHED_DOMAINS: '99' }, /^RELAY_CACHED_DOMAINS is "99": it should be a whole number from 100/],
  [
    { RELAY_DNS_SERVERS: 'localhost' },
    /^RELAY_DNS_SERVERS has "localhost": it should be a comma-separated list/,
  ],
  [{ RELAY_DNS_SERVERS: '127.0.0.1:0' }, /^RELAY_DNS_SERVERS has "127\.0\.0\.1:0"/],
  [
    { RELAY_DNS_SERVERS: '192.0.2.53' },
    /^RELAY_DNS_SERVERS has "192\.0\.2\.53", which is not on this machine/,
  ],
  [{ RELAY_DANE: 'no' }, /^RELAY_DANE is "no": it should be one of on, off$/],
  [
    { RELAY_FIRST_CONTACT: 'Wait' },
    /^RELAY_FIRST_CONTACT is "Wait": it should be one of wait, async, defer$/,
  ],
  [{ RELAY_ON_UNKNOWN: 'allow' }, /^RELAY_ON_UNKNOWN is "allow": it should be one of defer, none$/],
  [{ RELAY_STATE_DIRECTORY: 'state' }, /^RELAY_STATE_DIRECTORY is "state": it should be an absolute path$/],
  [{ RELAY_METRICS: '8462' }, /^RELAY_METRICS is "8462": it should be off or <address>:<port>/],
  [{ RELAY_METRICS: 'localhost:8462' }, /^RELAY_METRICS is "localhost:8462"/],
  [{ RELAY_LOG_FORMAT: 'syslog' }, /^RELAY_LOG_FORMAT is "syslog": it should be one of text, json$/],
  [{ RELAY_DNS_SERVER: '127.0.0.1' }, /^RELAY_DNS_SERVER is not a setting: see --help$/],
];

for (const [variables, complaint] of refused) {
  test(`refused: ${Object.entries(variables).map(([name, value]) => `${name}=${value}`)}`, () => {
    const [first = '', ...more] = complaints({ ...REQUIRED, ...variables });
    assert.match(first, complaint);
    // The sentence may itself go on after a semicolon, but no other setting is named.
    for (const rest of more) assert.doesNotMatch(rest, /^(?:RELAY|AWS)_\w+ (?:is|has)/);
  });
}

test('all that is wrong is said at once', () => {
  const said = complaints({ RELAY_DANE: 'x', RELAY_METRICS: 'x', RELAY_TYPO: 'x' });
  const names = [
    'RELAY_TABLE',
    'RELAY_REQUEST_QUEUE_URL',
    'RELAY_DANE',
    'RELAY_METRICS',
    'RELAY_TYPO',
    'AWS_REGION',
  ];
  for (const name of names)
    assert.ok(
      said.some((each) => each.startsWith(`${name} `)),
      name,
    );
});

test('settings cannot be changed', () => {
  assert.ok(Object.isFrozen(readSettings(REQUIRED, PID)));
});

test('--help has every setting with its default, in lines of bearable length', () => {
  const text = describeSettings(100);
  for (const name of ['RELAY_TABLE', 'RELAY_LISTEN', 'RELAY_OVERRIDES', 'AWS_REGION'])
    assert.ok(text.includes(`  ${name}\n`));
  assert.match(text, /RELAY_FIRST_CONTACT\n[^A-Z]*\(default\s+wait\)/);
  assert.match(text, /RELAY_TABLE\n.*\(required\)/);
  for (const line of text.split('\n')) assert.ok(line.length <= 100, line);
});
