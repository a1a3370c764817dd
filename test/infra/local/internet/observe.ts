import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { type RequestOptions, request } from 'node:https';
import type { Internet } from '../../../../infra/local/internet/internet.ts';

/** A stub resolver that asks the programmable internet, once and not for long. */
export function resolverOf(internet: Internet, timeout = 1000, tries = 1): Resolver {
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

export function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}
