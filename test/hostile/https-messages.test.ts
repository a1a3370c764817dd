// Policy hosts whose HTTP is odd, broken, endless or about something else (RFC 9110, RFC 9112, RFC 8461 §3.3).

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import type { HttpResponse, Part } from '../../infra/local/internet/site.ts';
import { startTrustedInternet } from '../functions/mtasts/network.ts';
import { type HostileCase, play } from './frame.ts';
import { answering, failing, grouped, type More, POLICY, serves } from './https.ts';

const internet = await startTrustedInternet({ after });

const wrongStatus = failing('http-status', 'sts-policy-fetch-error');
const redirected = failing('http-redirect', 'sts-policy-fetch-error');
const wrongType = failing('http-media-type', 'sts-policy-fetch-error');
const encoded = failing('http-encoding', 'sts-policy-fetch-error');
const malformed = failing('http-malformed', 'sts-policy-fetch-error');
const aborted = failing('http-aborted', 'sts-policy-fetch-error');
const headersTimeout = failing('http-headers-timeout', 'sts-policy-fetch-error', 'headersMs');
const bodyTimeout = failing('http-body-timeout', 'sts-policy-fetch-error', 'bodyIdleMs');
const outOfTime = failing('deadline-exceeded', 'sts-policy-fetch-error', 'domainMs');
const tooLarge = failing('policy-too-large', 'sts-policy-invalid');
const invalid = failing('policy-invalid', 'sts-policy-invalid');

const TYPE = 'content-type: text/plain\r\n';
const LENGTH = `content-length: ${POLICY.length}\r\n`;
const CHUNKED = 'transfer-encoding: chunked\r\n';
const CHUNKS = `${POLICY.length.toString(16)}\r\n${POLICY}\r\n0\r\n\r\n`;
const NOISE = '\u{a5}'.repeat(500);
/** Its last line has no end. */
const UNENDED = POLICY.trimEnd();
const CHUNKS_UNENDED = `${UNENDED.length.toString(16)}\r\n${UNENDED}\r\n0\r\n\r\n`;
const SOUND = `HTTP/1.1 200 OK\r\n${TYPE}${LENGTH}\r\n${POLICY}`;

/** Exactly this, then these parts, and the end of the connection. */
const raw = (bytes: string | Buffer, ...more: Part[]) => ({ policy: { raw: bytes, more } });
/** An answer that begins like this. */
const beginning = (line: string) => raw(`${line}\r\n${TYPE}${LENGTH}\r\n${POLICY}`);
/** An answer with these header lines, and no others but the media type. */
const headers = (lines: string, body: string | Buffer = POLICY) =>
  raw(`HTTP/1.1 200 OK\r\n${TYPE}${lines}\r\n`, body);
/** An answer with these header lines in place of the media type. */
const typed = (lines: string) => raw(`HTTP/1.1 200 OK\r\n${lines}${LENGTH}\r\n${POLICY}`);
const chunks = (body: string, ...more: Part[]) =>
  raw(`HTTP/1.1 200 OK\r\n${TYPE}${CHUNKED}\r\n${body}`, ...more);
/** The sound answer with a header line more. */
const also = (line: string) => headers(`${line}\r\n${LENGTH}`);
const redirect = (location: string, status = 302) => answering({ status, headers: { location } });
const coded = (coding: string, body: HttpResponse['body'] = POLICY) =>
  answering({ headers: { 'content-encoding': coding }, body });
/** What an operator is told has this in it. */
const says = (words: string): More => ({
  also: ({ outcome }) =>
    assert.ok('failure' in outcome && outcome.failure.detail.includes(words), JSON.stringify(outcome)),
});
/** The connection stays open after the answer. */
const held = (does: ReturnType<typeof raw>) => ({ ...does, end: 'hang' as const });

const groups: Record<string, HostileCase[]> = {
  'in place of HTTP': [
    malformed('HTTP/0.9', raw(POLICY)),
    malformed('SMTP', raw('220 mail.example ESMTP ready\r\n')),
    malformed('SSH', raw('SSH-2.0-OpenSSH_9.9\r\n')),
    malformed('a request', raw('GET /.well-known/mta-sts.txt HTTP/1.1\r\nhost: you\r\n\r\n')),
    malformed('the preface of HTTP/2', raw('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')),
    malformed('settings of HTTP/2', raw(Buffer.from('000000040000000000', 'hex'))),
    malformed('TLS within TLS', raw(Buffer.from('16030300050100000100', 'hex'))),
    malformed('noise', raw(Buffer.alloc(1_000, 0xa5))),
    malformed('zeros without end', raw('', { forever: Buffer.alloc(1_000) })),
    malformed('noise without end', raw('', { forever: Buffer.alloc(1_000, 0xa5) })),
    aborted('nothing', raw('')),
    malformed('line ends without end', raw('', { forever: '\r\n' })),
  ],
  'status line': [
    serves('no reason', beginning('HTTP/1.1 200 ')),
    serves('no blank before no reason', beginning('HTTP/1.1 200')),
    serves('a reason in UTF-8', beginning('HTTP/1.1 200 Schön')),
    serves('a reason of 100 KB', beginning(`HTTP/1.1 200 ${'x'.repeat(100_000)}`)),
    serves('HTTP/1.0', beginning('HTTP/1.0 200 OK')),
    // The parser reads RTSP as well. The host has proved its name, so it makes no difference.
    serves('RTSP', beginning('RTSP/1.0 200 OK')),
    serves('line ends before it', raw(`\r\n\r\n${SOUND}`)),
    malformed('HTTP/1.2', beginning('HTTP/1.2 200 OK')),
    malformed('HTTP/2', beginning('HTTP/2 200 OK')),
    malformed('HTTP/3.0', beginning('HTTP/3.0 200 OK')),
    malformed('in small letters', beginning('http/1.1 200 ok')),
    malformed('Shoutcast', beginning('ICY 200 OK')),
    malformed('no version', beginning('HTTP 200 OK')),
    malformed('no status', beginning('HTTP/1.1 OK')),
    malformed('a status of two digits', beginning('HTTP/1.1 20 OK')),
    malformed('a status of four digits', beginning('HTTP/1.1 2000 OK')),
    malformed('a negative status', beginning('HTTP/1.1 -200 OK')),
    malformed('a status with letters', beginning('HTTP/1.1 2OO OK')),
    malformed('a blank before it', beginning(' HTTP/1.1 200 OK')),
    malformed('two blanks in it', beginning('HTTP/1.1  200 OK')),
    malformed('a tab in it', beginning('HTTP/1.1\t200 OK')),
    serves('a NUL in the reason', beginning('HTTP/1.1 200 O\0K')),
    malformed('a CR in the reason', beginning('HTTP/1.1 200 O\rK')),
    malformed('a reason without end', raw('HTTP/1.1 200 ', { forever: 'x' })),
    headersTimeout('a reason in drops', raw('HTTP/1.1 200 ', { forever: 'x', everyMs: 20 })),
  ],
  status: [
    ...[201, 202, 203, 205, 206, 226, 299, 400, 401, 403, 404, 410, 418, 429, 451, 500, 502, 503, 999].map(
      (status) => wrongStatus(`${status}`, answering({ status })),
    ),
    wrongStatus('204', answering({ status: 204, body: '', headers: { 'content-length': null } })),
    wrongStatus('304', answering({ status: 304, body: '' })),
    wrongStatus('206 with a part', answering({ status: 206, headers: { 'content-range': 'bytes 0-9/99' } })),
    wrongStatus('503 with when to come again', answering({ status: 503, headers: { 'retry-after': '1' } })),
    wrongStatus('600', answering({ status: 600 })),
    malformed('101', raw('HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n')),
    malformed(
      '101 that stays',
      held(raw('HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n')),
    ),
    serves('200 that offers an upgrade', also('upgrade: h2c\r\nconnection: upgrade')),
  ],
  informational: [
    serves('a hint before the answer', raw(`HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n${SOUND}`)),
    serves('a hundred hints before the answer', raw('HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(100) + SOUND)),
    serves('an unknown 1xx before the answer', raw(`HTTP/1.1 199 ?\r\n\r\n${SOUND}`)),
    malformed('hints without end', raw('', { forever: 'HTTP/1.1 103 Early Hints\r\n\r\n' }), { heavy: true }),
    malformed(
      'hints with headers without end',
      raw('', { forever: `HTTP/1.1 103 Early Hints\r\n${'link: </x>\r\n'.repeat(100)}\r\n` }),
    ),
    headersTimeout('hints in drops', raw('', { forever: 'HTTP/1.1 103 Early Hints\r\n\r\n', everyMs: 10 })),
    headersTimeout(
      '“processing” in drops',
      raw('', { forever: 'HTTP/1.1 102 Processing\r\n\r\n', everyMs: 10 }),
    ),
    outOfTime(
      'hints until the domain is out of time',
      raw('', { forever: 'HTTP/1.1 103 Early Hints\r\n\r\n', everyMs: 10 }),
    ),
    malformed('“continue” without end', raw('', { forever: 'HTTP/1.1 100 Continue\r\n\r\n' })),
  ],
  // RFC 8461 §3.3: "HTTP 3xx redirects MUST NOT be followed".
  redirect: [
    ...[300, 301, 302, 303, 304, 305, 307, 308].map((status) =>
      redirected(`${status}`, redirect('https://other.test/', status)),
    ),
    redirected('to itself', redirect('/.well-known/mta-sts.txt')),
    redirected('to another policy of its own', redirect('/elsewhere.txt')),
    redirected('to another host', redirect('//mta-sts.other.test/.well-known/mta-sts.txt')),
    redirected('to plain HTTP', redirect('http://other.test/.well-known/mta-sts.txt')),
    redirected('to the metadata of the cloud', redirect('http://169.254.169.254/latest/meta-data/')),
    redirected('to the credentials of a container', redirect('http://169.254.170.2/v2/credentials')),
    redirected('to the metadata by IPv6', redirect('http://[fd00:ec2::254]/latest/')),
    redirected(
      'to this host',
      redirect(`https://127.0.0.1:${internet.policyHostPort}/.well-known/mta-sts.txt`),
    ),
    redirected('to this host by IPv6', redirect('https://[::1]/')),
    redirected('to a private network', redirect('https://10.0.0.1/')),
    redirected('to a number', redirect('http://2130706433/')),
    redirected('to a file', redirect('file:///etc/passwd')),
    redirected('to data', redirect(`data:text/plain,${encodeURIComponent(POLICY)}`)),
    redirected('to a script', redirect('javascript:alert(1)')),
    redirected('with a password', redirect('https://user:password@other.test/')),
    redirected('to nowhere', redirect('')),
    redirected('to a place of 10 KB', redirect(`/${'x'.repeat(10_000)}`)),
    redirected(
      'to several places',
      raw('HTTP/1.1 302 Found\r\nlocation: /a\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n'),
    ),
    wrongStatus('302 without a place', answering({ status: 302 })),
    serves('a place, but 200', also('location: https://other.test/')),
    serves('a refresh, but 200', also('refresh: 0; url=https://other.test/')),
    serves('an alternative service', also('alt-svc: h3="other.test:443"')),
  ],
  'media type': [
    serves('parameters', typed('content-type: text/plain; charset=utf-8; x="a;b"\r\n')),
    serves('an unknown charset', typed('content-type: text/plain;charset=ebcdic\r\n')),
    serves('capitals', typed('Content-Type: TEXT/PLAIN\r\n')),
    serves('blanks around it', typed('content-type: \t text/plain \t ;\r\n')),
    malformed('on a line of its own', typed('content-type:\r\n text/plain\r\n')),
    wrongType('none', typed('')),
    wrongType('empty', typed('content-type:\r\n')),
    wrongType('HTML', typed('content-type: text/html\r\n')),
    wrongType('anything', typed('content-type: */*\r\n')),
    wrongType('bytes', typed('content-type: application/octet-stream\r\n')),
    wrongType('longer', typed('content-type: text/plainer\r\n')),
    wrongType('a list', typed('content-type: text/plain, text/html\r\n')),
    wrongType('two, the first right', typed('content-type: text/plain\r\ncontent-type: text/html\r\n')),
    wrongType('two, the last right', typed('content-type: text/html\r\ncontent-type: text/plain\r\n')),
    wrongType('what would write into the log', typed('content-type: text/\u{202E}\x80\x9B31m\r\n')),
    serves('not to be sniffed, but 200', also('x-content-type-options: nosniff')),
    // nginx with "add_header Content-Type text/plain;" sends both; proxies join them.
    serves('twice, the same', typed('content-type: text/plain\r\ncontent-type: text/plain\r\n')),
    serves(
      'twice, with parameters',
      typed('content-type: text/plain\r\ncontent-type: text/plain; charset=utf-8\r\n'),
    ),
    serves('twice, joined', typed('content-type: text/plain, text/plain; charset=utf-8\r\n')),
    serves('three times, joined', typed('content-type: text/plain,TEXT/PLAIN;x=y ,\ttext/plain\r\n')),
    serves('twice, one empty', typed('content-type:\r\ncontent-type: text/plain\r\n')),
    serves('joined with nothing', typed('content-type: text/plain, ,\r\n')),
    serves('a comma in a quoted parameter', typed('content-type: text/plain; x="a, text/html"\r\n')),
    serves('a quote in a quoted parameter', typed('content-type: text/plain; x="\\", text/html"\r\n')),
    wrongType('commas alone', typed('content-type: ,,\r\n')),
    wrongType('another after a quoted comma', typed('content-type: text/plain; x="a,b", text/html\r\n')),
    wrongType('another after a quote without end', typed('content-type: text/plain; x="a, text/html\r\n')),
    wrongType(
      'another on the line after a quote without end',
      typed('content-type: text/plain; x="\r\ncontent-type: text/html\r\n'),
    ),
    wrongType('another among three, joined', typed('content-type: text/plain, text/html, text/plain\r\n')),
  ],
  // None was asked for.
  'content coding': [
    serves('identity', coded('identity')),
    encoded('gzip', coded('gzip', gzipSync(POLICY))),
    encoded('deflate', coded('deflate', deflateSync(POLICY))),
    encoded('brotli', coded('br', brotliCompressSync(POLICY))),
    encoded('something unknown', coded('zstd')),
    encoded('twice', coded('gzip, gzip', gzipSync(gzipSync(POLICY)))),
    encoded('identity and gzip', coded('identity, gzip', gzipSync(POLICY))),
    encoded('gzip that is none', coded('gzip')),
    encoded('gzip, in capitals', coded('GZIP', gzipSync(POLICY))),
    encoded('a gzip bomb of 1 GB', coded('gzip', gzipBomb())),
    invalid('gzip that is not said', answering({ body: gzipSync(POLICY) })),
    // Stores of objects send what was saved with the object, also nothing.
    serves('empty', coded('')),
    serves('a comma', coded(',')),
    serves('identity twice, joined', coded('identity, Identity')),
    serves('identity twice', also('content-encoding: identity\r\ncontent-encoding: identity')),
    serves('identity and nothing', also('content-encoding: identity\r\ncontent-encoding:')),
    encoded('nothing and gzip', coded(', gzip', gzipSync(POLICY))),
    encoded('identity and gzip on two lines', also('content-encoding: identity\r\ncontent-encoding: gzip')),
    encoded('identity in quotes', coded('"identity"')),
  ],
  headers: [
    malformed('line ends without CR', raw(SOUND.replaceAll('\r\n', '\n'))),
    malformed('folded', also('x-more: a\r\n b\r\n\tc')),
    serves('8-bit characters', also('x-more: \u00e4\u00ff')),
    serves('a hundred', headers(LENGTH + 'x: y\r\n'.repeat(100))),
    serves('cookies', also('set-cookie: a=b; domain=.test')),
    malformed('a line without a colon', also('nonsense')),
    malformed('a line without a name', also(': x')),
    malformed('a blank before a colon', also('x-more : x')),
    malformed('a blank before a name', headers(` x-more: x\r\n${LENGTH}`.replace(/^/, 'y z: w\r\n'))),
    malformed('a NUL in a name', also('x\0more: x')),
    malformed('a NUL in a value', also('x-more: x\0')),
    malformed('a CR in a value', also('x-more: x\ry')),
    malformed('an escape in a value', also('x-more: \x1b[31m')),
    malformed('a UTF-8 name', also('xé: x')),
    malformed('a value of 20 KB', also(`x-more: ${'x'.repeat(20_000)}`)),
    malformed('a name of 20 KB', also(`${'x'.repeat(20_000)}: x`)),
    malformed('ten thousand', headers(LENGTH + 'x: y\r\n'.repeat(10_000))),
    malformed('headers without end', raw('HTTP/1.1 200 OK\r\n', { forever: 'x: y\r\n' })),
    malformed('a value without end', raw('HTTP/1.1 200 OK\r\nx-more: ', { forever: 'x' })),
    malformed('a name without end', raw('HTTP/1.1 200 OK\r\n', { forever: 'x' })),
    malformed('folds without end', raw('HTTP/1.1 200 OK\r\nx-more: x', { forever: '\r\n x' })),
    headersTimeout('headers in drops', raw('HTTP/1.1 200 OK\r\n', { forever: 'x: y\r\n', everyMs: 10 })),
    headersTimeout(
      'a header byte by byte',
      raw('HTTP/1.1 200 OK\r\nx-more: ', { forever: 'x', everyMs: 10 }),
    ),
    aborted('cut within a header', raw('HTTP/1.1 200 OK\r\ncontent-le')),
    aborted('cut before the last line end', raw(`HTTP/1.1 200 OK\r\n${TYPE}${LENGTH}`)),
  ],
  length: [
    serves('the connection is kept', held(also('connection: keep-alive'))),
    serves('the connection is kept for ever', held(also('keep-alive: timeout=99999999, max=99999999'))),
    serves('the connection is closed', also('connection: close')),
    serves(
      'the connection is kept in HTTP/1.0',
      held(beginning('HTTP/1.0 200 OK\r\nconnection: keep-alive')),
    ),
    serves('unknown connection options', also('connection: x-more, te, \x09')),
    serves('no length', headers('')),
    serves('a length with zeros', headers(`content-length: 000${POLICY.length}\r\n`)),
    malformed('another answer after the answer', raw(SOUND + SOUND)),
    malformed('noise after the answer', raw(SOUND + NOISE)),
    malformed('noise without end after the answer', raw(SOUND + NOISE, { forever: NOISE })),
    serves('noise long after the answer', raw(SOUND, { pauseMs: 10_000 }, NOISE)),
    aborted('a length too great', headers(`content-length: ${POLICY.length + 1}\r\n`)),
    bodyTimeout(
      'a length too great, and the connection kept',
      held(headers(`content-length: ${POLICY.length + 1}\r\n`)),
    ),
    malformed('a length too small', headers(`content-length: ${POLICY.length - 10}\r\n`)),
    malformed('a length of 0', raw(`HTTP/1.1 200 OK\r\n${TYPE}content-length: 0\r\n\r\n${POLICY}`)),
    invalid('a length of 0, and no body', headers('content-length: 0\r\n', '')),
    malformed('two lengths', headers(`${LENGTH}content-length: 1\r\n`)),
    malformed('two equal lengths', headers(LENGTH + LENGTH)),
    malformed('two lengths in one', headers(`content-length: ${POLICY.length}, ${POLICY.length}\r\n`)),
    malformed('a negative length', headers('content-length: -1\r\n')),
    malformed('a length with a sign', headers(`content-length: +${POLICY.length}\r\n`)),
    malformed('a hexadecimal length', headers('content-length: 0x10\r\n')),
    malformed('a length in words', headers('content-length: many\r\n')),
    malformed('an empty length', headers('content-length:\r\n')),
    malformed('a length that no number holds', headers('content-length: 99999999999999999999\r\n')),
    tooLarge(
      'a length of 1 TB, and that much',
      raw(`HTTP/1.1 200 OK\r\n${TYPE}content-length: 1099511627776\r\n\r\n`, { forever: `${POLICY}\r\n` }),
    ),
    tooLarge(
      'a length of 1 TB, and nothing',
      held(raw(`HTTP/1.1 200 OK\r\n${TYPE}content-length: 1099511627776\r\n\r\n`)),
    ),
    tooLarge('a body without end', raw(`HTTP/1.1 200 OK\r\n${TYPE}\r\n`, { forever: '\r\n' }), {
      heavy: true,
    }),
    serves('a body in pieces', answering({ trickle: { bytes: 10, everyMs: 20 } }), {
      // Shorter than it takes in all.
      limits: { bodyIdleMs: 100 },
    }),
    outOfTime(
      'a body in drops',
      raw(`HTTP/1.1 200 OK\r\n${TYPE}\r\n${POLICY}`, { forever: '\r\n', everyMs: 10 }),
    ),
    outOfTime('chunks in drops', chunks('', { forever: '1\r\n\n\r\n', everyMs: 10 })),
  ],
  chunks: [
    serves('one', chunks(CHUNKS)),
    serves('of a byte each', chunks(`${[...POLICY].map((byte) => `1\r\n${byte}\r\n`).join('')}0\r\n\r\n`)),
    serves('a size with zeros', chunks(`0000${CHUNKS}`)),
    serves('a size in capitals', chunks(`${POLICY.length.toString(16).toUpperCase()}${CHUNKS.slice(2)}`)),
    serves('extensions', chunks(CHUNKS.replace('\r\n', ';a=b;c="d;e"\r\n'))),
    serves('trailers', chunks(CHUNKS.replace(/\r\n$/, 'x-more: x\r\n\r\n'))),
    serves('noise after the last', chunks(`${CHUNKS}noise`)),
    serves('in capitals', raw(`HTTP/1.1 200 OK\r\n${TYPE}Transfer-Encoding: CHUNKED\r\n\r\n${CHUNKS}`)),
    malformed('none', chunks(POLICY)),
    malformed('a negative size', chunks(`-${CHUNKS}`)),
    malformed('a size with 0x', chunks(`0x${CHUNKS}`)),
    malformed('no size', chunks(`\r\n${CHUNKS}`)),
    malformed('a size that no number holds', chunks(`ffffffffffffffffff\r\n${POLICY}`)),
    malformed('a size too small', chunks(`5\r\n${POLICY}\r\n0\r\n\r\n`)),
    aborted('a size too great', chunks(`ff\r\n${POLICY}\r\n0\r\n\r\n`)),
    malformed('a size followed by a blank', chunks(CHUNKS.replace('\r\n', ' \r\n'))),
    malformed('line ends without CR', chunks(CHUNKS.replaceAll('\r\n', '\n'))),
    aborted('no last one', chunks(CHUNKS.slice(0, -5))),
    aborted('half of the last one', chunks(CHUNKS.slice(0, -2))),
    bodyTimeout('no last one, and the connection kept', held(chunks(CHUNKS.slice(0, -5)))),
    tooLarge('one of 4 GB', chunks('ffffffff\r\n', { forever: '\r\n' })),
    tooLarge('without end', chunks('', { forever: '2\r\n\r\n\r\n' })),
    tooLarge('of a byte each without end', chunks('', { forever: '1\r\n\n\r\n' })),
    malformed('an extension without end', chunks('1;', { forever: 'x' }), { heavy: true }),
    bodyTimeout('an extension in drops', chunks('1;', { forever: 'x', everyMs: 10 })),
    malformed('a size without end', chunks('', { forever: '0' })),
    malformed('trailers without end', chunks(CHUNKS.slice(0, -2), { forever: 'x: y\r\n' }), { heavy: true }),
    bodyTimeout('trailers in drops', chunks(CHUNKS.slice(0, -2), { forever: 'x: y\r\n', everyMs: 10 })),
  ],
  'transfer coding': [
    malformed('a length and chunks', headers(LENGTH + CHUNKED, CHUNKS)),
    malformed('chunks and a length', headers(CHUNKED + LENGTH, CHUNKS)),
    serves('chunks in HTTP/1.0', raw(`HTTP/1.0 200 OK\r\n${TYPE}${CHUNKED}\r\n${CHUNKS}`)),
    serves('chunks twice', headers('transfer-encoding: chunked, chunked\r\n', CHUNKS)),
    invalid('chunks, then identity', headers('transfer-encoding: chunked, identity\r\n', CHUNKS)),
    serves('chunks on two lines', headers(CHUNKED + CHUNKED, CHUNKS)),
    invalid('nearly chunks', headers('transfer-encoding: xchunked\r\n', CHUNKS)),
    invalid('gzip', headers('transfer-encoding: gzip\r\n', gzipSync(POLICY))),
    serves('identity', headers('transfer-encoding: identity\r\n')),
  ],
  // "max_age: 604800" must not become "max_age: 60480", nor 6048, nor 6: RFC 9112 §6.3, §9.8.
  'cut short': [
    ...[1, 2, 3, 4, 5].map((bytes) =>
      malformed(
        `a length ${bytes} too small`,
        headers(`content-length: ${UNENDED.length - bytes}\r\n`, UNENDED),
      ),
    ),
    malformed('a length too small by a line end', headers(`content-length: ${POLICY.length - 2}\r\n`)),
    malformed(
      'a length too small, and the connection closed',
      headers(`connection: close\r\ncontent-length: ${UNENDED.length - 1}\r\n`, UNENDED),
    ),
    malformed(
      'a length too small, after hints and line ends',
      raw(
        `\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n\r\nHTTP/1.1 200 OK\r\n${TYPE}` +
          `content-length: ${UNENDED.length - 1}\r\n\r\n${UNENDED}`,
      ),
    ),
    serves(
      'not, with a length, after hints and line ends',
      raw(
        `\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n\r\nHTTP/1.1 200 OK\r\n${TYPE}` +
          `content-length: ${UNENDED.length}\r\n\r\n${UNENDED}`,
      ),
    ),
    serves('not, with a head in pieces', answering({ body: UNENDED, trickle: { bytes: 7, everyMs: 1 } })),
    serves('not, with a length', headers(`content-length: ${UNENDED.length}\r\n`, UNENDED)),
    serves('not, in chunks', chunks(CHUNKS_UNENDED)),
    serves('not, in chunks on the last of several lines', headers(CHUNKED + CHUNKED, CHUNKS_UNENDED)),
    aborted('no length', headers('', UNENDED)),
    ...[
      'x-chunked',
      'xchunked',
      'not chunked',
      'gzip;chunked',
      'chunked;x',
      'x-chunked, chunked;x',
      'identity',
    ].map((coding) => aborted(coding, headers(`transfer-encoding: ${coding}\r\n`, UNENDED))),
    aborted('chunks, then another coding', headers(`${CHUNKED}transfer-encoding: x-chunked\r\n`, UNENDED)),
  ],
  // Where nothing was cut, an operator is not told so.
  'said to be': [
    malformed('folded', headers(`${LENGTH}x-more: a\r\n b\r\n`), says('folded over several lines')),
    malformed('folded before the length', also('x-more: a\r\n\tb'), says('folded over several lines')),
    malformed('a folded length', headers(`content-length:\r\n ${POLICY.length}\r\n`), says('folded')),
    malformed('several lengths', headers(LENGTH + LENGTH), says('more than one Content-Length')),
    malformed(
      'several lengths in one',
      headers(`content-length: ${POLICY.length}, ${POLICY.length}\r\n`),
      says('more than one Content-Length'),
    ),
    malformed(
      'a length and chunks',
      headers(LENGTH + CHUNKED, CHUNKS),
      says('both Content-Length and Transfer'),
    ),
    malformed('no length', headers(`content-length: ${'9'.repeat(20)}\r\n`), says('is not a length')),
    malformed('a flaw after the length', headers(`${LENGTH}nonsense\r\n`), says('breaks the grammar')),
    malformed('a length too small', headers('content-length: 9\r\n'), says('more than the Content-Length')),
    malformed('100', raw(`HTTP/1.1 100 Continue\r\n\r\n${SOUND}`), says('answers 100, which nobody')),
    malformed(
      '101',
      raw('HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n'),
      says('answers 101, which nobody'),
    ),
    aborted('cut after the length', raw(`HTTP/1.1 200 OK\r\n${LENGTH}`)),
    aborted('cut within the body', headers(LENGTH, POLICY.slice(0, 20))),
    aborted('cut within chunks', chunks(CHUNKS.slice(0, 20))),
    aborted(
      'cut within chunks, the connection to be closed',
      headers(`connection: close\r\n${CHUNKED}`, CHUNKS.slice(0, 20)),
    ),
  ],
};

/** Compressed, it is what it says: a thousandth of its size. */
function gzipBomb(): Buffer {
  const member = gzipSync(Buffer.alloc(10_000_000, '\n'), { level: 9 });
  return Buffer.concat(Array<Buffer>(100).fill(member));
}

play({ what: 'HTTPS message', internet }, grouped(groups));
