// DNS questions, answered by Node's c-ares. It keeps apart "there is no such record" and "nobody could say", which
// RFC 8461 treats differently, and it bounds every question in time. getaddrinfo is not used: it has four threads.

import { promises as dns } from 'node:dns';
import { type Failure, type FailureCode, failure } from './failure.ts';
import type { Limits } from './limits.ts';

/** What a DNS question came to. `absent`: the name or the record does not exist; `unavailable`: nobody could say. */
export type Answer =
  | { readonly status: 'found'; readonly values: readonly string[] }
  | { readonly status: 'absent'; readonly detail: string }
  | { readonly status: 'unavailable'; readonly failure: Failure };

export interface Resolver {
  /** The texts of all TXT records, each joined from its strings without spaces (RFC 7208 §3.3's way). */
  txt(name: string, signal: AbortSignal): Promise<Answer>;
  /** A records; then, if that was not enough, AAAA records. Whoever stops after the first leaves nothing behind. */
  addresses(name: string, signal: AbortSignal): AsyncIterable<Answer>;
}

/** Codes of answers that say something about the server that was asked, not about the name. */
const NEXT_SERVER: ReadonlySet<string> = new Set([dns.SERVFAIL, dns.REFUSED, dns.NOTIMP, dns.FORMERR]);

/**
 * As a share of `dnsMs`: how long A may take before AAAA is asked for as well, so that a dead server is not waited for
 * twice; and how long AAAA may take once there is A, as some name servers drop questions about IPv6.
 */
const AAAA_GRACE = 0.1;

/**
 * @param servers `address` or `address:port` of recursive resolvers, asked in this order; the system's if left out.
 */
export function createResolver({ dnsMs }: Pick<Limits, 'dnsMs'>, servers?: readonly string[]): Resolver {
  // By default a dead server costs c-ares 25 s. So: 2 s, then twice 3 s, each on every server in turn, within dnsMs.
  const patience = { timeout: Math.ceil(0.2 * dnsMs), maxTimeout: Math.ceil(0.3 * dnsMs), tries: 3 };

  async function ask(
    name: string,
    type: string,
    signal: AbortSignal,
    question: (channel: dns.Resolver) => Promise<readonly string[]>,
  ): Promise<Answer> {
    // A channel for each question has a source port of its own (an off-path attacker must guess it) and can be
    // cancelled without touching anybody else's question.
    const channel = new dns.Resolver(patience);
    if (servers) channel.setServers(servers);
    let cancelled = false;
    const cancel = () => {
      cancelled = true;
      channel.cancel();
    };
    const timer = setTimeout(cancel, dnsMs);
    signal.addEventListener('abort', cancel, { once: true });
    try {
      signal.throwIfAborted();
      const values = await question(channel).catch((error) => {
        if (!prepareRetry(channel, codeOf(error))) throw error;
        return question(channel);
      });
      // To Node, an alias of a name without such a record is an empty list and no error.
      return values.length > 0
        ? { status: 'found', values }
        : { status: 'absent', detail: `no ${type} record at ${name}` };
    } catch (error) {
      const code = codeOf(error);
      // c-ares says this, too, of an answer without records whose code is above 5 (NOTAUTH, BADVERS), and does not tell.
      if (code === dns.NODATA) return { status: 'absent', detail: `no ${type} record at ${name}` };
      if (code === dns.NOTFOUND) return { status: 'absent', detail: `the name ${name} does not exist` };
      const unavailable = (failureCode: FailureCode, detail: string): Answer => ({
        status: 'unavailable',
        failure: failure(failureCode, detail, error),
      });
      if (signal.aborted) return unavailable('deadline-exceeded', `out of time for ${type} of ${name}`);
      if (cancelled) return unavailable('dns-timeout', `${type} of ${name}: no answer within ${dnsMs} ms`);
      if (code === '') throw error;
      const [failureCode, reason] = DNS_FAILURES[code] ?? ['dns-error', `the question failed (${code})`];
      return unavailable(failureCode, `${type} of ${name}: ${reason}`);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', cancel);
    }
  }

  return {
    txt: (name, signal) =>
      ask(name, 'TXT', signal, async (channel) =>
        (await channel.resolveTxt(name)).map((strings) => strings.join('')),
      ),
    async *addresses(name, signal) {
      const enough = new AbortController();
      let ipv6: Promise<Answer> | undefined;
      const askIpv6 = () => {
        ipv6 ??= ask(name, 'AAAA', AbortSignal.any([signal, enough.signal]), (channel) =>
          channel.resolve6(name),
        );
        return ipv6;
      };
      let timer = setTimeout(askIpv6, AAAA_GRACE * dnsMs);
      try {
        const ipv4 = await ask(name, 'A', signal, (channel) => channel.resolve4(name));
        clearTimeout(timer);
        yield ipv4;
        if (ipv4.status === 'found') timer = setTimeout(() => enough.abort(), AAAA_GRACE * dnsMs);
        yield await askIpv6();
      } finally {
        clearTimeout(timer);
        if (ipv6 !== undefined) {
          enough.abort();
          await ipv6;
        }
      }
    },
  };
}

const DNS_FAILURES: Readonly<Record<string, readonly [FailureCode, string]>> = {
  [dns.SERVFAIL]: ['dns-servfail', 'the resolver failed (SERVFAIL)'],
  [dns.TIMEOUT]: ['dns-timeout', 'the resolver did not answer'],
  [dns.REFUSED]: ['dns-refused', 'the resolver refused the question'],
};

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? '';
}

/**
 * Whether to ask again, once; if there is a next server, it is put first. c-ares moves on from servers that are
 * silent, unreachable or garbled, but Node has it hand an answer with an error through at once. SERVFAIL is often
 * passing trouble, and so the only one to be worth a second question to the same server.
 */
function prepareRetry(channel: dns.Resolver, code: string): boolean {
  const [first, ...others] = channel.getServers();
  if (first === undefined || others.length === 0) return code === dns.SERVFAIL;
  if (!NEXT_SERVER.has(code)) return false;
  channel.setServers([...others, first]);
  return true;
}
