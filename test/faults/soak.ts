// `npm run soak`: several compressed days on which everything goes wrong at once, then a calm one, after which nothing
// may be missing.

import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { paint } from '../../infra/local/screen.ts';
import type { Days } from './days.ts';

const HELP = `npm run soak -- [options]

Several days of 15 seconds on the embedded AWS: daily and renewal runs, requests of relays, domains whose hosts change
and fail, rivals that write the same table; and through all of it faults of every service, outages, lost answers,
duplicates, and killed processes. Then a calm day, and the question whether everything is as it should be.

  --days N      6    bad days
  --domains N   200  domains
  --seed N           of all that is drawn; if not given, a new one, which is printed
  --help

The same seed draws the same domains and the same programme: what the n-th call of each operation by each function
meets, when services are out, when processes are killed. Which domain such a call is about, and what else is under way
at that moment, is up to the machine's clock: a run is repeated closely, but not exactly.

Exit status: 0; 1 if an invariant was broken; 2 for an option that cannot be used.`;

const MAX_SEED = 2 ** 31;

class UsageError extends Error {}

function readOptions(args: string[]): Days & { readonly help: boolean } {
  const { values } = parseArgs({
    args,
    options: {
      days: { type: 'string', default: '6' },
      domains: { type: 'string', default: '200' },
      seed: { type: 'string', default: String(randomInt(MAX_SEED)) },
      help: { type: 'boolean', default: false },
    },
  });
  const read = (name: 'days' | 'domains' | 'seed', min: number, max: number) => {
    const value = Number(values[name]);
    if (/^\d+$/.test(values[name]) && value >= min && value <= max) return value;
    throw new UsageError(`--${name} is "${values[name]}": it should be a whole number from ${min} to ${max}`);
  };
  return {
    help: values.help,
    days: read('days', 1, 1_000),
    domains: read('domains', 20, 5_000),
    seed: read('seed', 0, MAX_SEED),
  };
}

async function main(): Promise<number> {
  const { help, ...days } = readOptions(process.argv.slice(2));
  if (help) {
    console.log(HELP);
    return 0;
  }
  const repeat = `npm run soak -- --days ${days.days} --domains ${days.domains} --seed ${days.seed}`;
  console.log(`${paint('bold', 'AWS on bad days')}  ${repeat}\n`);
  // Only now, as a command line that is wrong should be told so at once.
  const [{ live }, { reportText }] = await Promise.all([import('./days.ts'), import('./report.ts')]);
  const lived = await live(days, (line) => console.log(line));
  console.log(reportText(lived));
  if (lived.broken.length === 0) {
    console.log(`${paint('green', '✔')} Every invariant holds.`);
    return 0;
  }
  for (const what of lived.broken) console.log(`${paint('red', '✘')} ${what}`);
  console.log(`\nTo repeat it: ${repeat}`);
  return 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof Error)) throw error;
  const parsing = 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
  if (!parsing && !(error instanceof UsageError)) throw error;
  console.error(`${error.message}\nSee npm run soak -- --help`);
  process.exitCode = 2;
}
