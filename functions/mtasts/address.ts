// Which addresses a policy host may have. Whoever controls a domain's DNS decides where this program connects to,
// from inside somebody's network, so only globally reachable unicast addresses are acceptable.

import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';

const GLOBAL_UNICAST_IPV6 = ipaddr.IPv6.parseCIDR('2000::/3');

/**
 * True for addresses of the public internet; false for private, loopback, link-local (the cloud's metadata service),
 * CGNAT, multicast, reserved, IPv4-mapped and translated (NAT64, 6to4, Teredo) addresses and for anything else.
 * Source: the IANA special-purpose address registries, through ipaddr.js.
 */
export function isPublicAddress(text: string): boolean {
  // ipaddr.js also reads "127.1" and "0x7f000001", which are not what DNS gives.
  if (isIP(text) === 0) return false;
  const address = ipaddr.parse(text);
  if (address.range() !== 'unicast') return false;
  return address.kind() === 'ipv4' || address.match(GLOBAL_UNICAST_IPV6);
}
