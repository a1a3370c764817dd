import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttpsServer } from 'node:https';
import net, { connect as connectTcp, createServer, type Server } from 'node:net';
import { after, mock, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import tls, { type TLSSocket } from 'node:tls';
import { gzipSync } from 'node:zlib';
import { createSecureContext, type Fetched, fetchPolicy } from '../../../functions/mtasts/fetch.ts';
import { createGate, type Gate, type Slot } from '../../../functions/mtasts/gate.ts';
import { LIMITS, type Limits } from '../../../functions/mtasts/limits.ts';
import { MAX_POLICY_BYTES } from '../../../functions/mtasts/policy.ts';
import { createResolver } from '../../../functions/mtasts/resolver.ts';
import { behaviours, policyText } from '../../../infra/local/internet/behaviours.ts';
import { createAuthority } from '../../../infra/local/internet/certificates.ts';
import type { BehaviourName, Site } from '../../../infra/local/internet/internet.ts';
import type { CertificateKind, HttpResponse, Name, PolicyHost } from '../../../infra/local/internet/site.ts';
import { createFloodingHost } from '../../hostile/tls-flood.ts';
import { listen, type Scope, until } from '../../resources.ts';
import {
  assertSafe,
  leavingNothing,
  PATIENT,
  PROMPT_MS,
  policyDomain,
  SHORT_MS,
  startBlackhole,
  startTrustedInternet,
  undisturbed,
} from './network.ts';

const domain = policyDomain('d1.example.test');
const host = `mta-sts.${domain}`;
const policy = policyText(domain);
/** Where nothing listens. Elsewhere than on Linux and Windows, 127.0.0.1 is all there is of IPv4 loopback. */
const CLOSED = '127.0.0.99';
const oneLoopback = process.platform === 'darwin' && 'loopback has one IPv4 address';

/** Where the policy hosts are. */
const HOSTS = '127.0.0.1';

const internet = await startTrustedInternet({ after });

interface Visit {
  readonly limits?: Partial<Limits>;
  readonly abortAfterMs?: number;
  readonly allowPrivateAddresses?: boolean;
  readonly port?: number;
}

/** Fetches, and checks what is to hold whatever the host does. */
async function visit(does: Site | BehaviourName, options: Visit = {}): Promise<Fetched> {
  const { limits, abortAfterMs, allowPrivateAddresses = true, port = internet.policyHostPort } = options;
  internet.set(domain, does);
  internet.traffic.reset();
  const patience = { ...PATIENT, ...limits };
  const resolver = createResolver(patience, [internet.dnsServer]);
  const gate = createGate(1);
  const fetched = await leavingNothing([internet], (controller) => {
    if (abortAfterMs === 0) controller.abort();
    else if (abortAfterMs) void delay(abortAfterMs).then(() => controller.abort());
    const { signal } = controller;
    return fetchPolicy(domain, {
      resolver,
      gate,
      secureContext: createSecureContext(),
      limits: patience,
      signal,
      port,
      allowPrivateAddresses,
    });
  });
  assert.ok(fetched !== 'not-started', 'nobody else was there');
  for (const address of [HOSTS, CLOSED]) {
    const slot = await gate.enter([address], AbortSignal.timeout(PROMPT_MS));
    assert.ok(slot, `the slot of ${address} is free again`);
  }
  assert.ok(internet.traffic.fetches() <= 1, 'one connection, whatever happens to it');
  for (const { kind, name, detail } of internet.traffic.events()) {
    assert.equal(name, host, 'nobody else is asked or connected to');
    if (kind === 'request') assert.equal(detail, '/.well-known/mta-sts.txt');
  }
  if (!fetched.ok) assertSafe(fetched.failure);
  return fetched;
}

async function outcome(does: Site | BehaviourName, options: Visit = {}): Promise<string> {
  const fetched = await visit(does, options);
  return fetched.ok ? 'ok' : fetched.failure.code;
}

async function detailOf(does: Site | BehaviourName, options: Visit = {}): Promise<string> {
  const fetched = await visit(does, options);
  return fetched.ok ? 'ok' : fetched.failure.detail;
}

function requests(): number {
  return internet.traffic.events().filter(({ kind }) => kind === 'request').length;
}

/** Every limit but the one that the test waits for is long. */
const LIMIT_OF: Record<string, keyof Limits> = {
  'dns-timeout': 'dnsMs',
  'connect-timeout': 'connectMs',
  'http-headers-timeout': 'headersMs',
  'http-body-timeout': 'bodyIdleMs',
};
function limitsFor(expected: string): Partial<Limits> {
  const limit = LIMIT_OF[expected];
  return limit ? { [limit]: SHORT_MS } : {};
}

const outcomes: Record<BehaviourName, string> = {
  healthy: 'ok',
  'changed-id': 'ok',
  'changed-policy': 'ok',
  'mode-none': 'ok',
  'mode-testing': 'ok',
  slow: 'ok',
  delegated: 'ok',
  'record-gone': 'ok',
  nxdomain: 'host-absent',
  servfail: 'ok',
  'servfail-all': 'dns-servfail',
  'no-answer': 'dns-timeout',
  'two-records': 'ok',
  'malformed-record': 'ok',
  'host-down': 'connect-refused',
  hang: 'connect-timeout',
  reset: 'http-aborted',
  'wrong-certificate': 'certificate-name-mismatch',
  'expired-certificate': 'certificate-expired',
  'self-signed': 'certificate-untrusted',
  'old-tls': 'tls-failed',
  'not-found': 'http-status',
  'server-error': 'http-status',
  redirect: 'http-redirect',
  html: 'http-media-type',
  gzip: 'http-encoding',
  oversized: 'policy-too-large',
  'oversized-chunked': 'policy-too-large',
  'invalid-policy': 'policy-invalid',
  garbage: 'http-malformed',
};
for (const [name, expected] of Object.entries(outcomes) as [BehaviourName, string][]) {
  test(`behaviour ${name}: ${expected}`, async () => {
    const does = name === 'slow' ? behaviours.slow(domain, { delayMs: 100 }) : name;
    assert.equal(await outcome(does, { limits: limitsFor(expected) }), expected);
  });
}

test('the policy is read, and kept as served', async () => {
  const text = `${policy}x-more: Grüße\r\n`;
  assert.deepEqual(await visit({ https: { policy: { body: text } } }), {
    ok: true,
    policy: { mode: 'enforce', mx: [`mail.${domain}`], maxAgeSeconds: 604_800 },
    text,
  });
});

// RFC 8461 §3.3: identified by DNS-ID alone (RFC 6125), up to a root that is trusted.
const certificates: Record<CertificateKind, string> = {
  good: 'ok',
  'upper-case': 'ok',
  wildcard: 'ok',
  'deep-wildcard': 'certificate-name-mismatch',
  'partial-wildcard': 'certificate-name-mismatch',
  'common-name-only': 'certificate-name-mismatch',
  'address-only': 'certificate-name-mismatch',
  'wrong-name': 'certificate-name-mismatch',
  'hostile-names': 'certificate-name-mismatch',
  expired: 'certificate-expired',
  'not-yet-valid': 'certificate-expired',
  'self-signed': 'certificate-untrusted',
  'untrusted-root': 'certificate-untrusted',
};
for (const [certificate, expected] of Object.entries(certificates) as [CertificateKind, string][]) {
  test(`certificate ${certificate}: ${expected}`, async () => {
    assert.equal(await outcome({ https: { certificate, policy: { body: policy } } }), expected);
    assert.equal(requests(), expected === 'ok' ? 1 : 0, 'no request to a host that is not the policy host');
  });
}

test('what is wrong with the certificate is said', async () => {
  assert.match(await detailOf({ https: { certificate: 'wrong-name' } }), /DNS:www\.d1\.example\.test/);
  assert.match(await detailOf({ https: { certificate: 'common-name-only' } }), /no DNS name at all/);
  assert.match(await detailOf('expired-certificate'), /certificate has expired/);
});

const versions = { TLSv1: 'tls-failed', 'TLSv1.1': 'tls-failed', 'TLSv1.2': 'ok' } as const;
for (const [maxTlsVersion, expected] of Object.entries(versions) as [keyof typeof versions, string][]) {
  test(`no more than ${maxTlsVersion}: ${expected}`, async () => {
    assert.equal(await outcome({ https: { maxTlsVersion, policy: { body: policy } } }), expected);
  });
}

// Where the host stops, and how: hang, reset, close.
type Stop = NonNullable<PolicyHost['stop']>;
const stops: Record<Stop['at'], [hang: string, reset: string, close: string]> = {
  accept: ['connect-timeout', 'tls-failed', 'tls-failed'],
  request: ['http-headers-timeout', 'http-aborted', 'http-aborted'],
  'mid-headers': ['http-headers-timeout', 'http-aborted', 'http-aborted'],
  headers: ['http-body-timeout', 'http-aborted', 'http-aborted'],
  'mid-body': ['http-body-timeout', 'http-aborted', 'http-aborted'],
};
for (const [at, ends] of Object.entries(stops) as [Stop['at'], string[]][]) {
  for (const [index, how] of (['hang', 'reset', 'close'] as const).entries()) {
    const expected = ends[index] ?? '';
    for (const chunked of [false, true]) {
      test(`${how} at ${at}${chunked ? ', in chunks' : ''}: ${expected}`, async () => {
        const https = { policy: { body: policy, chunked }, stop: { at, how } };
        assert.equal(await outcome({ https }, { limits: limitsFor(expected) }), expected);
      });
    }
  }
}

// The answer at the policy's path; a sound policy unless the row has another body.
const TYPE = 'content-type: text/plain';
const location = 'https://evil.test/\u{202E}\u{9B}31m'.repeat(100);
const responses: [name: string, response: HttpResponse, expected: string][] = [
  ['type with a parameter', type('text/plain; charset=utf-8'), 'ok'],
  ['type with an unknown charset', type('text/plain;charset=x'), 'ok'],
  ['type in capitals', type('TEXT/PLAIN'), 'ok'],
  ['no type', { headers: { 'content-type': null } }, 'http-media-type'],
  ['empty type', type(''), 'http-media-type'],
  ['longer type', type('text/plainer'), 'http-media-type'],
  ['text/html', type('text/html'), 'http-media-type'],
  ['two types in one', type('text/plain, text/html'), 'http-media-type'],
  ['hostile type', type(`text/${location}`), 'http-media-type'],
  [
    'two types, the first one good',
    raw('content-type: text/plain\r\ncontent-type: text/html'),
    'http-media-type',
  ],
  [
    'two types, the last one good',
    raw('content-type: text/html\r\ncontent-type: text/plain'),
    'http-media-type',
  ],
  ['identity is no encoding', encoding('Identity'), 'ok'],
  ['gzip', { ...encoding('gzip'), body: gzipSync(policy) }, 'http-encoding'],
  ['gzip that is none', encoding('gzip'), 'http-encoding'],
  ['br', encoding('br'), 'http-encoding'],
  ['several encodings', encoding('identity, gzip'), 'http-encoding'],
  ['two encodings', raw(`${TYPE}\r\ncontent-encoding: identity\r\ncontent-encoding: gzip`), 'http-encoding'],

  ['201', { status: 201 }, 'http-status'],
  ['204', { status: 204, body: '' }, 'http-status'],
  ['206', { status: 206 }, 'http-status'],
  ['304', { status: 304, body: '' }, 'http-status'],
  ['302 to nowhere', { status: 302 }, 'http-status'],
  ['404', { status: 404 }, 'http-status'],
  ['500', { status: 500 }, 'http-status'],
  ['999', { status: 999 }, 'http-status'],
  ['301', redirect(301), 'http-redirect'],
  ['302', redirect(302), 'http-redirect'],
  ['303', redirect(303), 'http-redirect'],
  ['307', redirect(307), 'http-redirect'],
  ['308', redirect(308), 'http-redirect'],
  [
    '302 to a policy elsewhere',
    redirect(302, 'https://mta-sts.other.test/.well-known/mta-sts.txt'),
    'http-redirect',
  ],
  ['302 to text that is hostile', redirect(302, location), 'http-redirect'],
  ['302 to two places', raw('location: /a\r\nlocation: /b', '302 Found'), 'http-redirect'],
  ['302 to a line with a CR', raw('location: /a\rx', '302 Found'), 'http-malformed'],
  ['302 to a terminal escape', raw('location: /\x1B[31m', '302 Found'), 'http-malformed'],
  ['200 with a location', { headers: { location: '/elsewhere.txt' } }, 'ok'],

  ['100 before the answer', { raw: `HTTP/1.1 100 Continue\r\n\r\n${sound()}` }, 'http-malformed'],
  ['103 before the answer', { raw: `HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n${sound()}` }, 'ok'],
  [
    'another protocol',
    { raw: 'HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n' },
    'http-malformed',
  ],
  ['another answer behind the answer', { raw: `${sound()}${sound('500 No')}` }, 'http-malformed'],
  ['no HTTP at all', { raw: '220 mail ready\r\n' }, 'http-malformed'],
  ['HTTP/0.9', { raw: policy }, 'http-malformed'],
  ['HTTP/1.0', { raw: sound().replace('1.1', '1.0') }, 'ok'],
  ['HTTP/4.2', { raw: sound().replace('1.1', '4.2') }, 'http-malformed'],
  ['HTTP/3 frames', { raw: Buffer.from([1, 2, 0x80, 0xff, 0, 0]) }, 'http-malformed'],
  ['nothing', { raw: '' }, 'http-aborted'],
  ['a status line and no more', { raw: 'HTTP/1.1 200 OK\r\n' }, 'http-aborted'],
  ['a header line without a colon', raw('nonsense'), 'http-malformed'],
  ['a NUL in a header', raw('x: \0'), 'http-malformed'],
  ['one header of 1 MB', { headers: { 'x-more': 'x'.repeat(1_000_000) } }, 'http-malformed'],
  ['ten thousand headers', raw(`${TYPE}\r\n${'x: y\r\n'.repeat(10_000)}z: z`), 'http-malformed'],
  ['a status line of 400 kB', { raw: sound(`200 ${'x'.repeat(400_000)}`) }, 'ok'],
  ['a status line of 1 MB', { raw: sound(`200 ${'x'.repeat(1_000_000)}`) }, 'http-malformed'],
  ['line ends of 1 MB before the answer', { raw: `${'\n'.repeat(1_000_000)}${sound()}` }, 'http-malformed'],
  [
    'informational answers of 1 MB',
    { raw: `${'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(35_000)}${sound()}` },
    'http-malformed',
  ],
  [
    'a chunk extension of 1 MB',
    raw(`${TYPE}\r\ntransfer-encoding: chunked\r\n\r\n1;x=${'y'.repeat(1_000_000)}`),
    'http-malformed',
  ],
  ['two lengths', raw(`${TYPE}\r\ncontent-length: 1\r\ncontent-length: ${policy.length}`), 'http-malformed'],
  ['a length and chunks', { chunked: true, headers: { 'content-length': '1' } }, 'http-malformed'],
  ['a negative length', { headers: { 'content-length': '-1' } }, 'http-malformed'],
  ['a length too great', { headers: { 'content-length': `${policy.length + 1}` } }, 'http-aborted'],
  ['a length too small', { headers: { 'content-length': `${policy.length - 9}` } }, 'http-malformed'],
  ['a chunk of no number', raw(`${TYPE}\r\ntransfer-encoding: chunked`), 'http-malformed'],

  ['no length: until the end of the connection', { headers: { 'content-length': null } }, 'ok'],
  ['transfer coding without chunks', unframed({ 'transfer-encoding': 'identity' }), 'ok'],
  ['transfer coding gzip', unframed({ 'transfer-encoding': 'gzip' }, gzipSync(policy)), 'policy-invalid'],
  // An attacker on the path who ends the connection early must not make "max_age: 6" of "max_age: 604800".
  ['no length, and cut within a line', unframed({}, policy.trimEnd().slice(0, -5)), 'http-aborted'],
  [
    'transfer coding without chunks, and cut within a line',
    unframed({ 'transfer-encoding': 'identity' }, policy.trimEnd().slice(0, -5)),
    'http-aborted',
  ],
  [
    'no length, and cut after a line',
    unframed({}, policy.slice(0, policy.indexOf('max_age'))),
    'policy-invalid',
  ],
  ['length, and no line end at the end', { body: policy.trimEnd() }, 'ok'],
  ['chunks, and no line end at the end', { body: policy.trimEnd(), chunked: true }, 'ok'],

  ['empty', { body: '' }, 'policy-invalid'],
  ['no policy', { body: '<html></html>' }, 'policy-invalid'],
  ['not UTF-8', { body: Buffer.from([...Buffer.from(policy), 0x78, 0x3a, 0xff]) }, 'policy-invalid'],
  ['half of a UTF-8 character', { body: Buffer.from(`${policy}x: é`).subarray(0, -1) }, 'policy-invalid'],
  [
    'a surrogate in UTF-8',
    { body: Buffer.concat([Buffer.from(`${policy}x: `), Buffer.from('eda080', 'hex')]) },
    'policy-invalid',
  ],
  ['UTF-16', { body: Buffer.from(policy, 'utf16le') }, 'policy-invalid'],
  ['byte order mark', { body: `\u{FEFF}${policy}` }, 'policy-invalid'],
  ['hostile line', { body: `${policy}\x1B]0;\u{202E}${'x'.repeat(500)}\r\n` }, 'policy-invalid'],
];
for (const [name, response, expected] of responses) {
  test(`answer: ${name}: ${expected}`, async () => {
    const https = { policy: { body: policy, ...response }, elsewhere: { body: policy } };
    assert.equal(await outcome({ https }), expected);
  });
}

function type(value: string): HttpResponse {
  return { headers: { 'content-type': value } };
}
function encoding(value: string): HttpResponse {
  return { headers: { 'content-encoding': value } };
}
function redirect(status: number, to = '/elsewhere.txt'): HttpResponse {
  return { status, headers: { location: to } };
}
function unframed(headers: Record<string, string>, body: string | Buffer = policy): HttpResponse {
  return { headers: { ...headers, 'content-length': null }, body };
}
/** An answer with these header lines and no others; its body ends with the connection. */
function raw(lines: string, status = '200 OK'): HttpResponse {
  return { raw: `HTTP/1.1 ${status}\r\n${lines}\r\n\r\n${policy}` };
}
function sound(status = '200 OK'): string {
  return `HTTP/1.1 ${status}\r\n${TYPE}\r\ncontent-length: ${policy.length}\r\n\r\n${policy}`;
}

test('a body without a length that is reset is not taken for whole', async () => {
  const cut = policy.slice(0, policy.indexOf('604800') + 1);
  const https: PolicyHost = {
    policy: unframed({}, cut + ' '.repeat(cut.length)),
    stop: { at: 'mid-body', how: 'reset' },
  };
  assert.equal(await outcome({ https }), 'http-aborted');
});

// RFC 8461 §3.3: 64 kilobytes, and not one byte more, however the body is framed and filled.
const fillings: Record<string, (bytes: number) => string> = {
  'blank lines': (bytes) => policy + '\n'.repeat(bytes - policy.length),
  'an extension': (bytes) => `${policy}x: ${'y'.repeat(bytes - policy.length - 4)}\n`,
  'characters of several bytes': (bytes) => {
    const room = bytes - policy.length - 4;
    return `${policy}x: ${'é'.repeat(room >> 1)}${'y'.repeat(room & 1)}\n`;
  },
};
const framings: Record<string, HttpResponse> = {
  'a length': {},
  chunks: { chunked: true },
  'the end of the connection': { headers: { 'content-length': null } },
};
for (const [filling, fill] of Object.entries(fillings)) {
  for (const [framing, response] of Object.entries(framings)) {
    test(`the size limit: ${filling}, ended by ${framing}`, async () => {
      const sizes = { '65535': 'ok', '65536': 'ok', '65537': 'policy-too-large' };
      for (const [bytes, expected] of Object.entries(sizes)) {
        const body = fill(Number(bytes));
        assert.equal(Buffer.byteLength(body), Number(bytes));
        assert.equal(await outcome({ https: { policy: { ...response, body } } }), expected, bytes);
      }
    });
  }
}

test('the size limit: in chunks of one byte, the costliest framing there is', async () => {
  const body = policy + '\n'.repeat(MAX_POLICY_BYTES - policy.length);
  const chunks = [...body].map((byte) => `1\r\n${byte}\r\n`).join('');
  const head = `HTTP/1.1 200 OK\r\n${TYPE}\r\nx: ${'y'.repeat(16_000)}\r\ntransfer-encoding: chunked\r\n\r\n`;
  assert.equal(await outcome({ https: { policy: { raw: `${head}${chunks}0\r\n\r\n` } } }), 'ok');
});

test('what is too large is left where it is', async () => {
  // Sixteen pieces of a little more than the limit, of which the host is to send one.
  const body = policy + '\n'.repeat(16 * MAX_POLICY_BYTES);
  const trickle = { bytes: MAX_POLICY_BYTES + 1, everyMs: 200 };
  for (const chunked of [false, true]) {
    assert.equal(await outcome({ https: { policy: { body, trickle, chunked } } }), 'policy-too-large');
  }
});

// Slow hosts: a pause is limited, the whole is limited by the domain's own time.
const pieces = (everyMs: number, bytes: number) => ({ trickle: { everyMs, bytes } });
const endless = { body: policy + '\n'.repeat(60_000) };
interface Slow extends Visit {
  readonly response: HttpResponse;
  readonly expected: string;
}
const slow: Record<string, Slow> = {
  'headers within the limit': { response: { body: policy, delayMs: 100 }, expected: 'ok' },
  'headers too late': {
    response: { body: policy, delayMs: 60_000 },
    limits: { headersMs: SHORT_MS },
    expected: 'http-headers-timeout',
  },
  'headers in drops': {
    response: { raw: `HTTP/1.1 200 OK\r\n${'x: y\r\n'.repeat(1_000)}`, ...pieces(20, 1) },
    limits: { headersMs: SHORT_MS },
    expected: 'http-headers-timeout',
  },
  'informational answers without end': {
    response: { raw: 'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(1_000), ...pieces(20, 28) },
    limits: { headersMs: SHORT_MS },
    expected: 'http-headers-timeout',
  },
  'body in pieces': {
    // Longer than the limit in all.
    response: { body: policy, ...pieces(20, 10) },
    limits: { bodyIdleMs: SHORT_MS },
    expected: 'ok',
  },
  'body in pieces, too far apart': {
    response: { body: policy, ...pieces(60_000, 20) },
    limits: { bodyIdleMs: SHORT_MS },
    expected: 'http-body-timeout',
  },
  'body in drops without end': {
    response: { ...endless, ...pieces(20, 1) },
    limits: { bodyIdleMs: SHORT_MS },
    abortAfterMs: 3 * SHORT_MS,
    expected: 'deadline-exceeded',
  },
  'chunk extension in drops, which is no body': {
    response: {
      raw: `HTTP/1.1 200 OK\r\n${TYPE}\r\ntransfer-encoding: chunked\r\n\r\n1;x=${'y'.repeat(9_999)}`,
      ...pieces(20, 100),
    },
    limits: { bodyIdleMs: SHORT_MS },
    expected: 'http-body-timeout',
  },
};
for (const [name, { response, expected, ...options }] of Object.entries(slow)) {
  test(`slow: ${name}: ${expected}`, () =>
    undisturbed(async () => {
      assert.equal(await outcome({ https: { policy: response } }, options), expected);
    }));
}

// The end of the time for the domain, at every stage.
const stages: Record<string, Site> = {
  resolving: { host: { silent: true } },
  'TLS handshake': { https: { stop: { at: 'accept', how: 'hang' } } },
  'waiting for headers': { https: { stop: { at: 'request', how: 'hang' } } },
  'in the headers': { https: { policy: { body: policy }, stop: { at: 'mid-headers', how: 'hang' } } },
  'waiting for the body': { https: { policy: { body: policy }, stop: { at: 'headers', how: 'hang' } } },
  'in the body': { https: { policy: { body: policy }, stop: { at: 'mid-body', how: 'hang' } } },
};
for (const [stage, site] of Object.entries(stages)) {
  test(`out of time: ${stage}`, async () => {
    assert.equal(await outcome(site, { abortAfterMs: 100 }), 'deadline-exceeded');
  });
}

test('out of time before it starts: nobody is asked', async () => {
  assert.equal(await outcome('healthy', { abortAfterMs: 0 }), 'deadline-exceeded');
  assert.deepEqual([internet.traffic.queries(), internet.traffic.fetches()], [0, 0]);
});

test('out of time between DNS and the connection: nobody is connected to', async () => {
  internet.set(domain, 'healthy');
  internet.traffic.reset();
  const controller = new AbortController();
  const fetched = await fetchPolicy(domain, {
    resolver: {
      txt: () => assert.fail(),
      async *addresses() {
        controller.abort();
        yield { status: 'found', values: ['127.0.0.1'] };
      },
    },
    gate: createGate(1),
    secureContext: createSecureContext(),
    limits: PATIENT,
    signal: controller.signal,
    port: internet.policyHostPort,
    allowPrivateAddresses: true,
  });
  assert.ok(fetched !== 'not-started' && !fetched.ok);
  assert.equal(fetched.failure.code, 'deadline-exceeded');
  assert.equal(internet.traffic.fetches(), 0);
});

// Which addresses are connected to.

/**
 * Does `work` while connections are noted instead of made: `tried` are the addresses that a socket was given. That to
 * `answering` leads to the policy hosts on loopback and all others nowhere, so that public addresses can be tried with no
 * public network.
 */
async function noting<T>(
  answering: string,
  work: () => Promise<T>,
): Promise<{ result: T; tried: (string | undefined)[] }> {
  const tried: (string | undefined)[] = [];
  const connect = net.connect as (options: net.TcpNetConnectOpts) => net.Socket;
  const noted = mock.method(net, 'connect', (options: net.TcpNetConnectOpts) => {
    tried.push(options.host);
    assert.equal(options.lookup, undefined);
    return connect({
      ...options,
      host: '127.0.0.1',
      ...(options.host === answering ? {} : { port: NOBODY }),
    });
  });
  try {
    return { result: await work(), tried };
  } finally {
    noted.mock.restore();
  }
}

/** A port where nothing listens. */
const NOBODY = 1;

const forbidden: Record<string, Name> = {
  loopback: { a: ['127.0.0.1'] },
  'loopback by any name': { a: ['127.99.0.1'], aaaa: ['::1'] },
  private: { a: ['10.0.0.1', '172.16.0.1', '192.168.0.1'] },
  'metadata of the cloud': { a: ['169.254.169.254'], aaaa: ['fd00:ec2::254'] },
  'credentials of a container': { a: ['169.254.170.2'] },
  'shared by carriers': { a: ['100.64.0.1'] },
  'this host': { a: ['0.0.0.0'], aaaa: ['::'] },
  'multicast and broadcast': { a: ['224.0.0.1', '255.255.255.255'], aaaa: ['ff02::1'] },
  'documentation and benchmarks': { a: ['192.0.2.1', '198.51.100.1', '203.0.113.1', '198.18.0.1'] },
  'IPv6 of documentation': { aaaa: ['2001:db8::1', '3fff::1'] },
  'unique local and link-local': { aaaa: ['fc00::1', 'fd00::1', 'fe80::1'] },
  'IPv4 within IPv6': { aaaa: ['::ffff:127.0.0.1', '64:ff9b::7f00:1', '2002:7f00:1::1', '2001:0:7f00:1::'] },
  'IPv6 that nobody has': { aaaa: ['4000::1'] },
};
for (const [name, does] of Object.entries(forbidden)) {
  test(`address: ${name} is not connected to`, async () => {
    const site: Site = { host: does, https: { policy: { body: policy } } };
    const { result, tried } = await noting('', () => visit(site, { allowPrivateAddresses: false }));
    assert.equal(!result.ok && result.failure.code, 'address-forbidden');
    assert.deepEqual(tried, []);
    assert.equal(internet.traffic.fetches(), 0);
    const addresses = [...(does.a ?? []), ...(does.aaaa ?? [])];
    assert.match(!result.ok ? result.failure.detail : '', new RegExp(`only ${addresses[0]}`), 'and said');
  });
}

test('address: of public and private ones, only the public are tried', async () => {
  const does: Name = {
    a: ['10.0.0.1', '8.8.8.8', '127.0.0.1', '9.9.9.9'],
    aaaa: ['fd00::1', '2620:fe::9', '::1'],
  };
  const site: Site = { host: does, https: { policy: { body: policy } } };
  const { result, tried } = await noting('2620:fe::9', () => visit(site, { allowPrivateAddresses: false }));
  assert.ok(result.ok);
  assert.deepEqual(tried, ['8.8.8.8', '9.9.9.9', '2620:fe::9']);
});

test('address: no other is tried when one answers, however badly', async () => {
  const site: Site = { host: { a: ['8.8.8.8', '9.9.9.9'] }, https: { certificate: 'expired' } };
  const { result, tried } = await noting('8.8.8.8', () => visit(site, { allowPrivateAddresses: false }));
  assert.equal(!result.ok && result.failure.code, 'certificate-expired');
  assert.deepEqual(tried, ['8.8.8.8']);
});

test('address: DNS that changes its mind is not asked again', async () => {
  const questions: string[] = [];
  const rebinding: Name = {
    a: ['8.8.8.8'],
    respond(reply, query) {
      const asked = query.questions?.[0]?.type ?? '';
      questions.push(asked);
      const again = questions.filter((each) => each === asked).length > 1;
      return again
        ? [{ ...reply, answers: [{ type: 'A', name: host, ttl: 0, data: '127.0.0.1' }] }]
        : [reply];
    },
  };
  const site: Site = { host: rebinding, https: { policy: { body: policy } } };
  const { result, tried } = await noting('8.8.8.8', () => visit(site, { allowPrivateAddresses: false }));
  assert.ok(result.ok);
  assert.deepEqual(tried, ['8.8.8.8']);
  assert.deepEqual(questions, ['A']);
});

test('address: of very many, eight are tried, and a repeated one once', async () => {
  const distinct = Array.from({ length: 500 }, (_, index) => `8.8.${index >> 8}.${index & 255}`);
  const site: Site = { host: { a: distinct.flatMap((address) => [address, address]) } };
  const { result, tried } = await noting('', () => visit(site, { allowPrivateAddresses: false }));
  assert.equal(!result.ok && result.failure.code, 'connect-refused');
  assert.equal(tried.length, 8);
  assert.equal(new Set(tried).size, 8);
});

test('address: very many forbidden ones do not fill the log', async () => {
  const a = Array.from({ length: 500 }, (_, index) => `10.0.${index >> 8}.${index & 255}`);
  assert.equal(await outcome({ host: { a } }, { allowPrivateAddresses: false }), 'address-forbidden');
});

test('address: the next one is tried when one is closed', { skip: oneLoopback }, async () => {
  const https = { policy: { body: policy } };
  assert.equal(await outcome({ host: { a: [CLOSED, '127.0.0.1'] }, https }), 'ok');
  assert.equal(await outcome({ host: { a: ['127.0.0.1', CLOSED] }, https }), 'ok');
  const eight = Array.from({ length: 8 }, (_, index) => `127.0.0.${91 + index}`);
  assert.equal(await outcome({ host: { a: [...eight.slice(1), '127.0.0.1'] }, https }), 'ok', 'the eighth');
  const ninth = { host: { a: [...eight, '127.0.0.1'] }, https };
  assert.equal(await outcome(ninth), 'connect-refused', 'the ninth');
});

test('address: where none takes a connection, the first one tells why', {
  skip: process.platform !== 'linux' && 'Linux only',
}, async () => {
  // As an IPv6 address where there is no IPv6: no route, so nothing is sent.
  const unreachable = '255.255.255.255';
  assert.equal(await outcome({ host: { a: [unreachable] } }), 'connect-failed');
  assert.equal(await outcome({ host: { a: [CLOSED, unreachable] } }), 'connect-refused');
});

test('address: the other family is tried when one is closed', async (t) => {
  const https = { policy: { body: policy } };
  assert.equal(await outcome({ host: { a: ['127.0.0.1'], aaaa: ['::1'] }, https }), 'ok');
  const forwarder = await forwardFromIpv6(t, internet.policyHostPort);
  if (!forwarder) return t.skip('no IPv6 here');
  assert.equal(await outcome({ host: { aaaa: ['::1'] }, https }), 'ok');
  if (!oneLoopback) assert.equal(await outcome({ host: { a: [CLOSED], aaaa: ['::1'] }, https }), 'ok');
  forwarder.close();
  await once(forwarder, 'close');
  assert.equal(await outcome({ host: { aaaa: ['::1'] }, https }), 'connect-refused');
});

/** The policy hosts are on 127.0.0.1 alone; this takes what comes to ::1 there. */
async function forwardFromIpv6(scope: Scope, port: number): Promise<Server | undefined> {
  const server = createServer((incoming) => {
    const outgoing = connectTcp(port, '127.0.0.1');
    for (const [from, to] of [[incoming, outgoing] as const, [outgoing, incoming] as const]) {
      from.on('error', () => {}).on('close', () => to.destroy());
      from.pipe(to);
    }
  });
  return listen(scope, server, { port, host: '::1' }).then(
    () => server,
    () => undefined,
  );
}

test('address: one that does not answer', {
  skip: process.platform !== 'linux' && 'Linux only',
}, async (t) => {
  const blackhole = await startBlackhole(t, internet.policyHostPort);
  const silent: Site = { host: { a: [blackhole] } };
  assert.equal(await outcome(silent, { limits: { connectMs: SHORT_MS } }), 'connect-timeout');
  assert.equal(await outcome(silent, { abortAfterMs: 50 }), 'deadline-exceeded');
  const two: Site = { host: { a: [blackhole, '127.0.0.1'] }, https: { policy: { body: policy } } };
  // Half of it for each of the two.
  const limits = { connectMs: 600 };
  await undisturbed(async () => {
    assert.equal(await outcome(two, { limits }), 'ok', 'the next one is tried in time');
  });
  assert.equal(await outcome(two, { abortAfterMs: 50 }), 'deadline-exceeded', 'between two of them');
  const stalling: Site = { ...two, https: { stop: { at: 'accept', how: 'hang' } } };
  await undisturbed(async () => {
    const detail = await detailOf(stalling, { limits });
    const [, leftMs] = /^\S+: TLS handshake unfinished with 127\.0\.0\.1 within (\d+) ms$/.exec(detail) ?? [];
    assert.ok(Number(leftMs) <= 300, `${detail}: the time is for all addresses together`);
  });
  const dead: Site = { host: { a: [CLOSED, blackhole] } };
  assert.equal(await outcome(dead, { limits: { connectMs: SHORT_MS } }), 'connect-timeout');
});

// Connections at once to one address.

/** A fetch beside others, which hold what `gate` has. */
function fetchBeside(
  gate: Gate,
  { signal, limits, tries }: { signal: AbortSignal; limits?: Partial<Limits>; tries?: readonly string[] },
  does: Site = { https: { policy: { body: policy } } },
) {
  internet.set(domain, does);
  internet.traffic.reset();
  return fetchPolicy(domain, {
    resolver: {
      txt: () => assert.fail(),
      async *addresses() {
        yield { status: 'found', values: tries ?? [HOSTS] };
      },
    },
    gate,
    secureContext: createSecureContext(),
    limits: { ...PATIENT, ...limits },
    signal,
    port: internet.policyHostPort,
    allowPrivateAddresses: true,
  });
}

async function taken(gate: Gate, address = HOSTS): Promise<Slot> {
  return (await gate.enter([address], AbortSignal.timeout(PROMPT_MS))) ?? assert.fail();
}

/** Aborted afterwards, so that no fetch outlives its test. */
function abortAfter(scope: Scope): AbortController {
  const controller = new AbortController();
  scope.after(() => controller.abort());
  return controller;
}

test('slots: a fetch waits for one, and not at the cost of its time to connect', (t) =>
  undisturbed(async () => {
    const gate = createGate(1);
    const slot = await taken(gate);
    const { signal } = abortAfter(t);
    const connectMs = 2 * SHORT_MS;
    const fetched = fetchBeside(gate, { signal, limits: { connectMs } });
    await delay(1.5 * connectMs);
    assert.equal(internet.traffic.fetches(), 0);
    slot.leave();
    const result = await fetched;
    assert.ok(result !== 'not-started' && result.ok, JSON.stringify(result));
  }));

test('slots: the next one has its turn when the whole exchange is over', async (t) => {
  const gate = createGate(1);
  const controller = abortAfter(t);
  const halfway: Site = { https: { policy: { body: policy }, stop: { at: 'mid-body', how: 'hang' } } };
  const first = fetchBeside(gate, { signal: controller.signal }, halfway);
  await until(() => requests() === 1, 'the first one has asked');
  let entered = false;
  const next = gate.enter([HOSTS], abortAfter(t).signal).then((slot) => {
    entered = true;
    return slot;
  });
  await delay(50);
  assert.equal(entered, false);
  controller.abort();
  assert.ok(await next);
  const result = await first;
  assert.equal(result !== 'not-started' && !result.ok && result.failure.code, 'deadline-exceeded');
});

test('slots: out of time before the first one: nothing was started, nobody connected to', async () => {
  const gate = createGate(1);
  const slot = await taken(gate);
  const fetched = await leavingNothing([internet], (controller) => {
    void delay(50).then(() => controller.abort());
    return fetchBeside(gate, { signal: controller.signal });
  });
  assert.equal(fetched, 'not-started');
  assert.equal(internet.traffic.fetches(), 0);
  slot.leave();
  assert.ok(await taken(gate), 'it is no longer in the line');
});

test('slots: out of time soon after the first one, without a connection: the same', async (t) => {
  const gate = createGate(1);
  const slot = await taken(gate);
  const controller = abortAfter(t);
  const stalling: Site = { https: { stop: { at: 'accept', how: 'hang' } } };
  const waits = fetchBeside(gate, { signal: controller.signal }, stalling);
  await delay(20);
  slot.leave();
  await until(() => internet.traffic.fetches() > 0, 'it is connected');
  controller.abort();
  assert.equal(await waits, 'not-started');
  assert.ok(await taken(gate));
});

test('slots: out of time in the moment of being let in: nobody is connected to', async (t) => {
  const controller = abortAfter(t);
  let left = 0;
  const gate: Gate = {
    async enter([address = '']) {
      controller.abort();
      return { address, waited: false, leave: () => left++ };
    },
  };
  const fetched = await leavingNothing([internet], () => fetchBeside(gate, { signal: controller.signal }));
  assert.ok(fetched !== 'not-started' && !fetched.ok);
  assert.equal(fetched.failure.code, 'deadline-exceeded');
  assert.deepEqual([internet.traffic.fetches(), left], [0, 1]);
});

test('slots: out of time before the second one: the domain has had its time', {
  skip: oneLoopback,
}, async (t) => {
  const gate = createGate(1);
  await taken(gate);
  const controller = abortAfter(t);
  void delay(100).then(() => controller.abort());
  const fetched = await fetchBeside(gate, { signal: controller.signal, tries: [CLOSED, HOSTS] });
  assert.ok(fetched !== 'not-started' && !fetched.ok);
  assert.equal(fetched.failure.code, 'deadline-exceeded');
});

test('slots: an address that has one is taken before one that has not, and a dead one is no way out', {
  skip: oneLoopback,
}, async (t) => {
  const gate = createGate(1);
  const { signal } = abortAfter(t);
  const busy = await taken(gate, CLOSED);
  const result = await fetchBeside(gate, { signal, tries: [CLOSED, HOSTS] });
  assert.ok(result !== 'not-started' && result.ok);
  busy.leave();

  const slot = await taken(gate);
  const waits = fetchBeside(gate, { signal, tries: [HOSTS, CLOSED] });
  await taken(gate, CLOSED);
  slot.leave();
  const second = await waits;
  assert.ok(second !== 'not-started' && second.ok);
});

test('slots: who only lists an address holds none of its', { skip: oneLoopback }, async (t) => {
  const gate = createGate(1);
  const controller = abortAfter(t);
  const slow: Site = { https: { stop: { at: 'request', how: 'hang' } } };
  const hostile = fetchBeside(gate, { signal: controller.signal, tries: [HOSTS, CLOSED] }, slow);
  assert.ok(await taken(gate, CLOSED));
  controller.abort();
  await hostile;
});

/** A certificate of the policy host by an authority of its own, which this process trusts until the test has ended. */
async function trustedCertificate(scope: Scope): Promise<{ key: string; cert: string }> {
  const authority = await createAuthority();
  tls.setDefaultCACertificates([internet.ca, authority.ca]);
  scope.after(() => tls.setDefaultCACertificates([internet.ca]));
  return { key: authority.key, cert: await authority.issue('good', host) };
}

test('the request is bare: no cookie, no credentials, nothing that says who asks for whom', async (t) => {
  const seen: unknown[] = [];
  const server = createHttpsServer(await trustedCertificate(t), (request, response) => {
    const { servername, alpnProtocol } = request.socket as TLSSocket;
    const { method, url, httpVersion, rawHeaders } = request;
    seen.push({ servername, alpnProtocol, method, url, httpVersion, rawHeaders });
    // A connection that stays open, as most servers have it: the client must end it.
    response.setHeader('content-type', 'text/plain').setHeader('set-cookie', 'a=b').end(policy);
  });
  server.keepAliveTimeout = 0;
  const port = await listen(t, server);
  const expected = {
    servername: host,
    alpnProtocol: 'http/1.1',
    method: 'GET',
    url: '/.well-known/mta-sts.txt',
    httpVersion: '1.1',
    rawHeaders: [
      ...['host', `${host}:${port}`],
      ...['connection', 'keep-alive'],
      ...['accept', 'text/plain'],
      ...['accept-encoding', 'identity'],
      ...['user-agent', 'mta-sts-refresher'],
    ],
  };
  for (const _ of [1, 2]) assert.equal(await outcome('healthy', { port }), 'ok');
  assert.deepEqual(seen, [expected, expected]);
  const connections = () =>
    new Promise<number>((resolve) => server.getConnections((_, count) => resolve(count)));
  await until(async () => (await connections()) === 0, 'no connection is kept', PROMPT_MS);
});

test('a connection that ends as the handshake does is not made again', async (t) => {
  const certificate = await trustedCertificate(t);
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    for (const end of ['end', 'destroy'] as const) {
      let connections = 0;
      const server = tls.createServer({ ...certificate, maxVersion }, (socket) => {
        connections++;
        socket
          .on('error', () => {})
          .resume()
          [end]();
      });
      const port = await listen(t, server);
      assert.match(await outcome('healthy', { port }), /^(http-aborted|tls-failed)$/);
      assert.equal(connections, 1);
    }
  }
});

// As much as a busy machine makes in no time: a key update takes both ends ten times as long as a ticket.
for (const [kind, connectionBytes] of [
  ['session tickets', 200_000],
  ['key updates', 20_000],
] as const) {
  test(`${kind} without end are cut off`, async (t) => {
    const { key, cert } = await trustedCertificate(t);
    let received = 0;
    const server = createFloodingHost(kind, key, cert);
    server.on('connection', (socket) => socket.once('close', () => (received += socket.bytesWritten)));
    const port = await listen(t, server);
    const result = await visit('healthy', { port, limits: { connectionBytes } });
    assert.ok(!result.ok && result.failure.code === 'http-malformed', JSON.stringify(result));
    assert.match(result.failure.detail, /bytes of TLS$/);
    await until(() => received > connectionBytes, 'the host has seen the connection close, after so much');
  });
}

test('an error that is nobody else’s fault is thrown', async () => {
  const bug = new TypeError('bug');
  const failing = () => {
    throw bug;
  };
  const resolver = { txt: failing, addresses: failing };
  const { signal } = new AbortController();
  const gate = createGate(1);
  const secureContext = createSecureContext();
  const options = {
    resolver,
    gate,
    secureContext,
    limits: PATIENT,
    signal,
    port: 1,
    allowPrivateAddresses: true,
  };
  await assert.rejects(fetchPolicy(domain, options), bug);
});

test('a host that starts cold is waited for: its first byte comes after twelve seconds, here after a hundredth of that', () =>
  undisturbed(async () => {
    const limits = { headersMs: LIMITS.headersMs / 100 };
    assert.equal(await outcome({ https: { policy: { body: policy, delayMs: 120 } } }, { limits }), 'ok');
  }));

test('a domain that uses up each of the limits before it still has that for headers within its minute', () => {
  const { dnsMs, connectMs, headersMs, domainMs } = LIMITS;
  // The record, and the addresses of its policy host.
  assert.ok(2 * dnsMs + connectMs + headersMs <= domainMs);
});
