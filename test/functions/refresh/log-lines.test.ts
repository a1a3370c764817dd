// Whatever a hostile domain has in its record, its answers, its certificate or its policy: at most one line in the log
// for each of its refreshes, of bounded size, in which nothing obeys or forges.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import tls from 'node:tls';
import { LIMITS } from '../../../functions/mtasts/limits.ts';
import { refreshMessages } from '../../../functions/refresh/messages.ts';
import type { Outcome } from '../../../functions/refresh/outcome.ts';
import { createRefresher } from '../../../functions/refresh/refresh.ts';
import { answerRequests } from '../../../functions/request/request.ts';
import { behaviours, type Site, startInternet } from '../../../infra/local/internet/internet.ts';
import type { Call } from '../runtime/telemetry-child.ts';
import { MAX_LINE_BYTES, UNSAFE, written } from '../runtime/written.ts';
import { admitsAll, DAY, message, neverAborted, recordingTelemetry, startTables } from './scene.ts';

const newTable = await startTables();
const internet = await startInternet();
after(() => internet.close());
tls.setDefaultCACertificates([internet.ca]);

const FORGED = '"}\n{"level":"ERROR","message":"forged"}\r\n';
const VISIBLE = `\u{202E}\u{2028}\u{9B}31m\u{1B}[2J${'\u{E9}"\\\\'.repeat(50)}`;
const TEXT = FORGED + VISIBLE;

/** With a record of another id than the one held, so that the host is asked. */
const changed = (name: string) => behaviours['changed-id'](name);
const record = (text: string) => ({ txt: [(text.match(/.{1,60}/gsu) ?? []).map((part) => part)] });
const answering = (name: string, policy: object): Site => ({ ...changed(name), https: { policy } });

const sites: Record<string, (name: string) => Site> = {
  'a record with another version': (name) => ({ ...changed(name), record: record(`v=STSv1${TEXT}`) }),
  'a record with a bad field': (name) => ({ ...changed(name), record: record(`v=STSv1; ${TEXT}; ${TEXT}`) }),
  'a record with a bad id': (name) => ({
    ...changed(name),
    record: record(`v=STSv1; id=${'!'.repeat(900)};`),
  }),
  'a hundred records': (name) => ({
    ...changed(name),
    record: { txt: Array.from({ length: 100 }, () => ['v=STSv1; id=1;']) },
  }),
  'a redirect': (name) =>
    answering(name, { status: 302, headers: { location: `/${'\u{E9}'.repeat(5_000)}` } }),
  'a media type': (name) => answering(name, { headers: { 'content-type': `text/${'x'.repeat(5_000)}` } }),
  'an encoding': (name) => answering(name, { headers: { 'content-encoding': 'x'.repeat(5_000) } }),
  'no HTTP': (name) => answering(name, { raw: TEXT }),
  'a policy with a bad line': (name) => answering(name, { body: TEXT.repeat(50) }),
  'a policy with a bad version': (name) => answering(name, { body: `version: ${VISIBLE}` }),
  'a policy with a bad mx': (name) =>
    answering(name, { body: `version: STSv1\nmode: enforce\nmx: ${'\u{E9}"'.repeat(900)}\n` }),
  'names in its certificate': (name) => ({ ...changed(name), https: { certificate: 'hostile-names' } }),
};

test('a hostile domain has one line at most for each refresh and each request', async (t) => {
  const table = await newTable();
  const lastUpdate = Date.now() - DAY;
  const names = Object.keys(sites).map((_, i) => `hostile${i}.test`);
  for (const [i, site] of Object.values(sites).entries()) {
    const name = names[i] ?? '';
    internet.set(name, site(name));
    internet.set(`new-${name}`, site(`new-${name}`));
    await table.seed(name, { inserted: lastUpdate, lastUpdate });
  }
  const environment = {
    table: '',
    dnsServers: [internet.dnsServer],
    policyHostPort: internet.policyHostPort,
    allowPrivateAddresses: true,
    maxFetchAgeSeconds: 604_800,
  };
  const refresher = createRefresher(table.store, environment, LIMITS);
  const { telemetry, told } = recordingTelemetry();
  const context = { refresher, admits: admitsAll, telemetry, signal: neverAborted };
  const tasks = names.map((name) => message(name, { domain: name, lastUpdate }));
  const looks = names.map((name) => message(`new-${name}`, { domain: `new-${name}` }));
  assert.deepEqual(await refreshMessages(tasks, context), []);
  assert.deepEqual(await answerRequests(looks, context), []);
  assert.deepEqual(
    [told.errors, told.infos, told.warnings, told.refused, told.unreadable],
    [[], [], [], [], []],
  );
  assert.equal(told.outcomes.length, 2 * names.length);

  // A cause is not written, and not every one can be sent to another process.
  const sendable = (outcome: Outcome) =>
    JSON.parse(JSON.stringify({ ...outcome, cause: undefined })) as Outcome;
  const calls = told.outcomes.map(({ domain, outcome }): Call => ['outcome', domain, sendable(outcome), 1]);
  const lines = await written(...calls);
  const domains = lines.map(({ domain }) => String(domain));
  assert.equal(new Set(domains).size, lines.length);
  for (const [i, what] of Object.keys(sites).entries()) {
    const line = lines.find(({ domain }) => domain === names[i]);
    t.diagnostic(`${what}: ${line?.code}, ${Buffer.byteLength(JSON.stringify(line))} bytes`);
    assert.ok(line, `${what} is a failure`);
  }
  for (const line of lines) {
    assert.ok(Buffer.byteLength(JSON.stringify(line)) <= MAX_LINE_BYTES, JSON.stringify(line));
    assert.notEqual(line.message, 'forged');
    for (const value of Object.values(line)) assert.doesNotMatch(String(value), UNSAFE);
  }
});

test('ten messages that cannot be read have ten bounded lines, and no more', async () => {
  const table = await newTable();
  const { telemetry, told } = recordingTelemetry();
  const refresher = createRefresher(
    table.store,
    {
      table: '',
      dnsServers: [internet.dnsServer],
      policyHostPort: internet.policyHostPort,
      allowPrivateAddresses: true,
      maxFetchAgeSeconds: 0,
    },
    LIMITS,
  );
  const bodies = [
    TEXT.repeat(1_000),
    `"${'x'.repeat(1_000_000)}"`,
    JSON.stringify({ domain: TEXT.repeat(1_000) }),
    JSON.stringify({ domain: `${'\u{E9}'.repeat(5_000)}.example` }),
    JSON.stringify({ used: Array.from({ length: 100_000 }, () => TEXT) }),
    JSON.stringify({ used: TEXT.repeat(1_000) }),
    JSON.stringify({ [TEXT.repeat(1_000)]: TEXT }),
    '['.repeat(500_000),
    '{"domain":'.repeat(1_000),
    '',
  ];
  const context = { refresher, admits: admitsAll, telemetry, signal: neverAborted };
  assert.deepEqual(
    await answerRequests(
      bodies.map((body, i) => message(String(i), body)),
      context,
    ),
    [],
  );
  assert.equal(told.refused.length, bodies.length);
  assert.deepEqual([told.errors, told.infos, told.outcomes], [[], [], []]);
  const lines = await written(...told.refused.map((each): Call => ['refused', each.messageId, each.reason]));
  assert.equal(lines.length, bodies.length);
  for (const line of lines) {
    assert.ok(Buffer.byteLength(JSON.stringify(line)) <= MAX_LINE_BYTES);
    for (const value of Object.values(line)) assert.doesNotMatch(String(value), UNSAFE);
  }
});
