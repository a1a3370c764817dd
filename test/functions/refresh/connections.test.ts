// A provider that hosts thousands of policy domains on one address: how many connections a batch opens to it at once,
// and what becomes of the domains if it is slow.

import assert from 'node:assert/strict';
import { after, mock, test } from 'node:test';
import tls, { type TLSSocket } from 'node:tls';
import { LIMITS, type Limits } from '../../../functions/mtasts/limits.ts';
import { refreshMessages } from '../../../functions/refresh/messages.ts';
import { createRefresher } from '../../../functions/refresh/refresh.ts';
import { behaviours, type Site, startInternet } from '../../../infra/local/internet/internet.ts';
import { until } from '../../resources.ts';
import { undisturbed } from '../mtasts/network.ts';
import { DAY, message, neverAborted, recordingTelemetry, startTables } from './scene.ts';

const newTable = await startTables();
const internet = await startInternet();
after(() => internet.close());
tls.setDefaultCACertificates([internet.ca]);

const NAMES = Array.from({ length: 100 }, (_, i) => `d${i}.test`);

/** Refreshes domains in one batch, and counts connections from when they are begun until they are closed. */
async function refreshAll(names: readonly string[], does: (name: string) => Site, limits: Partial<Limits>) {
  const table = await newTable();
  const lastUpdate = Date.now() - DAY;
  for (const name of names) internet.set(name, does(name));
  await Promise.all(names.map((name) => table.seed(name, { inserted: lastUpdate, lastUpdate })));
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
  const messages = names.map((name) => message(name, { domain: name, lastUpdate }));
  const failed = await refreshMessages(messages, { refresher, telemetry, signal: neverAborted });
  counting.mock.restore();
  return { table, failed, told, seen };
}

test('a batch of 100 domains on one address has four connections to it at once, and refreshes them all', async () => {
  const { failed, told, seen } = await refreshAll(NAMES, behaviours['changed-policy'], {});
  assert.deepEqual(failed, []);
  assert.deepEqual(told.summary(), NAMES.map((name) => `${name} replaced`).sort());
  assert.equal(LIMITS.connectionsPerAddress, 4);
  assert.deepEqual([seen.connections, seen.most], [NAMES.length, LIMITS.connectionsPerAddress]);
  await until(() => seen.open === 0, 'the last connections are closed');
  // The other end knows of a connection for a moment longer.
  assert.ok(seen.mostAtHost <= 2 * LIMITS.connectionsPerAddress, `${seen.mostAtHost} at the host`);
});

test('on one address that stalls, those whose minute ends in the line are postponed and not touched', () =>
  undisturbed(async () => {
    const stalling = (name: string): Site => ({
      ...behaviours['changed-policy'](name),
      https: { stop: { at: 'accept', how: 'hang' } },
    });
    // Long enough to look up all names on a busy machine, and too short for the turns of a third of them.
    const [connectMs, domainMs] = [400, 1_500];
    const names = NAMES.slice(0, 48);
    const { table, failed, told, seen } = await refreshAll(names, stalling, { connectMs, domainMs });
    assert.equal(seen.most, LIMITS.connectionsPerAddress);

    const outcomes = Map.groupBy(told.outcomes, ({ outcome }) => outcome.kind);
    const { kept = [], postponed = [] } = Object.fromEntries(outcomes);
    assert.equal(kept.length + postponed.length, names.length);
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
  }));
