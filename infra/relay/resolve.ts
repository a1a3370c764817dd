// From what Postfix asks to what it is told: the override map, then DANE, then MTA-STS, in a bounded time. It knows none of
// their insides, and it never leaves a question without an answer.

import { quote } from '../../functions/mtasts/failure.ts';
import { describeFault } from '../../functions/runtime/fault.ts';
import type { MapName, Reply, Verdict } from './answer.ts';
import { answer, deferral, formatReply } from './answer.ts';
import type { Dane } from './dane.ts';
import type { Metrics, Observer } from './metrics.ts';
import { readKey } from './names.ts';
import type { Overrides } from './overrides.ts';
import type { Found, Policies } from './policies.ts';
import { readRequest } from './socketmap.ts';

/** What decides, in this order. */
export interface Deciders {
  readonly overrides: Pick<Overrides, 'get'>;
  /** Whether DANE is to decide. Undefined: the settings say that it never does. */
  readonly dane: Pick<Dane, 'check'> | undefined;
  readonly policies: Pick<Policies, 'find'>;
}

export interface ResolveLimits {
  /** Milliseconds for the DANE lookups. */
  readonly daneMs: number;
  /** Milliseconds for everything: longer where the discovery of an unknown domain is waited for. */
  readonly answerMs: number;
}

/** Postfix itself would wait 100 s (dict_sockmap.c), and hold a delivery process for it. */
export const RESOLVE_LIMITS = { daneMs: 2_000, answerMs: 2_000, firstContactMs: 3_000 } as const;

const notFound = (reason: string): Verdict => ({ kind: 'not-found', reason });
const defer = (reason: string): Verdict => ({ kind: 'defer', reason });

const WITHOUT_POLICY: Readonly<Record<Extract<Found, { kind: 'no-policy' }>['reason'], string>> = {
  'not-implemented': 'it does not have MTA-STS',
  'back-off': 'it has a record, but no policy that could be fetched',
  requested: 'it has a record, and its policy is not in the table yet',
  unavailable: 'whether it has a policy cannot be told, and the settings let its mail go out',
};

/** What Postfix is to be told about a key. Never rejects for anything that others do. */
export type Resolve = (key: string) => Promise<Verdict>;

export function createResolve({
  overrides,
  dane,
  policies,
  limits,
  observer,
}: Deciders & { readonly limits: ResolveLimits; readonly observer: Pick<Observer, 'count'> }): Resolve {
  return async (key) => {
    const read = readKey(key);
    if (read.kind === 'none') return notFound(read.reason);
    if (read.kind === 'unclear') return defer(read.reason);
    const { destination } = read;
    const { domain } = destination;

    const override = overrides.get(domain);
    if (override !== undefined) {
      observer.count('overrides', { action: override.action });
      if (override.action === 'off') return notFound(`The override map says "off" for ${domain}.`);
      if (override.action === 'defer') return defer(`${domain}: the override map says "defer".`);
      return { kind: 'override', domain, text: override.text };
    }

    const daneTime = deadline(limits.daneMs);
    const time = deadline(limits.answerMs);
    try {
      // Side by side, since most domains have no DANE; and one that has is requested all the same, for the day on which
      // it gives DANE up.
      const found = before(policies.find(domain, time.signal), time.signal);
      // If it fails, that is no matter unless it is needed.
      found.catch(() => undefined);
      const secured = dane && (await before(dane.check(destination, daneTime.signal), daneTime.signal));
      if (secured === 'late')
        return defer(`${domain}: no answer to the DANE lookups within ${limits.daneMs} ms.`);
      switch (secured?.kind) {
        // RFC 8461 §2: "MUST NOT allow MTA-STS Policy validation to override a failing DANE validation". What Postfix
        // validates is for Postfix to find out: it looks the records up itself.
        case 'all':
          return { kind: 'dane', domain, level: 'dane-only' };
        case 'some':
          return { kind: 'dane', domain, level: 'dane' };
        case 'failed':
          return defer(`${domain}: whether it has DANE cannot be told: ${secured.reason}`);
        case 'unclear':
        case 'none':
        case undefined:
          break;
      }

      const known = await found;
      if (known === 'late')
        return defer(`${domain}: no answer about its policy within ${limits.answerMs} ms.`);
      if (secured?.kind === 'unclear') {
        // With `secure`, Postfix would use the host whose DANE cannot be told, which RFC 8461 §2 forbids. With `dane` it
        // would not, but the other hosts would lose the policy, by nothing more than a lost DNS answer. So the mail waits.
        if (known.kind === 'unknown' || isEnforced(known))
          return defer(`${domain}: whether it has DANE cannot be told: ${secured.reason}`);
        // There is nothing to lose, and RFC 7672 §2.1.2 leaves out this one host. Not "not found": Postfix is to look for
        // DANE whatever its smtp_tls_security_level is.
        return { kind: 'dane', domain, level: 'dane', unclear: secured.reason };
      }
      switch (known.kind) {
        case 'policy':
          // RFC 8461 §5: "testing" is delivered whatever is found, and in "none" there is nothing to find.
          return isEnforced(known)
            ? { kind: 'enforce', domain, policy: known.policy }
            : notFound(`The policy of ${domain} has the mode ${known.policy.mode}.`);
        case 'no-policy':
          return notFound(`${domain}: ${WITHOUT_POLICY[known.reason]}.`);
        case 'unknown':
          return defer(`${domain}: ${known.reason}`);
      }
    } finally {
      daneTime.cancel();
      time.cancel();
    }
  };
}

function isEnforced(found: Found): boolean {
  return found.kind === 'policy' && found.policy.mode === 'enforce';
}

/** As AbortSignal.timeout, but its timer can be ended: thousands of lookups a second leave none behind. */
function deadline(milliseconds: number): { readonly signal: AbortSignal; cancel(): void } {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), milliseconds);
  return { signal: controller.signal, cancel: () => clearTimeout(timer) };
}

/** The result, or `late` if the signal comes first, whether or not the work listens to it. */
function before<T>(work: Promise<T>, signal: AbortSignal): Promise<T | 'late'> {
  return new Promise((resolve, reject) => {
    const late = () => resolve('late');
    signal.addEventListener('abort', late, { once: true });
    work.then(resolve, reject);
  });
}

const FAILED: Reply = deferral('the relay failed to look this up, as its log says');

/** Answers requests of the socketmap protocol: from payload to payload. */
export function createResponder({
  resolve,
  metrics,
  elapsed = () => performance.now(),
}: {
  readonly resolve: Resolve;
  readonly metrics: Metrics;
  /** Milliseconds, from whenever. */
  readonly elapsed?: () => number;
}): { respond(payload: string): Promise<string>; refuse(reason: string): string } {
  let running = 0;

  async function reply(payload: string): Promise<{ map: MapName | 'unknown'; reply: Reply }> {
    const request = readRequest(payload);
    if (!request.ok) return { map: 'unknown', reply: request.reply };
    const { map, key } = request;
    try {
      return { map, reply: answer(map, await resolve(key)) };
    } catch (error) {
      // A bug. The mail waits rather than go out unprotected, and the log has the stack.
      const { stack } = describeFault(error);
      metrics.event('error', 'a lookup failed unexpectedly', { key: quote(key), error: stack });
      return { map, reply: FAILED };
    }
  }

  return {
    async respond(payload) {
      const start = elapsed();
      metrics.gauge('lookups_running', ++running);
      const { map, reply: said } = await reply(payload);
      metrics.gauge('lookups_running', --running);
      metrics.answered(map, label(said), (elapsed() - start) / 1_000);
      return formatReply(said);
    },
    refuse: (reason) => formatReply(deferral(reason, 'PERM')),
  };
}

/** The status, and of what was found the level. */
function label({ status, text }: Reply): string {
  return status === 'OK' ? (text.split(' ', 1)[0] ?? '') : status.toLowerCase();
}
