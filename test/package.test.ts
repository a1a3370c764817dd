// What is deployed is not the sources but bundles made of them. So the bundles themselves, taken from the packages,
// tell the story too: a fault of bundling cannot hide.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import AdmZip from 'adm-zip';
import { tellStory } from './story.ts';

const FUNCTIONS = ['plan', 'dispatch', 'refresh', 'request'] as const;
const ROOT = join(import.meta.dirname, '..');

let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mta-sts-package-'));
  const osls = join(ROOT, 'node_modules/osls/bin/serverless.js');
  // No credentials and no configuration of the caller's: packaging needs neither.
  const { PATH = '', SystemRoot = '' } = process.env;
  await promisify(execFile)(process.execPath, [osls, 'package', '--package', join(folder, 'packages')], {
    cwd: ROOT,
    env: { PATH, SystemRoot, HOME: folder, CI: '1' },
    timeout: 90_000,
  });
});
after(() => rm(folder, { recursive: true, force: true }));

test('each package holds its own bundle and source map, and nothing else', async () => {
  const packages = (await readdir(join(folder, 'packages'))).filter((name) => name.endsWith('.zip'));
  assert.deepEqual(packages.sort(), FUNCTIONS.map((name) => `${name}.zip`).sort());
  for (const name of FUNCTIONS) {
    const entries = new AdmZip(join(folder, 'packages', `${name}.zip`)).getEntries();
    const bundle = `functions/${name}/handler.mjs`;
    assert.deepEqual(entries.map((entry) => entry.entryName).sort(), [bundle, `${bundle}.map`]);
  }
});

test('the packaged bundles tell the story', { timeout: 90_000 }, async () => {
  const handlers = Object.fromEntries(
    FUNCTIONS.map((name) => {
      const target = join(folder, name);
      new AdmZip(join(folder, 'packages', `${name}.zip`)).extractAllTo(target);
      return [name, join(target, 'functions', name, 'handler.mjs')];
    }),
  ) as Record<(typeof FUNCTIONS)[number], string>;
  await tellStory(handlers);
});
