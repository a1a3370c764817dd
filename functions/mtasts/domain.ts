import { domainToASCII, domainToUnicode } from 'node:url';
import { quote } from './failure.ts';

declare const brand: unique symbol;

/** A policy domain (RFC 8461 §1.1): lower-case A-labels, no trailing dot, at most 244 characters. */
export type Domain = string & { readonly [brand]: 'policy domain' };

export type ParsedDomain = { ok: true; domain: Domain } | { ok: false; reason: string };

/** RFC 8461 §3.2: the policy host is made "by prepending "mta-sts" to the Policy Domain". */
const POLICY_HOST_PREFIX = 'mta-sts.';

/** RFC 8461 §3.1: where the TXT record is. */
const RECORD_NAME_PREFIX = '_mta-sts.';

/** RFC 1035 §2.3.4: 255 octets on the wire are 253 characters of text. */
const MAX_NAME_CHARACTERS = 253;

/** So that the name of the TXT record is a DNS name too. */
const MAX_DOMAIN_CHARACTERS = MAX_NAME_CHARACTERS - RECORD_NAME_PREFIX.length;

/** RFC 1035 §2.3.4. */
const MAX_LABEL_CHARACTERS = 63;

/**
 * More than 244 characters of A-labels can be as U-labels, also in characters of two UTF-16 units. Punycode takes
 * quadratic time, half a millisecond for so many, and a report of use has a thousand names.
 */
const MAX_INPUT_CHARACTERS = 512;

/**
 * ASCII that is in no host name, and blanks, controls and invisible characters of all of Unicode, most of which
 * the IDNA mapping would silently remove. The two joiners are part of some scripts (RFC 5892 appendix A).
 */
const NOT_IN_DOMAIN = /[[\p{ASCII}\p{C}\p{Z}]--[A-Za-z0-9.\-\u{200C}\u{200D}]]/v;

const NOT_ASCII = /\P{ASCII}/u;

const A_LABEL_PREFIX = /(?:^|\.)xn--/;

/** A last label which inet_aton and the URL Standard ("ends in a number") take for an IPv4 address. */
const NUMBER = /^(?:[0-9]+|0[Xx][0-9A-Fa-f]*)$/;

/** Lower-cases ASCII alone, as DNS does (RFC 4343); `toLowerCase` also makes a `k` of the Kelvin sign. */
export function asciiLowerCase(text: string): string {
  // Nearly every name is lower case already, and to look is cheaper than to replace.
  if (!/[A-Z]/.test(text)) return text;
  return text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

/**
 * What keeps `name` from being a host name in A-labels (RFC 1123 §2.1, RFC 5321 §4.1.2 `Domain`), as the end of
 * a sentence that starts with the name; undefined if nothing does. One label is enough, a trailing dot too much.
 */
export function hostNameFlaw(name: string): string | undefined {
  if (name === '') return 'is empty';
  if (name.length > MAX_NAME_CHARACTERS) return `is longer than ${MAX_NAME_CHARACTERS} characters`;
  if (name.endsWith('.')) return 'ends with a dot';
  const labels = name.split('.');
  for (const label of labels) {
    if (label === '') return 'has an empty label';
    if (label.length > MAX_LABEL_CHARACTERS)
      return `has a label of more than ${MAX_LABEL_CHARACTERS} characters`;
    if (!/^[A-Za-z0-9-]+$/.test(label)) return 'has characters other than letters, digits, hyphens and dots';
    if (label.startsWith('-') || label.endsWith('-')) return 'has a label that starts or ends with a hyphen';
  }
  // By the grammar of RFC 5321 "192.0.2.1" is a Domain. RFC 1123 §2.1 tells them apart: "a valid host name can
  // never have the dotted-decimal form #.#.#.#, since at least the highest-level component label will be
  // alphabetic".
  return NUMBER.test(labels.at(-1) ?? '') ? 'ends in a number, as an IPv4 address does' : undefined;
}

/**
 * Reads a policy domain as a mail operator or a relay writes it: in any case, in U-labels or A-labels, with or
 * without the trailing dot. A domain that it returns is read as itself again. The reason is one sentence in which
 * the text is made safe.
 */
export function parseDomain(text: string): ParsedDomain {
  const refuse = (flaw: string): ParsedDomain => ({
    ok: false,
    reason: text === '' ? 'The domain is empty.' : `The domain "${quote(text)}" ${flaw}.`,
  });
  const tooLong = `is longer than ${MAX_DOMAIN_CHARACTERS} characters`;

  if (text.length > MAX_INPUT_CHARACTERS) return refuse(tooLong);
  // Before domainToASCII and not after: it decodes percent signs and takes "1.1" for the address 1.0.0.1.
  const stray = NOT_IN_DOMAIN.exec(text);
  if (stray) return refuse(`has the character "${quote(stray[0])}", which no domain has`);
  const ascii = NOT_ASCII.test(text) ? domainToASCII(text) : asciiLowerCase(text);
  if (ascii === '') return refuse('is not a valid internationalized domain name');

  // The dot goes after the conversion, which makes dots of some other characters (U+3002 among them).
  const name = ascii.endsWith('.') ? ascii.slice(0, -1) : ascii;
  if (name.length > MAX_DOMAIN_CHARACTERS) return refuse(tooLong);
  const flaw = hostNameFlaw(name);
  if (flaw !== undefined) return refuse(flaw);
  if (!name.includes('.')) return refuse('has only one label');
  if (!A_LABEL_PREFIX.test(name)) return { ok: true, domain: name as Domain };
  // Node releases differ in which "xn--" labels they let into a URL. A-labels, which can be decoded and encoded
  // again (RFC 5890 §2.3.2.1), are good in all of them.
  const unicode = domainToUnicode(name);
  if (A_LABEL_PREFIX.test(unicode) || domainToASCII(unicode) !== name) {
    return refuse('has an "xn--" label that is not an A-label');
  }
  return { ok: true, domain: name as Domain };
}

/** RFC 8461 §3.2: the host that serves the policy. */
export function policyHost(domain: Domain): string {
  return `${POLICY_HOST_PREFIX}${domain}`;
}

/** RFC 8461 §3.1: "a TXT record with the name "_mta-sts" at the Policy Domain". */
export function recordName(domain: Domain): string {
  return `${RECORD_NAME_PREFIX}${domain}`;
}
