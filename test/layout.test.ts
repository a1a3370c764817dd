// Who may import whom. A folder that knows little can be understood, tested and replaced alone: the reading of
// RFC 8461 knows no AWS, the store no stage, and only handlers know their environment.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { join, posix, relative, sep } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '..');

/** What one file takes from another file or package. Files are paths from the root, with slashes. */
interface Import {
  readonly from: string;
  /** A file of ours, or the name of a package. */
  readonly to: string;
  readonly ours: boolean;
  /** Only types are taken: nothing of it is loaded. */
  readonly typesOnly: boolean;
}

const IMPORT =
  /^(?:import|export)\s+(?<type>type\s)?(?:(?<names>[^'";]*?)\s*from\s*)?'(?<static>[^']+)'|\bimport\(\s*'(?<dynamic>[^']+)'/gm;

function importsOf(from: string, source: string): Import[] {
  return [...source.matchAll(IMPORT)].map(({ groups = {} }) => {
    const specifier = groups.static ?? groups.dynamic ?? '';
    const ours = specifier.startsWith('.');
    const names = /^\{(?<list>.*)\}$/s.exec(groups.names ?? '')?.groups?.list;
    const each = names?.split(',').filter((name) => name.trim() !== '') ?? [];
    const typesOnly = each.length > 0 && each.every((name) => name.trim().startsWith('type '));
    return {
      from,
      to: ours ? posix.join(posix.dirname(from), specifier) : packageOf(specifier),
      ours,
      typesOnly: groups.type !== undefined || typesOnly,
    };
  });
}

function packageOf(specifier: string): string {
  if (isBuiltin(specifier)) return 'node';
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
}

function sources(...folders: string[]): string[] {
  return folders.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.[cm]?[jt]s$/.test(entry.name))
      .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)).split(sep).join('/')),
  );
}

const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');
const functions = sources('functions');
// But this file: its examples look like imports.
const all = sources('functions', 'infra', 'test')
  .filter((file) => file !== 'test/layout.test.ts')
  .flatMap((file) => importsOf(file, read(file)));
const isHandler = (file: string) => /^functions\/\w+\/handler\.ts$/.test(file);

/** The imports of the files that match `of` which may not be, in words. */
function breaches(of: RegExp, may: (taken: Import) => boolean): string[] {
  return all
    .filter((taken) => of.test(taken.from) && !may(taken))
    .map(({ from, to }) => `${from} imports ${to}`);
}

const forms: [statement: string, found: string][] = [
  ["import a from './a.ts';", 'functions/x/a.ts'],
  ["import * as b from '../b.ts';", 'functions/b.ts'],
  ["import { type C, c } from './c.ts';", 'functions/x/c.ts'],
  ["import { type D, type E } from './d.ts';", 'types of functions/x/d.ts'],
  ["import type { F } from './f.ts';", 'types of functions/x/f.ts'],
  ["import {\n  type G,\n  type H,\n} from './g.ts';", 'types of functions/x/g.ts'],
  ["import './h.ts';", 'functions/x/h.ts'],
  ["export { i } from './i.ts';", 'functions/x/i.ts'],
  ["export type { J } from './j.ts';", 'types of functions/x/j.ts'],
  ["export * from './k.ts';", 'functions/x/k.ts'],
  ["import fs from 'node:fs';", 'node'],
  ["import path from 'path';", 'node'],
  ["import { L } from '@aws-sdk/client-sqs/deep';", '@aws-sdk/client-sqs'],
  ["const m = await import('./m.ts');", 'functions/x/m.ts'],
];

test('imports are found in every form that they have', () => {
  const source = forms.map(([statement]) => statement).join('\n');
  assert.deepEqual(
    importsOf('functions/x/y.ts', source).map(({ to, typesOnly }) => (typesOnly ? `types of ${to}` : to)),
    forms.map(([, found]) => found),
  );
});

/** What every stage may import. */
const COMMON = [
  'mtasts/',
  'store/policy-store.ts',
  'runtime/fault.ts',
  'runtime/telemetry.ts',
  'runtime/concurrent.ts',
  'types of runtime/env.ts',
];

/** What of ours the files of a folder may import, besides each other. A folder means all that is in it. */
const rules: [folder: string, may: string[], packages: RegExp][] = [
  ['mtasts', [], /^(node|undici|ipaddr\.js)$/],
  ['store', ['mtasts/'], /^(node|@aws-sdk\/client-dynamodb)$/],
  // Telemetry is told outcomes, and does not know how they come about.
  [
    'runtime',
    ['mtasts/', 'types of refresh/outcome.ts'],
    /^(node|@aws-lambda-powertools\/(logger|metrics))$/,
  ],
  ['refresh', COMMON, /^(node|@aws-sdk\/client-dynamodb)$/],
  ['request', [...COMMON, 'refresh/'], /^(node|@aws-sdk\/client-dynamodb|tldts)$/],
  ['dispatch', [...COMMON, 'refresh/task.ts'], /^(node|@aws-sdk\/client-sqs)$/],
  [
    'plan',
    [...COMMON, 'refresh/task.ts', 'dispatch/enqueue.ts', 'dispatch/wave.ts'],
    /^(node|@aws-sdk\/client-(dynamodb|scheduler|sqs))$/,
  ],
];

/** What only handlers may import, since they do the wiring. */
const WIRING = ['runtime/env.ts', 'runtime/clients.ts', 'store/dynamo.ts'];

test('the folders of functions are the ones that these rules know', () => {
  const folders = new Set(functions.map((file) => file.split('/')[1]));
  assert.deepEqual([...folders].sort(), rules.map(([folder]) => folder).sort());
});

for (const [folder, may, packages] of rules) {
  const files = new RegExp(`^functions/${folder}/`);

  test(`functions/${folder} imports nothing else of ours than ${may.join(', ') || 'itself'}`, () => {
    const allowed = ({ from, to, ours, typesOnly }: Import) => {
      if (!ours || files.test(to)) return true;
      const file = to.replace('functions/', '');
      const targets = isHandler(from) ? [...may, ...WIRING] : may;
      return targets.some(
        (target) => file.startsWith(target) || (typesOnly && target === `types of ${file}`),
      );
    };
    assert.deepEqual(breaches(files, allowed), []);
  });

  test(`functions/${folder} loads no other packages than ${packages.source}`, () => {
    const allowed = ({ to, ours, typesOnly }: Import) => ours || typesOnly || packages.test(to);
    assert.deepEqual(breaches(files, allowed), []);
  });
}

test('nothing of functions imports a handler', () => {
  assert.deepEqual(
    breaches(/^functions\//, ({ to }) => !isHandler(to)),
    [],
  );
});

test('only handlers create AWS clients, and nothing else reads the environment of the process', () => {
  const files = functions.filter((file) => !isHandler(file));
  const usesAws = (file: string) => all.some(({ from, to }) => from === file && to.startsWith('@aws-sdk/'));
  assert.deepEqual(
    files.filter((file) => usesAws(file) && /\bnew\s+\w*Client\(/.test(read(file))),
    [],
  );
  assert.deepEqual(
    files.filter((file) => /\bprocess\s*\.\s*env\b/.test(read(file))),
    [],
  );
});

test('functions import functions only, infra those too, and nothing but tests imports tests', () => {
  const allowed = ({ from, to, ours }: Import) => {
    const [top = ''] = from.split('/');
    const reach = {
      functions: /^functions\//,
      infra: /^(functions|infra)\//,
      test: /^(functions|infra|test)\//,
    };
    return !ours || reach[top as keyof typeof reach].test(to);
  };
  assert.deepEqual(breaches(/^/, allowed), []);
});

test('every file that is imported exists', () => {
  const files = new Set(sources('functions', 'infra', 'test'));
  const missing = ({ to, ours }: Import) => !ours || files.has(to) || !/\.[cm]?[jt]s$/.test(to);
  assert.deepEqual(breaches(/^/, missing), []);
});

test('the top level has what it should have, dotfiles, and nothing else', () => {
  const prescribed = [
    'CHANGELOG.md',
    'LICENSE',
    'README.md',
    'functions',
    'infra',
    'package-lock.json',
    'package.json',
    'serverless.yml',
    'test',
    'tsconfig.json',
  ];
  const others = readdirSync(ROOT).filter((name) => !name.startsWith('.') && name !== 'node_modules');
  assert.deepEqual(
    others.filter((name) => !prescribed.includes(name)),
    [],
  );
});
