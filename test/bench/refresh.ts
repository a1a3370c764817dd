// `refresh` on domains that are all alike: with the id unchanged, and with the policy fetched over HTTPS.

import { join } from 'node:path';
import type { Bench, Section } from './bench.ts';
import { domainName, type KindName, type Latency } from './domains.ts';
import { startFunction } from './function.ts';
import type { Invoked } from './function-child.ts';
import { profileTable, readProfile, type Spent } from './profile.ts';
import { mean, median, quantile, sum, type Table } from './table.ts';

export interface RefreshResult {
  readonly batches: number;
  readonly batchSize: number;
  /** Medians over the batches, but for the first: milliseconds. */
  readonly batchMs: number;
  readonly cpuMsPerDomain: number;
  readonly firstBatchMs: number;
  readonly firstBatchCpuMs: number;
  /** From the first question about a domain to the write of its item, in a batch. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly peakBytes: number;
  /** For each domain. */
  readonly calls: Readonly<Record<string, number>>;
  readonly bytesSent: Readonly<Record<string, number>>;
  readonly questions: number;
  readonly connections: number;
  /** To policy hosts: bytes within TCP. */
  readonly bytesOut: number;
  readonly sockets: number;
  /** For each batch. */
  readonly logBytes: number;
  /** The functions in which most time was spent, if a profile was asked for. */
  readonly profile?: {
    readonly file: string;
    readonly busyMsPerDomain: number;
    readonly functions: readonly Spent[];
  };
}

/** A message of the refresh queue, as Lambda hands it over; what nobody reads is left out. */
export function message(domain: string) {
  return { messageId: domain, body: JSON.stringify({ domain, lastUpdate: Date.now() }) };
}

/** What the function counted, out of the lines that it wrote. */
export function counted(invoked: readonly Invoked[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const line of invoked.flatMap(({ lines }) => lines)) {
    const value = JSON.parse(line) as Record<string, unknown> & { _aws?: EmbeddedMetrics };
    for (const { Name } of value._aws?.CloudWatchMetrics[0]?.Metrics ?? []) {
      counts[Name] = (counts[Name] ?? 0) + Number(value[Name]);
    }
  }
  return counts;
}

interface EmbeddedMetrics {
  readonly CloudWatchMetrics: readonly { readonly Metrics: readonly { readonly Name: string }[] }[];
}

const AT_ONCE: Latency = { dnsMs: 0, httpsMs: 0 };

/** These domains are on the internet, at once, and in the table, and nothing else happened. */
export async function reset(bench: Bench, domains: readonly string[]) {
  const [{ remote: aws }, { remote: internet }] = [await bench.aws(), await bench.internet()];
  await aws.call('fill', 0);
  await aws.call('begin', Date.now());
  await internet.call(
    'populate',
    domains.map((domain) => ({ domain, latency: AT_ONCE })),
  );
  return { aws, internet };
}

/** Batches before those that are measured: the first has to connect, and code gets faster for a while. */
const WARM_UP = 4;

async function measure(bench: Bench, kind: KindName, outcome: string): Promise<RefreshResult> {
  const { options, packages } = bench;
  const { batchSize } = packages;
  const batches = options.quick ? 8 : 24;
  const surroundings = await bench.surroundings();
  const domains = Array.from({ length: batches * batchSize }, (_, i) => domainName(i, kind));
  const { aws, internet } = await reset(bench, domains);

  const refresh = await startFunction(packages.functions.refresh, surroundings);
  const invoked: Invoked[] = [];
  const batch = async (i: number) => {
    const Records = domains.slice(i * batchSize, (i + 1) * batchSize).map(message);
    invoked.push(await refresh.invoke({ Records }));
  };
  for (let i = 0; i < batches; i++) await batch(i);
  const done = counted(invoked)[outcome] ?? 0;
  if (done !== domains.length)
    throw new Error(`${domains.length - done} of ${domains.length} were not ${outcome}`);

  const traffic = await internet.call('traffic');
  const [began, ended] = [await internet.call('firstLookups', domains), await aws.call('written')];
  const steady = domains.slice(WARM_UP * batchSize);
  const tookMs = steady.map((domain, i) => (ended.get(domain) ?? 0) - (began[i + WARM_UP * batchSize] ?? 0));
  const warm = invoked.slice(WARM_UP);
  const names = [...new Set(invoked.flatMap(({ calls }) => Object.keys(calls)))];
  const perDomain = (of: (name: string, one: Invoked) => number) =>
    Object.fromEntries(
      names.map((name) => [name, sum(invoked.map((one) => of(name, one))) / domains.length]),
    );
  const result = {
    batches,
    batchSize,
    batchMs: median(warm.map(({ wallMs }) => wallMs)),
    cpuMsPerDomain: median(warm.map(({ cpuMs }) => cpuMs)) / batchSize,
    firstBatchMs: invoked[0]?.wallMs ?? 0,
    firstBatchCpuMs: invoked[0]?.cpuMs ?? 0,
    p50Ms: median(tookMs),
    p99Ms: quantile(tookMs, 0.99),
    peakBytes: invoked.at(-1)?.peakBytes ?? 0,
    calls: perDomain((name, { calls }) => calls[name]?.count ?? 0),
    bytesSent: perDomain((name, { calls }) => calls[name]?.bytes ?? 0),
    questions: traffic.questions / domains.length,
    connections: traffic.connections / domains.length,
    bytesOut: traffic.received / domains.length,
    sockets: sum(invoked.map(({ sockets }) => sockets)) / domains.length,
    logBytes: mean(warm.map(({ lines }) => sum(lines.map((line) => Buffer.byteLength(line))))),
  };

  // Afterwards, for it slows down what it looks at.
  let profile: RefreshResult['profile'];
  if (options.profiles !== undefined) {
    const file = join(options.profiles, `refresh-${kind}.cpuprofile`);
    await refresh.startProfile();
    for (let i = WARM_UP; i < batches; i++) await batch(i);
    await refresh.writeProfile(file);
    const { busyMs, functions } = readProfile(file);
    const count = steady.length;
    const each = functions.map((one) => ({
      ...one,
      selfMs: one.selfMs / count,
      totalMs: one.totalMs / count,
    }));
    profile = { file, busyMsPerDomain: busyMs / count, functions: each.slice(0, 25) };
  }
  await refresh.close();
  return profile === undefined ? result : { ...result, profile };
}

function tables(title: string, result: RefreshResult, cpuBudgetMs: number): Table[] {
  const { calls, bytesSent, profile } = result;
  const services = { BatchGetItem: 'DynamoDB: BatchGetItem', UpdateItem: 'DynamoDB: UpdateItem' };
  const main: Table = {
    title,
    columns: [''],
    rows: [
      { label: 'domains', unit: 'a second', digits: 0, cells: [(1_000 * result.batchSize) / result.batchMs] },
      {
        label: 'CPU time of a domain',
        unit: 'ms',
        digits: 2,
        cells: [result.cpuMsPerDomain],
        budget: { most: cpuBudgetMs },
      },
      { label: `batch of ${result.batchSize}`, unit: 'ms', digits: 0, cells: [result.batchMs] },
      { label: `first batch of a process`, unit: 'ms', digits: 0, cells: [result.firstBatchMs] },
      { label: 'domain in its batch, p50', unit: 'ms', digits: 0, cells: [result.p50Ms] },
      { label: 'domain in its batch, p99', unit: 'ms', digits: 0, cells: [result.p99Ms] },
      { label: 'peak memory', unit: 'MB', digits: 0, cells: [result.peakBytes / 1e6], budget: { most: 256 } },
      ...Object.entries(services).map(([name, label]) => ({
        label: `calls of a domain, ${label}`,
        digits: 2,
        cells: [calls[name] ?? 0],
      })),
      { label: 'DNS questions of a domain', digits: 2, cells: [result.questions] },
      { label: 'HTTPS connections of a domain', digits: 2, cells: [result.connections] },
      { label: 'sockets opened for a domain, AWS and policy host', digits: 2, cells: [result.sockets] },
      { label: 'sent to a policy host', unit: 'B', digits: 0, cells: [result.bytesOut] },
      { label: 'bytes of an update', unit: 'B', digits: 0, cells: [bytesSent.UpdateItem ?? 0] },
      { label: 'log of a batch', unit: 'B', digits: 0, cells: [result.logBytes] },
    ],
  };
  if (profile === undefined) return [main];
  const micro = ({ where, selfMs, totalMs }: Spent) => ({
    where,
    selfMs: 1_000 * selfMs,
    totalMs: 1_000 * totalMs,
  });
  const functions = profile.functions.map(micro);
  const busy = 1_000 * profile.busyMsPerDomain;
  return [main, profileTable('microseconds of a domain', busy, { file: profile.file, functions })];
}

export const unchangedSection: Section<RefreshResult> = {
  name: 'unchanged',
  what: 'refresh, id unchanged',
  measure: (bench) => measure(bench, 'same', 'Extended'),
  tables: (result) => tables('REFRESH, id unchanged', result, 1),
};

export const fetchedSection: Section<RefreshResult> = {
  name: 'fetched',
  what: 'refresh, policy fetched over HTTPS',
  measure: (bench) => measure(bench, 'old', 'Replaced'),
  tables: (result) => tables('REFRESH, policy fetched over HTTPS', result, 3),
};
