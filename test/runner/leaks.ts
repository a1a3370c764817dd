// `npm run test:leaks`: makes the assertions of the tests fail in turn, and looks whether their processes still end.
// In a run of a file, all its tests fail at their first assertion, then in another all at their second, and so on; what
// assertions are left, such as those that tests share, fail one by one. Takes an hour or so; `--sample` takes a part.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { testsAt, UsageError } from './files.ts';
import type { Injection } from './inject.ts';
import { type FileRun, runFile } from './run.ts';

const HELP = `Usage: npm run test:leaks -- [--sample N] [--seed N] [--concurrency N] [--grace S] [FILE|FOLDER ...]

  --sample N       so many runs, drawn at random, instead of all
  --seed N         of the drawing; printed when it is not given
  --concurrency N  runs at a time (3)
  --grace S        seconds after a file's last test until what keeps its process alive is a failure (8)
`;

const LIMITS = { testSeconds: 60, fileSeconds: 150 };

/** A test with more assertions than these has them in a loop. */
const MAX_NUMBER = 24;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    sample: { type: 'string' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 1e9)) },
    concurrency: { type: 'string', default: '3' },
    grace: { type: 'string', default: '8' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

type Choice = { readonly number: number } | { readonly place: string } | undefined;

const never = new AbortController().signal;

async function inject(
  file: string,
  choice: Choice,
): Promise<{ run: FileRun; injection: Injection | undefined }> {
  const folder = mkdtempSync(join(tmpdir(), 'mta-sts-inject-'));
  const url = new URL('inject.ts', import.meta.url);
  const report = join(folder, 'report.json');
  url.searchParams.set('report', report);
  for (const [name, value] of Object.entries(choice ?? {})) url.searchParams.set(name, String(value));
  const run = await runFile(file, { ...LIMITS, graceSeconds: Number(values.grace) }, never, [url]);
  let injection: Injection | undefined;
  try {
    injection = JSON.parse(readFileSync(report, 'utf8')) as Injection;
  } catch {
    // It did not come to its end, which `run` knows.
  }
  rmSync(folder, { recursive: true, force: true });
  return { run, injection };
}

/** For the same seed the same numbers: xorshift. */
function createRandom(seed: number): () => number {
  let state = seed | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

let runs = 0;
const sites = { met: new Set<string>(), failed: new Set<string>() };
const bad: string[] = [];

/** @returns the places that were met and that failed; undefined if the process did not come to its end. */
async function tryOne(file: string, choice: Choice): Promise<Injection | undefined> {
  const { run, injection } = await inject(file, choice);
  runs += 1;
  for (const site of injection?.met ?? []) sites.met.add(site);
  for (const site of injection?.failed ?? []) sites.failed.add(site);
  const what = choice && ('number' in choice ? `assertion ${choice.number + 1} of each test` : choice.place);
  const name = `${relative(process.cwd(), file)}: ${what ?? 'as it is'}`;
  const fault = run.leftOpen ?? run.stuck;
  if (fault !== undefined) {
    bad.push(name);
    console.log(`✖ ${name}\n${fault}`);
  }
  return injection;
}

async function tryAll(file: string): Promise<void> {
  const met = new Set<string>();
  for (let number = 0; number < MAX_NUMBER; number += 1) {
    const injection = await tryOne(file, { number });
    for (const place of injection?.met ?? []) met.add(place);
    if (injection?.failed.length === 0) break;
  }
  for (const place of met) {
    if (sites.failed.has(place)) continue;
    // Once is enough for what several files share, or for what is met only sometimes.
    sites.failed.add(place);
    await tryOne(file, { place });
  }
  console.log(`  ${relative(process.cwd(), file)}`);
}

async function inTurn<T>(
  tasks: readonly T[],
  concurrency: number,
  work: (task: T) => Promise<unknown>,
): Promise<void> {
  const waiting = [...tasks];
  const worker = async () => {
    for (let task = waiting.shift(); task !== undefined; task = waiting.shift()) await work(task);
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
}

try {
  if (values.help) {
    console.log(HELP);
    process.exit(0);
  }
  const files = testsAt(positionals);
  const concurrency = Number(values.concurrency);
  if (values.sample === undefined) {
    await inTurn(files, concurrency, tryAll);
  } else {
    const random = createRandom(Number(values.seed));
    const drawn = Array.from({ length: Number(values.sample) }, () => ({
      file: files[Math.floor(random() * files.length)] as string,
      number: Math.floor(random() ** 2 * 10),
    }));
    console.log(`Seed ${values.seed}`);
    await inTurn(drawn, concurrency, ({ file, number }) => tryOne(file, { number }));
  }
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(`${error.message}\n\n${HELP}`);
  process.exit(2);
}
const shared = [...sites.met].filter((site) => !sites.failed.has(site)).length;
console.log(
  `${runs} runs, ${sites.failed.size} places made to fail; ${shared} more were met and did not fail`,
);
for (const name of bad) console.log(`  ${name}`);
console.log(`${runs - bad.length} passed, ${bad.length} failed`);
process.exit(bad.length === 0 ? 0 : 1);
