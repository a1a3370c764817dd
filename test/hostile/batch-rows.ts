// What thirty hostile domains of a batch do. Each has an address of its own.

import { LIMITS } from '../../functions/mtasts/limits.ts';
import type { PolicyHost } from '../../infra/local/internet/site.ts';
import { type Hostile, NEW_ID, repeat } from './batch.ts';
import { answering, POLICY } from './https.ts';

const HEAD = 'HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n';
const SOUND = answering({});
const raw = (bytes: string, forever?: string, everyMs?: number): PolicyHost => ({
  policy: { raw: bytes, ...(forever && { more: [{ forever, ...(everyMs && { everyMs }) }] }) },
});
const stopping = (at: NonNullable<PolicyHost['stop']>['at']): PolicyHost => ({
  ...SOUND,
  stop: { at, how: 'hang' },
});

/** Large, endless or broken: as soon as that is seen, it is over. */
export const PROMPT: readonly Hostile[] = [
  ['DNS fails', 'dns-servfail', SOUND, { record: { rcode: 'SERVFAIL' }, host: { rcode: 'SERVFAIL' } }],
  [
    '60 KB of TXT records',
    'replaced',
    SOUND,
    { record: { txt: [...(NEW_ID.txt ?? []), ...repeat(215, () => ['x'.repeat(255)])] } },
  ],
  ['hints without end', 'http-malformed', raw('', 'HTTP/1.1 103 Early Hints\r\n\r\n')],
  ['a reason without end', 'http-malformed', raw('HTTP/1.1 200 ', 'x')],
  ['an extension without end', 'http-malformed', raw(`${HEAD}transfer-encoding: chunked\r\n\r\n1;`, 'x')],
  ['headers without end', 'http-malformed', raw('HTTP/1.1 200 OK\r\n', 'x: y\r\n')],
  ['a body without end', 'policy-too-large', raw(`${HEAD}\r\n`, '\n')],
  [
    'a length of 1 TB, and that much',
    'policy-too-large',
    raw(`${HEAD}content-length: 1099511627776\r\n\r\n`, '\n'),
  ],
  [
    'a length of 1 TB, and nothing',
    'policy-too-large',
    { ...raw(`${HEAD}content-length: 1099511627776\r\n\r\n`), end: 'hang' },
  ],
  ['chunks without end', 'policy-too-large', raw(`${HEAD}transfer-encoding: chunked\r\n\r\n`, '1\r\n\n\r\n')],
  ['8 KB of mx', 'replaced', answering({ body: withMx(1_000) })],
  ['64 KB of unknown fields', 'replaced', answering({ body: filled('a: b\n') })],
  ['64 KB of mx', 'policy-too-large', answering({ body: withMx(4_500) })],
  ['a certificate of 200 KB', 'tls-failed', { ...SOUND, certificate: { extensions: [padding(200_000)] } }],
  ['noise in place of HTTP', 'http-malformed', raw('', '\xa5')],
];

/** Slow: a limit has to end it, or it takes its time. None takes longer than 30 s. */
export const WAITING: readonly Hostile[] = [
  ['DNS is silent', 'dns-timeout', SOUND, { record: { silent: true }, host: { silent: true } }],
  ['DNS is silent about the record', 'replaced', SOUND, { record: { silent: true } }],
  ['DNS is silent about the host', 'dns-timeout', SOUND, { host: { silent: true } }],
  [
    '60 KB of TXT records in drops',
    'replaced',
    SOUND,
    { record: { txt: repeat(215, () => ['x'.repeat(255)]), tcp: { trickle: { bytes: 10, everyMs: 50 } } } },
  ],
  ['silence in place of TLS', 'connect-timeout', stopping('accept')],
  [
    'stalls in the handshake',
    'connect-timeout',
    { ...SOUND, wire: { breaks: { after: 600, send: [], end: 'hang' } } },
  ],
  ['a handshake in drops', 'connect-timeout', { ...SOUND, wire: { trickle: { bytes: 1, everyMs: 50 } } }],
  ['stalls after the request', 'http-headers-timeout', stopping('request')],
  ['stalls in the headers', 'http-headers-timeout', stopping('mid-headers')],
  ['stalls after the headers', 'http-body-timeout', stopping('headers')],
  ['stalls in the body', 'http-body-timeout', stopping('mid-body')],
  [
    'late headers, and a stall after them',
    'http-body-timeout',
    { ...answering({ delayMs: 0.5 * LIMITS.headersMs }), stop: { at: 'headers', how: 'hang' } },
  ],
  ['headers in drops', 'http-headers-timeout', raw('HTTP/1.1 200 OK\r\n', 'x: y\r\n', 50)],
  ['hints in drops', 'http-headers-timeout', raw('', 'HTTP/1.1 103 Early Hints\r\n\r\n', 50)],
  ['64 KB in drops', 'replaced', answering({ body: filled('\n'), trickle: { bytes: 700, everyMs: 100 } })],
];

function filled(line: string): string {
  return POLICY + line.repeat(Math.floor((65_536 - POLICY.length) / line.length));
}

/** Each of seven bytes, on a line of thirteen. */
function withMx(count: number): string {
  return POLICY + repeat(count, (index) => `mx: ${10_000 + index}.m\r\n`).join('');
}

function padding(bytes: number) {
  const der = Buffer.concat([Buffer.from([0x04, 0x83, bytes >> 16, bytes >> 8, bytes]), Buffer.alloc(bytes)]);
  return { oid: '2.25.1', der };
}
