// Every limit of a lookup and a fetch in one place, passed as an argument so that tests can shorten them.

import { MAX_POLICY_BYTES } from './policy.ts';

export interface Limits {
  /** Milliseconds for one domain, everything included. RFC 8461 §3.3 suggests a timeout of one minute. */
  readonly domainMs: number;
  /** Milliseconds for one DNS question, retries and other servers included. */
  readonly dnsMs: number;
  /** Milliseconds for connecting to the policy host, TLS handshake included, all of its addresses together. */
  readonly connectMs: number;
  /** Connections at once to one address, from one process: the next waits, within its domain's time. */
  readonly connectionsPerAddress: number;
  /** Milliseconds from the request to the end of the response's headers. */
  readonly headersMs: number;
  /** Milliseconds that the body may stand still. */
  readonly bodyIdleMs: number;
  /** Bytes of a policy, however it is framed. RFC 8461 §3.3 suggests 64 kilobytes. */
  readonly policyBytes: number;
  /**
   * Bytes of the whole answer: headers, informational answers and framing. Without it a host could send gigabytes that
   * are no body, and keep the processor from its neighbours in the batch.
   */
  readonly answerBytes: number;
  /**
   * The same with all of TLS around it. After the handshake, too, a host can send what is no answer at all (session tickets,
   * key updates), and each has to be worked through.
   */
  readonly connectionBytes: number;
  /** Milliseconds before the policy of a record id that failed is asked for again. RFC 8461 §3.3: "five minutes or longer". */
  readonly retryAfterMs: number;
}

export const LIMITS: Limits = Object.freeze({
  domainMs: 60_000,
  dnsMs: 10_000,
  connectMs: 10_000,
  // As many as a browser opens to one server. At a tenth of a second each, a batch of 100 domains on one address is
  // done in three.
  connectionsPerAddress: 4,
  // Half of the minute that RFC 8461 §3.3 suggests for all of it. Hosts that start when they are asked have been seen to
  // take 12 s. Two questions to DNS and a connection that use up their limits leave so much. A longer one costs more of
  // the batch, and of the slots of an address that slow hosts share with others (see README's decisions).
  headersMs: 30_000,
  bodyIdleMs: 10_000,
  policyBytes: MAX_POLICY_BYTES,
  // Room for the largest policy in chunks of one byte, which take six.
  answerBytes: 8 * MAX_POLICY_BYTES,
  // The framing of TLS takes as much again at most, unless each record has but a few bytes.
  connectionBytes: 16 * MAX_POLICY_BYTES,
  retryAfterMs: 300_000,
});
