// Certificates that a policy host must not be believed (RFC 8461 §3.3, RFC 5280, RFC 6125), and a few it must.

import { after } from 'node:test';
import type { FailureCode } from '../../functions/mtasts/failure.ts';
import type { Certificate, CertificateKind, Extension } from '../../infra/local/internet/site.ts';
import { startTrustedInternet } from '../functions/mtasts/network.ts';
import { type HostileCase, play } from './frame.ts';
import { answering, failing, serves } from './https.ts';

const internet = await startTrustedInternet({ after });

const DOMAIN = 'named.hostile.test';
const HOST = `mta-sts.${DOMAIN}`;

const named = (...names: string[]): Certificate => ({
  names: names.map((value) => ({ type: 'dns', value })),
});

/** An extension that no one knows, of so many bytes. */
const unknown = (bytes: number, critical = false): Extension => ({
  oid: '2.25.1',
  critical,
  der: Buffer.concat([Buffer.from([0x04, 0x83, bytes >> 16, bytes >> 8, bytes]), Buffer.alloc(bytes)]),
});

/** RFC 5280 §4.2.1.10: an authority for this name and what is below it. */
const onlyFor = (name: string): Extension => {
  const wrap = (tag: number, content: Buffer) => Buffer.concat([Buffer.from([tag, content.length]), content]);
  const subtree = wrap(0x30, wrap(0x82, Buffer.from(name)));
  return { oid: '2.5.29.30', critical: true, der: wrap(0x30, wrap(0xa0, subtree)) };
};

const showing = (certificate: Certificate | CertificateKind) => ({ ...answering({}), certificate });
const believed = (name: string, certificate: Certificate | CertificateKind) =>
  serves(name, showing(certificate), { domain: DOMAIN });
const disbelieved = (code: FailureCode) => {
  const rowOf = failing(code, 'sts-webpki-invalid');
  return (name: string, certificate: Certificate | CertificateKind) =>
    rowOf(name, showing(certificate), { domain: DOMAIN });
};
const expired = disbelieved('certificate-expired');
const misnamed = disbelieved('certificate-name-mismatch');
const untrusted = disbelieved('certificate-untrusted');
const broken = failing('tls-failed', 'sts-policy-fetch-error');

const cases: HostileCase[] = [
  // Validity
  expired('expired', 'expired'),
  expired('expired today', { validity: [-90, -0.001] }),
  expired('not yet valid', 'not-yet-valid'),
  expired('valid from the end to the beginning', { validity: [90, -90] }),
  expired('expired, and for another host', { ...named('other.test'), validity: [-90, -1] }),
  believed('valid for a thousand years', { validity: [-365, 365_000] }),

  // Names: DNS-ID alone, a wildcard as the whole left-most label
  believed('in capitals', 'upper-case'),
  believed('a wildcard', 'wildcard'),
  believed('the name after three hundred others', named(...others(300), HOST)),
  misnamed('three hundred other names', named(...others(300))),
  misnamed('the domain and its web server', 'wrong-name'),
  misnamed('the common name only', 'common-name-only'),
  misnamed('the common name, and another DNS name', { ...named('other.test'), commonName: HOST }),
  misnamed('an IP address only', 'address-only'),
  misnamed('an IP address, and the common name', {
    names: [{ type: 'ip', value: '127.0.0.1' }],
    commonName: HOST,
  }),
  misnamed('the name as an email address', { names: [{ type: 'email', value: `postmaster@${HOST}` }] }),
  misnamed('the name as a URL', { names: [{ type: 'url', value: `https://${HOST}/` }] }),
  misnamed('a wildcard deeper than one label', 'deep-wildcard'),
  misnamed('a partial wildcard', 'partial-wildcard'),
  misnamed('a wildcard at the end of a label', named(`mta*.${DOMAIN}`)),
  misnamed('a wildcard at the start of a label', named(`*sts.${DOMAIN}`)),
  misnamed('a wildcard within a label', named(`m*s.${DOMAIN}`)),
  misnamed('a wildcard in place of the domain', named('mta-sts.*.hostile.test')),
  misnamed('two wildcards', named('*.*.hostile.test')),
  misnamed('a wildcard for everything', named('*')),
  misnamed('a wildcard below the name', named(`*.${HOST}`)),
  misnamed('the name below a longer one', named(`www.${HOST}`)),
  misnamed('the name before another domain', named(`${HOST}.evil.test`)),
  misnamed('the name before a NUL', named(`${HOST}\0.evil.test`)),
  misnamed('the name after a NUL', named(`evil.test\0${HOST}`)),
  misnamed('the name with a blank', named(` ${HOST}`)),
  misnamed('the name with letters that look alike', named(HOST.replace('a', 'а'))),
  misnamed('an empty name', named('')),
  misnamed('names that would write into the log', 'hostile-names'),

  // Chain
  believed('signed by an intermediate', { intermediates: [{}] }),
  believed('signed by the tenth of a chain', { intermediates: Array.from({ length: 10 }, () => ({})) }),
  untrusted('self-signed', 'self-signed'),
  untrusted('signed by somebody else’s root', 'untrusted-root'),
  untrusted('signed by somebody else’s intermediate', { issuer: 'stranger', intermediates: [{}] }),
  untrusted('the intermediate is missing', { intermediates: [{ missing: true }] }),
  untrusted('the first of two intermediates is missing', { intermediates: [{ missing: true }, {}] }),
  untrusted('signed by another host’s certificate', { intermediates: [{ authority: false }] }),
  expired('the intermediate is expired', { intermediates: [{ validity: [-90, -1] }] }),
  untrusted('the intermediate is for another domain', {
    intermediates: [{ extensions: [onlyFor('other.test')] }],
  }),
  believed('the intermediate is for this domain', {
    intermediates: [{ extensions: [onlyFor('hostile.test')] }],
  }),
  believed('a chain as long as its first authority allows', { intermediates: [{ below: 1 }, {}] }),
  untrusted('a chain longer than its first authority allows', { intermediates: [{ below: 0 }, {}] }),

  // Contents
  untrusted('for clients, not for servers', { usage: 'client' }),
  untrusted('signed with SHA-1', { hash: 'SHA-1' }),
  untrusted('a key of 1024 bits', { publicKey: 'RSA-1024' }),
  untrusted('something critical that no one knows', { extensions: [unknown(10, true)] }),
  believed('something that no one knows', { extensions: [unknown(10)] }),
  believed('a certificate of 60 KB', { extensions: [unknown(60_000)] }),
  broken('a certificate of 200 KB', showing({ extensions: [unknown(200_000)] }), { heavy: true }),
];

function others(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `host${index}.other.test`);
}

play({ what: 'HTTPS certificate', internet }, cases);
