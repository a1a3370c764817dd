// The cost model: dollars a day for so many policies, from what was counted and the unit prices. Pure arithmetic; every
// assumption that is not measured is a named constant here or in arrangements.ts.

import { type Apart, type Arrangement, estimate, lambdaMs, POLLERS, type World } from './arrangements.ts';
import type { Patience } from './domains.ts';
import { readUnits, scanUnits, writeUnits } from './items.ts';
import type { PRICES } from './prices.ts';
import { sum } from './table.ts';

type Prices = typeof PRICES;

/** What the bench has counted and measured. Rates are per policy and day, times of the processor that measured. */
export interface Counted {
  readonly refreshes: { readonly daily: number; readonly renewal: number };
  /** What relays ask about one domain; and how many of those domains fail. */
  readonly looks: number;
  readonly looksFailing: number;
  /** Of refreshes and of looks, those that end in a write. */
  readonly refreshesWritten: number;
  readonly looksWritten: number;
  /** Relays' reports that a policy was in use. */
  readonly uses: number;
  /** Of refreshes, those that fetch the policy. */
  readonly fetchedShare: number;
  readonly itemBytes: number;
  readonly bytesOutPerFetch: number;
  /** Milliseconds of CPU time for each item that a run examines. */
  readonly planCpuMs: { readonly daily: number; readonly renewal: number };
  readonly dispatchCpuMs: number;
  readonly schedulesPerTask: number;
  readonly sendsPerTask: number;
  /** Of all that `refresh` writes: bytes for each batch, and for each domain that fails. */
  readonly logBytes: { readonly batch: number; readonly failing: number };
  readonly world: World;
}

/** What the stack sets, or could. */
export interface Setup {
  readonly batchSize: number;
  readonly windowSeconds: number;
  readonly apart?: Apart | undefined;
  readonly patience: Patience;
  /** Of requests, where relays wait. */
  readonly requestPatience: Patience;
  readonly megabytes: {
    readonly plan: number;
    readonly dispatch: number;
    readonly refresh: number;
    readonly request: number;
  };
  readonly spreadSeconds: number;
  readonly renewalSpreadSeconds: number;
  readonly alarms: number;
  readonly metrics: number;
}

/** A poll of a queue that stays empty. */
const POLL_SECONDS = 20;
const QUEUES_POLLED = 2;
const MESSAGES_PER_CALL = 10;
const RENEWALS_A_DAY = 24;
/** A page of a scan, 1 MB, until it is there; and how many are asked for at once. */
const SCAN_PAGE_MS = 100;
const SCAN_PAGE_BYTES = 1_048_576;
const SCAN_SEGMENTS = 4;
/** What Lambda writes about an invocation by itself: its start, and its report. */
const PLATFORM_LOG_BYTES = 600;
/** What CloudWatch adds to every line. */
const LINE_BYTES = 26;
/** TCP and IP, of a connection with some eight packets each way. */
const PACKET_HEADERS_BYTES = 8 * 52;
/** What DynamoDB adds to an item, where storage is billed. */
const STORED_BYTES = 100;
const MILLION = 1_000_000;
const USES_PER_MESSAGE = 1_000;
const SECONDS_OF_A_DAY = 86_400;
const GIGABYTE = 1e9;

type Service = 'DynamoDB' | 'SQS' | 'Scheduler' | 'Lambda' | 'CloudWatch' | 'Transfer';

export interface Line {
  readonly service: Service;
  readonly what: string;
  /** A day. */
  readonly dollars: number;
  /** It costs the same however many policies there are. */
  readonly fixed?: boolean;
}

const gigabyteSeconds = (ms: number, megabytes: number) => (ms / 1_000) * (megabytes / 1_024);

/** Batches and GB-seconds of so many refreshes. */
function refreshing(refreshes: number, perSecond: number, { world }: Counted, setup: Setup) {
  const { apart, batchSize, windowSeconds, patience } = setup;
  const arrangement: Arrangement = {
    apart,
    batchSize,
    windowSeconds,
    patience,
    megabytes: setup.megabytes.refresh,
  };
  const { batches, gigabyteSeconds: used } = estimate(arrangement, world, perSecond);
  return { batches: (batches * refreshes) / MILLION, gigabyteSeconds: (used * refreshes) / MILLION };
}

/** GB-seconds of one look: it has an invocation of its own, as relays ask one by one, and there is no window. */
function looking(
  fails: boolean,
  { world }: Counted,
  { megabytes, requestPatience: patience }: Setup,
): number {
  const arrangement = { batchSize: 1, windowSeconds: 0, megabytes: megabytes.request, patience } as const;
  const one: World = { ...world, sound: fails ? {} : { old: 1 }, known: fails ? 1 : 0, newly: 0 };
  return estimate(arrangement, one, 1).gigabyteSeconds / MILLION;
}

/** Milliseconds of a run of plan over so many items. */
export function planMs(items: number, cpuMs: number, itemBytes: number, megabytes: number): number {
  const pages = (items * itemBytes) / SCAN_PAGE_BYTES;
  return lambdaMs(items * cpuMs, megabytes) + (pages * SCAN_PAGE_MS) / SCAN_SEGMENTS;
}

/** What `policies` cost a day, line by line. */
export function costOf(policies: number, counted: Counted, setup: Setup, prices: Prices): Line[] {
  const { refreshes, looks, uses, itemBytes, world } = counted;
  const { dynamodb, sqs, scheduler, lambda, cloudwatch, transfer } = prices;
  const { megabytes } = setup;
  const daily = policies * refreshes.daily;
  const renewal = policies * refreshes.renewal;
  const queued = daily + renewal;
  const asked = policies * looks;
  const writes = queued * counted.refreshesWritten + asked * counted.looksWritten;
  const scanned = (1 + RENEWALS_A_DAY) * scanUnits(policies * itemBytes);
  const planGigabyteSeconds =
    gigabyteSeconds(planMs(policies, counted.planCpuMs.daily, itemBytes, megabytes.plan), megabytes.plan) +
    RENEWALS_A_DAY *
      gigabyteSeconds(planMs(policies, counted.planCpuMs.renewal, itemBytes, megabytes.plan), megabytes.plan);
  const schedules = daily * counted.schedulesPerTask;
  const dispatchMs = lambdaMs(daily * counted.dispatchCpuMs, megabytes.dispatch);
  const byDaily = refreshing(daily, daily / setup.spreadSeconds, counted, setup);
  const byRenewal = refreshing(
    renewal,
    renewal / RENEWALS_A_DAY / setup.renewalSpreadSeconds,
    counted,
    setup,
  );
  const batches = byDaily.batches + byRenewal.batches;
  const failingLooks = policies * counted.looksFailing;
  const lookGigabyteSeconds =
    (asked - failingLooks) * looking(false, counted, setup) + failingLooks * looking(true, counted, setup);
  const useMs = lambdaMs(policies * uses * world.cpuMs.same, megabytes.request);
  const fetches = queued * counted.fetchedShare + asked;
  const failing = queued * (world.known + world.newly);
  const invocations = batches + asked + schedules + 1 + RENEWALS_A_DAY;
  const logged =
    invocations * (PLATFORM_LOG_BYTES + 2 * LINE_BYTES) +
    (batches + asked) * (counted.logBytes.batch + LINE_BYTES) +
    (failing + failingLooks) * (counted.logBytes.failing + LINE_BYTES);
  const stored = (policies * (itemBytes + STORED_BYTES)) / GIGABYTE;
  const idlePolls = (QUEUES_POLLED * POLLERS * SECONDS_OF_A_DAY) / POLL_SECONDS;
  return [
    {
      service: 'DynamoDB',
      what: 'writes of refreshes',
      dollars: writes * writeUnits(itemBytes) * dynamodb.writeUnit,
    },
    {
      service: 'DynamoDB',
      what: 'reads before them',
      dollars: (queued + asked) * readUnits(itemBytes) * dynamodb.readUnit,
    },
    { service: 'DynamoDB', what: 'scans, daily and hourly', dollars: scanned * dynamodb.readUnit },
    {
      service: 'DynamoDB',
      what: 'reports of use, of one relay',
      dollars:
        policies *
        uses *
        (readUnits(itemBytes) * dynamodb.readUnit + writeUnits(itemBytes) * dynamodb.writeUnit),
    },
    {
      service: 'DynamoDB',
      what: 'storage and recovery',
      dollars: stored * (dynamodb.gigabyteDay + dynamodb.recoveryGigabyteDay),
    },
    { service: 'SQS', what: 'refreshes: send', dollars: queued * counted.sendsPerTask * sqs.request },
    {
      service: 'SQS',
      what: 'refreshes: receive, delete',
      dollars: queued * (2 / MESSAGES_PER_CALL) * sqs.request,
    },
    {
      service: 'SQS',
      what: 'requests',
      dollars: 3 * (asked + (policies * uses) / USES_PER_MESSAGE) * sqs.request,
    },
    { service: 'SQS', what: 'polls of empty queues', dollars: idlePolls * sqs.request, fixed: true },
    { service: 'Scheduler', what: 'waves', dollars: schedules * scheduler.invocation },
    {
      service: 'Lambda',
      what: 'refresh',
      dollars:
        (byDaily.gigabyteSeconds + byRenewal.gigabyteSeconds) * lambda.gigabyteSecond +
        batches * lambda.request,
    },
    {
      service: 'Lambda',
      what: 'request',
      dollars:
        (lookGigabyteSeconds + gigabyteSeconds(useMs, megabytes.request)) * lambda.gigabyteSecond +
        asked * lambda.request,
    },
    {
      service: 'Lambda',
      what: 'plan and dispatch',
      dollars:
        (planGigabyteSeconds + gigabyteSeconds(dispatchMs, megabytes.dispatch)) * lambda.gigabyteSecond +
        (schedules + 1 + RENEWALS_A_DAY) * lambda.request,
    },
    { service: 'CloudWatch', what: 'logs', dollars: (logged / GIGABYTE) * cloudwatch.logGigabyte },
    {
      service: 'CloudWatch',
      what: 'metrics, alarms, dashboard',
      dollars:
        setup.metrics * cloudwatch.metricDay + setup.alarms * cloudwatch.alarmDay + cloudwatch.dashboardDay,
      fixed: true,
    },
    {
      service: 'Transfer',
      what: 'requests to policy hosts',
      dollars: ((fetches * (counted.bytesOutPerFetch + PACKET_HEADERS_BYTES)) / GIGABYTE) * transfer.gigabyte,
    },
  ];
}

export function total(lines: readonly Line[], which: (line: Line) => boolean = () => true): number {
  return sum(lines.filter(which).map(({ dollars }) => dollars));
}

/** What grows with the table. */
export const growing = ({ fixed }: Line) => fixed !== true;

export interface Alternative {
  readonly name: string;
  /** Of the same policies, a day. */
  readonly dollars: number;
}

/**
 * What a reader might ask: why not otherwise? Of what grows with the table alone.
 *
 * @param others ways to keep some domains apart from the rest.
 */
export function alternatives(
  policies: number,
  counted: Counted,
  setup: Setup,
  prices: Prices,
  others: readonly (readonly [string, Apart])[],
): Alternative[] {
  const { dynamodb, sqs, scheduler, lambda } = prices;
  const lines = costOf(policies, counted, setup, prices);
  const base = total(lines, growing);
  const line = (what: string) => total(lines, (one) => one.what === what);
  const otherwise = (other: Partial<Setup>, others: Partial<Counted> = {}) =>
    total(costOf(policies, { ...counted, ...others }, { ...setup, ...other }, prices), growing);
  const daily = policies * counted.refreshes.daily;
  const renewal = policies * counted.refreshes.renewal;
  const queued = daily + renewal;
  const writes = queued * counted.refreshesWritten * writeUnits(counted.itemBytes);
  const reads =
    queued * readUnits(counted.itemBytes) + (1 + RENEWALS_A_DAY) * scanUnits(policies * counted.itemBytes);
  const onDemand = line('writes of refreshes') + line('reads before them') + line('scans, daily and hourly');
  // A table for the busiest second all day; and one for the mean, which needs refreshes that never rest.
  const peak = (units: number) =>
    units *
    (daily / queued / setup.spreadSeconds + renewal / queued / RENEWALS_A_DAY / setup.renewalSpreadSeconds);
  const capacity = (writesPerSecond: number, readsPerSecond: number) =>
    (writesPerSecond * dynamodb.writeCapacityDay + readsPerSecond * dynamodb.readCapacityDay) /
    TARGET_UTILIZATION;
  const even = (units: number) => units / SECONDS_OF_A_DAY;
  const anIndex = 2 * writes * dynamodb.writeUnit;
  // To get an item is a call, much as to update one: most of what an unchanged domain takes.
  const singly = queued * CALL_CPU_SHARE * counted.world.cpuMs.same;
  return [
    { name: 'as it is', dollars: base },
    { name: 'all together', dollars: otherwise({ apart: undefined }) },
    ...others.map(([name, apart]) => ({ name: `apart: ${name}`, dollars: otherwise({ apart }) })),
    { name: 'limits of 5 s a phase and 15 s a domain', dollars: otherwise({ patience: SHORTER }) },
    { name: 'the same for requests', dollars: otherwise({ requestPatience: SHORTER }) },
    ...[10, 60].map((seconds) => {
      const headersMs = seconds * 1_000;
      const patience = { ...setup.patience, headersMs };
      const requestPatience = { ...setup.requestPatience, headersMs };
      return { name: `${seconds} s for headers`, dollars: otherwise({ patience, requestPatience }) };
    }),
    { name: 'ten messages a batch', dollars: otherwise({ batchSize: 10 }) },
    {
      name: 'an index on LastUpdate, and the hourly scans',
      dollars: base + anIndex - scanUnits(policies * counted.itemBytes) * dynamodb.readUnit,
    },
    {
      name: 'indexes on LastUpdate and ValidEnd, no scan',
      dollars: base + 2 * anIndex - line('scans, daily and hourly'),
    },
    {
      name: 'one schedule for each refresh, into the queue',
      dollars:
        base +
        queued * scheduler.invocation -
        line('waves') +
        queued * (1 - counted.sendsPerTask) * sqs.request,
    },
    {
      name: 'reading each item singly',
      dollars:
        base +
        gigabyteSeconds(lambdaMs(singly, setup.megabytes.refresh), setup.megabytes.refresh) *
          lambda.gigabyteSecond,
    },
    { name: 'reads that need not be consistent', dollars: base - line('reads before them') / 2 },
    { name: 'tasks that carry what the read would say', dollars: base - line('reads before them') },
    {
      name: 'ten domains in a message',
      dollars: base - 0.9 * (line('refreshes: send') + line('refreshes: receive, delete')),
    },
    {
      name: 'use kept to within a week, not a day',
      dollars: base - (6 / 7) * usesWritten(policies, counted, prices),
    },
    {
      name: 'provisioned capacity for the busiest second',
      dollars: base - onDemand + capacity(peak(writes), peak(reads)),
    },
    {
      name: 'provisioned capacity, refreshes spread over all of the day',
      dollars: base - onDemand + capacity(even(writes), even(reads)),
    },
    {
      name: 'x86 instead of arm64, were it as fast',
      dollars:
        base +
        total(lines, ({ service }) => service === 'Lambda') *
          (lambda.x86GigabyteSecond / lambda.gigabyteSecond - 1),
    },
  ];
}

const SHORTER: Patience = { phaseMs: 5_000, headersMs: 5_000, domainMs: 15_000 };

/** Provisioned capacity is not to be used up. */
const TARGET_UTILIZATION = 0.7;

/** Of an unchanged domain's CPU time, one call of DynamoDB: by the profile. */
const CALL_CPU_SHARE = 0.6;

function usesWritten(policies: number, { uses, itemBytes }: Counted, { dynamodb }: Prices): number {
  return policies * uses * writeUnits(itemBytes) * dynamodb.writeUnit;
}
