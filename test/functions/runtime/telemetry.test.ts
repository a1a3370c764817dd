import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Domain } from '../../../functions/mtasts/domain.ts';
import { type Failure, failure, quote } from '../../../functions/mtasts/failure.ts';
import type { Outcome } from '../../../functions/refresh/outcome.ts';
import { METRIC_NAMES } from '../../../functions/runtime/telemetry.ts';
import { NOON } from '../dispatch/tasks.ts';
import type { Call } from './telemetry-child.ts';
import { type Line, MAX_LINE_BYTES, UNSAFE, written } from './written.ts';

const EXAMPLE = 'example.com' as Domain;
const expired = failure('certificate-expired', 'The certificate ended on 2026-01-01.');
const timeout = failure('dns-timeout', 'No answer.');

function kept(mode: 'enforce' | 'testing' | 'none', lookupFailure?: Failure): Outcome {
  return { kind: 'kept', mode, failure: expired, lookupFailure, validEnd: NOON + 60_000, since: NOON };
}

/** One of each kind that says nothing is wrong, or nothing that a sender must know. */
const quiet: Outcome[] = [
  { kind: 'extended' },
  { kind: 'replaced', lookupFailure: undefined },
  { kind: 'removed' },
  kept('none', timeout),
  { kind: 'conflict' },
  { kind: 'skipped', reason: 'newer' },
  { kind: 'skipped', reason: 'discovery-limit' },
  { kind: 'postponed' },
  { kind: 'discovered' },
  { kind: 'not-implemented', failure: failure('record-absent', 'There is none.') },
];

const loud: [name: string, outcome: Outcome, line: Line][] = [
  [
    'a policy in enforce that could not be refreshed',
    kept('enforce'),
    {
      message: 'refresh failed, policy kept',
      code: 'certificate-expired',
      result_type: 'sts-webpki-invalid',
      detail: expired.detail,
      mode: 'enforce',
      valid_until: '2026-11-22T12:01:00.000Z',
      failing_since: '2026-11-22T12:00:00.000Z',
    },
  ],
  [
    'a policy in testing, whose record could not be had either',
    kept('testing', timeout),
    {
      message: 'refresh failed, policy kept',
      code: 'certificate-expired',
      lookup_failure: 'dns-timeout',
      mode: 'testing',
    },
  ],
  [
    'a policy fetched without its record',
    { kind: 'replaced', lookupFailure: timeout },
    {
      message: 'no usable record, policy fetched all the same',
      code: 'dns-timeout',
      result_type: 'sts-policy-fetch-error',
      detail: timeout.detail,
    },
  ],
  [
    'a policy that was never fetched',
    { kind: 'backed-off', failure: expired },
    { message: 'policy cannot be fetched, backing off', code: 'certificate-expired', detail: expired.detail },
  ],
];

test('one warning line for a domain that failed, none for one that did not or whose policy is none', async (t) => {
  const outcomes = [...loud.map(([, outcome]) => outcome), ...quiet];
  const lines = await written(...outcomes.map((outcome): Call => ['outcome', EXAMPLE, outcome, 12.3]));
  assert.equal(lines.length, loud.length);
  for (const [i, [name, , expected]] of loud.entries()) {
    await t.test(name, () => {
      assert.partialDeepStrictEqual(lines[i] ?? {}, {
        level: 'WARN',
        domain: 'example.com',
        duration_ms: 12,
        ...expected,
      });
    });
  }
});

test('what was counted is one blob of metrics with the service as its one dimension, and no domain', async () => {
  const outcomes = [...quiet, ...loud.map(([, outcome]) => outcome), quiet[0] ?? assert.fail()];
  const lines = await written(
    ...outcomes.map((outcome): Call => ['outcome', EXAMPLE, outcome, 12.3]),
    ['count', 'Planned', 7],
    ['count', 'Planned', 5],
    ['count', 'Pruned', 0],
    ['count', 'Renewals', 4],
    ['gauge', 'Stored', 100],
    ['gauge', 'Stored', 90],
    ['gauge', 'Lapsed', 3],
    ['gauge', 'Expiring', 2],
    ['gauge', 'FailingSafe', 1],
    ['gauge', 'Failing', 0],
    ['refused', 'message-1', 'not JSON'],
    ['unreadable', 'BROKEN', 'the key should be broken'],
    ['flush'],
  );
  const [blob = {}, ...others] = lines.filter((line) => '_aws' in line);
  assert.deepEqual(others, []);
  const { _aws, ...members } = blob as { _aws: { CloudWatchMetrics: Line[] } };
  const counts = {
    Extended: 2,
    Replaced: 2,
    Kept: 3,
    Skipped: 5,
    Discovered: 1,
    BackedOff: 1,
    Planned: 12,
    Renewals: 4,
    Pruned: 1,
    Stored: 90,
    Lapsed: 3,
    Expiring: 2,
    FailingSafe: 1,
    Failing: 0,
    Refused: 2,
  };
  assert.deepEqual(members, { service: 'mta-sts-refresher', ...counts });
  const metrics = Object.keys(counts).map((Name) => ({ Name, Unit: 'Count' }));
  const [directive = {}, ...more] = _aws.CloudWatchMetrics;
  assert.deepEqual(more, []);
  assert.equal(directive.Namespace, 'mta-sts-refresher');
  assert.deepEqual(directive.Dimensions, [['service']]);
  const sorted = (list: unknown) =>
    (list as { Name: string }[]).toSorted((a, b) => (a.Name < b.Name ? -1 : 1));
  assert.deepEqual(sorted(directive.Metrics), sorted(metrics));
  // Every outcome and every counter is above: there are no other metrics.
  assert.deepEqual([...METRIC_NAMES].sort(), Object.keys(counts).sort());
});

test('there are at most 15 metrics, and all differ', () => {
  assert.ok(METRIC_NAMES.length <= 15);
  assert.equal(new Set(METRIC_NAMES).size, METRIC_NAMES.length);
});

test('nothing is emitted when nothing was counted, and a flush starts anew', async () => {
  assert.deepEqual(await written(['flush']), []);
  const lines = await written(
    ['count', 'Planned', 3],
    ['flush'],
    ['flush'],
    ['count', 'Pruned', 2],
    ['flush'],
  );
  assert.equal(lines.length, 2);
  assert.equal(lines[0]?.Planned, 3);
  assert.equal(lines[1]?.Pruned, 2);
  assert.ok(!('Planned' in (lines[1] ?? {})));
});

const FORGED = '{"level":"ERROR","message":"forged"}';
const ATTACK = `x"}\n${FORGED}\r\n\u2028${FORGED}\u0000\u001b[2J\u009b31m\u202e`;
/** The most bytes that a character of a detail can take: three in UTF-8, and no escape is longer. */
const LONGEST = '\u{FFFD}'.repeat(100_000);
const ESCAPED = '"'.repeat(100_000);
const LONGEST_DOMAIN = `${'a'.repeat(60)}.`.repeat(4).slice(0, 240).concat('.com') as Domain;

const longestFailure = (text: string) =>
  failure('certificate-name-mismatch', `${text} ${quote(text)}`, new Error(text));
const hostile: [what: string, call: (text: string) => Call][] = [
  [
    'a policy that was kept',
    (text) => {
      const [why, lookup] = [longestFailure(text), longestFailure(text)];
      const times = { validEnd: NOON, since: NOON };
      const outcome: Outcome = {
        kind: 'kept',
        mode: 'testing',
        failure: why,
        lookupFailure: lookup,
        ...times,
      };
      return ['outcome', LONGEST_DOMAIN, outcome, 60_000];
    },
  ],
  [
    'a policy without its record',
    (text) => ['outcome', LONGEST_DOMAIN, { kind: 'replaced', lookupFailure: longestFailure(text) }, 60_000],
  ],
  [
    'a back-off',
    (text) => ['outcome', LONGEST_DOMAIN, { kind: 'backed-off', failure: longestFailure(text) }, 60_000],
  ],
  ['a message', (text) => ['refused', text, text]],
  ['an item', (text) => ['unreadable', text, text]],
];
for (const [what, call] of hostile) {
  test(`${what} has one line of at most ${MAX_LINE_BYTES} bytes, whatever is in it, and none of its text can obey or forge`, async () => {
    for (const text of [LONGEST, ESCAPED, ATTACK, ATTACK.repeat(1_000)]) {
      const lines = await written(call(text));
      assert.equal(lines.length, 1);
      const [line = {}] = lines;
      assert.ok(
        Buffer.byteLength(JSON.stringify(line)) <= MAX_LINE_BYTES,
        JSON.stringify(line).slice(0, 200),
      );
      assert.notEqual(line.message, 'forged');
      for (const value of Object.values(line)) assert.doesNotMatch(String(value), UNSAFE);
    }
  });
}

test('a fault stays within its line, whatever its text', async () => {
  const lines = await written(['error', 'domain failed', new Error(ATTACK), { domain: ATTACK }]);
  assert.equal(lines.length, 1);
  assert.equal(lines[0]?.message, 'domain failed');
});

test('of what cannot be read in one invocation, twenty have a line, the rest a count, and all are counted', async () => {
  const flood = Array.from(
    { length: 50_000 },
    (_, i): Call =>
      i % 2 === 0 ? ['unreadable', `d${i}.example`, 'Mode is not'] : ['refused', `message-${i}`, 'not JSON'],
  );
  const lines = await written(...flood, ['flush'], ['refused', 'of the next', 'not JSON'], ['flush']);
  const errors = lines.filter(({ level }) => level === 'ERROR');
  assert.equal(errors.length, 22);
  assert.partialDeepStrictEqual(errors.slice(20), [
    { message: 'more messages or items cannot be read', more: 49_980 },
    { message: 'message refused', message_id: 'of the next' },
  ]);
  assert.deepEqual(
    lines.flatMap(({ Refused }) => Refused ?? []),
    [50_000, 1],
  );
});

test('a warning is a line with its details', async () => {
  const [line = {}] = await written(['warn', 'raise it', { registrable_domain: 'a.example', limit: 3 }]);
  assert.partialDeepStrictEqual(line, {
    level: 'WARN',
    message: 'raise it',
    registrable_domain: 'a.example',
  });
});

test('what cannot be read is an error line that names the message or the item', async () => {
  const lines = await written(['refused', 'message-1', 'not JSON'], ['unreadable', 'BROKEN', 'no domain']);
  assert.partialDeepStrictEqual(lines, [
    { level: 'ERROR', message: 'message refused', message_id: 'message-1', reason: 'not JSON' },
    { level: 'ERROR', message: 'item cannot be read', domain: 'BROKEN', reason: 'no domain' },
  ]);
});

test('a fault is an error line with its stack and its cause, whatever was thrown', async () => {
  const fault = new TypeError('broken', { cause: new Error('the reason') });
  const [first = {}, second] = await written(
    ['error', 'domain failed', fault, { domain: 'example.com' }],
    ['error', 'batch failed', 'just text'],
  );
  assert.partialDeepStrictEqual(first, {
    level: 'ERROR',
    message: 'domain failed',
    domain: 'example.com',
    error: { name: 'TypeError', message: 'broken', cause: { message: 'the reason' } },
  });
  assert.match(String((first.error as Line).stack), /TypeError: broken\n\s+at /);
  assert.partialDeepStrictEqual(second, { level: 'ERROR', error: { name: 'Error', message: 'just text' } });
});

test('an information is a line with its details', async () => {
  const [line = {}] = await written([
    'info',
    'plan completed',
    { run_id: 'run', planned: 3, pruned: undefined },
  ]);
  assert.partialDeepStrictEqual(line, {
    level: 'INFO',
    message: 'plan completed',
    run_id: 'run',
    planned: 3,
  });
});

test('a write that is refused although nobody has written is a warning, an ordinary conflict is none', async () => {
  const lines = await written(
    ['outcome', EXAMPLE, { kind: 'conflict', unmoved: true }, 12.3],
    ['outcome', EXAMPLE, { kind: 'conflict' }, 12.3],
  );
  assert.equal(lines.length, 1);
  assert.partialDeepStrictEqual(lines[0] ?? {}, { level: 'WARN', domain: 'example.com', duration_ms: 12 });
  assert.match(String(lines[0]?.message), /^write refused although .* LastUpdate$/);
});
