import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { createSecureContext, type SecureContext, TLSSocket } from 'node:tls';
import { createAuthority } from './certificates.ts';
import { type Listener, listen, pause } from './listener.ts';
import type { End, HttpResponse, Part, PolicyHost, Trickle, Wire } from './site.ts';

const POLICY_PATH = '/.well-known/mta-sts.txt';
const CHUNK_BYTES = 16_384;
/** How much of something endless is written at once. */
const FLOOD_BYTES = 65_536;
/** Enough for any ClientHello or request head; a client that sends more is cut off. */
const MAX_HEAD_BYTES = 65_536;
/** OpenSSL 3 has TLS 1.0 and 1.1, short keys and SHA-1 at security level 0 alone. */
const ANY_CIPHER = 'DEFAULT@SECLEVEL=0';

export interface PolicyHosts extends Listener {
  /** The most connections that one address has had at the same time, as far as leaving clients were noticed. */
  mostAtOnce(): number;
  /** The root of trust, as PEM. */
  readonly ca: string;
}

export interface Visits {
  /** A client has connected and named this host in its ClientHello ('' if none); undefined: no such host here. */
  connection(host: string): PolicyHost | undefined;
  request(host: string, path: string): void;
}

/**
 * Every policy host, on one port of 127.0.0.1. The name in the ClientHello is read before TLS starts, so that
 * each host has its own certificate and TLS versions, and can fail before the handshake as well as after.
 */
export async function startPolicyHosts(
  visits: Visits,
  port: number,
  addresses?: readonly string[],
): Promise<PolicyHosts> {
  const authority = await createAuthority();
  const contexts = new Map<string, Promise<SecureContext>>();

  function contextFor(host: string, does: PolicyHost): Promise<SecureContext> {
    const { certificate = 'good', maxTlsVersion } = does;
    if (typeof certificate === 'object') return createContext(host, certificate, maxTlsVersion);
    const id = `${certificate} ${maxTlsVersion} ${host}`;
    const context = contexts.get(id) ?? createContext(host, certificate, maxTlsVersion);
    contexts.set(id, context);
    return context;
  }

  async function createContext(
    host: string,
    certificate: NonNullable<PolicyHost['certificate']>,
    maxVersion: PolicyHost['maxTlsVersion'],
  ): Promise<SecureContext> {
    const weak = typeof certificate === 'object' && certificate.publicKey === 'RSA-1024';
    return createSecureContext({
      key: weak ? await authority.weakKey() : authority.key,
      cert: await authority.issue(certificate, host),
      secureOptions: constants.SSL_OP_NO_TICKET, // a resumed session would not show the certificate
      ciphers: ANY_CIPHER,
      ...(maxVersion && { minVersion: 'TLSv1', maxVersion }),
    });
  }

  async function serve(raw: Socket, gone: AbortSignal): Promise<void> {
    const hello = await readUntil(raw, parseServerName);
    if (!hello) return;
    const host = hello.value.toLowerCase();
    const does = visits.connection(host);
    if (!does) return finish(raw, raw, 'reset');
    if (does.stop?.at === 'accept') return finish(raw, raw, does.stop.how);

    const secureContext = await contextFor(host, does);
    if (raw.destroyed) return; // gone while the certificate was made
    raw.unshift(hello.bytes);
    const { alpn = ['http/1.1'], clientCertificate, wire } = does;
    const socket = new TLSSocket(wire ? tamper(raw, wire, gone) : raw, {
      isServer: true,
      secureContext,
      ALPNProtocols: [...alpn],
      requestCert: clientCertificate !== undefined,
      rejectUnauthorized: clientCertificate === 'required',
    });
    socket.on('error', () => {}); // a client that rejects the certificate says so and leaves
    const request = await readUntil(socket, parseRequest);
    if (!request) return;
    socket.resume(); // to see the client leave
    visits.request(host, request.value.path);

    const response = choose(does, host, request.value);
    if (does.renegotiates) await renegotiate(socket, gone);
    if (response.delayMs && !(await pause(response.delayMs, gone))) return;
    const { head, body } = format(response);
    const message = Buffer.concat([head, body]).subarray(0, bytesToSend(does, head, body));
    const { trickle, more = [] } = response;
    const slow = trickle ? message.subarray(head.length) : Buffer.alloc(0);
    const first = message.subarray(0, message.length - slow.length);
    if (!(await send(socket, [first, ...pieces(slow, trickle), ...more], gone))) return;
    finish(raw, socket, does.stop?.how ?? does.end ?? 'close');
  }

  const open = new Map<string, number>();
  let mostAtOnce = 0;
  const serveCounted = (raw: Socket, gone: AbortSignal) => {
    const address = raw.localAddress ?? '';
    const count = (by: 1 | -1) => {
      const atOnce = (open.get(address) ?? 0) + by;
      open.set(address, atOnce);
      mostAtOnce = Math.max(mostAtOnce, atOnce);
    };
    count(1);
    gone.addEventListener('abort', () => count(-1), { once: true });
    serve(raw, gone).catch((error: unknown) => {
      console.error(error);
      raw.destroy();
    });
  };
  const listener = await listen(port, serveCounted, addresses);
  return { ...listener, mostAtOnce: () => mostAtOnce, ca: authority.ca };
}

/** The connection as TLS sees it where what it sends comes in drops, or is broken off. */
function tamper(raw: Socket, { trickle, breaks }: Wire, gone: AbortSignal): Duplex {
  let left = breaks ? undefined : Number.POSITIVE_INFINITY;
  async function pass(chunk: Buffer): Promise<boolean> {
    left ??= breaks?.after === 'hello' ? 5 + chunk.readUInt16BE(3) : (breaks?.after ?? 0);
    const passed = chunk.subarray(0, Math.max(0, left));
    const whole = left >= chunk.length;
    left -= passed.length;
    if (!(await send(raw, pieces(passed, trickle), gone))) return false;
    if (whole || !breaks) return true;
    left = 0;
    if (await send(raw, breaks.send, gone)) finish(raw, raw, breaks.end);
    return false;
  }
  const duplex = new Duplex({
    read: () => void raw.resume(),
    // Without a call of `done`, the one who writes waits for ever: nothing else goes out.
    write: (chunk: Buffer, _, done) => void pass(chunk).then((more) => more && done()),
    final: (done) => void raw.end(done),
    destroy(error, done) {
      raw.destroy();
      done(error);
    },
  });
  raw.on('data', (chunk) => {
    if (!duplex.push(chunk)) raw.pause();
  });
  raw.on('end', () => duplex.push(null));
  raw.on('close', () => duplex.destroy());
  return duplex;
}

/** Gathers what a client sends until `parse` makes something of it; undefined: the client left or sent too much. */
function readUntil<T>(socket: Socket, parse: (bytes: Buffer) => T | undefined) {
  return new Promise<{ value: T; bytes: Buffer } | undefined>((resolve) => {
    let bytes = Buffer.alloc(0);
    const gone = () => resolve(undefined);
    socket.once('close', gone);
    socket.on('data', function take(chunk: Buffer) {
      bytes = Buffer.concat([bytes, chunk]);
      const value = parse(bytes);
      if (value === undefined && bytes.length > MAX_HEAD_BYTES) socket.destroy();
      if (value === undefined) return;
      socket.off('data', take).off('close', gone).pause();
      resolve({ value, bytes });
    });
  });
}

/** RFC 6066 §3: the server name of a ClientHello, '' if there is none, undefined until all of it is here. */
function parseServerName(bytes: Buffer): string | undefined {
  const HANDSHAKE = 22;
  if (bytes[0] !== HANDSHAKE) return '';
  if (bytes.length < 5 || bytes.length < 5 + bytes.readUInt16BE(3)) return undefined;
  try {
    let at = 5 + 4 + 2 + 32; // record and message headers, version, random
    at += 1 + bytes.readUInt8(at); // session id
    at += 2 + bytes.readUInt16BE(at); // cipher suites
    at += 1 + bytes.readUInt8(at); // compression methods
    at += 2; // length of the extensions
    while (bytes.readUInt16BE(at) !== 0) at += 4 + bytes.readUInt16BE(at + 2);
    return bytes.toString('latin1', at + 9, at + 9 + bytes.readUInt16BE(at + 7));
  } catch {
    return '';
  }
}

interface Request {
  readonly method: string;
  readonly path: string;
  readonly host: string;
}

function parseRequest(bytes: Buffer): Request | undefined {
  const head = bytes.toString('latin1');
  if (!head.includes('\r\n\r\n')) return undefined;
  const [method = '', path = ''] = head.split(' ', 2);
  const [, host = ''] = /\r\nhost: *([^\r\n:]*)/i.exec(head) ?? [];
  return { method, path, host: host.toLowerCase() };
}

function choose(does: PolicyHost, host: string, request: Request): HttpResponse {
  if (request.method !== 'GET') return { status: 405 };
  // RFC 9110 §15.5.20: a connection for one host is not to be used for another
  if (request.host !== host) return { status: 421 };
  return (request.path === POLICY_PATH ? does.policy : does.elsewhere) ?? { status: 404 };
}

function format(response: HttpResponse): { head: Buffer; body: Buffer } {
  if (response.raw !== undefined) return { head: Buffer.alloc(0), body: Buffer.from(response.raw) };
  const content = Buffer.from(response.body ?? '');
  const headers = {
    'content-type': 'text/plain',
    ...(response.chunked ? { 'transfer-encoding': 'chunked' } : { 'content-length': `${content.length}` }),
    connection: 'close',
    ...response.headers,
  };
  const lines = Object.entries(headers).flatMap(([name, value]) =>
    value === null ? [] : [`${name}: ${value}\r\n`],
  );
  const head = Buffer.from(`HTTP/1.1 ${response.status ?? 200} Status\r\n${lines.join('')}\r\n`);
  return { head, body: response.chunked ? inChunks(content) : content };
}

function inChunks(content: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < content.length; at += CHUNK_BYTES) {
    const chunk = content.subarray(at, at + CHUNK_BYTES);
    parts.push(Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from('\r\n'));
  }
  return Buffer.concat([...parts, Buffer.from('0\r\n\r\n')]);
}

function bytesToSend({ stop }: PolicyHost, head: Buffer, body: Buffer): number {
  const whole = head.length + body.length;
  if (!stop) return whole;
  return {
    accept: 0,
    request: 0,
    'mid-headers': head.length >> 1,
    headers: head.length,
    'mid-body': head.length + (body.length >> 1),
  }[stop.at];
}

/** Bytes with the pauses between them. */
function* pieces(bytes: Buffer, trickle: Trickle | undefined): Generator<Part> {
  if (!trickle) yield bytes;
  for (let at = 0; trickle && at < bytes.length; at += trickle.bytes) {
    yield { pauseMs: trickle.everyMs };
    yield bytes.subarray(at, at + trickle.bytes);
  }
}

/** false: the client left before the end. */
async function send(socket: Socket, parts: Iterable<Part>, gone: AbortSignal): Promise<boolean> {
  for (const part of parts) {
    if (typeof part === 'string' || Buffer.isBuffer(part)) {
      if (part.length > 0) await write(socket, part, gone);
    } else if ('pauseMs' in part) {
      await pause(part.pauseMs, gone);
    } else {
      const once = Buffer.from(part.forever);
      const flood = Buffer.concat(Array<Buffer>(Math.ceil(FLOOD_BYTES / once.length)).fill(once));
      while (!gone.aborted) {
        if (part.everyMs === undefined) await write(socket, flood, gone);
        else if (await pause(part.everyMs, gone)) await write(socket, once, gone);
        // A write that fits ends at once; the client may live in this very process.
        await setImmediate();
      }
    }
    if (gone.aborted) return false;
  }
  return true;
}

/** Resolves when the second handshake is over, one way or another, or the client is gone. */
function renegotiate(socket: TLSSocket, gone: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = () => resolve();
  gone.addEventListener('abort', done, { once: true });
  socket.renegotiate({}, done);
  return promise.finally(() => gone.removeEventListener('abort', done));
}

/** Resolves when the bytes are with the operating system, or the client is gone. */
function write(socket: Socket, bytes: string | Buffer, gone: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = () => resolve();
  gone.addEventListener('abort', done, { once: true });
  socket.write(bytes, done);
  return promise.finally(() => gone.removeEventListener('abort', done));
}

function finish(raw: Socket, socket: Socket, how: End): void {
  if (how === 'reset') raw.resetAndDestroy();
  else if (how === 'close') socket.destroySoon();
  else if (how === 'cut') raw.destroySoon();
  else socket.resume();
}
