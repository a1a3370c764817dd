// The README's story: one daily run over a table with a policy in every state, from plan to table, on the embedded
// stack with real DNS and real HTTPS. Told of the sources and of the packaged bundles.

import assert from 'node:assert/strict';
import { type Domain, parseDomain } from '../functions/mtasts/domain.ts';
import type { Mode, Policy } from '../functions/mtasts/policy.ts';
import type { PlanSummary } from '../functions/plan/run.ts';
import { createDynamoStore } from '../functions/store/dynamo.ts';
import type { PolicyRecord } from '../functions/store/policy-store.ts';
import { behaviours, type Site, startInternet } from '../infra/local/internet/internet.ts';
import { seed } from '../infra/local/seed.ts';
import { type FunctionName, startStack } from '../infra/local/stack.ts';
import { HANG_MS, type Scope } from './resources.ts';

const DAY = 86_400_000;
const WEEK_SECONDS = 604_800;

interface Character {
  readonly domain: string;
  readonly site: Site;
  readonly mode?: Mode;
  readonly age?: number;
  /** How long ago it was fetched, where that was before the last refresh. */
  readonly fetched?: number;
  readonly unusedFor?: number;
}

function character(name: string, site: (domain: string) => Site, rest: Partial<Character> = {}): Character {
  const domain = `${name}.test`;
  return { domain, site: site(domain), ...rest };
}

const hostDown = (domain: string): Site => ({
  ...behaviours['host-down'](domain),
  record: { rcode: 'NXDOMAIN' },
});

const CAST = {
  a: character('updated-just-now', behaviours.healthy, { age: 0 }),
  b: character('unused-for-181-days', behaviours.healthy, { unusedFor: 181 * DAY }),
  c: character('same-id', behaviours.healthy),
  d: character('new-id-and-policy', behaviours['changed-policy']),
  e: character('new-id-host-answers-500', behaviours['server-error']),
  f: character('none-record-gone', () => behaviours.nxdomain(), { mode: 'none' }),
  g: character('none-servfail', () => behaviours['servfail-all'](), { mode: 'none' }),
  h: character('enforce-servfail', behaviours.servfail),
  i: character('enforce-name-gone', behaviours['record-gone']),
  j: character('enforce-name-gone-host-down', hostDown),
  k: character('same-id-fetched-days-ago', behaviours.healthy, { fetched: 4 * DAY }),
};
type Role = keyof typeof CAST;

/** @param handlers other code than the sources, by function. */
export async function tellStory(t: Scope, handlers?: Record<FunctionName, string>): Promise<void> {
  const internet = await startInternet();
  t.after(() => internet.close());
  const warnings: Record<string, unknown>[] = [];
  const metrics: Record<string, number> = {};
  const stack = await startStack({
    ...(handlers && { handlers }),
    caFile: internet.caFile,
    environment: {
      SPREAD_SECONDS: '5',
      WAVE_SECONDS: '2',
      SCHEDULE_LATENESS_SECONDS: '1',
      DNS_SERVERS: internet.dnsServer,
      POLICY_HOST_PORT: String(internet.policyHostPort),
      ALLOW_PRIVATE_ADDRESSES: '1',
    },
    onLine: (_, line) => {
      const entry = JSON.parse(line) as Record<string, unknown>;
      if (entry.level === 'WARN' || entry.level === 'ERROR') warnings.push(entry);
      if (entry._aws === undefined) return;
      for (const [name, value] of Object.entries(entry)) {
        if (typeof value === 'number') metrics[name] = (metrics[name] ?? 0) + value;
      }
    },
  });
  t.after(() => stack.close());
  const store = createDynamoStore({ client: stack.dynamodb, table: stack.tableName });
  const start = Date.now();
  for (const { domain, site, mode = 'enforce', age = DAY, fetched = age, unusedFor = 0 } of Object.values(
    CAST,
  )) {
    internet.set(domain, site);
    const policy: Policy = { mode, mx: [`mail.${domain}`], maxAgeSeconds: WEEK_SECONDS };
    await seed(store, {
      domain,
      policy,
      recordId: 'id1',
      inserted: start - 200 * DAY,
      lastUpdate: start - age,
      lastFetch: start - fetched,
      lastUse: start - unusedFor,
    });
  }
  const before = await readCast(store);

  const plan = await stack.functions.plan.invoke({ kind: 'daily', runId: 'story' });
  assert.ok(
    (plan as PlanSummary).schedules > 0,
    'the window takes more than one wave, so there are schedules',
  );
  await stack.drained(2 * HANG_MS);
  const end = Date.now();
  const after = await readCast(store);

  const untouched = (role: Role) => assert.deepEqual(after[role], before[role], role);
  const policyKept = (role: Role) => {
    const { failing, ...rest } = record(after, role);
    const { failing: _, ...restBefore } = record(before, role);
    assert.deepEqual(rest, restBefore, `${role}: nothing but the failure may change`);
    return failing;
  };
  const refreshed = (role: Role) => {
    const { lastUpdate, validEnd, failing, policy } = record(after, role);
    assert.ok(lastUpdate >= start && lastUpdate <= end, `${role}: LastUpdate is now`);
    assert.equal(validEnd, lastUpdate + policy.maxAgeSeconds * 1_000, `${role}: ValidEnd follows max_age`);
    assert.equal(failing, undefined);
  };
  const warned = (role: Role) => warnings.filter((entry) => entry.domain === CAST[role].domain);

  untouched('a');
  assert.equal(after.b, undefined, 'b is pruned');

  refreshed('c');
  assert.deepEqual(record(after, 'c').policy, record(before, 'c').policy);
  assert.equal(record(after, 'c').lastFetch, record(before, 'c').lastFetch, 'c is extended without a fetch');

  refreshed('d');
  assert.equal(record(after, 'd').recordId, 'id2');
  assert.deepEqual(record(after, 'd').policy, {
    mode: 'enforce',
    mx: [`mx1.${CAST.d.domain}`, `mx2.${CAST.d.domain}`],
    maxAgeSeconds: 2 * WEEK_SECONDS,
  });

  for (const [role, code] of [
    ['e', 'http-status'],
    ['j', 'connect-refused'],
  ] as const) {
    const failing = policyKept(role);
    assert.equal(failing?.code, code);
    assert.ok(failing.since >= start && failing.lastAttempt >= start, `${role}: failure recorded`);
    assert.equal(failing.recordId, role === 'e' ? 'id2' : undefined, `${role}: as that of its record`);
    const [warning, ...more] = warned(role);
    assert.equal(warning?.code, code, `${role}: failure logged`);
    assert.equal(more.length, 0, `${role}: logged once`);
  }

  assert.equal(after.f, undefined, 'f is gone with its record');

  policyKept('g');
  assert.deepEqual(warned('g'), [], 'g is not worth a warning');

  for (const role of ['h', 'i'] as const) {
    refreshed(role);
    assert.ok((record(after, role).lastFetch ?? 0) >= start, `${role} is fetched`);
    assert.equal(record(after, role).recordId, 'id1', `${role} keeps the old RecordID`);
  }

  refreshed('k');
  assert.ok((record(after, 'k').lastFetch ?? 0) >= start, 'k is fetched although its id is the same');
  assert.deepEqual(record(after, 'k').policy, record(before, 'k').policy);

  // a is not stale, b and f are deleted; everybody else was refreshed exactly once.
  assert.deepEqual(
    { ...metrics },
    {
      ...{ Planned: 9, Pruned: 2, Extended: 1, Replaced: 4, Kept: 3 },
      ...{ Stored: 10, Lapsed: 0, Expiring: 0, FailingSafe: 0, Failing: 0 },
    },
    'counted as what they were',
  );
  assert.equal(internet.traffic.queries(CAST.a.domain) + internet.traffic.queries(CAST.b.domain), 0);
  for (const queue of ['refresh-dlq', 'request-dlq', 'failures'] as const) {
    assert.deepEqual(await stack.deadLetters(queue), []);
  }
  assert.equal(stack.scheduler.pending(), 0, 'schedules delete themselves');
}

type Cast = Partial<Record<Role, PolicyRecord>>;

async function readCast(store: ReturnType<typeof createDynamoStore>): Promise<Cast> {
  const roles = Object.entries(CAST).map(([role, { domain }]) => [role, domainOf(domain)] as const);
  const { records } = await store.read(roles.map(([, domain]) => domain));
  return Object.fromEntries(
    roles.flatMap(([role, domain]) => (records.has(domain) ? [[role, records.get(domain)]] : [])),
  );
}

function record(cast: Cast, role: Role): PolicyRecord {
  const found = cast[role];
  assert.ok(found, `${role} should be in the table`);
  return found;
}

function domainOf(text: string): Domain {
  const parsed = parseDomain(text);
  assert.ok(parsed.ok);
  return parsed.domain;
}
