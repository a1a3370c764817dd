// `npm test`: the command line of the runner.

import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { testsAt, UsageError } from './files.ts';
import { runTests } from './run.ts';
import { THOROUGH_VARIABLE } from './thorough.ts';

const HELP = `Usage: npm test                            all tests
       npm test -- FILE|FOLDER [...]       these, or those below these folders

Options (after \`npm test --\`):
  --concurrency N     files at a time (one more than there are processors, at most 6)
  --test-limit S      seconds for one test (120)
  --file-limit S      seconds for one file (240)
  --run-limit S       seconds for all of it (570)
  --grace S           seconds after a file's last test until what keeps its process alive is a failure (8)
  --help              show this

Exit status: 0  every test passed
             1  a test failed, a process did not end, or a limit was exceeded
             2  the command line is wrong
`;

const USAGE = 2;
const INTERRUPTED = 130;

function readCommandLine() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      thorough: { type: 'boolean', default: false },
      concurrency: { type: 'string', default: String(Math.min(availableParallelism() + 1, 6)) },
      'test-limit': { type: 'string', default: '120' },
      'file-limit': { type: 'string', default: '240' },
      'run-limit': { type: 'string', default: '570' },
      grace: { type: 'string', default: '8' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  // Processes of tests inherit it.
  if (values.thorough) process.env[THOROUGH_VARIABLE] = '1';
  const number = (name: Exclude<keyof typeof values, 'help' | 'thorough'>) => {
    const value = Number(values[name]);
    if (!(value > 0)) throw new UsageError(`--${name} is a number above 0, not ${values[name]}`);
    return value;
  };
  return {
    help: values.help,
    files: testsAt(positionals),
    concurrency: number('concurrency'),
    testSeconds: number('test-limit'),
    fileSeconds: number('file-limit'),
    runSeconds: number('run-limit'),
    graceSeconds: number('grace'),
  };
}

async function main(): Promise<number> {
  const { help, ...options } = readCommandLine();
  if (help) {
    console.log(HELP);
    return 0;
  }
  const start = performance.now();
  const totals = await runTests({ ...options, write: (text) => process.stdout.write(text) });
  const { passed, failed, skipped, badFiles } = totals;
  const seconds = ((performance.now() - start) / 1_000).toFixed(0);
  console.log(`\n${options.files.length} ${options.files.length === 1 ? 'file' : 'files'} in ${seconds} s`);
  if (badFiles.length > 0) console.log(`Failed:\n${badFiles.map((file) => `  ${file}`).join('\n')}`);
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  return failed === 0 ? 0 : 1;
}

process.once('SIGINT', () => process.exit(INTERRUPTED));
let status: number;
try {
  status = await main();
} catch (error) {
  const { code = '', message } = error as NodeJS.ErrnoException;
  if (!(error instanceof UsageError) && !code.startsWith('ERR_PARSE_ARGS')) throw error;
  console.error(`${message}\nTry: npm test -- --help`);
  status = USAGE;
}
// A process that would not be ended must not keep this one.
process.exit(status);
