// What a soak tells in the end.

import { paint, table } from '../../infra/local/screen.ts';
import type { Lived } from './days.ts';

export function reportText(lived: Lived): string {
  const { neighbours, faults, outages, kills, runs, requests, schedulesRepeated, tasks, deliveries } = lived;
  const { writes, rivalWrites, refused, letters, errors, seconds } = lived;
  const byKind = sumBy(faults, (key) => key.split(' ').slice(2).join(' '));
  const byCall = sumBy(faults, (key) => key.split(' ').slice(0, 2).join(' '));
  const atCalls = [...byKind]
    .filter(([kind]) => kind.startsWith('kill'))
    .reduce((sum, [, each]) => sum + each, 0);
  const queues = sumBy(
    new Map(letters.map(({ queue }, i) => [`${i} ${queue}`, 1])),
    (key) => key.split(' ')[1] ?? '',
  );
  const rows: [string, string][] = [
    [
      'domains',
      `${neighbours.length}: ${list(sumBy(new Map(neighbours.map(({ kind }, i) => [`${i} ${kind}`, 1])), (key) => key.split(' ')[1] ?? ''))}`,
    ],
    ['runs of plan', `${runs}; requests ${requests}; ${seconds.toFixed(0)} s in all`],
    ['faults', `${total(faults)}: ${list(byKind)}`],
    ['', list(byCall)],
    ['outages', String(outages)],
    ['kills', `${atCalls} at a call, ${total(kills)} at a moment: ${list(kills)}`],
    [
      'duplicates',
      `${deliveries.repeated} of ${deliveries.all} deliveries, ${schedulesRepeated} schedules; ${tasks} tasks`,
    ],
    [
      'writes',
      `${total(writes)}: ${list(writes)}; ${rivalWrites} by rivals; ${refused} refused by their condition`,
    ],
    ['dead letters', letters.length === 0 ? 'none' : `${letters.length}: ${list(queues)}`],
    ['errors logged', errors.size === 0 ? 'none' : `${total(errors)}, such as`],
  ];
  const most = [...errors].sort(([, a], [, b]) => b - a).slice(0, 5);
  const examples = most.map(
    ([line, count]) => `  ${String(count).padStart(4)}  ${paint('dim', line.slice(0, 120))}`,
  );
  return ['', ...table(rows), ...examples, ''].join('\n');
}

function sumBy(counts: ReadonlyMap<string, number>, keyOf: (key: string) => string): Map<string, number> {
  const sums = new Map<string, number>();
  for (const [key, count] of counts) sums.set(keyOf(key), (sums.get(keyOf(key)) ?? 0) + count);
  return sums;
}

function total(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((sum, each) => sum + each, 0);
}

function list(counts: ReadonlyMap<string, number>): string {
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .map(([what, count]) => `${what} ${count}`)
    .join(', ');
}
