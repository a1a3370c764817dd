import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import type { PolicyRecord } from '../../../functions/store/policy-store.ts';
import type { DnsAnswer } from '../../../infra/relay/dns.ts';
import type { Entry } from '../../../infra/relay/entry.ts';
import {
  createPolicies,
  type Found,
  type Policies,
  type PolicySettings,
} from '../../../infra/relay/policies.ts';
import type { Asked, Requests } from '../../../infra/relay/requests.ts';
import type { Loaded } from '../../../infra/relay/snapshot.ts';
import type { Read } from '../../../infra/relay/table.ts';
import {
  ABSENT,
  BROKEN,
  DAY,
  DOWN,
  domain,
  EXAMPLE,
  fakeDns,
  gone,
  HOUR,
  idle,
  item,
  MINUTE,
  memorySnapshot,
  NOW,
  POLICY,
  recordingObserver,
  SECOND,
  SILENT,
  sts,
  txt,
  UNREADABLE,
  type VirtualClock,
  virtualClock,
} from './scene.ts';

const PATIENT = new AbortController().signal;

interface World {
  /** What the table says now; undefined: it never answers. */
  table: Read | ((domain: Domain, reads: number) => Read | undefined);
  dns: DnsAnswer | typeof SILENT;
  asked: Asked | undefined;
}

interface Scene {
  readonly world: World;
  readonly clock: VirtualClock;
  readonly policies: Policies;
  readonly reads: { readonly domain: Domain; readonly consistent: boolean; readonly at: number }[];
  readonly looks: Domain[];
  readonly used: Domain[];
  readonly dns: ReturnType<typeof fakeDns>;
  readonly observer: ReturnType<typeof recordingObserver>;
  readonly disk: ReturnType<typeof memorySnapshot>;
  refuses: boolean;
  find(name?: Domain): Promise<Found>;
}

async function play({
  table = ABSENT,
  dns = gone(),
  asked,
  disk = [],
  settings = {},
}: Partial<World> & { disk?: readonly Entry[]; settings?: Partial<PolicySettings> } = {}): Promise<Scene> {
  const world: World = { table, dns, asked };
  const clock = virtualClock();
  const observer = recordingObserver();
  const reads: Scene['reads'] = [];
  const looks: Domain[] = [];
  const lately = new Map<Domain, number>();
  const used: Domain[] = [];
  const snapshot = memorySnapshot(disk);
  const names = fakeDns(() => world.dns);
  const requests: Requests = {
    async look(name) {
      if (world.asked !== undefined) return world.asked;
      const at = lately.get(name);
      if (at !== undefined && clock.now() - at < 5 * MINUTE) return { kind: 'recently', at };
      looks.push(name);
      lately.set(name, clock.now());
      return { kind: 'sent', at: clock.now() };
    },
    used: (name) => void used.push(name),
    tend: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
  const policies = await createPolicies({
    table: {
      refuses: () => scene.refuses,
      read: async (name, { consistent }) => {
        reads.push({ domain: name, consistent, at: clock.now() });
        const read = typeof world.table === 'function' ? world.table(name, reads.length) : world.table;
        return read ?? new Promise(() => {});
      },
    },
    requests,
    dns: names,
    snapshot,
    settings: { firstContact: 'wait', onUnknown: 'defer', cachedDomains: 1_000, ...settings },
    clock,
    observer,
  });
  const scene: Scene = {
    world,
    clock,
    policies,
    reads,
    looks,
    used,
    dns: names,
    observer,
    disk: snapshot,
    refuses: false,
    find: (name = EXAMPLE) => clock.finish(policies.find(name, PATIENT)),
  };
  return scene;
}

/** In a word or two. */
function say(found: Found): string {
  switch (found.kind) {
    case 'policy':
      return `${found.policy.mode} of ${found.source}`;
    case 'no-policy':
      return found.reason;
    case 'unknown':
      return 'unknown';
  }
}

const END = NOW - HOUR;
const FAILING = { lastAttempt: END - MINUTE, code: 'connect-timeout', since: NOW - DAY, recordId: 'id1' };

const ITEMS = {
  enforce: item(),
  testing: item({ policy: { ...POLICY, mode: 'testing' } }),
  none: item({ policy: { mode: 'none', mx: [], maxAgeSeconds: 86_400 } }),
  'without id': item({ recordId: undefined }),
  backoff: item({
    backoff: true,
    policy: { mode: 'none', mx: [], maxAgeSeconds: 300 },
    validEnd: NOW + 4 * MINUTE,
  }),
  absent: ABSENT,
  ended: item({ validEnd: END }),
  'ended, failing before': item({ validEnd: END, failing: FAILING }),
  'ended, failed since': item({ validEnd: END, failing: { ...FAILING, lastAttempt: NOW - 10 * MINUTE } }),
  'ended, failed just now': item({ validEnd: END, failing: { ...FAILING, lastAttempt: NOW - MINUTE } }),
  'ended back-off': item({ backoff: true, validEnd: END }),
  unreadable: UNREADABLE,
  down: DOWN,
} as const;

const RECORDS = {
  same: sts('id1'),
  other: sts('id2'),
  absent: gone(),
  unusable: txt('v=STSv1; id=id1;', 'v=STSv1; id=id2;'),
  failed: BROKEN,
} as const;

const HELD = ['nothing', 'memory', 'disk'] as const;
const CONTACTS = ['wait', 'async', 'defer'] as const;

type Table = keyof typeof ITEMS;
type Dns = keyof typeof RECORDS;
type HeldIn = (typeof HELD)[number];
type Contact = (typeof CONTACTS)[number];

/** Whether the next lookup, a second later, is answered from memory, or asks the table again. */
type Next = 'remembered' | 'asks again';

interface Rule {
  readonly table: readonly Table[];
  readonly record?: readonly Dns[];
  readonly held?: readonly HeldIn[];
  readonly contact?: readonly Contact[];
  readonly answer: string;
  readonly looks: 0 | 1;
  readonly next: Next;
}

const FOUND: readonly Dns[] = ['same', 'other'];
const NONE: readonly Dns[] = ['absent', 'unusable'];
const ENDED: readonly Table[] = ['ended', 'ended, failing before'];
const FAILED: readonly Table[] = ['ended, failed since', 'ended back-off'];

// In every row what is not named is "whatever it is". Rows do not overlap, and together they are all cases.
const rules: readonly Rule[] = [
  // A valid item is the answer. Another id is a request; no record, or no DNS, is nothing.
  {
    table: ['enforce'],
    record: ['same', ...NONE, 'failed'],
    answer: 'enforce of table',
    looks: 0,
    next: 'remembered',
  },
  { table: ['enforce'], record: ['other'], answer: 'enforce of table', looks: 1, next: 'remembered' },
  {
    table: ['testing'],
    record: ['same', ...NONE, 'failed'],
    answer: 'testing of table',
    looks: 0,
    next: 'remembered',
  },
  { table: ['testing'], record: ['other'], answer: 'testing of table', looks: 1, next: 'remembered' },
  {
    table: ['none'],
    record: ['same', ...NONE, 'failed'],
    answer: 'none of table',
    looks: 0,
    next: 'remembered',
  },
  { table: ['none'], record: ['other'], answer: 'none of table', looks: 1, next: 'remembered' },
  { table: ['without id'], record: FOUND, answer: 'enforce of table', looks: 1, next: 'remembered' },
  {
    table: ['without id'],
    record: [...NONE, 'failed'],
    answer: 'enforce of table',
    looks: 0,
    next: 'remembered',
  },
  {
    table: ['backoff'],
    record: ['same', ...NONE, 'failed'],
    answer: 'back-off',
    looks: 0,
    next: 'remembered',
  },
  { table: ['backoff'], record: ['other'], answer: 'back-off', looks: 1, next: 'remembered' },
  // The functions tried a minute ago: that is a back-off, whatever was there before.
  {
    table: ['ended, failed just now'],
    record: ['same', ...NONE, 'failed'],
    answer: 'back-off',
    looks: 0,
    next: 'remembered',
  },
  { table: ['ended, failed just now'], record: ['other'], answer: 'back-off', looks: 1, next: 'remembered' },
  // First contact.
  { table: ['absent'], record: NONE, answer: 'not-implemented', looks: 0, next: 'remembered' },
  {
    table: ['absent'],
    record: FOUND,
    contact: ['wait', 'async'],
    answer: 'requested',
    looks: 1,
    next: 'asks again',
  },
  { table: ['absent'], record: FOUND, contact: ['defer'], answer: 'unknown', looks: 1, next: 'asks again' },
  // Name servers that never answer hold no mail up, unless that is wanted.
  {
    table: ['absent', ...ENDED, ...FAILED],
    record: ['failed'],
    contact: ['wait', 'async'],
    answer: 'unavailable',
    looks: 1,
    next: 'asks again',
  },
  {
    table: ['absent'],
    record: ['failed'],
    contact: ['defer'],
    answer: 'unknown',
    looks: 0,
    next: 'asks again',
  },
  // Expired is no policy, and is always asked for.
  { table: [...ENDED, ...FAILED], record: NONE, answer: 'not-implemented', looks: 1, next: 'remembered' },
  {
    table: [...ENDED, ...FAILED],
    record: ['failed'],
    contact: ['defer'],
    answer: 'unknown',
    looks: 1,
    next: 'asks again',
  },
  {
    table: ENDED,
    record: FOUND,
    contact: ['wait', 'async'],
    answer: 'requested',
    looks: 1,
    next: 'asks again',
  },
  { table: ENDED, record: FOUND, contact: ['defer'], answer: 'unknown', looks: 1, next: 'asks again' },
  // Also where mail is deferred until the table knows: it knows that there is none to be had.
  { table: FAILED, record: FOUND, answer: 'back-off', looks: 1, next: 'asks again' },
  // The table cannot say: what was last known stays in force, whatever DNS says.
  { table: ['unreadable'], held: ['nothing'], answer: 'unknown', looks: 1, next: 'asks again' },
  { table: ['unreadable'], held: ['memory'], answer: 'enforce of cache', looks: 1, next: 'asks again' },
  { table: ['unreadable'], held: ['disk'], answer: 'enforce of disk', looks: 1, next: 'asks again' },
  { table: ['down'], held: ['memory'], answer: 'enforce of cache', looks: 0, next: 'asks again' },
  { table: ['down'], held: ['disk'], answer: 'enforce of disk', looks: 0, next: 'asks again' },
  {
    table: ['down'],
    held: ['nothing'],
    record: NONE,
    answer: 'not-implemented',
    looks: 0,
    next: 'asks again',
  },
  {
    table: ['down'],
    held: ['nothing'],
    record: [...FOUND, 'failed'],
    answer: 'unknown',
    looks: 0,
    next: 'asks again',
  },
];

/** A policy that is no longer the table's. */
const EARLIER = item({ recordId: 'id0', policy: { ...POLICY, mx: ['earlier.example.com'] } });

async function playCase(
  table: Table,
  dns: Dns,
  held: HeldIn,
  settings: Partial<PolicySettings>,
): Promise<Scene> {
  assert.ok(EARLIER.kind === 'item');
  const scene = await play({
    table: EARLIER,
    dns: sts('id0'),
    settings,
    disk: held === 'disk' ? [EARLIER.entry] : [],
  });
  if (held === 'memory') {
    // Looked up so long ago that it is not fresh now.
    scene.clock.set(NOW - 5 * MINUTE);
    assert.equal(say(await scene.find()), 'enforce of table');
    scene.clock.set(NOW);
    scene.reads.length = 0;
    scene.used.length = 0;
  }
  scene.world.table = ITEMS[table];
  scene.world.dns = RECORDS[dns];
  return scene;
}

const keys = <T extends object>(of: T) => Object.keys(of) as (keyof T)[];

describe('what a lookup finds', () => {
  const fits = <T>(allowed: readonly T[] | undefined, value: T) => allowed?.includes(value) ?? true;
  const seen = new Set<Rule>();
  const cases = HELD.flatMap((held) => CONTACTS.map((contact) => ({ held, contact })));

  function ruleOf(table: Table, dns: Dns, held: HeldIn, contact: Contact): Rule {
    const matching = rules.filter(
      (rule) =>
        rule.table.includes(table) &&
        fits(rule.record, dns) &&
        fits(rule.held, held) &&
        fits(rule.contact, contact),
    );
    const [rule] = matching;
    assert.ok(rule !== undefined && matching.length === 1, `it should be one row, not ${matching.length}`);
    seen.add(rule);
    return rule;
  }

  for (const table of keys(ITEMS)) {
    for (const dns of keys(RECORDS)) {
      test(`table: ${table}; record: ${dns}`, async () => {
        for (const { held, contact } of cases) {
          const what = `held in ${held}, ${contact}`;
          const rule = ruleOf(table, dns, held, contact);
          const scene = await playCase(table, dns, held, { firstContact: contact });
          const { find, reads, looks, clock, world, used, policies } = scene;
          const found = await find();
          await idle();
          assert.equal(say(found), rule.answer, what);
          assert.deepEqual(looks, rule.looks === 1 ? [EXAMPLE] : [], what);
          assert.ok(clock.now() - NOW <= 2_850, `${what}: it took ${clock.now() - NOW} ms`);
          const isItem = found.kind === 'policy' || say(found) === 'back-off';
          assert.deepEqual(used, isItem ? [EXAMPLE] : [], 'what is in use is reported, and nothing else');

          const before = reads.length;
          const start = clock.now();
          await clock.pass(SECOND);
          // Nobody is asked again within five minutes, and so nobody waited for again.
          const again = await find();
          assert.equal(reads.length - before, rule.next === 'remembered' ? 0 : 1, what);
          assert.equal(clock.now() - start, SECOND, `${what}: the second lookup waits for nothing`);
          const remembered = rule.answer.replace('of table', 'of cache');
          assert.equal(say(again), rule.next === 'remembered' ? remembered : rule.answer, what);
          assert.equal(looks.length, rule.looks, what);

          // Whatever it was, a valid item is found before long.
          world.table = item({ validEnd: NOW + 30 * DAY });
          world.dns = sts('id1');
          await clock.pass(16 * MINUTE);
          assert.equal(say(await find()), 'enforce of table', what);
          await policies.close();
          assert.equal(clock.sleepers, 0, what);
        }
      });

      test(`table: ${table}; record: ${dns}; what cannot be told is as good as nothing`, async () => {
        for (const { held, contact } of cases) {
          const { answer } = ruleOf(table, dns, held, contact);
          const scene = await playCase(table, dns, held, { firstContact: contact, onUnknown: 'none' });
          // That is `defer` at work, and no fault.
          const discovering =
            contact === 'defer' && FOUND.includes(dns) && (table === 'absent' || ENDED.includes(table));
          const unavailable = answer === 'unknown' && !discovering;
          assert.equal(
            say(await scene.find()),
            unavailable ? 'unavailable' : answer,
            `held in ${held}, ${contact}`,
          );
          await scene.policies.close();
        }
      });
    }
  }

  test('every row is some case', () => {
    assert.deepEqual(
      rules.filter((rule) => !seen.has(rule)),
      [],
    );
  });
});

describe('first contact', () => {
  const after = (milliseconds: number, later: Read, before: Read = ABSENT) => ({
    later,
    before,
    milliseconds,
  });
  const attempted: Partial<PolicyRecord> = {
    validEnd: END,
    failing: { ...FAILING, lastAttempt: NOW + 400 },
  };
  const rows: [string, Contact, ReturnType<typeof after>, answer: string, milliseconds: [number, number]][] =
    [
      ['a policy, at once', 'wait', after(50, item()), 'enforce of table', [100, 100]],
      ['a policy, after a second', 'wait', after(1_000, item()), 'enforce of table', [1_000, 1_500]],
      ['a policy, after 2.5 seconds', 'wait', after(2_500, item()), 'enforce of table', [2_500, 2_600]],
      ['a policy, too late', 'wait', after(2_601, item()), 'requested', [2_600, 2_600]],
      ['a back-off', 'wait', after(300, ITEMS.backoff), 'back-off', [300, 700]],
      [
        'an ended policy that is there again',
        'wait',
        after(300, item(), ITEMS.ended),
        'enforce of table',
        [300, 700],
      ],
      [
        'an ended policy that cannot be had',
        'wait',
        after(400, item(attempted), ITEMS.ended),
        'back-off',
        [400, 700],
      ],
      [
        'an ended back-off that is a policy now',
        'wait',
        after(300, item(), ITEMS['ended back-off']),
        'enforce of table',
        [300, 700],
      ],
      ['an item that cannot be read', 'wait', after(300, UNREADABLE), 'requested', [2_600, 2_600]],
      ['a table that goes down', 'wait', after(300, DOWN), 'requested', [2_600, 2_600]],
      ['a policy', 'defer', after(300, item()), 'enforce of table', [300, 700]],
      ['a back-off', 'defer', after(300, ITEMS.backoff), 'back-off', [300, 700]],
      ['a policy, too late', 'defer', after(2_601, item()), 'unknown', [2_600, 2_600]],
      ['a policy', 'async', after(50, item()), 'requested', [0, 0]],
    ];
  for (const [what, firstContact, { later, before, milliseconds }, answer, [least, most]] of rows) {
    test(`${firstContact}: ${what}`, async () => {
      const { find, clock, reads, world, looks, observer, policies } = await play({
        table: before,
        dns: sts('id1'),
        settings: { firstContact },
      });
      world.table = () => (clock.now() - NOW >= milliseconds ? later : before);
      assert.equal(say(await find()), answer);
      const taken = clock.now() - NOW;
      assert.ok(taken >= least && taken <= most, `${taken} ms`);
      assert.deepEqual(looks, [EXAMPLE]);
      const [first, ...polls] = reads;
      assert.equal(first?.consistent, false);
      assert.ok(
        polls.every(({ consistent }) => consistent),
        'the first read after the write shall see it',
      );
      assert.ok(polls.length <= 6, `${polls.length} polls`);
      const ends = { requested: 'timeout', unknown: 'timeout', 'back-off': 'absent' }[answer] ?? 'found';
      assert.equal(observer.counts.get(`first_contacts{${ends}}`), firstContact === 'async' ? undefined : 1);
      await policies.close();
    });
  }

  for (const kind of ['limited', 'failed'] as const) {
    test(`is not waited for where the request was ${kind}`, async () => {
      const { find, clock, policies } = await play({ dns: sts('id1'), asked: { kind } });
      assert.equal(say(await find()), 'requested');
      assert.equal(clock.now(), NOW);
      await policies.close();
    });
  }

  test('is waited for as long as the first who asked does, and no longer', async () => {
    const { find, clock, policies } = await play({
      dns: sts('id1'),
      asked: { kind: 'recently', at: NOW - 2 * SECOND },
    });
    assert.equal(say(await find()), 'requested');
    assert.equal(clock.now(), NOW + 600);
    await policies.close();
  });

  const untold: [string, Contact, World['dns'], later: Read, answer: string, milliseconds: number][] = [
    ['the functions find a policy', 'wait', BROKEN, item(), 'enforce of table', 700],
    ['they find a back-off', 'wait', BROKEN, ITEMS.backoff, 'back-off', 700],
    ['they find nothing', 'wait', BROKEN, ABSENT, 'unavailable', 2_600],
    ['the table goes down', 'wait', BROKEN, DOWN, 'unavailable', 2_600],
    ['DNS takes its time, and they find a policy', 'wait', SILENT, item(), 'enforce of table', 1_600],
    ['DNS takes its time, and they find nothing', 'wait', SILENT, ABSENT, 'unavailable', 2_600],
    ['nobody waits', 'async', BROKEN, item(), 'unavailable', 0],
    ['the mail waits', 'defer', BROKEN, item(), 'unknown', 0],
  ];
  for (const [what, firstContact, dns, later, answer, milliseconds] of untold) {
    test(`${firstContact}, where DNS does not say: ${what}`, async () => {
      const { find, clock, policies, world } = await play({ dns, settings: { firstContact } });
      world.table = () => (clock.now() - NOW >= 400 ? later : ABSENT);
      assert.equal(say(await find()), answer);
      assert.equal(clock.now() - NOW, milliseconds);
      await policies.close();
    });
  }
});

describe('memory', () => {
  test('serves an item for five minutes, and not a moment longer', async () => {
    const { find, clock, reads, policies } = await play({ table: item(), dns: sts('id1') });
    assert.equal(say(await find()), 'enforce of table');
    for (let i = 0; i < 100; i++) assert.equal(say(await find()), 'enforce of cache');
    await clock.pass(5 * MINUTE - 1);
    assert.equal(say(await find()), 'enforce of cache');
    assert.equal(reads.length, 1);
    await clock.pass(1);
    assert.equal(say(await find()), 'enforce of table');
    assert.equal(reads.length, 2);
    await policies.close();
  });

  test('serves no item past its end', async () => {
    const ends = item({ validEnd: NOW + 90 * SECOND });
    const { find, clock, world, policies } = await play({ table: ends, dns: sts('id1') });
    assert.deepEqual(await find(), {
      kind: 'policy',
      policy: POLICY,
      recordId: 'id1',
      validEnd: NOW + 90 * SECOND,
      source: 'table',
    });
    world.table = DOWN;
    await clock.pass(90 * SECOND - 1);
    assert.equal(say(await find()), 'enforce of cache');
    await clock.pass(1);
    assert.equal(say(await find()), 'unknown', 'nor while the table is down');
    await policies.close();
  });

  test('a clock that is put back keeps nothing alive', async () => {
    const { find, clock, reads, policies } = await play({ table: item(), dns: sts('id1') });
    await find();
    clock.set(NOW - HOUR);
    await find();
    assert.equal(reads.length, 2);
    await policies.close();
  });

  test('nor does one that is put back and forth make a policy "not implemented"', async () => {
    const { find, clock, world, policies } = await play({ dns: gone(3_600) });
    assert.equal(say(await find()), 'not-implemented');
    clock.set(NOW - HOUR);
    world.table = item();
    assert.equal(say(await find()), 'enforce of table');
    clock.set(NOW + MINUTE);
    assert.equal(say(await find()), 'enforce of table');
    await policies.close();
  });

  const negatives: [string, DnsAnswer, Read, remembered: number][] = [
    ['as long as the SOA says', gone(600), ABSENT, 600 * SECOND],
    ['an hour at most', gone(86_400), ABSENT, HOUR],
    ['not at all if the answer does not say', gone(0), ABSENT, 0],
    ['as long as the records live that are none of ours', txt('v=spf1 -all'), ABSENT, 300 * SECOND],
    ['five minutes at most where there was a policy', gone(86_400), ITEMS.ended, 5 * MINUTE],
    ['not at all while the table is down', gone(600), DOWN, 0],
  ];
  for (const [how, dns, table, remembered] of negatives) {
    test(`"not implemented" is remembered ${how}`, async () => {
      const { find, clock, reads, policies } = await play({ dns, table });
      assert.equal(say(await find()), 'not-implemented');
      await clock.pass(Math.max(0, remembered - 1));
      assert.equal(say(await find()), 'not-implemented');
      assert.equal(reads.length, remembered > 0 ? 1 : 2);
      await clock.pass(1);
      assert.equal(say(await find()), 'not-implemented');
      assert.equal(reads.length, remembered > 0 ? 2 : 3);
      await policies.close();
    });
  }

  test('after a request for a new id, the table is read again after 15 seconds, once', async () => {
    const { find, clock, reads, world, policies } = await play({ table: item(), dns: sts('id2') });
    await find();
    await clock.pass(14 * SECOND);
    assert.equal(say(await find()), 'enforce of cache');
    await clock.pass(SECOND);
    world.table = item({ recordId: 'id2', policy: { ...POLICY, mode: 'testing' } });
    assert.equal(say(await find()), 'testing of table');
    await clock.pass(4 * MINUTE);
    assert.equal(say(await find()), 'testing of cache');
    assert.equal(reads.length, 2);
    await policies.close();
  });

  test('a domain whose new policy cannot be fetched costs two reads in five minutes', async () => {
    const { find, clock, reads, looks, policies } = await play({ table: item(), dns: sts('id2') });
    for (let seconds = 0; seconds < 3_600; seconds += 5) {
      assert.match(say(await find()), /^enforce of/);
      await clock.pass(5 * SECOND);
    }
    assert.ok(looks.length >= 11 && looks.length <= 12, `${looks.length} looks`);
    assert.ok(reads.length <= 24, `${reads.length} reads`);
    await policies.close();
  });

  test('of a policy that is gone from the table, nothing is left', async () => {
    const { find, clock, world, disk, policies } = await play({ table: item(), dns: sts('id1') });
    await find();
    await clock.pass(5 * MINUTE);
    assert.equal(disk.entries.length, 1);
    world.table = ABSENT;
    world.dns = gone();
    assert.equal(say(await find()), 'not-implemented');
    await clock.pass(MINUTE);
    assert.deepEqual(disk.entries, []);
    world.table = DOWN;
    await clock.pass(HOUR);
    assert.equal(say(await find()), 'not-implemented');
    await policies.close();
  });

  test('holds so many domains, and those used least lately go first', async () => {
    const at = (name: Domain) => item({ domain: name });
    const { find, world, reads, observer, policies } = await play({
      dns: sts('id1'),
      settings: { cachedDomains: 3 },
    });
    world.table = at;
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((label) => domain(`${label}.example`)) as [
      Domain,
      Domain,
      Domain,
      Domain,
    ];
    for (const name of [a, b, c, a, d]) await find(name);
    assert.equal(observer.gauges.get('policies_cached'), 3);
    reads.length = 0;
    for (const name of [a, c, d]) await find(name);
    assert.equal(reads.length, 0);
    await find(b);
    assert.equal(reads.length, 1);
    await policies.close();
  });

  test('hostile policies cannot fill it', async () => {
    const mx = Array.from({ length: 300 }, (_, i) => `mx${i}.hostile.example`);
    const { find, world, observer, policies } = await play({
      dns: sts('id1'),
      settings: { cachedDomains: 100 },
    });
    world.table = (name) => item({ domain: name, policy: { ...POLICY, mx } });
    for (let i = 0; i < 100; i++) await find(domain(`d${i}.example`));
    const cached = observer.gauges.get('policies_cached') ?? 0;
    // 200 KB of memory at 2 KB a domain, and some 19 KB each.
    assert.ok(cached >= 9 && cached <= 11, `${cached} are cached`);
    await policies.close();
  });

  test('a wave of mail to domains without MTA-STS does not push policies out', async () => {
    const { find, world, reads, policies } = await play({
      table: item(),
      dns: sts('id1'),
      settings: { cachedDomains: 10 },
    });
    await find();
    world.table = ABSENT;
    world.dns = gone();
    for (let i = 0; i < 50; i++) await find(domain(`d${i}.example`));
    reads.length = 0;
    assert.equal(say(await find()), 'enforce of cache');
    assert.equal(reads.length, 0);
    await policies.close();
  });
});

describe('many lookups at once', () => {
  test('of one domain are one read, one question and one request', async () => {
    const { policies, clock, reads, dns, looks, world } = await play({ dns: sts('id1') });
    world.table = () => (clock.now() >= NOW + SECOND ? item() : ABSENT);
    const all = await clock.finish(
      Promise.all(Array.from({ length: 1_000 }, () => policies.find(EXAMPLE, PATIENT))),
    );
    assert.deepEqual(new Set(all.map(say)), new Set(['enforce of table']));
    assert.deepEqual(dns.asked, ['TXT _mta-sts.example.com']);
    assert.equal(looks.length, 1);
    assert.equal(reads.filter(({ consistent }) => !consistent).length, 1);
    await policies.close();
  });

  test('one that gives up is answered at once, and the others are served', async () => {
    const { policies, clock, world } = await play({ dns: sts('id1') });
    const impatient = new AbortController();
    const [first, second] = [policies.find(EXAMPLE, impatient.signal), policies.find(EXAMPLE, PATIENT)];
    await clock.pass(SECOND);
    impatient.abort();
    assert.equal(say(await first), 'unknown');
    assert.equal(say(await policies.find(EXAMPLE, impatient.signal)), 'unknown');
    world.table = item();
    assert.equal(say(await clock.finish(second)), 'enforce of table');
    await policies.close();
  });

  test('more domains than that are not looked up, and not held in memory', async () => {
    const { policies, world } = await play({ dns: sts('id1') });
    world.table = () => undefined;
    // A signal for each lookup, as the relay has: adding a listener takes longer the more a signal has already.
    const lookups = Array.from({ length: 10_000 }, (_, i) => {
      const stopped = new AbortController();
      return { stopped, found: policies.find(domain(`d${i}.example`), stopped.signal) };
    });
    const { kind, ...rest } = await policies.find(EXAMPLE, PATIENT);
    assert.deepEqual({ kind, ...rest }, { kind: 'unknown', reason: 'too many domains are being looked up' });
    for (const { stopped } of lookups) stopped.abort('enough');
    await Promise.all(lookups.map(({ found }) => found));
  });
});

describe('while the table refuses', () => {
  test('what is known is answered at once, without a read and without a question', async () => {
    const scene = await play({ table: item(), dns: sts('id1') });
    await scene.find();
    await scene.clock.pass(HOUR);
    scene.refuses = true;
    scene.reads.length = 0;
    scene.dns.asked.length = 0;
    assert.equal(say(await scene.find()), 'enforce of cache');
    assert.equal(scene.reads.length, 0);
    assert.deepEqual(scene.dns.asked, []);
    assert.equal(scene.observer.counts.get('cache{stale}'), 1);
    await scene.policies.close();
  });
});

test('an item that cannot be used is said once an hour, not for every lookup', async () => {
  const { find, clock, observer, policies } = await play({ table: UNREADABLE, dns: sts('id1') });
  for (let i = 0; i < 10; i++) await find();
  assert.equal(observer.events.length, 1);
  assert.match(observer.events[0] ?? '', /^warn an item of the table cannot be used .*example\.com/);
  await clock.pass(HOUR);
  await find();
  assert.equal(observer.events.length, 2);
  await policies.close();
});

describe('the disk', () => {
  test('gets what is new and no back-off, once a minute at most, and at the end', async () => {
    const { find, clock, disk, world, policies } = await play({ table: item(), dns: sts('id1') });
    await find();
    assert.equal(disk.saves, 0);
    await clock.pass(MINUTE);
    assert.equal(disk.saves, 1);
    await clock.pass(30 * MINUTE);
    await find();
    await clock.pass(30 * MINUTE);
    assert.equal(disk.saves, 1, 'the same item again is nothing new');
    world.table = ITEMS.backoff;
    await find(domain('backoff.example'));
    const end = clock.now() + SECOND;
    world.table = item({ domain: domain('short.example'), validEnd: end });
    await find(domain('short.example'));
    world.table = item({ validEnd: NOW + 8 * DAY });
    await find();
    await clock.pass(2 * SECOND);
    await policies.close();
    assert.equal(disk.saves, 2);
    assert.deepEqual(
      disk.entries.map(({ domain: name, validEnd }) => [name, validEnd]),
      [
        ['short.example', end],
        [EXAMPLE, NOW + 8 * DAY],
      ],
    );
  });

  test('that cannot be written is tried again', async () => {
    const { find, clock, disk, policies } = await play({ table: item(), dns: sts('id1') });
    disk.writable = false;
    await find();
    await clock.pass(5 * MINUTE);
    disk.writable = true;
    await clock.pass(MINUTE);
    assert.equal(disk.entries.length, 1);
    await policies.close();
  });
});

test('who waits when it ends, and has nothing to wait for, is answered at once', async () => {
  const { policies, clock, reads } = await play({ dns: sts('id1') });
  const waiting = policies.find(EXAMPLE, PATIENT);
  await clock.pass(200);
  const before = reads.length;
  const closing = policies.close();
  assert.equal(say(await waiting), 'requested');
  await closing;
  assert.equal(clock.now(), NOW + 200);
  assert.ok(reads.length <= before + 1);
});

test('after its end nothing goes on, and nothing is asked', async () => {
  const { policies, clock, reads, world } = await play({ dns: sts('id1') });
  const waiting = policies.find(EXAMPLE, PATIENT);
  await clock.pass(200);
  const closing = policies.close();
  world.table = item();
  assert.equal(say(await clock.finish(waiting)), 'enforce of table', 'who waits gets what there is now');
  await clock.finish(closing);
  assert.equal(clock.sleepers, 0);
  reads.length = 0;
  assert.equal(say(await policies.find(domain('other.example'), PATIENT)), 'unknown');
  assert.equal(reads.length, 0);
});

describe('properties', () => {
  const reads = fc.constantFrom(...keys(ITEMS)).map((key) => ITEMS[key]);
  const answers = fc.constantFrom(...keys(RECORDS)).map((key) => RECORDS[key]);
  const step = fc.record({
    table: reads,
    dns: fc.oneof(answers, fc.constant(SILENT)),
    refuses: fc.boolean(),
    waits: fc.integer({ min: 0, max: 20 * MINUTE }),
  });

  test('whatever happens in whatever order, only what the table has said and what has not ended is a policy', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 20 }),
        fc.constantFrom(...CONTACTS),
        async (steps, firstContact) => {
          const scene = await play({ settings: { firstContact } });
          let said: Read | undefined;
          for (const { table, dns, refuses, waits } of steps) {
            scene.world.table = refuses ? DOWN : table;
            scene.refuses = refuses;
            scene.world.dns = dns;
            const before = scene.reads.length;
            const start = scene.clock.now();
            const found = await scene.find();
            assert.ok(scene.clock.now() - start <= 3 * SECOND);
            const isSaid = table.kind === 'item' || table.kind === 'absent';
            if (scene.reads.length > before && !refuses && isSaid) said = table;
            if (found.kind === 'policy') {
              assert.ok(said?.kind === 'item' && !said.entry.backoff);
              assert.deepEqual(found.policy, said.entry.policy);
              assert.ok(found.validEnd > scene.clock.now());
            } else if (
              said?.kind === 'item' &&
              !said.entry.backoff &&
              said.entry.validEnd > scene.clock.now()
            ) {
              assert.fail(`there is a valid policy, and the answer is ${say(found)}`);
            }
            await scene.clock.pass(waits);
          }
          assert.ok(scene.looks.length <= steps.length);
          await scene.clock.finish(scene.policies.close());
          assert.equal(scene.clock.sleepers, 0);
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe('explain', () => {
  const rows: [string, Partial<Parameters<typeof play>[0]>, lines: RegExp[]][] = [
    [
      'a policy',
      { table: item(), dns: sts('id1') },
      [
        /^memory and disk: nothing$/,
        /^table: policy, mode enforce, mx mail\.example\.com, \*\.example\.net, max_age 604800, record id id1, until 2026-11-29T12:00:00\.000Z \(in 7 d\)$/,
        /^table: refreshed 2026-11-22T11:00:00\.000Z \(1 h ago\); fetched/,
        /^TXT record: id id1, the same as the item's$/,
        /^answer: the item's policy$/,
      ],
    ],
    [
      'an outage, with a policy on disk',
      { table: DOWN, dns: BROKEN, disk: ITEMS.enforce.kind === 'item' ? [ITEMS.enforce.entry] : [] },
      [
        /^disk: policy, mode enforce/,
        /^table: cannot be read: TimeoutError: no answer$/,
        /^TXT record: cannot be told: TXT of it: SERVFAIL$/,
        /^answer: the last known policy, from disk, since the table cannot say$/,
      ],
    ],
    [
      'an outage, with nothing',
      { table: DOWN, dns: sts('id1') },
      [
        /^memory/,
        /^table: cannot/,
        /^TXT record: id id1$/,
        /^answer: unknown: it has an MTA-STS record, and the table/,
      ],
    ],
    [
      'a record that is none',
      { table: ABSENT, dns: txt('v=STSv1; id=a b;\u001b[31m') },
      [
        /^memory/,
        /^table: no item$/,
        /^TXT record: unusable, for 300 s: [ -~\u{FFFD}]+$/u,
        /^answer: no policy: the domain does not/,
      ],
    ],
    [
      'first contact',
      { table: ABSENT, dns: sts('id1'), settings: { firstContact: 'defer' } },
      [
        /^memory/,
        /^table/,
        /^TXT/,
        /^answer: what the functions find within 2850 ms, .*else unknown \(RELAY_FIRST_CONTACT=defer\)$/,
      ],
    ],
    [
      'a DNS that does not say',
      { table: ABSENT, dns: BROKEN },
      [
        /^memory/,
        /^table: no item$/,
        /^TXT record: cannot be told: TXT of it: SERVFAIL$/,
        /^answer: what the functions find within 2850 ms, when asked to look; else no policy, since whether it has MTA-STS cannot be told$/,
      ],
    ],
    [
      'a DNS that does not say, and mail that is to wait',
      { table: ABSENT, dns: BROKEN, settings: { firstContact: 'defer' } },
      [
        /^memory/,
        /^table/,
        /^TXT/,
        /^answer: unknown: whether it has MTA-STS cannot be told: TXT of it: SERVFAIL$/,
      ],
    ],
    [
      'a policy that has ended',
      { table: ITEMS['ended, failing before'], dns: sts('id2'), settings: { firstContact: 'async' } },
      [
        /^memory/,
        /^table: policy, .* but it ended at 2026-11-22T11:00/,
        /^table: .*failing since .*last tried .*: connect-timeout$/,
        /^TXT record: id id2$/,
        /^answer: no policy; the functions would be asked to look \(RELAY_FIRST_CONTACT=async\)$/,
      ],
    ],
    [
      'an item that cannot be used',
      { table: UNREADABLE, dns: SILENT, settings: { onUnknown: 'none' } },
      [
        /^memory/,
        /^table: an item that cannot be used/,
        /^TXT record: cannot be told/,
        /^answer: no policy \(RELAY_ON_UNKNOWN=none\): /,
      ],
    ],
    [
      'a back-off',
      { table: ITEMS.backoff, dns: sts('id2') },
      [
        /^memory/,
        /^table: back-off .*until/,
        /^table/,
        /another than the item's/,
        /^answer: no policy: the item is a back-off$/,
      ],
    ],
  ];
  for (const [what, world, lines] of rows) {
    test(what, async () => {
      const { policies, clock, looks, used, disk } = await play(world);
      const said = await clock.finish(policies.explain(EXAMPLE, PATIENT));
      assert.equal(said.length, lines.length, said.join('\n'));
      for (const [i, line] of lines.entries()) assert.match(said[i] ?? '', line);
      assert.deepEqual([looks, used, disk.saves], [[], [], 0], 'it only looks');
      await policies.close();
      assert.equal(disk.saves, 0);
    });
  }
});

const DELIVERIES = 20_000;

test('reads for a day of deliveries: for each domain one in five minutes with mail, or one in a negative lifetime', async () => {
  const { policies, clock, world, reads } = await play({ settings: { cachedDomains: 10_000 } });
  const domains = Array.from({ length: 500 }, (_, i) => domain(`d${i}.example`));
  // One in ten has MTA-STS; the others say so for an hour.
  const has = (name: string) => /0\.example$/.test(name);
  world.table = (name) => (has(name) ? item({ domain: name, validEnd: clock.now() + DAY }) : ABSENT);
  let answers = 0;
  let seed = 1;
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  const bound = new Map<string, Set<number>>();
  for (let i = 0; i < DELIVERIES; i++) {
    clock.set(NOW + Math.floor((i * DAY) / DELIVERIES));
    // A few domains get most of the mail.
    const name = domains[Math.floor(domains.length * random() ** 4)] ?? EXAMPLE;
    world.dns = has(name) ? sts('id1') : gone(3_600);
    const periods = bound.get(name) ?? new Set();
    bound.set(name, periods.add(Math.floor(clock.now() / (has(name) ? 5 * MINUTE : HOUR))));
    const found = await policies.find(name, PATIENT);
    answers += found.kind === 'policy' ? 1 : 0;
  }
  const most = [...bound.values()].reduce((sum, periods) => sum + periods.size, 0);
  assert.ok(answers > 1_000);
  assert.ok(reads.length <= most, `${reads.length} reads, where there are ${most} periods with mail`);
  await clock.finish(policies.close());
});

/** What the table says when it is asked while the clock is 400 days ahead, and whether the policy is known afterwards. */
const wrongClocks: [what: string, table: Read | 'not asked', known: boolean][] = [
  ['the same item', item(), true],
  ['the item, extended since', item({ validEnd: NOW + 8 * DAY }), true],
  [
    'the item, and that its refresh failed lately',
    item({ failing: { ...FAILING, lastAttempt: NOW + 7 * DAY } }, NOW + 400 * DAY),
    true,
  ],
  ['nothing: it is down', DOWN, true],
  ['nothing: nobody asks', 'not asked', true],
  ['an item that ended sooner', item({ validEnd: NOW - HOUR }), false],
  ['a back-off that has ended', item({ backoff: true, validEnd: NOW + 7 * DAY }), false],
  ['that there is no item', ABSENT, false],
];

for (const [what, table, known] of wrongClocks) {
  for (const restart of [false, true]) {
    test(`a clock that was 400 days ahead; the table said ${what}${restart ? ', then a restart' : ''}`, async () => {
      const { find, clock, world, disk, policies } = await play({ table: item(), dns: sts('id1') });
      await find();
      clock.set(NOW + 400 * DAY);
      world.dns = gone();
      if (table !== 'not asked') {
        world.table = table;
        assert.notEqual((await find()).kind, 'policy', 'by this clock it has ended');
      }
      // Another domain's policy has the file written anew.
      world.table = item({ domain: domain('other.example'), validEnd: clock.now() + DAY });
      await find(domain('other.example'));
      await clock.pass(2 * MINUTE);
      assert.ok(disk.saves > 0);
      let again = { find, clock, world, policies };
      if (restart) {
        await policies.close();
        again = await play({ dns: gone(), disk: disk.entries });
      } else clock.set(NOW + HOUR);
      again.world.table = DOWN;
      assert.equal((await again.find()).kind === 'policy', known);
      await again.policies.close();
    });
  }
}
describe('while the disk is still being read', () => {
  const ENTRY: Entry = {
    domain: EXAMPLE,
    policy: POLICY,
    backoff: false,
    validEnd: NOW + DAY,
    recordId: 'id1',
  };

  /** @param end how the reading of the disk ends, once it is let go on. */
  function open({ table, end = 'read' }: { table: Read; end?: Loaded }) {
    const { promise: goOn, resolve: letGoOn } = Promise.withResolvers<void>();
    const clock = virtualClock();
    const observer = recordingObserver();
    const disk = memorySnapshot([ENTRY]);
    const world = { table };
    const policies = createPolicies({
      table: { refuses: () => false, read: () => Promise.resolve(world.table) },
      requests: {
        look: () => Promise.resolve({ kind: 'failed' }),
        used: () => {},
        tend: () => Promise.resolve(),
        close: () => Promise.resolve(),
      },
      dns: fakeDns(() => gone()),
      snapshot: {
        ...disk,
        savePolicies: (entries) => disk.savePolicies(entries),
        async loadPolicies(keep, signal) {
          signal?.addEventListener('abort', () => letGoOn());
          await goOn;
          if (signal?.aborted) return 'stopped';
          await disk.loadPolicies(keep);
          return end;
        },
      },
      settings: { firstContact: 'wait', onUnknown: 'defer', cachedDomains: 1_000 },
      clock,
      observer,
    });
    return { world, clock, observer, disk, policies, letGoOn };
  }

  test('the table answers', async (t) => {
    const { policies } = open({ table: item() });
    t.after(() => policies.close());
    const found = await policies.find(EXAMPLE, PATIENT);
    assert.equal(found.kind === 'policy' && found.source, 'table');
  });

  test('a lookup that needs the disk waits for it', async (t) => {
    const { policies, letGoOn } = open({ table: DOWN });
    t.after(() => policies.close());
    let settled = false;
    const finding = policies.find(EXAMPLE, PATIENT).finally(() => {
      settled = true;
    });
    await idle();
    assert.equal(settled, false);
    letGoOn();
    const found = await finding;
    assert.equal(found.kind === 'policy' && found.source, 'disk');
  });

  test('what the table has said meanwhile goes before what the disk has', async (t) => {
    const { policies, world, letGoOn, observer } = open({ table: ABSENT });
    t.after(() => policies.close());
    assert.equal((await policies.find(EXAMPLE, PATIENT)).kind, 'no-policy');
    letGoOn();
    await idle();
    assert.equal(observer.gauges.get('policies_cached'), 0);
    world.table = DOWN;
    assert.equal((await policies.find(EXAMPLE, PATIENT)).kind, 'no-policy');
  });

  test('nothing is written over it, and the end does not wait for it', async () => {
    const { policies, clock, disk } = open({ table: item({ domain: domain('other.example') }) });
    await policies.find(domain('other.example'), PATIENT);
    await clock.pass(5 * MINUTE);
    await policies.close();
    assert.equal(disk.saves, 0);
    assert.deepEqual(disk.entries, [ENTRY]);
  });

  test('what could be read of a file that was set aside is written again', async () => {
    const { policies, disk, letGoOn } = open({ table: ABSENT, end: 'set-aside' });
    letGoOn();
    await idle();
    await policies.close();
    assert.equal(disk.saves, 1);
    assert.deepEqual(disk.entries, [ENTRY]);
  });
});
