// The relay at work: Debian's Postfix asks it and really delivers mail, or does not, to another Postfix on this machine;
// policies come from policy hosts by way of the functions and the embedded AWS, and DNS is signed. Then Debian's
// postfix-mta-sts-resolver is asked the same questions. It needs root on a Linux with these packages of Debian, so it is no
// part of `npm test`: run `npm run test:postfix`.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Domain } from '../../functions/mtasts/domain.ts';
import { createDynamoStore } from '../../functions/store/dynamo.ts';
import { sandboxEnvironment } from '../../infra/local/environment.ts';
import { behaviours } from '../../infra/local/internet/behaviours.ts';
import { createAuthority } from '../../infra/local/internet/certificates.ts';
import { startInternet } from '../../infra/local/internet/internet.ts';
import { seed } from '../../infra/local/seed.ts';
import { startStack } from '../../infra/local/stack.ts';
import { heading, say } from '../deploy/transcript.ts';
import {
  type Answers,
  BROKEN_SIGNATURES,
  comparisonTable,
  complaints,
  QUESTIONS,
  recordLines,
} from './comparison.ts';
import { createDaemon, createWire } from './daemon.ts';
import { DEBIAN_RESOLVER, startDebianResolver } from './debian-resolver.ts';
import { BOGUS_TLSA, type Expected, RECIPIENTS, type Recipient, STRANGERS, settleIn } from './deliveries.ts';
import { furnish, isolate, isolatedFolder, isolationFlaw } from './isolation.ts';
import { type Delivery, startPostfix } from './postfix.ts';
import { until } from './program.ts';
import { connectSocketmap } from './socketmap-client.ts';
import { startZones } from './zones.ts';

/** Programs, and the Debian packages that have them. */
const PROGRAMS: Readonly<Record<string, string>> = {
  postfix: 'postfix',
  unbound: 'unbound',
  nsd: 'nsd',
  'ldns-keygen': 'ldnsutils',
  'ldns-signzone': 'ldnsutils',
  [DEBIAN_RESOLVER.program]: DEBIAN_RESOLVER.package,
};

const TOTAL_MS = 170_000;
const WEEK_SECONDS = 604_800;
const DRAINED_MS = 60_000;
const ARRIVAL_MS = 10_000;
const RECOVERY_MS = 30_000;

const MOVING = 'moving.test' as Domain;

const VERIFIED: Expected = { status: 'sent', tls: 'Verified' };

/** What a policy has left when it is seeded: enough for the mail that is to meet it, and soon over. */
const BRIEF_MS = 20_000;

/** Undone in reverse at the end, whatever the end is. */
const undo: (() => unknown)[] = [];
let whatWasSaid = async () => '';

function describe({ status, tls, reason }: Delivery): string {
  return `${status}${tls ? `, ${tls} TLS connection` : ''} (${reason})`;
}

function check(what: string, delivery: Delivery, { status, tls, reason }: Expected): void {
  const right =
    delivery.status === status &&
    (tls === undefined ? delivery.tls !== 'Verified' : delivery.tls === tls) &&
    (reason === undefined || reason.test(delivery.reason));
  assert.ok(right, `${what}: ${describe(delivery)}`);
  say(`${what}: ${describe(delivery)}`);
}

async function prove(folder: string): Promise<void> {
  await furnish(folder);

  heading('Surroundings');
  const internet = await startInternet({ policyHostPort: 443 });
  undo.push(() => internet.close());
  const authority = await createAuthority();
  const moving: Recipient = {
    what: 'a domain that moves its mail',
    domain: 'moving.test',
    hosts: [
      ['mail.old.test', 'good'],
      ['mail.moving.test', 'good'],
    ],
    expected: { status: 'sent' },
  };
  const { hosts, lines } = await settleIn([...RECIPIENTS, ...STRANGERS, moving], authority);
  for (const { domain, policy } of [...RECIPIENTS, ...STRANGERS]) {
    if (policy) internet.set(domain, behaviours.healthy(domain, policy));
  }
  for (const { domain } of QUESTIONS) {
    if (domain === undefined) continue;
    if (domain.site) internet.set(domain.name, domain.site);
    lines.push(...(domain.lines ?? recordLines(domain.name)));
  }
  const movedFrom = lines.filter((line) => !line.startsWith('moving.test. MX 20'));
  const zones = await startZones(
    folder,
    [...movedFrom, ...recordLines('moving.test')],
    new Map([...BROKEN_SIGNATURES, BOGUS_TLSA]),
  );
  undo.push(() => zones.close());
  say('NSD serves a signed root and zone, unbound validates');

  const stack = await startStack({
    caFile: internet.caFile,
    environment: {
      DNS_SERVERS: '127.0.0.1',
      ALLOW_PRIVATE_ADDRESSES: '1',
      SPREAD_SECONDS: '1',
      WAVE_SECONDS: '1',
      SCHEDULE_LATENESS_SECONDS: '1',
    },
    onError: () => {},
  });
  undo.push(() => stack.close());
  const table = await createWire(stack.endpoints.dynamodb);
  undo.push(() => table.cut().catch(() => {}));
  const relay = await createDaemon(
    folder,
    sandboxEnvironment({
      endpoints: { ...stack.endpoints, dynamodb: table.endpoint },
      variables: { RELAY_TABLE: stack.tableName, RELAY_REQUEST_QUEUE_URL: stack.queueUrls['request-queue'] },
    }),
  );
  undo.push(() => relay.stop());
  await relay.start();
  say('the relay answers, as one file in a process of its own');

  const postfix = await startPostfix(folder, {
    policyMap: `socketmap:unix:${relay.path}:mta-sts`,
    roots: authority.ca,
    hosts,
  });
  undo.push(() => postfix.close());
  whatWasSaid = async () =>
    `Postfix's last words:\n\n${await postfix.log()}\n\nThe relay's:\n\n${relay.log()}`;
  say(`two Postfix instances run: a relay, and ${Object.keys(hosts).length} mail hosts`);

  const list = join(folder, 'domains');
  const known = [
    ...RECIPIENTS.filter(({ policy, unknown }) => policy && !unknown).map(({ domain }) => domain),
    ...QUESTIONS.flatMap(({ domain }) => (domain ? [domain.name] : [])),
  ];
  await writeFile(list, `${known.join('\n')}\n`);
  await relay.command('warm', '--rate', '100', list);
  await stack.drained(DRAINED_MS);
  say(`"warm" has had ${known.length} domains looked at`);

  heading('Deliveries');
  for (const { what, domain, expected } of RECIPIENTS) {
    const recipient = `someone@${domain}`;
    check(what, await postfix.send(recipient), expected);
  }
  const sent = RECIPIENTS.filter(({ expected }) => expected.status === 'sent').map(
    ({ domain }) => `someone@${domain}`,
  );
  await until(
    'all that was sent is there',
    ARRIVAL_MS,
    async () => (await postfix.received()).length >= sent.length,
  );
  assert.deepEqual((await postfix.received()).sort(), sent.sort());
  say(`${sent.length} messages are in mailboxes, and no other`);
  const explained = await relay.command('explain', 'wrong.test');
  assert.match(explained, /secure match=mail\.wrong\.test/);
  say('"explain" says why the mail to wrong.test waits');

  heading('A policy refreshed in the table');
  const store = createDynamoStore({ client: stack.dynamodb, table: stack.tableName });
  const now = Date.now();
  const policy = { mode: 'enforce', mx: ['mail.old.test'], maxAgeSeconds: WEEK_SECONDS } as const;
  const inserted = now - WEEK_SECONDS * 1_000 + BRIEF_MS;
  await seed(store, {
    domain: 'moving.test',
    policy,
    recordId: 'id1',
    inserted,
    lastUpdate: inserted,
    lastUse: now,
  });
  check('the old policy, the old mail host', await postfix.send('before@moving.test'), VERIFIED);
  internet.set('moving.test', behaviours.healthy('moving.test', { mx: ['mail.moving.test'], id: 'id2' }));
  await zones.change([
    ...lines.filter((line) => line.startsWith('moving.test. MX 20')),
    '_mta-sts.moving.test. TXT "v=STSv1; id=id2;"',
  ]);
  const waiting = 'moved@moving.test';
  check('the old policy, the new mail host', await postfix.send(waiting), {
    status: 'deferred',
    reason: /not verified/,
  });
  await stack.functions.plan.invoke({ kind: 'daily', runId: 'conformance' });
  await stack.drained(DRAINED_MS);
  const { records } = await store.read([MOVING]);
  assert.deepEqual(records.get(MOVING)?.policy.mx, ['mail.moving.test']);
  say('the daily run has put the new policy into the table');
  await new Promise((resolve) => setTimeout(resolve, inserted + WEEK_SECONDS * 1_000 + 100 - Date.now()));
  check('the new policy, the same message', await postfix.retry(waiting), VERIFIED);

  heading('The table goes away');
  await table.cut();
  const again = async (when: string) => {
    for (const { what, domain, expected } of RECIPIENTS.filter(({ domain }) =>
      ['good.test', 'wrong.test', 'testing.test', 'dane.test'].includes(domain),
    )) {
      check(`${when}: ${what}`, await postfix.send(`${when.replaceAll(' ', '-')}@${domain}`), expected);
    }
  };
  await again('without the table');
  for (const { what, domain, expected } of STRANGERS) {
    check(`without the table: ${what}`, await postfix.send(`someone@${domain}`), expected);
  }
  assert.equal(await relay.stop(), 0);
  const stopped = await postfix.send('stopped@good.test');
  check('the relay is stopped', stopped, { status: 'deferred', reason: /^No such file or directory: / });
  await relay.start();
  await again('after a restart');
  check('the mail that waited', await postfix.retry('stopped@good.test'), VERIFIED);
  await table.mend();
  let arrived: Delivery | undefined;
  await until('the relay uses the table again', RECOVERY_MS, async () => {
    arrived = await postfix.retry('someone@late.test');
    return arrived.status === 'sent';
  });
  if (arrived) check('the table is back: a new domain with a record', arrived, VERIFIED);
  const outage = relay.log().match(/the table can(?:not)? be read(?: again)?/g);
  assert.deepEqual(outage, ['the table cannot be read', 'the table can be read again']);
  say('its log has had one line for the beginning and one for the end, since the restart');

  heading(`The relay and Debian's ${DEBIAN_RESOLVER.package}`);
  const debian = await startDebianResolver(folder, internet.caFile);
  undo.push(() => debian.stop());
  const answers: Answers[] = [];
  for (const question of QUESTIONS) {
    answers.push({
      question,
      relay: await ask({ path: relay.path }, 'mta-sts', question.key),
      debian: await ask({ host: '127.0.0.1', port: DEBIAN_RESOLVER.port }, 'mta-sts', question.key),
    });
  }
  for (const line of comparisonTable(answers)) console.log(line);
  assert.deepEqual(complaints(answers), []);
  const differences = QUESTIONS.filter(({ debian }) => debian !== undefined).length;
  say(
    `${QUESTIONS.length} questions: ${QUESTIONS.length - differences} times the same answer, ${differences} times not`,
  );
}

async function ask(where: Parameters<typeof connectSocketmap>[0], map: string, key: string): Promise<string> {
  const client = await connectSocketmap(where);
  try {
    return await client.ask(map, key);
  } catch {
    return '(hangs up)';
  } finally {
    client.close();
  }
}

async function cleanUp(): Promise<void> {
  for (const each of undo.splice(0).reverse()) await Promise.resolve(each()).catch(() => {});
}

const folder = isolatedFolder();
if (folder === undefined) {
  const flaw = await isolationFlaw(PROGRAMS);
  if (flaw !== undefined) console.error(`Deliveries by Postfix were not tested. ${flaw}`);
  process.exitCode = flaw === undefined ? await isolate() : 1;
} else {
  const timer = setTimeout(() => {
    console.error(`Not done within ${TOTAL_MS / 1_000} s.`);
    process.exit(1);
  }, TOTAL_MS);
  try {
    await prove(folder);
    heading('Right: this is how it should be.');
  } catch (error) {
    console.error(error, `\n${await whatWasSaid().catch(() => '')}`);
    process.exitCode = 1;
  } finally {
    await cleanUp();
    clearTimeout(timer);
  }
  // This is the first process of its namespace: whatever is left of Postfix ends with it.
  process.exit();
}
