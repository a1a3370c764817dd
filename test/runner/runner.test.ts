// The runner ends, whatever the files that it runs do, and says which it was, in which test, and what it left open.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { describe, type TestContext, test } from 'node:test';
import { killAfter } from '../resources.ts';

const FOLDER = import.meta.dirname;
const fixture = (name: string) => join(FOLDER, 'fixtures', `${name}.ts`);

async function start(t: TestContext, program: string, options: string[]) {
  const env = { ...process.env };
  // Node's runner does nothing in a process that it thinks to be one of its own.
  delete env.NODE_TEST_CONTEXT;
  const child = killAfter(t, spawn(process.execPath, [join(FOLDER, program), ...options], { env }));
  const [out, err, status] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise((resolve) => child.once('exit', resolve)),
  ]);
  return { output: out + err, status };
}

const runFixtures = (t: TestContext, names: string[], ...limits: string[]) =>
  start(t, 'main.ts', [...names.map(fixture), ...limits]);

describe('the runner', { concurrency: true }, () => {
  test('a file that passes is one line, with what it said', async (t) => {
    const { output, status } = await runFixtures(t, ['passes']);
    assert.equal(status, 0, output);
    assert.match(
      output,
      /^✔ \S*passes\.ts {2}1 passed, [\d.]+ s\n {4}a word on it\n\n1 files? in \d+ s\n1 passed, 0 failed, 0 skipped\n$/,
    );
  });

  test('a failure is told in full, and its process ends by itself when everything is released', async (t) => {
    const { output, status } = await runFixtures(t, ['closes-when-failing']);
    assert.equal(status, 1, output);
    assert.match(output, /a planted failure/);
    assert.match(output, /0 passed, 1 failed, 0 skipped\n$/);
    assert.doesNotMatch(output, /LEFT OPEN|ended from outside/);
  });

  test('a process that stays after its last test is a failure that names what keeps it and where it was made', async (t) => {
    const { output, status } = await runFixtures(t, ['leak', 'passes'], '--grace', '1');
    assert.equal(status, 1, output);
    assert.match(
      output,
      /LEFT OPEN 1 s after the last test of \S*leak\.ts:\n {2}TCP server 127\.0\.0\.1:\d+, made\n {6}at \w*\.?makeServer \(\S*fixtures\/leak\.ts:7:/,
    );
    assert.match(output, /✔ \S*passes\.ts/, 'the others are run');
    assert.match(output, /Failed:\n {2}\S*leak\.ts\n2 passed, 1 failed, 0 skipped\n$/);
  });

  test('an endless loop is ended from outside, and named', async (t) => {
    const { output, status } = await runFixtures(t, ['endless-loop', 'passes'], '--file-limit', '8');
    assert.equal(status, 1, output);
    assert.match(
      output,
      /✖ \S*endless-loop\.ts .*\n {2}ended from outside in "never ends": a file may take 8 s\n/,
    );
    assert.match(output, /✔ \S*passes\.ts/, 'the others are run');
  });

  test('a test that waits for ever is a failure, and those after it are run', async (t) => {
    const { output, status } = await runFixtures(t, ['never-settles'], '--test-limit', '1', '--grace', '1');
    assert.equal(status, 1, output);
    assert.match(output, /test timed out after 1000ms/);
    assert.match(output, /✔ is not held back/);
    assert.match(output, /timer of 3600000 ms, made\n.*never-settles\.ts:5/);
  });

  test('a run that takes too long ends, with the names of what was under way and of what was not run', async (t) => {
    const limits = ['--run-limit', '5', '--concurrency', '1'];
    const { output, status } = await runFixtures(t, ['endless-loop', 'passes'], ...limits);
    assert.equal(status, 1, output);
    assert.match(output, /✖ \S*endless-loop\.ts .*\n {2}ended from outside/);
    assert.match(output, /✖ \S*passes\.ts: not run, since the run took longer than 5 s\n/);
  });

  for (const [name, options, message] of [
    ['an unknown option', ['--fast'], /Unknown option '--fast'/],
    ['a limit that is no number', ['--run-limit', 'long'], /--run-limit is a number above 0, not long/],
    ['a file that is not there', ['no/such.test.ts'], /no\/such\.test\.ts: no such file or folder/],
    ['a folder without tests', [join(FOLDER, 'fixtures')], /no \*\.test\.ts below it/],
  ] as const) {
    test(`${name} is an error that says what to do`, async (t) => {
      const { output, status } = await start(t, 'main.ts', [...options]);
      assert.equal(status, 2, output);
      assert.match(output, message);
      assert.match(output, /npm test -- --help/);
    });
  }

  test('the injection finds what is left open only when an assertion fails', async (t) => {
    const { output, status } = await start(t, 'leaks.ts', [
      '--grace',
      '1',
      fixture('leaks-when-failing'),
      fixture('closes-when-failing'),
    ]);
    assert.equal(status, 1, output);
    assert.match(
      output,
      /✖ \S*leaks-when-failing\.ts: assertion 1 of each test\nLEFT OPEN .*\n {2}TCP server/,
    );
    assert.match(output, /2 places made to fail/);
    assert.match(output, /3 passed, 1 failed\n$/);
  });
});
