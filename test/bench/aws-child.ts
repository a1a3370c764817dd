// A stand-in for DynamoDB, SQS and Scheduler that does next to nothing: it answers by rule, remembers times instead of
// items, and so takes the services out of a figure. What they really do is tested elsewhere.

import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage } from 'node:http';
import { listenOnLoopback } from '../../infra/local/loopback.ts';
import { type BenchItem, domainName, itemOf } from './domains.ts';
import { attributesOf, itemBytes } from './items.ts';
import { serve } from './remote.ts';

/** What a page of a scan examines at most. */
const PAGE_BYTES = 1_048_576;

/** Of the simulation's population, what ends within six hours: see `npm run simulate`, renewals a day / 24. */
const RENEWED_ONE_IN = 26;
const ENDS_SOON_MS = 10_800_000;

export interface Sent {
  /** Messages by the second in which they become visible, from the start of the window on. */
  readonly seconds: readonly number[];
  readonly schedules: readonly { readonly at: number; readonly input: string }[];
}

export type AwsOperations = {
  start(): Promise<string>;
  /** From now on a scan has so many items, all of them stale. @returns their mean size in bytes. */
  fill(count: number): number;
  /** Forgets what was sent; delays count from `from`, and the clock is ahead by `clockMs`. */
  begin(from: number): void;
  clock(aheadMs: number): void;
  sent(): Sent;
  /** When each domain's item was written, epoch milliseconds. */
  written(): ReadonlyMap<string, number>;
};

let count = 0;
let filledAt = 0;
let itemsPerPage = 1;
let windowFrom = 0;
let clockMs = 0;
let seconds: number[] = [];
let schedules: { at: number; input: string }[] = [];
const writes = new Map<string, number>();

type Body = Record<string, unknown>;

const OPERATIONS: Readonly<Record<string, (body: Body) => object | string>> = {
  Scan({ Segment, TotalSegments, ExclusiveStartKey, ExpressionAttributeValues }) {
    // A renewal run asks for nothing that is stale: of what it examines it gets what ends soon.
    const { ':updated': updated } = ExpressionAttributeValues as Record<string, { N: string }>;
    const every = Number(updated?.N) > 0 ? 1 : RENEWED_ONE_IN;
    const [segment, segments] = [Number(Segment ?? 0), Number(TotalSegments ?? 1)];
    const end = Math.floor((count * (segment + 1)) / segments);
    const [, last] = /^d(\d+)\./.exec((ExclusiveStartKey as Key | undefined)?.Domain.S ?? '') ?? [];
    const start = last === undefined ? Math.floor((count * segment) / segments) : Number(last) + 1;
    const stop = Math.min(start + itemsPerPage, end);
    const items: string[] = [];
    for (let i = start; i < stop; i++) {
      if (i % every === 0) items.push(scanned(itemOf(domainName(i, 'same'), filledAt), every > 1));
    }
    const more = stop < end ? `,"LastEvaluatedKey":{"Domain":{"S":"${domainName(stop - 1, 'same')}"}}` : '';
    return `{"Count":${items.length},"ScannedCount":${stop - start},"Items":[${items.join(',')}]${more}}`;
  },
  BatchGetItem({ RequestItems }) {
    const [[table = '', { Keys: keys }] = ['', { Keys: [] }]] = Object.entries(
      RequestItems as Record<string, { Keys: Key[] }>,
    );
    // PolicyText is not asked for.
    const items = keys.map(({ Domain }) => {
      const { PolicyText: _, ...item } = attributesOf(itemOf(Domain.S, filledAt));
      return item;
    });
    return { Responses: { [table]: items }, UnprocessedKeys: {} };
  },
  UpdateItem({ Key: key }) {
    writes.set((key as Key).Domain.S, Date.now());
    return {};
  },
  DeleteItem: () => ({}),
  SendMessageBatch({ Entries }) {
    const now = Date.now() + clockMs;
    const Successful = (Entries as Entry[]).map(({ Id, MessageBody, DelaySeconds = 0 }) => {
      const second = Math.max(Math.floor((now - windowFrom) / 1_000 + DelaySeconds), 0);
      seconds[second] = (seconds[second] ?? 0) + 1;
      return { Id, MessageId: Id, MD5OfMessageBody: createHash('md5').update(MessageBody).digest('hex') };
    });
    return { Successful, Failed: [] };
  },
};

interface Key {
  readonly Domain: { readonly S: string };
}

interface Entry {
  readonly Id: string;
  readonly MessageBody: string;
  readonly DelaySeconds?: number;
}

/** What the scan asks for of an item, as JSON. */
function scanned({ domain, policy, lastUpdate, lastFetch }: BenchItem, endsSoon: boolean): string {
  const validEnd = endsSoon ? filledAt + ENDS_SOON_MS : lastUpdate + policy.maxAgeSeconds * 1_000;
  return (
    `{"Domain":{"S":"${domain}"},"LastUpdate":{"N":"${lastUpdate}"},"LastUse":{"N":"${lastUpdate}"},` +
    `"LastFetch":{"N":"${lastFetch}"},"Mode":{"S":"enforce"},"Backoff":{"BOOL":false},"ValidEnd":{"N":"${validEnd}"}}`
  );
}

async function answer(request: IncomingMessage): Promise<object | string> {
  const body = JSON.parse(Buffer.concat(await request.toArray()).toString()) as Body;
  const target = request.headers['x-amz-target'];
  if (typeof target === 'string') {
    const operation = OPERATIONS[target.slice(target.lastIndexOf('.') + 1)];
    if (operation === undefined) throw new Error(`the bench has no ${target}`);
    return operation(body);
  }
  const { ScheduleExpression, Target } = body as { ScheduleExpression: string; Target: { Input: string } };
  schedules.push({ at: Date.parse(`${ScheduleExpression.slice(3, -1)}Z`), input: Target.Input });
  return { ScheduleArn: 'arn:aws:scheduler:us-east-1:000000000000:schedule/waves/bench' };
}

const server = createServer((request, response) => {
  answer(request).then(
    (value) => {
      response.setHeader('content-type', 'application/x-amz-json-1.0');
      response.end(typeof value === 'string' ? value : JSON.stringify(value));
    },
    (error: Error) => {
      response.statusCode = 500;
      response.end(JSON.stringify({ __type: 'InternalServerError', message: error.stack }));
    },
  );
});
// Clients keep their connections for as long as they like.
server.keepAliveTimeout = 0;

serve({
  start: async () => (await listenOnLoopback(server)).endpoint,
  fill(howMany) {
    [count, filledAt] = [howMany, Date.now()];
    const sample = Array.from({ length: Math.min(howMany, 1_000) }, (_, i) =>
      itemOf(domainName(i, 'same'), filledAt),
    );
    const bytes =
      sample.reduce((sum, item) => sum + itemBytes(attributesOf(item)), 0) / Math.max(sample.length, 1);
    itemsPerPage = Math.max(Math.floor(PAGE_BYTES / bytes), 1);
    return bytes;
  },
  begin(from) {
    [windowFrom, seconds, schedules] = [from, [], []];
    writes.clear();
  },
  clock(aheadMs) {
    clockMs = aheadMs;
  },
  sent: () => ({ seconds: Array.from(seconds, (messages) => messages ?? 0), schedules }),
  written: () => writes,
} satisfies AwsOperations);
