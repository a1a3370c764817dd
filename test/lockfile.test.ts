// `npm ci` has to work on every platform and with every Node, whichever the lockfile was made on.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

interface Entry {
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly link?: boolean;
  readonly inBundle?: boolean;
  readonly optionalDependencies?: Record<string, string>;
}

const text = await readFile(join(import.meta.dirname, '../package-lock.json'), 'utf8');
const { packages } = JSON.parse(text) as { packages: Record<string, Entry> };
const installed = Object.entries(packages).filter(([path]) => path !== '');
const names = new Set(installed.map(([path]) => path.replace(/^.*node_modules\//, '')));

test('every optional dependency of every package is there, for other platforms too', () => {
  for (const [path, { optionalDependencies = {} }] of Object.entries(packages)) {
    for (const name of Object.keys(optionalDependencies)) assert.ok(names.has(name), `${name} of ${path}`);
  }
});

test('every package has a version and a hash, and no download address', () => {
  for (const [path, { version, integrity, resolved, inBundle = false }] of installed) {
    assert.ok(version !== undefined, path);
    assert.ok(inBundle || integrity !== undefined, path);
    assert.equal(resolved, undefined, path);
  }
});
