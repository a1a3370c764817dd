// AWS's own linter on the packaged template. It needs Python, which a user's machine need not have, and PyPI: so it is
// no part of `npm test`. Run with `npm run lint:template`.

import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageService, removePackages } from './packaging.ts';

const VERSION = '1.58.0';
const VENV = join(import.meta.dirname, '../../node_modules/.cache', `cfn-lint-${VERSION}`);
const BIN = join(VENV, process.platform === 'win32' ? 'Scripts' : 'bin');

const IGNORED = [
  // A dependency that a reference implies already: osls writes them.
  'W3005',
];

function run(command: string, ...args: string[]): boolean {
  return spawnSync(command, args, { stdio: 'inherit', timeout: 300_000 }).status === 0;
}

function fail(message: string): never {
  console.error(message);
  process.exit(1);
}

if (!existsSync(join(BIN, 'complete'))) {
  const python = ['python3', 'python'].find((name) => spawnSync(name, ['--version']).status === 0);
  if (python === undefined)
    fail('Linting the template needs Python 3.10 or newer: there is no python3 here.');
  if (!run(python, '-m', 'venv', '--clear', VENV)) {
    fail('Python cannot make a virtual environment (on Debian and Ubuntu: apt-get install python3-venv).');
  }
  // Wheels only: no package's installation runs code.
  const options = ['--only-binary=:all:', '--no-input', '--disable-pip-version-check', '--quiet'];
  if (!run(join(BIN, 'pip'), 'install', ...options, `cfn-lint==${VERSION}`)) {
    fail(
      `cfn-lint ${VERSION} could not be installed: pip needs PyPI, or a mirror of it that it has been told of.`,
    );
  }
  // Last: what was interrupted is made anew.
  writeFileSync(join(BIN, 'complete'), '');
}

const { folder } = await packageService();
const template = join(folder, 'cloudformation-template-update-stack.json');
const clean = run(join(BIN, 'cfn-lint'), '--template', template, '--ignore-checks', ...IGNORED);
await removePackages();
if (!clean) process.exit(1);
console.log(`cfn-lint ${VERSION} finds nothing to mend in the packaged template.`);
