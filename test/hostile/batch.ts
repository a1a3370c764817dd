// A batch of a hundred domains, played by the refresh function as it is deployed: bundled, in a process of its own,
// with the limits it has there.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { build } from 'esbuild';
import type { FailureCode } from '../../functions/mtasts/failure.ts';
import { LIMITS } from '../../functions/mtasts/limits.ts';
import { encodeTask } from '../../functions/refresh/task.ts';
import { createDynamoStore } from '../../functions/store/dynamo.ts';
import type { PolicyRecord } from '../../functions/store/policy-store.ts';
import { createPolicyTable, startDynamoDb } from '../../infra/local/dynamodb.ts';
import { localClientConfig } from '../../infra/local/environment.ts';
import { LocalFunction } from '../../infra/local/function.ts';
import { type Internet, type Site, startInternet } from '../../infra/local/internet/internet.ts';
import type { Name, PolicyHost } from '../../infra/local/internet/site.ts';
import { seed } from '../../infra/local/seed.ts';
import { policyDomain } from '../functions/mtasts/network.ts';
import { makeFolder, until } from '../resources.ts';
import { HELD } from './frame.ts';
import { answering } from './https.ts';

export interface Member {
  readonly name: string;
  /** The policy held is extended or replaced, or kept for a failure. */
  readonly ends: 'extended' | 'replaced' | FailureCode;
  readonly does: Site;
}

interface Ended extends Member {
  readonly entry: PolicyRecord;
  /** Milliseconds from the start of the batch until the entry was refreshed, or the attempt failed. */
  readonly tookMs: number;
}

interface Report {
  readonly members: readonly Ended[];
  /** Of the whole batch, in the function's process. */
  readonly tookMs: number;
  /** The most memory that the function's process has had so far, resident. */
  readonly peakBytes: number;
}

export interface Fleet {
  readonly internet: Internet;
  /** Holds a policy of every member, gives all of them to one invocation, and reads what became of it. */
  refresh(members: readonly Member[]): Promise<Report>;
}

/** Where a provider has all its customers, where sound domains are, and where the hostile ones are, each alone. */
export const PROVIDER = '127.0.0.1';
const SOUND = repeat(20, (index) => `127.0.1.${index + 1}`);
const HOSTILE = repeat(30, (index) => `127.0.2.${index + 1}`);

export function repeat<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_, index) => make(index));
}

/** Why there can be no fleet here, if there can be none. */
export const noFleet = process.platform === 'darwin' && 'loopback has one IPv4 address';

export async function startFleet(t: TestContext): Promise<Fleet> {
  const internet = await startInternet({ policyHostAddresses: [PROVIDER, ...SOUND, ...HOSTILE] });
  t.after(() => internet.close());
  const database = await startDynamoDb();
  t.after(() => database.close());
  const client = new DynamoDBClient(localClientConfig(database.endpoint));
  t.after(() => client.destroy());
  const lines: string[] = [];
  const refresh = new LocalFunction({
    name: 'refresh',
    handler: await bundled(t, join(import.meta.dirname, 'fixtures/refresh.ts')),
    endpoints: { dynamodb: database.endpoint, sqs: 'http://127.0.0.1:1', scheduler: 'http://127.0.0.1:1' },
    caFile: internet.caFile,
    variables: {
      POLICY_TABLE: 'policies',
      DNS_SERVERS: internet.dnsServer,
      POLICY_HOST_PORT: String(internet.policyHostPort),
      ALLOW_PRIVATE_ADDRESSES: '1',
      POWERTOOLS_LOG_LEVEL: 'SILENT',
    },
    timeoutSeconds: 150,
    concurrency: 1,
    onLine: (_, line) => lines.push(line),
  });
  t.after(() => refresh.close());
  await createPolicyTable(client, 'policies');
  const store = createDynamoStore({ client, table: 'policies' });
  // So that what is measured is no cold start.
  await refresh.invoke({ Records: [] });

  let batches = 0;
  return {
    internet,
    async refresh(members) {
      batches += 1;
      const fetched = Date.now() - 3_600_000;
      const domains = members.map((_, index) => policyDomain(`d${index}.batch${batches}.test`));
      for (const [index, domain] of domains.entries()) {
        internet.set(domain, members[index]?.does ?? {});
        await seed(store, { domain, policy: HELD, recordId: 'id1', inserted: fetched, lastUpdate: fetched });
      }
      lines.length = 0;
      const answer = await refresh.invoke({
        Records: domains.map((domain) => ({
          messageId: domain,
          body: encodeTask({ domain, lastUpdate: fetched }),
          attributes: { ApproximateReceiveCount: '1' },
        })),
      });
      assert.deepEqual(answer, { batchItemFailures: [] });
      const report = lines.find((line) => line.includes('"peakBytes"'));

      const { started, ended, peakBytes, resources } = JSON.parse(report ?? '{}');
      await assertNothingLeft(internet, resources);

      const { records } = await store.read(domains);
      const left = members.map((member, index): Ended => {
        const entry = records.get(domains[index] ?? policyDomain('none.test'));
        assert.ok(entry, member.name);
        return { ...member, entry, tookMs: (entry.failing?.lastAttempt ?? entry.lastUpdate) - started };
      });
      for (const { name, ends, entry } of left) assert.equal(endOf(entry, fetched), ends, name);
      return { members: left, tookMs: ended - started, peakBytes };
    },
  };
}

function endOf({ failing, lastFetch, lastUpdate, policy }: PolicyRecord, fetched: number): string {
  if (failing === undefined) return lastFetch === fetched ? 'extended' : 'replaced';
  // RFC 8461 §3.3: what is held stays as it is.
  assert.deepEqual([policy, lastUpdate, lastFetch], [HELD, fetched, fetched]);
  return failing.code;
}

/** As osls does it, see serverless.yml. */
async function bundled(t: TestContext, entry: string): Promise<string> {
  const folder = await makeFolder(t, 'bundle');
  const outfile = join(folder, 'refresh.mjs');
  await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    minify: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    mainFields: ['module', 'main'],
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  });
  return outfile;
}

/** @param resources what keeps the function's process from ending, of which only its pipes to this one may be left. */
async function assertNothingLeft(internet: Internet, resources: readonly string[]): Promise<void> {
  assert.deepEqual(
    resources.filter((resource) => resource !== 'PipeWrap'),
    [],
  );
  // A client that has left may not have been noticed yet.
  await until(() => internet.openSockets() === 0, 'every client has left');
}

export const NEW_ID: Name = { txt: [['v=STSv1; id=id2;']] };
const SAME_ID: Name = { txt: [['v=STSv1; id=id1;']] };

/** A sound domain at this address, with the policy that is held (`extended`) or a new one. */
export function soundMember(
  name: string,
  ends: 'extended' | 'replaced',
  address: string | undefined,
  delayMs = 0,
): Member {
  const record = ends === 'extended' ? SAME_ID : NEW_ID;
  return { name, ends, does: { record, host: { a: [address ?? PROVIDER] }, https: answering({ delayMs }) } };
}

/** What a hostile domain does; DNS is sound where nothing is said about it. */
export type Hostile = readonly [
  name: string,
  ends: Member['ends'],
  https: PolicyHost,
  dns?: { readonly record?: Name; readonly host?: Name },
];

/** Half of what the function has. */
const MAX_MEGABYTES = 256;
/** For a busy machine. */
const PATIENCE_MS = 30_000;

/**
 * A batch of thirty hostile domains and seventy sound ones: it takes no longer than the slowest of them, the sound
 * ones are not delayed, and memory is bounded.
 */
export async function playHostile(
  t: TestContext,
  fleet: Fleet,
  hostile: readonly Hostile[],
  slowestMs: number,
): Promise<void> {
  assert.equal(hostile.length, HOSTILE.length);
  const report = await fleet.refresh([
    ...hostile.map(([name, ends, https, { record = NEW_ID, host } = {}], index) => {
      return { name, ends, does: { record, host: host ?? { a: HOSTILE.slice(index, index + 1) }, https } };
    }),
    ...repeat(20, (index) => soundMember(`unchanged ${index}`, 'extended', SOUND[index])),
    ...repeat(50, (index) => soundMember(`changed ${index}`, 'replaced', SOUND[index % SOUND.length])),
  ]);
  const soundMs = Math.max(...report.members.slice(hostile.length).map(({ tookMs }) => tookMs));
  const megabytes = Math.round(report.peakBytes / 2 ** 20);
  t.diagnostic(
    `${hostile.length} hostile domains of ${report.members.length}: ${report.tookMs} ms, the others within ` +
      `${soundMs} ms; peak ${megabytes} MB resident`,
  );
  assert.ok(report.tookMs < slowestMs + PATIENCE_MS, 'no longer than its slowest domain');
  // The first that a hostile domain stalls in; nobody waits for its end. Where none stalls, that says nothing.
  if (slowestMs > 0) assert.ok(soundMs < LIMITS.connectMs, 'the others are not delayed');
  assert.ok(megabytes < MAX_MEGABYTES, 'memory is bounded');
}
