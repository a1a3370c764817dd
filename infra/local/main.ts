// `npm start`: the command line of the local stack.

import { parseArgs } from 'node:util';
import { type Domain, parseDomain } from '../../functions/mtasts/domain.ts';
import { ConfigurationError } from '../../functions/runtime/env.ts';
import { demonstrate } from './demonstration.ts';
import { discover } from './discovery.ts';
import { paint } from './screen.ts';
import type { Stack } from './stack.ts';

const HELP = `Usage: npm start                        one daily run over a few hundred policies, all on this machine
       npm start -- DOMAIN [DOMAIN ...]  discover and refresh these domains on the real internet

Options (after \`npm start --\`):
  --keep   leave the local stack running afterwards, and print its endpoints
  --help   show this

With domains, DNS_SERVERS (addresses of resolvers, separated by commas), POLICY_HOST_PORT and NODE_EXTRA_CA_CERTS are honoured.

Exit status: 0  the run did what it should; with domains: each has a policy
             1  something went wrong with the run
             2  the command line is wrong
             3  at least one of the domains has no policy, or none that can be fetched
           130  interrupted
`;

const USAGE = 2;
const SOME_WITHOUT_POLICY = 3;
const INTERRUPTED = 130;

class UsageError extends Error {}

function readCommandLine(): { domains: Domain[]; keep: boolean; help: boolean } {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse();
  } catch (error) {
    throw new UsageError((error as Error).message.split('. ', 1)[0]);
  }
  const domains = new Set<Domain>();
  for (const text of parsed.positionals) {
    const domain = parseDomain(text);
    if (!domain.ok) throw new UsageError(domain.reason);
    domains.add(domain.domain);
  }
  return { domains: [...domains], keep: parsed.values.keep, help: parsed.values.help };
}

function parse() {
  return parseArgs({
    allowPositionals: true,
    options: {
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
}

async function main(): Promise<number> {
  const { domains, keep, help } = readCommandLine();
  if (help) {
    console.log(HELP);
    return 0;
  }
  let status: number;
  let running: { stack: Stack; close: () => Promise<void> };
  if (domains.length > 0) {
    const { all, ...rest } = await discover(domains);
    status = all ? 0 : SOME_WITHOUT_POLICY;
    running = rest;
  } else {
    const { right, ...rest } = await demonstrate();
    status = right ? 0 : 1;
    running = rest;
  }
  if (keep) await keepRunning(running.stack);
  await running.close();
  if (domains.length === 0 && !keep) {
    console.log(
      `  All of it, from the start to the end of its processes, took ${process.uptime().toFixed(0)} s.`,
    );
  }
  return status;
}

async function keepRunning({ endpoints, tableName, queueUrls, env }: Stack): Promise<void> {
  const { AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY } = env;
  console.log(`
${paint('bold', 'The stack runs on, until Ctrl-C')}
  DynamoDB   ${endpoints.dynamodb}   table ${tableName}
  SQS        ${endpoints.sqs}
  requests   ${queueUrls['request-queue']}
  Scheduler  ${endpoints.scheduler}

To look at it with the AWS command line:
  export AWS_REGION=${AWS_REGION} AWS_ACCESS_KEY_ID=${AWS_ACCESS_KEY_ID} AWS_SECRET_ACCESS_KEY=${AWS_SECRET_ACCESS_KEY}
  aws dynamodb scan --endpoint-url ${endpoints.dynamodb} --table-name ${tableName} --max-items 3
`);
  keeping = true;
  await new Promise((resolve) => process.once('SIGINT', resolve));
}

/** The run is over and the stack runs on: Ctrl-C is how that is meant to end. */
let keeping = false;

// What the functions' processes leave when this one is interrupted ends with it: their channel closes.
process.on('SIGINT', () => {
  if (!keeping) process.exit(INTERRUPTED);
});

try {
  process.exitCode = await main();
} catch (error) {
  if (error instanceof UsageError || error instanceof ConfigurationError) {
    console.error(`${error.message}\nTry: npm start -- --help`);
    process.exitCode = USAGE;
  } else {
    console.error(error);
    process.exitCode = 1;
  }
}
