import { isIP, isIPv4 } from 'node:net';
import { type Domain, parseDomain } from '../../functions/mtasts/domain.ts';

/** Where the mail of a lookup goes. */
export interface Destination {
  /** RFC 8461 §3.4: the domain of the recipients; for a smart host, "the smart host domain". */
  readonly domain: Domain;
  readonly port: number;
  /** In square brackets: the host itself, whatever MX records it has. */
  readonly direct: boolean;
}

export type ReadKey =
  | { readonly kind: 'destination'; readonly destination: Destination }
  /** No policy can be meant: the answer is "not found". */
  | { readonly kind: 'none'; readonly reason: string }
  /** Mail may need protection, and it cannot be told which. */
  | { readonly kind: 'unclear'; readonly reason: string };

const SMTP_PORT = 25;

/** Postfix passes the port of a next hop on as it is written, which may be a name of /etc/services. */
const SERVICES: ReadonlyMap<string, number> = new Map([
  ['smtp', SMTP_PORT],
  ['submission', 587],
  ['smtps', 465],
  ['submissions', 465],
]);

const none = (reason: string): ReadKey => ({ kind: 'none', reason });

/**
 * Reads what Postfix looks up in smtp_tls_policy_maps: "the full next-hop destination, which is either the recipient
 * domain, or the verbatim next-hop", in square brackets or not, with a port or not, and then, of what has neither,
 * every parent domain with a dot before it (postconf(5)).
 */
export function readKey(key: string): ReadKey {
  if (key === '') return none('The key is empty.');
  // RFC 8461 §3.4: "compliant senders MUST NOT attempt to fetch a policy from the parent zone".
  if (key.startsWith('.')) {
    return none('The key asks for a parent domain, and policies are not inherited (RFC 8461 §3.4).');
  }
  const [, inBrackets, afterBrackets] = /^\[([^[\]]*)\](?::([^:]*))?$/.exec(key) ?? [];
  if (inBrackets !== undefined) {
    if (isIP(inBrackets) !== 0 || /^ipv6:/i.test(inBrackets)) {
      return none('The next hop is an address, which has no policy.');
    }
    return destination(inBrackets, afterBrackets, true);
  }
  const [host = '', port, ...more] = key.split(':');
  if (more.length > 0 || isIPv4(host)) return none('The next hop is an address, which has no policy.');
  return destination(host, port, false);
}

function destination(host: string, service: string | undefined, direct: boolean): ReadKey {
  const parsed = parseDomain(host);
  if (!parsed.ok) return none(parsed.reason);
  const port = service === undefined ? SMTP_PORT : readPort(service);
  if (port === undefined) {
    return { kind: 'unclear', reason: `${parsed.domain}: write the port of this next hop as a number.` };
  }
  return { kind: 'destination', destination: { domain: parsed.domain, port, direct } };
}

function readPort(service: string): number | undefined {
  const port = /^\d{1,5}$/.test(service) ? Number(service) : SERVICES.get(service.toLowerCase());
  return port !== undefined && port >= 1 && port <= 65_535 ? port : undefined;
}
