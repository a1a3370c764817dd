// The whole life of a stack, as its operators have it, in an emulator of AWS on this machine: osls packages and deploys
// it, relays use it, its schedules, queues and functions do their work against the programmable internet, something
// breaks and is mended, it is updated, and removed. It takes some minutes and Python packages from PyPI, so it is no
// part of `npm test`: run `npm run test:deploy`.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls from 'node:tls';
import { createDynamoStore } from '../../functions/store/dynamo.ts';
import { startInternet } from '../../infra/local/internet/internet.ts';
import { awsEnvironment, clients, createAdministrator, credentialVariables, ROOT } from './account.ts';
import { deploy, refuseParameters, remove, update } from './deployment.ts';
import { makeCertificate, obtainEmulator, startEmulator } from './emulator.ts';
import { serveRelays } from './relays.ts';
import { createService } from './service.ts';
import { lastWords, MINUTE, type Scene, SECOND, STACK } from './stack.ts';
import { heading, say } from './transcript.ts';
import { Unavailable } from './virtual-environment.ts';
import { breakAndMend, failRun, runDaily, settle } from './work.ts';

/** Three hours in 40 seconds. The emulator looks at its schedules every 10 seconds: that is their lateness. */
const SPREAD_SECONDS = 40;
const WAVE_SECONDS = 8;
const LATENESS_SECONDS = 12;

/**
 * From the first packaging to the daily run: by then the stack is up and its table is full. On a slow machine, so many
 * times what osls took to refuse parameters.
 */
const LEAD_MS = 50 * SECOND;
const LEAD_FACTOR = 25;

/** Undone in reverse at the end, whatever the end is. */
const undo: (() => Promise<unknown>)[] = [];

async function cleanUp(): Promise<void> {
  for (const each of undo.splice(0).reverse()) await each();
}

async function setUp(): Promise<Scene> {
  const python = await obtainEmulator();
  const folder = await mkdtemp(join(tmpdir(), 'mta-sts-deploy-'));
  undo.push(() => rm(folder, { recursive: true, force: true }));
  const internet = await startInternet();
  undo.push(() => internet.close());

  // The emulator's certificate is checked as AWS's is: here, by osls, and by the functions, which trust the programmable
  // internet as well.
  const certificate = await makeCertificate(folder);
  const roots = join(folder, 'roots.pem');
  await writeFile(roots, `${certificate.ca}\n${internet.ca}\n`);
  tls.setDefaultCACertificates([...tls.getCACertificates('default'), certificate.ca]);

  const nowhere = join(folder, 'nowhere');
  const emulator = await startEmulator({
    python,
    folder,
    certificate,
    root: ROOT,
    functionEnvironment: (endpoint) => ({
      ...awsEnvironment(endpoint, nowhere),
      NODE_EXTRA_CA_CERTS: roots,
      // It is no parameter of the stack, and refused unless the table is on loopback.
      ALLOW_PRIVATE_ADDRESSES: '1',
    }),
  });
  const { endpoint } = emulator;
  undo.push(() => emulator.close());
  const root = clients(endpoint, ROOT);
  whatWasSaid = async () =>
    `The functions' last words:\n\n${await lastWords(root)}\n\nThe emulator's:\n\n${await emulator.tail()}`;
  say(`ministack answers at ${endpoint}; it verifies signatures and applies IAM policies`);

  const administrator = await createAdministrator(root);
  const aws = clients(endpoint, administrator);
  const service = await createService(folder, {
    PATH: process.env.PATH ?? '',
    HOME: folder,
    TMPDIR: folder,
    CI: '1',
    ...awsEnvironment(endpoint, nowhere),
    ...credentialVariables(administrator),
    NODE_EXTRA_CA_CERTS: roots,
  });
  const store = createDynamoStore({ client: aws.dynamodb, table: `${STACK}-policies` });
  return { service, internet, endpoint, aws, store };
}

let whatWasSaid = async () => '';

async function live(scene: Scene): Promise<void> {
  const { internet } = scene;
  const parameters = {
    spreadSeconds: SPREAD_SECONDS,
    waveSeconds: WAVE_SECONDS,
    scheduleLatenessSeconds: LATENESS_SECONDS,
    // The least that a schedule can do.
    renewalIntervalSeconds: 60,
    renewalSpreadSeconds: 5,
    dnsServers: internet.dnsServer,
    policyHostPort: internet.policyHostPort,
  };

  heading('Deployment');
  const before = Date.now();
  await refuseParameters(
    scene,
    { ...parameters, spreadSeconds: 7 },
    'spreadSeconds is 7, shorter than a wave, waveSeconds, which is 8',
  );
  const now = Date.now();
  const dailyRun = nextMinute(now + Math.max(LEAD_MS, LEAD_FACTOR * (now - before)));
  const dailySchedule = `cron(${dailyRun.getUTCMinutes()} ${dailyRun.getUTCHours()} * * ? *)`;
  const deployed = await deploy(scene, { ...parameters, dailySchedule });

  heading('Relays');
  const start = Date.now();
  const residents = await settle(deployed, start);
  await serveRelays(deployed, residents, start);
  assert.ok(Date.now() < dailyRun.getTime(), 'too slow: the daily run began before everything was ready');

  heading('Runs');
  await failRun(deployed);
  await runDaily(deployed, residents, { start, dailyRun, spreadSeconds: SPREAD_SECONDS });

  heading('A fault and its repair');
  const deadLetter = await breakAndMend(deployed);

  heading('Update');
  const stale = residents.filter(({ expected }) => expected === 'fresh');
  const due = [...stale.map((resident) => ({ ...resident, expected: 'extended' as const })), deadLetter];
  await update(deployed, due, SPREAD_SECONDS);

  heading('Removal');
  await remove(deployed);
}

function nextMinute(time: number): Date {
  return new Date(Math.ceil(time / MINUTE) * MINUTE);
}

let interrupted = false;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    // Some send it twice: to this process, and to its group.
    if (interrupted) return;
    interrupted = true;
    void cleanUp().finally(() => process.exit(130));
  });
}

try {
  heading('Emulator');
  await live(await setUp());
  heading('Right: this is how it should be.');
} catch (error) {
  if (!interrupted) {
    if (error instanceof Unavailable) console.error(`The deployment was not tested. ${error.message}`);
    else console.error(`${await whatWasSaid()}\n`, error);
  }
  process.exitCode = 1;
} finally {
  if (!interrupted) await cleanUp();
}
