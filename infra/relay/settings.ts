// The relay's settings: from its environment alone, read once and checked as a whole.

import { isIP } from 'node:net';
import { type DnsServer, isOnLoopback, parseServer } from './dns.ts';
import type { Listener } from './server.ts';

const FIRST_CONTACTS = ['wait', 'async', 'defer'] as const;
export type FirstContact = (typeof FIRST_CONTACTS)[number];

const ON_UNKNOWN = ['defer', 'none'] as const;
export type OnUnknown = (typeof ON_UNKNOWN)[number];

export interface Settings {
  readonly table: string;
  readonly requestQueueUrl: string;
  readonly region: string;
  /** Sockets of systemd first, if it started the relay by one. */
  readonly listeners: readonly Listener[];
  readonly maxConnections: number;
  readonly dnsServers: readonly DnsServer[];
  readonly dane: boolean;
  readonly firstContact: FirstContact;
  readonly onUnknown: OnUnknown;
  /** Policies in memory and on disk, and as many domains without one. */
  readonly cachedDomains: number;
  readonly stateDirectory: string;
  readonly overrides: string | undefined;
  readonly metrics: { readonly host: string; readonly port: number } | undefined;
  readonly logFormat: 'text' | 'json';
}

/** Settings are missing or wrong. The message names each and says what it should be. */
export class SettingsError extends Error {
  readonly code = 'settings';
}

type Variables = Readonly<Record<string, string | undefined>>;

interface Variable {
  readonly meaning: string;
  /** As it would be written; without one it is required, or there is simply none. */
  readonly fallback?: string;
  readonly required?: true;
}

/** Every setting, in the order of `--help`. */
const VARIABLES = {
  RELAY_TABLE: { meaning: 'name of the policy table (output PolicyTableName)', required: true },
  RELAY_REQUEST_QUEUE_URL: { meaning: 'URL of the request queue (output RequestQueueUrl)', required: true },
  RELAY_LISTEN: {
    meaning:
      'where Postfix asks, comma-separated: unix:<path>, inet:<address>:<port>; sockets that systemd passes on are used beside it, and instead of the default',
    fallback: 'unix:/run/mta-sts-relay/socket',
  },
  RELAY_SOCKET_MODE: { meaning: 'permissions of Unix sockets, octal', fallback: '666' },
  RELAY_LISTEN_ANYWHERE: {
    meaning:
      'on: inet: addresses need not be loopback. Whoever can be in between can then turn enforcement off: the protocol has no authentication',
    fallback: 'off',
  },
  RELAY_MAX_CONNECTIONS: { meaning: 'connections at once, 1 to 100000', fallback: '1000' },
  RELAY_DNS_SERVERS: {
    meaning:
      'resolvers, comma-separated, each <address> or <address>:<port>; with DANE validating, and on loopback',
    fallback: '127.0.0.1:53',
  },
  RELAY_DANE: {
    meaning:
      'off: no DANE lookups, and MTA-STS goes before DANE, which RFC 8461 section 2 forbids where there is DANE',
    fallback: 'on',
  },
  RELAY_FIRST_CONTACT: {
    meaning:
      'a domain that is not in the table yet and has a record, or one that cannot be looked up: wait (up to 3 s for its discovery, then deliver as without a policy), async (deliver so at once) or defer',
    fallback: 'wait',
  },
  RELAY_ON_UNKNOWN: {
    meaning:
      'when the table is down and it cannot be told whether a domain has a policy: defer, or none (deliver as without a policy)',
    fallback: 'defer',
  },
  RELAY_CACHED_DOMAINS: {
    meaning: 'policies in memory and on disk, and as many domains without one; 100 to 1000000',
    fallback: '50000',
  },
  RELAY_STATE_DIRECTORY: {
    meaning: "directory for the last known policies; systemd's STATE_DIRECTORY, if it is set",
    fallback: '/var/lib/mta-sts-relay',
  },
  RELAY_OVERRIDES: { meaning: 'file with the override map; none if unset' },
  RELAY_METRICS: {
    meaning: '<address>:<port> of /metrics, /ready and /healthz, or off',
    fallback: '127.0.0.1:8462',
  },
  RELAY_LOG_FORMAT: { meaning: 'text or json, on standard error', fallback: 'text' },
  AWS_REGION: { meaning: "region of table and queue; by default that of the queue's URL" },
} as const satisfies Record<string, Variable>;

type Name = keyof typeof VARIABLES;

/** One paragraph for each setting, with its default. */
export function describeSettings(width = 100): string {
  return Object.entries<Variable>(VARIABLES)
    .map(([name, { meaning, fallback, required }]) => {
      const end = required ? ' (required)' : fallback === undefined ? '' : ` (default ${fallback})`;
      return `  ${name}\n${wrap(`${meaning}${end}`, width - 6)
        .map((line) => `      ${line}`)
        .join('\n')}`;
    })
    .join('\n');
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

/** The first descriptor that systemd passes on (sd_listen_fds(3)). */
const FIRST_PASSED_FD = 3;

/** @param pid of this process: what systemd passes on is for one process alone. */
export function readSettings(variables: Variables, pid: number): Settings {
  const complaints: string[] = [];
  const complain = (complaint: string) => complaints.push(complaint);

  /** An empty variable counts as unset: that is how environment files spell "default". */
  const given = (name: string): string | undefined => variables[name]?.trim() || undefined;
  const value = (name: Name): string => {
    const { fallback, required, meaning }: Variable = VARIABLES[name];
    const text = given(name) ?? fallback;
    if (text === undefined && required) complain(`${name} is missing: it should be the ${meaning}`);
    return text ?? '';
  };
  const bad = (name: Name, text: string, should: string) =>
    complain(`${name} is "${text}": it should be ${should}`);
  const oneOf = <T extends string>(name: Name, words: readonly T[]): T => {
    const text = value(name);
    const word = words.find((each) => each === text);
    if (word === undefined) bad(name, text, `one of ${words.join(', ')}`);
    return word ?? (words[0] as T);
  };
  const integer = (name: Name, min: number, max: number): number => {
    const text = value(name);
    const number = Number(text);
    if (!/^\d{1,9}$/.test(text) || number < min || number > max) {
      bad(name, text, `a whole number from ${min} to ${max}`);
    }
    return number;
  };

  for (const name of Object.keys(variables)) {
    // A misspelt setting would silently be the default.
    if (name.startsWith('RELAY_') && !(name in VARIABLES)) complain(`${name} is not a setting: see --help`);
  }

  const table = value('RELAY_TABLE');
  const requestQueueUrl = value('RELAY_REQUEST_QUEUE_URL');
  if (requestQueueUrl !== '' && !/^https?:\/\/[^/]/.test(requestQueueUrl)) {
    bad('RELAY_REQUEST_QUEUE_URL', requestQueueUrl, 'the URL of a queue, as the stack has it in its outputs');
  }

  const region = given('AWS_REGION') ?? given('AWS_DEFAULT_REGION') ?? regionOf(requestQueueUrl);
  if (region === undefined)
    complain('AWS_REGION is missing: it should be the region of the table and the queue');

  const anywhere = oneOf('RELAY_LISTEN_ANYWHERE', ['off', 'on']) === 'on';
  const mode = value('RELAY_SOCKET_MODE');
  if (!/^0?[0-7]{3}$/.test(mode)) bad('RELAY_SOCKET_MODE', mode, 'three octal digits, as 666 or 660');
  const passed = passedSockets(given, pid);
  const listeners: Listener[] = [...passed];
  if (passed.length === 0 || given('RELAY_LISTEN') !== undefined) {
    for (const text of list(value('RELAY_LISTEN'))) {
      const listener = readListener(text, Number.parseInt(mode, 8));
      if (listener === undefined) {
        complain(
          `RELAY_LISTEN has "${text}": it should be a comma-separated list of unix:/absolute/path and ` +
            'inet:<address>:<port>, as inet:127.0.0.1:8461 or inet:[::1]:8461',
        );
      } else if (listener.kind === 'inet' && !anywhere && !isLoopback(listener.host)) {
        complain(
          `RELAY_LISTEN has "${text}", which is not loopback: whoever is between Postfix and the relay could then turn ` +
            'enforcement off; set RELAY_LISTEN_ANYWHERE=on if the network in between is to be trusted',
        );
      } else {
        listeners.push(listener);
      }
    }
  }

  const dane = oneOf('RELAY_DANE', ['on', 'off']) === 'on';
  const dnsServers: DnsServer[] = [];
  for (const text of list(value('RELAY_DNS_SERVERS'))) {
    const server = parseServer(text);
    if (server === undefined) {
      complain(
        `RELAY_DNS_SERVERS has "${text}": it should be a comma-separated list of addresses, each alone or with a port, ` +
          'as 127.0.0.1:53 or [::1]:53',
      );
    } else if (dane && !isOnLoopback(server)) {
      // RFC 7672 §2.1.3 and RFC 6698 §A.3: what says "authentic" has to reach us over a path that nobody can change.
      complain(
        `RELAY_DNS_SERVERS has "${text}", which is not on this machine: what it says of DNSSEC could be changed on the ` +
          'way; run a validating resolver here, or set RELAY_DANE=off',
      );
    } else {
      dnsServers.push(server);
    }
  }

  const stateDirectory =
    given('RELAY_STATE_DIRECTORY') ??
    given('STATE_DIRECTORY')?.split(':')[0] ??
    VARIABLES.RELAY_STATE_DIRECTORY.fallback;
  if (!stateDirectory.startsWith('/')) bad('RELAY_STATE_DIRECTORY', stateDirectory, 'an absolute path');

  const settings: Settings = {
    table,
    requestQueueUrl,
    region: region ?? '',
    listeners,
    maxConnections: integer('RELAY_MAX_CONNECTIONS', 1, 100_000),
    dnsServers,
    dane,
    firstContact: oneOf('RELAY_FIRST_CONTACT', FIRST_CONTACTS),
    onUnknown: oneOf('RELAY_ON_UNKNOWN', ON_UNKNOWN),
    cachedDomains: integer('RELAY_CACHED_DOMAINS', 100, 1_000_000),
    stateDirectory,
    overrides: given('RELAY_OVERRIDES'),
    metrics: readMetrics(),
    logFormat: oneOf('RELAY_LOG_FORMAT', ['text', 'json']),
  };
  if (complaints.length > 0) throw new SettingsError(complaints.join('; '));
  return Object.freeze(settings);

  function readMetrics(): Settings['metrics'] {
    const text = value('RELAY_METRICS');
    if (text === 'off') return undefined;
    const address = readAddress(text);
    if (address === undefined) bad('RELAY_METRICS', text, 'off or <address>:<port>, as 127.0.0.1:8462');
    return address;
  }
}

function list(text: string): string[] {
  return text.split(',').map((each) => each.trim());
}

function readListener(text: string, mode: number): Listener | undefined {
  if (text.startsWith('unix:/')) return { kind: 'unix', path: text.slice('unix:'.length), mode };
  const address = text.startsWith('inet:') ? readAddress(text.slice('inet:'.length)) : undefined;
  return address && { kind: 'inet', ...address };
}

/** `address:port` or `[address]:port`; port 0 is any that is free. */
function readAddress(text: string): { host: string; port: number } | undefined {
  const [, ipv6, ipv4, digits] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = ipv6 ?? ipv4 ?? '';
  const port = Number(digits);
  if (isIP(host) !== (ipv6 === undefined ? 4 : 6) || port > 65_535) return undefined;
  return { host, port };
}

function isLoopback(address: string): boolean {
  return isOnLoopback({ address, port: 0 });
}

/** sd_listen_fds(3): how many sockets there are, and for which process they are. */
function passedSockets(given: (name: string) => string | undefined, pid: number): Listener[] {
  if (given('LISTEN_PID') !== String(pid)) return [];
  const count = Number(given('LISTEN_FDS') ?? 0);
  if (!Number.isInteger(count) || count < 0 || count > 100) return [];
  return Array.from({ length: count }, (_, index) => ({ kind: 'fd', fd: FIRST_PASSED_FD + index }));
}

/** `https://sqs.eu-west-1.amazonaws.com/…`, also of other partitions. */
function regionOf(queueUrl: string): string | undefined {
  return /^https:\/\/sqs\.([a-z]{2}[a-z-]*-\d)\.amazonaws\.com/.exec(queueUrl)?.[1];
}
