// What Postfix is told about a domain, as text. Pure: nothing here asks anybody anything. Text of a policy reaches Postfix
// only as host names that were checked here once more, so that none can become an attribute of its own.

import { asciiLowerCase, type Domain, hostNameFlaw } from '../../functions/mtasts/domain.ts';
import { quote } from '../../functions/mtasts/failure.ts';
import { formatPolicy, type Policy } from '../../functions/mtasts/policy.ts';

/** The maps, as Postfix names them at the end of `socketmap:unix:…:<map>`. */
export const MAPS = ['mta-sts', 'mta-sts-tlsrpt'] as const;
export type MapName = (typeof MAPS)[number];

export type Verdict =
  | { readonly kind: 'enforce'; readonly domain: Domain; readonly policy: Policy }
  | {
      readonly kind: 'dane';
      readonly domain: Domain;
      readonly level: 'dane' | 'dane-only';
      /** Why it cannot be told of one host, where no other has DANE. */
      readonly unclear?: string;
    }
  /** What the operator wrote into the override map, for Postfix to read. */
  | { readonly kind: 'override'; readonly domain: Domain; readonly text: string }
  | { readonly kind: 'not-found'; readonly reason: string }
  /** The mail has to wait. */
  | { readonly kind: 'defer'; readonly reason: string };

/** socketmap_table(5). Whatever is neither OK nor NOTFOUND defers the mail. */
export interface Reply {
  readonly status: 'OK' | 'NOTFOUND' | 'TEMP' | 'PERM';
  readonly text: string;
}

/** socketmap_table(5): "Replies must be no longer than 100000 characters", the netstring's own not counted. */
export const MAX_REPLY_BYTES = 100_000;

/** Postfix logs this much of a reason (dict_sockmap.c: "%.200s"). */
const MAX_REASON_CHARACTERS = 200;

const WILDCARD = '*.';

export function answer(map: MapName, verdict: Verdict): Reply {
  switch (verdict.kind) {
    case 'not-found':
      return { status: 'NOTFOUND', text: '' };
    case 'defer':
      return deferral(verdict.reason);
    case 'dane':
      return { status: 'OK', text: verdict.level };
    case 'override':
      return { status: 'OK', text: verdict.text };
    case 'enforce':
      return enforcement(map, verdict.domain, verdict.policy);
  }
}

/** The reply as it is sent. The blank after the status is part of the protocol, also where nothing follows. */
export function formatReply({ status, text }: Reply): string {
  return `${status} ${text}`;
}

/** `status` PERM is for what the operator of Postfix has to mend. */
export function deferral(reason: string, status: 'TEMP' | 'PERM' = 'TEMP'): Reply {
  // Postfix logs other characters as "?".
  const printable = quote(reason).replace(/[^ -~]/gu, '?');
  return { status, text: printable.slice(0, MAX_REASON_CHARACTERS) };
}

function enforcement(map: MapName, domain: Domain, policy: Policy): Reply {
  const mx = [...new Set(policy.mx.map(asciiLowerCase))].filter(isPattern);
  // Postfix takes the words "hostname", "nexthop" and "dot-nexthop" in `match` for names of its own choice, the first
  // being whatever name a forged MX record has. No pattern of a single label is passed on.
  const named = mx.filter((pattern) => pattern.includes('.'));
  if (named.length === 0) return deferral(`${domain}: no mx of its policy is a name that Postfix can match.`);

  const plain = `secure match=${named.map(toMatch).join(':')} servername=hostname`;
  if (map === 'mta-sts-tlsrpt') {
    const text = `${plain} ${reportAttributes(domain, { ...policy, mx }, named)}`;
    if (fits(text)) return { status: 'OK', text };
  }
  if (fits(plain)) return { status: 'OK', text: plain };
  return deferral(`${domain}: its policy names more MX hosts than a reply to Postfix can hold.`);
}

function isPattern(pattern: string): boolean {
  const name = pattern.startsWith(WILDCARD) ? pattern.slice(WILDCARD.length) : pattern;
  return hostNameFlaw(name) === undefined;
}

/** TLS_README "Server certificate verification": a name that begins with a dot matches all names below it. */
function toMatch(pattern: string): string {
  return pattern.startsWith(WILDCARD) ? pattern.slice(1) : pattern;
}

/**
 * TLSRPT_README "MTA-STS Support via smtp_tls_policy_maps". Postfix before 3.10.5 crashes if `policy_string` or
 * `mx_host_pattern` is not there at all; from 3.10.5 it checks the names of MX hosts against the latter.
 */
function reportAttributes(domain: Domain, policy: Policy, named: readonly string[]): string {
  const lines = formatPolicy(policy).trimEnd().split('\r\n');
  return [
    'policy_type=sts',
    `policy_domain=${domain}`,
    ...lines.map((line) => `{ policy_string = ${line} }`),
    ...named.map((pattern) => `mx_host_pattern=${pattern}`),
  ].join(' ');
}

function fits(text: string): boolean {
  return Buffer.byteLength(formatReply({ status: 'OK', text })) <= MAX_REPLY_BYTES;
}
