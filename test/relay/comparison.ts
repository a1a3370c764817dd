// The same questions for the relay and for Debian's postfix-mta-sts-resolver: what each should answer, and why, where the
// two differ. What a domain does is in DNS and on its policy host; nothing is put into the table by hand.

import type { Site } from '../../infra/local/internet/internet.ts';
import { behaviours } from '../../infra/local/internet/internet.ts';
import type { ZoneLine } from './zones.ts';

export interface Question {
  readonly what: string;
  readonly key: string;
  /** What the domain does, if it is one of its own. */
  readonly domain?: Resident;
  /** What the relay answers; `%` stands for the key's domain. A reason that only has to be there ends with `…`. */
  readonly relay: string;
  /** What Debian's resolver answers, if it is something else. */
  readonly debian?: string;
  /** Why the two differ. */
  readonly why?: string;
}

interface Resident {
  readonly name: string;
  /** More than, or other than, a record with an id and a policy host on this machine. */
  readonly lines?: readonly ZoneLine[];
  readonly site?: Site;
}

const NOT_FOUND = 'NOTFOUND ';
const HUNG_UP = '(hangs up)';
const secure = (...mx: string[]) => `OK secure match=${mx.join(':')} servername=hostname`;
const good = secure('mail.%');

/** The record, and where its policy is. */
export function recordLines(
  name: string,
  { record = 'v=STSv1; id=id1;', address = '127.0.0.1' } = {},
): ZoneLine[] {
  return [`_mta-sts.${name}. TXT "${record}"`, `mta-sts.${name}. A ${address}`];
}

function policySite(name: string, policy: string, headers: Record<string, string | null> = {}): Site {
  return { ...behaviours.healthy(name), https: { policy: { body: policy, headers } } };
}

function resident(name: string, options: Parameters<typeof behaviours.healthy>[1] = {}): Resident {
  return { name, site: behaviours.healthy(name, options) };
}

function withPolicy(name: string, ...lines: string[]): Resident {
  const policy = ['version: STSv1', ...lines, 'max_age: 604800', ''].join('\r\n');
  return { name, site: policySite(name, policy) };
}

const broken = (name: string, behaviour: keyof typeof behaviours): Resident => ({
  name,
  site: behaviours[behaviour](name),
});

/** Signed, with all that DANE wants. */
const dane = (name: string, ...hosts: string[]): ZoneLine[] => [
  ...recordLines(name),
  ...hosts.flatMap((host, i) => [
    `${name}. MX ${10 * (i + 1)} ${host}.${name}.`,
    `${host}.${name}. A 127.0.0.1`,
    ...(host.startsWith('tlsa') ? [`_25._tcp.${host}.${name}. TLSA 3 1 1 ${'ab'.repeat(32)}`] : []),
  ]),
];

/** In DNS, of these texts every second is what the first becomes after the signing. */
export const BROKEN_SIGNATURES = new Map([
  ['id=unbroken', 'id=broken00'],
  ['fe'.repeat(32), 'ef'.repeat(32)],
]);

const BOGUS_TLSA = 'c-bogus.test';

export const QUESTIONS: readonly Question[] = [
  // What both are for
  { what: 'enforce', key: 'c-enforce.test', domain: resident('c-enforce.test'), relay: good },
  {
    what: 'several patterns, one with a wildcard',
    key: 'c-several.test',
    domain: resident('c-several.test', {
      mx: ['mail.c-several.test', '*.mx.c-several.test', 'b.example.net'],
    }),
    relay: secure('mail.%', '.mx.%', 'b.example.net'),
  },
  {
    what: 'testing',
    key: 'c-testing.test',
    domain: resident('c-testing.test', { mode: 'testing' }),
    relay: NOT_FOUND,
  },
  { what: 'none', key: 'c-none.test', domain: resident('c-none.test', { mode: 'none' }), relay: NOT_FOUND },
  {
    what: 'no record',
    key: 'c-nothing.test',
    domain: { name: 'c-nothing.test', lines: ['c-nothing.test. MX 10 mail.c-nothing.test.'] },
    relay: NOT_FOUND,
  },
  { what: 'no such domain', key: 'c-nowhere.test', relay: NOT_FOUND },
  {
    what: 'two records',
    key: 'c-two.test',
    domain: {
      name: 'c-two.test',
      lines: [...recordLines('c-two.test'), '_mta-sts.c-two.test. TXT "v=STSv1; id=id2;"'],
      site: behaviours.healthy('c-two.test'),
    },
    relay: NOT_FOUND,
  },
  {
    what: 'a record without an id',
    key: 'c-noid.test',
    domain: {
      name: 'c-noid.test',
      lines: recordLines('c-noid.test', { record: 'v=STSv1;' }),
      site: behaviours.healthy('c-noid.test'),
    },
    relay: NOT_FOUND,
  },
  {
    what: "an alias of somebody else's record and policy host",
    key: 'c-alias.test',
    domain: {
      name: 'c-alias.test',
      lines: [
        '_mta-sts.c-alias.test. CNAME _mta-sts.c-enforce.test.',
        'mta-sts.c-alias.test. CNAME mta-sts.c-enforce.test.',
      ],
      site: behaviours.healthy('c-alias.test'),
    },
    relay: good,
  },
  // Keys, as Postfix forms them
  { what: 'a subdomain', key: 'sub.c-enforce.test', relay: NOT_FOUND },
  { what: 'a parent domain', key: '.c-enforce.test', relay: NOT_FOUND },
  { what: 'upper case', key: 'C-Enforce.TEST', relay: good },
  { what: 'a trailing dot', key: 'c-enforce.test.', relay: good },
  { what: 'a next hop with a port', key: 'c-enforce.test:25', relay: good },
  { what: 'a smart host', key: '[c-enforce.test]', relay: good },
  { what: 'a smart host with a port', key: '[c-enforce.test]:587', relay: good },
  { what: 'an address literal', key: '[127.0.0.1]', relay: NOT_FOUND },
  { what: 'an IPv6 address literal', key: '[ipv6:::1]:25', relay: NOT_FOUND },
  { what: 'a single label', key: 'localhost', relay: NOT_FOUND },
  {
    what: 'A-labels',
    key: 'xn--bcher-kva.test',
    domain: resident('xn--bcher-kva.test'),
    relay: good,
  },
  {
    what: 'U-labels',
    key: 'bücher.test',
    relay: secure('mail.xn--bcher-kva.test'),
    debian: HUNG_UP,
    why: 'It decodes requests as ASCII and drops the connection otherwise, which Postfix takes for a lookup error: the mail waits. The relay converts them.',
  },
  // Policy hosts in trouble, of domains that are new
  { what: 'no policy (404)', key: 'c-404.test', domain: broken('c-404.test', 'not-found'), relay: NOT_FOUND },
  {
    what: 'a policy host that is down',
    key: 'c-down.test',
    domain: { name: 'c-down.test', lines: recordLines('c-down.test', { address: '127.0.0.99' }) },
    relay: NOT_FOUND,
  },
  {
    what: 'a certificate for another name',
    key: 'c-name.test',
    domain: broken('c-name.test', 'wrong-certificate'),
    relay: NOT_FOUND,
  },
  {
    what: 'an expired certificate',
    key: 'c-expired.test',
    domain: broken('c-expired.test', 'expired-certificate'),
    relay: NOT_FOUND,
  },
  {
    what: 'a redirect',
    key: 'c-redirect.test',
    domain: broken('c-redirect.test', 'redirect'),
    relay: NOT_FOUND,
  },
  { what: 'text/html', key: 'c-html.test', domain: broken('c-html.test', 'html'), relay: NOT_FOUND },
  {
    what: 'more than 64 KiB',
    key: 'c-oversized.test',
    domain: broken('c-oversized.test', 'oversized'),
    relay: NOT_FOUND,
  },
  {
    what: 'a policy of another version',
    key: 'c-version.test',
    domain: {
      name: 'c-version.test',
      site: policySite(
        'c-version.test',
        'version: STSv2\r\nmode: enforce\r\nmx: mail.c-version.test\r\nmax_age: 604800\r\n',
      ),
    },
    relay: NOT_FOUND,
  },
  // Policies that break the grammar, or bend it
  {
    what: 'LF line ends',
    key: 'c-lf.test',
    domain: {
      name: 'c-lf.test',
      site: policySite('c-lf.test', 'version: STSv1\nmode: enforce\nmx: mail.c-lf.test\nmax_age: 604800\n'),
    },
    relay: good,
  },
  {
    what: 'an upper-case pattern',
    key: 'c-upper.test',
    domain: withPolicy('c-upper.test', 'mode: enforce', 'mx: MAIL.C-Upper.test'),
    relay: good,
    debian: secure('MAIL.C-Upper.test'),
    why: 'Names are compared without regard to case (Postfix does so, too): the same, written in lower case.',
  },
  {
    what: 'a pattern twice',
    key: 'c-twice.test',
    domain: withPolicy('c-twice.test', 'mode: enforce', 'mx: mail.c-twice.test', 'mx: mail.c-twice.test'),
    relay: good,
  },
  {
    what: 'the mode twice',
    key: 'c-modes.test',
    domain: withPolicy('c-modes.test', 'mode: enforce', 'mode: none', 'mx: mail.c-modes.test'),
    relay: good,
    debian: NOT_FOUND,
    why: 'RFC 8461 §3.2: of a field that comes twice "all entries except for the first SHALL be ignored". It takes the last.',
  },
  {
    what: 'the pattern "hostname"',
    key: 'c-hostname.test',
    domain: withPolicy('c-hostname.test', 'mode: enforce', 'mx: hostname'),
    relay: 'TEMP …',
    debian: secure('hostname'),
    why: 'To Postfix the word is a strategy: any MX host is right that has a certificate for its own name, also one from a forged MX record. The relay never passes a single label on.',
  },
  {
    what: 'the pattern "nexthop", beside another',
    key: 'c-nexthop.test',
    domain: withPolicy('c-nexthop.test', 'mode: enforce', 'mx: nexthop', 'mx: mail.c-nexthop.test'),
    relay: good,
    debian: secure('mail.%', 'nexthop'),
    why: 'As before: the word means the domain itself, which the policy does not say.',
  },
  {
    what: 'attributes in a pattern',
    key: 'c-inject.test',
    domain: withPolicy('c-inject.test', 'mode: enforce', 'mx: mail.c-inject.test protocols=SSLv3'),
    relay: NOT_FOUND,
    debian: 'OK secure match=mail.% protocols=SSLv3 servername=hostname',
    why: "The policy is invalid (RFC 8461 §3.2: a name and nothing else), hence none. It hands the text on, and with it attributes of a stranger's choice to Postfix.",
  },
  {
    what: 'an empty pattern',
    key: 'c-empty.test',
    domain: withPolicy('c-empty.test', 'mode: enforce', 'mx: '),
    relay: NOT_FOUND,
    debian: secure(''),
    why: 'The policy is invalid, hence none. It passes an empty attribute on, which Postfix takes for an error in the table: the mail waits.',
  },
  {
    what: 'a pattern that is only an asterisk',
    key: 'c-asterisk.test',
    domain: withPolicy('c-asterisk.test', 'mode: enforce', 'mx: *'),
    relay: NOT_FOUND,
    debian: secure(''),
    why: 'As before.',
  },
  {
    what: 'a misspelt mode',
    key: 'c-mode.test',
    domain: withPolicy('c-mode.test', 'mode: Enforce', 'mx: mail.c-mode.test'),
    relay: NOT_FOUND,
  },
  {
    what: 'no max_age',
    key: 'c-noage.test',
    domain: {
      name: 'c-noage.test',
      site: policySite('c-noage.test', 'version: STSv1\r\nmode: enforce\r\nmx: mail.c-noage.test\r\n'),
    },
    relay: NOT_FOUND,
  },
  {
    what: 'blanks before the colon',
    key: 'c-blank.test',
    domain: withPolicy('c-blank.test', 'mode : enforce', 'mx: mail.c-blank.test'),
    relay: NOT_FOUND,
  },
  {
    what: 'the body compressed, unasked',
    key: 'c-gzip.test',
    domain: broken('c-gzip.test', 'gzip'),
    relay: NOT_FOUND,
    debian: good,
    why: 'It offers gzip and decompresses whatever comes, as far as it comes; the functions ask for none and take none.',
  },
  // DNS
  {
    what: 'the record cannot be looked up (SERVFAIL)',
    key: 'c-servfail.test',
    domain: {
      name: 'c-servfail.test',
      lines: recordLines('c-servfail.test', { record: 'v=STSv1; id=unbroken;' }),
      site: behaviours.healthy('c-servfail.test'),
    },
    relay: NOT_FOUND,
  },
  {
    what: 'DANE for all MX hosts',
    key: 'c-dane.test',
    domain: {
      name: 'c-dane.test',
      lines: dane('c-dane.test', 'tlsa1', 'tlsa2'),
      site: behaviours.healthy('c-dane.test'),
    },
    relay: 'OK dane-only',
    debian: good,
    why: 'RFC 8461 §2: MTA-STS must not override DANE. It does not look for DANE.',
  },
  {
    what: 'DANE for some',
    key: 'c-mixed.test',
    domain: {
      name: 'c-mixed.test',
      lines: dane('c-mixed.test', 'tlsa1', 'other'),
      site: behaviours.healthy('c-mixed.test'),
    },
    relay: 'OK dane',
    debian: good,
    why: 'As before.',
  },
  {
    what: 'DANE that does not validate',
    key: BOGUS_TLSA,
    domain: {
      name: BOGUS_TLSA,
      lines: [
        ...recordLines(BOGUS_TLSA),
        `${BOGUS_TLSA}. MX 10 mail.${BOGUS_TLSA}.`,
        `mail.${BOGUS_TLSA}. A 127.0.0.1`,
        `_25._tcp.mail.${BOGUS_TLSA}. TLSA 3 1 1 ${'fe'.repeat(32)}`,
      ],
      site: behaviours.healthy(BOGUS_TLSA),
    },
    relay: 'TEMP …',
    debian: good,
    why: 'As before: while DNSSEC fails, the mail waits.',
  },
];

export interface Answers {
  readonly question: Question;
  readonly relay: string;
  readonly debian: string | undefined;
}

/** What is not as it should be, one line each. */
export function complaints(answers: readonly Answers[]): string[] {
  return answers.flatMap(({ question, relay, debian }) => {
    const expected = { relay: question.relay, debian: question.debian ?? question.relay };
    const wrong = [];
    if (!isAs(expected.relay, relay, question)) wrong.push(`the relay says "${relay}"`);
    if (debian !== undefined && !isAs(expected.debian, debian, question))
      wrong.push(`Debian's resolver says "${debian}"`);
    return wrong.map(
      (each) => `${question.what} (${question.key}): ${each}, expected ${JSON.stringify(expected)}`,
    );
  });
}

function isAs(expected: string, answer: string, { key }: Question): boolean {
  const [, domain = ''] = /^\[?([^\]:]*)/.exec(key) ?? [];
  const exact = expected.replaceAll('%', domain.toLowerCase().replace(/\.$/, ''));
  if (exact.endsWith('…')) return answer.startsWith(exact.slice(0, -1)) && answer.length >= exact.length;
  return sorted(answer) === sorted(exact);
}

/** The order of names in `match` says nothing, and Debian's resolver draws it. */
function sorted(answer: string): string {
  return answer.replace(/match=(\S*)/, (_, names: string) => `match=${names.split(':').sort().join(':')}`);
}

/** @returns lines: one for each question, and below it why the answers differ. */
export function comparisonTable(answers: readonly Answers[]): string[] {
  const width = Math.max(...answers.map(({ question }) => question.what.length));
  return answers.flatMap(({ question, relay, debian }) => {
    const start = question.what.padEnd(width);
    if (question.why === undefined || debian === undefined) return [`${start}  both     ${relay}`];
    return [
      `${start}  relay    ${relay}`,
      `${' '.repeat(width)}  Debian's ${debian}`,
      `${' '.repeat(width)}  ${question.why}`,
    ];
  });
}
