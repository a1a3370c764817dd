import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { EDGES, enoughMs, longestLapsedMs, tryEdge } from './edges.ts';
import { MOX, ours, type Rule, simulate } from './engine.ts';
import { excusedWindows, type Measured } from './measure.ts';
import { type Host, populate, START, steadyHost } from './population.ts';
import { DAY, HOUR, MINUTE, promiseOf, readSettings } from './settings.ts';

const settings = readSettings({});
const promised = promiseOf(settings);
const OURS = ours(settings);

function run(rule: Rule, { domains = 60, days = 365, seed = 1, lostRenewals = 0, outages = true } = {}) {
  const rates = { hostOutages: outages ? 6 : 0, dnsOutages: outages ? 2 : 0, changes: 3 };
  return simulate(rule, {
    hosts: populate({ domains, days, seed, ...rates }),
    days,
    seed,
    settings,
    lostRenewals,
  });
}

/** Forty policies of one lifetime, in seconds, and nothing that goes wrong. */
function runSteadily(rule: Rule, maxAge: number, { days = 30, lostRenewals = 0 } = {}) {
  const hosts = Array.from({ length: 40 }, (_, i) =>
    steadyHost(i, maxAge, 'enforce', [START + (i * DAY) / 40]),
  );
  return simulate(rule, { hosts, days, seed: 1, settings, lostRenewals });
}

function expiredMs({ rows }: Measured): number {
  return Object.values(rows).reduce((sum, row) => sum + row.expiredMs, 0);
}

test('the promise is the arithmetic of the settings', () => {
  assert.deepEqual(promised, {
    renewalMs: 63 * MINUTE,
    rescueMs: 69 * MINUTE,
    recoveryMs: 84 * MINUTE,
    dailyMs: (12 + 24 + 3) * HOUR + 9 * MINUTE,
  });
  assert.equal(promiseOf(settings, true).renewalMs, 123 * MINUTE);
  const often = promiseOf(readSettings({ RENEWAL_INTERVAL_SECONDS: '1800', RENEWAL_SPREAD_SECONDS: '600' }));
  assert.deepEqual([often.renewalMs, often.recoveryMs], [33 * MINUTE, 49 * MINUTE]);
});

test('the same seed gives the same figures, another gives others', async () => {
  const small = { domains: 30, days: 30, lostRenewals: 0.1 };
  const first = await run(OURS, small);
  assert.deepEqual(await run(OURS, small), first);
  assert.notDeepEqual(await run(OURS, { ...small, seed: 2 }), first);
});

test('a year of trouble, and no policy of two hours or more is expired while its host can be reached', async () => {
  const [our, again, mox] = [await run(OURS), await run(OURS, { seed: 2, days: 180 }), await run(MOX)];
  for (const { brokenMs, rows } of [our, again]) {
    assert.equal(brokenMs, 0);
    // Not for want of trouble, nor because nearly all is excused.
    assert.ok(rows['1 day'].expiredMs > DAY);
    assert.ok(rows['1 day'].reachableMs > 0.9 * rows['1 day'].heldMs);
  }
  assert.ok(mox.brokenMs > 100 * DAY);

  // Both rules meet the same events: what is held, and for how long, is nearly the same.
  assert.ok(Math.abs(mox.rows['1 week'].heldMs / our.rows['1 week'].heldMs - 1) < 0.02);
  assert.ok(Math.abs(mox.pruned - our.pruned) <= 2);
  // Back-offs that nobody uses are forgotten.
  assert.ok(our.pruned > 5);
});

test("with mox's rule day-long policies are expired 2.1% of the time, on half of all days", async () => {
  const day = (await runSteadily(MOX, 86_400, { days: 365 })).rows['1 day'];
  // Of two times drawn evenly from three hours, the later is an hour after the earlier on average, half of the time.
  const share = day.expiredMs / day.heldMs;
  assert.ok(share > 0.5 / 24 - 0.001 && share < 0.5 / 24 + 0.002, `${share}`);
  assert.ok(Math.abs((day.lapses * DAY) / day.heldMs - 0.5) < 0.02);
  // The longest is right after a discovery: the next daily run leaves what is younger than half a day.
  assert.ok(day.reachableWorstMs < 15 * HOUR + 5 * MINUTE);
  assert.equal(day.reachableMs, day.heldMs);
});

for (const maxAge of [promised.renewalMs / 1_000, 7_200, 10_000, 21_600, 43_200, 86_400, 86_401]) {
  test(`policies of ${maxAge} s never lapse`, async () => {
    assert.equal(expiredMs(await runSteadily(OURS, maxAge)), 0);
  });
}

for (const [maxAge, lapse] of [
  [7_200, true],
  [promiseOf(settings, true).renewalMs / 1_000, false],
  [8_280, false],
  [86_400, false],
] as const) {
  test(`if every second renewal run is lost, policies of ${maxAge} s ${lapse ? 'can' : 'do not'} lapse`, async () => {
    assert.equal(expiredMs(await runSteadily(OURS, maxAge, { lostRenewals: 1 })) > 0, lapse);
  });
}

for (const edge of EDGES) {
  test(`a day-long policy survives if its host can be reached for as long as promised, not for less: ${edge.name}`, async () => {
    const enough = enoughMs(edge, settings);
    const trials = await tryEdge(edge, { settings, seed: 1, count: 2_000, leastMs: enough - 20 * MINUTE });
    const longest = longestLapsedMs(trials);
    assert.ok(longest < enough, `${longest / MINUTE} min were not enough`);
    assert.ok(
      longest > enough - 12 * MINUTE,
      `${longest / MINUTE} min were the longest that were not enough`,
    );
    assert.ok(trials.filter(({ reachableMs }) => reachableMs >= enough).length > 200);
  });
}

test('mistakes in publishing heal within days; with mox’s rule often never', async () => {
  const [mox, our] = [await run(MOX, { outages: false }), await run(OURS, { outages: false })];
  for (const kind of ['id first', 'same id'] as const) {
    assert.equal(our.changes[kind].never, 0);
    assert.ok(our.changes[kind].delays.length > 10);
    // Seven days and the next daily run.
    assert.ok((our.changes[kind].delays.at(-1) ?? 0) < 7 * DAY + promised.dailyMs);
  }
  assert.ok(mox.changes['same id'].never > 10);
  assert.ok(mox.changes['id first'].never > 0);
  assert.equal(mox.changes['policy first'].never, 0);
});

const used = (...uses: number[]): Host => steadyHost(0, 86_400, 'enforce', uses);
const excused: [what: string, host: Host, outages: [from: number, to: number][], windows: unknown[]][] = [
  ['a host in use is back soon', used(0), [[0, HOUR]], [{ from: 0, to: HOUR + promised.recoveryMs }]],
  ['one that is not used, next day', used(), [[0, HOUR]], [{ from: 0, to: HOUR + promised.dailyMs }]],
  [
    'one that was down for a week, too',
    used(7 * DAY),
    [[0, 7 * DAY]],
    [{ from: 0, to: 7 * DAY + promised.dailyMs }],
  ],
  [
    'outages that follow each other are one',
    used(0),
    [
      [2 * HOUR, 3 * HOUR],
      [0, HOUR],
      [9 * HOUR, 9.5 * HOUR],
    ],
    [
      { from: 0, to: 3 * HOUR + promised.recoveryMs },
      { from: 9 * HOUR, to: 9.5 * HOUR + promised.recoveryMs },
    ],
  ],
];
for (const [what, host, outages, windows] of excused) {
  test(`what is excused: ${what}`, () => {
    host.outages.push(...outages.map(([from, to]) => ({ from, to, dns: false })));
    assert.deepEqual(excusedWindows(host, promised), windows);
  });
}

const MAIN = join(import.meta.dirname, 'main.ts');
const command = (...args: string[]) =>
  spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8', timeout: 60_000 });

test('the command prints the figures, and writes them to a file', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'simulation-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'figures.json');
  const { status, stdout, stderr } = command('--domains', '20', '--days', '20', '--json', file);
  assert.equal(status, 0, stderr);
  assert.match(stdout, /EXPIRED.+REQUESTS.+UNNOTICED.+OUTCOMES.+AT THE EDGE.+The promise was kept/s);
  const { options, results } = JSON.parse(readFileSync(file, 'utf8'));
  assert.equal(options.domains, 20);
  const rules = results.map(({ rule }: Measured) => rule);
  assert.deepEqual(rules, ['mox', 'ours']);
});

for (const [args, complaint] of [
  [['--domains', '0'], /--domains is "0": it should be a whole number from 1 to 100000/],
  [['--rule', 'postfix'], /--rule is "postfix": it should be mox, ours or both/],
  [['--nonsense'], /--nonsense/],
] as const) {
  test(`the command refuses ${args.join(' ')}`, () => {
    const { status, stdout, stderr } = command(...args);
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(stderr, complaint);
    assert.doesNotMatch(stderr, /\n {4}at /);
  });
}
