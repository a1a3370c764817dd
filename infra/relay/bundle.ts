// `npm run package:relay`: the relay as one file, which needs Node.js 22 or newer and nothing else.

import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { isBuiltin } from 'node:module';
import { dirname, join } from 'node:path';
import { build } from 'esbuild';

const ROOT = join(import.meta.dirname, '../..');

/** The oldest Node.js that the file is for, and is tested with: the oldest that is still maintained. */
const OLDEST_NODE = 22;

/** Older ones have to be able to read the file, to say that they are too old. Debian 12 and 13 have 18 and 20. */
const TARGET = 'node18';

/** Runs before anything else in the file, but for the imports of Node's own modules. */
const BANNER = [
  // Some dependencies are CommonJS and call require for Node's own modules, which an ES module does not have.
  "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
  `if (Number.parseInt(process.versions.node) < ${OLDEST_NODE}) {`,
  `  console.error('mta-sts-relay needs Node.js ${OLDEST_NODE} or newer, and this is ' + process.version + '.');`,
  '  process.exit(78);',
  '}',
].join('\n');

/** @returns what the bundler warns of. */
export async function bundleRelay(outfile: string): Promise<readonly string[]> {
  const { version, license } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
  const { warnings, outputFiles, metafile } = await build({
    entryPoints: [join(import.meta.dirname, 'main.ts')],
    absWorkingDir: ROOT,
    outfile,
    bundle: true,
    platform: 'node',
    target: TARGET,
    format: 'esm',
    mainFields: ['module', 'main'],
    // Names stay as they are: a stack in the log of a relay should say something.
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    logLevel: 'silent',
    define: { RELAY_VERSION: JSON.stringify(version) },
    banner: { js: BANNER },
    write: false,
    metafile: true,
  });
  const [bundle] = outputFiles;
  if (bundle === undefined) throw new Error('esbuild made no file');
  // What is only required within a try, esbuild leaves out in silence.
  const outside = Object.values(metafile.outputs).flatMap(({ imports }) => imports.map(({ path }) => path));
  const missing = outside.filter((path) => !isBuiltin(path));
  if (missing.length > 0) throw new Error(`The bundle would need ${missing.join(', ')} beside it`);
  const ours = `mta-sts-relay ${version}, ${license}\n\n${await readFile(join(ROOT, 'LICENSE'), 'utf8')}`;
  const notices = [ours, ...(await licencesOf(Object.keys(metafile.inputs)))].join(`\n${'-'.repeat(72)}\n\n`);
  await mkdir(dirname(outfile), { recursive: true });
  await writeFile(outfile, `${bundle.text}/*\n${notices.replaceAll('*/', '* /')}*/\n`);
  await chmod(outfile, 0o755);
  return warnings.map(({ text }) => text);
}

/** Licences ask for their text wherever the code goes: each once, with the packages that it is for. */
async function licencesOf(inputs: readonly string[]): Promise<string[]> {
  const folders = new Set(
    inputs.flatMap((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? []),
  );
  const packages = new Map<string, string[]>();
  for (const folder of [...folders].sort()) {
    const { name, version, license } = JSON.parse(await readFile(join(ROOT, folder, 'package.json'), 'utf8'));
    const files = (await readdir(join(ROOT, folder)))
      .filter((file) => /^(licen[cs]e|notice)/i.test(file))
      .sort();
    const texts = await Promise.all(files.map((file) => readFile(join(ROOT, folder, file), 'utf8')));
    const text = texts.join('\n');
    packages.set(text, [...(packages.get(text) ?? []), `${name} ${version}, ${license}`]);
  }
  return [...packages].map(([text, names]) => `${names.join('\n')}\n\n${text}`);
}

if (import.meta.main) {
  if (process.argv.length > 2) {
    console.error('npm run package:relay takes no options');
    process.exit(2);
  }
  const outfile = join(ROOT, '.relay/mta-sts-relay.mjs');
  for (const warning of await bundleRelay(outfile)) console.error(warning);
  console.log(outfile);
}
