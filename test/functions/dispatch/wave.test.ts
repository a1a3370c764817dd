import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeWave, encodeWaves, type WaveTask } from '../../../functions/dispatch/wave.ts';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import { anyText, NOON, tasks } from './tasks.ts';

const MAX_BYTES = 250_000;

/** What Lambda makes of a schedule's input, and `dispatch` of that. */
function decode(text: string) {
  const wave = decodeWave(JSON.parse(text));
  assert.ok(wave.ok);
  return wave.value;
}

const label = fc.stringMatching(/^[a-z][a-z0-9]{0,30}$/);
const anyTask: fc.Arbitrary<WaveTask> = fc.record(
  {
    domain: fc.tuple(label, label).map(([name, tld]) => `${name}.${tld}` as Domain),
    lastUpdate: fc.maxSafeNat(),
    due: fc.nat(4_000_000_000).map((seconds) => seconds * 1_000),
  },
  { noNullPrototype: true },
);

test('waves are read as they were written, whatever the run is called', () => {
  fc.assert(
    fc.property(anyText, fc.array(anyTask), (runId, given) => {
      const waves = encodeWaves(runId, given);
      assert.equal(waves.length, given.length === 0 ? 0 : 1);
      for (const text of waves) {
        assert.match(text, /^[\x20-\x7e]*$/, 'ASCII, so that its characters are its bytes');
        assert.deepEqual(decode(text), { runId, tasks: given, refused: [] });
      }
    }),
  );
});

test('a due time is written in whole seconds, never later than it was', () => {
  const [text = ''] = encodeWaves(
    'run',
    tasks(1, () => NOON + 1_999.5),
  );
  assert.deepEqual(JSON.parse(text), {
    runId: 'run',
    tasks: [['d0.example', NOON - 86_400_000, NOON / 1_000 + 1]],
  });
});

const longest = `${'a'.repeat(60)}.`.repeat(4).slice(0, 240).concat('.com') as Domain;

const sizes: [name: string, runId: string, tasks: WaveTask[]][] = [
  ['short names', 'run', tasks(20_000)],
  ['names of 244 characters', 'run', tasks(5_000).map((task) => ({ ...task, domain: longest }))],
  ['a run id of 100 characters, each of which JSON escapes', '"'.repeat(100), tasks(20_000)],
  ['a run id that is not ASCII', 'é\u{1F98A}'.repeat(50), tasks(20_000)],
];

for (const [name, runId, given] of sizes) {
  test(`${name}: in order, at most ${MAX_BYTES} bytes each, and no more waves than that needs`, () => {
    const waves = encodeWaves(runId, given);
    assert.ok(waves.length > 1);
    const bytes = waves.map((text) => Buffer.byteLength(text));
    for (const size of bytes) assert.ok(size <= MAX_BYTES, `${size} bytes`);
    // The longest entry is shorter than 300 bytes: a wave is left with less room than that.
    for (const size of bytes.slice(0, -1)) assert.ok(size > MAX_BYTES - 300, `${size} bytes`);
    const decoded = waves.map(decode);
    assert.deepEqual(
      decoded.flatMap((wave) => wave.tasks),
      given,
    );
    assert.ok(decoded.every((wave) => wave.runId === runId && wave.refused.length === 0));
  });
}

const good = ['a.example', 1, 2];

const entries: [name: string, entry: unknown, reason: RegExp][] = [
  ['no array', 'a.example', /domain should be a string/],
  ['null', null, /domain should be a string/],
  ['an object', { domain: 'a.example' }, /domain should be a string/],
  ['empty', [], /domain should be a string/],
  ['a domain that is none', ['-a.example', 1, 2], /hyphen/],
  ['a domain with a line end', ['a.example\n{}', 1, 2], /character/],
  ['no lastUpdate', ['a.example'], /lastUpdate/],
  ['lastUpdate as text', ['a.example', '1', 2], /lastUpdate/],
  ['no due time', ['a.example', 1], /due/],
  ['due as text', ['a.example', 1, '2'], /due/],
  ['due in fractions', ['a.example', 1, 2.5], /due/],
  ['due beyond all numbers', ['a.example', 1, 1e300], /due/],
];

test('entries that cannot be read are refused one by one, and the others are not', () => {
  const wave = decodeWave({ runId: 'run', tasks: [good, ...entries.map(([, entry]) => entry), good] });
  assert.ok(wave.ok);
  assert.deepEqual(
    wave.value.tasks,
    [1, 2].map(() => ({ domain: 'a.example', lastUpdate: 1, due: 2_000 })),
  );
  assert.equal(wave.value.refused.length, entries.length);
  for (const [i, [name, , reason]] of entries.entries()) {
    assert.match(wave.value.refused[i] ?? '', reason, name);
    assert.ok(wave.value.refused[i]?.startsWith(`task ${i + 1}: `), name);
  }
});

test('members and columns that a newer version may add are ignored', () => {
  const wave = decodeWave({ runId: 'run', tasks: [[...good, 'more']], more: true });
  assert.deepEqual(wave.ok && wave.value.tasks, [{ domain: 'a.example', lastUpdate: 1, due: 2_000 }]);
});

const noWaves: [name: string, event: unknown][] = [
  ['nothing', undefined],
  ['null', null],
  ['text', '{"runId":"run","tasks":[]}'],
  ['a number', 1],
  ['an array', [good]],
  ['no run id', { tasks: [good] }],
  ['a run id that is a number', { runId: 1, tasks: [good] }],
  ['no tasks', { runId: 'run' }],
  ['tasks that are an object', { runId: 'run', tasks: { 0: good } }],
  ['the event of the daily run', { kind: 'daily', runId: 'run' }],
];

for (const [name, event] of noWaves) {
  test(`no wave: ${name}`, () => {
    const wave = decodeWave(event);
    assert.match(wave.ok ? '' : wave.reason, /^not a wave: /);
  });
}

test('decodeWave never throws, and loses no entry', () => {
  const event = fc.oneof(
    fc.anything(),
    fc.record({ runId: fc.anything(), tasks: fc.anything() }),
    fc.record({ runId: fc.string(), tasks: fc.array(fc.oneof(fc.anything(), fc.array(fc.anything()))) }),
  );
  fc.assert(
    fc.property(event, (given) => {
      const wave = decodeWave(given);
      if (!wave.ok) return;
      const { tasks: entries } = given as { tasks: unknown[] };
      assert.equal(wave.value.tasks.length + wave.value.refused.length, entries.length);
    }),
    { numRuns: 1_000 },
  );
});
