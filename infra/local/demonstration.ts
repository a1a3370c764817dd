// The main job for someone who has just cloned this: one daily run over a few hundred policies in every state, with
// the three hours compressed to seconds, on the embedded AWS and the programmable internet; then what a person wants
// to know of it, and whether it was right.

import { setTimeout as delay } from 'node:timers/promises';
import { SendMessageCommand } from '@aws-sdk/client-sqs';
import type { Domain } from '../../functions/mtasts/domain.ts';
import type { PlanSummary } from '../../functions/plan/run.ts';
import { createDynamoStore } from '../../functions/store/dynamo.ts';
import type { PolicyRecord } from '../../functions/store/policy-store.ts';
import { type Internet, startInternet } from './internet/internet.ts';
import { createObserver, type LogEntry } from './observer.ts';
import { becameOf, type Expectation, populate, type Resident } from './population.ts';
import { columns, createProgress, paint, table } from './screen.ts';
import { seed } from './seed.ts';
import { type Stack, startStack } from './stack.ts';

/** Three hours, compressed 540 times; waves and lateness so that there are several waves. */
const SPREAD_SECONDS = 20;
const WAVE_SECONDS = 5;
const LATENESS_SECONDS = 1;

/** Only what ends within the hour is renewed: whatever else the daily run is to take, is to be taken by it alone. */
const RENEWAL_INTERVAL_SECONDS = 600;
const RENEWAL_MARGIN_SECONDS = 3_000;
const RENEWAL_SPREAD_SECONDS = 1;

/**
 * A process opens at most four connections at once to one address. Real policy hosts have many addresses; with one for
 * all of them, the domains would wait for each other and the run would last longer than its window.
 */
const POLICY_HOST_ADDRESSES = Array.from({ length: 16 }, (_, i) => `127.0.0.${i + 2}`);

/** After the window: the slowest domain may take its whole limits, twice over for DNS. */
const PATIENCE_MS = (SPREAD_SECONDS + 60) * 1_000;

/** The SDK has 50 connections, and warns of requests that wait for one. */
const SEEDED_AT_ONCE = 40;

/** SQS delays in whole seconds, and Lambda gathers a batch for another: finer buckets would show only that. */
const BUCKET_SECONDS = 2;
const COLUMN_WIDTH = 6;
const MAX_LISTED = 12;
const MAX_IN_LINE = 4;
const EXPIRING_HOURS = 6;
const HOUR = 3_600_000;

/** @returns whether the run did what it should; the stack runs on until `close`. */
export async function demonstrate(): Promise<{ right: boolean; stack: Stack; close: () => Promise<void> }> {
  const observer = createObserver();
  const internet = await startSeveral();
  const stack = await startStack({
    caFile: internet.caFile,
    environment: {
      SPREAD_SECONDS: String(SPREAD_SECONDS),
      WAVE_SECONDS: String(WAVE_SECONDS),
      SCHEDULE_LATENESS_SECONDS: String(LATENESS_SECONDS),
      RENEWAL_INTERVAL_SECONDS: String(RENEWAL_INTERVAL_SECONDS),
      RENEWAL_MARGIN_SECONDS: String(RENEWAL_MARGIN_SECONDS),
      RENEWAL_SPREAD_SECONDS: String(RENEWAL_SPREAD_SECONDS),
      DNS_SERVERS: internet.dnsServer,
      POLICY_HOST_PORT: String(internet.policyHostPort),
      ALLOW_PRIVATE_ADDRESSES: '1',
    },
    // Small batches, so that a slow domain does not hold back the count of many others.
    refreshBatchSize: 20,
    onLine: observer.line,
  });
  const close = async () => {
    await stack.close();
    await internet.close();
  };
  try {
    const right = await run(stack, internet, observer);
    return { right, stack, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The internet with several addresses, or with one where the system has no other on loopback, as macOS has not. */
function startSeveral(): Promise<Internet> {
  return startInternet({ policyHostAddresses: POLICY_HOST_ADDRESSES }).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRNOTAVAIL' || error.code === 'EADDRINUSE') return startInternet();
      throw error;
    },
  );
}

async function run(
  stack: Stack,
  internet: Internet,
  observer: ReturnType<typeof createObserver>,
): Promise<boolean> {
  const store = createDynamoStore({ client: stack.dynamodb, table: stack.tableName });
  const residents = populate(Date.now(), internet.policyHostAddresses);
  const known = residents.filter((resident) => resident.seed !== undefined);
  for (const { domain, site } of residents) internet.set(domain, site);
  await seedAll(store, known);

  heading('One daily run, its three hours compressed to 20 seconds');
  console.log(`  table     ${known.length} policies, on an embedded DynamoDB and SQS`);
  console.log(
    `  internet  ${residents.length} domains: DNS at ${internet.dnsServer}, policy hosts at port ${internet.policyHostPort}`,
  );

  const start = Date.now();
  const plan = async (kind: 'renewal' | 'daily') =>
    (await stack.functions.plan.invoke({ kind, runId: `local-${kind}-${start}` })) as PlanSummary;
  const renewal = await plan('renewal');
  const { planned, pruned, schedules } = await plan('daily');
  console.log(`  renewal   ${renewal.planned} to refresh at once, since their policies end within the hour`);
  console.log(
    `  plan      ${planned} to refresh, ${pruned} pruned, ${schedules} schedules for the later waves`,
  );
  const unknown = residents.filter((resident) => resident.seed === undefined);
  for (const { domain } of unknown) await request(stack, { domain });
  console.log(`  relays    ask for ${unknown.length} domains that are not in the table\n`);

  await watch(stack, observer, renewal.planned + planned + unknown.length, start);
  const end = Date.now();

  const records = await readAll(store, residents);
  const wrong = residents.filter((resident) => becameOf(resident, records, start) !== resident.expected);
  reportOutcomes(residents, records, start);
  reportSpread(internet, residents, start);
  reportFailures(observer.entries);
  reportTable(residents, records, end);

  const leftover = (
    await Promise.all(
      (['refresh-dlq', 'request-dlq', 'failures'] as const).map((name) => stack.deadLetters(name)),
    )
  ).flat();
  const faults = observer.entries.filter((entry) => entry.level === 'ERROR');
  const complaints = [
    ...wrong.map((resident) => {
      const became = becameOf(resident, records, start) ?? 'something else';
      return `${resident.domain} should be ${resident.expected}, but is ${became}`;
    }),
    ...faults.map((entry) => `${entry.function}: ${entry.message}`),
    ...leftover.map((message) => `in a dead-letter queue: ${JSON.stringify(message)}`),
  ];
  heading(complaints.length === 0 ? 'Right' : 'Wrong');
  if (complaints.length === 0) {
    console.log(
      `  ${paint('green', '✔')} Each of the ${residents.length} domains ended as it should, ${seconds(end - start)} s after plan began.`,
    );
  }
  list(complaints.map((complaint) => `${paint('red', '✘')} ${complaint}`));
  return complaints.length === 0;
}

async function seedAll(store: ReturnType<typeof createDynamoStore>, residents: readonly Resident[]) {
  const waiting = [...residents];
  const work = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      if (next.seed !== undefined) await seed(store, next.seed);
    }
  };
  await Promise.all(Array.from({ length: SEEDED_AT_ONCE }, work));
}

function request(stack: Stack, body: object): Promise<unknown> {
  const QueueUrl = stack.queueUrls['request-queue'];
  return stack.sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: JSON.stringify(body) }));
}

/** The metrics that count domains, and what to call them; to CloudWatch, what is removed is pruned. */
const COUNTED = {
  Extended: 'extended',
  Replaced: 'replaced',
  Kept: 'kept',
  Pruned: 'removed',
  Discovered: 'discovered',
  BackedOff: 'backed off',
  Skipped: 'skipped',
};

async function watch(
  stack: Stack,
  { counts }: { counts: ReadonlyMap<string, number> },
  total: number,
  start: number,
): Promise<void> {
  const progress = createProgress();
  const show = () => {
    const seen = Object.entries(COUNTED).filter(([metric]) => counts.has(metric));
    const done = seen.reduce((sum, [metric]) => sum + (counts.get(metric) ?? 0), 0);
    const figures = seen.map(([metric, name]) => `${name} ${counts.get(metric)}`);
    const time = `${seconds(Date.now() - start).padStart(2)} s`;
    progress.update(done, total, [time, ...figures].join('  '));
  };
  const drained = stack.drained(PATIENCE_MS).then(() => true);
  while (!(await Promise.race([drained, delay(200, false)]))) show();
  show();
  progress.end();
}

async function readAll(store: ReturnType<typeof createDynamoStore>, residents: readonly Resident[]) {
  const { records } = await store.read(residents.map(({ domain }) => domain as Domain));
  return records as ReadonlyMap<string, PolicyRecord>;
}

const MEANINGS: readonly (readonly [Expectation, string])[] = [
  ['extended', 'the record has the same id: good for another max_age, without a fetch'],
  ['replaced', 'fetched: it has another id, or no usable record, or its last fetch is too long ago'],
  ['kept', 'the refresh failed: the policy that was there still is, and the failure is noted'],
  ['removed', 'the policy said none, and its record is gone'],
  ['pruned', 'no relay has used it for 180 days; two, where there was never a policy'],
  ['fresh', 'updated less than 12 hours ago: left alone'],
  ['discovered', 'a relay asked, and there is a policy'],
  ['backed-off', 'a relay asked, and there is a record but no policy to be had'],
  ['not-implemented', 'a relay asked, and the domain has no MTA-STS: nothing stored'],
];

function reportOutcomes(
  residents: readonly Resident[],
  records: ReadonlyMap<string, PolicyRecord>,
  start: number,
) {
  heading('Outcomes');
  const outcomes = residents.map((resident) => becameOf(resident, records, start));
  const rows = MEANINGS.map(([kind, meaning]) => {
    const count = String(outcomes.filter((outcome) => outcome === kind).length);
    return [kind, count.padStart(4), paint('dim', meaning)];
  });
  for (const line of table(rows)) console.log(`  ${line}`);
}

function reportSpread(internet: Internet, residents: readonly Resident[], start: number) {
  const times = residents
    .filter((resident) => resident.seed !== undefined)
    .flatMap(({ domain }) => internet.traffic.firstLookup(domain) ?? [])
    .map((at) => Math.floor((at - start) / 1_000 / BUCKET_SECONDS));
  const buckets = SPREAD_SECONDS / BUCKET_SECONDS;
  const counts = Array.from(
    { length: Math.max(buckets, ...times.map((time) => time + 1)) },
    (_, bucket) => times.filter((time) => time === bucket).length,
  );
  const waves = new Set([0]);
  for (let at = WAVE_SECONDS + LATENESS_SECONDS; at < SPREAD_SECONDS; at += WAVE_SECONDS) {
    waves.add(Math.floor(at / BUCKET_SECONDS));
  }
  const marks = counts.map((_, bucket) => (waves.has(bucket) ? '╷' : ' ').padEnd(COLUMN_WIDTH)).join('');
  const scale = `0 s${`${SPREAD_SECONDS} s`.padStart(buckets * COLUMN_WIDTH)}`;
  heading(`When the refreshes really began (at most ${Math.max(...counts)} in ${BUCKET_SECONDS} seconds)`);
  console.log(`  ${paint('cyan', columns(counts, COLUMN_WIDTH))}`);
  for (const line of [
    marks.trimEnd(),
    scale,
    '╷ a wave begins: the first is sent by plan itself, the later ones by dispatch',
  ]) {
    console.log(`  ${paint('dim', line)}`);
  }
}

function reportFailures(entries: readonly LogEntry[]) {
  const failures = entries.filter((entry) => entry.level === 'WARN' && entry.domain !== undefined);
  heading(
    `Warnings: ${failures.length} domains that failed, or whose policy was fetched although the record could not be had`,
  );
  const groups = [...Map.groupBy(failures, (entry) => entry.code ?? '')].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [code, group] of groups) {
    const domains = group.map((entry) => entry.domain).sort();
    const more = domains.length > MAX_IN_LINE ? `, … and ${domains.length - MAX_IN_LINE} more` : '';
    console.log(
      `  ${paint('yellow', code)} (${group.length})  ${domains.slice(0, MAX_IN_LINE).join(', ')}${more}`,
    );
    console.log(`    ${paint('dim', `such as: ${group[0]?.detail ?? ''}`)}`);
  }
}

function reportTable(
  residents: readonly Resident[],
  records: ReadonlyMap<string, PolicyRecord>,
  now: number,
) {
  const pruned = residents.filter(({ expected, domain }) => expected === 'pruned' && !records.has(domain));
  heading(`Pruned: ${pruned.length}`);
  list(
    pruned.map(({ domain }) => domain),
    3,
  );
  const all = [...records.values()];
  const valid = all.filter((record) => !record.backoff && record.validEnd > now);
  const expiring = valid
    .filter((record) => record.validEnd < now + EXPIRING_HOURS * HOUR)
    .sort((a, b) => a.validEnd - b.validEnd);
  heading('The table now');
  console.log(
    `  ${valid.length} of ${all.length} policies are valid; ${expiring.length} of them expire within ` +
      `${EXPIRING_HOURS} hours, and are tried every hour until then:`,
  );
  list(
    expiring.map(({ domain, validEnd, failing }) => {
      const left = ((validEnd - now) / HOUR).toFixed(1);
      return `${domain} expires in ${left} h, failing with ${failing?.code ?? 'nothing'}`;
    }),
  );
}

function heading(text: string) {
  console.log(`\n${paint('bold', text)}`);
}

function list(lines: readonly string[], most = MAX_LISTED) {
  for (const line of lines.slice(0, most)) console.log(`  ${line}`);
  if (lines.length > most) console.log(paint('dim', `  … and ${lines.length - most} more`));
}

function seconds(ms: number): string {
  return (ms / 1_000).toFixed(0);
}
