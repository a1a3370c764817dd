// The command line of the soak; the soak itself takes minutes, and has a command of its own.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';

function soak(...args: string[]) {
  const file = join(import.meta.dirname, 'soak.ts');
  const { status, stdout, stderr } = spawnSync(process.execPath, [file, ...args], { encoding: 'utf8' });
  return { status, stdout, stderr };
}

test('it says what it does', () => {
  const { status, stdout } = soak('--help');
  assert.equal(status, 0);
  for (const option of ['--days', '--domains', '--seed', 'Exit status']) assert.ok(stdout.includes(option));
});

const wrong: readonly (readonly [args: string[], message: RegExp])[] = [
  [['--days', '0'], /--days is "0": it should be a whole number from 1 to 1000/],
  [['--domains', 'many'], /--domains is "many": it should be a whole number from 20 to 5000/],
  [['--seed', '-1'], /--seed/],
  [['--seed', '1.5'], /--seed is "1.5": it should be a whole number from 0 to \d+/],
  [['--weeks', '2'], /--weeks/],
  [['tomorrow'], /tomorrow/],
];

for (const [args, message] of wrong) {
  test(`${args.join(' ')} is refused`, () => {
    const { status, stdout, stderr } = soak(...args);
    assert.equal(status, 2);
    assert.match(stderr, message);
    assert.match(stderr, /npm run soak -- --help/);
    assert.equal(stdout, '');
  });
}
