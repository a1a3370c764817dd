// The promise, on the whole embedded stack: while a policy's host can be reached, its item never expires. An hour is
// two seconds here, and a policy lives for 12 to 20 seconds, of which most is over when the story begins. The table is
// read all the while, as relays read it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Domain } from '../functions/mtasts/domain.ts';
import type { Mode } from '../functions/mtasts/policy.ts';
import { createDynamoStore } from '../functions/store/dynamo.ts';
import type { PolicyRecord, PolicyStore } from '../functions/store/policy-store.ts';
import { behaviours, type Internet, type Site, startInternet } from '../infra/local/internet/internet.ts';
import { createObserver } from '../infra/local/observer.ts';
import { seed } from '../infra/local/seed.ts';
import { startStack } from '../infra/local/stack.ts';

const SECOND = 1_000;
const DAY = 86_400_000;
const RUN_EVERY_SECONDS = 2;
const RUNS = 8;
const SAMPLE_EVERY_MS = 50;

interface Character {
  readonly domain: Domain;
  readonly maxAgeSeconds: number;
  readonly mode?: Mode;
  /** What is left of its life when the story begins. */
  readonly leftSeconds: number;
  /** What it does from this renewal run on. */
  readonly does: Readonly<Record<number, (domain: string, options: { maxAgeSeconds: number }) => Site>>;
  /** Whether its policy has to be valid at every moment. */
  readonly promised: boolean;
}

function character(name: string, rest: Omit<Character, 'domain'>): Character {
  return { domain: `${name}.test` as Domain, ...rest };
}

const withId =
  (behaviour: 'healthy' | 'server-error' | 'host-down', id: string) =>
  (domain: string, options: { maxAgeSeconds: number }) =>
    behaviours[behaviour](domain, { ...options, id });

// RFC 8461 §3.3: after a failure, the same id is left alone for five minutes, which in hours that take two seconds are
// for ever. A new id is fetched at once. So whoever fails here does what the operator of a failing host does: publish
// a new id with each attempt to mend it. The rule itself is tested where time can be chosen, in decide.test.ts.
const CAST = {
  steady: character('steady', {
    maxAgeSeconds: 12,
    leftSeconds: 6,
    does: { 0: behaviours.healthy },
    promised: true,
  }),
  testing: character('testing', {
    maxAgeSeconds: 16,
    mode: 'testing',
    leftSeconds: 6,
    does: { 0: (domain, options) => behaviours.healthy(domain, { ...options, mode: 'testing' }) },
    promised: true,
  }),
  /** DNS cannot tell its record: its host can be reached all the same. */
  withoutRecord: character('without-record', {
    maxAgeSeconds: 20,
    leftSeconds: 6,
    does: { 0: behaviours.servfail },
    promised: true,
  }),
  /** The policy was changed, the id was not. */
  sameId: character('same-id', {
    maxAgeSeconds: 12,
    leftSeconds: 11,
    does: { 0: (domain, options) => behaviours.healthy(domain, { ...options, mx: ['new.test'] }) },
    promised: true,
  }),
  recovering: character('recovering', {
    maxAgeSeconds: 20,
    leftSeconds: 12,
    does: {
      0: withId('server-error', 'try0'),
      1: withId('server-error', 'try1'),
      2: withId('server-error', 'try2'),
      3: withId('healthy', 'mended'),
    },
    promised: true,
  }),
  down: character('down', {
    maxAgeSeconds: 12,
    leftSeconds: 4,
    does: { 0: withId('host-down', 'down'), 5: withId('healthy', 'back') },
    promised: false,
  }),
  /** Senders do nothing about it: it is refreshed once a day, whenever it expires. */
  none: character('none', {
    maxAgeSeconds: 12,
    mode: 'none',
    leftSeconds: 6,
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

test('no policy expires whose host can be reached; what expired comes back with its host', {
  timeout: 60_000,
}, async () => {
  const observer = createObserver();
  const internet = await startInternet();
  const stack = await startStack({
    functions: ['plan', 'refresh'],
    caFile: internet.caFile,
    environment: {
      RENEWAL_INTERVAL_SECONDS: String(RUN_EVERY_SECONDS),
      RENEWAL_SPREAD_SECONDS: '1',
      // No less is accepted: it includes two minutes for a slow domain, which are not compressed.
      RENEWAL_MARGIN_SECONDS: '200',
      SCHEDULE_LATENESS_SECONDS: '1',
      WAVE_SECONDS: '1',
      DNS_SERVERS: internet.dnsServer,
      POLICY_HOST_PORT: String(internet.policyHostPort),
      ALLOW_PRIVATE_ADDRESSES: '1',
    },
    settings: { refresh: { concurrency: 2 } },
    refreshBatchSize: 10,
    refreshWindowSeconds: 1,
    onLine: observer.line,
  });
  try {
    const store = createDynamoStore({ client: stack.dynamodb, table: stack.tableName });
    // Cold starts are milliseconds of an hour, but seconds of these.
    await stack.functions.plan.invoke({ kind: 'renewal', runId: 'promise-cold' });
    await stack.functions.refresh.invoke({ Records: [] });
    const start = Date.now();
    await seedAll(store, start);
    const sampler = startSampling(store);

    for (let run = 0; run < RUNS; run++) {
      await delay(Math.max(0, start + run * RUN_EVERY_SECONDS * SECOND - Date.now()));
      act(internet, run);
      await stack.functions.plan.invoke({ kind: 'renewal', runId: `promise-${run}` });
    }
    await stack.drained();
    const samples = await sampler.stop();
    const end = Date.now();

    const story = (role: Role) => tell(samples, CAST[role].domain);
    for (const { domain, promised } of CHARACTERS) {
      const { first, expired } = tell(samples, domain);
      assert.ok(first.validEnd < end, `${domain} would have expired`);
      if (promised) assert.equal(expired.length, 0, `${domain} is valid whenever it is read`);
    }

    // Half of its life is six seconds: about every third refresh is a fetch.
    const { updates, fetches } = story('steady');
    assert.ok(updates >= 4, `${updates} refreshes`);
    assert.ok(fetches >= 2 && fetches < updates, `${fetches} fetches in ${updates} refreshes`);
    assert.equal(story('withoutRecord').fetches, story('withoutRecord').updates, 'nothing but fetches');
    assert.deepEqual(story('sameId').last.policy.mx, ['new.test'], 'noticed although the id is the same');

    const recovering = story('recovering');
    assert.ok(recovering.failedIds.length >= 2, `failed with ${recovering.failedIds.join(', ')}`);
    assert.equal(recovering.timesFailing, 1, 'in one row');
    assert.ok(recovering.leastLeft <= 6 * SECOND, `saved ${recovering.leastLeft} ms before its end`);
    assert.equal(recovering.last.recordId, 'mended');
    assert.equal(recovering.last.failing, undefined);

    const down = story('down');
    const lapsed = down.expired.at(-1);
    assert.ok(lapsed, 'down expires');
    assert.deepEqual({ ...lapsed, failing: undefined }, down.first, 'its failures change nothing else');
    assert.equal(lapsed.failing?.code, 'connect-refused');
    assert.equal(down.last.recordId, 'back');
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
  } finally {
    await stack.close();
    await internet.close();
  }
});

async function seedAll(store: PolicyStore, start: number): Promise<void> {
  for (const { domain, maxAgeSeconds, mode = 'enforce', leftSeconds } of CHARACTERS) {
    await seed(store, {
      domain,
      policy: { mode, mx: [`mail.${domain}`], maxAgeSeconds },
      recordId: 'id1',
      inserted: start - DAY,
      lastUpdate: start - (maxAgeSeconds - leftSeconds) * SECOND,
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

/** Reads the table again and again, until told to stop. */
function startSampling(store: PolicyStore) {
  const samples: Sample[] = [];
  let stopping = false;
  const sampling = (async () => {
    while (!stopping) {
      const at = Date.now();
      const { records } = await store.read(CHARACTERS.map(({ domain }) => domain));
      samples.push({ at, records });
      await delay(SAMPLE_EVERY_MS);
    }
  })();
  return {
    async stop(): Promise<readonly Sample[]> {
      stopping = true;
      await sampling;
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
    failedIds: distinct((record) => record.failing?.recordId),
    timesFailing: distinct((record) => record.failing?.since).length,
  };
}
