import 'reflect-metadata'; // @peculiar/x509 needs it, loaded first

import * as x509 from '@peculiar/x509';
import type { CertificateKind } from './site.ts';

const DAY_MS = 86_400_000;

/** Issues the certificates of policy hosts, good and bad, under a root of its own. */
export interface Authority {
  /** The root, as PEM: what a client is to trust. */
  readonly ca: string;
  /** The private key of every leaf, as PEM: one for all, so that hundreds of hosts cost a signature each. */
  readonly key: string;
  /** The certificate of this kind for a policy host (`mta-sts.<domain>`), as PEM. */
  issue(kind: CertificateKind, host: string): Promise<string>;
}

export async function createAuthority(now = Date.now()): Promise<Authority> {
  const root = await issuer('mta-sts-refresher test root');
  const stranger = await issuer('mta-sts-refresher untrusted root');
  const leaf = await issuer('');
  const days = (count: number) => new Date(now + count * DAY_MS);
  const ca = await x509.X509CertificateGenerator.create({
    subject: root.name,
    issuer: root.name,
    notBefore: days(-3650),
    notAfter: days(3650),
    publicKey: root.publicKey,
    signingKey: root.privateKey,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      root.subjectKeyId,
    ],
  });
  const leafExtensions = [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
    leaf.subjectKeyId,
  ];
  const key = await crypto.subtle.exportKey('pkcs8', leaf.privateKey);
  return {
    ca: ca.toString(),
    key: x509.PemConverter.encode(key, x509.PemConverter.PrivateKeyTag),
    async issue(kind, host) {
      const domain = host.slice(host.indexOf('.') + 1);
      const names: Partial<Record<CertificateKind, x509.JsonGeneralNames>> = {
        'upper-case': [dnsName(host.toUpperCase())],
        wildcard: [dnsName(`*.${domain}`)],
        // one label too far up: it stands for the domain, and not for two labels
        'deep-wildcard': [dnsName(`*.${domain.slice(domain.indexOf('.') + 1)}`)],
        'partial-wildcard': [dnsName(`mta-st*.${domain}`)],
        'wrong-name': [dnsName(domain), dnsName(`www.${domain}`)],
        // what a log must not repeat: line ends, terminal escapes, and far too much of them
        'hostile-names': Array.from({ length: 50 }, () => dnsName(`\r\n\x1b[31m\u202e.${domain}`)),
        'common-name-only': [],
        'address-only': [{ type: 'ip', value: '127.0.0.1' }],
      };
      const validity: Partial<Record<CertificateKind, Validity>> = {
        expired: [days(-90), days(-1)],
        'not-yet-valid': [days(1), days(90)],
      };
      const subject = distinguishedName(host);
      const issuers: Partial<Record<CertificateKind, Issuer>> = {
        'self-signed': { ...leaf, name: subject },
        'untrusted-root': stranger,
      };
      const by = issuers[kind] ?? root;
      const alternative = names[kind] ?? [dnsName(host)];
      const [notBefore, notAfter] = validity[kind] ?? [days(-1), days(365)];
      const certificate = await x509.X509CertificateGenerator.create({
        subject,
        issuer: by.name,
        notBefore,
        notAfter,
        publicKey: leaf.publicKey,
        signingKey: by.privateKey,
        extensions: [
          ...leafExtensions,
          by.authorityKeyId,
          ...(alternative.length > 0 ? [new x509.SubjectAlternativeNameExtension(alternative)] : []),
        ],
      });
      return certificate.toString();
    },
  };
}

type Validity = readonly [notBefore: Date, notAfter: Date];
type Issuer = Awaited<ReturnType<typeof issuer>>;

async function issuer(name: string) {
  const p256 = { name: 'ECDSA', namedCurve: 'P-256' };
  const keys = await crypto.subtle.generateKey(p256, true, ['sign', 'verify']);
  const publicKey = await x509.PublicKey.create(keys.publicKey);
  return {
    name: distinguishedName(name),
    privateKey: keys.privateKey,
    publicKey,
    subjectKeyId: await x509.SubjectKeyIdentifierExtension.create(publicKey),
    authorityKeyId: await x509.AuthorityKeyIdentifierExtension.create(publicKey),
  };
}

/** RFC 5280 appendix A.1: ub-common-name is 64; a longer host name is in the SAN alone. */
function distinguishedName(commonName: string): x509.JsonName {
  return [{ CN: [commonName.slice(0, 64)] }];
}

function dnsName(name: string): x509.JsonGeneralName {
  // the library writes a character as a byte, which would be the end of \u202e
  return { type: 'dns', value: Buffer.from(name).toString('latin1') };
}
