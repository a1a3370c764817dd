import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { createAuthority } from '../../../../infra/local/internet/certificates.ts';

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
