// `request` at its fullest: ten domains to look at, and ten reports of a thousand uses each.

import type { Bench, Section } from './bench.ts';
import { domainName } from './domains.ts';
import { startFunction } from './function.ts';
import type { Invoked } from './function-child.ts';
import { counted, reset } from './refresh.ts';
import { median, sum } from './table.ts';

interface Served {
  /** Of an invocation: domains that are asked about, or reported. */
  readonly domains: number;
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly callsPerDomain: number;
  /** The most that the process ever had. */
  readonly peakBytes: number;
}

export interface RequestResult {
  readonly looks: Served;
  readonly uses: Served;
}

/** The event source's batch (infra/queues.yml). */
const MESSAGES = 10;
const USES_PER_MESSAGE = 1_000;
const LOOKS = 20;
const REPORTS = 5;

/** Medians, but for the first two: code gets faster for a while. */
function served(domains: number, invoked: readonly Invoked[]): Served {
  const warm = invoked.slice(2);
  const calls = warm.map(({ calls: { 'policy host': _, ...aws } }) =>
    sum(Object.values(aws).map(({ count }) => count)),
  );
  return {
    domains,
    wallMs: median(warm.map(({ wallMs }) => wallMs)),
    cpuMs: median(warm.map(({ cpuMs }) => cpuMs)),
    callsPerDomain: median(calls) / domains,
    peakBytes: invoked.at(-1)?.peakBytes ?? 0,
  };
}

async function measure(bench: Bench): Promise<RequestResult> {
  const domains = Array.from({ length: LOOKS * MESSAGES }, (_, i) => domainName(i, 'old'));
  await reset(bench, domains);
  const request = await startFunction(bench.packages.functions.request, await bench.surroundings());
  const invoke = (bodies: readonly object[]) =>
    request.invoke({ Records: bodies.map((body, i) => ({ messageId: `${i}`, body: JSON.stringify(body) })) });

  const looks: Invoked[] = [];
  for (let i = 0; i < LOOKS; i++) {
    const asked = domains.slice(i * MESSAGES, (i + 1) * MESSAGES);
    looks.push(await invoke(asked.map((domain) => ({ domain }))));
  }
  const { Replaced = 0 } = counted(looks);
  if (Replaced !== domains.length) throw new Error(`${Replaced} of ${domains.length} were looked at`);

  const uses: Invoked[] = [];
  for (let i = 0; i < REPORTS; i++) {
    const used = (from: number) =>
      Array.from({ length: USES_PER_MESSAGE }, (_, j) => domainName(from + j, 'same'));
    uses.push(
      await invoke(
        Array.from({ length: MESSAGES }, (_, j) => ({ used: used((i * MESSAGES + j) * USES_PER_MESSAGE) })),
      ),
    );
  }
  await request.close();
  return { looks: served(MESSAGES, looks), uses: served(MESSAGES * USES_PER_MESSAGE, uses) };
}

export const requestSection: Section<RequestResult> = {
  name: 'request',
  what: 'request, full batches of what relays ask',
  measure,
  tables({ looks, uses }) {
    const each = (of: (one: Served) => number) => [of(looks), of(uses)];
    return [
      {
        title: 'REQUEST, ten domains to look at, all fetched; ten reports of use, all known already',
        columns: ['looks', 'reports'],
        rows: [
          { label: 'domains', digits: 0, cells: each(({ domains }) => domains) },
          { label: 'time', unit: 'ms', digits: 0, cells: each(({ wallMs }) => wallMs) },
          { label: 'CPU time of a domain', unit: 'ms', cells: each(({ cpuMs, domains }) => cpuMs / domains) },
          { label: 'calls of a domain, DynamoDB', digits: 2, cells: each((one) => one.callsPerDomain) },
          {
            label: 'peak memory',
            unit: 'MB',
            digits: 0,
            cells: each(({ peakBytes }) => peakBytes / 1e6),
            budget: { most: 256 },
          },
        ],
      },
    ];
  },
};
