import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { test } from 'node:test';
import { createLog } from '../../../infra/relay/log.ts';
import { createMetrics } from '../../../infra/relay/metrics.ts';
import { ListenError } from '../../../infra/relay/server.ts';
import { startStatusServer } from '../../../infra/relay/status.ts';
import { HANG_MS, listen } from '../../resources.ts';

const TIME = Date.parse('2026-01-02T03:04:05.678Z');

function observed() {
  const lines: string[] = [];
  let now = TIME;
  const log = createLog({ format: 'text', write: (line) => lines.push(line), now: () => now });
  const metrics = createMetrics({ log, build: { version: '1.2.3', node: 'v"24"' }, now: () => now });
  const pass = (seconds: number) => {
    now += seconds * 1_000;
  };
  return { metrics, lines, pass };
}

/** Of the sample lines that begin with this name. */
const samples = (text: string, name: string) =>
  text.split('\n').filter((line) => line.startsWith(`mta_sts_relay_${name}`));

test('counters are counted by their labels', () => {
  const { metrics } = observed();
  metrics.count('dane', { result: 'none' });
  metrics.count('dane', { result: 'none' }, 2);
  metrics.count('dane', { result: 'all' });
  metrics.count('dns_questions', { type: 'TXT', result: 'found' });
  assert.deepEqual(samples(metrics.text(), 'dane_total'), [
    'mta_sts_relay_dane_total{result="none"} 3',
    'mta_sts_relay_dane_total{result="all"} 1',
  ]);
  assert.deepEqual(samples(metrics.text(), 'dns_questions_total'), [
    'mta_sts_relay_dns_questions_total{type="TXT",result="found"} 1',
  ]);
});

test('what has not happened yet is there as zero', () => {
  const { metrics } = observed();
  assert.deepEqual(samples(metrics.text(), 'protocol_errors_total'), [
    'mta_sts_relay_protocol_errors_total 0',
  ]);
  assert.deepEqual(samples(metrics.text(), 'connections_open'), ['mta_sts_relay_connections_open 0']);
});

test('a gauge has its last value', () => {
  const { metrics } = observed();
  metrics.gauge('policies_cached', 7);
  metrics.gauge('policies_cached', 5);
  assert.deepEqual(samples(metrics.text(), 'policies_cached'), ['mta_sts_relay_policies_cached 5']);
});

test('answers are counted, and their times put into buckets', () => {
  const { metrics } = observed();
  metrics.answered('mta-sts', 'secure', 0.0004);
  metrics.answered('mta-sts', 'secure', 0.001);
  metrics.answered('mta-sts', 'temp', 7);
  const text = metrics.text();
  assert.deepEqual(samples(text, 'lookups_total'), [
    'mta_sts_relay_lookups_total{map="mta-sts",answer="secure"} 2',
    'mta_sts_relay_lookups_total{map="mta-sts",answer="temp"} 1',
  ]);
  const buckets = samples(text, 'lookup_seconds_bucket');
  assert.equal(buckets[0], 'mta_sts_relay_lookup_seconds_bucket{le="0.0005"} 1');
  assert.equal(buckets[1], 'mta_sts_relay_lookup_seconds_bucket{le="0.001"} 2');
  assert.equal(buckets.at(-2), 'mta_sts_relay_lookup_seconds_bucket{le="3"} 2');
  assert.equal(buckets.at(-1), 'mta_sts_relay_lookup_seconds_bucket{le="+Inf"} 3');
  assert.deepEqual(samples(text, 'lookup_seconds_count'), ['mta_sts_relay_lookup_seconds_count 3']);
  assert.deepEqual(samples(text, 'lookup_seconds_sum'), ['mta_sts_relay_lookup_seconds_sum 7.0014']);
});

test('every line is of the text format, and every family is described once, before its samples', () => {
  const { metrics } = observed();
  metrics.count('requests', { kind: 'look', result: 'a\\b"c\nd' });
  metrics.answered('mta-sts', 'secure', 0.1);
  const families = new Set<string>();
  for (const line of metrics.text().trimEnd().split('\n')) {
    const [, kind, family = ''] = /^# (HELP|TYPE) ([a-z_]+) \S/.exec(line) ?? [];
    if (kind === 'HELP') {
      assert.ok(!families.has(family), family);
      families.add(family);
    }
    if (kind !== undefined) continue;
    const [, name = ''] =
      /^([a-z_]+)(?:\{(?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+\})? -?[0-9.e+-]+$/.exec(line) ?? [];
    assert.ok(families.has(name.replace(/_(bucket|sum|count)$/, '')) || families.has(name), line);
  }
  assert.match(metrics.text(), /requests_total\{kind="look",result="a\\\\b\\"c\\nd"\} 1\n/);
  assert.match(metrics.text(), /info\{version="1\.2\.3",node="v\\"24\\""\} 1\n/);
});

test('an outage is said when it begins and when it ends, and not in between', () => {
  const { metrics, lines, pass } = observed();
  const denied = Object.assign(new Error('The security token included in the request is expired\n'), {
    name: 'ExpiredTokenException',
  });
  metrics.outage('table', undefined);
  metrics.outage('table', denied);
  metrics.outage('table', new Error('another'));
  assert.deepEqual(samples(metrics.text(), 'table_outage'), ['mta_sts_relay_table_outage 1']);
  metrics.outage('requests', 'nobody there');
  pass(90);
  metrics.outage('table', undefined);
  metrics.outage('table', undefined);
  assert.deepEqual(samples(metrics.text(), 'table_outage'), ['mta_sts_relay_table_outage 0']);
  assert.deepEqual(samples(metrics.text(), 'requests_outage'), ['mta_sts_relay_requests_outage 1']);
  assert.equal(lines.length, 3);
  assert.match(
    lines[0] ?? '',
    /^2026-01-02T03:04:05\.678Z error the table cannot be read: .* reason="ExpiredTokenException: The security token .*\uFFFD"\n$/,
  );
  assert.match(lines[1] ?? '', /error the request queue cannot be written: .* reason="nobody there"\n$/);
  assert.match(lines[2] ?? '', /info the table can be read again outage_seconds=90\n$/);
  metrics.outage('table', denied);
  assert.equal(lines.length, 4);
});

const DETAILS = { domain: 'example.com', reason: 'two words', text: 'a"b\nc', count: 3 };

const formats: [name: string, options: Partial<Parameters<typeof createLog>[0]>, line: string][] = [
  [
    'text',
    { format: 'text' },
    '2026-01-02T03:04:05.678Z warn something happened domain=example.com reason="two words" text="a\\"b\\nc" count=3\n',
  ],
  [
    'text for journald',
    { format: 'text', journal: true },
    '<4>something happened domain=example.com reason="two words" text="a\\"b\\nc" count=3\n',
  ],
  [
    'JSON',
    { format: 'json', journal: true },
    '{"time":"2026-01-02T03:04:05.678Z","level":"warn","message":"something happened","domain":"example.com","reason":"two words","text":"a\\"b\\nc","count":3}\n',
  ],
];

for (const [name, options, line] of formats) {
  test(`the log as ${name}: one line, whatever is in it`, () => {
    const lines: string[] = [];
    createLog({ format: 'text', write: (each) => lines.push(each), now: () => TIME, ...options }).event(
      'warn',
      'something happened',
      DETAILS,
    );
    assert.deepEqual(lines, [line]);
  });
}

test('metrics, health and readiness have a page each, and nothing else has', async (t) => {
  let ready = false;
  const { address, close } = await startStatusServer({
    host: '127.0.0.1',
    port: 0,
    metrics: () => 'mta_sts_relay_info 1\n',
    ready: () => ready,
  });
  t.after(close);
  const get = async (path: string, method = 'GET') => {
    const response = await fetch(`${address}${path}`, { method });
    return `${response.status} ${await response.text()}`;
  };
  assert.equal(await get('/ready'), '503 not ready\n');
  ready = true;
  assert.equal(await get('/ready'), '200 ready\n');
  assert.equal(await get('/ready', 'HEAD'), '200 ');
  assert.equal(await get('/healthz'), '200 alive\n');
  assert.equal(await get('/metrics?x=y'), '200 mta_sts_relay_info 1\n');
  for (const [path, method] of [
    ['/', 'GET'],
    ['/constructor', 'GET'],
    ['/metrics/', 'GET'],
    ['/metrics', 'POST'],
  ] as const) {
    assert.equal(await get(path, method), '404 /metrics\n/healthz\n/ready\n');
  }
  const response = await fetch(`${address}/metrics`);
  assert.equal(response.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
  close();
  await assert.rejects(get('/healthz'));
});

test('a port that is taken is said as such', async (t) => {
  const port = await listen(t, createServer());
  const starting = startStatusServer({
    host: '127.0.0.1',
    port,
    metrics: () => '',
    ready: () => true,
  });
  // It would start only if the port were not said to be taken.
  t.after(async () => (await starting.catch(() => undefined))?.close());
  await assert.rejects(
    starting,
    (error) => error instanceof ListenError && /for RELAY_METRICS: .*EADDRINUSE/.test(error.message),
  );
});

const idlers: [what: string, sent: string][] = [
  ['are silent', ''],
  ['have sent half a request', 'GET /metrics HTTP/1.1\r\nHost: x'],
  ['have an answer and stay', 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n'],
  ['do not read their answers', 'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(50)],
];

for (const [what, sent] of idlers) {
  test(`whoever watches is answered while hundreds of connections ${what}`, async (t) => {
    const page = 'x'.repeat(100_000);
    const { address, close } = await startStatusServer({
      host: '127.0.0.1',
      port: 0,
      metrics: () => page,
      ready: () => true,
    });
    t.after(close);
    const { port } = new URL(address);
    for (let i = 0; i < 300; i++) {
      const socket = connect(Number(port), '127.0.0.1');
      t.after(() => socket.destroy());
      socket.on('error', () => undefined);
      socket.pause();
      await once(socket, 'connect');
      socket.write(sent);
    }
    for (const path of ['/ready', '/metrics', '/healthz']) {
      const response = await fetch(`${address}${path}`, { signal: AbortSignal.timeout(HANG_MS / 6) });
      assert.equal(response.status, 200, path);
      await response.text();
    }
  });
}

test('who asks on without reading costs a page or two', async (t) => {
  let pages = 0;
  const { address, close } = await startStatusServer({
    host: '127.0.0.1',
    port: 0,
    metrics: () => {
      pages += 1;
      return 'x'.repeat(10_000);
    },
    ready: () => true,
  });
  t.after(close);
  const socket = connect(Number(new URL(address).port), '127.0.0.1');
  t.after(() => socket.destroy());
  socket.on('error', () => undefined);
  const closed = once(socket, 'close');
  socket.resume();
  socket.write('GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(1_000));
  await closed;
  assert.ok(pages > 0 && pages < 100, `${pages} pages were made`);
});
