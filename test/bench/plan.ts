// `plan` over tables of all sizes: against a source of pages that is never waited for, and against a real database.

import { join } from 'node:path';
import { BatchWriteItemCommand, DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb';
import { eachConcurrently } from '../../functions/runtime/concurrent.ts';
import { createPolicyTable } from '../../infra/local/dynamodb.ts';
import { localClientConfig } from '../../infra/local/environment.ts';
import { findDynamoDbLocal, Unavailable } from '../functions/store/dynamodb-local.ts';
import { type Bench, child, type Section } from './bench.ts';
import { domainName, itemOf } from './domains.ts';
import type { DynaliteOperations } from './dynalite-child.ts';
import { everything, startFunction } from './function.ts';
import { attributesOf, itemBytes, scanUnits } from './items.ts';
import { profileTable, readProfile, type Spent } from './profile.ts';
import { startRemote } from './remote.ts';
import { divideSegments } from './small-segments.ts';
import { sum, type Table } from './table.ts';

type Kind = 'daily' | 'renewal';

interface Run {
  readonly kind: Kind;
  readonly count: number;
  readonly planned: number;
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly peakBytes: number;
  /** Of the run's time, what was not waiting for the scan. */
  readonly busyShare: number;
  readonly calls: Readonly<Record<string, number>>;
  readonly bytesSent: number;
  readonly logBytes: number;
}

export interface PlanResult {
  readonly itemBytes: number;
  readonly synthetic: readonly Run[];
  readonly database: string;
  readonly real: readonly Run[];
  /** What the database says a scan of the largest table read, and what the sizes of its items come to. */
  readonly units: { readonly counted: number; readonly computed: number };
  readonly profile?: { readonly file: string; readonly busyMs: number; readonly functions: readonly Spent[] };
}

async function run(bench: Bench, kind: Kind, count: number, dynamodb: string): Promise<Run> {
  const { endpoint } = await bench.aws();
  const plan = bench.packages.functions.plan;
  const planFunction = await startFunction(plan, { endpoints: { ...everything(endpoint), dynamodb } });
  const invoked = await planFunction.invoke({ kind, runId: `bench-${kind}` });
  await planFunction.close();
  const { planned } = invoked.result as { planned: number };
  const { wallMs, cpuMs, peakBytes, scanWaitMs, calls, lines } = invoked;
  return {
    ...{ kind, count, planned, wallMs, cpuMs, peakBytes },
    busyShare: 1 - scanWaitMs / wallMs,
    calls: Object.fromEntries(Object.entries(calls).map(([name, { count: times }]) => [name, times])),
    bytesSent: sum(Object.values(calls).map(({ bytes }) => bytes)),
    logBytes: sum(lines.map((line) => Buffer.byteLength(line))),
  };
}

/** Slower than without, so that its run is no figure. */
async function profile(bench: Bench, folder: string): Promise<NonNullable<PlanResult['profile']>> {
  const { endpoint } = await bench.aws();
  const planFunction = await startFunction(bench.packages.functions.plan, {
    endpoints: everything(endpoint),
  });
  const file = join(folder, 'plan.cpuprofile');
  await planFunction.startProfile();
  await planFunction.invoke({ kind: 'daily', runId: 'bench-profile' });
  await planFunction.writeProfile(file);
  await planFunction.close();
  const { busyMs, functions } = readProfile(file);
  return { file, busyMs, functions: functions.slice(0, 25) };
}

interface Database {
  readonly name: string;
  readonly endpoint: string;
  readonly sizes: readonly number[];
  close(): Promise<void>;
}

async function startDatabase(): Promise<Database> {
  try {
    const local = await (await findDynamoDbLocal())();
    return { name: "Amazon's DynamoDB Local", sizes: [10_000, 100_000, 1_000_000], ...local };
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    const remote = await startRemote<DynaliteOperations>(child('dynalite'));
    const endpoint = await remote.call('start');
    // To fill it with a million would take half an hour.
    return { name: `dynalite (${error.message})`, sizes: [10_000, 100_000], endpoint, close: remote.close };
  }
}

const ITEMS_PER_WRITE = 25;

/** Adds the items from `from` on. */
async function fill(client: DynamoDBClient, from: number, to: number, now: number): Promise<void> {
  const starts = Array.from(
    { length: Math.ceil((to - from) / ITEMS_PER_WRITE) },
    (_, i) => from + i * ITEMS_PER_WRITE,
  );
  await eachConcurrently(starts, 8, async (start) => {
    const indices = Array.from({ length: Math.min(ITEMS_PER_WRITE, to - start) }, (_, i) => start + i);
    const puts = indices.map((i) => ({
      PutRequest: { Item: attributesOf(itemOf(domainName(i, 'same'), now)) },
    }));
    const { UnprocessedItems } = await client.send(
      new BatchWriteItemCommand({ RequestItems: { policies: puts } }),
    );
    if (UnprocessedItems?.policies?.length) throw new Error('the database left items unwritten');
  });
}

async function scanUnitsCounted(endpoint: string): Promise<number> {
  const client = new DynamoDBClient(localClientConfig(endpoint));
  let units = 0;
  let start: ScanCommand['input']['ExclusiveStartKey'];
  do {
    const page = await client.send(
      new ScanCommand({
        TableName: 'policies',
        ExclusiveStartKey: start,
        Select: 'COUNT',
        ReturnConsumedCapacity: 'TOTAL',
      }),
    );
    units += page.ConsumedCapacity?.CapacityUnits ?? 0;
    start = page.LastEvaluatedKey;
  } while (start !== undefined);
  client.destroy();
  return units;
}

export const planSection: Section<PlanResult> = {
  name: 'plan',
  what: 'plan over 10,000, 100,000 and a million items',
  async measure(bench) {
    const { quick, profiles } = bench.options;
    const { remote, endpoint } = await bench.aws();
    const synthetic: Run[] = [];
    let bytes = 0;
    for (const count of quick ? [10_000, 100_000] : [10_000, 100_000, 1_000_000]) {
      for (const kind of ['daily', 'renewal'] as const) {
        bench.progress(`${kind} plan of ${count} items`);
        bytes = await remote.call('fill', count);
        synthetic.push(await run(bench, kind, count, endpoint));
      }
    }

    const profiled = profiles === undefined ? {} : { profile: await profile(bench, profiles) };

    const database = await startDatabase();
    const client = new DynamoDBClient(localClientConfig(database.endpoint));
    const real: Run[] = [];
    const now = Date.now();
    let counted = 0;
    let filled = 0;
    try {
      await createPolicyTable(client, 'policies');
      for (const count of quick ? [10_000] : database.sizes) {
        bench.progress(`filling ${database.name.split(' (')[0]} with ${count} items`);
        await fill(client, filled, count, now);
        filled = count;
        const scanned = await divideSegments(database.endpoint, count);
        bench.progress(`daily plan of ${count} items in it`);
        const measure = () => run(bench, 'daily', count, scanned.endpoint);
        real.push(
          await measure().catch((error: Error) => {
            // On a busy machine the database can be slower than the function's patience.
            bench.progress(`once more, after ${error.message}`);
            return measure();
          }),
        );
        counted = await scanUnitsCounted(scanned.endpoint);
        await scanned.close();
      }
      const items = Array.from({ length: filled }, (_, i) =>
        itemBytes(attributesOf(itemOf(domainName(i, 'same'), now))),
      );
      const units = { counted, computed: scanUnits(sum(items)) };
      return { itemBytes: bytes, synthetic, database: database.name, real, units, ...profiled };
    } finally {
      client.destroy();
      await database.close();
    }
  },

  tables({ synthetic, real, database, units, itemBytes: bytes, profile: profiled }) {
    const daily = synthetic.filter(({ kind }) => kind === 'daily');
    const renewals = synthetic.filter(({ kind }) => kind === 'renewal');
    return [
      runsTable('PLAN, daily run, all of it stale; the database answers at once', daily, 256, [
        `An item has ${Math.round(bytes)} bytes in the mean, as policies in the wild come to.`,
      ]),
      growthTable(daily),
      ...(profiled === undefined ? [] : [profileTable('milliseconds', profiled.busyMs, profiled)]),
      runsTable('PLAN, hourly renewal run, one in 26 ends soon; the database answers at once', renewals, 256),
      runsTable(`PLAN, daily run, on ${database}`, real, 256, [
        `A scan of it is ${Math.round(units.counted)} read units as the database counts, and ` +
          `${Math.round(units.computed)} by the sizes of its items.`,
      ]),
    ];
  },
};

function runsTable(
  title: string,
  runs: readonly Run[],
  megabytes: number,
  notes: readonly string[] = [],
): Table {
  const each = (of: (run: Run) => number) => runs.map(of);
  const callsOf = (name: string) => each(({ calls }) => calls[name] ?? 0);
  return {
    title,
    columns: each(({ count }) => count).map((count) => count.toLocaleString('en-US')),
    rows: [
      {
        label: 'items',
        unit: 'a second',
        digits: 0,
        cells: each(({ count, wallMs }) => (1_000 * count) / wallMs),
      },
      { label: 'time', unit: 's', cells: each(({ wallMs }) => wallMs / 1_000) },
      { label: 'CPU time', unit: 's', cells: each(({ cpuMs }) => cpuMs / 1_000) },
      {
        label: 'time that is not waiting for the scan',
        unit: '%',
        digits: 0,
        cells: each((one) => 100 * one.busyShare),
      },
      {
        label: 'peak memory',
        unit: 'MB',
        digits: 0,
        cells: each((one) => one.peakBytes / 1e6),
        budget: { most: megabytes },
      },
      { label: 'planned', digits: 0, cells: each(({ planned }) => planned) },
      { label: 'calls: Scan', digits: 0, cells: callsOf('Scan') },
      { label: 'calls: SendMessageBatch', digits: 0, cells: callsOf('SendMessageBatch') },
      { label: 'calls: CreateSchedule, one a schedule', digits: 0, cells: callsOf('CreateSchedule') },
    ],
    notes,
  };
}

function growthTable(runs: readonly Run[]): Table {
  const [first] = runs;
  if (first === undefined) throw new Error('nothing was run');
  const ratio = (of: (run: Run) => number) => runs.map((one) => of(one) / of(first));
  return {
    title: 'PLAN, growth of the daily run: how many times that of the smallest',
    columns: runs.map(({ count }) => count.toLocaleString('en-US')),
    rows: [
      { label: 'items', digits: 0, cells: ratio(({ count }) => count) },
      { label: 'time', digits: 1, cells: ratio(({ wallMs }) => wallMs) },
      { label: 'CPU time', digits: 1, cells: ratio(({ cpuMs }) => cpuMs) },
      { label: 'memory', digits: 2, cells: ratio(({ peakBytes }) => peakBytes) },
      { label: 'calls', digits: 1, cells: ratio(({ calls }) => sum(Object.values(calls))) },
    ],
  };
}
