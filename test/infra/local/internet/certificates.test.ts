import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { createAuthority } from '../../../../infra/local/internet/certificates.ts';
import type { Certificate } from '../../../../infra/local/internet/site.ts';

const host = 'mta-sts.d1.example.test';
const authority = await createAuthority();
const root = new X509Certificate(authority.ca);

test('the root is a certificate authority that signs the leaves', async () => {
  const leaf = new X509Certificate(await authority.issue('good', host));
  assert.ok(root.ca && root.checkIssued(root) && root.verify(root.publicKey));
  assert.ok(!leaf.ca && leaf.checkIssued(root) && leaf.verify(root.publicKey));
  assert.ok(leaf.checkPrivateKey(createPrivateKey(authority.key)));
});

test('each kind names what it should', async () => {
  const names = {
    good: `DNS:${host}`,
    'upper-case': 'DNS:MTA-STS.D1.EXAMPLE.TEST',
    wildcard: 'DNS:*.d1.example.test',
    'deep-wildcard': 'DNS:*.example.test',
    'partial-wildcard': 'DNS:mta-st*.d1.example.test',
    'wrong-name': 'DNS:d1.example.test, DNS:www.d1.example.test',
    'common-name-only': undefined,
    'address-only': 'IP Address:127.0.0.1',
    expired: `DNS:${host}`,
  } as const;
  for (const [kind, expected] of Object.entries(names) as [keyof typeof names, string | undefined][]) {
    const leaf = new X509Certificate(await authority.issue(kind, host));
    assert.equal(leaf.subjectAltName, expected);
    assert.equal(leaf.subject, `CN=${host}`);
  }
});

test('only the kinds that say so are out of date, and only those are not signed by the root', async () => {
  const now = Date.now();
  const kinds = ['good', 'expired', 'not-yet-valid', 'self-signed', 'untrusted-root'] as const;
  const seen: unknown[] = [];
  for (const kind of kinds) {
    const leaf = new X509Certificate(await authority.issue(kind, host));
    const time =
      leaf.validToDate.getTime() < now ? 'past' : leaf.validFromDate.getTime() > now ? 'future' : 'now';
    seen.push([time, leaf.verify(root.publicKey), leaf.verify(leaf.publicKey)]);
  }
  assert.deepEqual(seen, [
    ['now', true, false],
    ['past', true, false],
    ['future', true, false],
    ['now', false, true],
    ['now', false, false],
  ]);
});

test('a name of any length goes into a certificate, and serial numbers are not repeated', async () => {
  const long = `mta-sts.${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}.${'d'.repeat(57)}.test`;
  const issued = await Promise.all([authority.issue('good', long), authority.issue('good', long)]);
  const leaves = issued.map((pem) => new X509Certificate(pem));
  for (const leaf of leaves) assert.equal(leaf.checkHost(long), long);
  assert.equal(new Set(leaves.map((leaf) => leaf.serialNumber)).size, 2);
});

/** The extensions of a certificate as OpenSSL reads them, and those that it does not know by their bytes. */
const chainOf = async (certificate: Certificate) => {
  const pem = await authority.issue(certificate, host);
  const end = '-----END CERTIFICATE-----';
  const parts = pem.split(end).slice(0, -1);
  return parts.map((part) => new X509Certificate(part + end));
};

test('a certificate can be described', async () => {
  const [leaf] = await chainOf({
    names: [
      { type: 'dns', value: '*' },
      { type: 'ip', value: '192.0.2.1' },
      { type: 'email', value: 'a@b.test' },
      { type: 'url', value: 'https://a.test/' },
    ],
    commonName: 'somebody',
    validity: [-3, -2],
    usage: 'client',
    extensions: [{ oid: '2.25.1', der: Buffer.from('0402abcd', 'hex') }],
  });
  assert.equal(leaf?.subjectAltName, 'DNS:*, IP Address:192.0.2.1, email:a@b.test, URI:https://a.test/');
  assert.equal(leaf.subject, 'CN=somebody');
  assert.ok(leaf.validToDate.getTime() - leaf.validFromDate.getTime() === 86_400_000);
  assert.deepEqual(leaf.keyUsage, ['1.3.6.1.5.5.7.3.2']);
  assert.ok(leaf.raw.includes(Buffer.from('0402abcd', 'hex')));
});

test('a chain goes from the certificate up to the root, with gaps if so wished', async () => {
  const [leaf, upper, lower, ...none] = await chainOf({ intermediates: [{}, {}] });
  assert.ok(leaf && upper && lower);
  assert.deepEqual([leaf.ca, upper.ca, lower.ca, none.length], [false, true, true, 0]);
  assert.ok(leaf.checkIssued(upper) && upper.checkIssued(lower) && lower.checkIssued(root));
  assert.ok(lower.verify(root.publicKey) && leaf.verify(upper.publicKey));

  const gap = await chainOf({ intermediates: [{}, { missing: true }] });
  assert.deepEqual(
    [gap.length, gap[0]?.issuer, gap[1]?.subject],
    [2, 'CN=intermediate 2', 'CN=intermediate 1'],
  );
  const [, customer] = await chainOf({ intermediates: [{ authority: false, validity: [-2, -1] }] });
  assert.equal(customer?.ca, false);
  assert.ok(customer.validToDate.getTime() < Date.now());
});

test('keys and signatures can be weak', async () => {
  const [leaf] = await chainOf({ publicKey: 'RSA-1024' });
  assert.equal(leaf?.publicKey.asymmetricKeyDetails?.modulusLength, 1024);
  assert.ok(leaf.checkPrivateKey(createPrivateKey(await authority.weakKey())));
  const [signed] = await chainOf({ hash: 'SHA-1' });
  assert.equal(signed?.signatureAlgorithm, 'ecdsa-with-SHA1');
});
