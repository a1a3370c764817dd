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
  /** A and AAAA records, IPv4 first. */
  addresses(name: string, signal: AbortSignal): Promise<Answer>;
}

// A dead server costs c-ares 25 s by default. So: 2 s, then twice 3 s, each on every server in turn, within dnsMs.
const CARES = { timeout: 2_000, maxTimeout: 3_000, tries: 3 };

/**
 * @param servers `address` or `address:port` of recursive resolvers, asked in this order; the system's if left out.
 */
export function createResolver(limits: Pick<Limits, 'dnsMs'>, servers?: readonly string[]): Resolver {
  async function ask(
    name: string,
    type: string,
    signal: AbortSignal,
    question: (channel: dns.Resolver) => Promise<readonly string[]>,
  ): Promise<Answer> {
    const deadline = AbortSignal.timeout(limits.dnsMs);
    const stop = AbortSignal.any([deadline, signal]);
    let rotation = 0;
    for (;;) {
      if (stop.aborted) break;
      // A channel for each question has a source port of its own (an off-path attacker must guess it) and can be
      // cancelled without touching anybody else's question.
      const channel = new dns.Resolver(CARES);
      const order = [...(servers ?? channel.getServers())];
      order.push(...order.splice(0, rotation % Math.max(order.length, 1)));
      if (order.length > 0) channel.setServers(order);
      const cancel = () => channel.cancel();
      stop.addEventListener('abort', cancel, { once: true });
      try {
        const values = await question(channel);
        return values.length > 0
          ? { status: 'found', values }
          : { status: 'absent', detail: `no ${type} record at ${name}` };
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code ?? '';
        if (code === dns.NODATA) return { status: 'absent', detail: `no ${type} record at ${name}` };
        if (code === dns.NOTFOUND) return { status: 'absent', detail: `the name ${name} does not exist` };
        if (stop.aborted) break;
        // c-ares hands SERVFAIL through at once. It is often one server's passing trouble: ask the next one, once.
        if (code === dns.SERVFAIL && rotation === 0) {
          rotation = 1;
          continue;
        }
        return { status: 'unavailable', failure: dnsFailure(code, type, name, error) };
      } finally {
        stop.removeEventListener('abort', cancel);
      }
    }
    return {
      status: 'unavailable',
      failure: signal.aborted
        ? failure('deadline-exceeded', `out of time while asking for ${type} of ${name}`)
        : failure('dns-timeout', `no answer for ${type} of ${name} within ${limits.dnsMs} ms`),
    };
  }

  return {
    txt: (name, signal) =>
      ask(name, 'TXT', signal, async (channel) =>
        (await channel.resolveTxt(name)).map((strings) => strings.join('')),
      ),
    async addresses(name, signal) {
      const answers = await Promise.all([
        ask(name, 'A', signal, (channel) => channel.resolve4(name)),
        ask(name, 'AAAA', signal, (channel) => channel.resolve6(name)),
      ]);
      const values = answers.flatMap((answer) => (answer.status === 'found' ? answer.values : []));
      if (values.length > 0) return { status: 'found', values };
      const unavailable = answers.find((answer) => answer.status === 'unavailable');
      return unavailable ?? { status: 'absent', detail: `${name} has no address` };
    },
  };
}

const DNS_FAILURES: Readonly<Record<string, readonly [FailureCode, string]>> = {
  [dns.SERVFAIL]: ['dns-servfail', 'the resolver failed (SERVFAIL)'],
  [dns.TIMEOUT]: ['dns-timeout', 'the resolver did not answer'],
  [dns.REFUSED]: ['dns-refused', 'the resolver refused the question'],
};

function dnsFailure(code: string, type: string, name: string, cause: unknown): Failure {
  const [failureCode, reason] = DNS_FAILURES[code] ?? ['dns-error', `the question failed (${code})`];
  return failure(failureCode, `${type} of ${name}: ${reason}`, cause);
}
