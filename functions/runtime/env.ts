// The configuration of each function: read from its environment once, checked as a whole, frozen. What is missing or
// wrong fails the cold start, and the message names every variable to mend.

import { isIP, isIPv4, isIPv6 } from 'node:net';

export interface PlanEnvironment {
  readonly table: string;
  readonly queueUrl: string;
  readonly scheduleGroup: string;
  readonly dispatchFunctionArn: string;
  readonly schedulerRoleArn: string;
  readonly schedulerDlqArn: string;
  readonly spreadSeconds: number;
  readonly waveSeconds: number;
  readonly latenessSeconds: number;
  readonly staleAfterSeconds: number;
  /** 0: never prune. */
  readonly unusedAfterSeconds: number;
  readonly scanSegments: number;
  /** How often the renewal run is scheduled: only for the arithmetic of the promise. */
  readonly renewalIntervalSeconds: number;
  readonly renewalMarginSeconds: number;
  readonly renewalSpreadSeconds: number;
}

export interface DispatchEnvironment {
  readonly queueUrl: string;
}

/** For `refresh` and `request`. */
export interface RefreshEnvironment {
  readonly table: string;
  /** `address` or `address:port`; undefined: the system's resolvers. */
  readonly dnsServers: readonly string[] | undefined;
  readonly policyHostPort: number;
  readonly allowPrivateAddresses: boolean;
  /** 0: mox's rule. */
  readonly maxFetchAgeSeconds: number;
}

export interface RequestEnvironment extends RefreshEnvironment {
  /** New policy domains of one registrable domain in a day. */
  readonly discoveriesPerDomainPerDay: number;
  /** New policy domains in a day. */
  readonly discoveriesPerDay: number;
}

type Variables = Readonly<Record<string, string | undefined>>;

/** SQS delays a message by 900 seconds at most ("Amazon SQS delay queues"). */
const MAX_DELAY_SECONDS = 900;

const DAY = 86_400;
const YEAR = 366 * DAY;

/** As good as none: more than there are domains with MTA-STS. */
const MOST_DISCOVERIES = 1_000_000_000;

export function planEnvironment(variables: Variables): PlanEnvironment {
  return read(variables, (reader) => {
    const environment = {
      table: reader.required('POLICY_TABLE', 'the name of the policy table'),
      queueUrl: reader.url('REFRESH_QUEUE_URL', 'the URL of the refresh queue'),
      scheduleGroup: reader.required('SCHEDULE_GROUP', 'the name of the schedule group for waves'),
      dispatchFunctionArn: reader.arn('DISPATCH_FUNCTION_ARN', 'lambda', 'the ARN of the dispatch function'),
      schedulerRoleArn: reader.arn('SCHEDULER_ROLE_ARN', 'iam', 'the ARN of the role that invokes dispatch'),
      schedulerDlqArn: reader.arn('SCHEDULER_DLQ_ARN', 'sqs', "the ARN of the schedules' dead-letter queue"),
      spreadSeconds: reader.integer('SPREAD_SECONDS', { fallback: 10_800, min: 1, max: DAY }),
      waveSeconds: reader.integer('WAVE_SECONDS', { fallback: 840, min: 1, max: MAX_DELAY_SECONDS }),
      latenessSeconds: reader.integer('SCHEDULE_LATENESS_SECONDS', {
        fallback: 60,
        min: 1,
        max: MAX_DELAY_SECONDS,
      }),
      staleAfterSeconds: reader.integer('STALE_AFTER_SECONDS', { fallback: 43_200, min: 0, max: YEAR }),
      unusedAfterSeconds: reader.integer('UNUSED_AFTER_SECONDS', {
        fallback: 15_552_000,
        min: 0,
        max: 100 * YEAR,
      }),
      scanSegments: reader.integer('SCAN_SEGMENTS', { fallback: 4, min: 1, max: 1_000 }),
      renewalIntervalSeconds: reader.integer('RENEWAL_INTERVAL_SECONDS', {
        fallback: 3_600,
        min: 1,
        max: DAY,
      }),
      renewalMarginSeconds: reader.integer('RENEWAL_MARGIN_SECONDS', { fallback: 21_600, min: 1, max: DAY }),
      renewalSpreadSeconds: reader.integer('RENEWAL_SPREAD_SECONDS', { fallback: 900, min: 1, max: DAY }),
    };
    // A schedule may fire `lateness` early for its wave, and its last message waits for lateness + wave.
    const longest = environment.waveSeconds + environment.latenessSeconds;
    if (longest > MAX_DELAY_SECONDS) {
      reader.complain(
        `WAVE_SECONDS + SCHEDULE_LATENESS_SECONDS is ${longest}, but SQS delays a message by at most ` +
          `${MAX_DELAY_SECONDS} seconds: lower one of them`,
      );
    }
    checkPromise(environment, reader);
    return environment;
  });
}

/** The shortest `max_age` for which no policy expires while its host can be reached. */
const PROMISED_MAX_AGE_SECONDS = 7_200;

/** From the moment a task is due to the written item: SQS and its batching window, a slow domain's minute, the rest. */
export const PROCESSING_SECONDS = 120;

/** Refuses settings with which a policy could expire between two renewal runs. See the README, "The promise". */
function checkPromise(environment: PlanEnvironment, reader: Reader): void {
  const { renewalIntervalSeconds, renewalMarginSeconds, renewalSpreadSeconds, latenessSeconds } = environment;
  const once = latenessSeconds + renewalSpreadSeconds + PROCESSING_SECONDS;
  const sum =
    `+ SCHEDULE_LATENESS_SECONDS (${latenessSeconds}) + RENEWAL_SPREAD_SECONDS (${renewalSpreadSeconds}) ` +
    `+ processing (${PROCESSING_SECONDS})`;
  if (renewalIntervalSeconds + once > PROMISED_MAX_AGE_SECONDS) {
    reader.complain(
      `RENEWAL_INTERVAL_SECONDS (${renewalIntervalSeconds}) ${sum} is ${renewalIntervalSeconds + once}, more than the ` +
        `${PROMISED_MAX_AGE_SECONDS} seconds that the shortest policies live: lower one of them`,
    );
  }
  if (2 * renewalIntervalSeconds + once > renewalMarginSeconds) {
    reader.complain(
      `2 x RENEWAL_INTERVAL_SECONDS (${renewalIntervalSeconds}) ${sum} is ${2 * renewalIntervalSeconds + once}, more ` +
        `than RENEWAL_MARGIN_SECONDS (${renewalMarginSeconds}), so one lost run could let policies expire: raise the ` +
        'margin, or lower one of them',
    );
  }
}

export function dispatchEnvironment(variables: Variables): DispatchEnvironment {
  return read(variables, (reader) => ({
    queueUrl: reader.url('REFRESH_QUEUE_URL', 'the URL of the refresh queue'),
  }));
}

export function refreshEnvironment(variables: Variables): RefreshEnvironment {
  return read(variables, (reader) => readDomains(variables, reader));
}

export function requestEnvironment(variables: Variables): RequestEnvironment {
  return read(variables, (reader) => {
    const environment = {
      ...readDomains(variables, reader),
      discoveriesPerDomainPerDay: reader.integer('DISCOVERIES_PER_DOMAIN_PER_DAY', {
        fallback: 100,
        min: 1,
        max: MOST_DISCOVERIES,
      }),
      discoveriesPerDay: reader.integer('DISCOVERIES_PER_DAY', {
        fallback: 20_000,
        min: 1,
        max: MOST_DISCOVERIES,
      }),
    };
    const { discoveriesPerDomainPerDay, discoveriesPerDay } = environment;
    if (discoveriesPerDomainPerDay > discoveriesPerDay) {
      reader.complain(
        `DISCOVERIES_PER_DOMAIN_PER_DAY (${discoveriesPerDomainPerDay}) is more than DISCOVERIES_PER_DAY ` +
          `(${discoveriesPerDay}), so that one domain could use up what is for all: lower the one or raise the other`,
      );
    }
    return environment;
  });
}

/** What `refresh` and `request` share. */
function readDomains(variables: Variables, reader: Reader): RefreshEnvironment {
  const allowPrivateAddresses = reader.flag('ALLOW_PRIVATE_ADDRESSES');
  // In the cloud, private addresses are the operator's own network and the metadata service: never a policy host.
  if (allowPrivateAddresses && !usesLocalDatabase(variables)) {
    reader.complain(
      'ALLOW_PRIVATE_ADDRESSES is for local use only: it needs AWS_ENDPOINT_URL_DYNAMODB to be a loopback ' +
        'address (and AWS_IGNORE_CONFIGURED_ENDPOINT_URLS to be unset), and should be left unset on AWS',
    );
  }
  return {
    table: reader.required('POLICY_TABLE', 'the name of the policy table'),
    dnsServers: reader.servers('DNS_SERVERS'),
    policyHostPort: reader.integer('POLICY_HOST_PORT', { fallback: 443, min: 1, max: 65_535 }),
    allowPrivateAddresses,
    maxFetchAgeSeconds: reader.integer('MAX_FETCH_AGE_SECONDS', { fallback: 604_800, min: 0, max: YEAR }),
  };
}

/** A variable is missing or wrong. The message names each and says what it should be. */
export class ConfigurationError extends Error {
  readonly code = 'configuration';
}

function read<T extends object>(variables: Variables, build: (reader: Reader) => T): Readonly<T> {
  const reader = new Reader(variables);
  const environment = build(reader);
  if (reader.complaints.length > 0) throw new ConfigurationError(reader.complaints.join('; '));
  return Object.freeze(environment);
}

class Reader {
  readonly complaints: string[] = [];
  readonly #variables: Variables;

  constructor(variables: Variables) {
    this.#variables = variables;
  }

  complain(complaint: string): void {
    this.complaints.push(complaint);
  }

  /** An empty variable counts as unset: that is how deployment tools spell "default". */
  #value(name: string): string | undefined {
    const value = this.#variables[name]?.trim();
    return value === '' ? undefined : value;
  }

  required(name: string, meaning: string): string {
    const value = this.#value(name);
    if (value === undefined) this.complain(`${name} is missing: it should be ${meaning}`);
    return value ?? '';
  }

  url(name: string, meaning: string): string {
    return this.#matching(name, /^https?:\/\/[^/]/, meaning);
  }

  arn(name: string, service: 'iam' | 'lambda' | 'sqs', meaning: string): string {
    return this.#matching(name, new RegExp(`^arn:[^:]+:${service}:`), meaning);
  }

  #matching(name: string, pattern: RegExp, meaning: string): string {
    const value = this.required(name, meaning);
    if (value !== '' && !pattern.test(value)) this.complain(`${name} is "${value}": it should be ${meaning}`);
    return value;
  }

  integer(name: string, { fallback, min, max }: { fallback: number; min: number; max: number }): number {
    const value = this.#value(name);
    if (value === undefined) return fallback;
    const number = Number(value);
    if (/^\d+$/.test(value) && number >= min && number <= max) return number;
    this.complain(`${name} is "${value}": it should be a whole number from ${min} to ${max}`);
    return fallback;
  }

  flag(name: string): boolean {
    const value = this.#value(name);
    if (value !== undefined && value !== '1') this.complain(`${name} is "${value}": it should be 1 or unset`);
    return value === '1';
  }

  servers(name: string): readonly string[] | undefined {
    const servers = this.#value(name)
      ?.split(',')
      .map((server) => server.trim());
    for (const server of servers ?? []) {
      if (isServer(server)) continue;
      this.complain(
        `${name} has "${server}": it should be a comma-separated list of addresses, each alone or with a port, ` +
          'as 192.0.2.1:53 or [2001:db8::1]:53',
      );
    }
    return servers && Object.freeze(servers);
  }
}

function isServer(text: string): boolean {
  if (isIP(text) !== 0) return true;
  const [, ipv6 = '', ipv4 = '', port = ''] = /^(?:\[(.+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? [];
  return (isIPv6(ipv6) || isIPv4(ipv4)) && Number(port) >= 1 && Number(port) <= 65_535;
}

/** As the SDK reads the variables. */
function usesLocalDatabase(variables: Variables): boolean {
  const url = variables.AWS_ENDPOINT_URL_DYNAMODB;
  if (url === undefined || !URL.canParse(url)) return false;
  if (variables.AWS_IGNORE_CONFIGURED_ENDPOINT_URLS === 'true') return false;
  const { hostname } = new URL(url);
  return hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname);
}
