// What a real DynamoDB cannot be asked to do on time: leave keys unread, fail in the middle of a scan, hold anything.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type AttributeValue,
  BatchGetItemCommand,
  ConditionalCheckFailedException,
  type DynamoDBClient,
  ScanCommand,
} from '@aws-sdk/client-dynamodb';
import { createDynamoStore } from '../../../functions/store/dynamo.ts';
import { domain } from './contract.ts';

type Item = Record<string, AttributeValue>;

const TABLE = 'policies';
const RANGE = { updatedBefore: 10, usedBefore: 0, expiringBefore: 0, updatedAfter: 20 };

/** A client that answers each command as told, and fails on every other. */
function fakeClient(answer: {
  scan?: (input: ScanCommand['input']) => Promise<unknown>;
  read?: (keys: string[]) => { items?: Item[]; unprocessed?: string[] };
  write?: () => Promise<unknown>;
}): DynamoDBClient {
  const send = async (command: unknown) => {
    if (command instanceof ScanCommand && answer.scan) return answer.scan(command.input);
    if (command instanceof BatchGetItemCommand && answer.read) {
      const { Keys: keys = [], ConsistentRead } = command.input.RequestItems?.[TABLE] ?? {};
      assert.equal(ConsistentRead, true, 'a task whose item has moved on would go unnoticed');
      const { items = [], unprocessed } = answer.read(keys.map((key) => key.Domain?.S ?? ''));
      const left = unprocessed?.map((name) => ({ Domain: { S: name } }));
      return {
        Responses: { [TABLE]: items },
        UnprocessedKeys: left === undefined || left.length === 0 ? {} : { [TABLE]: { Keys: left } },
      };
    }
    if (answer.write) return answer.write();
    throw new Error('this command was not expected');
  };
  return { send } as unknown as DynamoDBClient;
}

function entry(name: string): Item {
  return {
    Domain: { S: name },
    ValidEnd: { N: '9' },
    Mode: { S: 'none' },
    MaxAgeSeconds: { N: '1' },
    LastUpdate: { N: '1' },
  };
}

describe('read, where the database leaves keys unread', () => {
  const names = Array.from({ length: 150 }, (_, i) => domain(`d${i}.example`));

  test('asks for those again, after pauses that grow', async () => {
    const pauses: number[] = [];
    const asked: number[] = [];
    const store = createDynamoStore({
      table: TABLE,
      pause: async (milliseconds) => pauses.push(milliseconds),
      client: fakeClient({
        read(keys) {
          asked.push(keys.length);
          const served = Math.ceil(keys.length / 2);
          return { items: keys.slice(0, served).map(entry), unprocessed: keys.slice(served) };
        },
      }),
    });
    const { records, unread } = await store.read(names.slice(0, 10));
    assert.deepEqual([...records.keys()], names.slice(0, 10));
    assert.deepEqual([...unread], []);
    assert.deepEqual(asked, [10, 5, 2, 1]);
    assert.deepEqual(pauses, [50, 100, 200]);
  });

  test('gives up after a while, and says which are unread', async () => {
    const pauses: number[] = [];
    const slow = new Set<string>([names[3], names[140]].map(String));
    const store = createDynamoStore({
      table: TABLE,
      pause: async (milliseconds) => pauses.push(milliseconds),
      client: fakeClient({
        read: (keys) => ({
          items: keys.filter((key) => !slow.has(key)).map(entry),
          unprocessed: keys.filter((key) => slow.has(key)),
        }),
      }),
    });
    const { records, unread, unreadable } = await store.read(names);
    assert.equal(records.size, 148);
    assert.deepEqual([...unread], [names[3], names[140]]);
    assert.deepEqual(unreadable, []);
    assert.deepEqual(
      pauses.toSorted((a, b) => a - b),
      [50, 50, 100, 100, 200, 200, 400, 400],
    );
  });

  test('asks for each domain once, and for no more than 100 in one call', async () => {
    const asked: string[][] = [];
    const store = createDynamoStore({
      table: TABLE,
      client: fakeClient({
        read(keys) {
          asked.push(keys);
          return {};
        },
      }),
    });
    await store.read([...names, ...names]);
    assert.deepEqual(
      asked.map((keys) => keys.length),
      [100, 50],
    );
    assert.equal(new Set(asked.flat()).size, 150);
  });

  test('rejects for a fault of the database', async () => {
    const fault = new Error('no connection');
    const store = createDynamoStore({
      table: TABLE,
      client: fakeClient({
        read() {
          throw fault;
        },
      }),
    });
    await assert.rejects(store.read(names), fault);
  });
});

describe('scan', () => {
  const FAULT = new Error('throttled');

  const PAGES = 50;

  /** Three parts of fifty pages, each answered after a moment; part 1 fails at its second page if told to. */
  function threeParts({ failing = false } = {}) {
    const state = { begun: 0, ended: 0 };
    const client = fakeClient({
      async scan({ Segment, ExclusiveStartKey }) {
        state.begun++;
        await delay(1);
        state.ended++;
        if (failing && Segment === 1 && ExclusiveStartKey !== undefined) throw FAULT;
        const page = Number(ExclusiveStartKey?.Domain?.S ?? 0) + 1;
        return {
          Items: [entry(`part${Segment}.example`)],
          ScannedCount: 7,
          LastEvaluatedKey: page < PAGES ? { Domain: { S: String(page) } } : undefined,
        };
      },
    });
    return { state, store: createDynamoStore({ client, table: TABLE, scanSegments: 3 }) };
  }

  test('takes the parts’ pages in turn, so that a failing part is noticed soon', async () => {
    const { store } = threeParts();
    const seen: string[] = [];
    for await (const { records, examined } of store.scan(RANGE)) {
      assert.equal(examined, 7);
      for (const record of records) seen.push(record.domain);
      if (seen.length === 9) break;
      await delay(5);
    }
    assert.deepEqual(
      seen.sort(),
      [0, 1, 2].flatMap((part) => Array(3).fill(`part${part}.example`)),
    );
  });

  test('ends when every part has ended', async () => {
    const { store, state } = threeParts();
    let pages = 0;
    for await (const _ of store.scan(RANGE)) pages++;
    assert.equal(pages, 3 * PAGES);
    assert.equal(state.begun, 3 * PAGES);
  });

  test('reads one page of each part ahead, however slow its consumer', async () => {
    const { store, state } = threeParts();
    let pages = 0;
    for await (const _ of store.scan(RANGE)) {
      await delay(10);
      assert.ok(state.begun - pages <= 4, `${state.begun} pages read when ${pages} were consumed`);
      if (++pages === 6) break;
    }
  });

  test('leaves nothing running when its consumer stops early', async () => {
    const { store, state } = threeParts();
    for await (const _ of store.scan(RANGE)) break;
    assert.equal(state.begun, state.ended);
    const { begun } = state;
    await delay(20);
    assert.equal(state.begun, begun);
  });

  test('asks for nothing before anybody consumes it', async () => {
    const { store, state } = threeParts();
    store.scan(RANGE);
    await delay(5);
    assert.equal(state.begun, 0);
  });

  // The test runner fails a test in which a rejection was left unhandled: that would end a function's process.
  test('rejects when a part fails, also while the consumer is busy, and leaves nothing running', async () => {
    const { store, state } = threeParts({ failing: true });
    await assert.rejects(async () => {
      for await (const _ of store.scan(RANGE)) await delay(20);
    }, FAULT);
    assert.equal(state.begun, state.ended);
  });

  test('swallows the failure of a part that its consumer did not wait for', async () => {
    const { store, state } = threeParts({ failing: true });
    let pages = 0;
    for await (const _ of store.scan(RANGE)) {
      await delay(20);
      if (++pages === 2) break;
    }
    assert.equal(state.begun, state.ended);
    await delay(20);
  });

  test('rejects when the consumer’s own work fails, and leaves nothing running', async () => {
    const { store, state } = threeParts();
    const mine = new Error('mine');
    await assert.rejects(async () => {
      for await (const _ of store.scan(RANGE)) throw mine;
    }, mine);
    assert.equal(state.begun, state.ended);
  });
});

test('a write that fails for any other reason than its condition rejects', async () => {
  const change = { kind: 'extend', validEnd: 2, lastUpdate: 2 } as const;
  const failingWith = (error: Error) =>
    createDynamoStore({ table: TABLE, client: fakeClient({ write: () => Promise.reject(error) }) });
  const conflict = new ConditionalCheckFailedException({ message: '', $metadata: {} });
  assert.equal(await failingWith(conflict).write(domain('a.example'), change, 1), 'conflict');
  const fault = Object.assign(new Error('slow down'), { name: 'ThrottlingException' });
  await assert.rejects(failingWith(fault).write(domain('a.example'), change, 1), fault);
  await assert.rejects(failingWith(fault).write(domain('a.example'), { kind: 'remove' }, 1), fault);
  await assert.rejects(failingWith(fault).prune(domain('a.example'), 1, 1), fault);
  await assert.rejects(failingWith(fault).touch(domain('a.example'), 2, 1), fault);
  assert.equal(await failingWith(conflict).admitDiscovery('a.example', 1, 0), false);
  await assert.rejects(failingWith(fault).admitDiscovery('a.example', 1, 0), fault);
});
