// The spread as it really happened: the functions' own code plans and dispatches a daily run whose clock runs ahead, so
// that three hours take seconds; and every message is counted in the minute in which it becomes visible.

import { seeded } from '../functions/dispatch/tasks.ts';
import type { Bench, Section } from './bench.ts';
import { everything, startFunction } from './function.ts';
import { mean, sum } from './table.ts';

export interface SpreadResult {
  readonly count: number;
  readonly windowMinutes: number;
  /** Messages. */
  readonly minutes: readonly number[];
  readonly schedules: number;
  /** Seconds after the window's start at which the last became visible. */
  readonly lastSecond: number;
}

const MINUTE = 60;

export const spreadSection: Section<SpreadResult> = {
  name: 'spread',
  what: 'messages of each minute of the window',
  async measure(bench) {
    const count = bench.options.quick ? 10_000 : 100_000;
    bench.progress(`three hours of a plan of ${count}`);
    return spread(bench, count);
  },
  tables: ({ count, minutes, windowMinutes, schedules, lastSecond }) => [
    {
      title: `SPREAD of ${count.toLocaleString('en-US')} domains over ${windowMinutes} minutes, as it happened`,
      columns: [''],
      rows: [
        { label: 'messages of a minute, mean', digits: 0, cells: [mean(minutes)] },
        { label: 'messages of a minute, least', digits: 0, cells: [Math.min(...minutes)] },
        { label: 'messages of a minute, most', digits: 0, cells: [Math.max(...minutes)] },
        {
          label: 'largest minute over the mean',
          digits: 3,
          cells: [Math.max(...minutes) / mean(minutes)],
          budget: { most: 1.1 },
        },
        { label: 'schedules', digits: 0, cells: [schedules] },
        { label: 'last message', unit: 'min', digits: 1, cells: [lastSecond / MINUTE] },
      ],
    },
  ],
};

async function spread(bench: Bench, count: number): Promise<SpreadResult> {
  const { remote: aws, endpoint } = await bench.aws();
  const { plan, dispatch } = bench.packages.functions;
  const surroundings = { endpoints: everything(endpoint) };
  await aws.call('fill', count);
  const start = Date.now();
  await aws.call('begin', start);
  const planFunction = await startFunction(plan, surroundings);
  await planFunction.invoke({ kind: 'daily', runId: 'bench-spread' });
  await planFunction.close();

  const random = seeded(1);
  const latenessMs = Number(plan.variables.SCHEDULE_LATENESS_SECONDS) * 1_000;
  const { schedules } = await aws.call('sent');
  const dispatchFunction = await startFunction(dispatch, surroundings);
  for (const { at, input } of schedules.toSorted((a, b) => a.at - b.at)) {
    // EventBridge Scheduler is up to a minute late.
    const clockMs = at + random() * latenessMs - Date.now();
    await aws.call('clock', clockMs);
    await dispatchFunction.invoke(JSON.parse(input), { clockMs });
  }
  await dispatchFunction.close();
  await aws.call('clock', 0);

  const { seconds } = await aws.call('sent');
  if (sum(seconds) !== count) throw new Error(`${sum(seconds)} of ${count} messages were sent`);
  const windowMinutes = Number(plan.variables.SPREAD_SECONDS) / MINUTE;
  const minutes = Array.from({ length: windowMinutes }, (_, i) =>
    sum(seconds.slice(i * MINUTE, (i + 1) * MINUTE)),
  );
  return { count, windowMinutes, minutes, schedules: schedules.length, lastSecond: seconds.length - 1 };
}
