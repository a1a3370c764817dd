// The handlers as single files, as they are when deployed: what is killed has to start again, and that is three times as
// fast. And what is being edited meanwhile makes no difference.

import { join } from 'node:path';
import { build, stop } from 'esbuild';
import { makeFolder, type Scope } from '../resources.ts';

const FUNCTIONS = join(import.meta.dirname, '../../functions');

export interface Bundles {
  /** Of functions/<name>/handler.ts, or of another file that was given by this name. */
  readonly file: (name: string) => string;
}

/** @param others more modules that export `handler`, by name. */
export async function bundleHandlers(
  scope: Scope,
  others: Readonly<Record<string, string>> = {},
): Promise<Bundles> {
  const folder = await makeFolder(scope, 'faults');
  const names = ['plan', 'dispatch', 'refresh', 'request'];
  const handlers = Object.fromEntries(names.map((name) => [name, join(FUNCTIONS, name, 'handler.ts')]));
  // As serverless.yml has it done.
  await build({
    entryPoints: { ...handlers, ...others },
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    mainFields: ['module', 'main'],
    minifyWhitespace: true,
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  });
  // It keeps a process waiting for more.
  await stop();
  return { file: (name) => join(folder, `${name}.mjs`) };
}
