// The README's tables are contracts: what they list is what the code has.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { RESULT_TYPES } from '../functions/mtasts/failure.ts';

const ROOT = join(import.meta.dirname, '..');
const readme = await readFile(join(ROOT, 'README.md'), 'utf8');
const rows = readme.split('\n').filter((line) => line.startsWith('| '));

test('every failure code is listed with its result type, and no other', () => {
  const listed: Record<string, string> = {};
  for (const row of rows) {
    const [, codes = '', , resultType = ''] = row.split('|').map((cell) => cell.trim());
    if (!resultType.startsWith('sts-')) continue;
    for (const [, code] of codes.matchAll(/`([^`]+)`/g)) listed[code ?? ''] = resultType;
  }
  assert.deepEqual(listed, RESULT_TYPES);
});

test('every variable that the functions read is listed', async () => {
  const source = await readFile(join(ROOT, 'functions/runtime/env.ts'), 'utf8');
  const variables = [...source.matchAll(/reader\.\w+\(\s*'([A-Z_]+)'/g)].map(([, name]) => name ?? '');
  assert.ok(variables.length >= 10);
  for (const name of variables)
    assert.ok(
      rows.some((row) => row.includes(`\`${name}\``)),
      name,
    );
});

test('every npm script that is named exists', async () => {
  const { scripts } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { scripts: object };
  for (const [, name] of readme.matchAll(/npm run ([a-z:-]+)/g)) assert.ok(`${name}` in scripts, name);
});

test('every setting of the relay daemon is listed', async () => {
  const [page, source] = await Promise.all(
    ['infra/relay/README.md', 'infra/relay/settings.ts'].map((file) => readFile(join(ROOT, file), 'utf8')),
  );
  const names = new Set(source?.match(/RELAY_[A-Z_]+[A-Z]/g));
  assert.ok(names.size >= 12);
  for (const name of names) assert.ok(page?.includes(`| \`${name}\` |`), name);
});

test('every test that is named as a proof exists', () => {
  const named = [...readme.matchAll(/`(test\/[\w./-]+)`/g)].map(([, path]) => path ?? '');
  assert.ok(named.length >= 10);
  for (const path of named) assert.ok(existsSync(join(ROOT, path)), path);
});

test('every alarm has its paragraph in the runbook', async () => {
  const alarms = await readFile(join(ROOT, 'infra/alarms.yml'), 'utf8');
  const named = [...alarms.replace(/\s+/g, ' ').matchAll(/Runbook, ([a-z-]+)\)/g)].map(([, name]) => name);
  assert.equal(named.length, alarms.match(/Type: AWS::CloudWatch::Alarm/g)?.length);
  for (const name of named) assert.ok(readme.includes(`\n**${name}**`), name);
});

test('every parameter of a stage is listed', async () => {
  const service = await readFile(join(ROOT, 'serverless.yml'), 'utf8');
  const [, defaults = ''] = /^params:\n {2}default:\n((?: {4}.*\n|\s*\n)+)/m.exec(service) ?? [];
  const names = [...defaults.matchAll(/^ {4}(\w+):/gm)].map(([, name]) => name);
  assert.ok(names.length >= 15);
  for (const name of names)
    assert.ok(
      rows.some((row) => row.includes(`\`${name}\``)),
      name,
    );
});
