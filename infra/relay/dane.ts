// Which domains are to be left to DANE. RFC 8461 §2: "senders who implement MTA-STS validation MUST NOT allow MTA-STS
// Policy validation to override a failing DANE validation". Postfix does the validation, with lookups of its own; this
// is only to tell it that DANE decides. It trusts the AD bit of whichever resolver it is given, and verifies no
// signature itself.

import { createPublicKey, X509Certificate } from 'node:crypto';
import { quote } from '../../functions/mtasts/failure.ts';
import { eachConcurrently } from '../../functions/runtime/concurrent.ts';
import { type Dns, type DnsAnswer, type DnsRecord, isDnsName, type QuestionType } from './dns.ts';
import type { Observer } from './metrics.ts';
import type { Destination } from './names.ts';

export type DaneAnswer =
  /** No usable secure TLSA records anywhere: MTA-STS decides. */
  | { readonly kind: 'none' }
  /** Of the hosts that can be reached, all or some have them: `dane-only` or `dane`. */
  | { readonly kind: 'all' | 'some'; readonly hosts: readonly string[] }
  /**
   * Of the hosts that can be told of, none has them; others cannot be told. DANE decides, host by host, unless there is a
   * policy, or may be one: then the mail waits.
   */
  | { readonly kind: 'unclear'; readonly reason: string }
  /** It cannot be told: the mail waits. */
  | { readonly kind: 'failed'; readonly reason: string };

export interface Dane {
  /** Never rejects, whatever DNS does. */
  check(destination: Destination, signal: AbortSignal): Promise<DaneAnswer>;
  /** Looks again, at everything, and says what there is, in order, one line each. */
  explain(destination: Destination, signal: AbortSignal): Promise<readonly string[]>;
}

/** Far more than Postfix tries for one message (its smtp_mx_address_limit is 5); the least preferred are not looked at. */
const MAX_HOSTS = 20;

/** A domain that starts with DANE, or gives it up, is known after so long. */
const MAX_TTL_SECONDS = 300;

const MAX_CACHED = 10_000;

/**
 * A failure is remembered for so long (RFC 9520 has resolvers do the same): mail to a name whose name servers are silent
 * does not cost their time again with every message. Postfix tries what was deferred again after minutes.
 */
const FAILURE_SECONDS = 10;

/** The most preferred first, and these at once: hosts behind silent name servers cost the others their turn as late as can be. */
const HOSTS_AT_ONCE = 4;

/**
 * For all lookups of a domain. A little less than Postfix is made to wait (RESOLVE_LIMITS): what is not known by then has
 * failed, and what is known counts. The resolver goes on, and has the answer for the next look.
 */
const WORK_MS = 1_800;

type TlsaRecord = Extract<DnsRecord, { type: 'TLSA' }>;

/** What is known of one host. */
type Host =
  | { readonly kind: 'tlsa' | 'without' | 'unreachable' }
  | { readonly kind: 'failed'; readonly reason: string };

/** A finding: lines are for operators, and safe to print; the time is how long it may be remembered. */
interface Finding {
  readonly answer: DaneAnswer;
  readonly ttlSeconds: number;
  readonly lines: readonly string[];
}

/**
 * @param now epoch milliseconds.
 * @param workMs milliseconds for all lookups of one domain.
 */
export function createDane({
  dns,
  observer,
  now,
  workMs = WORK_MS,
}: {
  readonly dns: Dns;
  readonly observer: Pick<Observer, 'count' | 'gauge'>;
  readonly now: () => number;
  readonly workMs?: number;
}): Dane {
  const cached = new Map<string, { answer: DaneAnswer; until: number }>();
  /** As many as the DNS client lets have questions: those whose question it turns away end at once. */
  const running = new Map<string, Promise<DaneAnswer>>();

  function remember(key: string, { answer, ttlSeconds }: Finding): void {
    cached.delete(key);
    const seconds = answer.kind === 'failed' ? FAILURE_SECONDS : Math.min(ttlSeconds, MAX_TTL_SECONDS);
    if (seconds > 0) {
      cached.set(key, { answer, until: now() + seconds * 1_000 });
      const [oldest] = cached.keys();
      if (cached.size > MAX_CACHED && oldest !== undefined) cached.delete(oldest);
    }
    observer.gauge('dane_cached', cached.size);
  }

  function look(key: string, destination: Destination): Promise<DaneAnswer> {
    const known = running.get(key);
    if (known) return known;
    const time = new AbortController();
    const timer = setTimeout(() => time.abort(), workMs);
    const work = inspect(destination, dns, time.signal).then((finding) => {
      clearTimeout(timer);
      remember(key, finding);
      running.delete(key);
      return finding.answer;
    });
    running.set(key, work);
    return work;
  }

  return {
    async check(destination, signal) {
      const { domain, port, direct } = destination;
      const key = `${direct ? 'host' : 'domain'} ${domain} ${port}`;
      const known = cached.get(key);
      // A clock that was set back must not make an answer last.
      const fresh = known && known.until > now() && known.until <= now() + MAX_TTL_SECONDS * 1_000;
      const answer = fresh ? known.answer : await before(signal, look(key, destination));
      observer.count('dane', { result: answer.kind });
      return answer;
    },
    explain: async (destination, signal) => (await inspect(destination, dns, signal)).lines,
  };
}

/** The answer, or a failure once the caller has no more time. */
function before(signal: AbortSignal, work: Promise<DaneAnswer>): Promise<DaneAnswer> {
  return new Promise((resolve) => {
    const giveUp = () => resolve({ kind: 'failed', reason: 'out of time for the DANE lookups' });
    if (signal.aborted) return giveUp();
    signal.addEventListener('abort', giveUp, { once: true });
    void work.then((answer) => {
      signal.removeEventListener('abort', giveUp);
      resolve(answer);
    });
  });
}

/** RFC 7672 §2.2: MX, then for each host its addresses, then, only if those are secure, its TLSA records. */
async function inspect(destination: Destination, dns: Dns, signal: AbortSignal): Promise<Finding> {
  const { domain, port, direct } = destination;
  let ttlSeconds = MAX_TTL_SECONDS;
  const ask: Ask = async (name, type) => {
    const answer = await dns.ask(name, type, signal, domain);
    if (answer.status !== 'failed') ttlSeconds = Math.min(ttlSeconds, answer.ttlSeconds);
    return answer;
  };

  const lines: string[] = [];
  const conclude = (answer: DaneAnswer, line: string): Finding => {
    lines.push(line);
    return { answer, ttlSeconds, lines };
  };
  const none = (why: string) => conclude({ kind: 'none' }, `${why}: DANE does not decide`);
  const failed = (reason: string) =>
    conclude({ kind: 'failed', reason }, `${reason}: whether DANE decides cannot be told`);

  let hosts: readonly string[] = [domain];
  // RFC 7672 §2.2.2: a host that the sender's own configuration names has no MX records.
  if (!direct) {
    const mx = await ask(domain, 'MX');
    if (mx.status === 'failed') return failed(mx.reason);
    // RFC 7672 §2.2.1: with an insecure MX RRset the hosts may be anybody's, and their TLSA records prove nothing. A
    // client MAY use them nevertheless; but where MTA-STS says which hosts are right, it protects better.
    if (!mx.authentic) return none(`the MX records of ${domain} are not signed`);
    hosts = mailHosts(domain, mx);
    if (hosts.length === 0) return none(`${domain} has no MX host that can exist`);
    lines.push(`the MX records of ${domain} are signed: ${hosts.join(', ')}`);
  }

  const findings: ({ host: string } & HostFinding)[] = [];
  await eachConcurrently(hosts.entries(), HOSTS_AT_ONCE, async ([index, host]) => {
    findings[index] = { host, ...(await inspectHost(host, port, ask)) };
  });
  for (const { host, lines: said } of findings) lines.push(...said.map((line) => `${host}: ${line}`));

  const secured = findings.filter(({ state }) => state.kind === 'tlsa').map(({ host }) => host);
  const without = findings.some(({ state }) => state.kind === 'without');
  const failures = findings.flatMap(({ state }) => (state.kind === 'failed' ? [state.reason] : []));
  // RFC 7672 §2.1.2: a host whose lookup fails is one not to be used. Postfix sees to that itself, with `dane` and with
  // `dane-only`; with `secure` it would not. So one that fails matters only where no other host shows that DANE decides.
  // But the next look may say more.
  if (failures.length > 0) ttlSeconds = Math.min(ttlSeconds, FAILURE_SECONDS);
  if (secured.length === 0 && failures[0] !== undefined) {
    // Where no host is left that mail could go to, it waits in any case, and this names the reason in Postfix's log.
    if (!without) return failed(failures[0]);
    const line = `${failures[0]}: dane, unless there may be a policy; then whether DANE decides cannot be told`;
    return conclude({ kind: 'unclear', reason: failures[0] }, line);
  }
  if (secured.length === 0) return none('no host has usable signed TLSA records');
  return without
    ? conclude({ kind: 'some', hosts: secured }, 'some hosts have usable signed TLSA records: dane')
    : conclude({ kind: 'all', hosts: secured }, 'all hosts have usable signed TLSA records: dane-only');
}

/** By preference, without repeats. Names that no host can have are left out, as Postfix does. */
function mailHosts(domain: string, answer: Exclude<DnsAnswer, { status: 'failed' }>): string[] {
  // RFC 5321 §5.1: "If an empty list of MXs is returned, the address is treated as if it was associated with an
  // implicit MX RR".
  if (answer.status === 'absent') return [domain];
  const records = answer.records.flatMap((record) => (record.type === 'MX' ? [record] : []));
  const exchanges = records.sort((a, b) => a.preference - b.preference).map(({ exchange }) => exchange);
  // RFC 7505: the root alone, a null MX, says that there is no mail.
  return [...new Set(exchanges)].filter(isHostName).slice(0, MAX_HOSTS);
}

/** Wider than the RFC, like Postfix: underscores exist. */
function isHostName(name: string): boolean {
  return isDnsName(name) && /^[a-z0-9_.-]+$/.test(name) && name !== '.';
}

/** On the domain's account, and within its time. */
type Ask = (name: string, type: QuestionType) => Promise<DnsAnswer>;

interface HostFinding {
  readonly state: Host;
  readonly lines: readonly string[];
}

async function inspectHost(host: string, port: number, ask: Ask): Promise<HostFinding> {
  const lines: string[] = [];
  const say = (state: Host, line: string) => ({ state, lines: [...lines, line] });
  const failed = (reason: string) => say({ kind: 'failed', reason }, reason);

  const answers = await Promise.all([ask(host, 'A'), ask(host, 'AAAA')]);
  const found = answers.flatMap((answer) => (answer.status === 'found' ? [answer] : []));
  const [first] = found;
  if (first === undefined) {
    const failure = answers.find((answer) => answer.status === 'failed');
    return failure
      ? failed(failure.reason)
      : say({ kind: 'unreachable' }, 'it has no address, and is left out');
  }

  // RFC 7672 §2.2.2: no TLSA lookup where the addresses are insecure. There it could prove nothing, and many name
  // servers of unsigned zones do not answer it.
  const names: string[] = [];
  const secure = found.every(({ authentic }) => authentic);
  // RFC 7672 §2.2.2: the end of secure CNAMEs first, then the name itself.
  if (secure && first.alias !== undefined && isDnsName(first.alias)) names.push(first.alias);
  if (secure) names.push(host);
  else if (first.alias !== undefined) {
    // The end is insecure; the name itself need not be.
    const cname = await ask(host, 'CNAME');
    if (cname.status === 'failed') return failed(cname.reason);
    if (cname.status === 'found' && cname.authentic) names.push(host);
  }
  if (names.length === 0) return say({ kind: 'without' }, 'its addresses are not signed, so no TLSA lookup');
  lines.push(secure ? 'its addresses are signed' : 'it is a signed alias of something that is not signed');

  for (const name of names) {
    const tlsaName = `_${port}._tcp.${name}`;
    if (!isDnsName(tlsaName)) {
      lines.push(`${quote(tlsaName)} is too long to exist`);
      continue;
    }
    const tlsa = await ask(tlsaName, 'TLSA');
    if (tlsa.status === 'failed') return failed(tlsa.reason);
    if (tlsa.status === 'absent') {
      lines.push(`no TLSA records at ${tlsaName}`);
    } else if (!tlsa.authentic) {
      lines.push(`the TLSA records at ${tlsaName} are not signed`);
    } else {
      const records = tlsa.records.flatMap((record) => (record.type === 'TLSA' ? [record] : []));
      const usable = records.filter(isUsable);
      const all = records.map((record) => `${record.usage} ${record.selector} ${record.matchingType}`);
      const line = `signed TLSA records at ${tlsaName}: ${all.join(', ')}; ${usable.length} usable`;
      return say({ kind: usable.length > 0 ? 'tlsa' : 'without' }, line);
    }
  }
  return say({ kind: 'without' }, 'it has no signed TLSA records');
}

const DANE_TA = 2;
const DANE_EE = 3;
const FULL_CERTIFICATE = 0;
const SUBJECT_PUBLIC_KEY_INFO = 1;
/** RFC 6698 §2.1.3: nothing hashed, SHA-256, SHA-512, and the octets of the last two. */
const FULL = 0;
const DIGEST_BYTES: Readonly<Record<number, number>> = { 1: 32, 2: 64 };

/** RFC 7672 §3.1.3: PKIX-TA(0) and PKIX-EE(1) are "unusable" for SMTP. RFC 6698 §2.1: whatever is not understood is, too. */
function isUsable({ usage, selector, matchingType, data }: TlsaRecord): boolean {
  if (usage !== DANE_TA && usage !== DANE_EE) return false;
  if (selector !== FULL_CERTIFICATE && selector !== SUBJECT_PUBLIC_KEY_INFO) return false;
  if (matchingType !== FULL) return data.length === DIGEST_BYTES[matchingType];
  try {
    if (selector === FULL_CERTIFICATE) new X509Certificate(data).publicKey;
    else createPublicKey({ key: data, format: 'der', type: 'spki' });
    return true;
  } catch {
    return false;
  }
}

/**
 * Asks what a validating resolver must call authentic.
 * @param probe a name with a signed SOA record: the root, or, where that is not the internet's, one that is signed there.
 */
export async function checkValidator(
  dns: Dns,
  probe = '.',
): Promise<{ readonly ok: true } | { readonly ok: false; readonly reason: string }> {
  const answer = await dns.ask(probe, 'SOA', AbortSignal.timeout(VALIDATOR_MS));
  if (answer.status === 'failed') {
    return { ok: false, reason: `No answer as a validating resolver gives it: ${answer.reason}.` };
  }
  if (answer.status === 'absent') {
    return { ok: false, reason: `The DNS server says that ${quote(probe)} has no SOA record.` };
  }
  if (answer.authentic) return { ok: true };
  return {
    ok: false,
    reason: `The DNS server answers, but does not validate: ${quote(probe)} is signed, and its SOA comes without the AD bit.`,
  };
}

/** After a restart, a validator may have to fetch the keys of the root first. */
const VALIDATOR_MS = 10_000;
