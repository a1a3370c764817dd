// Logs and metrics: what operators see. One warning line for a domain that failed, none for one that did not; counts
// go to CloudWatch as embedded metrics (EMF), one line for each invocation. A domain is never a metric dimension. Lines
// are paid for by the byte, and strangers decide what they are about: each is bounded, and so is how many there are.

import { Logger } from '@aws-lambda-powertools/logger';
import { Metrics, MetricUnit } from '@aws-lambda-powertools/metrics';
import type { Domain } from '../mtasts/domain.ts';
import { type Failure, legible, quote, RESULT_TYPES } from '../mtasts/failure.ts';
import type { Outcome } from '../refresh/outcome.ts';
import { describeFault } from './fault.ts';

/** The metric that counts each outcome. */
const OUTCOME_METRICS: Readonly<Record<Outcome['kind'], string>> = {
  extended: 'Extended',
  replaced: 'Replaced',
  removed: 'Pruned',
  kept: 'Kept',
  // Nothing was stored.
  conflict: 'Skipped',
  skipped: 'Skipped',
  postponed: 'Skipped',
  discovered: 'Discovered',
  'not-implemented': 'Skipped',
  'backed-off': 'BackedOff',
};

/**
 * `Planned`, `Renewals`: what a completed daily, or renewal, run planned to refresh, zero included, so that their absence
 * shows that there was no run. `Pruned`: entries deleted, unused or gone. `Refused`: messages or items that cannot be read.
 */
const COUNTERS = ['Planned', 'Pruned', 'Renewals', 'Refused'] as const;

type Counter = (typeof COUNTERS)[number];

/** The fleet's health (see functions/plan/health.ts), as of a completed run. */
const GAUGES = ['Stored', 'Lapsed', 'Expiring', 'FailingSafe', 'Failing'] as const;

type Gauge = (typeof GAUGES)[number];

/** All metrics that there are, 15 at most: each costs $0.30 a month. */
export const METRIC_NAMES: readonly string[] = [
  ...new Set([...Object.values(OUTCOME_METRICS), ...COUNTERS, ...GAUGES]),
];

type Details = Readonly<Record<string, string | number | undefined>>;

/** Lines of an invocation about what cannot be read. The rest is counted: one mistake can have made thousands. */
const MAX_UNREADABLE_LINES = 20;

const MAX_REASON_CHARACTERS = 500;

export interface Telemetry {
  /**
   * Counts the outcome; logs a warning if the domain failed and its policy matters to senders.
   *
   * @param durationMs what the lookup, the fetch and the write took together.
   */
  outcome(domain: Domain, outcome: Outcome, durationMs: number): void;
  /** A message that cannot be decoded: it is acknowledged, since retrying cannot mend it. The first twenty have a line. */
  refused(messageId: string, reason: string): void;
  /** An item of the table that cannot be read; the same twenty. */
  unreadable(key: string, reason: string): void;
  count(counter: Counter, by: number): void;
  gauge(gauge: Gauge, value: number): void;
  info(message: string, details: Details): void;
  /** Something that an operator may want to change; the message says what. */
  warn(message: string, details: Details): void;
  /** A fault of AWS or of this program, with its stack. */
  error(message: string, error: unknown, details?: Details): void;
  /** Emits the counts. At the end of every invocation. */
  flush(): void;
}

/** Names and levels come from Powertools' variables: POWERTOOLS_SERVICE_NAME, _METRICS_NAMESPACE, _LOG_LEVEL. */
export function createTelemetry(): Telemetry {
  const logger = new Logger();
  const metrics = new Metrics();
  const counts = new Map<string, number>();
  const add = (metric: string, by: number) => counts.set(metric, (counts.get(metric) ?? 0) + by);
  let unreadable = 0;

  function cannotRead(message: string, what: Details, reason: string): void {
    add('Refused', 1);
    unreadable++;
    if (unreadable > MAX_UNREADABLE_LINES) return;
    logger.error(message, { ...what, reason: legible(reason, MAX_REASON_CHARACTERS) });
  }

  function logOutcome(domain: Domain, outcome: Outcome, durationMs: number): void {
    const duration = { duration_ms: Math.round(durationMs) };
    switch (outcome.kind) {
      case 'kept':
        // RFC 8461 §3.3: a failure is not worth a sender's attention while its policy is `none`.
        if (outcome.mode === 'none') return;
        logger.warn('refresh failed, policy kept', {
          domain,
          ...failureDetails(outcome.failure),
          ...(outcome.lookupFailure && { lookup_failure: outcome.lookupFailure.code }),
          mode: outcome.mode,
          valid_until: new Date(outcome.validEnd).toISOString(),
          failing_since: new Date(outcome.since).toISOString(),
          ...duration,
        });
        return;
      case 'replaced':
        if (outcome.lookupFailure === undefined) return;
        logger.warn('no usable record, policy fetched all the same', {
          domain,
          ...failureDetails(outcome.lookupFailure),
          ...duration,
        });
        return;
      case 'backed-off':
        logger.warn('policy cannot be fetched, backing off', {
          domain,
          ...failureDetails(outcome.failure),
          ...duration,
        });
        return;
      case 'conflict':
        // Nobody would notice that the policy is never refreshed: a conflict is no failure.
        if (!outcome.unmoved) return;
        logger.warn(
          'write refused although the item is as it was read: delete the item, or mend its LastUpdate',
          {
            domain,
            ...duration,
          },
        );
        return;
      case 'extended':
      case 'removed':
      case 'skipped':
      case 'postponed':
      case 'discovered':
        return;
      case 'not-implemented':
        // Most domains have no MTA-STS: said only to somebody who asks for it with POWERTOOLS_LOG_LEVEL=DEBUG.
        logger.debug('no MTA-STS', { domain, ...failureDetails(outcome.failure) });
        return;
    }
  }

  return {
    outcome(domain, outcome, durationMs) {
      add(OUTCOME_METRICS[outcome.kind], 1);
      logOutcome(domain, outcome, durationMs);
    },
    refused: (messageId, reason) => cannotRead('message refused', { message_id: quote(messageId) }, reason),
    unreadable: (key, reason) => cannotRead('item cannot be read', { domain: quote(key) }, reason),
    count: add,
    gauge: (gauge, value) => counts.set(gauge, value),
    info: (message, details) => logger.info(message, details),
    warn: (message, details) => logger.warn(message, details),
    error(message, error, details = {}) {
      logger.error(message, { ...details, error: describeFault(error) });
    },
    flush() {
      if (unreadable > MAX_UNREADABLE_LINES) {
        logger.error('more messages or items cannot be read', { more: unreadable - MAX_UNREADABLE_LINES });
      }
      unreadable = 0;
      if (counts.size === 0) return;
      for (const [metric, value] of counts) metrics.addMetric(metric, MetricUnit.Count, value);
      counts.clear();
      metrics.publishStoredMetrics();
    },
  };
}

function failureDetails({ code, detail }: Failure) {
  return { code, result_type: RESULT_TYPES[code], detail };
}
