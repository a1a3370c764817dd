// What really reached the services, and what the database made of it: the view from outside, which owes nothing to
// what the functions believe or say.

import type { AttributeValue } from '@aws-sdk/client-dynamodb';
import { type Answer, type Call, domainInMessage, type Json } from './call.ts';

export type Item = Readonly<Record<string, AttributeValue>>;

/**
 * `refresh`: a new LastUpdate for an entry that is there; `discovery`: a new entry; `removal`: deleted under its lock;
 * `prune`: deleted for lack of use; `failure`: a note that leaves LastUpdate as it is; `use`: LastUse alone.
 */
type WriteKind = 'refresh' | 'discovery' | 'removal' | 'prune' | 'failure' | 'use';

/** A write that the database has accepted. */
export interface Write {
  readonly kind: WriteKind;
  /** Who wrote, as `Call.process`. */
  readonly process: string;
  readonly domain: string;
  /** The LastUpdate that this process had read last; undefined if it had read that there is no entry, or nothing. */
  readonly read: number | undefined;
  /** As the database says; undefined if there was none. */
  readonly before: Item | undefined;
  /** The LastUpdate that it sets. */
  readonly lastUpdate: number | undefined;
}

interface Receipt {
  readonly QueueUrl: string;
  readonly ReceiptHandle: string;
}

export interface Journal {
  /** In the order in which the database answered. */
  readonly writes: readonly Write[];
  /** Writes that the database refused for their condition. */
  readonly refused: number;
  /** Messages that a queue has accepted, by the domain that they are about. */
  readonly sent: ReadonlyMap<string, number>;
  /** Deliveries of each message, by its id. */
  readonly deliveries: ReadonlyMap<string, number>;
  /** All deliveries. */
  readonly received: number;
  /** The last receipt of each message that was delivered. */
  readonly receipts: ReadonlyMap<string, Receipt>;
  /** Puts a call to its service by `send`, and notes what becomes of it. */
  record(call: Call, body: Json, send: (body: Json) => Promise<Answer>): Promise<Answer>;
  /** Forgets everything. */
  clear(): void;
}

export function createJournal(): Journal {
  const writes: Write[] = [];
  const sent = new Map<string, number>();
  const deliveries = new Map<string, number>();
  const receipts = new Map<string, Receipt>();
  const reads = new Map<string, number | undefined>();
  const counts = { refused: 0, received: 0 };
  const count = (counted: Map<string, number>, key: string) => counted.set(key, (counted.get(key) ?? 0) + 1);

  async function write(call: Call, body: Json, send: (body: Json) => Promise<Answer>): Promise<Answer> {
    const asked = String(body.ReturnValues ?? 'NONE');
    if (asked !== 'NONE') throw new Error(`The journal cannot see behind ReturnValues ${asked}`);
    const { process } = call;
    const [domain = ''] = call.domains;
    // Before the write: what this process reads meanwhile is none of its reasons.
    const read = reads.get(`${process} ${domain}`);
    const answer = await send({ ...body, ReturnValues: 'ALL_OLD' });
    const json = JSON.parse(answer.body) as { Attributes?: Item; __type?: string };
    if (answer.status === 200) {
      // Keys that begin with "#" are of counters, and of no domain.
      if (domain.startsWith('#')) return { ...answer, body: '{}' };
      const { kind, lastUpdate } = describe(body);
      writes.push({ kind, process, domain, read, before: json.Attributes, lastUpdate });
      return { ...answer, body: '{}' };
    }
    if (json.__type?.endsWith('#ConditionalCheckFailedException')) counts.refused++;
    return answer;
  }

  function noteReads({ process }: Call, body: Json, answer: Answer): void {
    if (answer.status !== 200) return;
    const { Responses, UnprocessedKeys } = JSON.parse(answer.body) as BatchAnswer;
    for (const [table, { Keys }] of Object.entries(body.RequestItems as Tables)) {
      const unread = new Set((UnprocessedKeys?.[table]?.Keys ?? []).map((key) => key.Domain?.S));
      const items = new Map((Responses[table] ?? []).map((item) => [item.Domain?.S, item]));
      for (const { Domain } of Keys) {
        if (!unread.has(Domain?.S)) reads.set(`${process} ${Domain?.S}`, versionOf(items.get(Domain?.S)));
      }
    }
  }

  return {
    writes,
    sent,
    deliveries,
    receipts,
    get refused() {
      return counts.refused;
    },
    get received() {
      return counts.received;
    },
    async record(call, body, send) {
      const { operation } = call;
      if (operation === 'UpdateItem' || operation === 'DeleteItem') return write(call, body, send);
      const answer = await send(body);
      if (operation === 'BatchGetItem') noteReads(call, body, answer);
      if (operation === 'SendMessageBatch' && answer.status === 200) {
        const { Successful = [] } = JSON.parse(answer.body) as { Successful?: { Id: string }[] };
        const accepted = new Set(Successful.map(({ Id }) => Id));
        for (const { Id, MessageBody } of body.Entries as { Id: string; MessageBody: string }[]) {
          if (accepted.has(Id)) for (const domain of domainInMessage(MessageBody)) count(sent, domain);
        }
      }
      if (operation === 'ReceiveMessage' && answer.status === 200) {
        const { Messages = [] } = JSON.parse(answer.body) as { Messages?: Delivered[] };
        for (const { MessageId, ReceiptHandle } of Messages) {
          count(deliveries, MessageId);
          counts.received++;
          receipts.set(MessageId, { QueueUrl: String(body.QueueUrl), ReceiptHandle });
        }
      }
      return answer;
    },
    clear() {
      writes.length = 0;
      counts.refused = 0;
      counts.received = 0;
      for (const map of [sent, deliveries, receipts, reads]) map.clear();
    },
  };
}

type Tables = Readonly<Record<string, { readonly Keys: readonly Item[] }>>;

interface Delivered {
  readonly MessageId: string;
  readonly ReceiptHandle: string;
}

interface BatchAnswer {
  readonly Responses: Readonly<Record<string, readonly Item[]>>;
  readonly UnprocessedKeys?: Tables;
}

export function versionOf(item: Item | undefined): number | undefined {
  return item?.LastUpdate?.N === undefined ? undefined : Number(item.LastUpdate.N);
}

/** What a write is, by the attributes that it names. */
function describe(body: Json): Pick<Write, 'kind' | 'lastUpdate'> {
  const names = (body.ExpressionAttributeNames ?? {}) as Record<string, string>;
  const values = (body.ExpressionAttributeValues ?? {}) as Item;
  const [setting = ''] = String(body.UpdateExpression ?? '').split(/\bREMOVE\b/);
  if (setting === '') {
    return { kind: Object.values(names).includes('LastUse') ? 'prune' : 'removal', lastUpdate: undefined };
  }
  const set = new Map(
    [...setting.matchAll(/(#\w+)\s*=\s*(:\w+)/g)].map(([, name = '', value = '']) => [
      names[name],
      values[value],
    ]),
  );
  const lastUpdate = set.get('LastUpdate')?.N;
  if (lastUpdate !== undefined) {
    return { kind: set.has('Inserted') ? 'discovery' : 'refresh', lastUpdate: Number(lastUpdate) };
  }
  return { kind: set.has('LastAttempt') ? 'failure' : 'use', lastUpdate: undefined };
}
