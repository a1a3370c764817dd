// The figures of a simulation as text.

import type { Trial } from './edges.ts';
import { LIFETIME_NAMES, type Measured, ROWS } from './measure.ts';
import { DAY, HOUR, MINUTE, promiseOf, type Settings } from './settings.ts';

type Cells = readonly string[];

/** The first column to the left, figures to the right. */
function table(title: string, head: Cells, rows: readonly Cells[]): string {
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]?.length ?? 0)));
  const line = (row: Cells) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('   ');
  return `${title}\n\n${[head, ...rows].map((row) => `  ${line(row)}\n`).join('')}`;
}

function percent(part: number, whole: number, digits = 2): string {
  if (whole === 0) return '-';
  return part === 0 ? '0' : `${((100 * part) / whole).toFixed(digits)}%`;
}

function duration(ms: number | undefined): string {
  if (ms === undefined) return '-';
  if (ms === 0) return '0';
  if (ms < 3 * HOUR) return `${Math.round(ms / MINUTE)} min`;
  return ms < 3 * DAY ? `${(ms / HOUR).toFixed(1)} h` : `${(ms / DAY).toFixed(1)} d`;
}

export function promiseText(settings: Settings): string {
  const { renewalMs, rescueMs, recoveryMs } = promiseOf(settings);
  const lost = promiseOf(settings, true);
  const interval = duration(settings.renewalIntervalMs);
  const margin = duration(settings.times.renewalMarginMs);
  return [
    `Renewal   within ${duration(renewalMs)} (${interval} interval + lateness + processing), ${duration(lost.renewalMs)} if a run is lost`,
    `Outage    a policy lives on if its host can be reached for its last ${duration(rescueMs)}, or for ${duration(recoveryMs)} on end in its last ${margin}`,
    `Recovery  a policy that did end is there again ${duration(recoveryMs)} after its host is\n`,
  ].join('\n');
}

export function reportText(results: readonly Measured[]): string {
  const each = (heading: string) => results.map(({ rule }) => `${heading}${rule}`);
  const lines = <Row extends string>(rows: readonly Row[], cells: (row: Row) => Cells) =>
    rows.map((row) => [row, ...cells(row)]);
  return [
    table(
      'EXPIRED, share of the time and longest, while the host could be reached (not in an outage, nor in the recovery\n' +
        'that is promised after it); raw: whatever the host did',
      ['max_age', 'policy years', 'unreachable', ...each(''), ...each('longest '), ...each('raw ')],
      lines(LIFETIME_NAMES, (row) => {
        const of = results.map(({ rows }) => rows[row]);
        const { heldMs = 0, reachableMs = 0 } = of[0] ?? {};
        return [
          (heldMs / DAY / 365).toFixed(0),
          percent(heldMs - reachableMs, heldMs, 1),
          ...of.map((tally) => percent(tally.reachableExpiredMs, tally.reachableMs)),
          ...of.map((tally) => duration(tally.reachableWorstMs)),
          ...of.map((tally) => percent(tally.expiredMs, tally.heldMs)),
        ];
      }),
    ),
    table(
      'REQUESTS for what is stored, per domain and day',
      ['', ...each('lookups '), ...each('fetches ')],
      lines([...ROWS, 'all'], (row) => {
        const perDay = (what: 'lookups' | 'fetches') =>
          results.map(({ rows }) => {
            const of = row === 'all' ? Object.values(rows) : [rows[row]];
            const heldMs = of.reduce((sum, tally) => sum + tally.heldMs, 0);
            return heldMs === 0
              ? '-'
              : ((of.reduce((sum, tally) => sum + tally[what], 0) * DAY) / heldMs).toFixed(2);
          });
        return [...perDay('lookups'), ...perDay('fetches')];
      }),
    ),
    table(
      'UNNOTICED, how long a changed policy was, while its host could be reached',
      ['published', 'rule', 'changes', 'median', 'p99', 'longest', 'never'],
      results.flatMap(({ rule, changes }) =>
        Object.entries(summarize(changes)).map(([kind, { count, median, p99, longest, never }]) => [
          ...[kind, rule, String(count), duration(median), duration(p99), duration(longest)],
          percent(never, count, 0),
        ]),
      ),
    ),
    ...results.map(outcomesText),
  ].join('\n');
}

function outcomesText({ rule, outcomes, domainDays, pruned, schedules }: Measured): string {
  const all = Object.values(outcomes).reduce(
    (a, b) => ({ daily: a.daily + b.daily, renewal: a.renewal + b.renewal, request: a.request + b.request }),
    { daily: 0, renewal: 0, request: 0 },
  );
  const total = all.daily + all.renewal + all.request;
  return table(
    `OUTCOMES of ${rule}; and in all, ${pruned} entries pruned, ${schedules.daily} + ${schedules.renewal} schedules for daily + renewal runs`,
    ['', 'daily', 'renewal', 'request', 'all', 'a day of 1,000 domains'],
    Object.entries({ ...outcomes, all }).map(([name, { daily, renewal, request }]) => [
      name,
      ...[daily, renewal, request, daily + renewal + request].map((count) => percent(count, total)),
      ((1_000 * (daily + renewal + request)) / domainDays).toFixed(2),
    ]),
  );
}

export function summarize(changes: Measured['changes']) {
  const entries = Object.entries(changes).map(([kind, { delays, never }]) => {
    const at = (share: number) => delays[Math.min(Math.floor(delays.length * share), delays.length - 1)];
    const [median, p99, longest] = [at(0.5), at(0.99), at(1)];
    return [kind, { count: delays.length + never, median, p99, longest, never }] as const;
  });
  return Object.fromEntries(entries);
}

const BIN_MS = 12 * MINUTE;

export interface EdgeResult {
  readonly name: string;
  readonly enoughMs: number;
  readonly longestMs: number;
  readonly trials: readonly Trial[];
}

export function edgesText(edges: readonly EdgeResult[]): string {
  const bins = Math.ceil(Math.max(...edges.map(({ enoughMs }) => enoughMs)) / BIN_MS);
  return table(
    'AT THE EDGE, how many day-long policies survive an outage of nearly all of their last day',
    ['reachable', ...edges.map(({ name }) => name)],
    [
      ...Array.from({ length: bins }, (_, bin) => [
        `${(bin * BIN_MS) / MINUTE} to ${((bin + 1) * BIN_MS) / MINUTE} min`,
        ...edges.map(({ trials }) => {
          const those = trials.filter(({ reachableMs }) => Math.floor(reachableMs / BIN_MS) === bin);
          return percent(those.filter(({ survived }) => survived).length, those.length, 1);
        }),
      ]),
      ['promised to be enough', ...edges.map(({ enoughMs }) => duration(enoughMs))],
      ['longest that was not', ...edges.map(({ longestMs }) => duration(longestMs))],
    ],
  );
}
