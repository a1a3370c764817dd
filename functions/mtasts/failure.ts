// Why a lookup or a fetch did not give a policy. Failures of other people's DNS and web servers are expected:
// they are values with a stable code, never exceptions.

/** RFC 8460 §4.3.2.2 "Policy Failures": how a sender reports the failure to the domain's owner. */
export type ResultType = 'sts-policy-fetch-error' | 'sts-policy-invalid' | 'sts-webpki-invalid';

/** Every failure code, with its RFC 8460 result type. Codes are stable: logs, queries and items carry them. */
export const RESULT_TYPES = {
  // TXT record at _mta-sts.<domain> (RFC 8461 §3.1)
  'record-absent': 'sts-policy-fetch-error',
  'record-multiple': 'sts-policy-invalid',
  'record-malformed': 'sts-policy-invalid',
  // any DNS question, also for the addresses of the policy host
  'dns-servfail': 'sts-policy-fetch-error',
  'dns-timeout': 'sts-policy-fetch-error',
  'dns-refused': 'sts-policy-fetch-error',
  'dns-error': 'sts-policy-fetch-error',
  // addresses of the policy host
  'host-absent': 'sts-policy-fetch-error',
  'address-forbidden': 'sts-policy-fetch-error',
  // connection and TLS (RFC 8461 §3.3)
  'connect-refused': 'sts-policy-fetch-error',
  'connect-timeout': 'sts-policy-fetch-error',
  'connect-failed': 'sts-policy-fetch-error',
  'tls-failed': 'sts-policy-fetch-error',
  'certificate-expired': 'sts-webpki-invalid',
  'certificate-untrusted': 'sts-webpki-invalid',
  'certificate-name-mismatch': 'sts-webpki-invalid',
  // HTTP
  'http-status': 'sts-policy-fetch-error',
  'http-redirect': 'sts-policy-fetch-error',
  'http-media-type': 'sts-policy-fetch-error',
  'http-encoding': 'sts-policy-fetch-error',
  'http-malformed': 'sts-policy-fetch-error',
  'http-headers-timeout': 'sts-policy-fetch-error',
  'http-body-timeout': 'sts-policy-fetch-error',
  'http-aborted': 'sts-policy-fetch-error',
  'policy-too-large': 'sts-policy-invalid',
  // the policy body (RFC 8461 §3.2)
  'policy-invalid': 'sts-policy-invalid',
  // the domain used up its whole time
  'deadline-exceeded': 'sts-policy-fetch-error',
} as const satisfies Record<string, ResultType>;

export type FailureCode = keyof typeof RESULT_TYPES;

/** Failures that take long, and hold up whoever waits for the domain: SERVFAIL is mostly a resolver's own timeout. */
export const SLOW_FAILURES: ReadonlySet<string> = new Set<FailureCode>([
  'dns-servfail',
  'dns-timeout',
  'connect-timeout',
  'http-headers-timeout',
  'http-body-timeout',
  'deadline-exceeded',
]);

export interface Failure {
  readonly code: FailureCode;
  /** One sentence for an operator, at most 500 characters that are fit for a log line. */
  readonly detail: string;
  readonly cause?: unknown;
}

/** Two quotations and some words of ours; 500 with the sign of a cut. A log is paid for by the byte. */
const MAX_DETAIL_CHARACTERS = 499;

/** Makes the detail safe and short, whatever is in it. */
export function failure(code: FailureCode, detail: string, cause?: unknown): Failure {
  const fit = legible(detail, MAX_DETAIL_CHARACTERS);
  return cause === undefined ? { code, detail: fit } : { code, detail: fit, cause };
}

/** How much of a stranger's text an operator is shown. */
const MAX_QUOTED_CHARACTERS = 200;

/** A stranger's text within a sentence of ours. */
export function quote(text: string): string {
  return legible(text, MAX_QUOTED_CHARACTERS);
}

/**
 * What signs a request to AWS, by its names in headers, URLs and JSON ("AWS Signature Version 4 for API requests"). AWS
 * quotes a request whose signature it refuses, with the token of the session.
 */
const SECRETS =
  /((?:x-amz-)?(?:security-?token|session-?token|signature|credential)|aws_session_token|aws_secret_access_key)(["'\\]*[ \t]{0,4}[:=][ \t]{0,4}["'\\]*)[^\s"'\\,;&<>]+/gi;

/**
 * Makes text fit for a log line: control and format characters (line ends, terminal escapes, bidirectional overrides)
 * become U+FFFD, what signs requests to AWS "[redacted]", and what is longer than `limit` characters is cut and ends in "…".
 */
export function legible(text: string, limit: number): string {
  const redacted = text.slice(0, limit).replace(SECRETS, '$1$2[redacted]');
  const clean = redacted.slice(0, limit).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, '\u{FFFD}');
  return text.length > limit || redacted.length > limit ? `${clean}…` : clean;
}
