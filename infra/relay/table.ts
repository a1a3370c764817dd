// The shared table, one item at a time: GetItem is all that a relay may do with it.

import { type DynamoDBClient, GetItemCommand } from '@aws-sdk/client-dynamodb';
import type { Domain } from '../../functions/mtasts/domain.ts';
import { decodePolicyItem } from '../../functions/store/dynamo.ts';
import type { PolicyRecord } from '../../functions/store/policy-store.ts';
import { createCircuit } from './circuit.ts';
import type { Clock } from './clock.ts';
import { type Entry, entryOf } from './entry.ts';
import type { Observer } from './metrics.ts';

/**
 * "Absent", "unreadable" and "failed" are three things: only the first is the table's word that there is nothing. Reasons
 * are fit for a log line.
 */
export type Read =
  | { readonly kind: 'item'; readonly entry: Entry; readonly record: PolicyRecord }
  | { readonly kind: 'absent' }
  /** There is an item that breaks the contract. */
  | { readonly kind: 'unreadable'; readonly reason: string }
  /** The table did not answer, or refused to. */
  | { readonly kind: 'failed'; readonly reason: string };

/** Milliseconds for a read. GetItem takes some 5 ms; what takes a hundred times as long is an outage. */
export const READ_MS = 700;

export interface Table {
  /** Whether a read would fail at once, because the table is down. */
  refuses(): boolean;
  /**
   * @param options.consistent sees what was just written; costs twice as much.
   * @param options.milliseconds after which the read has failed; if that is less than READ_MS, it is no outage of the table.
   */
  read(domain: Domain, options: { consistent: boolean; milliseconds: number }): Promise<Read>;
}

export function createTable(options: {
  readonly client: Pick<DynamoDBClient, 'send'>;
  readonly tableName: string;
  readonly clock: Clock;
  readonly observer: Pick<Observer, 'count' | 'outage'>;
}): Table {
  const { client, tableName, clock, observer } = options;
  const circuit = createCircuit('table', { ...options, ordinaryMs: READ_MS });

  async function read(
    domain: Domain,
    { consistent, milliseconds }: { consistent: boolean; milliseconds: number },
  ) {
    const answer = await circuit.attempt(milliseconds, (abortSignal) =>
      client.send(
        new GetItemCommand({
          TableName: tableName,
          Key: { Domain: { S: domain } },
          ConsistentRead: consistent,
        }),
        { abortSignal },
      ),
    );
    if (!answer.ok) return { kind: 'failed', reason: answer.reason } as const;
    const item = answer.value.Item;
    // The table's contract: an item without LastUpdate is no item.
    if (item?.LastUpdate === undefined) return { kind: 'absent' } as const;
    const decoded = decodePolicyItem(item);
    if (!decoded.ok) return { kind: 'unreadable', reason: decoded.reason } as const;
    const checked = entryOf(decoded.record, clock.now());
    if (!checked.ok) return { kind: 'unreadable', reason: checked.reason } as const;
    return { kind: 'item', entry: checked.entry, record: decoded.record } as const;
  }

  return {
    refuses: circuit.refuses,
    async read(domain, how) {
      const result = await read(domain, how);
      observer.count('table_reads', { result: result.kind === 'item' ? 'found' : result.kind });
      return result;
    },
  };
}
