// AWS on a bad day. Each row of the table is a run over some two dozen domains on the embedded stack, and then one more
// without faults. Whatever happens: every stale domain is refreshed, or a dead letter, or selected by the next run;
// nothing is lost or overwritten; at most one write is successful for each LastUpdate that was read.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { startInternet } from '../../infra/local/internet/internet.ts';
import { bundleHandlers } from './bundles.ts';
import { isStale, type Resident, type Scene, startScene } from './scene.ts';
import { IN_BLOCKS, type Row, type Rule, STAGES, type Stage } from './stages.ts';

/** For the report. A case is a service, an operation and a fault, or a point at which a process is killed. */
const counts = {
  cases: 0,
  faults: 0,
  domains: 0,
  tasksRepeated: 0,
  deliveriesRepeated: 0,
  deadLetters: 0,
  writes: 0,
  refused: 0,
};

/** For one row with all its repetitions, on the slowest machine. */
const ROW_LIMIT_MS = 120_000;

/**
 * Declares a test for each row.
 *
 * @param chosen how the names of those rows begin; all rows if it is undefined.
 */
export function badDays(chosen?: readonly string[]): void {
  const isChosen = (row: Row) => chosen?.some((name) => row.name.startsWith(name)) ?? true;
  const stages = STAGES.map((stage) => ({ ...stage, rows: stage.rows.filter(isChosen) })).filter(
    ({ rows }) => rows.length > 0,
  );
  const all = STAGES.flatMap(({ rows }) => rows.map(({ name }) => name));
  for (const name of chosen ?? [])
    assert.ok(
      all.some((each) => each.startsWith(name)),
      `no row is called ${name}`,
    );
  const rowCount = stages.reduce((sum, { rows }) => sum + rows.length, 0);
  test('bad days', { concurrency: true, timeout: rowCount * ROW_LIMIT_MS }, async (t) => {
    const internet = await startInternet();
    t.after(internet.close);
    const bundles = await bundleHandlers(t, {
      [IN_BLOCKS]: join(import.meta.dirname, 'fixtures', `${IN_BLOCKS}.ts`),
    });
    await Promise.all(
      stages.map((stage) =>
        t.test(stage.name, { timeout: stage.rows.length * ROW_LIMIT_MS }, async (t) => {
          const scene = await startScene(
            t,
            { internet, bundles },
            stage.name.replaceAll(' ', '-'),
            stage.options,
          );
          for (const [i, row] of stage.rows.entries()) {
            await t.test(row.name, { timeout: ROW_LIMIT_MS }, () =>
              play(scene, stage, row, `${stage.name}-${i}`),
            );
          }
        }),
      ),
    );
    const { cases, faults, domains, tasksRepeated, deliveriesRepeated, deadLetters, writes, refused } =
      counts;
    t.diagnostic(
      `${cases} cases, ${faults} faults injected, ${domains} domains in all; duplicates: ${tasksRepeated} tasks, ` +
        `${deliveriesRepeated} messages; ${writes} writes, ${refused} refused by their condition; ` +
        `${deadLetters} dead letters`,
    );
  });
}

function once(invoke: () => void): void {
  invoke();
}

async function play(scene: Scene, stage: Stage, row: Row, runId: string): Promise<void> {
  const { start = stage.start, rules, ends, errors = /^$/, deliver = once, breaks } = row;
  const { journal, proxies } = scene;
  const residents = await scene.reset();
  const whose = start === 'wave' || start === 'tasks' ? residents.filter(isStale) : residents;
  const met = new Map<Rule, number>();
  const since = Date.now();
  scene.deliver(deliver);
  let retries = 0;
  proxies.play((call) => {
    if (call.attempt > 1) retries += 1;
    const rule = rules.find(({ meets }) => meets(call));
    if (rule) met.set(rule, (met.get(rule) ?? 0) + 1);
    return rule?.fault;
  });
  await Promise.all([scene.run(start, runId), row.meanwhile?.(scene)]);
  proxies.play(() => undefined);

  const unmet = rules.filter((rule) => !met.has(rule)).map((rule) => rule.name ?? row.name);
  assert.deepEqual(unmet, [], 'every fault has happened');
  const breaches = await scene.breaches(residents);
  if (breaks !== undefined) {
    assert.match(breaches.join('\n'), breaks, 'the checks find it');
    return;
  }
  assert.deepEqual(breaches, []);
  const writes = Map.groupBy(
    journal.writes.filter(({ kind }) => kind === 'refresh' || kind === 'removal' || kind === 'prune'),
    ({ domain }) => domain,
  );
  const often = [...writes].filter(([, { length }]) => length > 1).map(([domain]) => domain);
  assert.deepEqual(often, [], 'one write for each domain');

  const fates = await scene.fates(whose, since);
  assert.deepEqual(names(fates.get('lost')), []);
  const letters = await scene.deadLetters();
  const queues = new Set(letters.map(({ queue }) => queue));
  assert.deepEqual([...queues], ends === undefined || ends === 'next run' ? [] : [ends]);
  const left = [...names(fates.get('selected')), ...names(fates.get('dead letter'))];
  if (ends === undefined) assert.deepEqual(left, []);
  assert.deepEqual(
    scene.errors.filter((error) => !errors.test(error)),
    [],
    'every error is explained',
  );
  const provoked = [...met.values()].reduce((sum, times) => sum + times, 0);
  // On a slow machine, a client waits too long for a service that has done what it was asked, and asks again.
  checkRepeats(scene, row, retries <= provoked);

  counts.cases += Math.max(rules.length, 1);
  counts.domains += whose.length;
  counts.deadLetters += letters.length;
  for (const times of met.values()) counts.faults += times;
  counts.writes += journal.writes.length;
  counts.refused += journal.refused;

  // What came through as if nothing had been has nothing left for another run.
  if (left.length === 0 && !row.name.startsWith('killed')) return;
  const known = journal.writes.length;
  scene.deliver(once);
  await scene.run(start, `${runId}-again`);
  assert.deepEqual(await scene.breaches(residents), []);
  const after = await scene.fates(whose, since);
  assert.deepEqual([...after.keys()], ['done'], 'the next run does the rest');
  const needless = journal.writes.slice(known).filter(({ domain }) => !left.includes(domain));
  assert.deepEqual(needless, [], 'and writes nothing else');
}

function names(residents: readonly Resident[] = []): string[] {
  return residents.map(({ domain }) => domain);
}

/**
 * What comes more than once is no fault: schedules, messages and calls are at least once, and `LastUpdate` makes
 * repetition harmless, which the checks of the writes have seen. Here it is shown that the fault was a real one, and that
 * nothing is repeated without one.
 *
 * @param undisturbed no call was repeated but those that met a fault.
 */
function checkRepeats({ journal }: Scene, { repeats }: Row, undisturbed: boolean): void {
  const repeated = (times: ReadonlyMap<string, number>) =>
    [...times.values()].filter((each) => each > 1).length;
  const tasks = repeated(journal.sent);
  const deliveries = repeated(journal.deliveries);
  counts.tasksRepeated += tasks;
  counts.deliveriesRepeated += deliveries;
  if (repeats === 'perhaps') return;
  if (repeats === 'tasks') assert.ok(tasks > 0, 'some domains had several tasks');
  else if (undisturbed) assert.equal(tasks, 0, `${tasks} domains had several tasks`);
  if (repeats === 'deliveries') assert.ok(deliveries > 0, 'some messages were delivered again');
  else if (undisturbed) assert.equal(deliveries, 0, `${deliveries} messages were delivered again`);
}
