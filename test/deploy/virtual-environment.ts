// Python programs that checks need, each in a virtual environment of its own below node_modules.

import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { run } from './child.ts';

const CACHE = join(import.meta.dirname, '../../node_modules/.cache');

const PYTHON_MS = 60_000;
const INSTALL_MS = 240_000;

/** The last lines of what a program said say why it failed. */
const MAX_LINES = 3;

/** What the one who runs this can do something about; shown without a stack. */
export class Unavailable extends Error {}

/**
 * @param requirements a file as pip reads it, with every version.
 * @returns the Python of the environment, which is made the first time.
 */
export async function obtainVirtualEnvironment(name: string, requirements: string): Promise<string> {
  if (process.platform === 'win32') throw new Unavailable('It runs on Linux and macOS.');
  const folder = join(CACHE, name);
  const python = join(folder, 'bin/python');
  const complete = join(folder, 'complete');
  const wanted = await readFile(requirements, 'utf8');
  // Written last: with it, and with the same words, everything is there.
  if ((await readFile(complete, 'utf8').catch(() => '')) === wanted) return python;

  await attempt(
    'Python 3.10 or newer is missing: there should be a python3.',
    ['python3', '-c', 'import sys; assert sys.version_info >= (3, 10), sys.version'],
    PYTHON_MS,
  );
  console.log(`installing ${name} and what it needs from PyPI, into ${folder}`);
  await rm(folder, { recursive: true, force: true });
  await mkdir(dirname(folder), { recursive: true });
  await attempt(
    'Python cannot make a virtual environment (on Debian and Ubuntu: apt-get install python3-venv).',
    ['python3', '-m', 'venv', folder],
    PYTHON_MS,
  );
  // Wheels only: no package's installation runs code.
  const options = ['--only-binary=:all:', '--no-input', '--disable-pip-version-check', '--quiet'];
  await attempt(
    `${name} could not be installed: pip needs PyPI, or a mirror of it that it has been told of.`,
    [python, '-m', 'pip', 'install', ...options, '--requirement', requirements],
    INSTALL_MS,
  );
  await writeFile(complete, wanted);
  return python;
}

async function attempt(advice: string, [file = '', ...options]: string[], timeout: number): Promise<void> {
  try {
    await run(file, options, { timeout });
  } catch (cause) {
    const { stdout = '', stderr = '', message, killed } = cause as Failure;
    const said = `${stdout}${stderr}`.trim().split('\n').slice(-MAX_LINES).join('\n');
    const details = killed ? `It took longer than ${timeout / 1_000} s.` : said || message;
    throw new Unavailable(`${advice}\n${details}`, { cause });
  }
}

type Failure = Error & { readonly stdout?: string; readonly stderr?: string; readonly killed?: boolean };
