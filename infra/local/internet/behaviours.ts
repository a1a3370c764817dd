import { gzipSync } from 'node:zlib';
import type { HttpResponse, Name, PolicyHost, Site } from './site.ts';

export interface PolicyOptions {
  /** Of the TXT record. `id1`, or `id2` where the domain announces a change. */
  readonly id?: string;
  readonly mode?: 'enforce' | 'testing' | 'none';
  /** `mail.<domain>` by default. */
  readonly mx?: readonly string[];
  /** A week by default. */
  readonly maxAgeSeconds?: number;
  /** Of the policy host, on loopback; 127.0.0.1 by default. */
  readonly address?: string;
}

interface SlowOptions extends PolicyOptions {
  readonly delayMs?: number;
}

const WEEK_SECONDS = 604_800;
const SLOW_MS = 1500;
/** One byte more than RFC 8461 §3.3 suggests as the most to accept. */
const OVERSIZED_BYTES = 65_537;
/** On loopback, where the policy hosts do not listen. macOS has no 127.0.0.99; elsewhere IPv6 may be missing. */
const CLOSED: Name = process.platform === 'darwin' ? { aaaa: ['::1'] } : { a: ['127.0.0.99'] };

/** The policy that the behaviours serve: RFC 8461 §3.2, lines ended by CRLF. */
export function policyText(domain: string, options: PolicyOptions = {}): string {
  const { mode = 'enforce', mx = [`mail.${domain}`], maxAgeSeconds = WEEK_SECONDS } = options;
  const lines = ['version: STSv1', `mode: ${mode}`, ...mx.map((name) => `mx: ${name}`)];
  return [...lines, `max_age: ${maxAgeSeconds}`, ''].join('\r\n');
}

/** A sound domain; `id2` if its host is to be visited by a sender that holds the policy of `id1`. */
function sound(domain: string, options: PolicyOptions, id = 'id1'): Required<Site> {
  return {
    record: { txt: [[`v=STSv1; id=${options.id ?? id};`]] },
    host: { a: [options.address ?? '127.0.0.1'] },
    https: { policy: { body: policyText(domain, options) } },
  };
}

/** A domain with the record of a change, and a host with something else about it than the policy. */
function host(domain: string, options: PolicyOptions, differs: PolicyHost): Site {
  const site = sound(domain, options, 'id2');
  return { ...site, https: { ...site.https, ...differs } };
}

/** The same, where what differs is the answer at the policy's path. */
function answering(domain: string, options: PolicyOptions, differs: HttpResponse): Site {
  return host(domain, options, { policy: { body: policyText(domain, options), ...differs } });
}

function oversized(domain: string, options: PolicyOptions): string {
  const mx = `mx: mail.${domain}\r\n`;
  return policyText(domain, options) + mx.repeat(Math.ceil(OVERSIZED_BYTES / mx.length));
}

type Behaviour = (domain: string, options?: SlowOptions) => Site;

/**
 * What a policy domain can do, by name. The comments say what a sender should conclude; "keeps" is to keep and
 * use the policy that it holds. Where the lookup works and the point is the fetch, the record has a new id.
 */
export const behaviours = {
  /** The record's id is the one held: the policy is extended without a fetch. */
  healthy: (domain, options = {}) => sound(domain, options),
  /** Fetch: the same policy, under a new id. */
  'changed-id': (domain, options = {}) => sound(domain, options, 'id2'),
  /** Fetch: another policy replaces the one held. */
  'changed-policy': (domain, options = {}) =>
    sound(
      domain,
      { mx: [`mx1.${domain}`, `mx2.${domain}`], maxAgeSeconds: 2 * WEEK_SECONDS, ...options },
      'id2',
    ),
  /** Fetch: the domain is leaving; the policy `none` replaces the one held. */
  'mode-none': (domain, options = {}) => sound(domain, { mode: 'none', ...options }, 'id2'),
  /** Fetch: the policy is only to be reported on from now on. */
  'mode-testing': (domain, options = {}) => sound(domain, { mode: 'testing', ...options }, 'id2'),
  /** Fetch after a slow start; no reason to keep others waiting. */
  slow: (domain, options = {}) => answering(domain, options, { delayMs: options.delayMs ?? SLOW_MS }),
  /** The record and the host are aliases at a provider's: nothing unusual. */
  delegated: (domain, options = {}) => {
    const { record, host, https } = sound(domain, options);
    return {
      record: { ...record, cname: [`_mta-sts.${domain}.provider.test`, '_mta-sts.provider.test'] },
      host: { ...host, cname: ['mta-sts.provider.test'] },
      https,
    };
  },

  /** No record, but a policy: fetch it all the same if one is held (RFC 8461 §3.3), else there is no MTA-STS. */
  'record-gone': (domain, options = {}) => ({ ...sound(domain, options), record: { rcode: 'NXDOMAIN' } }),
  /** Neither record nor host: keeps what is held until it expires. */
  nxdomain: () => ({ record: { rcode: 'NXDOMAIN' }, host: { rcode: 'NXDOMAIN' } }),
  /** The record cannot be looked up: fetch all the same if a policy is held. */
  servfail: (domain, options = {}) => ({ ...sound(domain, options), record: { rcode: 'SERVFAIL' } }),
  /** DNS is down for the whole domain: keeps. */
  'servfail-all': () => ({ record: { rcode: 'SERVFAIL' }, host: { rcode: 'SERVFAIL' } }),
  /** DNS never answers for the whole domain: gives up in time, and keeps. */
  'no-answer': () => ({ record: { silent: true }, host: { silent: true } }),
  /** Two STS records are as good as none (RFC 8461 §3.1), but not "absent". */
  'two-records': (domain, options = {}) => ({
    ...sound(domain, options),
    record: { txt: [['v=STSv1; id=id1;'], ['v=STSv1; id=id2;']] },
  }),
  /** The id breaks the grammar: the record is unusable. */
  'malformed-record': (domain, options = {}) => ({
    ...sound(domain, options),
    record: { txt: [['v=STSv1; id=not-an-id;']] },
  }),

  /** Nothing listens at the policy host's address: keeps. */
  'host-down': (domain, options = {}) => ({ ...sound(domain, options, 'id2'), host: CLOSED }),
  /** Accepts connections and says nothing: keeps, after no longer than the sender's own limit. */
  hang: (domain, options = {}) => host(domain, options, { stop: { at: 'accept', how: 'hang' } }),
  /** The connection breaks after the request: keeps. */
  reset: (domain, options = {}) => host(domain, options, { stop: { at: 'request', how: 'reset' } }),
  /** The certificate names other hosts (RFC 8461 §3.3): keeps. */
  'wrong-certificate': (domain, options = {}) => host(domain, options, { certificate: 'wrong-name' }),
  /** Keeps. */
  'expired-certificate': (domain, options = {}) => host(domain, options, { certificate: 'expired' }),
  /** The certificate chains to nobody: keeps. */
  'self-signed': (domain, options = {}) => host(domain, options, { certificate: 'self-signed' }),
  /** RFC 8461 §3.3 with RFC 8996: TLS 1.1 is not to be used; keeps. */
  'old-tls': (domain, options = {}) => host(domain, options, { maxTlsVersion: 'TLSv1.1' }),
  /** Keeps. */
  'not-found': (domain, options = {}) => answering(domain, options, { status: 404, body: 'not found\n' }),
  /** Keeps. */
  'server-error': (domain, options = {}) => answering(domain, options, { status: 500, body: 'error\n' }),
  /** RFC 8461 §3.3: "HTTP 3xx redirects MUST NOT be followed"; keeps, and never sees the policy over there. */
  redirect: (domain, options = {}) =>
    host(domain, options, {
      policy: { status: 302, headers: { location: '/elsewhere.txt' } },
      elsewhere: { body: policyText(domain, options) },
    }),
  /** A policy, called HTML: the media type guards against other people's uploads (RFC 8461 §3.2); keeps. */
  html: (domain, options = {}) => answering(domain, options, { headers: { 'content-type': 'text/html' } }),
  /** A policy in a content coding that nobody asked for: keeps. */
  gzip: (domain, options = {}) =>
    answering(domain, options, {
      headers: { 'content-encoding': 'gzip' },
      body: gzipSync(policyText(domain, options)),
    }),
  /** More than 64 KiB, as the headers say: keeps. */
  oversized: (domain, options = {}) => answering(domain, options, { body: oversized(domain, options) }),
  /** More than 64 KiB, which only shows as it comes: keeps. */
  'oversized-chunked': (domain, options = {}) =>
    answering(domain, options, { body: oversized(domain, options), chunked: true }),
  /** max_age is not a number: the whole policy is invalid (RFC 8461 §3.2); keeps. */
  'invalid-policy': (domain, options = {}) =>
    answering(domain, options, {
      body: policyText(domain, options).replace(/max_age: \d+/, 'max_age: a week'),
    }),
  /** Not HTTP: keeps. */
  garbage: (domain, options = {}) => answering(domain, options, { raw: '220 mail ready\r\n\r\n' }),
} as const satisfies Record<string, Behaviour>;

export type BehaviourName = keyof typeof behaviours;
