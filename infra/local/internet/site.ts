import type { DecodedPacket, Packet } from 'dns-packet';

export type Transport = 'udp' | 'tcp';

/**
 * What the resolver answers for one name. `{}` is a name that exists without records (NODATA). Answers have a
 * time to live of 0, so that a change is seen at once.
 */
export interface Name {
  /** TXT records, each an array of strings of at most 255 bytes. */
  readonly txt?: readonly (readonly (string | Buffer)[])[];
  readonly a?: readonly string[];
  readonly aaaa?: readonly string[];
  /** The chain of aliases: the name is a CNAME of the first, that of the second, ..; the last has the records. */
  readonly cname?: readonly string[];
  readonly rcode?: 'FORMERR' | 'SERVFAIL' | 'NXDOMAIN' | 'NOTIMP' | 'REFUSED';
  /** SERVFAIL to so many questions of each type, then the truth. Stub resolvers repeat a question by themselves. */
  readonly servfailFirst?: number;
  /** Never answers. */
  readonly silent?: boolean;
  readonly delayMs?: number;
  /** Replaces the reply by any messages (none, several, another id, garbage), in the order in which they are sent. */
  readonly respond?: (
    reply: Packet,
    query: DecodedPacket,
    transport: Transport,
  ) => readonly (Packet | Buffer)[];
}

export interface HttpResponse {
  /** 200 by default. */
  readonly status?: number;
  /** Over the defaults (text/plain and honest framing); null leaves a header out. */
  readonly headers?: Readonly<Record<string, string | null>>;
  readonly body?: string | Buffer;
  /** Frames the body in chunks instead of by its length. */
  readonly chunked?: boolean;
  /** Wait before the first byte. */
  readonly delayMs?: number;
  /** The body, or all of `raw`, comes in pieces of so many bytes, with a pause before each. */
  readonly trickle?: { readonly bytes: number; readonly everyMs: number };
  /** Sent in place of head and body. */
  readonly raw?: string | Buffer;
}

export type CertificateKind =
  | 'good'
  | 'upper-case'
  | 'wildcard'
  | 'deep-wildcard'
  | 'partial-wildcard'
  | 'wrong-name'
  | 'hostile-names'
  | 'common-name-only'
  | 'address-only'
  | 'expired'
  | 'not-yet-valid'
  | 'self-signed'
  | 'untrusted-root';

export interface PolicyHost {
  /** `good` by default. */
  readonly certificate?: CertificateKind;
  /** 1.3 by default. */
  readonly maxTlsVersion?: 'TLSv1' | 'TLSv1.1' | 'TLSv1.2';
  /** The answer at /.well-known/mta-sts.txt; 404 by default. */
  readonly policy?: HttpResponse;
  /** The answer at any other path; 404 by default. */
  readonly elsewhere?: HttpResponse;
  /**
   * Where the host stops, and how. `accept`: before the TLS handshake; `request`: after the handshake and
   * the request; `mid-headers`: with half of the head sent; `headers`: with the head and nothing else sent;
   * `mid-body`: with half of the body sent. `hang` keeps the connection open, `reset` sends RST, `close` ends
   * it in order, as if that were all.
   */
  readonly stop?: {
    readonly at: 'accept' | 'request' | 'mid-headers' | 'headers' | 'mid-body';
    readonly how: 'hang' | 'reset' | 'close';
  };
}

/** What one policy domain does. `{}` has no record, and a sound web server without a policy. */
export interface Site {
  /** `_mta-sts.<domain>`; without it the name does not exist. */
  readonly record?: Name;
  /** `mta-sts.<domain>` in DNS; 127.0.0.1 by default. */
  readonly host?: Name;
  /** `mta-sts.<domain>` on the policy host port. */
  readonly https?: PolicyHost;
}
