// The programmable internet: a resolver and the policy hosts of every domain under `test`, on loopback, for the
// tests and for `npm start`. What a domain does is data (a Site, or a name from the table of behaviours) and can
// be changed while it runs; what it is asked is counted, so that a test can show that nothing was asked.
// It knows the protocols' servers' side and all their faults. It must not know how a sender reads any of it, and
// imports nothing of `functions`.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BehaviourName, behaviours } from './behaviours.ts';
import { type Ask, startDns } from './dns.ts';
import { startPolicyHosts, type Visits } from './hosts.ts';
import type { Name, Site } from './site.ts';

export type { Site } from './site.ts';
export { type BehaviourName, behaviours };

export interface InternetOptions {
  /** 0, the default, takes a free port. */
  readonly dnsPort?: number;
  /** False: the resolver is not there over TCP. */
  readonly dnsOverTcp?: boolean;
  readonly policyHostPort?: number;
  /** Of loopback, where policy hosts are reached; 127.0.0.1 by default, the one that every system has. */
  readonly policyHostAddresses?: readonly string[];
}

interface TrafficEvent {
  readonly at: number;
  /** A DNS question, a connection whose ClientHello names a policy host, or an HTTP request on one. */
  readonly kind: 'query' | 'connection' | 'request';
  readonly name: string;
  /** The type and transport of a question, the path of a request. */
  readonly detail: string;
}

interface Traffic {
  /** DNS questions: all, those about a name, or those about a policy domain (record and policy host). */
  queries(nameOrDomain?: string): number;
  /** HTTPS connections: all, or those to the policy host of a domain. Each is one request at most. */
  fetches(domain?: string): number;
  /** When the record of a policy domain was asked for first, epoch milliseconds. */
  firstLookup(domain: string): number | undefined;
  /** The latest events, oldest first. */
  events(): readonly TrafficEvent[];
  reset(): void;
}

export interface Internet {
  /** `127.0.0.1:<port>`, UDP and TCP. */
  readonly dnsServer: string;
  readonly policyHostPort: number;
  /** The policy hosts are reached at each of them, whatever their names say. */
  readonly policyHostAddresses: readonly string[];
  /** The root of trust as PEM, and a file of it that lives until `close`. */
  readonly ca: string;
  readonly caFile: string;
  /** What this policy domain does from now on. */
  set(domain: string, does: Site | BehaviourName): void;
  /** Its names no longer exist, and its host is gone. */
  remove(domain: string): void;
  readonly traffic: Traffic;
  /** Open TCP connections, of DNS and of HTTPS. */
  openSockets(): number;
  /** The most HTTPS connections that one address has had at the same time, as far as leaving clients were noticed. */
  mostAtOnce(): number;
  /** Ends every connection at once; afterwards no socket, timer or file is left. */
  close(): Promise<void>;
}

/** So many events are remembered; the counts know of all. */
const MAX_EVENTS = 1000;
const POLICY_HOST = 'mta-sts.';
const RECORD = '_mta-sts.';
const WITHOUT_RECORDS: Name = {};
const LOOPBACK: Name = { a: ['127.0.0.1'] };

export async function startInternet(options: InternetOptions = {}): Promise<Internet> {
  /** By policy domain; `asked` counts the questions since `set`, by name and type. */
  const sites = new Map<string, { site: Site; asked: Map<string, number> }>();
  const { traffic, note } = recordTraffic();

  const ask: Ask = (name, type, transport) => {
    note('query', name, `${type} ${transport}`);
    const known = sites.get(domainOf(name));
    if (!known) return undefined;
    const question = `${name} ${type}`;
    const asked = known.asked.get(question) ?? 0;
    known.asked.set(question, asked + 1);
    const { record = { rcode: 'NXDOMAIN' }, host = LOOPBACK } = known.site;
    if (name.startsWith(RECORD)) return { does: record, asked };
    return { does: name.startsWith(POLICY_HOST) ? host : WITHOUT_RECORDS, asked };
  };
  const visits: Visits = {
    connection(host) {
      note('connection', host, '');
      const site = host.startsWith(POLICY_HOST) ? sites.get(domainOf(host))?.site : undefined;
      return site && (site.https ?? {});
    },
    request: (host, path) => note('request', host, path),
  };

  const dns = await startDns(ask, { port: options.dnsPort ?? 0, tcp: options.dnsOverTcp ?? true });
  const { policyHostPort = 0, policyHostAddresses = ['127.0.0.1'] } = options;
  const hosts = await startPolicyHosts(visits, policyHostPort, policyHostAddresses).catch(async (error) => {
    await dns.close();
    throw error;
  });
  const folder = await mkdtemp(join(tmpdir(), 'mta-sts-internet-'));
  const caFile = join(folder, 'root.pem');
  await writeFile(caFile, hosts.ca);

  let closing: Promise<unknown> | undefined;
  return {
    dnsServer: `127.0.0.1:${dns.port}`,
    policyHostPort: hosts.port,
    policyHostAddresses,
    ca: hosts.ca,
    caFile,
    set(domain, does) {
      // RFC 6761 §6.2: `test` is nobody's, so a question that goes astray can never reach a real domain
      if (!/^[a-z0-9.-]+\.test$/.test(domain)) throw new Error(`not a domain under test: ${domain}`);
      const site = typeof does === 'string' ? behaviours[does](domain) : does;
      sites.set(domain, { site, asked: new Map() });
    },
    remove: (domain) => void sites.delete(domain),
    traffic,
    openSockets: () => dns.openSockets() + hosts.openSockets(),
    mostAtOnce: hosts.mostAtOnce,
    async close() {
      // Once is enough, also for a test that closes it and has it closed at its end.
      closing ??= Promise.all([dns.close(), hosts.close(), rm(folder, { recursive: true, force: true })]);
      await closing;
    },
  };
}

function domainOf(name: string): string {
  return name.replace(/^_?mta-sts\./, '');
}

function recordTraffic() {
  const counts = new Map<string, number>();
  const firstQueries = new Map<string, number>();
  let events: TrafficEvent[] = [];
  const count = (kind: TrafficEvent['kind'], name = '*') => counts.get(`${kind} ${name}`) ?? 0;
  const traffic: Traffic = {
    queries(name) {
      const names = name === undefined ? ['*'] : [name, RECORD + name, POLICY_HOST + name];
      return names.reduce((sum, each) => sum + count('query', each), 0);
    },
    fetches: (domain) => count('connection', domain === undefined ? '*' : POLICY_HOST + domain),
    firstLookup: (domain) => firstQueries.get(RECORD + domain),
    events: () => events.slice(-MAX_EVENTS),
    reset() {
      counts.clear();
      firstQueries.clear();
      events = [];
    },
  };
  function note(kind: TrafficEvent['kind'], name: string, detail: string): void {
    for (const key of [`${kind} ${name}`, `${kind} *`]) counts.set(key, (counts.get(key) ?? 0) + 1);
    const at = Date.now();
    if (kind === 'query' && !firstQueries.has(name)) firstQueries.set(name, at);
    events.push({ at, kind, name, detail });
    if (events.length >= 2 * MAX_EVENTS) events = events.slice(-MAX_EVENTS);
  }
  return { traffic, note };
}
