import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { type RequestOptions, request } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';
import type { Internet } from '../../../../infra/local/internet/internet.ts';
import { HANG_MS, until } from '../../../resources.ts';

/** A stub resolver that asks the programmable internet, once. Only what never answers needs a shorter `timeout`. */
export function resolverOf(internet: Internet, timeout = HANG_MS, tries = 1): Resolver {
  const resolver = new Resolver({ timeout, tries });
  resolver.setServers([internet.dnsServer]);
  return resolver;
}

export interface Answer {
  readonly status: number | undefined;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly body: string;
}

/** Asks the policy host of a domain for its policy, with what Node believes about certificates and no more. */
export async function get(internet: Internet, domain: string, options: RequestOptions = {}): Promise<Answer> {
  const name = `mta-sts.${domain}`;
  const asked = request({
    host: '127.0.0.1',
    port: internet.policyHostPort,
    servername: name,
    headers: { host: name },
    path: '/.well-known/mta-sts.txt',
    ca: internet.ca,
    agent: false,
    ...options,
  }).end();
  const [response] = await once(asked, 'response');
  response.setEncoding('latin1');
  const body = (await response.toArray()).join('');
  return { status: response.statusCode, headers: response.headers, body };
}

/**
 * Asks a policy host that never answers in full, and leaves `afterMs` after `kind` was seen there.
 * @returns the answer that there should not be, or the error; ABORT_ERR if there was nothing until the client left.
 */
export async function leave(
  internet: Internet,
  domain: string,
  kind: 'connection' | 'request',
  afterMs: number,
): Promise<Answer | string> {
  const leaving = new AbortController();
  const count = () => internet.traffic.events().filter((event) => event.kind === kind).length;
  const before = count();
  const asked = get(internet, domain, { signal: leaving.signal }).catch(codeOf);
  try {
    await until(() => count() > before, `a ${kind} of ${domain}`);
    await delay(afterMs);
  } finally {
    leaving.abort();
  }
  return asked;
}

export function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}
