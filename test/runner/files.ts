// The files of tests that a command line names.

import { globSync, statSync } from 'node:fs';
import { join, resolve, sep } from 'node:path';

const TESTS = resolve(import.meta.dirname, '..');

export class UsageError extends Error {}

/** Absolute paths of those below the folders, and of the files whatever their names are; of all, if `paths` is empty. */
export function testsAt(paths: readonly string[]): string[] {
  return paths.length === 0 ? below(TESTS) : paths.flatMap(at);
}

function at(path: string): string[] {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) throw new UsageError(`${path}: no such file or folder`);
  if (stats.isFile()) return [resolve(path)];
  const files = below(path);
  if (files.length === 0) throw new UsageError(`${path}: no *.test.ts below it`);
  return files;
}

function below(folder: string): string[] {
  // Those of whole parts stand higher up and take longer: they come first, so that none of them is waited for at the end.
  const depth = (file: string) => file.split(sep).length;
  return globSync(join('**', '*.test.ts'), { cwd: folder })
    .sort((a, b) => depth(a) - depth(b) || (a < b ? -1 : 1))
    .map((file) => resolve(folder, file));
}
