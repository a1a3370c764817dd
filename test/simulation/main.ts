// `npm run simulate`: mox's rule and ours, side by side, over the same months of the same domains.

import { closeSync, openSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { ConfigurationError } from '../../functions/runtime/env.ts';
import { EDGES, enoughMs, longestLapsedMs, tryEdge } from './edges.ts';
import { MOX, ours, simulate } from './engine.ts';
import type { Measured } from './measure.ts';
import { populate } from './population.ts';
import { type EdgeResult, edgesText, promiseText, reportText, summarize } from './report.ts';
import { promiseOf, readSettings } from './settings.ts';

const HELP = `npm run simulate -- [options]

  --domains N         2000  domains, some of them discovered over time
  --days N            365
  --seed N            1     the same seed gives the same figures
  --rule RULE         both  mox, ours or both
  --lost-renewals S   0     share of renewal runs that never happen, 0 to 1; never two in a row
  --host-outages N    6     of each policy host a year; half of them longer than half an hour
  --dns-outages N     2     of each domain's DNS a year
  --changes N         3     of each policy a year, 12 at most
  --json FILE               writes the figures to a file as well
  --help

The functions' own variables apply, as RENEWAL_MARGIN_SECONDS=14400, SPREAD_SECONDS or MAX_FETCH_AGE_SECONDS (see the
README, "Configuration"). Exit status: 0; 1 if the promise was broken; 2 for an option that cannot be used.`;

class UsageError extends Error {}

function readOptions(args: string[]) {
  const text = (fallback: string) => ({ type: 'string', default: fallback }) as const;
  const numbers = { domains: text('2000'), days: text('365'), seed: text('1'), changes: text('3') };
  const outages = { 'host-outages': text('6'), 'dns-outages': text('2'), 'lost-renewals': text('0') };
  const others = { rule: text('both'), json: { type: 'string' }, help: { type: 'boolean' } } as const;
  const { values } = parseArgs({ args, options: { ...numbers, ...outages, ...others } });
  const read = (
    name: keyof typeof numbers | keyof typeof outages,
    min: number,
    max: number,
    whole = true,
  ) => {
    const value = Number(values[name]);
    if ((whole ? /^\d+$/ : /^\d+(\.\d+)?$/).test(values[name]) && value >= min && value <= max) return value;
    const should = `it should be a ${whole ? 'whole ' : ''}number from ${min} to ${max}`;
    throw new UsageError(`--${name} is "${values[name]}": ${should}`);
  };
  const { rule, json, help } = values;
  try {
    // Before minutes of work and not after.
    if (json !== undefined) closeSync(openSync(json, 'a'));
  } catch (error) {
    throw new UsageError(`--json ${json}: it cannot be written (${(error as Error).message})`);
  }
  if (!/^(both|mox|ours)$/.test(rule))
    throw new UsageError(`--rule is "${rule}": it should be mox, ours or both`);
  return {
    ...{ rule, json, help },
    domains: read('domains', 1, 100_000),
    days: read('days', 1, 3_650),
    seed: read('seed', 0, 2 ** 31),
    changes: read('changes', 0, 12, false),
    hostOutages: read('host-outages', 0, 1_000, false),
    dnsOutages: read('dns-outages', 0, 1_000, false),
    lostRenewals: read('lost-renewals', 0, 1, false),
  };
}

/** @returns whether the promise was kept. */
async function run({ json, rule, ...options }: ReturnType<typeof readOptions>): Promise<boolean> {
  const settings = readSettings(process.env);
  const { domains, days, seed, lostRenewals } = options;
  const lost = lostRenewals > 0 ? `, renewal runs lost: ${100 * lostRenewals}%` : '';
  console.log(`${domains} domains, ${days} days, seed ${seed}${lost}\n\n${promiseText(settings)}`);

  const hosts = populate(options);
  const results: Measured[] = [];
  for (const one of [MOX, ours(settings)]) {
    if (rule === 'both' || rule === one.name)
      results.push(await simulate(one, { hosts, days, seed, settings, lostRenewals }));
  }
  console.log(reportText(results));

  const edges: EdgeResult[] = [];
  for (const edge of rule === 'mox' ? [] : EDGES) {
    const trials = await tryEdge(edge, { settings, seed, count: 3_000, leastMs: 0 });
    const [enough, longestMs] = [enoughMs(edge, settings), longestLapsedMs(trials)];
    edges.push({ name: edge.name, enoughMs: enough, longestMs, trials });
  }
  if (edges.length > 0) console.log(edgesText(edges));

  if (json !== undefined) {
    const figures = {
      ...{ options, settings, promised: promiseOf(settings, lostRenewals > 0) },
      results: results.map((result) => ({ ...result, changes: summarize(result.changes) })),
      edges: edges.map(({ trials: _trials, ...edge }) => edge),
    };
    writeFileSync(json, `${JSON.stringify(figures, null, 2)}\n`);
  }
  const { brokenMs } = results.find((result) => result.rule !== MOX.name) ?? {};
  if (brokenMs === undefined) return true;
  const kept = brokenMs === 0 && edges.every((edge) => edge.longestMs < edge.enoughMs);
  const shortest = Math.max(promiseOf(settings, lostRenewals > 0).renewalMs / 1_000, 7_200);
  console.log(
    `The promise was ${kept ? 'kept' : 'BROKEN'}: policies that live ${shortest} s or more were expired for ` +
      `${Math.ceil(brokenMs / 1_000)} s while their hosts could be reached.`,
  );
  return kept;
}

try {
  const options = readOptions(process.argv.slice(2));
  if (options.help) console.log(HELP);
  else process.exitCode = (await run(options)) ? 0 : 1;
} catch (error) {
  if (!(error instanceof Error)) throw error;
  const parsing = 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
  if (!parsing && !(error instanceof UsageError) && !(error instanceof ConfigurationError)) throw error;
  console.error(`${error.message}\nSee npm run simulate -- --help`);
  process.exitCode = 2;
}
