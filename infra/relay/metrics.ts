// What the relay tells about itself: the port that every module counts and reports through, and the counters as text
// for Prometheus.

import { quote } from '../../functions/mtasts/failure.ts';
import type { Log } from './log.ts';

/**
 * Every counter, with what it counts. Labels are of few, fixed values: never a domain, which would be a time series for
 * each.
 */
const COUNTERS = {
  lookups: 'Answers given to Postfix, by map and answer.',
  connections: 'Connections accepted, by listener.',
  connections_refused: 'Connections closed at once because there were too many.',
  connections_evicted: 'Connections without a lookup, or not read, closed to make room for another.',
  connections_over_budget: 'Connections closed because all together held too much, the unread first.',
  protocol_errors: 'Connections closed because of what the client sent.',
  overrides: 'Lookups decided by the override map, by action.',
  cache: 'Looks into the cache of policies, by result (hit, miss, stale, disk).',
  table_reads: 'Reads of the table, by result (found, absent, unreadable, failed).',
  record_lookups: 'Looks at _mta-sts TXT records, by result (same, changed, absent, unusable, unavailable).',
  requests: 'Domains sent to the request queue, by kind (look, used) and result (sent, failed).',
  first_contacts: 'Waits for a domain that was unknown, by result (found, absent, timeout).',
  snapshots: 'Writes of the snapshot on disk, by result (written, failed).',
  dns_questions: 'Questions to the DNS servers, by type and result (found, absent, failed).',
  dns_retries: 'Questions asked again, by reason (timeout, truncated, mismatch, error).',
  dane: 'DANE checks, by result (none, all, some, unclear, failed).',
} as const satisfies Record<string, string>;

export type CounterName = keyof typeof COUNTERS;

const GAUGES = {
  connections_open: 'Connections open now.',
  lookups_running: 'Lookups being worked on now.',
  policies_cached: 'Domains in the cache of policies.',
  policies_on_disk: 'Policies in the snapshot on disk.',
  table_outage: '1 while the table cannot be read.',
  requests_outage: '1 while the request queue cannot be written.',
  overrides_loaded: 'Entries of the override map.',
  dane_cached: 'Domains in the cache of DANE answers.',
} as const satisfies Record<string, string>;

export type GaugeName = keyof typeof GAUGES;

export type Details = Readonly<Record<string, string | number>>;

/** How a module says what happens in it. Nothing of it throws, and nothing of it waits. */
export interface Observer {
  count(name: CounterName, labels?: Readonly<Record<string, string>>, by?: number): void;
  gauge(name: GaugeName, value: number): void;
  /** One line of the log. Text from strangers has to be quoted by whoever passes it. */
  event(level: 'info' | 'warn' | 'error', message: string, details?: Details): void;
  /** AWS cannot be used (`error`), or can be again (undefined). Said once at the start and once at the end. */
  outage(what: 'table' | 'requests', error: unknown | undefined): void;
}

export interface Metrics extends Observer {
  /** One answer to Postfix, and the seconds that it took. */
  answered(map: string, answer: string, seconds: number): void;
  /** In the text format of Prometheus, version 0.0.4. */
  text(): string;
}

const PREFIX = 'mta_sts_relay_';

/** From memory, from the table, on first contact, and what should not be. */
const BUCKETS_SECONDS = [0.0005, 0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 3] as const;

const OUTAGES = {
  table: {
    gauge: 'table_outage',
    begins:
      'the table cannot be read: policies known here stay in force, other domains follow RELAY_ON_UNKNOWN',
    ends: 'the table can be read again',
  },
  requests: {
    gauge: 'requests_outage',
    begins: 'the request queue cannot be written: new domains are not discovered, and use is not reported',
    ends: 'the request queue can be written again',
  },
} as const;

/**
 * @param build labels of `mta_sts_relay_info`.
 * @param now epoch milliseconds.
 */
export function createMetrics({
  log,
  build,
  now,
}: {
  readonly log: Log;
  readonly build: Readonly<Record<string, string>>;
  readonly now: () => number;
}): Metrics {
  const counters = new Map<CounterName, Map<string, number>>();
  const gauges = new Map<GaugeName, number>();
  const seconds = { buckets: BUCKETS_SECONDS.map(() => 0), sum: 0, count: 0 };
  /** When each outage began, epoch milliseconds. */
  const outages = new Map<keyof typeof OUTAGES, number>();

  const count: Observer['count'] = (name, labels = {}, by = 1) => {
    const series = counters.get(name) ?? new Map<string, number>();
    const key = formatLabels(labels);
    counters.set(name, series.set(key, (series.get(key) ?? 0) + by));
  };

  const gauge: Observer['gauge'] = (name, value) => {
    gauges.set(name, value);
  };

  return {
    count,
    gauge,
    event: log.event,

    outage(what, error) {
      const since = outages.get(what);
      const { gauge: name, begins, ends } = OUTAGES[what];
      if (error !== undefined && since === undefined) {
        outages.set(what, now());
        gauge(name, 1);
        log.event('error', begins, { reason: describe(error) });
      } else if (error === undefined && since !== undefined) {
        outages.delete(what);
        gauge(name, 0);
        log.event('info', ends, { outage_seconds: Math.round((now() - since) / 1_000) });
      }
    },

    answered(map, answer, taken) {
      count('lookups', { map, answer });
      const bucket = BUCKETS_SECONDS.findIndex((limit) => taken <= limit);
      if (bucket >= 0) seconds.buckets[bucket] = (seconds.buckets[bucket] ?? 0) + 1;
      seconds.sum += taken;
      seconds.count += 1;
    },

    text() {
      const lines: string[] = [];
      const family = (name: string, type: string, help: string) =>
        lines.push(`# HELP ${PREFIX}${name} ${help}`, `# TYPE ${PREFIX}${name} ${type}`);

      family('info', 'gauge', 'Always 1, with what is running.');
      lines.push(`${PREFIX}info${formatLabels(build)} 1`);
      for (const [name, help] of entries(COUNTERS)) {
        family(`${name}_total`, 'counter', help);
        // A counter that is not there until something happens hides the first increase from Prometheus.
        const series = counters.get(name) ?? new Map([['', 0]]);
        for (const [labels, value] of series) lines.push(`${PREFIX}${name}_total${labels} ${value}`);
      }
      for (const [name, help] of entries(GAUGES)) {
        family(name, 'gauge', help);
        lines.push(`${PREFIX}${name} ${gauges.get(name) ?? 0}`);
      }
      family('lookup_seconds', 'histogram', 'Time from a request to its answer.');
      let below = 0;
      for (const [index, limit] of BUCKETS_SECONDS.entries()) {
        below += seconds.buckets[index] ?? 0;
        lines.push(`${PREFIX}lookup_seconds_bucket{le="${limit}"} ${below}`);
      }
      lines.push(
        `${PREFIX}lookup_seconds_bucket{le="+Inf"} ${seconds.count}`,
        `${PREFIX}lookup_seconds_sum ${seconds.sum}`,
        `${PREFIX}lookup_seconds_count ${seconds.count}`,
      );
      return `${lines.join('\n')}\n`;
    },
  };
}

function entries<T extends object>(table: T): [keyof T, T[keyof T]][] {
  return Object.entries(table) as [keyof T, T[keyof T]][];
}

function formatLabels(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

/** AWS's name for the error says more than its text: ExpiredTokenException, AccessDeniedException, TimeoutError. */
function describe(error: unknown): string {
  return quote(error instanceof Error ? `${error.name}: ${error.message}` : String(error));
}
