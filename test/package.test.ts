// What is deployed is not the sources but bundles made of them. So the bundles themselves, taken from the packages,
// tell the story too: a fault of bundling cannot hide.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import AdmZip from 'adm-zip';
import { packageService, removePackages } from './infra/packaging.ts';
import { tellStory } from './story.ts';

const FUNCTIONS = ['plan', 'dispatch', 'refresh', 'request'] as const;

const { folder } = await packageService();
const unpacked = await mkdtemp(join(tmpdir(), 'mta-sts-bundles-'));
after(async () => {
  await removePackages();
  await rm(unpacked, { recursive: true, force: true });
});

test('each package holds its own bundle and source map, and nothing else', async () => {
  const packages = (await readdir(folder)).filter((name) => name.endsWith('.zip'));
  assert.deepEqual(packages.sort(), FUNCTIONS.map((name) => `${name}.zip`).sort());
  for (const name of FUNCTIONS) {
    const entries = new AdmZip(join(folder, `${name}.zip`)).getEntries();
    const bundle = `functions/${name}/handler.mjs`;
    assert.deepEqual(entries.map((entry) => entry.entryName).sort(), [bundle, `${bundle}.map`]);
  }
});

test('the packaged bundles tell the story', { timeout: 90_000 }, async () => {
  const handlers = Object.fromEntries(
    FUNCTIONS.map((name) => {
      const target = join(unpacked, name);
      new AdmZip(join(folder, `${name}.zip`)).extractAllTo(target);
      return [name, join(target, 'functions', name, 'handler.mjs')];
    }),
  ) as Record<(typeof FUNCTIONS)[number], string>;
  await tellStory(handlers);
});
