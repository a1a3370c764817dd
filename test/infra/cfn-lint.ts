// AWS's own linter on the packaged template. It needs Python, which a user's machine need not have, and PyPI: so it is
// no part of `npm test`. Run with `npm run lint:template`.

import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { obtainVirtualEnvironment, Unavailable } from '../deploy/virtual-environment.ts';
import { packageService, removePackages } from './packaging.ts';

const IGNORED = [
  // A dependency that a reference implies already: osls writes them.
  'W3005',
];

const LINT_MS = 300_000;

try {
  const python = await obtainVirtualEnvironment('cfn-lint', join(import.meta.dirname, 'requirements.txt'));
  const { folder } = await packageService();
  const template = join(folder, 'cloudformation-template-update-stack.json');
  const options = ['--template', template, '--ignore-checks', ...IGNORED];
  const linter = join(dirname(python), 'cfn-lint');
  const { status } = spawnSync(linter, options, { stdio: 'inherit', timeout: LINT_MS });
  if (status === 0) console.log('cfn-lint finds nothing to mend in the packaged template.');
  else process.exitCode = 1;
} catch (error) {
  if (!(error instanceof Unavailable)) throw error;
  console.error(`The template was not linted. ${error.message}`);
  process.exitCode = 1;
} finally {
  await removePackages();
}
