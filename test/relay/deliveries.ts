// Domains, their mail hosts, and what Postfix should do with mail for each when it asks the relay.

import { createHash, X509Certificate } from 'node:crypto';
import type { Authority } from '../../infra/local/internet/certificates.ts';
import type { CertificateKind } from '../../infra/local/internet/site.ts';
import { recordLines } from './comparison.ts';
import type { Delivery, MailHost } from './postfix.ts';
import { UNSIGNED, type ZoneLine } from './zones.ts';

export interface Recipient {
  readonly what: string;
  readonly domain: string;
  readonly policy?: { readonly mode: 'enforce' | 'testing' | 'none'; readonly mx: readonly string[] };
  /** Not in the table before the first mail to it. */
  readonly unknown?: true;
  /** By preference, with what each presents; undefined: no STARTTLS. */
  readonly hosts: readonly (readonly [name: string, certificate: CertificateKind | undefined])[];
  /** For the first host. */
  readonly tlsa?: 'right' | 'wrong' | 'bogus';
  readonly expected: Expected;
}

export interface Expected {
  readonly status: Delivery['status'];
  /** Undefined: any, or none at all. */
  readonly tls?: string;
  /** What Postfix calls it. */
  readonly reason?: RegExp;
}

const VERIFIED: Expected = { status: 'sent', tls: 'Verified' };
const deferred = (reason: RegExp): Expected => ({ status: 'deferred', reason });
/** A good certificate, but of somebody else. */
const ANOTHER_NAME = deferred(/^hostname mismatch: Server certificate not verified$/);

const enforce = (...mx: string[]) => ({ mode: 'enforce', mx }) as const;
const unsigned = UNSIGNED.slice(0, -1);

export const RECIPIENTS: readonly Recipient[] = [
  {
    what: 'enforce, a good certificate',
    domain: 'good.test',
    policy: enforce('mail.good.test'),
    hosts: [['mail.good.test', 'good']],
    expected: VERIFIED,
  },
  {
    what: 'enforce, a wildcard pattern',
    domain: 'wildcard.test',
    policy: enforce('*.mx.wildcard.test'),
    hosts: [['a.mx.wildcard.test', 'good']],
    expected: VERIFIED,
  },
  {
    what: 'enforce, in a zone that is not signed',
    domain: `good.${unsigned}`,
    policy: enforce(`mail.good.${unsigned}`),
    hosts: [[`mail.good.${unsigned}`, 'good']],
    expected: VERIFIED,
  },
  {
    what: 'enforce, a certificate for another name',
    domain: 'wrong.test',
    policy: enforce('mail.wrong.test'),
    hosts: [['mail.wrong.test', 'wrong-name']],
    expected: ANOTHER_NAME,
  },
  {
    what: 'enforce, an expired certificate',
    domain: 'expired.test',
    policy: enforce('mail.expired.test'),
    hosts: [['mail.expired.test', 'expired']],
    expected: deferred(/^certificate has expired: Server certificate not verified$/),
  },
  {
    what: 'enforce, a certificate of nobody known',
    domain: 'untrusted.test',
    policy: enforce('mail.untrusted.test'),
    hosts: [['mail.untrusted.test', 'untrusted-root']],
    expected: deferred(/^untrusted issuer .*: Server certificate not verified$/),
  },
  {
    what: 'enforce, a mail host without TLS',
    domain: 'plain.test',
    policy: enforce('mail.plain.test'),
    hosts: [['mail.plain.test', undefined]],
    expected: deferred(/^TLS is required, but was not offered by host/),
  },
  {
    what: 'enforce, an MX record that leads to somebody else, whose certificate is good',
    domain: 'forged.test',
    policy: enforce('mail.forged.test'),
    hosts: [['mail.attacker.test', 'good']],
    expected: ANOTHER_NAME,
  },
  {
    what: 'testing, a certificate for another name',
    domain: 'testing.test',
    policy: { mode: 'testing', mx: ['mail.testing.test'] },
    hosts: [['mail.testing.test', 'wrong-name']],
    expected: { status: 'sent' },
  },
  {
    what: 'testing, a mail host without TLS',
    domain: 'testing-plain.test',
    policy: { mode: 'testing', mx: ['mail.testing-plain.test'] },
    hosts: [['mail.testing-plain.test', undefined]],
    expected: { status: 'sent' },
  },
  {
    what: 'none, a mail host without TLS',
    domain: 'none.test',
    policy: { mode: 'none', mx: [] },
    hosts: [['mail.none.test', undefined]],
    expected: { status: 'sent' },
  },
  {
    what: 'no policy at all, a mail host without TLS',
    domain: 'nothing.test',
    hosts: [['mail.nothing.test', undefined]],
    expected: { status: 'sent' },
  },
  {
    what: 'a domain that nobody has asked for before: enforce from the first message on',
    domain: 'new.test',
    unknown: true,
    policy: enforce('mail.new.test'),
    hosts: [['mail.new.test', 'wrong-name']],
    expected: ANOTHER_NAME,
  },
  {
    what: 'DANE, a certificate that only DANE knows',
    domain: 'dane.test',
    policy: enforce('mail.dane.test'),
    hosts: [['mail.dane.test', 'self-signed']],
    tlsa: 'right',
    expected: VERIFIED,
  },
  {
    what: 'DANE for one of two hosts',
    domain: 'some-dane.test',
    policy: enforce('mail1.some-dane.test', 'mail2.some-dane.test'),
    hosts: [
      ['mail1.some-dane.test', 'self-signed'],
      ['mail2.some-dane.test', 'good'],
    ],
    tlsa: 'right',
    expected: VERIFIED,
  },
  {
    what: 'DANE says no, where MTA-STS would say yes',
    domain: 'dane-wrong.test',
    policy: enforce('mail.dane-wrong.test'),
    hosts: [['mail.dane-wrong.test', 'good']],
    tlsa: 'wrong',
    expected: deferred(/^no matching DANE TLSA records: Server certificate not verified$/),
  },
  {
    what: 'DNSSEC fails for the TLSA records, where MTA-STS would say yes',
    domain: 'dane-bogus.test',
    policy: enforce('mail.dane-bogus.test'),
    hosts: [['mail.dane-bogus.test', 'good']],
    tlsa: 'bogus',
    expected: deferred(/^dane-bogus\.test: whether it has DANE cannot be told: TLSA of .*SERVFAIL/),
  },
];

/** Met for the first time while the table is away. */
export const STRANGERS: readonly Recipient[] = [
  {
    what: 'a new domain without a record',
    domain: 'late-nothing.test',
    hosts: [['mail.late-nothing.test', undefined]],
    expected: { status: 'sent' },
  },
  {
    what: 'a new domain with a record',
    domain: 'late.test',
    policy: enforce('mail.late.test'),
    hosts: [['mail.late.test', 'good']],
    expected: deferred(/^late\.test: .*table/),
  },
];

/** What signatures are made for, and what is there instead. */
export const BOGUS_TLSA = ['0a'.repeat(32), '0b'.repeat(32)] as const;

const FIRST_ADDRESS = 11;

/** The mail hosts, each at an address of its own, and what DNS says about all of it. */
export async function settleIn(
  recipients: readonly Recipient[],
  authority: Authority,
): Promise<{ hosts: Record<string, MailHost>; lines: ZoneLine[] }> {
  const hosts: Record<string, MailHost> = {};
  const lines: ZoneLine[] = [];
  let address = FIRST_ADDRESS;
  for (const { domain, policy, hosts: its, tlsa } of recipients) {
    if (policy) lines.push(...recordLines(domain));
    for (const [index, [name, kind]] of its.entries()) {
      const certificate = kind && `${authority.key}\n${await authority.issue(kind, name)}`;
      hosts[name] = { address: `127.0.0.${address}`, certificate };
      lines.push(`${domain}. MX ${10 * (index + 1)} ${name}.`, `${name}. A 127.0.0.${address}`);
      address += 1;
      if (index > 0 || tlsa === undefined || certificate === undefined) continue;
      const { publicKey } = new X509Certificate(
        certificate.slice(certificate.indexOf('-----BEGIN CERTIFICATE')),
      );
      const digest = createHash('sha256')
        .update(publicKey.export({ type: 'spki', format: 'der' }))
        .digest('hex');
      const data = { right: digest, wrong: 'ab'.repeat(32), bogus: BOGUS_TLSA[0] }[tlsa];
      lines.push(`_25._tcp.${name}. TLSA 3 1 1 ${data}`);
    }
  }
  return { hosts, lines };
}
