import { asciiLowerCase, hostNameFlaw } from './domain.ts';
import { type Failure, failure, quote } from './failure.ts';

/** RFC 8461 §3.2: "Currently only "STSv1" is supported." */
export const VERSION = 'STSv1';

/** RFC 8461 §5. */
export const MODES = ['enforce', 'testing', 'none'] as const;
export type Mode = (typeof MODES)[number];

/** A year of 365.25 days, the "maximum value" of max_age (RFC 8461 §3.2). */
export const MAX_MAX_AGE_SECONDS = 31_557_600;

/** RFC 8461 §3.3: "a suggested maximum policy size 64 kilobytes". Whoever fetches a policy keeps to it. */
export const MAX_POLICY_BYTES = 65_536;

/**
 * Bytes of all MX patterns together. It bounds what a stranger makes us store, and pay for at every refresh: 64 KiB hold
 * 9,000 patterns. Of 72 policies that domains publish, the longest has 145 bytes of them.
 */
export const MAX_MX_BYTES = 8_192;

/** What a policy says (RFC 8461 §3.2). */
export interface Policy {
  readonly mode: Mode;
  /** Host names in lower-case A-labels, each maybe with a leading `*.`; none twice, in the order published. */
  readonly mx: readonly string[];
  /** How long the policy may be used after it was fetched, at most MAX_MAX_AGE_SECONDS. */
  readonly maxAgeSeconds: number;
}

export type ParsedPolicy = { ok: true; policy: Policy } | { ok: false; failure: Failure };

/** `sts-policy-ext-name`, which the names of all fields fit, and `sts-policy-field-delim`. */
const FIELD_START = /^([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*/;

/** `sts-policy-ext-value` without blanks around it: no ASCII controls, any other character UTF-8 can encode. */
const FIELD_VALUE = /^[ -~\u{80}-\u{D7FF}\u{E000}-\u{10FFFF}]+$/u;

const MAX_AGE = /^[0-9]{1,10}$/;

const WILDCARD = '*.';

const HAS_UPPER_CASE = /[A-Z]/;

interface Fields {
  version?: string;
  mode?: Mode;
  maxAgeSeconds?: number;
  readonly mx: Set<string>;
}

/**
 * Reads a policy by the ABNF of RFC 8461 §3.2. `text` is the whole body, decoded as UTF-8. The failure is
 * `policy-invalid`, and its detail names the line and what is wrong with it; or `policy-too-large`.
 */
export function parsePolicy(text: string): ParsedPolicy {
  const fields: Fields = { mx: new Set() };
  const lines = text.split('\n');
  for (const [index, line] of lines.entries()) {
    // sts-policy-term is LF or CRLF: a CR that no LF follows stays in the line and makes it invalid.
    const endsInCrLf = index < lines.length - 1 && line.endsWith('\r');
    const flaw = readLine(endsInCrLf ? line.slice(0, -1) : line, fields);
    if (flaw !== undefined) return invalid(`Line ${index + 1}: ${flaw}.`);
  }

  const { version, mode, maxAgeSeconds, mx } = fields;
  if (version === undefined) return invalid('The policy has no "version".');
  if (mode === undefined) return invalid('The policy has no "mode".');
  if (maxAgeSeconds === undefined) return invalid('The policy has no "max_age".');
  // "required at least once, except when mode is "none""
  if (mx.size === 0 && mode !== 'none') return invalid(`The policy has no "mx", and its mode is ${mode}.`);
  // ASCII: a character is a byte.
  const mxBytes = [...mx].reduce((sum, pattern) => sum + pattern.length, 0);
  if (mxBytes > MAX_MX_BYTES) {
    const detail = `The policy's ${mx.size} "mx" are ${mxBytes} bytes together, more than ${MAX_MX_BYTES}.`;
    return { ok: false, failure: failure('policy-too-large', detail) };
  }
  return { ok: true, policy: { mode, mx: [...mx], maxAgeSeconds } };
}

function invalid(detail: string): ParsedPolicy {
  return { ok: false, failure: failure('policy-invalid', detail) };
}

/** Puts what a line says into `fields`; returns what is wrong with the line, if anything is. */
function readLine(line: string, fields: Fields): string | undefined {
  const field = trimBlanksAtEnd(line);
  // The grammar as printed has sts-policy-term where it must mean sts-policy-mx, so that a field can be a line
  // end. Parsers "MUST accept" what is syntactically valid: empty lines are let pass, wherever they are.
  if (field === '') return undefined;

  const [start, name] = FIELD_START.exec(field) ?? [];
  if (start === undefined || name === undefined) {
    return `"${quote(field)}" does not start with a field name and a colon, without blanks before them`;
  }
  const value = field.slice(start.length);
  if (value === '') return `"${name}" has no value`;
  if (!FIELD_VALUE.test(value)) return `the value of "${name}" has a control character: "${quote(value)}"`;

  // "If any non-repeated field--i.e., all fields excepting "mx"--is duplicated, all entries except for the first
  // SHALL be ignored", also those with a value that would not do in a first one.
  switch (name) {
    case 'version':
      if (fields.version !== undefined) return undefined;
      if (value !== VERSION) return `the version is "${quote(value)}", not ${VERSION}`;
      fields.version = value;
      return undefined;
    case 'mode':
      if (fields.mode !== undefined) return undefined;
      if (!isMode(value)) return `the mode is "${quote(value)}", none of ${MODES.join(', ')}`;
      fields.mode = value;
      return undefined;
    case 'max_age':
      if (fields.maxAgeSeconds !== undefined) return undefined;
      if (!MAX_AGE.test(value)) return `the max_age is "${quote(value)}", not 1 to 10 digits`;
      // The grammar allows 9999999999 and the prose 31557600. More is no reason to leave a domain unprotected.
      fields.maxAgeSeconds = Math.min(Number(value), MAX_MAX_AGE_SECONDS);
      return undefined;
    case 'mx': {
      // sts-policy-mx-value is ["*."] Domain, and Domain is RFC 5321's: one label alone is one, and what matches
      // it is only an MX of that very name; a trailing dot, an address literal or a U-label is none.
      const flaw = patternFlaw(value);
      if (flaw !== undefined) return `the mx "${quote(value)}" ${flaw}`;
      fields.mx.add(asciiLowerCase(value));
      return undefined;
    }
    default:
      // "unknown fields SHALL be ignored". Names are case-sensitive (%s): "Mode" is unknown.
      return undefined;
  }
}

/**
 * Whether `parsePolicy(formatPolicy(policy))` gives back the very same policy. It goes by the same rules without making
 * and reading the text, for whoever checks hundreds of thousands.
 */
export function isCanonical({ mode, mx, maxAgeSeconds }: Policy): boolean {
  if (!isMode(mode)) return false;
  if (!Number.isInteger(maxAgeSeconds) || maxAgeSeconds < 0 || maxAgeSeconds > MAX_MAX_AGE_SECONDS)
    return false;
  // Written as text it is "-0" nowhere, and so is read as 0.
  if (Object.is(maxAgeSeconds, -0)) return false;
  if (mx.length === 0) return mode === 'none';
  if (new Set(mx).size < mx.length) return false;
  let bytes = 0;
  for (const pattern of mx) {
    if (HAS_UPPER_CASE.test(pattern) || patternFlaw(pattern) !== undefined) return false;
    bytes += pattern.length;
  }
  return bytes <= MAX_MX_BYTES;
}

/** sts-policy-mx-value is ["*."] Domain, and Domain is RFC 5321's. */
function patternFlaw(pattern: string): string | undefined {
  return hostNameFlaw(pattern.startsWith(WILDCARD) ? pattern.slice(WILDCARD.length) : pattern);
}

function isMode(value: string): value is Mode {
  return (MODES as readonly string[]).includes(value);
}

/** Removes WSP. A regular expression for this takes quadratic time on long runs of blanks. */
function trimBlanksAtEnd(line: string): string {
  let end = line.length;
  while (end > 0 && (line[end - 1] === ' ' || line[end - 1] === '\t')) end -= 1;
  return line.slice(0, end);
}

/** The policy as a policy host would serve it, with CRLF after every line (RFC 8461 §3.2). */
export function formatPolicy(policy: Policy): string {
  const lines = [
    `version: ${VERSION}`,
    `mode: ${policy.mode}`,
    ...policy.mx.map((pattern) => `mx: ${pattern}`),
    `max_age: ${policy.maxAgeSeconds}`,
  ];
  return lines.map((line) => `${line}\r\n`).join('');
}

/**
 * Whether a policy that was stored is one that a policy host could have served. Whoever wrote it (another version, another
 * program, somebody by hand), it must not be extended where senders refuse to use it: functions and relays ask here.
 *
 * @returns the policy as the parser gives it, in lower case and without repeats; or why senders cannot use it.
 */
export function checkPolicy(policy: Policy): ParsedPolicy {
  // The common case, in a third of the time.
  if (isCanonical(policy)) return { ok: true, policy };
  // The parser's own word. That nothing but this policy came out of it shows that no pattern has a line end in it.
  const parsed = parsePolicy(formatPolicy(policy));
  if (!parsed.ok) return parsed;
  const published = new Set(policy.mx.map(asciiLowerCase));
  const same =
    parsed.policy.mode === policy.mode &&
    parsed.policy.maxAgeSeconds === policy.maxAgeSeconds &&
    parsed.policy.mx.length === published.size &&
    parsed.policy.mx.every((pattern) => published.has(pattern));
  return same ? parsed : invalid('The policy is not read as what it says.');
}

/**
 * Whether the name of an MX host fits one of the patterns of a policy, in any case and with or without a trailing
 * dot. RFC 8461 §4.1: "the mx pattern "*.example.com" matches "mail.example.com" but not "example.com" or
 * "foo.bar.example.com"".
 */
export function matchesMx(patterns: readonly string[], host: string): boolean {
  const name = asciiLowerCase(host.endsWith('.') ? host.slice(0, -1) : host);
  const firstDot = name.indexOf('.');
  const parent = firstDot > 0 ? name.slice(firstDot + 1) : undefined;
  return patterns.some((published) => {
    const pattern = asciiLowerCase(published);
    return pattern.startsWith(WILDCARD) ? pattern.slice(WILDCARD.length) === parent : pattern === name;
  });
}
