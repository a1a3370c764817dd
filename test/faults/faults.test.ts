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

test('bad days', { concurrency: true }, async (t) => {
  const internet = await startInternet();
  const bundles = await bundleHandlers({
    [IN_BLOCKS]: join(import.meta.dirname, 'fixtures', `${IN_BLOCKS}.ts`),
  });
  await Promise.all(
    STAGES.map((stage) =>
      t.test(stage.name, async (t) => {
        const scene = await startScene({ internet, bundles }, stage.name.replaceAll(' ', '-'), stage.options);
        t.after(() => scene.close());
        for (const [i, row] of stage.rows.entries()) {
          await t.test(row.name, () => play(scene, stage, row, `${stage.name}-${i}`));
        }
      }),
    ),
  );
  await internet.close();
  await bundles.remove();
  const { cases, faults, domains, tasksRepeated, deliveriesRepeated, deadLetters, writes, refused } = counts;
  t.diagnostic(
    `${cases} cases, ${faults} faults injected, ${domains} domains in all; duplicates: ${tasksRepeated} tasks, ` +
      `${deliveriesRepeated} messages; ${writes} writes, ${refused} refused by their condition; ` +
      `${deadLetters} dead letters`,
  );
});

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
  proxies.play((call) => {
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
  checkRepeats(scene, row);

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

function checkRepeats({ journal }: Scene, { repeats }: Row): void {
  const repeated = (times: ReadonlyMap<string, number>) =>
    [...times.values()].filter((each) => each > 1).length;
  const tasks = repeated(journal.sent);
  const deliveries = repeated(journal.deliveries);
  counts.tasksRepeated += tasks;
  counts.deliveriesRepeated += deliveries;
  if (repeats === 'perhaps') return;
  assert.equal(tasks > 0, repeats === 'tasks', `${tasks} domains had several tasks`);
  assert.equal(deliveries > 0, repeats === 'deliveries', `${deliveries} messages were delivered again`);
}
