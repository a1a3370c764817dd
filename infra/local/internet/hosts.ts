import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import { createSecureContext, type SecureContext, TLSSocket } from 'node:tls';
import { createAuthority } from './certificates.ts';
import { type Listener, listen, pause } from './listener.ts';
import type { HttpResponse, PolicyHost } from './site.ts';

const POLICY_PATH = '/.well-known/mta-sts.txt';
const CHUNK_BYTES = 16_384;
/** Enough for any ClientHello or request head; a client that sends more is cut off. */
const MAX_HEAD_BYTES = 65_536;
/** OpenSSL 3 offers TLS 1.0 and 1.1 at security level 0 alone. */
const OLD_TLS = { minVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;

export interface PolicyHosts extends Listener {
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
export async function startPolicyHosts(visits: Visits, port: number): Promise<PolicyHosts> {
  const authority = await createAuthority();
  const contexts = new Map<string, Promise<SecureContext>>();

  function contextFor(host: string, does: PolicyHost): Promise<SecureContext> {
    const { certificate = 'good', maxTlsVersion } = does;
    const id = `${certificate} ${maxTlsVersion} ${host}`;
    const context =
      contexts.get(id) ??
      authority.issue(certificate, host).then((cert) =>
        createSecureContext({
          key: authority.key,
          cert,
          secureOptions: constants.SSL_OP_NO_TICKET, // a resumed session would not show the certificate
          ...(maxTlsVersion && { ...OLD_TLS, maxVersion: maxTlsVersion }),
        }),
      );
    contexts.set(id, context);
    return context;
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
    const socket = new TLSSocket(raw, { isServer: true, secureContext, ALPNProtocols: ['http/1.1'] });
    socket.on('error', () => {}); // a client that rejects the certificate says so and leaves
    const request = await readUntil(socket, parseRequest);
    if (!request) return;
    socket.resume(); // to see the client leave
    visits.request(host, request.value.path);

    const response = choose(does, host, request.value);
    const { head, body } = format(response);
    const message = Buffer.concat([head, body]).subarray(0, bytesToSend(does, head, body));
    if (response.delayMs && !(await pause(response.delayMs, gone))) return;
    const { trickle } = response;
    let sent = trickle ? head.length : message.length;
    await write(socket, message.subarray(0, sent));
    while (trickle && sent < message.length) {
      if (!(await pause(trickle.everyMs, gone))) return;
      await write(socket, message.subarray(sent, sent + trickle.bytes));
      sent += trickle.bytes;
    }
    finish(raw, socket, does.stop?.how ?? 'close');
  }

  const listener = await listen(port, (raw, gone) => {
    serve(raw, gone).catch((error: unknown) => {
      console.error(error);
      raw.destroy();
    });
  });
  return { ...listener, ca: authority.ca };
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

function write(socket: Socket, bytes: Buffer): Promise<void> {
  return new Promise((done) => socket.write(bytes, () => done()));
}

function finish(raw: Socket, socket: Socket, how: 'hang' | 'reset' | 'close'): void {
  if (how === 'reset') raw.resetAndDestroy();
  else if (how === 'close') socket.destroySoon();
  else socket.resume();
}
