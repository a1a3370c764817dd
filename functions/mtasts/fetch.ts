// The HTTPS fetch of a policy (RFC 8461 §3.3). The other end belongs to a stranger who may be hostile: every phase
// is limited in time, the body in size, and the connection goes only to an address that was vetted beforehand.

import { constants, type X509Certificate } from 'node:crypto';
import net from 'node:net';
import tls from 'node:tls';
import { Client, type Dispatcher } from 'undici';
import { isPublicAddress } from './address.ts';
import { type Domain, policyHost } from './domain.ts';
import { type Failure, type FailureCode, failure, quote } from './failure.ts';
import { fieldMembers } from './field-list.ts';
import type { Gate, Slot } from './gate.ts';
import type { Limits } from './limits.ts';
import { type Policy, parsePolicy } from './policy.ts';
import type { Answer, Resolver } from './resolver.ts';
import { createResponseHead, type ResponseHead } from './response-head.ts';

/** `text` is the policy exactly as served. */
export type Fetched =
  | { readonly ok: true; readonly policy: Policy; readonly text: string }
  | { readonly ok: false; readonly failure: Failure };

/** The time was over before the policy host had a slot, or as good as over: nothing is known of the domain. */
export type NotStarted = 'not-started';

export interface FetchOptions {
  readonly resolver: Resolver;
  readonly gate: Gate;
  readonly secureContext: tls.SecureContext;
  readonly limits: Limits;
  /** Ends the fetch with `deadline-exceeded`. */
  readonly signal: AbortSignal;
  readonly port: number;
  /** Lets policy hosts have loopback and private addresses: for local use only. */
  readonly allowPrivateAddresses: boolean;
}

/** A host with more addresses than this is not helped by trying them all; a hostile one may list thousands. */
const MAX_ADDRESSES = 8;

const POLICY_PATH = '/.well-known/mta-sts.txt';

/** Carries an expected failure out of a phase; never leaves this file. */
class PolicyHostFailure extends Error {
  readonly failure: Failure;
  constructor(code: FailureCode, detail: string, cause?: unknown) {
    super(detail, { cause });
    this.failure = failure(code, detail, cause);
  }
}

/** An address that takes no connection: another may. */
class Unreached extends PolicyHostFailure {}

/**
 * Fetches and parses the policy of a domain. Never rejects for anything that the domain's DNS or web server does;
 * when it settles, nothing is left open.
 */
export async function fetchPolicy(domain: Domain, options: FetchOptions): Promise<Fetched | NotStarted> {
  const host = policyHost(domain);
  try {
    const socket = await connect(host, options);
    if (socket === 'not-started') return socket;
    const text = await download(host, socket, options);
    const parsed = parsePolicy(text);
    return parsed.ok ? { ...parsed, text } : parsed;
  } catch (error) {
    if (options.signal.aborted) {
      return {
        ok: false,
        failure: failure('deadline-exceeded', `out of time while fetching from ${host}`, error),
      };
    }
    if (error instanceof PolicyHostFailure) return { ok: false, failure: error.failure };
    throw error;
  }
}

/** The addresses to try: those of IPv4, and then, for whoever still needs one, those of IPv6. */
async function* vettedAddresses(
  host: string,
  { resolver, signal, allowPrivateAddresses }: FetchOptions,
): AsyncGenerator<readonly string[], void> {
  const answers: Answer[] = [];
  let left = MAX_ADDRESSES;
  for await (const answer of resolver.addresses(host, signal)) {
    answers.push(answer);
    const allowed = valuesOf(answer).filter((address) => allowPrivateAddresses || isPublicAddress(address));
    const vetted = [...new Set(allowed)].slice(0, left);
    if (vetted.length > 0) yield vetted;
    left -= vetted.length;
    if (left === 0) return;
  }
  if (left < MAX_ADDRESSES) return;
  const refused = answers.flatMap(valuesOf).slice(0, MAX_ADDRESSES);
  if (refused.length > 0) {
    const which = quote(refused.join(', '));
    throw new PolicyHostFailure('address-forbidden', `${host} has no public address, only ${which}`);
  }
  const unavailable = answers.find((answer) => answer.status === 'unavailable');
  if (unavailable === undefined) throw new PolicyHostFailure('host-absent', `${host} has no address`);
  const { code, detail, cause } = unavailable.failure;
  throw new PolicyHostFailure(code, detail, cause);
}

const valuesOf = (answer: Answer): readonly string[] => (answer.status === 'found' ? answer.values : []);

const DONE = new Error('the fetch has ended');

/** Ends the connection, whatever comes of it. */
async function download(host: string, socket: tls.TLSSocket, options: FetchOptions): Promise<string> {
  const { limits, signal, port } = options;
  let handedOver = false;
  const client = new Client(`https://${host}:${port}`, {
    // One connection, one request: the socket made above is used once and never replaced. undici knows no connector
    // that answers within its own call.
    connect: (_, callback) => {
      const first = !handedOver;
      handedOver = true;
      queueMicrotask(() => {
        if (first) callback(null, socket);
        else callback(Object.assign(new Error('closed too early'), { code: 'ECONNRESET' }), null);
      });
    },
    allowH2: false,
    pipelining: 1,
    // undici starts the first again at each informational (1xx) response, and both can be a second late.
    headersTimeout: 0,
    bodyTimeout: 0,
    maxResponseSize: limits.policyBytes,
  });
  const end = (reason?: PolicyHostFailure) => void client.destroy(reason ?? null);
  socket.on('readable', () => {
    if (socket.bytesRead <= limits.answerBytes) return;
    end(
      new PolicyHostFailure('http-malformed', `${host} sends more than ${limits.answerBytes} bytes in all`),
    );
  });
  const head = createResponseHead();
  // undici reads the socket. Whatever it reads is heard here too, ahead of it.
  socket.on('data', head.add);
  // The server has ended the connection, or somebody on the path has: what was to come may be missing. undici destroys
  // the socket for errors of its own, with which nothing was cut.
  let cut = false;
  socket.once('end', () => {
    cut = true;
  });
  socket.once('error', (error: NodeJS.ErrnoException) => {
    cut ||= error.syscall !== undefined;
  });
  const onAbort = () => end();
  signal.addEventListener('abort', onAbort, { once: true });
  let timer = setTimeout(() => {
    end(new PolicyHostFailure('http-headers-timeout', `${host}: no answer within ${limits.headersMs} ms`));
  }, limits.headersMs);
  try {
    signal.throwIfAborted();
    // RFC 8461 §3.3: "HTTP 3xx redirects MUST NOT be followed, and HTTP caching MUST NOT be used": undici's Client
    // does neither.
    const response = await client.request({
      method: 'GET',
      path: POLICY_PATH,
      headers: { accept: 'text/plain', 'accept-encoding': 'identity', 'user-agent': 'mta-sts-refresher' },
    });
    clearTimeout(timer);
    timer = setTimeout(() => {
      end(new PolicyHostFailure('http-body-timeout', `${host}: body stood still ${limits.bodyIdleMs} ms`));
    }, limits.bodyIdleMs);
    checkHeaders(host, response);
    checkLength(host, response, limits);
    const chunks: Buffer[] = [];
    for await (const chunk of response.body) {
      timer.refresh();
      chunks.push(chunk);
    }
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
    checkEnd(host, response, { head, received: socket.bytesRead, text });
    return text;
  } catch (error) {
    if (signal.aborted || error instanceof PolicyHostFailure) throw error;
    throw httpFailure(host, error, { limits, cut, head });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
    // Without a reason undici would make an error with a stack, which nobody sees.
    await client.destroy(DONE);
    socket.destroy();
  }
}

/** Opens a verified TLS connection to the first of the vetted addresses that takes one. */
async function connect(host: string, options: FetchOptions): Promise<tls.TLSSocket | NotStarted> {
  const { limits, signal, port, gate, secureContext } = options;
  // Trying is limited, waiting for others to finish with an address only by the domain's own time.
  let leftMs = limits.connectMs;
  let told: Unreached | undefined;
  for await (const addresses of vettedAddresses(host, options)) {
    signal.throwIfAborted();
    let untried = addresses;
    const shareMs = Math.max(250, leftMs / addresses.length);
    while (untried.length > 0) {
      // The addresses serve the same policy, so one that is free is as good as one that is not. Where none is, to wait
      // is better than to fail a domain for what its neighbours do. A slot is of the address that is connected to, not
      // of those that are listed: a domain that lists a stranger's address beside its own slow one holds only its own.
      const slot = await gate.enter(untried, signal);
      const first = told === undefined;
      if (slot === undefined && first) return 'not-started';
      if (slot === undefined) throw signal.reason;
      untried = untried.filter((address) => address !== slot.address);
      const reachMs = untried.length === 0 ? leftMs : Math.min(shareMs, leftMs);
      const start = performance.now();
      try {
        return await connectTo(slot, { host, port, signal, secureContext, limits, reachMs, leftMs });
      } catch (error) {
        // Those who wait run out of time at about the same moment: a slot that one gives back helps no other.
        if (signal.aborted && first && slot.waited) return 'not-started';
        if (!(error instanceof Unreached)) throw error;
        leftMs -= Math.ceil(performance.now() - start);
        // What used up the time is the reason; else the first, since where there is no IPv6, the others say just that.
        if (told === undefined || error.failure.code === 'connect-timeout') told = error;
        if (leftMs <= 0) throw told;
      }
    }
  }
  throw told;
}

interface Attempt extends Pick<FetchOptions, 'port' | 'signal' | 'secureContext' | 'limits'> {
  readonly host: string;
  /** Milliseconds until the address has taken the connection. */
  readonly reachMs: number;
  /** Milliseconds for that and the TLS handshake. */
  readonly leftMs: number;
}

/** What all connections to policy hosts have in common. To make it costs half as much as a handshake: once is enough. */
export function createSecureContext(): tls.SecureContext {
  return tls.createSecureContext({
    // RFC 8461 §3.3 with RFC 8996.
    minVersion: 'TLSv1.2',
    // A server that shakes hands again and again would keep this process busy until the time is over.
    //
    // RFC 5746 §4.1 leaves it to the client whether it talks to a server that does not know secure renegotiation. The TLS of
    // other senders does: Go's (mox, postfix-tlspol), BoringSSL, NSS, GnuTLS, OpenSSL 1.1.1. OpenSSL 3 has to be told to.
    // Without its policy the domain's mail is protected from nobody. With it one attack is left: where such a server also
    // renegotiates, somebody on the path can put a request before ours and have that answered instead (§1). The answer
    // has to be text/plain and a policy, so he needs a place to write to on the same server. TLS 1.3 cannot renegotiate.
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_LEGACY_SERVER_CONNECT,
    // Node also offers a post-quantum key exchange, whose 1.2 KB are two thirds of what a fetch sends. It protects
    // what is said against being deciphered in years to come, and a policy is public.
    ecdhCurve: 'X25519:P-256:P-384:P-521',
  });
}

/** At the speed at which TLS is worked through, half a megabyte. */
const WATCH_MS = 100;

/** The slot is held until the connection is closed, by whomever. Rejects with Unreached if there was none. */
function connectTo(
  slot: Slot,
  { host, port, signal, secureContext, limits, reachMs, leftMs }: Attempt,
): Promise<tls.TLSSocket> {
  // The name was resolved and vetted already. Whatever DNS says now, the socket goes to this address.
  const wire = net.connect({ host: slot.address, port });
  // The one above it reports its errors too.
  wire.on('error', () => {});
  const socket: tls.TLSSocket = tls.connect({
    socket: wire,
    servername: host,
    secureContext,
    ALPNProtocols: ['http/1.1'],
    rejectUnauthorized: true,
    checkServerIdentity: (name) => checkPolicyHostIdentity(name, socket.getPeerX509Certificate()),
  });
  // Node would describe the whole chain to the check, in objects: a twelfth of the processor time of a fetch.
  socket.getPeerCertificate = () => ({}) as tls.DetailedPeerCertificate;
  socket.once('close', slot.leave);
  // By the clock, as nobody is told of what TLS keeps to itself; and below it, as `socket.bytesRead` leaves that out.
  const watch = setInterval(() => {
    if (wire.bytesRead <= limits.connectionBytes) return;
    const detail = `${host} sends more than ${limits.connectionBytes} bytes of TLS`;
    socket.destroy(new PolicyHostFailure('http-malformed', detail));
  }, WATCH_MS);
  socket.once('close', () => clearInterval(watch));
  return new Promise((resolve, reject) => {
    let connected = false;
    const settle = (error?: unknown) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      if (error === undefined) return resolve(socket);
      socket.destroy();
      reject(error);
    };
    const outOfTime = (doing: string, ms: number) =>
      `${host}: ${doing} ${slot.address} within ${Math.round(ms)} ms`;
    const unreached = () => settle(new Unreached('connect-timeout', outOfTime('no connection to', reachMs)));
    const handshakeLate = () =>
      settle(new PolicyHostFailure('connect-timeout', outOfTime('TLS handshake unfinished with', leftMs)));
    let timer = setTimeout(unreached, reachMs);
    const onAbort = () => settle(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    const start = performance.now();
    socket.once('connect', () => {
      connected = true;
      clearTimeout(timer);
      timer = setTimeout(handshakeLate, leftMs - (performance.now() - start));
    });
    socket.once('secureConnect', () => settle());
    // Stays for the life of the socket: an error after settling is somebody else's to report, but must have a listener.
    socket.on('error', (error: NodeJS.ErrnoException) =>
      settle(
        error instanceof PolicyHostFailure
          ? error
          : connectFailure(host, error, { connected, certificate: Boolean(socket.authorizationError) }),
      ),
    );
  });
}

/**
 * RFC 8461 §3.3: the certificate "MUST be valid" for the policy host, matched by DNS-ID as in RFC 6125: no common
 * name, and a wildcard only as the whole left-most label. Node's own check accepts more.
 */
function checkPolicyHostIdentity(host: string, peer: X509Certificate | undefined): Error | undefined {
  const matched = peer?.checkHost(host, {
    subject: 'never',
    partialWildcards: false,
    multiLabelWildcards: false,
    singleLabelSubdomains: false,
  });
  if (matched !== undefined) return undefined;
  return Object.assign(
    new Error(`certificate is for ${quote(peer?.subjectAltName ?? 'no DNS name at all')}`),
    {
      code: 'ERR_TLS_CERT_ALTNAME_INVALID',
    },
  );
}

function connectFailure(
  host: string,
  error: NodeJS.ErrnoException,
  { connected, certificate }: { connected: boolean; certificate: boolean },
): PolicyHostFailure {
  // OpenSSL's own reason is short; Node's message adds source lines, or advice that is not for operators.
  const { reason: openssl } = error as { reason?: string };
  const text = openssl ?? (error.message.split(';', 1)[0] || error.code);
  const reason = `${host}: ${quote(text ?? 'unknown error')}`;
  if (certificate) {
    if (error.code === 'CERT_HAS_EXPIRED' || error.code === 'CERT_NOT_YET_VALID') {
      return new PolicyHostFailure('certificate-expired', reason, error);
    }
    if (error.code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
      return new PolicyHostFailure('certificate-name-mismatch', reason, error);
    }
    return new PolicyHostFailure('certificate-untrusted', reason, error);
  }
  if (connected) return new PolicyHostFailure('tls-failed', reason, error);
  if (error.code === 'ECONNREFUSED') return new Unreached('connect-refused', reason, error);
  if (error.code === 'ETIMEDOUT') return new Unreached('connect-timeout', reason, error);
  return new Unreached('connect-failed', reason, error);
}

function checkHeaders(host: string, { statusCode, headers }: Dispatcher.ResponseData): void {
  if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
    const location = quote(String(headers.location));
    throw new PolicyHostFailure('http-redirect', `${host} redirects (${statusCode}) to ${location}`);
  }
  // RFC 8461 §3.3: "Policies fetched via HTTPS are only valid if the HTTP response code is 200 (OK)."
  if (statusCode !== 200) throw new PolicyHostFailure('http-status', `${host} answered ${statusCode}`);
  // RFC 8461 §3.3: "SHOULD validate that the media type is "text/plain"", so that a stranger's upload area on a
  // shared web server cannot pass for a policy. Parameters are ignored.
  //
  // RFC 9110 §8.3 allows one Content-Type. Web servers send it twice all the same (nginx with "add_header Content-Type"),
  // and proxies join the two. RFC 9110 has recipients take the last one; here all have to agree, so that nobody can read
  // the answer as anything else. Empty members say nothing (§5.6.1.2).
  const types = fieldMembers(headers['content-type']).filter((type) => type !== '');
  if (types.length === 0 || !types.every(isTextPlain)) {
    const given = types.length === 0 ? 'no media type' : quote(types.join(', '));
    throw new PolicyHostFailure('http-media-type', `${host} sends ${given} instead of text/plain`);
  }
  // RFC 9110 §8.4: a list of codings, in which empty members say nothing (§5.6.1.2). "identity" is no coding (§8.4.1).
  const codings = fieldMembers(headers['content-encoding']);
  if (!codings.every((coding) => coding === '' || coding.toLowerCase() === 'identity')) {
    throw new PolicyHostFailure(
      'http-encoding',
      `${host} sends content encoding ${quote(codings.join(', '))}`,
    );
  }
}

function isTextPlain(type: string): boolean {
  return type.split(';', 1)[0]?.trim().toLowerCase() === 'text/plain';
}

/** What says that it is too large is not waited for. */
function checkLength(host: string, { headers }: Dispatcher.ResponseData, { policyBytes }: Limits): void {
  if (Number(headers['content-length'] ?? 0) <= policyBytes) return;
  throw new PolicyHostFailure('policy-too-large', `${host} sends more than ${policyBytes} bytes`);
}

/**
 * That the body is whole. Cut within a line, `max_age: 604800` could become `max_age: 6`. At a line end no harm is done: a
 * policy that lost whole lines is invalid or stricter. So a last line without its end counts only where something else
 * says that the body ends there: a length that is right, or chunks.
 *
 * Without these a body ends with the connection, and whoever is on the path can end that. RFC 9112 §9.8 has TLS tell the
 * difference (close_notify), but Node does not pass it on.
 *
 * @param answer.received bytes that the server has sent so far, TLS taken off.
 */
function checkEnd(
  host: string,
  { headers }: Dispatcher.ResponseData,
  { head, received, text }: { head: ResponseHead; received: number; text: string },
): void {
  const length = headers['content-length'];
  if (length !== undefined) {
    // RFC 9112 §6.3: more data may mean that the length is wrong. Only what has come along with the body is seen: a server
    // that keeps the connection would have every fetch wait, and one policy in four ends without a line end.
    if (head.bytes !== undefined && received <= head.bytes + Number(length)) return;
    throw new PolicyHostFailure(
      'http-malformed',
      `${host} sends more than the Content-Length that it announces`,
    );
  }
  // RFC 9112 §6.3: only where chunked is the last coding do chunks end the body. Compared exactly and without regard to
  // quotes, as undici's parser does: "x-chunked" is read to the end of the connection.
  const codings = String(headers['transfer-encoding'] ?? '').split(',');
  if (codings.at(-1)?.trim().toLowerCase() === 'chunked' || text.endsWith('\n')) return;
  throw new PolicyHostFailure('http-aborted', `${host}: the body may have been cut short`);
}

const UNKNOWN_FLAW = 'its head breaks the grammar of HTTP/1.1';

interface Exchange {
  readonly limits: Limits;
  /** The connection ended, and not by our doing. */
  readonly cut: boolean;
  readonly head: ResponseHead;
}

function httpFailure(host: string, error: unknown, { limits, cut, head }: Exchange): Error {
  const { code = '', message, name } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'UND_ERR_RES_EXCEEDED_MAX_SIZE':
      return new PolicyHostFailure(
        'policy-too-large',
        `${host} sends more than ${limits.policyBytes} bytes`,
        error,
      );
    case 'UND_ERR_HEADERS_OVERFLOW':
      return new PolicyHostFailure('http-malformed', `${host}: headers too large`, error);
    case 'ERR_ENCODING_INVALID_ENCODED_DATA':
      return new PolicyHostFailure('policy-invalid', `${host}: the policy is not UTF-8`, error);
    // After a Content-Length undici calls every flaw a wrong length; and it takes neither 100 nor 101, which nobody has
    // asked for, and says no more than that.
    case 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH':
    case 'UND_ERR_SOCKET':
      if (cut) break;
      return new PolicyHostFailure('http-malformed', `${host}: ${head.flaw() ?? UNKNOWN_FLAW}`, error);
  }
  if (name === 'HTTPParserError') {
    // To the parser, the end of the connection within chunks is an error in them.
    if (cut) return new PolicyHostFailure('http-aborted', `${host}: closed within the body`, error);
    return new PolicyHostFailure('http-malformed', `${host}: ${head.flaw() ?? quote(message)}`, error);
  }
  // What is left of coded errors is the connection: closed early, reset, a TLS alert.
  if (code !== '') return new PolicyHostFailure('http-aborted', `${host}: ${quote(message)}`, error);
  return error as Error;
}
