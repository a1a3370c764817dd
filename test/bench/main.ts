// `npm run bench`: every figure of the README, from one command.

import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { batchesSection } from './batches.ts';
import { type BenchOptions, type Section, startBench } from './bench.ts';
import { coldStartSection } from './cold-start.ts';
import { type CostsResult, chart, costsSection } from './costs.ts';
import { dispatchSection } from './dispatch.ts';
import { mixSection } from './mix.ts';
import { planSection } from './plan.ts';
import { fetchedSection, unchangedSection } from './refresh.ts';
import { requestSection } from './request.ts';
import { spreadSection } from './spread.ts';
import { changes, number, render, renderChanges, type Table, verdicts } from './table.ts';
import { tenMillionSection } from './ten-million.ts';

// biome-ignore lint/suspicious/noExplicitAny: each has a result of its own.
const SECTIONS: readonly Section<any>[] = [
  planSection,
  unchangedSection,
  fetchedSection,
  mixSection,
  batchesSection,
  requestSection,
  dispatchSection,
  coldStartSection,
  spreadSection,
  costsSection,
  tenMillionSection,
];

const HELP = `npm run bench -- [options]

  --only SECTION,…   these only, and what they need:
${SECTIONS.map(({ name, what }) => `                       ${name.padEnd(13)} ${what}`).join('\n')}
  --quick            smaller and fewer: to see that it works, not for figures
  --json FILE        writes all that was measured to a file
  --compare FILE     says what differs from such a file
  --chart            ends with the README's chart, of cost and time against the size of the table
  --profile FOLDER   writes CPU profiles of plan and refresh there, and shows where the time goes
  --help

Exit status: 0, also where a budget is exceeded; 1 if something could not be measured; 2 for an option that cannot be used.`;

class UsageError extends Error {}

interface Report {
  readonly machine: { readonly cpu: string; readonly cpus: number; readonly node: string };
  readonly options: BenchOptions;
  readonly tables: readonly Table[];
  readonly results: Readonly<Record<string, unknown>>;
}

function readOptions(args: string[]) {
  const flag = { type: 'boolean', default: false } as const;
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    args,
    options: {
      only: text,
      quick: flag,
      json: text,
      compare: text,
      profile: text,
      chart: flag,
      help: flag,
    },
  });
  const names = values.only?.split(',').map((name) => name.trim());
  for (const name of names ?? []) {
    if (SECTIONS.some((section) => section.name === name)) continue;
    const known = SECTIONS.map((section) => section.name).join(', ');
    throw new UsageError(`--only has "${name}": it should be some of ${known}`);
  }
  if (values.chart && names !== undefined && !names.includes(costsSection.name)) {
    throw new UsageError(`--chart needs --only to have ${costsSection.name}`);
  }
  try {
    // Before minutes of work and not after.
    if (values.json !== undefined) closeSync(openSync(values.json, 'a'));
  } catch (error) {
    throw new UsageError(`--json ${values.json}: it cannot be written (${(error as Error).message})`);
  }
  return { ...values, sections: SECTIONS.filter(({ name }) => names?.includes(name) ?? true) };
}

function readReport(file: string): Report {
  try {
    const report = JSON.parse(readFileSync(file, 'utf8')) as Report;
    if (!Array.isArray(report.tables)) throw new Error('it has no tables');
    return report;
  } catch (error) {
    throw new UsageError(`--compare ${file}: it should be what --json wrote (${(error as Error).message})`);
  }
}

async function run({
  quick,
  json,
  compare,
  profile,
  chart: charted,
  sections,
}: ReturnType<typeof readOptions>) {
  const before = compare === undefined ? undefined : readReport(compare);
  if (profile !== undefined) mkdirSync(profile, { recursive: true });
  const machine = { cpu: cpus()[0]?.model.trim() ?? '', cpus: cpus().length, node: process.version };
  console.log(
    `${machine.cpus} x ${machine.cpu}, Node ${machine.node}${quick ? '; quick, so no figures to rely on' : ''}\n`,
  );
  const started = performance.now();
  const options = { quick, profiles: profile };
  const bench = await startBench(options, (text) => {
    console.error(`${((performance.now() - started) / 1_000).toFixed(0).padStart(4)} s  ${text}`);
  });
  // The default way to end on a signal would leave Java and folders behind.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => void bench.close().finally(() => process.exit(1)));
  }
  const tables: Table[] = [];
  const results: Record<string, unknown> = {};
  try {
    for (const section of sections) {
      bench.progress(section.what);
      const result = await bench.need(section);
      results[section.name] = result;
      tables.push(...section.tables(result));
    }
  } finally {
    await bench.close();
  }
  console.log(tables.map(render).join('\n'));
  console.log(
    render({
      title: 'BUDGETS',
      columns: ['measured', 'at most', ''],
      rows: verdicts(tables).map(({ figure, value, most, kept }) => ({
        label: figure,
        cells: [value, number(most), kept ? 'ok' : 'OVER'],
      })),
    }),
  );
  if (before !== undefined) console.log(renderChanges(changes(before.tables, tables), compare ?? ''));
  if (charted) console.log(chart(results[costsSection.name] as CostsResult));
  if (json !== undefined) {
    writeFileSync(
      json,
      `${JSON.stringify({ machine, options, tables, results } satisfies Report, null, 2)}\n`,
    );
  }
}

try {
  const options = readOptions(process.argv.slice(2));
  if (options.help) console.log(HELP);
  else await run(options);
} catch (error) {
  if (!(error instanceof Error)) throw error;
  const parsing = 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
  if (!parsing && !(error instanceof UsageError)) throw error;
  console.error(`${error.message}\nSee npm run bench -- --help`);
  process.exitCode = 2;
}
