// A provider that hosts thousands of policy domains on one address: how many connections a batch opens to it at once,
// and what becomes of the domains if it is slow.

import assert from 'node:assert/strict';
import { after, mock, test } from 'node:test';
import tls, { type TLSSocket } from 'node:tls';
import { LIMITS, type Limits } from '../../../functions/mtasts/limits.ts';
import { refreshMessages } from '../../../functions/refresh/messages.ts';
import { createRefresher } from '../../../functions/refresh/refresh.ts';
import { behaviours, type Site, startInternet } from '../../../infra/local/internet/internet.ts';
import { DAY, message, neverAborted, recordingTelemetry, startTables } from './scene.ts';

const newTable = await startTables();
const internet = await startInternet();
after(() => internet.close());
tls.setDefaultCACertificates([internet.ca]);

const NAMES = Array.from({ length: 100 }, (_, i) => `d${i}.test`);

/** Refreshes NAMES in one batch, and counts connections from when they are begun until they are closed. */
async function refreshAll(does: (name: string) => Site, limits: Partial<Limits>) {
  const table = await newTable();
  const lastUpdate = Date.now() - DAY;
  for (const name of NAMES) internet.set(name, does(name));
  await Promise.all(NAMES.map((name) => table.seed(name, { inserted: lastUpdate, lastUpdate })));
  const environment = {
    table: '',
    dnsServers: [internet.dnsServer],
    policyHostPort: internet.policyHostPort,
    allowPrivateAddresses: true,
    maxFetchAgeSeconds: 604_800,
  };
  const refresher = createRefresher(table.store, environment, { ...LIMITS, ...limits });
  const { telemetry, told } = recordingTelemetry();

  const seen = { connections: 0, open: 0, most: 0, mostAtHost: 0 };
  const connect = tls.connect as (options: tls.ConnectionOptions) => TLSSocket;
  const counting = mock.method(tls, 'connect', (options: tls.ConnectionOptions) => {
    seen.connections++;
    seen.most = Math.max(seen.most, ++seen.open);
    seen.mostAtHost = Math.max(seen.mostAtHost, internet.openSockets());
    return connect(options).once('close', () => seen.open--);
  });
  const start = performance.now();
  const messages = NAMES.map((name) => message(name, { domain: name, lastUpdate }));
  const failed = await refreshMessages(messages, { refresher, telemetry, signal: neverAborted });
  const tookMs = performance.now() - start;
  counting.mock.restore();
  return { table, failed, told, seen, tookMs };
}

test('a batch of 100 domains on one address has four connections to it at once, and refreshes them all', async () => {
  const { failed, told, seen } = await refreshAll(behaviours['changed-policy'], {});
  assert.deepEqual(failed, []);
  assert.deepEqual(told.summary(), NAMES.map((name) => `${name} replaced`).sort());
  assert.equal(LIMITS.connectionsPerAddress, 4);
  assert.deepEqual([seen.connections, seen.most, seen.open], [NAMES.length, LIMITS.connectionsPerAddress, 0]);
  // The other end knows of a connection for a moment longer.
  assert.ok(seen.mostAtHost <= 2 * LIMITS.connectionsPerAddress, `${seen.mostAtHost} at the host`);
});

test('on one address that stalls, those whose minute ends in the line are postponed and not touched', async () => {
  const stalling = (name: string): Site => ({
    ...behaviours['changed-policy'](name),
    https: { stop: { at: 'accept', how: 'hang' } },
  });
  const [connectMs, domainMs] = [200, 1_500];
  const { table, failed, told, seen, tookMs } = await refreshAll(stalling, { connectMs, domainMs });
  assert.equal(seen.most, LIMITS.connectionsPerAddress);
  assert.ok(tookMs < 2 * domainMs, `the batch is over with its domains' time, not after ${tookMs} ms`);

  const outcomes = Map.groupBy(told.outcomes, ({ outcome }) => outcome.kind);
  const { kept = [], postponed = [] } = Object.fromEntries(outcomes);
  assert.equal(kept.length + postponed.length, NAMES.length);
  // As many had their turn as there was time for; the last of them not all of theirs.
  const turns = LIMITS.connectionsPerAddress * Math.ceil(domainMs / connectMs);
  assert.ok(kept.length > 0 && kept.length <= turns, `${kept.length} of ${turns}`);
  assert.deepEqual(failed.toSorted(), postponed.map(({ domain }) => domain as string).sort());
  assert.deepEqual(told.errors, []);
  assert.deepEqual(
    told.infos.map(({ details }) => details),
    [{ domains: postponed.length, first: postponed[0]?.domain }],
  );
  for (const { domain } of postponed) {
    const item = await table.item(domain);
    assert.deepEqual(
      [item?.LastAttempt, item?.LastFailure, item?.FailingSince],
      [undefined, undefined, undefined],
    );
  }
});
