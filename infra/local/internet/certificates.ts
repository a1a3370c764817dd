import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import type { CertificateKind } from './site.ts';

const DAY_MS = 86_400_000;

/** Issues the certificates of policy hosts, good and bad, under a root of its own. */
export interface Authority {
  /** The root, as PEM: what a client is to trust. */
  readonly ca: string;
  /** The private key of every leaf, as PEM: one for all, so that hundreds of hosts cost a signature each. */
  readonly key: string;
  /** The certificate of this kind for a policy host (`mta-sts.<domain>`), as PEM. */
  issue(kind: CertificateKind, host: string): string;
}

interface Issuer {
  readonly name: string;
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

export function createAuthority(now = Date.now()): Authority {
  const root = issuer('mta-sts-refresher test root');
  const stranger = issuer('mta-sts-refresher untrusted root');
  const { privateKey, publicKey } = issuer('');
  const rootValidity: Validity = [now - 3650 * DAY_MS, now + 3650 * DAY_MS];
  return {
    ca: certificate(root, root.name, root.publicKey, rootValidity, [
      extension('basicConstraints', der(SEQUENCE, TRUE), true),
      extension('keyUsage', der(BIT_STRING, bytes(1, 0b0000_0110)), true), // keyCertSign, cRLSign
      extension('subjectKeyIdentifier', der(OCTET_STRING, keyId(root.publicKey))),
    ]),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    issue(kind, host) {
      const domain = host.slice(host.indexOf('.') + 1);
      const names: Partial<Record<CertificateKind, Buffer[]>> = {
        'upper-case': [dnsName(host.toUpperCase())],
        wildcard: [dnsName(`*.${domain}`)],
        // one label too far up: it stands for the domain, and not for two labels
        'deep-wildcard': [dnsName(`*.${domain.slice(domain.indexOf('.') + 1)}`)],
        'partial-wildcard': [dnsName(`mta-*.${domain}`)],
        'wrong-name': [dnsName(domain), dnsName(`www.${domain}`)],
        // what a log must not repeat: line ends, terminal escapes, and far too much of them
        'hostile-names': Array.from({ length: 50 }, () => dnsName(`\r\n\x1b[31m\u202e.${domain}`)),
        'common-name-only': [],
        'address-only': [der(IP_ADDRESS, bytes(127, 0, 0, 1))],
      };
      const validity: Partial<Record<CertificateKind, Validity>> = {
        expired: [now - 90 * DAY_MS, now - DAY_MS],
        'not-yet-valid': [now + DAY_MS, now + 90 * DAY_MS],
      };
      const issuers: Partial<Record<CertificateKind, Issuer>> = {
        'self-signed': { name: host, privateKey, publicKey },
        'untrusted-root': stranger,
      };
      const by = issuers[kind] ?? root;
      const alternative = names[kind] ?? [dnsName(host)];
      return certificate(by, host, publicKey, validity[kind] ?? [now - DAY_MS, now + 365 * DAY_MS], [
        extension('basicConstraints', der(SEQUENCE), true),
        extension('keyUsage', der(BIT_STRING, bytes(7, 0b1000_0000)), true), // digitalSignature
        extension('extKeyUsage', der(SEQUENCE, SERVER_AUTH)),
        extension('subjectKeyIdentifier', der(OCTET_STRING, keyId(publicKey))),
        extension('authorityKeyIdentifier', der(SEQUENCE, der(KEY_IDENTIFIER, keyId(by.publicKey)))),
        ...(alternative.length > 0 ? [extension('subjectAltName', der(SEQUENCE, ...alternative))] : []),
      ]);
    },
  };
}

function issuer(name: string): Issuer {
  return { name, ...generateKeyPairSync('ec', { namedCurve: 'P-256' }) };
}

// X.509 needs this much of DER, which is less than a library would cost.
const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const UTF8_STRING = 0x0c;
const UTC_TIME = 0x17;
const SEQUENCE = 0x30;
const SET = 0x31;
const VERSION = 0xa0;
const EXTENSIONS = 0xa3;
const KEY_IDENTIFIER = 0x80;
const DNS_NAME = 0x82;
const IP_ADDRESS = 0x87;
const TRUE = Buffer.from('0101ff', 'hex');
const COMMON_NAME = Buffer.from('0603550403', 'hex');
const SERVER_AUTH = Buffer.from('06082b06010505070301', 'hex');
const ECDSA_WITH_SHA256 = Buffer.from('300a06082a8648ce3d040302', 'hex');
/** The last byte of the object identifier 2.5.29.n. */
const EXTENSION_IDS = {
  subjectKeyIdentifier: 14,
  keyUsage: 15,
  subjectAltName: 17,
  basicConstraints: 19,
  authorityKeyIdentifier: 35,
  extKeyUsage: 37,
} as const;

type Validity = readonly [notBefore: number, notAfter: number];

/** RFC 5280 §4.1. */
function certificate(by: Issuer, subject: string, key: KeyObject, validity: Validity, extensions: Buffer[]) {
  const toBeSigned = der(
    SEQUENCE,
    der(VERSION, der(INTEGER, bytes(2))), // v3
    der(INTEGER, bytes(1), randomBytes(8)),
    ECDSA_WITH_SHA256,
    distinguishedName(by.name),
    der(SEQUENCE, ...validity.map(utcTime)),
    distinguishedName(subject),
    key.export({ type: 'spki', format: 'der' }),
    der(EXTENSIONS, der(SEQUENCE, ...extensions)),
  );
  const signature = der(BIT_STRING, bytes(0), sign('sha256', toBeSigned, by.privateKey));
  const base64 = der(SEQUENCE, toBeSigned, ECDSA_WITH_SHA256, signature).toString('base64');
  return `-----BEGIN CERTIFICATE-----\n${base64.replace(/.{1,64}/g, '$&\n')}-----END CERTIFICATE-----\n`;
}

function der(tag: number, ...contents: Uint8Array[]): Buffer {
  const body = Buffer.concat(contents);
  const { length } = body;
  const size =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([bytes(tag, ...size), body]);
}

function extension(id: keyof typeof EXTENSION_IDS, value: Buffer, critical = false): Buffer {
  const oid = bytes(0x06, 3, 0x55, 0x1d, EXTENSION_IDS[id]);
  return der(SEQUENCE, oid, ...(critical ? [TRUE] : []), der(OCTET_STRING, value));
}

function distinguishedName(commonName: string): Buffer {
  // RFC 5280 appendix A.1: ub-common-name is 64; a longer host name is in the SAN alone
  const value = der(UTF8_STRING, Buffer.from(commonName.slice(0, 64)));
  return der(SEQUENCE, der(SET, der(SEQUENCE, COMMON_NAME, value)));
}

function utcTime(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replace(/\D/g, '').slice(2, 14);
  return der(UTC_TIME, Buffer.from(`${digits}Z`));
}

function dnsName(name: string): Buffer {
  return der(DNS_NAME, Buffer.from(name));
}

function keyId(key: KeyObject): Buffer {
  return createHash('sha1')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest();
}

function bytes(...values: number[]): Buffer {
  return Buffer.from(values);
}
