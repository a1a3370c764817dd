// Whoever controls a domain's DNS decides where this program connects to, from inside somebody's network. What a
// domain may say of its policy host's address, and where the connection really goes. Nothing but loopback is ever
// connected to: a connection to anywhere else is noted, and refused here.

import assert from 'node:assert/strict';
import { isIP, Socket, type TcpNetConnectOpts } from 'node:net';
import type { Duplex } from 'node:stream';
import { after, mock } from 'node:test';
import tls, { type ConnectionOptions, type TLSSocket } from 'node:tls';
import { policyText } from '../../infra/local/internet/behaviours.ts';
import type { Name } from '../../infra/local/internet/site.ts';
import { startTrustedInternet } from '../functions/mtasts/network.ts';
import { type Ends, type HostileCase, type Played, play } from './frame.ts';

const internet = await startTrustedInternet({ after });

/** Where TLS connections were opened to since somebody looked, by policy host. */
const opened = new Map<string, string[]>();
const addressOf = new WeakMap<Duplex, string>();
const connect = Socket.prototype.connect;
mock.method(Socket.prototype, 'connect', function (this: Socket, ...args: [unknown]) {
  // As net.connect passes it on, with a listener beside it.
  const [options] = [args[0]].flat() as [TcpNetConnectOpts];
  const { host: address = 'localhost' } = options;
  addressOf.set(this, address);
  if (address.startsWith('127.')) return Reflect.apply(connect, this, args);
  queueMicrotask(() => this.destroy(Object.assign(new Error('not from a test'), { code: 'ECONNREFUSED' })));
  return this;
});
const connectTls = tls.connect as (options: ConnectionOptions) => TLSSocket;
mock.method(tls, 'connect', (options: ConnectionOptions) => {
  const { servername = '', socket } = options;
  const address = (socket && addressOf.get(socket)) ?? assert.fail('a connection that was not seen');
  opened.set(servername, [...(opened.get(servername) ?? []), address]);
  return connectTls(options);
});
after(() => mock.restoreAll());

/** The connections go to these addresses in this order, and DNS is asked once for each type (and on TCP, if told so). */
function connections(expected: readonly string[], types: readonly string[] = ['A', 'AAAA']) {
  return ({ domain, internet: { traffic } }: Played) => {
    const host = `mta-sts.${domain}`;
    const addresses = opened.get(host) ?? [];
    opened.delete(host);
    assert.deepEqual(addresses, expected);
    const asked = traffic.events().filter(({ kind, name }) => kind === 'query' && name === host);
    const overUdp = asked.flatMap(({ detail }) => (detail.endsWith(' udp') ? detail : []));
    assert.deepEqual(
      overUdp,
      types.map((type) => `${type} udp`),
    );
  };
}

function host(
  name: string,
  does: Name,
  refresh: Ends,
  discovery: Ends,
  extra: Partial<HostileCase>,
): HostileCase {
  return {
    name,
    does: (domain) => ({
      record: { txt: [['v=STSv1; id=id2;']] },
      host: does,
      https: { policy: { body: policyText(domain) } },
    }),
    refresh,
    discovery,
    allowPrivateAddresses: false,
    ...extra,
  };
}

/** No connection at all. */
function forbidden(name: string, does: Name): HostileCase {
  return host(
    name,
    does,
    ['kept', 'address-forbidden', 'sts-policy-fetch-error'],
    ['backed-off', 'address-forbidden', 'sts-policy-fetch-error'],
    { also: connections([]) },
  );
}

/** Connections to these addresses and no others; nobody is there. */
function tried(name: string, does: Name, ...addresses: readonly string[]): HostileCase {
  return host(
    name,
    does,
    ['kept', 'connect-refused', 'sts-policy-fetch-error'],
    ['backed-off', 'connect-refused', 'sts-policy-fetch-error'],
    // As many as are tried: it is not asked for more.
    { also: connections(addresses, addresses.length < 8 ? undefined : ['A']) },
  );
}

/** Private addresses are allowed, and the policy comes from this one. */
function served(name: string, does: Name, address: string): HostileCase {
  return host(name, does, ['replaced'], ['discovered'], {
    allowPrivateAddresses: true,
    also: connections([address], ['A']),
  });
}

function address(text: string): Name {
  return isIP(text) === 4 ? { a: [text] } : { aaaa: [text] };
}

const special: [what: string, ...addresses: string[]][] = [
  ['loopback', '127.0.0.1', '127.255.255.255', '::1'],
  ['this host', '0.0.0.0', '0.1.2.3', '::'],
  ['link-local', '169.254.0.1', 'fe80::1', 'febf::1'],
  ['metadata service', '169.254.169.254', 'fd00:ec2::254'],
  ['credentials of containers', '169.254.170.2', 'fd00:ec2::23'],
  ['private', '10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.0.1', 'fc00::1', 'fdff::1', 'fec0::1'],
  ['CGNAT', '100.64.0.1', '100.127.255.255'],
  ['protocol assignments', '192.0.0.8', '192.0.0.170', '2001:1::1'],
  ['documentation', '192.0.2.1', '198.51.100.1', '203.0.113.1', '2001:db8::1', '3fff::1'],
  ['benchmarking', '198.18.0.1', '198.19.255.255', '2001:2::1'],
  ['multicast', '224.0.0.1', '239.255.255.255', 'ff02::1', 'ff0e::1'],
  ['reserved', '240.0.0.1', '255.255.255.255', '4000::1', 'c000::1'],
  ['IPv4-mapped', '::ffff:127.0.0.1', '::ffff:169.254.169.254', '::ffff:9.9.9.9'],
  ['IPv4-compatible', '::127.0.0.1', '::169.254.169.254'],
  ['IPv4-translated', '::ffff:0:127.0.0.1', '::ffff:0:169.254.169.254'],
  ['NAT64', '64:ff9b::7f00:1', '64:ff9b::a9fe:a9fe', '64:ff9b:1::a9fe:a9fe'],
  ['6to4', '192.88.99.1', '2002:7f00:1::', '2002:a9fe:a9fe::'],
  ['Teredo', '2001::1', '2001:0:a9fe:a9fe::1'],
  ['ORCHID', '2001:10::1', '2001:20::1'],
  ['discard', '100::1'],
  ['segment routing', '5f00::1'],
];

/** Next to special-purpose ranges, and nothing special. */
const ordinary = [
  ...['9.255.255.255', '11.0.0.1', '100.63.255.255', '100.128.0.1', '126.255.255.255', '128.0.0.1'],
  ...['169.253.255.255', '169.255.0.1', '172.15.255.255', '172.32.0.1', '192.167.255.255', '192.169.0.1'],
  ...['198.17.255.255', '198.20.0.1', '223.255.255.255', '2003::1', '2620:fe::fe', '2a00::1'],
];

const PUBLIC = '9.9.9.9';
const PUBLIC6 = '2620:fe::fe';
const METADATA = '169.254.169.254';
const fleet = Array.from({ length: 20 }, (_, index) => `9.9.9.${index}`);

play({ what: 'address', internet }, [
  ...special.flatMap(([what, ...addresses]) =>
    addresses.map((text) => forbidden(`${what}: ${text}`, address(text))),
  ),
  ...ordinary.map((text) => tried(`ordinary: ${text}`, address(text), text)),

  forbidden('several, all of them special', { a: ['10.0.0.1', METADATA], aaaa: ['::1', 'fe80::1'] }),
  {
    ...forbidden('a thousand private ones', {
      a: Array.from({ length: 1_000 }, (_, i) => `10.0.${i >> 8}.${i & 255}`),
    }),
    heavy: true,
  },
  forbidden('an alias of localhost', { cname: ['localhost'], a: ['127.0.0.1'], aaaa: ['::1'] }),
  forbidden('an alias that looks like an address', { cname: [PUBLIC], a: [METADATA] }),
  tried('special ones before the public one', { a: ['127.0.0.1', METADATA, '10.0.0.1', PUBLIC] }, PUBLIC),
  tried('special ones after the public one', { a: [PUBLIC, '127.0.0.1', METADATA] }, PUBLIC),
  tried('special A, public AAAA', { a: ['127.0.0.1'], aaaa: [PUBLIC6] }, PUBLIC6),
  tried('public A, special AAAA', { a: [PUBLIC], aaaa: ['::1', '::ffff:127.0.0.1'] }, PUBLIC),
  tried('more public ones than are tried', { a: fleet }, ...fleet.slice(0, 8)),
  tried('the same public one again and again', { a: [PUBLIC, PUBLIC, PUBLIC] }, PUBLIC),

  // The address changes between the check and the connection: there is no second question whose answer could.
  tried('public, then loopback', { a: [PUBLIC], afterwards: { a: ['127.0.0.1'] } }, PUBLIC),
  tried(
    'public, then the metadata service',
    { a: [PUBLIC], afterwards: { a: [METADATA], aaaa: ['::1'] } },
    PUBLIC,
  ),
  forbidden('loopback, then public', { a: ['127.0.0.1'], afterwards: { a: [PUBLIC] } }),
  served('one address, then another', { a: ['127.0.0.1'], afterwards: { a: ['127.0.0.2'] } }, '127.0.0.1'),
  served('an address, then none', { a: ['127.0.0.1'], afterwards: { rcode: 'NXDOMAIN' } }, '127.0.0.1'),
  served('a public address that does not answer', { a: ['127.0.0.1'], aaaa: [PUBLIC6] }, '127.0.0.1'),
]);
