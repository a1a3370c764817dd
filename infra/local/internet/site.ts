import type { DecodedPacket, Packet } from 'dns-packet';

export type Transport = 'udp' | 'tcp';

export type Rcode =
  | 'FORMERR'
  | 'SERVFAIL'
  | 'NXDOMAIN'
  | 'NOTIMP'
  | 'REFUSED'
  | 'YXDOMAIN'
  | 'YXRRSET'
  | 'NXRRSET'
  | 'NOTAUTH'
  | 'NOTZONE'
  | 'DSOTYPENI';

/** Messages in place of a reply; a Buffer goes out as it is. */
export type Respond = (
  reply: Packet,
  query: DecodedPacket,
  transport: Transport,
) => readonly (Packet | Buffer)[];

/** What the resolver answers for one name. `{}` is a name that exists without records (NODATA). */
export interface Name {
  /** TXT records, each an array of strings of at most 255 bytes. */
  readonly txt?: readonly (readonly (string | Buffer)[])[];
  readonly a?: readonly string[];
  readonly aaaa?: readonly string[];
  /** The chain of aliases: the name is a CNAME of the first, that of the second, ..; the last has the records. */
  readonly cname?: readonly string[];
  readonly rcode?: Rcode;
  /** Seconds that answers may be kept; 0 by default, so that a change is seen at once. */
  readonly ttl?: number;
  /** RFC 2308 §3: a negative answer carries the zone's SOA; false: this one does not. */
  readonly soa?: boolean;
  /** SERVFAIL to so many questions of each type, then the truth. Stub resolvers repeat a question by themselves. */
  readonly servfailFirst?: number;
  /** What the name does from the second question of each type on. */
  readonly afterwards?: Name;
  /** Never answers. */
  readonly silent?: boolean;
  readonly delayMs?: number;
  /** Replaces the reply by any messages (none, several, another id, garbage), in the order in which they are sent. */
  readonly respond?: Respond;
  /** Over UDP, messages that come before the reply and from another port: somebody else's, who guesses. */
  readonly forge?: Respond;
  /** Over UDP the answer says that it is truncated (TC), with its records all the same (`whole`) or without. */
  readonly truncated?: 'empty' | 'whole';
  /** How answers leave over TCP: whole by default, and the connection is the client's to end. */
  readonly tcp?: {
    /** What the length in front of the message says, if not the truth. */
    readonly claimedBytes?: number;
    /** Only so many bytes of length and message are sent. */
    readonly cutAfter?: number;
    /** They come in pieces of so many bytes, with a pause before each. */
    readonly trickle?: Trickle;
    /** Afterwards. */
    readonly end?: 'close' | 'reset';
  };
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
  /** Of the body, or of all of `raw`. */
  readonly trickle?: Trickle;
  /** Sent in place of head and body. */
  readonly raw?: string | Buffer;
  /** Sent after all that, whatever the framing said. */
  readonly more?: readonly Part[];
}

/**
 * A part of what a host sends: bytes, in a write of their own; a wait; or the same bytes again and again until the
 * client leaves, as fast as it takes them or with a pause before each.
 */
export type Part =
  | string
  | Buffer
  | { readonly pauseMs: number }
  | { readonly forever: string | Buffer; readonly everyMs?: number };

/** What is sent comes in pieces of so many bytes, with a pause before each. */
export interface Trickle {
  readonly bytes: number;
  readonly everyMs: number;
}

/** `hang` keeps the connection open, `reset` sends RST, `close` ends it in order; `cut` too, but without TLS's own end. */
export type End = 'hang' | 'reset' | 'close' | 'cut';

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

/** From so many days after now until so many days after now; negative: before. */
export type Validity = readonly [fromDays: number, toDays: number];

/** What is in a certificate of a policy host. `{}` is a sound one. */
export interface Certificate {
  /** `subjectAltName`; the policy host by default. None leaves the extension out. */
  readonly names?: readonly { readonly type: 'dns' | 'ip' | 'email' | 'url'; readonly value: string }[];
  /** The policy host by default, cut at the 64 characters that there are. */
  readonly commonName?: string;
  readonly validity?: Validity;
  /** Who signed it, unless it has `intermediates`: the root by default. */
  readonly issuer?: 'root' | 'itself' | 'stranger';
  /** From the one that the root signed to the one that signed the certificate, sent along in the usual order. */
  readonly intermediates?: readonly Intermediate[];
  /** `extendedKeyUsage`; `server` by default. */
  readonly usage?: 'server' | 'client';
  /** P-256 by default; there is one key of each kind for all hosts. */
  readonly publicKey?: 'P-256' | 'RSA-1024';
  /** SHA-256 by default. */
  readonly hash?: 'SHA-256' | 'SHA-1';
  readonly extensions?: readonly Extension[];
}

export interface Intermediate {
  /** Left out of what the host sends. */
  readonly missing?: boolean;
  /** false: a certificate that may not sign others. */
  readonly authority?: boolean;
  /** How many authorities there may be below it; any number by default. */
  readonly below?: number;
  readonly validity?: Validity;
  readonly extensions?: readonly Extension[];
}

/** Any extension of X.509, as DER. */
export interface Extension {
  readonly oid: string;
  readonly critical?: boolean;
  readonly der: Buffer;
}

/** What the host does to the connection below HTTP. */
export interface Wire {
  /** Of everything, the TLS handshake included. */
  readonly trickle?: Trickle;
  /**
   * After so many bytes of what TLS has to send, or after its ServerHello, these parts are sent in place of the rest,
   * then the connection ends.
   */
  readonly breaks?: { readonly after: number | 'hello'; readonly send: readonly Part[]; readonly end: End };
}

export interface PolicyHost {
  /** `good` by default. */
  readonly certificate?: CertificateKind | Certificate;
  /** 1.3 by default. */
  readonly maxTlsVersion?: 'TLSv1' | 'TLSv1.1' | 'TLSv1.2';
  /** `http/1.1` by default. */
  readonly alpn?: readonly string[];
  /** Asks the client for a certificate: without one it is served all the same, or is not. */
  readonly clientCertificate?: 'wanted' | 'required';
  /** Starts the handshake again (TLS 1.2) before it answers. */
  readonly renegotiates?: boolean;
  readonly wire?: Wire;
  /** What becomes of the connection when the whole answer is sent; `close` by default. */
  readonly end?: End;
  /** The answer at /.well-known/mta-sts.txt; 404 by default. */
  readonly policy?: HttpResponse;
  /** The answer at any other path; 404 by default. */
  readonly elsewhere?: HttpResponse;
  /**
   * Where the host stops short, and how. `accept`: before the TLS handshake;
   * `request`: after the handshake and the request; `mid-headers`: with half of the head sent; `headers`: with the
   * head and nothing else sent; `mid-body`: with half of the body sent.
   */
  readonly stop?: {
    readonly at: 'accept' | 'request' | 'mid-headers' | 'headers' | 'mid-body';
    readonly how: End;
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
