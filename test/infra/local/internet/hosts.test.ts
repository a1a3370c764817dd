import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { after, afterEach, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { type Internet, startInternet } from '../../../../infra/local/internet/internet.ts';
import type { CertificateKind, PolicyHost } from '../../../../infra/local/internet/site.ts';
import { until } from '../../../resources.ts';
import { codeOf, get, leave } from './observe.ts';

const domain = 'd1.example.test';
const host = `mta-sts.${domain}`;
const body = 'version: STSv1\n'.repeat(100);
let internet: Internet;
before(async () => {
  internet = await startInternet();
});
after(() => internet.close());

const opened = new Set<Socket>();
afterEach(() => {
  for (const socket of opened) socket.destroy();
  opened.clear();
});

/** Destroyed after the test. */
function open<S extends Socket>(socket: S): S {
  opened.add(socket);
  return socket;
}

function handshake(options: ConnectionOptions = {}): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = open(
      connect({
        host: '127.0.0.1',
        port: internet.policyHostPort,
        servername: host,
        ca: internet.ca,
        ...options,
      }),
    );
    socket.on('secureConnect', () => resolve(socket));
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('closed')));
  });
}

/** How long nothing more has to come until a host counts as silent. */
const SILENCE_MS = 100;

/**
 * The bytes that a client gets, and how the connection ends.
 * @param enough the host is not to end the connection: the client waits for so much, and a moment longer.
 */
async function bytesOf(
  does: PolicyHost,
  enough?: (text: string) => boolean,
): Promise<{ text: string; end: string }> {
  internet.set(domain, { https: does });
  const socket = await handshake();
  const requests = () => internet.traffic.events().filter(({ kind }) => kind === 'request').length;
  const before = requests();
  let text = '';
  let end: string | undefined;
  socket.on('data', (chunk) => {
    text += chunk;
  });
  socket.on('end', () => {
    end ??= 'end';
  });
  socket.on('error', (error) => {
    end ??= codeOf(error);
  });
  socket.write(`GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  await until(() => end !== undefined || (requests() > before && enough?.(text)), 'all that it gets');
  if (end === undefined) await delay(SILENCE_MS);
  const result = { end: end ?? 'open', text };
  socket.destroy();
  return result;
}

// What Node's own check makes of them; it accepts three kinds that RFC 8461 does not.
const verdicts: Record<CertificateKind, string> = {
  good: 'accepted',
  'upper-case': 'accepted',
  wildcard: 'accepted',
  'deep-wildcard': 'ERR_TLS_CERT_ALTNAME_INVALID',
  'partial-wildcard': 'accepted',
  'common-name-only': 'accepted',
  'address-only': 'accepted',
  'wrong-name': 'ERR_TLS_CERT_ALTNAME_INVALID',
  'hostile-names': 'ERR_TLS_CERT_ALTNAME_INVALID',
  expired: 'CERT_HAS_EXPIRED',
  'not-yet-valid': 'CERT_NOT_YET_VALID',
  'self-signed': 'DEPTH_ZERO_SELF_SIGNED_CERT',
  'untrusted-root': 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
};
for (const [certificate, verdict] of Object.entries(verdicts) as [CertificateKind, string][]) {
  test(`certificate ${certificate}: ${verdict}`, async () => {
    internet.set(domain, { https: { certificate } });
    const outcome = await handshake().then((socket) => {
      socket.destroy();
      return 'accepted';
    }, codeOf);
    assert.equal(outcome, verdict);
  });
}

test('the certificate can change between two connections', async () => {
  internet.set(domain, { https: { certificate: 'good' } });
  const socket = await handshake();
  const session = socket.getSession();
  socket.destroy();
  internet.set(domain, { https: { certificate: 'expired' } });
  assert.equal(await handshake({ ...(session && { session }) }).catch(codeOf), 'CERT_HAS_EXPIRED');
});

test('a host can be held to old TLS', async () => {
  internet.set(domain, { https: { maxTlsVersion: 'TLSv1.1' } });
  assert.equal(await handshake().catch(codeOf), 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
  const old = await handshake({ minVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' });
  assert.equal(old.getProtocol(), 'TLSv1.1');
  old.destroy();
  internet.set(domain, { https: { maxTlsVersion: 'TLSv1.2' } });
  const sound = await handshake();
  assert.equal(sound.getProtocol(), 'TLSv1.2');
  sound.destroy();
});

test('a host without anything is a sound web server without a policy', async () => {
  internet.set(domain, {});
  assert.equal((await get(internet, domain)).status, 404);
});

test('a response says what it is', async () => {
  internet.set(domain, { https: { policy: { body } } });
  const { status, headers, body: received } = await get(internet, domain);
  assert.equal(status, 200);
  assert.deepEqual(
    { ...headers },
    { 'content-type': 'text/plain', 'content-length': '1500', connection: 'close' },
  );
  assert.equal(received, body);
});

test('headers can be replaced and left out', async () => {
  const headers = { 'content-type': null, 'content-length': '9999', 'x-more': 'yes' };
  const { text } = await bytesOf({ policy: { headers, body: 'x' } });
  assert.equal(
    text,
    'HTTP/1.1 200 Status\r\ncontent-length: 9999\r\nconnection: close\r\nx-more: yes\r\n\r\nx',
  );
});

test('a chunked body is the same body', async () => {
  const large = body.repeat(50);
  internet.set(domain, { https: { policy: { body: large, chunked: true } } });
  const answer = await get(internet, domain);
  assert.equal(answer.headers['transfer-encoding'], 'chunked');
  assert.equal(answer.body, large);
});

test('a body can come in drops', async () => {
  internet.set(domain, { https: { policy: { body: 'abcdef', trickle: { bytes: 2, everyMs: 20 } } } });
  const start = performance.now();
  assert.equal((await get(internet, domain)).body, 'abcdef');
  assert.ok(performance.now() - start >= 55);
});

test('a response can go on after its end, with pauses, and without end', async () => {
  const more = ['b', { pauseMs: 20 }, Buffer.from('c')];
  const start = performance.now();
  assert.deepEqual(await bytesOf({ policy: { raw: 'a', more } }), { text: 'abc', end: 'end' });
  assert.ok(performance.now() - start >= 15);

  const began = performance.now();
  const drops = await bytesOf(
    { policy: { raw: 'a', more: [{ forever: 'bc', everyMs: 20 }] } },
    (text) => text.length >= 5,
  );
  assert.match(drops.text, /^a(bc){2,}$/);
  // One drop in 20 ms; timers may be a little early.
  assert.ok((drops.text.length - 1) / 2 <= (performance.now() - began) / 18, `${drops.text.length} bytes`);
  const flood = await bytesOf(
    { policy: { raw: 'a', more: [{ forever: 'bc' }] } },
    (text) => text.length > 1_000_000,
  );
  assert.match(flood.text.slice(0, 1_001), /^a(bc)+$/);
  assert.deepEqual([drops.end, flood.end], ['open', 'open']);
  await until(() => internet.openSockets() === 0, 'it sees that the client is gone');
});

test('the end of TLS can be left out', async () => {
  const raw: Record<string, number> = {};
  for (const end of ['close', 'cut'] as const) {
    internet.set(domain, { https: { policy: { body }, end } });
    const tcp = open(connectTcp(internet.policyHostPort, '127.0.0.1'));
    const socket = open(connect({ socket: tcp, servername: host, ca: internet.ca }));
    socket.on('error', () => {}).resume();
    socket.write(`GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    await once(socket, 'close');
    raw[end] = tcp.bytesRead;
  }
  const { close = 0, cut = 0 } = raw;
  // RFC 8446 §5.2: close_notify, encrypted, is a record of 5 + 2 + 1 + 16 bytes. A signature is some more or fewer.
  assert.ok(close - cut > 15 && close - cut < 33, `${close} and ${cut} bytes`);
});

// What TLS itself makes of a host that breaks it off: bytes of the host's, in place of its own.
const alert = (description: number) => Buffer.from([21, 3, 3, 0, 2, 2, description]);
const breaks: [after: number | 'hello', send: Buffer, end: 'hang' | 'reset' | 'close', error: string][] = [
  [0, alert(112), 'hang', 'ERR_SSL_TLSV1_UNRECOGNIZED_NAME'],
  [0, Buffer.from('220 mail ready'), 'hang', 'ERR_SSL_WRONG_VERSION_NUMBER'],
  [100, Buffer.alloc(0), 'reset', 'ECONNRESET'],
  [100, Buffer.alloc(0), 'close', 'ECONNRESET'],
  // TLS 1.3 has nothing in the clear after the hello.
  ['hello', alert(80), 'hang', 'ERR_SSL_BAD_RECORD_TYPE'],
];
for (const [after, send, end, error] of breaks) {
  test(`a host can break TLS off after ${after}, and ${end}: ${error}`, async () => {
    internet.set(domain, { https: { wire: { breaks: { after, send: [send], end } } } });
    assert.equal(await handshake().catch(codeOf), error);
  });
}

test('a host can break TLS off and hang, or let it come in drops', async () => {
  internet.set(domain, { https: { wire: { breaks: { after: 100, send: [], end: 'hang' } } } });
  assert.equal(await leave(internet, domain, 'connection', SILENCE_MS), 'ABORT_ERR');

  const wire = { trickle: { bytes: 200, everyMs: 20 } };
  internet.set(domain, { https: { policy: { body }, wire } });
  const start = performance.now();
  assert.equal((await get(internet, domain)).body, body);
  assert.ok(performance.now() - start >= (20 * body.length) / 200, 'the body alone takes so long');
});

test('a host can ask for a certificate, speak only HTTP/2, and shake hands twice', async () => {
  internet.set(domain, { https: { maxTlsVersion: 'TLSv1.2', clientCertificate: 'required' } });
  assert.equal((await handshake().catch(codeOf)).toString(), 'ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE');
  internet.set(domain, { https: { clientCertificate: 'wanted' } });
  assert.equal((await get(internet, domain)).status, 404);

  internet.set(domain, { https: { alpn: ['h2'] } });
  const refused = handshake({ ALPNProtocols: ['http/1.1'] }).catch(codeOf);
  assert.equal(await refused, 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL');

  internet.set(domain, { https: { maxTlsVersion: 'TLSv1.2', renegotiates: true } });
  const socket = await handshake();
  socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  await once(socket, 'secureConnect');
  const [answer] = await once(socket, 'data');
  assert.match(String(answer), /^HTTP\/1.1 404/);
  socket.destroy();
});

test('a client that asks for the wrong thing is told', async () => {
  internet.set(domain, { https: { policy: { body } } });
  assert.equal((await get(internet, domain, { path: '/' })).status, 404);
  assert.equal((await get(internet, domain, { headers: { host: 'mta-sts.other.test' } })).status, 421);
  assert.equal((await get(internet, domain, { headers: { host: `${host}:8443` } })).status, 200);
  assert.equal((await get(internet, domain, { method: 'HEAD' })).status, 405);
});

const head =
  'HTTP/1.1 200 Status\r\ncontent-type: text/plain\r\ncontent-length: 1500\r\nconnection: close\r\n\r\n';
const sent = {
  request: '',
  'mid-headers': head.slice(0, head.length >> 1),
  headers: head,
  'mid-body': head + body.slice(0, 750),
} as const;
for (const [at, text] of Object.entries(sent) as [keyof typeof sent, string][]) {
  for (const [how, end] of [
    ['hang', 'open'],
    ['reset', 'ECONNRESET'],
    ['close', 'end'],
  ] as const) {
    test(`a host can ${how} at ${at}`, async () => {
      const enough = how === 'hang' ? (received: string) => received.length >= text.length : undefined;
      assert.deepEqual(await bytesOf({ policy: { body }, stop: { at, how } }, enough), { text, end });
    });
  }
}

test('a host can hang, reset and close before the TLS handshake', async () => {
  for (const how of ['reset', 'close'] as const) {
    internet.set(domain, { https: { stop: { at: 'accept', how } } });
    assert.equal(await handshake().catch(codeOf), 'ECONNRESET');
  }
  internet.set(domain, { https: { stop: { at: 'accept', how: 'hang' } } });
  assert.equal(await leave(internet, domain, 'connection', SILENCE_MS), 'ABORT_ERR');
});

test('a client without a known server name is reset, and noise does no harm', async () => {
  internet.set(domain, 'healthy');
  for (const servername of ['', domain, 'mta-sts.unknown.test']) {
    assert.equal(await handshake({ servername }).catch(codeOf), 'ECONNRESET');
  }
  for (const noise of ['GET / HTTP/1.1\r\n\r\n', '\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff', '\x16']) {
    const socket = open(connectTcp(internet.policyHostPort, '127.0.0.1'));
    socket.end(noise, 'latin1').resume();
    await once(socket, 'close').catch(codeOf);
  }
  assert.equal((await get(internet, domain)).status, 200);
});

test('a client that leaves is forgotten, whatever the host is doing', async () => {
  const hosts: PolicyHost[] = [
    { stop: { at: 'accept', how: 'hang' } },
    { stop: { at: 'request', how: 'hang' } },
    { policy: { delayMs: 3_600_000 } },
    { policy: { body, trickle: { bytes: 1, everyMs: 3_600_000 } } },
  ];
  for (const https of hosts) {
    internet.set(domain, { https });
    const kind = https.stop?.at === 'accept' ? 'connection' : 'request';
    assert.equal(typeof (await leave(internet, domain, kind, SILENCE_MS)), 'string', 'no answer');
    await until(() => internet.openSockets() === 0, 'it is forgotten');
  }
});
