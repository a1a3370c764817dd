import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import type { Entry } from '../../../infra/relay/entry.ts';
import { openSnapshot, type Snapshot } from '../../../infra/relay/snapshot.ts';
import { HANG_MS, makeFolder, type Scope } from '../../resources.ts';
import { DAY, domain, EXAMPLE, HOUR, NOW, POLICY, recordingObserver, virtualClock } from './scene.ts';

const root = await makeFolder({ after }, 'relay-snapshot');
let made = 0;

async function open({ readOnly = false, directory = join(root, String(++made)) } = {}) {
  await mkdir(directory, { recursive: true });
  const observer = recordingObserver();
  const clock = virtualClock();
  return {
    directory,
    observer,
    clock,
    policies: join(directory, 'policies.jsonl'),
    use: join(directory, 'use.jsonl'),
    snapshot: openSnapshot({ directory, readOnly, clock, observer }),
  };
}

async function load(snapshot: Snapshot): Promise<Entry[]> {
  const entries: Entry[] = [];
  await snapshot.loadPolicies((entry) => entries.push(entry));
  return entries;
}

/** How often the event loop has turned since, until the scope ends. */
function countTurns(scope: Scope): () => number {
  let turns = 0;
  const turn = () => {
    turns += 1;
    timer = setImmediate(turn);
  };
  let timer = setImmediate(turn);
  scope.after(() => clearImmediate(timer));
  return () => turns;
}
/** A program that saves hundreds of KiB, and says whether that was possible. */
const SAVE_MANY = join(import.meta.dirname, 'save-many-child.ts');

const ENTRY: Entry = {
  domain: EXAMPLE,
  policy: POLICY,
  backoff: false,
  validEnd: NOW + DAY,
  recordId: 'id1',
};
const HEADER = '{"format":"mta-sts-relay policies","version":1}';
const LINE = {
  domain: 'example.com',
  mode: 'enforce',
  mx: ['mail.example.com', '*.example.net'],
  maxAgeSeconds: 604_800,
  recordId: 'id1',
  validEnd: NOW + DAY,
};

test('what was saved is loaded, in its order', async () => {
  const { snapshot, directory, policies } = await open();
  const entries: Entry[] = [
    { ...ENTRY, domain: domain('z.example') },
    { ...ENTRY, domain: domain('xn--bcher-kva.example'), recordId: undefined },
    { ...ENTRY, policy: { mode: 'none', mx: [], maxAgeSeconds: 0 } },
    { ...ENTRY, domain: domain('testing.example'), policy: { ...POLICY, mode: 'testing' } },
  ];
  assert.equal(await snapshot.savePolicies(entries), true);
  assert.deepEqual(await load(snapshot), entries);
  assert.equal((await stat(policies)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(directory), ['policies.jsonl']);
});

test('a directory that is not there is made, for its owner alone', async () => {
  const directory = join(root, 'a', 'b');
  const observer = recordingObserver();
  const snapshot = openSnapshot({ directory, readOnly: false, clock: virtualClock(), observer });
  assert.deepEqual(await load(snapshot), []);
  assert.equal(await snapshot.savePolicies([ENTRY]), true);
  assert.equal((await stat(directory)).mode & 0o777, 0o700);
  assert.deepEqual(observer.events, []);
});

test('many entries are written and read, without a pause for lookups', async (t) => {
  const { snapshot } = await open();
  const entries = Array.from({ length: 20_000 }, (_, i) => ({ ...ENTRY, domain: domain(`d${i}.example`) }));
  const turns = countTurns(t);
  await snapshot.savePolicies(entries);
  const saving = turns();
  const loaded = await load(snapshot);
  const loading = turns() - saving;
  assert.deepEqual(loaded, entries);
  assert.ok(saving >= 20, `the event loop turned ${saving} times while saving`);
  assert.ok(loading >= 20, `and ${loading} times while loading`);
});

const lines: [what: string, line: unknown, kept: boolean][] = [
  ['as it was written', LINE, true],
  ['without a record id', { ...LINE, recordId: undefined }, true],
  ['with fields from the future', { ...LINE, later: {} }, true],
  ['of a null', null, false],
  ['of a list', [LINE], false],
  ['of a number', 1, false],
  ['without a domain', { ...LINE, domain: undefined }, false],
  ['with a domain of another type', { ...LINE, domain: { toString: 1 } }, false],
  ['with a domain in another spelling', { ...LINE, domain: 'Example.com' }, false],
  ['with a domain that is none', { ...LINE, domain: 'a b.example' }, false],
  ['with a mode that is none', { ...LINE, mode: 'Enforce' }, false],
  ['with a mode of Object.prototype', { ...LINE, mode: 'constructor' }, false],
  ['without patterns', { ...LINE, mx: [] }, false],
  ['with patterns that are a string', { ...LINE, mx: 'mail.example.com' }, false],
  ['with patterns of numbers', { ...LINE, mx: [1] }, false],
  ['with an object that looks like a list', { ...LINE, mx: { length: 1, 0: 'a.example' } }, false],
  ['with an attribute in a pattern', { ...LINE, mx: ['mail.example.com servername=evil'] }, false],
  ['with a line end in a pattern', { ...LINE, mx: ['a.example\r\nmx: b.example'] }, false],
  [
    'with more patterns than a policy can have',
    { ...LINE, mx: Array.from({ length: 9_000 }, (_, i) => `mx${i}.example`) },
    false,
  ],
  ['with a negative age', { ...LINE, maxAgeSeconds: -1 }, false],
  ['with a text for its age', { ...LINE, maxAgeSeconds: '604800' }, false],
  ['with too great an age', { ...LINE, maxAgeSeconds: 1e12 }, false],
  ['without an end', { ...LINE, validEnd: undefined }, false],
  ['with a text for its end', { ...LINE, validEnd: '9999999999999' }, false],
  ['with a record id that is a number', { ...LINE, recordId: 1 }, false],
];

describe('a line', () => {
  for (const [what, line, kept] of lines) {
    test(`${what} is ${kept ? 'used' : 'left out, and its neighbours are not'}`, async () => {
      const { snapshot, policies, observer } = await open();
      const other = { ...LINE, domain: 'other.example' };
      await writeFile(policies, [HEADER, JSON.stringify(line), JSON.stringify(other), ''].join('\n'));
      const loaded = (await load(snapshot)).map((entry) => entry.domain);
      assert.deepEqual(loaded, kept ? ['example.com', 'other.example'] : ['other.example']);
      assert.equal(observer.events.length, kept ? 0 : 1);
      if (!kept) assert.match(observer.events[0] ?? '', /^warn lines of a file .*"lines":1/);
    });
  }

  const raw: [string, string | Buffer][] = [
    ['that is no JSON', '{"domain":'],
    ['of nothing', ''],
    ['that is cut short', JSON.stringify(LINE).slice(0, -20)],
    ['that is no UTF-8', Buffer.from([0xff, 0xfe, 0x00])],
    ['of two megabytes', JSON.stringify({ ...LINE, more: 'x'.repeat(2 * 1024 * 1024) })],
    ['nested a million deep', `${'['.repeat(1_000_000)}`],
  ];
  for (const [what, line] of raw) {
    test(`${what} is left out, and its neighbours are not`, async () => {
      const { snapshot, policies, observer } = await open();
      await writeFile(
        policies,
        Buffer.concat([
          Buffer.from(`${HEADER}\n`),
          Buffer.from(line),
          Buffer.from(`\n${JSON.stringify(LINE)}`),
        ]),
      );
      assert.deepEqual(await load(snapshot), [ENTRY]);
      assert.equal(observer.events.length, 1);
    });
  }

  test('whose policy has ended is kept, as the clock may be wrong, and one from the far future ends within a year', async () => {
    const { snapshot, policies, observer } = await open();
    const ended = { ...LINE, validEnd: NOW };
    const far = { ...LINE, domain: 'far.example', validEnd: 1e300 };
    await writeFile(policies, [HEADER, JSON.stringify(ended), JSON.stringify(far)].join('\n'));
    const loaded = await load(snapshot);
    assert.deepEqual(
      loaded.map((entry) => [entry.domain, entry.validEnd]),
      [
        ['example.com', NOW],
        ['far.example', NOW + 31_557_600_000],
      ],
    );
    assert.deepEqual(observer.events, []);
  });
});

describe('a file', () => {
  const broken: [what: string, text: string | Buffer][] = [
    ['that is empty', ''],
    ['without its first line', JSON.stringify(LINE)],
    ['of something else', 'root:x:0:0:root:/root:/bin/bash\n'],
    ['of another format', '{"format":"mta-sts-relay use","version":1}\n'],
    ['of a later version', `{"format":"mta-sts-relay policies","version":2}\n${JSON.stringify(LINE)}\n`],
    ['of zeroes, as after a loss of power', Buffer.alloc(4_096)],
  ];
  for (const [what, text] of broken) {
    test(`${what} is moved aside with a warning, and replaced`, async () => {
      const { snapshot, policies, directory, observer } = await open();
      await writeFile(policies, text);
      assert.deepEqual(await load(snapshot), []);
      assert.equal(observer.events.length, 1);
      assert.match(observer.events[0] ?? '', /^warn a file of the relay cannot be read.*"kept_as"/);
      assert.deepEqual(await readdir(directory), ['policies.jsonl.broken']);
      assert.deepEqual(await readFile(join(directory, 'policies.jsonl.broken')), Buffer.from(text));
      assert.equal(await snapshot.savePolicies([ENTRY]), true);
      assert.deepEqual(await load(snapshot), [ENTRY]);
    });
  }

  test('that is not there is no matter', async () => {
    const { snapshot, observer } = await open();
    assert.deepEqual(await load(snapshot), []);
    assert.equal(await snapshot.loadUse(), undefined);
    assert.deepEqual(observer.events, []);
  });

  test('that is a directory is moved aside', async () => {
    const { snapshot, policies, observer } = await open();
    await mkdir(policies);
    assert.deepEqual(await load(snapshot), []);
    assert.equal(observer.events.length, 1);
    assert.equal(await snapshot.savePolicies([ENTRY]), true);
  });

  test('that is a pipe which nobody writes to holds nothing up', {
    skip: process.platform === 'win32',
  }, async () => {
    const { snapshot, policies, observer } = await open();
    execFileSync('/usr/bin/mkfifo', [policies]);
    assert.deepEqual(await load(snapshot), []);
    assert.equal(observer.events.length, 1);
  });

  test('that has no end is not read', { skip: process.platform !== 'linux' }, async () => {
    const { snapshot, policies, observer } = await open();
    await symlink('/dev/zero', policies);
    assert.deepEqual(await load(snapshot), []);
    assert.equal(observer.events.length, 1);
  });

  test('that is large is handed over while it is read', async (t) => {
    const { snapshot, policies } = await open();
    await writeFile(policies, `${HEADER}\n${`${JSON.stringify(LINE)}\n`.repeat(10_000)}`);
    const turns = countTurns(t);
    const seenAt = new Set<number>();
    await snapshot.loadPolicies(() => {
      seenAt.add(turns());
    });
    assert.ok(seenAt.size > 1, 'not all at once');
  });

  test('of more use than a relay notes is not read', async () => {
    const { snapshot, use, observer } = await open();
    await writeFile(use, '');
    await truncate(use, 32 * 1024 * 1024 + 1);
    assert.equal(await snapshot.loadUse(), undefined);
    assert.match(observer.events[0] ?? '', /it has more than 33554432 bytes/);
  });

  test('that was left unfinished is neither read nor in the way', async () => {
    const { snapshot, policies, directory } = await open();
    await writeFile(`${policies}.new`, 'half', { mode: 0o644 });
    assert.deepEqual(await load(snapshot), []);
    assert.equal(await snapshot.savePolicies([ENTRY]), true);
    assert.deepEqual(await readdir(directory), ['policies.jsonl']);
    assert.equal((await stat(policies)).mode & 0o777, 0o600);
  });

  test('is replaced as a whole: whoever reads meanwhile reads the old one or the new one', async (t) => {
    const { snapshot, policies } = await open();
    const all = (count: number) =>
      Array.from({ length: count }, (_, i) => ({ ...ENTRY, domain: domain(`d${i}.example`) }));
    await snapshot.savePolicies(all(3_000));
    let saving = true;
    const writing = (async () => {
      try {
        for (let i = 1; i <= 10; i++) await snapshot.savePolicies(all(3_000 + i));
      } finally {
        saving = false;
      }
    })();
    // Also when reading fails, or it would write into a folder that is being removed.
    t.after(() => writing);
    while (saving) {
      const text = await readFile(policies, 'utf8');
      const count = text.split('\n').length - 2;
      assert.ok(count >= 3_000 && text.endsWith('}\n'), `${count} entries`);
    }
    await writing;
  });

  test('that cannot be written is said once, and once that it can be again', async () => {
    const { snapshot, directory, observer, policies } = await open();
    await snapshot.savePolicies([ENTRY]);
    // A directory in the place of the file that would be written: also for root, who may write anywhere.
    await mkdir(join(`${policies}.new`, 'full'), { recursive: true });
    const other = { ...ENTRY, domain: domain('other.example') };
    for (let i = 0; i < 5; i++) assert.equal(await snapshot.savePolicies([other]), false);
    assert.equal(observer.events.length, 1);
    assert.match(observer.events[0] ?? '', /^warn a file of the relay cannot be written/);
    assert.equal(observer.counts.get('snapshots{failed}'), 5);
    assert.deepEqual(await load(snapshot), [ENTRY], 'what was there is still there');
    await rm(`${policies}.new`, { recursive: true });
    assert.equal(await snapshot.savePolicies([other]), true);
    assert.match(observer.events[1] ?? '', /^info .*can be written again/);
    assert.deepEqual(await readdir(directory), ['policies.jsonl']);
  });

  test('on a full disk is left as it was', { skip: process.platform === 'win32' }, async () => {
    const { snapshot, directory } = await open();
    await snapshot.savePolicies([ENTRY]);
    // A limit on the length of files ends a write in the middle, as a full disk does.
    const { stdout } = spawnSync(
      '/bin/sh',
      ['-c', 'ulimit -f 8 && exec "$0" "$@"', process.execPath, SAVE_MANY, directory],
      { encoding: 'utf8', timeout: HANG_MS },
    );
    assert.match(stdout, /^false \[.*EFBIG/);
    assert.deepEqual(await readdir(directory), ['policies.jsonl']);
    assert.deepEqual(await load(snapshot), [ENTRY]);
  });

  test('is not touched by a process that only reads', async () => {
    const { directory, policies, use } = await open();
    await writeFile(policies, 'broken');
    await writeFile(use, 'broken');
    const { snapshot, observer } = await open({ readOnly: true, directory });
    assert.deepEqual(await load(snapshot), []);
    assert.equal(await snapshot.loadUse(), undefined);
    assert.equal(await snapshot.savePolicies([ENTRY]), true);
    assert.equal(await snapshot.saveUse({ domains: new Set(), reportedAt: 0, timeOfDay: 0 }), true);
    assert.deepEqual(await readdir(directory), ['policies.jsonl', 'use.jsonl']);
    assert.equal(await readFile(policies, 'utf8'), 'broken');
    assert.equal(observer.events.length, 2);
  });
});

describe('use', () => {
  test('that was saved is loaded', async () => {
    const { snapshot } = await open();
    const use = {
      domains: new Set([EXAMPLE, domain('other.example')]),
      reportedAt: NOW - HOUR,
      timeOfDay: 12_345,
    };
    assert.equal(await snapshot.saveUse(use), true);
    assert.deepEqual(await snapshot.loadUse(), use);
  });

  const headers: [what: string, header: object, loaded: boolean][] = [
    ['as it was written', { reportedAt: NOW, timeOfDay: 0 }, true],
    ['without its times', {}, false],
    ['with a time of day that is none', { reportedAt: NOW, timeOfDay: DAY }, false],
    ['with a negative time of day', { reportedAt: NOW, timeOfDay: -1 }, false],
    ['with texts for times', { reportedAt: '0', timeOfDay: '0' }, false],
    ['with an infinite time', { reportedAt: null, timeOfDay: 0 }, false],
  ];
  for (const [what, header, loaded] of headers) {
    test(`${what} is ${loaded ? 'loaded' : 'left'}`, async () => {
      const { snapshot, use } = await open();
      const first = JSON.stringify({ format: 'mta-sts-relay use', version: 1, ...header });
      await writeFile(use, [first, '"example.com"', '1', '"not a domain"', '{}', ''].join('\n'));
      const read = await snapshot.loadUse();
      assert.deepEqual(read && [...read.domains], loaded ? [EXAMPLE] : undefined);
    });
  }
});

test('whatever is in the files, what is loaded can be used, and nothing throws', async () => {
  const { snapshot, policies, use } = await open();
  const value = fc.oneof(
    fc.jsonValue(),
    fc.constantFrom('example.com', 'enforce', ['mail.example.com'], 604_800, NOW + DAY, 'id1'),
  );
  const entry = fc.record(
    Object.fromEntries(
      Object.keys(LINE).map((key) => [key, fc.oneof(value, fc.constant(LINE[key as keyof typeof LINE]))]),
    ),
    { requiredKeys: [] },
  );
  const text = fc.oneof(
    fc
      .array(fc.oneof(entry, value).map((json) => JSON.stringify(json)))
      .map((rest) => [HEADER, ...rest].join('\n')),
    fc.string({ unit: 'binary' }),
  );
  await fc.assert(
    fc.asyncProperty(text, async (content) => {
      await writeFile(policies, content);
      await writeFile(use, content.replace('policies', 'use'));
      for (const { domain: name, policy, backoff } of await load(snapshot)) {
        assert.equal(domain(name), name);
        assert.ok(!backoff);
        assert.ok(policy.mx.every((pattern) => /^[a-z0-9.*-]+$/.test(pattern)));
        assert.ok(policy.mx.length > 0 || policy.mode === 'none');
      }
      await snapshot.loadUse();
    }),
    { numRuns: 300 },
  );
});

describe('a hostile file', () => {
  const BAD = 1_000;

  for (const [bad, kept] of [
    [BAD, true],
    [BAD + 1, false],
  ] as const) {
    test(`with ${bad} bad lines is ${kept ? 'read to its end' : 'given up, and what came before is used'}`, async () => {
      const { snapshot, policies, directory, observer } = await open();
      const last = { ...LINE, domain: 'last.example' };
      await writeFile(
        policies,
        [HEADER, JSON.stringify(LINE), ...Array(bad).fill('{}'), JSON.stringify(last), ''].join('\n'),
      );
      const domains: string[] = [];
      const end = await snapshot.loadPolicies((entry) => domains.push(entry.domain));
      assert.equal(end, kept ? 'read' : 'set-aside');
      assert.deepEqual(domains, kept ? ['example.com', 'last.example'] : ['example.com']);
      assert.equal(observer.events.length, 1);
      assert.match(
        observer.events[0] ?? '',
        kept ? /"lines":1000/ : /more than 1000 of its lines cannot be used; the first: .*"kept_as"/,
      );
      assert.deepEqual(await readdir(directory), [kept ? 'policies.jsonl' : 'policies.jsonl.broken']);
    });
  }

  test('of four million line ends, of policies or of use, is given up at once', async () => {
    const { snapshot, policies, use, directory, observer } = await open();
    const nothing = Buffer.alloc(4 * 1024 * 1024, '\n');
    await writeFile(policies, Buffer.concat([Buffer.from(`${HEADER}\n`), nothing]));
    const head = JSON.stringify({ format: 'mta-sts-relay use', version: 1, reportedAt: NOW, timeOfDay: 5 });
    await writeFile(use, Buffer.concat([Buffer.from(`${head}\n"example.com"\n`), nothing]));
    assert.deepEqual(await load(snapshot), []);
    assert.deepEqual(await snapshot.loadUse(), {
      domains: new Set([EXAMPLE]),
      reportedAt: NOW,
      timeOfDay: 5,
    });
    assert.equal(observer.events.length, 2);
    for (const event of observer.events) assert.match(event, /more than 1000 of its lines cannot be used/);
    assert.deepEqual(await readdir(directory), ['policies.jsonl.broken', 'use.jsonl.broken']);
  });

  test('of more use than a relay notes is read so far', async () => {
    const { snapshot, use, observer } = await open();
    const head = JSON.stringify({ format: 'mta-sts-relay use', version: 1, reportedAt: NOW, timeOfDay: 5 });
    await writeFile(use, `${head}\n${'"example.com"\n'.repeat(100_001)}`);
    assert.deepEqual([...((await snapshot.loadUse())?.domains ?? [])], [EXAMPLE]);
    assert.match(observer.events[0] ?? '', /it has more than 100001 lines/);
  });

  test('is left as soon as the relay is to stop', async () => {
    const { snapshot, policies, directory, observer } = await open();
    const LINES = 20_000;
    await writeFile(policies, `${HEADER}\n${`${JSON.stringify(LINE)}\n`.repeat(LINES)}`);
    const stopping = new AbortController();
    let seen = 0;
    const end = await snapshot.loadPolicies(() => {
      seen += 1;
      stopping.abort();
    }, stopping.signal);
    assert.equal(end, 'stopped');
    assert.ok(seen > 0 && seen < LINES / 10, `${seen} lines were read`);
    assert.deepEqual(observer.events, []);
    assert.deepEqual(await readdir(directory), ['policies.jsonl'], 'nothing is wrong with it');
  });

  test('has lines that begin in one slice and end in another', async () => {
    const { snapshot, policies } = await open();
    const lines = Array.from({ length: 3_000 }, (_, i) => ({
      ...LINE,
      domain: `d${i}.example`,
      note: '\u00FC'.repeat(i % 97),
    }));
    // A good one as long as a line may be, and one that is longer.
    const long = { ...LINE, domain: 'long.example', note: '' };
    const room = 64 * 1024 - JSON.stringify(long).length;
    const fits = { ...long, note: 'x'.repeat(room) };
    const tooLong = { ...long, domain: 'lost.example', note: 'x'.repeat(room + 1) };
    await writeFile(
      policies,
      [HEADER, ...[...lines, fits, tooLong, LINE].map((line) => JSON.stringify(line))].join('\n'),
    );
    assert.deepEqual(
      (await load(snapshot)).map((entry) => entry.domain),
      [...lines.map((line) => line.domain), 'long.example', 'example.com'],
    );
  });
});

describe('in the place of the unfinished file', () => {
  const PRECIOUS = 'precious';

  for (const [what, put] of [
    ['a link to a file', (target: string, path: string) => symlink(target, path)],
    ['another name of a file', (target: string, path: string) => link(target, path)],
  ] as const) {
    test(`${what} is taken away, and the file is left as it is`, async () => {
      const { snapshot, directory, policies, use, observer } = await open();
      const { directory: elsewhere } = await open();
      const target = join(elsewhere, 'target');
      await writeFile(target, PRECIOUS, { mode: 0o644 });
      for (const file of [policies, use]) await put(target, `${file}.new`);
      assert.equal(await snapshot.savePolicies([ENTRY]), true);
      assert.equal(
        await snapshot.saveUse({ domains: new Set([EXAMPLE]), reportedAt: NOW, timeOfDay: 0 }),
        true,
      );
      assert.equal(await readFile(target, 'utf8'), PRECIOUS);
      assert.equal((await stat(target)).mode & 0o777, 0o644);
      assert.deepEqual(await readdir(directory), ['policies.jsonl', 'use.jsonl']);
      assert.ok((await lstat(policies)).isFile());
      assert.equal((await stat(policies)).mode & 0o777, 0o600);
      assert.deepEqual(await load(snapshot), [ENTRY]);
      assert.deepEqual(observer.events, []);
    });
  }

  test('a link to a file that is not there makes none', async () => {
    const { snapshot, directory, policies } = await open();
    const target = join(directory, 'target');
    await symlink(target, `${policies}.new`);
    assert.equal(await snapshot.savePolicies([ENTRY]), true);
    assert.deepEqual(await readdir(directory), ['policies.jsonl']);
  });
});
