// A small population on a faulty stack, made anew for each run, and what became of each of its domains.

import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { BatchWriteItemCommand } from '@aws-sdk/client-dynamodb';
import { ChangeMessageVisibilityBatchCommand, PurgeQueueCommand } from '@aws-sdk/client-sqs';
import { encodeWaves } from '../../functions/dispatch/wave.ts';
import type { Domain } from '../../functions/mtasts/domain.ts';
import type { Mode } from '../../functions/mtasts/policy.ts';
import { dailyLane } from '../../functions/plan/plan.ts';
import { encodeTask } from '../../functions/refresh/task.ts';
import { type BehaviourName, behaviours, type Internet } from '../../infra/local/internet/internet.ts';
import { seed } from '../../infra/local/seed.ts';
import type { Stack } from '../../infra/local/stack.ts';
import type { Scope } from '../resources.ts';
import type { Bundles } from './bundles.ts';
import {
  DEAD_LETTER_QUEUES,
  type FaultyOptions,
  type FaultyStack,
  startFaultyStack,
} from './faulty-stack.ts';
import { breachesOf } from './invariants.ts';
import { type Item, versionOf } from './journal.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const WEEK_SECONDS = 604_800;
const AGES = { staleAfterMs: 12 * HOUR, unusedAfterMs: 180 * DAY, renewalMarginMs: 6 * HOUR };

/** What a whole run makes of a domain. */
type Due =
  | 'extended'
  | 'replaced'
  | 'kept'
  | 'removed'
  | 'pruned'
  | 'fresh'
  | 'discovered'
  | 'backed-off'
  | 'not-implemented'
  | 'used';

interface Kind {
  readonly due: Due;
  readonly behaviour: BehaviourName;
  readonly count: number;
  /** How it is in the table. */
  readonly entry?: { readonly mode?: Mode; readonly updatedAgo?: number; readonly usedAgo?: number };
}

/** For the daily run. */
const STALE: readonly Kind[] = [
  { due: 'extended', behaviour: 'healthy', count: 13, entry: {} },
  { due: 'replaced', behaviour: 'changed-policy', count: 4, entry: {} },
  { due: 'kept', behaviour: 'server-error', count: 2, entry: {} },
  { due: 'removed', behaviour: 'nxdomain', count: 2, entry: { mode: 'none' } },
  { due: 'pruned', behaviour: 'healthy', count: 2, entry: { usedAgo: 181 * DAY } },
  { due: 'fresh', behaviour: 'healthy', count: 1, entry: { updatedAgo: HOUR } },
];

/** For what relays ask. */
const ASKED: readonly Kind[] = [
  { due: 'discovered', behaviour: 'healthy', count: 12 },
  { due: 'backed-off', behaviour: 'not-found', count: 3 },
  { due: 'not-implemented', behaviour: 'nxdomain', count: 2 },
  { due: 'used', behaviour: 'healthy', count: 7, entry: { updatedAgo: HOUR, usedAgo: 2 * DAY } },
];

export interface Resident {
  readonly domain: Domain;
  readonly due: Due;
  readonly first: Item | undefined;
}

/**
 * `done`: what was due. `dead letter`: its message is in a dead-letter queue, or the invocation that had it to do.
 * `selected`: the next run takes it up. `lost`: nothing of all that.
 */
type Fate = 'done' | 'dead letter' | 'selected' | 'lost';

/** What sets the work going: a daily run; a wave for dispatch, due now; tasks in the refresh queue; what relays ask. */
export type Start = 'plan' | 'wave' | 'tasks' | 'requests';

export interface Scene extends FaultyStack {
  /** Everything as it was at first, and nothing remembered. */
  reset(): Promise<Resident[]>;
  /** Resolves when nothing of it is left under way. */
  run(start: Start, runId: string): Promise<void>;
  fates(residents: readonly Resident[], since: number): Promise<Map<Fate, Resident[]>>;
  /** What must never happen, and did. */
  breaches(residents: readonly Resident[]): Promise<string[]>;
}

export interface SceneOptions extends FaultyOptions {
  /** Its domains are there for what relays ask, instead of for the daily run. */
  readonly asked?: boolean;
}

/** For a run, and for all that comes again in it. */
const PATIENCE_MS = 100_000;

const TICK_MS = 20;

/** After so many ticks in which nothing moves, what was received will not be acknowledged any more. */
const QUIET_TICKS = 40;

/** @param label begins the names of its domains. */
export async function startScene(
  scope: Scope,
  world: { internet: Internet; bundles: Bundles },
  label: string,
  { asked = false, ...options }: SceneOptions,
): Promise<Scene> {
  const faulty = await startFaultyStack(scope, world, options);
  const { stack, store, journal, errors } = faulty;
  const TableName = stack.tableName;
  const residents = (asked ? ASKED : STALE).flatMap(({ due, behaviour, count, entry }) =>
    Array.from({ length: count }, (_, i) => ({
      ...{ due, behaviour, entry },
      domain: `${label}-${due}-${i}.test` as Domain,
    })),
  );
  for (const { domain, behaviour, entry } of residents) {
    world.internet.set(domain, behaviours[behaviour](domain));
    if (entry === undefined) continue;
    const { mode = 'enforce', updatedAgo = DAY, usedAgo = DAY } = entry;
    const now = Date.now();
    await seed(store, {
      domain,
      policy: { mode, mx: [`mail.${domain}`], maxAgeSeconds: WEEK_SECONDS },
      recordId: 'id1',
      inserted: now - 200 * DAY,
      lastUpdate: now - updatedAgo,
      lastUse: now - usedAgo,
    });
  }
  const firsts = await faulty.items();
  let resets = 0;
  let over = false;
  scope.after(() => {
    over = true;
  });

  const tasks = (due: number) =>
    residents.filter(isStale).map(({ domain }) => {
      const lastUpdate = Number(versionOf(firsts.get(domain))) + resets;
      return { domain, lastUpdate, due };
    });

  function requests(): object[] {
    const looks = residents.filter(({ entry }) => entry === undefined).map(({ domain }) => ({ domain }));
    const used = residents.filter(({ due }) => due === 'used').map(({ domain }) => domain);
    return [...looks, { used }];
  }

  /** The messages' visibility timeout is over: not after a time, which a slow machine needs, but when all is quiet. */
  async function endVisibility(): Promise<void> {
    for (const [queueUrl, receipts] of Map.groupBy(journal.receipts.values(), ({ QueueUrl }) => QueueUrl)) {
      for (let i = 0; i < receipts.length; i += 10) {
        const some = receipts.slice(i, i + 10);
        const Entries = some.map(({ ReceiptHandle }, id) => ({
          ...{ Id: String(id), ReceiptHandle },
          VisibilityTimeout: 0,
        }));
        // Those that were deleted or received again are refused, as they should be.
        await stack.sqs.send(new ChangeMessageVisibilityBatchCommand({ QueueUrl: queueUrl, Entries }));
      }
    }
  }

  /** Resolves when nothing is left under way. */
  async function settle(): Promise<void> {
    const functions = Object.values(stack.functions);
    const moves = () =>
      faulty.proxies.busy > 0 ||
      stack.scheduler.pending() > 0 ||
      functions.some(({ pending }) => pending > 0);
    const end = Date.now() + PATIENCE_MS;
    let received = journal.received;
    // Ticks and not milliseconds: those may pass while this process has no turn.
    let quiet = 0;
    // A row that has failed waits for nothing any more.
    while (!over) {
      quiet = moves() || received !== journal.received ? 0 : quiet + 1;
      received = journal.received;
      if (quiet > 0 && (await isDrained(stack))) return;
      if (Date.now() > end) return stack.drained(0);
      if (quiet === QUIET_TICKS) {
        await endVisibility();
        quiet = 0;
      }
      await delay(TICK_MS);
    }
  }

  return {
    ...faulty,

    async reset() {
      resets += 1;
      // Another version each time: what is left of the last run must not fit this one.
      const renewed = [...firsts].map(([domain, item]) => {
        const LastUpdate = { N: String(Number(item.LastUpdate?.N) + resets) };
        return [domain, { ...item, LastUpdate }] as const;
      });
      const strangers = [...(await faulty.items()).keys()].filter((domain) => !firsts.has(domain));
      const changes = [
        ...renewed.map(([, Item]) => ({ PutRequest: { Item } })),
        ...strangers.map((domain) => ({ DeleteRequest: { Key: { Domain: { S: domain } } } })),
      ];
      for (let i = 0; i < changes.length; i += 25) {
        const RequestItems = { [TableName]: changes.slice(i, i + 25) };
        await stack.dynamodb.send(new BatchWriteItemCommand({ RequestItems }));
      }
      for (const queue of DEAD_LETTER_QUEUES) {
        await stack.sqs.send(new PurgeQueueCommand({ QueueUrl: stack.queueUrls[queue] }));
      }
      journal.clear();
      errors.length = 0;
      const first = new Map<string, Item>(renewed);
      return residents.map(({ domain, due }) => ({ domain, due, first: first.get(domain) }));
    },

    async run(start, runId) {
      const { plan, dispatch } = stack.functions;
      switch (start) {
        case 'plan':
          await plan.invokeAsync({ kind: 'daily', runId });
          break;
        case 'wave':
          for (const wave of encodeWaves(runId, tasks(Date.now())))
            await dispatch.invokeAsync(JSON.parse(wave));
          break;
        case 'tasks':
          await faulty.send('refresh-queue', tasks(0).map(encodeTask));
          break;
        case 'requests': {
          const bodies = requests().map((request) => JSON.stringify(request));
          await faulty.send('request-queue', bodies);
        }
      }
      await settle();
    },

    async fates(whose, since) {
      const last = await faulty.items();
      const letters = (await faulty.deadLetters()).map(({ body }) => body);
      const selected = new Set<string>();
      const lane = dailyLane(Date.now(), AGES);
      for await (const { records } of store.scan(lane.range)) {
        for (const record of records) if (lane.judge(record).kind !== 'leave') selected.add(record.domain);
      }
      return Map.groupBy(whose, (resident): Fate => {
        const { domain } = resident;
        if (isDone(resident, last.get(domain), since)) return 'done';
        const names = (body: string) => body.includes(`"${domain}`) || body.includes('"kind":"daily"');
        if (letters.some(names)) return 'dead letter';
        return selected.has(domain) ? 'selected' : 'lost';
      });
    },

    async breaches(whose) {
      const last = await faulty.items();
      const entries = whose.map(({ domain, first }) => ({ domain, first, last: last.get(domain) }));
      return breachesOf(entries, journal.writes);
    },
  };
}

async function isDrained(stack: Stack): Promise<boolean> {
  try {
    await stack.drained(0);
    return true;
  } catch {
    return false;
  }
}

/** Whether a refresh is due. */
export function isStale({ due }: Pick<Resident, 'due'>): boolean {
  return due === 'extended' || due === 'replaced' || due === 'kept' || due === 'removed';
}

function isDone({ due, first }: Resident, item: Item | undefined, since: number): boolean {
  const fetched = Number(item?.LastFetch?.N) >= since;
  const updated = (versionOf(item) ?? 0) >= since;
  switch (due) {
    case 'extended':
      return updated && !fetched;
    case 'replaced':
      return updated && fetched && item?.RecordID?.S === 'id2';
    case 'kept':
      return versionOf(item) === versionOf(first) && Number(item?.LastAttempt?.N) >= since;
    case 'removed':
    case 'pruned':
    case 'not-implemented':
      return item === undefined;
    case 'fresh':
      return isDeepStrictEqual(item, first);
    case 'discovered':
      return updated && fetched && item?.Backoff?.BOOL === false;
    case 'backed-off':
      return updated && item?.Backoff?.BOOL === true;
    case 'used':
      return versionOf(item) === versionOf(first) && Number(item?.LastUse?.N) >= since;
  }
}
