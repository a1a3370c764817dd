// The promise, on the whole embedded stack: while a policy's host can be reached, its item never expires. The functions'
// clock is set ahead by an hour when a renewal run is done, so that a policy lives for hours, of which most are over
// when the story begins, and a slow machine uses up some seconds of them. The table is read all the while, as relays
// read it.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Domain } from '../functions/mtasts/domain.ts';
import type { Mode } from '../functions/mtasts/policy.ts';
import { createDynamoStore } from '../functions/store/dynamo.ts';
import type { PolicyRecord, PolicyStore } from '../functions/store/policy-store.ts';
import { behaviours, type Internet, type Site, startInternet } from '../infra/local/internet/internet.ts';
import { createObserver } from '../infra/local/observer.ts';
import { seed } from '../infra/local/seed.ts';
import { startStack } from '../infra/local/stack.ts';
import { HANG_MS, makeFolder } from './resources.ts';

const HOUR_SECONDS = 3_600;
const HOUR = HOUR_SECONDS * 1_000;
const DAY = 24 * HOUR;
/** One an hour. */
const RUNS = 8;
const SAMPLE_EVERY_MS = 50;

interface Character {
  readonly domain: Domain;
  readonly maxAgeSeconds: number;
  readonly mode?: Mode;
  /** What is left of its life when the story begins. */
  readonly leftHours: number;
  /** What it does from this renewal run on. */
  readonly does: Readonly<Record<number, (domain: string, options: { maxAgeSeconds: number }) => Site>>;
  /** Whether its policy has to be valid at every moment. */
  readonly promised: boolean;
}

function character(name: string, rest: Omit<Character, 'domain'>): Character {
  return { domain: `${name}.test` as Domain, ...rest };
}

/** What fails has a new id, and keeps it: RFC 8461 §3.3 leaves the same id alone for five minutes, not for an hour. */
const withNewId =
  (behaviour: 'healthy' | 'server-error' | 'host-down') =>
  (domain: string, options: { maxAgeSeconds: number }) =>
    behaviours[behaviour](domain, { ...options, id: 'id2' });

const CAST = {
  steady: character('steady', {
    maxAgeSeconds: 6 * HOUR_SECONDS,
    leftHours: 3,
    does: { 0: behaviours.healthy },
    promised: true,
  }),
  testing: character('testing', {
    maxAgeSeconds: 8 * HOUR_SECONDS,
    mode: 'testing',
    leftHours: 3,
    does: { 0: (domain, options) => behaviours.healthy(domain, { ...options, mode: 'testing' }) },
    promised: true,
  }),
  /** DNS cannot tell its record: its host can be reached all the same. */
  withoutRecord: character('without-record', {
    maxAgeSeconds: 10 * HOUR_SECONDS,
    leftHours: 3,
    does: { 0: behaviours.servfail },
    promised: true,
  }),
  /** The policy was changed, the id was not. */
  sameId: character('same-id', {
    maxAgeSeconds: 6 * HOUR_SECONDS,
    leftHours: 5.5,
    does: { 0: (domain, options) => behaviours.healthy(domain, { ...options, mx: ['new.test'] }) },
    promised: true,
  }),
  recovering: character('recovering', {
    maxAgeSeconds: 10 * HOUR_SECONDS,
    leftHours: 6,
    does: {
      0: withNewId('server-error'),
      3: withNewId('healthy'),
    },
    promised: true,
  }),
  down: character('down', {
    maxAgeSeconds: 6 * HOUR_SECONDS,
    leftHours: 2,
    does: { 0: withNewId('host-down'), 5: withNewId('healthy') },
    promised: false,
  }),
  /** Senders do nothing about it: it is refreshed once a day, whenever it expires. */
  none: character('none', {
    maxAgeSeconds: 6 * HOUR_SECONDS,
    mode: 'none',
    leftHours: 3,
    does: { 0: (domain, options) => behaviours.healthy(domain, { ...options, mode: 'none' }) },
    promised: false,
  }),
} as const satisfies Record<string, Character>;
type Role = keyof typeof CAST;
const CHARACTERS: readonly Character[] = Object.values(CAST);

/** The table, and when its reading began. */
interface Sample {
  readonly at: number;
  readonly records: ReadonlyMap<Domain, PolicyRecord>;
}

const atAnotherTime = join(import.meta.dirname, 'fixtures/at-another-time.ts');

test('no policy expires whose host can be reached; what expired comes back with its host', async (t) => {
  const observer = createObserver();
  const clock = await createClock(t);
  const internet = await startInternet();
  t.after(() => internet.close());
  const stack = await startStack({
    functions: ['plan', 'refresh'],
    handlers: { plan: atAnotherTime, refresh: atAnotherTime },
    caFile: internet.caFile,
    environment: {
      CLOCK_FILE: clock.file,
      RENEWAL_INTERVAL_SECONDS: String(HOUR_SECONDS),
      // The only time that passes by itself.
      RENEWAL_SPREAD_SECONDS: '1',
      // Everybody is refreshed in each run.
      RENEWAL_MARGIN_SECONDS: String(24 * HOUR_SECONDS),
      DNS_SERVERS: internet.dnsServer,
      POLICY_HOST_PORT: String(internet.policyHostPort),
      ALLOW_PRIVATE_ADDRESSES: '1',
    },
    settings: { refresh: { concurrency: 2 } },
    refreshBatchSize: 10,
    refreshWindowSeconds: 0,
    onLine: observer.line,
  });
  t.after(() => stack.close());
  const store = createDynamoStore({ client: stack.dynamodb, table: stack.tableName });
  const start = clock.now();
  await seedAll(store, start);
  const sampler = startSampling(t, store, clock.now);

  for (let run = 0; run < RUNS; run++) {
    clock.set(start + run * HOUR);
    // The last moment before the run: nobody's policy will be older.
    await sampler.sample();
    act(internet, run);
    await stack.functions.plan.invoke({ kind: 'renewal', runId: `promise-${run}` });
    await stack.drained(2 * HANG_MS);
  }
  const samples = await sampler.stop();
  const end = clock.now();

  const story = (role: Role) => tell(samples, CAST[role].domain);
  for (const { domain, promised } of CHARACTERS) {
    const { first, expired } = tell(samples, domain);
    assert.ok(first.validEnd < end, `${domain} would have expired`);
    if (promised) assert.equal(expired.length, 0, `${domain} is valid whenever it is read`);
  }

  // Half of its life is three hours: about every third refresh is a fetch.
  const { updates, fetches } = story('steady');
  assert.ok(updates >= 4, `${updates} refreshes`);
  assert.ok(fetches >= 2 && fetches < updates, `${fetches} fetches in ${updates} refreshes`);
  assert.equal(story('withoutRecord').fetches, story('withoutRecord').updates, 'nothing but fetches');
  assert.deepEqual(story('sameId').last.policy.mx, ['new.test'], 'noticed although the id is the same');

  const recovering = story('recovering');
  assert.equal(recovering.attempts, 3, 'each hour until its host is mended');
  assert.equal(recovering.timesFailing, 1, 'in one row');
  assert.ok(recovering.leastLeft <= 3 * HOUR, `saved ${recovering.leastLeft} ms before its end`);
  assert.equal(recovering.last.recordId, 'id2');
  assert.equal(recovering.last.failing, undefined);

  const down = story('down');
  const lapsed = down.expired.at(-1);
  assert.ok(lapsed, 'down expires');
  assert.deepEqual({ ...lapsed, failing: undefined }, down.first, 'its failures change nothing else');
  assert.equal(lapsed.failing?.code, 'connect-refused');
  assert.equal(down.last.recordId, 'id2');
  assert.ok(down.last.validEnd > end, 'down is revived');

  const none = story('none');
  assert.deepEqual(none.last, none.first, 'none is left alone');
  assert.equal(internet.traffic.queries(CAST.none.domain), 0);

  assert.deepEqual(
    observer.entries.filter((entry) => entry.level === 'ERROR'),
    [],
  );
  for (const queue of ['refresh-dlq', 'failures'] as const) {
    assert.deepEqual(await stack.deadLetters(queue), []);
  }
});

/** The functions' clock, which is the system's at first. */
async function createClock(t: TestContext) {
  const file = join(await makeFolder(t, 'clock'), 'ahead');
  let aheadMs = 0;
  const now = () => Date.now() + aheadMs;
  const set = (time: number) => {
    aheadMs = Math.max(aheadMs, time - Date.now());
    writeFileSync(file, String(aheadMs));
  };
  set(now());
  return { file, now, set };
}

async function seedAll(store: PolicyStore, start: number): Promise<void> {
  for (const { domain, maxAgeSeconds, mode = 'enforce', leftHours } of CHARACTERS) {
    await seed(store, {
      domain,
      policy: { mode, mx: [`mail.${domain}`], maxAgeSeconds },
      recordId: 'id1',
      inserted: start - DAY,
      lastUpdate: start - maxAgeSeconds * 1_000 + leftHours * HOUR,
    });
  }
}

/** Lets everybody do what they do from this run on. */
function act(internet: Internet, run: number): void {
  for (const { domain, maxAgeSeconds, does } of CHARACTERS) {
    const site = does[run];
    if (site !== undefined) internet.set(domain, site(domain, { maxAgeSeconds }));
  }
}

/** Reads the table again and again, until told to stop or the test is over. */
function startSampling(t: TestContext, store: PolicyStore, now: () => number) {
  const samples: Sample[] = [];
  let stopping = false;
  t.after(() => {
    stopping = true;
  });
  const sample = async () => {
    const at = now();
    const { records } = await store.read(CHARACTERS.map(({ domain }) => domain));
    samples.push({ at, records });
  };
  const sampling = (async () => {
    while (!stopping) {
      await sample();
      await delay(SAMPLE_EVERY_MS);
    }
  })();
  // Told to whoever stops it; nobody does where the test fails before.
  sampling.catch(() => {});
  return {
    sample,
    async stop(): Promise<readonly Sample[]> {
      stopping = true;
      await sampling;
      await sample();
      return samples;
    },
  };
}

/** What the samples say of one domain. */
function tell(samples: readonly Sample[], domain: Domain) {
  const states = samples.map(({ at, records }) => {
    const record = records.get(domain);
    assert.ok(record, `${domain} is always there`);
    return { record, left: record.validEnd - at };
  });
  const records = states.map(({ record }) => record);
  const first = records[0];
  const last = records.at(-1);
  assert.ok(first && last);
  const distinct = <T>(of: (record: PolicyRecord) => T | undefined) =>
    [...new Set(records.map(of))].filter((each) => each !== undefined);
  return {
    first,
    last,
    /** As read when it had expired. */
    expired: states.filter(({ left }) => left <= 0).map(({ record }) => record),
    /** Milliseconds before it would have expired. */
    leastLeft: Math.min(...states.map(({ left }) => left)),
    /** Beyond what there was at first. */
    updates: distinct((record) => record.lastUpdate).length - 1,
    fetches: distinct((record) => record.lastFetch).length - 1,
    attempts: distinct((record) => record.failing?.lastAttempt).length,
    timesFailing: distinct((record) => record.failing?.since).length,
  };
}
