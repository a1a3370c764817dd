// Policy hosts that spoil the connection or the TLS handshake, or that stop at any stage of a visit.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import type { End, Part, PolicyHost, Wire } from '../../infra/local/internet/site.ts';
import { startTrustedInternet } from '../functions/mtasts/network.ts';
import { type HostileCase, play } from './frame.ts';
import { answering, failing, POLICY, serves } from './https.ts';

const internet = await startTrustedInternet({ after });

const tlsFailed = failing('tls-failed', 'sts-policy-fetch-error');
const connectTimeout = failing('connect-timeout', 'sts-policy-fetch-error', 'connectMs');
const headersTimeout = failing('http-headers-timeout', 'sts-policy-fetch-error', 'headersMs');
const bodyTimeout = failing('http-body-timeout', 'sts-policy-fetch-error', 'bodyIdleMs');
const outOfTime = failing('deadline-exceeded', 'sts-policy-fetch-error', 'domainMs');
const aborted = failing('http-aborted', 'sts-policy-fetch-error');

/** RFC 8446 §5.1: a record without encryption. */
function record(type: number, content: Buffer): Buffer {
  return Buffer.concat([Buffer.from([type, 3, 3, content.length >> 8, content.length]), content]);
}

const [ALERT, HANDSHAKE, APPLICATION_DATA] = [21, 22, 23];

/** RFC 8446 §6. */
const alert = (level: 'warning' | 'fatal', description: number) =>
  record(ALERT, Buffer.from([level === 'fatal' ? 2 : 1, description]));
const HANDSHAKE_FAILURE = alert('fatal', 40);
const INTERNAL_ERROR = alert('fatal', 80);
const UNRECOGNIZED_NAME = alert('fatal', 112);
const UNKNOWN_ALERT = alert('fatal', 255);
const CLOSE_NOTIFY = alert('warning', 0);
const USER_CANCELED = alert('warning', 90);

/** A ServerHello that says it has so many bytes, of which these come. */
const serverHello = (bytes: number, content: Buffer) =>
  record(HANDSHAKE, Buffer.concat([Buffer.from([2, bytes >> 16, bytes >> 8, bytes]), content]));
const SSL_3_0 = Buffer.concat([
  Buffer.from('160300002a020000260300', 'hex'),
  Buffer.alloc(33),
  Buffer.from('000a00', 'hex'),
]);

const SOUND = answering({});
/** A body of several records. */
const LONG = answering({ body: POLICY + '\n'.repeat(40_000) });

/** The host breaks off after so many bytes of TLS's own. */
function breaking(after: number | 'hello', end: End, ...send: Part[]): PolicyHost & { wire: Wire } {
  return { ...SOUND, wire: { breaks: { after, send, end } } };
}
const insteadOfTls = (...send: Part[]) => breaking(0, 'hang', ...send);
const old = (maxTlsVersion: NonNullable<PolicyHost['maxTlsVersion']>) => ({ ...SOUND, maxTlsVersion });
const stopping = (at: NonNullable<PolicyHost['stop']>['at'], how: End) => ({ ...SOUND, stop: { at, how } });

const cases: HostileCase[] = [
  // Something else than a handshake
  connectTimeout('silence', insteadOfTls()),
  tlsFailed('closed', breaking(0, 'close')),
  tlsFailed('reset', breaking(0, 'reset')),
  tlsFailed('the name is refused', insteadOfTls(UNRECOGNIZED_NAME)),
  tlsFailed('the name is refused, and the connection closed', breaking(0, 'close', UNRECOGNIZED_NAME)),
  tlsFailed('the name is refused, and the connection reset', breaking(0, 'reset', UNRECOGNIZED_NAME)),
  tlsFailed('nothing in common', insteadOfTls(HANDSHAKE_FAILURE)),
  tlsFailed('an internal error', insteadOfTls(INTERNAL_ERROR)),
  // Node waits for more after an alert that OpenSSL has no name for.
  connectTimeout('an alert that no one knows', insteadOfTls(UNKNOWN_ALERT)),
  tlsFailed('an alert that no one knows, and the connection closed', breaking(0, 'close', UNKNOWN_ALERT)),
  tlsFailed('goodbye', insteadOfTls(CLOSE_NOTIFY)),
  tlsFailed('warnings without end', insteadOfTls({ forever: USER_CANCELED })),
  connectTimeout('half an alert', insteadOfTls(INTERNAL_ERROR.subarray(0, 6))),
  connectTimeout('a record in drops', insteadOfTls('\x16\x03\x03\x40\0', { forever: '\x02', everyMs: 10 })),
  tlsFailed('HTTP', insteadOfTls(`HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n${POLICY}`)),
  tlsFailed('SMTP', insteadOfTls('220 mail.example ESMTP\r\n')),
  tlsFailed('SSH', insteadOfTls('SSH-2.0-OpenSSH_9.9\r\n')),
  tlsFailed('SSL 3.0', insteadOfTls(SSL_3_0)),
  tlsFailed('zeros without end', insteadOfTls({ forever: Buffer.alloc(1_000) })),
  tlsFailed('noise without end', insteadOfTls({ forever: Buffer.alloc(1_000, 0xa5) })),
  tlsFailed('a record of 64 KB', insteadOfTls('\x16\x03\x03', { forever: Buffer.alloc(1_000, 0xff) })),
  tlsFailed('empty records without end', insteadOfTls({ forever: record(HANDSHAKE, Buffer.alloc(0)) })),
  tlsFailed(
    'a hello of 16 MB',
    insteadOfTls(serverHello(0xff_ff_ff, Buffer.alloc(16_000)), {
      forever: record(HANDSHAKE, Buffer.alloc(16_384)),
    }),
  ),
  tlsFailed('a hello of noise', insteadOfTls(serverHello(200, Buffer.alloc(200, 0xa5)))),
  tlsFailed('the policy, without TLS', insteadOfTls(record(APPLICATION_DATA, Buffer.from(POLICY)))),

  // Within the handshake
  ...[1, 5, 100, 600].flatMap((bytes) => [
    connectTimeout(`stalls after ${bytes} bytes of the handshake`, breaking(bytes, 'hang')),
    tlsFailed(`closed after ${bytes} bytes of the handshake`, breaking(bytes, 'close')),
    tlsFailed(`reset after ${bytes} bytes of the handshake`, breaking(bytes, 'reset')),
  ]),
  tlsFailed('an alert after the hello', breaking('hello', 'hang', INTERNAL_ERROR)),
  tlsFailed('goodbye after the hello', breaking('hello', 'hang', CLOSE_NOTIFY)),
  tlsFailed('HTTP after the hello', breaking('hello', 'hang', 'HTTP/1.1 200 OK\r\n\r\n')),
  tlsFailed('another hello after the hello', breaking('hello', 'hang', serverHello(200, Buffer.alloc(200)))),
  // TLS 1.3 has no alert in the clear after the hello, TLS 1.2 has.
  tlsFailed(
    'an alert after the hello of TLS 1.2',
    { ...old('TLSv1.2'), wire: breaking('hello', 'hang', INTERNAL_ERROR).wire },
    {
      also: ({ outcome }) =>
        assert.match('failure' in outcome ? outcome.failure.detail : '', /alert internal error/),
    },
  ),
  serves('a handshake in drops', { ...SOUND, wire: { trickle: { bytes: 20, everyMs: 1 } } }),
  connectTimeout('a handshake in drops, too slow', { ...SOUND, wire: { trickle: { bytes: 1, everyMs: 5 } } }),

  // What is agreed on
  tlsFailed('TLS 1.0 only', old('TLSv1')),
  tlsFailed('TLS 1.1 only', old('TLSv1.1')),
  serves('TLS 1.2 only', old('TLSv1.2')),
  tlsFailed('HTTP/2 only', { ...SOUND, alpn: ['h2'] }),
  serves('no ALPN', { ...SOUND, alpn: [] }),
  serves('a certificate of the client’s is wanted', { ...SOUND, clientCertificate: 'wanted' }),
  // In TLS 1.3 the client has said all it has to say before the server can refuse it.
  aborted('a certificate of the client’s is required', { ...SOUND, clientCertificate: 'required' }),
  tlsFailed('a certificate of the client’s is required in TLS 1.2', {
    ...old('TLSv1.2'),
    clientCertificate: 'required',
  }),
  aborted('a second handshake', { ...old('TLSv1.2'), renegotiates: true }),

  // At each stage after the handshake
  headersTimeout('stalls after the request', stopping('request', 'hang')),
  headersTimeout('stalls within the headers', stopping('mid-headers', 'hang')),
  bodyTimeout('stalls after the headers', stopping('headers', 'hang')),
  bodyTimeout('stalls within the body', stopping('mid-body', 'hang')),
  ...(['request', 'mid-headers', 'headers', 'mid-body'] as const).flatMap((stage) => [
    outOfTime(`out of time: ${stage}`, stopping(stage, 'hang')),
    aborted(`closed: ${stage}`, stopping(stage, 'close')),
    aborted(`closed below TLS: ${stage}`, stopping(stage, 'cut')),
    aborted(`reset: ${stage}`, stopping(stage, 'reset')),
  ]),
  outOfTime('out of time: silence', insteadOfTls()),
  outOfTime('out of time: in the handshake', breaking(600, 'hang')),
  bodyTimeout('stalls within a record of the body', { ...LONG, wire: breaking(30_000, 'hang').wire }),
  aborted('noise in place of a record of the body', {
    ...LONG,
    wire: breaking(30_000, 'hang', Buffer.alloc(20_000, 0xa5)).wire,
  }),

  // After the answer
  ...(['hang', 'close', 'cut', 'reset'] as const).map((end) =>
    serves(`the whole policy, then ${end}`, { ...SOUND, end }),
  ),
  bodyTimeout('the whole policy without a length, then hang', {
    ...answering({ headers: { 'content-length': null } }),
    end: 'hang',
  }),
  {
    name: 'out of time, and unknown',
    does: { record: { txt: [['v=STSv1; id=id2;']] }, https: insteadOfTls() },
    discovery: ['backed-off', 'deadline-exceeded', 'sts-policy-fetch-error'],
    waits: ['domainMs'],
    limits: { domainMs: 200 },
  },
  {
    name: 'nobody listens',
    does: 'host-down',
    refresh: ['kept', 'connect-refused', 'sts-policy-fetch-error'],
    discovery: ['backed-off', 'connect-refused', 'sts-policy-fetch-error'],
  },
];

play({ what: 'HTTPS connection', internet }, cases);
