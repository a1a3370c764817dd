// The store of the simulation does what the real one does: both are given the same random writes, and must answer and
// hold the same.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Domain } from '../../functions/mtasts/domain.ts';
import type { Change, PolicyStore, ScannedRecord, ScanRange } from '../../functions/store/policy-store.ts';
import { seeded } from '../functions/dispatch/tasks.ts';
import { DAY, NEW, NOW, OLD, startTables } from '../functions/refresh/scene.ts';
import { MemoryStore } from './memory-store.ts';

const createTable = await startTables();
const DOMAINS = ['a.example', 'b.example', 'c.example'] as Domain[];

function changes(random: () => number, now: number): Change[] {
  const recordId = random() < 0.8 ? 'id1' : undefined;
  const [policy, backoff, lastFetch] = [
    random() < 0.5 ? OLD : NEW,
    random() < 0.3,
    random() < 0.8 ? now : undefined,
  ];
  const written = {
    policy,
    policyText: '',
    backoff,
    validEnd: now + DAY,
    recordId,
    lastUpdate: now,
    lastFetch,
  };
  return [
    { kind: 'insert', ...written },
    { kind: 'replace', ...written },
    { kind: 'extend', validEnd: now + 2 * DAY, lastUpdate: now },
    { kind: 'fail', lastAttempt: now, code: 'http-status', since: now - 1, recordId },
    { kind: 'remove' },
  ];
}

async function scanned(store: PolicyStore, range: ScanRange) {
  const records: ScannedRecord[] = [];
  let examined = 0;
  for await (const page of store.scan(range)) {
    records.push(...page.records);
    examined += page.examined;
  }
  return { records: records.sort((a, b) => (a.domain < b.domain ? -1 : 1)), examined };
}

test('the same writes have the same results as in DynamoDB', async () => {
  const { store: real } = await createTable();
  const memory = new MemoryStore();
  const random = seeded(1);
  const draw = <T>(from: readonly T[]) => from[Math.floor(random() * from.length)] as T;
  const results = new Set<string>();
  for (let i = 0, now = NOW; i < 250; i++, now += 1 + Math.floor(random() * 1_000)) {
    const domain = draw(DOMAINS);
    const change = draw(changes(random, now));
    const lock = (memory.get(domain)?.lastUpdate ?? now) - (random() < 0.15 ? 1 : 0);
    const bound = now - Math.floor(random() * 3_000);
    const actions: Record<string, (store: PolicyStore) => Promise<string>> = {
      [change.kind]: (store) => store.write(domain, change, change.kind === 'insert' ? undefined : lock),
      touch: (store) => store.touch(domain, now, bound),
      prune: (store) => store.prune(domain, bound, lock),
      admit: async (store) => String(await store.admitDiscovery(within, 3, now)),
    };
    const within = draw(['example', undefined]);
    const kind = draw([change.kind, change.kind, change.kind, change.kind, 'touch', 'prune', 'admit']);
    const expected = await actions[kind]?.(real);
    assert.equal(await actions[kind]?.(memory), expected, kind);
    results.add(`${kind} ${expected}`);

    const [held, stored] = [await memory.read([domain]), await real.read([domain])];
    assert.deepEqual(held.records.get(domain), stored.records.get(domain));
    if (i % 5 > 0) continue;
    const updatedAfter = random() < 0.5 ? bound : Number.POSITIVE_INFINITY;
    const range = {
      updatedBefore: bound - 1_500,
      usedBefore: bound - 2_000,
      expiringBefore: bound + DAY,
      updatedAfter,
    };
    assert.deepEqual(await scanned(memory, range), await scanned(real, range));
  }
  // Each of the eight happened, and each was refused.
  assert.equal(results.size, 16, [...results].sort().join(', '));
});

test('an insert, and nothing else, is for a domain without an entry', async () => {
  const store = new MemoryStore();
  const [domain] = DOMAINS as [Domain];
  await assert.rejects(store.write(domain, { kind: 'remove' }, undefined), TypeError);
  assert.equal(await store.write(domain, { kind: 'remove' }, NOW), 'conflict');
  assert.deepEqual(await store.read(DOMAINS), { records: new Map(), unread: new Set(), unreadable: [] });
});

test('the observer sees what was and what is', async () => {
  const seen: string[] = [];
  const store = new MemoryStore((before, after) => seen.push(`${before?.lastUpdate} ${after?.lastUpdate}`));
  const [domain] = DOMAINS as [Domain];
  const written = { policy: OLD, policyText: '', backoff: false, recordId: 'id1', lastFetch: undefined };
  await store.write(domain, { kind: 'insert', ...written, validEnd: 5, lastUpdate: 1 }, undefined);
  await store.write(domain, { kind: 'extend', validEnd: 6, lastUpdate: 2 }, 1);
  await store.write(domain, { kind: 'extend', validEnd: 6, lastUpdate: 3 }, 1);
  await store.prune(domain, 2, 2);
  assert.deepEqual(seen, ['undefined 1', '1 2', '2 undefined']);
});
