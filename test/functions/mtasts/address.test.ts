import assert from 'node:assert/strict';
import { BlockList } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { isPublicAddress } from '../../../functions/mtasts/address.ts';

// The IANA special-purpose address registries, and multicast: the first and the last address of each range.
const forbidden: [name: string, first: string, last: string][] = [
  ['this network', '0.0.0.0', '0.255.255.255'],
  ['private, 10/8', '10.0.0.0', '10.255.255.255'],
  ['shared by carriers', '100.64.0.0', '100.127.255.255'],
  ['loopback', '127.0.0.0', '127.255.255.255'],
  ['link-local, where clouds have their metadata', '169.254.0.0', '169.254.255.255'],
  ['metadata of AWS', '169.254.169.254', '169.254.170.2'],
  ['private, 172.16/12', '172.16.0.0', '172.31.255.255'],
  ['protocol assignments', '192.0.0.0', '192.0.0.255'],
  ['documentation, TEST-NET-1', '192.0.2.0', '192.0.2.255'],
  ['relay anycast of 6to4', '192.88.99.0', '192.88.99.255'],
  ['private, 192.168/16', '192.168.0.0', '192.168.255.255'],
  ['benchmarks', '198.18.0.0', '198.19.255.255'],
  ['documentation, TEST-NET-2', '198.51.100.0', '198.51.100.255'],
  ['documentation, TEST-NET-3', '203.0.113.0', '203.0.113.255'],
  ['multicast', '224.0.0.0', '239.255.255.255'],
  ['reserved', '240.0.0.0', '255.255.255.254'],
  ['broadcast', '255.255.255.255', '255.255.255.255'],
  ['IPv6 unspecified', '::', '::'],
  ['IPv6 loopback', '::1', '::1'],
  ['IPv4-compatible', '::7f00:1', '::ffff:ffff'],
  ['IPv4-mapped', '::ffff:0.0.0.0', '::ffff:255.255.255.255'],
  ['IPv4-mapped loopback', '::ffff:127.0.0.1', '::ffff:7f00:1'],
  ['IPv4-translated', '::ffff:0:0.0.0.0', '::ffff:0:255.255.255.255'],
  ['NAT64', '64:ff9b::', '64:ff9b::ffff:ffff'],
  ['local NAT64', '64:ff9b:1::', '64:ff9b:1:ffff:ffff:ffff:ffff:ffff'],
  ['discard', '100::', '100::ffff:ffff:ffff:ffff'],
  ['Teredo', '2001::', '2001:0:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['IPv6 benchmarks', '2001:2::', '2001:2:0:ffff:ffff:ffff:ffff:ffff'],
  ['ORCHID', '2001:10::', '2001:2f:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['IPv6 documentation', '2001:db8::', '2001:db8:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['6to4', '2002::', '2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['6to4 of loopback', '2002:7f00:1::', '2002:7f00:1::7f00:1'],
  ['more IPv6 documentation', '3fff::', '3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['not assigned, below 2000::/3', '200::', '1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['not assigned, above 2000::/3', '4000::1', 'fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['segment routing', '5f00::', '5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['unique local', 'fc00::', 'fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['metadata of AWS over IPv6', 'fd00:ec2::254', 'fd00:ec2::254'],
  ['IPv6 link-local', 'fe80::', 'febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['IPv6 link-local with a zone', 'fe80::1%eth0', 'fe80::1%1'],
  ['site-local', 'fec0::', 'feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['IPv6 multicast', 'ff00::', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
];
for (const [name, first, last] of forbidden) {
  test(`not public: ${name}`, () => {
    assert.equal(isPublicAddress(first), false, first);
    assert.equal(isPublicAddress(last), false, last);
  });
}

const acceptable = [
  ...['1.0.0.0', '8.8.8.8', '9.255.255.255', '11.0.0.0', '100.63.255.255', '100.128.0.0', '126.255.255.255'],
  ...[
    '128.0.0.0',
    '169.253.255.255',
    '169.255.0.0',
    '172.15.255.255',
    '172.32.0.0',
    '192.0.1.0',
    '192.0.3.0',
  ],
  ...['192.167.255.255', '192.169.0.0', '198.17.255.255', '198.20.0.0', '203.0.114.0', '223.255.255.255'],
  ...['2001:200::1', '2001:4860:4860::8888', '2001:db9::', '2003::', '2606:4700::1111', '2a00:1450:4001::1'],
];
test('public, among them the neighbours of the ranges', () => {
  for (const address of acceptable) assert.equal(isPublicAddress(address), true, address);
});

test('what is no address is not public, whatever other programs read in it', () => {
  const texts = [
    '',
    'localhost',
    '8.8.8',
    '134744072',
    '0x08080808',
    '010.8.8.8',
    '8.8.8.8 ',
    '[2003::1]',
    '::g',
  ];
  for (const text of texts) assert.equal(isPublicAddress(text), false, text);
});

test('no address within a range is public', () => {
  // One for each family: to a BlockList the range of all IPv4-mapped addresses is the whole of IPv4.
  const ranges = { ipv4: new BlockList(), ipv6: new BlockList() };
  for (const [, first, last] of forbidden) {
    const family = first.includes(':') ? 'ipv6' : 'ipv4';
    if (!first.includes('%')) ranges[family].addRange(first, last, family);
  }
  const octets = fc.array(fc.integer({ min: 0, max: 255 }), { minLength: 4, maxLength: 4 });
  fc.assert(
    fc.property(octets, fc.ipV6(), (bytes, ipv6) => {
      const ipv4 = bytes.join('.');
      assert.ok(!(isPublicAddress(ipv4) && ranges.ipv4.check(ipv4, 'ipv4')), ipv4);
      assert.ok(!(isPublicAddress(ipv6) && ranges.ipv6.check(ipv6, 'ipv6')), ipv6);
    }),
    { numRuns: 2_000 },
  );
});
