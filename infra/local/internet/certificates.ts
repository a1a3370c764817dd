import 'reflect-metadata'; // @peculiar/x509 needs it, loaded first

import * as x509 from '@peculiar/x509';
import type { Certificate, CertificateKind, Extension, Intermediate, Validity } from './site.ts';

const DAY_MS = 86_400_000;
const P256 = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const RSA_1024 = {
  name: 'RSASSA-PKCS1-v1_5',
  hash: 'SHA-256',
  modulusLength: 1024,
  publicExponent: new Uint8Array([1, 0, 1]),
} as const;
const YEAR: Validity = [-1, 365];

/** Issues the certificates of policy hosts, good and bad, under a root of its own. */
export interface Authority {
  /** The root, as PEM: what a client is to trust. */
  readonly ca: string;
  /** The private key of every leaf, as PEM: one for all, so that hundreds of hosts cost a signature each. */
  readonly key: string;
  /** The private key of the leaves with a key of 1024 bits. */
  weakKey(): Promise<string>;
  /** The certificate for a policy host (`mta-sts.<domain>`), then those that it sends along; PEM. */
  issue(certificate: CertificateKind | Certificate, host: string): Promise<string>;
}

/** What the names of certificates mean. */
const KINDS: Readonly<Record<CertificateKind, (host: string, domain: string) => Certificate>> = {
  good: () => ({}),
  'upper-case': (host) => ({ names: [dns(host.toUpperCase())] }),
  wildcard: (_, domain) => ({ names: [dns(`*.${domain}`)] }),
  // one label too far up: it stands for the domain, and not for two labels
  'deep-wildcard': (_, domain) => ({ names: [dns(`*.${domain.slice(domain.indexOf('.') + 1)}`)] }),
  'partial-wildcard': (_, domain) => ({ names: [dns(`mta-st*.${domain}`)] }),
  'wrong-name': (_, domain) => ({ names: [dns(domain), dns(`www.${domain}`)] }),
  // what a log must not repeat: line ends, terminal escapes, and far too much of them
  'hostile-names': (_, domain) => ({
    names: Array.from({ length: 50 }, () => dns(`\r\n\x1b[31m\u202e.${domain}`)),
  }),
  'common-name-only': () => ({ names: [] }),
  'address-only': () => ({ names: [{ type: 'ip', value: '127.0.0.1' }] }),
  expired: () => ({ validity: [-90, -1] }),
  'not-yet-valid': () => ({ validity: [1, 90] }),
  'self-signed': () => ({ issuer: 'itself' }),
  'untrusted-root': () => ({ issuer: 'stranger' }),
};

function dns(value: string) {
  return { type: 'dns', value } as const;
}

export async function createAuthority(now = Date.now()): Promise<Authority> {
  const root = await signer('mta-sts-refresher test root');
  const stranger = await signer('mta-sts-refresher untrusted root');
  const intermediary = await signer('mta-sts-refresher test intermediate');
  const leaf = await signer('');
  let weakLeaf: Promise<Signer> | undefined;
  const weak = () => {
    weakLeaf ??= signer('', RSA_1024);
    return weakLeaf;
  };
  const authorityOver = (below?: number) => [
    new x509.BasicConstraintsExtension(true, below, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
  ];
  const ends = [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
  ];

  async function sign(by: Signer, of: Signer, [from, to]: Validity, more: Partial<Signed>): Promise<string> {
    const certificate = await x509.X509CertificateGenerator.create({
      subject: of.name,
      issuer: by.name,
      notBefore: new Date(now + from * DAY_MS),
      notAfter: new Date(now + to * DAY_MS),
      publicKey: of.publicKey,
      signingKey: by.privateKey,
      signingAlgorithm: { ...by.algorithm, hash: more.hash ?? 'SHA-256' },
      extensions: [
        ...(more.extensions ?? []),
        of.subjectKeyId,
        ...(by === of ? [] : [by.authorityKeyId]),
        ...(more.others ?? []).map(
          ({ oid, critical, der }) => new x509.Extension(oid, critical ?? false, der),
        ),
      ],
    });
    return certificate.toString();
  }

  /** Issues them, and leaves the last of them to sign with. */
  async function chain(first: Signer, intermediates: readonly Intermediate[]) {
    let by = first;
    const sent: string[] = [];
    for (const [index, wanted] of intermediates.entries()) {
      const of = { ...intermediary, name: distinguishedName(`intermediate ${index + 1}`) };
      const pem = await sign(by, of, wanted.validity ?? YEAR, {
        extensions: (wanted.authority ?? true) ? authorityOver(wanted.below) : ends,
        others: wanted.extensions ?? [],
      });
      if (!wanted.missing) sent.unshift(pem);
      by = of;
    }
    return { by, sent };
  }

  return {
    ca: await sign(root, root, [-3650, 3650], { extensions: authorityOver() }),
    key: await leaf.pem(),
    weakKey: async () => (await weak()).pem(),
    async issue(certificate, host) {
      const wanted =
        typeof certificate === 'string'
          ? KINDS[certificate](host, host.slice(host.indexOf('.') + 1))
          : certificate;
      const { names = [dns(host)], commonName = host, issuer = 'root', usage = 'server' } = wanted;
      const key = wanted.publicKey === 'RSA-1024' ? await weak() : leaf;
      const of = { ...key, name: distinguishedName(commonName) };
      const { by, sent } = await chain({ root, itself: of, stranger }[issuer], wanted.intermediates ?? []);
      const use = { server: x509.ExtendedKeyUsage.serverAuth, client: x509.ExtendedKeyUsage.clientAuth };
      const pem = await sign(by, of, wanted.validity ?? YEAR, {
        hash: wanted.hash ?? 'SHA-256',
        extensions: [
          ...ends,
          new x509.ExtendedKeyUsageExtension([use[usage]]),
          ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names.map(generalName))] : []),
        ],
        others: wanted.extensions ?? [],
      });
      return [pem, ...sent].join('\n');
    },
  };
}

interface Signed {
  readonly hash: 'SHA-256' | 'SHA-1';
  readonly extensions: readonly x509.Extension[];
  readonly others: readonly Extension[];
}

type Signer = Awaited<ReturnType<typeof signer>>;

async function signer(name: string, algorithm: typeof P256 | typeof RSA_1024 = P256) {
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const publicKey = await x509.PublicKey.create(keys.publicKey);
  return {
    name: distinguishedName(name),
    algorithm,
    privateKey: keys.privateKey,
    publicKey,
    subjectKeyId: await x509.SubjectKeyIdentifierExtension.create(publicKey),
    authorityKeyId: await x509.AuthorityKeyIdentifierExtension.create(publicKey),
    async pem() {
      const key = await crypto.subtle.exportKey('pkcs8', keys.privateKey);
      return x509.PemConverter.encode(key, x509.PemConverter.PrivateKeyTag);
    },
  };
}

/** RFC 5280 appendix A.1: ub-common-name is 64; a longer host name is in the SAN alone. */
function distinguishedName(commonName: string): x509.JsonName {
  return [{ CN: [commonName.slice(0, 64)] }];
}

function generalName({ type, value }: x509.JsonGeneralName): x509.JsonGeneralName {
  // the library writes a character as a byte, which would be the end of \u202e
  return { type, value: Buffer.from(value).toString('latin1') };
}
