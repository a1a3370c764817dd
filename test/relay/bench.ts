// How many lookups a second the relay answers through its socketmap, and how fast, for domains that it has in its cache;
// beside it, with the same client in the same run, Debian's postfix-mta-sts-resolver, if it is installed: run
// `npm run bench:relay`. Like Postfix, the client has one question at a time on each connection.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import type { NetConnectOpts } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createDynamoStore } from '../../functions/store/dynamo.ts';
import { sandboxEnvironment } from '../../infra/local/environment.ts';
import { behaviours } from '../../infra/local/internet/behaviours.ts';
import { startInternet } from '../../infra/local/internet/internet.ts';
import { seed } from '../../infra/local/seed.ts';
import { startStack } from '../../infra/local/stack.ts';
import { type Entries, startValidator } from '../infra/relay/validator.ts';
import { createDaemon } from './daemon.ts';
import { DEBIAN_RESOLVER, startDebianResolver } from './debian-resolver.ts';
import { furnish, isolate, isolatedFolder, isolationFlaw } from './isolation.ts';
import { connectSocketmap } from './socketmap-client.ts';

const DOMAINS = 1_000;
const CONNECTIONS = [1, 10, 50];
const RUN_MS = 4_000;
const WARMING_CONNECTIONS = 10;
const WEEK_SECONDS = 604_800;
const HOUR_MS = 3_600_000;
const MAP = 'mta-sts';

const domains = Array.from({ length: DOMAINS }, (_, i) => `d${i}.test`);

interface Server {
  readonly name: string;
  readonly where: NetConnectOpts;
  /** The number of its process. */
  readonly pid: number | undefined;
}

interface Result {
  readonly perSecond: number;
  /** Milliseconds. */
  readonly median: number;
  readonly p99: number;
  /** Microseconds of the server's processor time for a lookup: a figure that other work on the machine hardly changes. */
  readonly cpu: number;
}

/** Asks for domains, by as many connections, until there are no more. @returns milliseconds for each. */
async function load(
  { name, where }: Server,
  connections: number,
  next: () => string | undefined,
): Promise<number[]> {
  const latencies: number[] = [];
  const one = async () => {
    const client = await connectSocketmap(where);
    for (let domain = next(); domain !== undefined; domain = next()) {
      const start = performance.now();
      const reply = await client.ask(MAP, domain);
      latencies.push(performance.now() - start);
      if (!reply.startsWith(`OK secure match=mail.${domain}`)) {
        throw new Error(`${name} says "${reply}" of ${domain}`);
      }
    }
    client.close();
  };
  await Promise.all(Array.from({ length: connections }, one));
  return latencies;
}

async function warm(server: Server): Promise<void> {
  const rest = domains.values();
  await load(server, WARMING_CONNECTIONS, () => rest.next().value);
}

/** Milliseconds of processor time that a process has had (proc_pid_stat(5): fields 14 and 15, in hundredths of a second). */
async function processorTime(pid: number | undefined): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /, '').split(' ');
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

async function measure(server: Server, connections: number): Promise<Result> {
  const before = await processorTime(server.pid);
  const start = performance.now();
  const anyDomain = () => domains[Math.floor(Math.random() * DOMAINS)];
  const latencies = await load(server, connections, () =>
    performance.now() - start < RUN_MS ? anyDomain() : undefined,
  );
  const seconds = (performance.now() - start) / 1_000;
  latencies.sort((a, b) => a - b);
  const at = (share: number) => latencies[Math.floor(share * latencies.length)] ?? Number.NaN;
  const cpu = (1_000 * ((await processorTime(server.pid)) - before)) / latencies.length;
  return { perSecond: latencies.length / seconds, median: at(0.5), p99: at(0.99), cpu };
}

async function compare(folder: string, withDebian: boolean): Promise<void> {
  const undo: (() => unknown)[] = [];
  try {
    const stack = await startStack({ functions: [] });
    undo.push(() => stack.close());
    const store = createDynamoStore({ client: stack.dynamodb, table: stack.tableName });
    const inserted = Date.now() - HOUR_MS;
    for (const domain of domains) {
      const policy = { mode: 'enforce', mx: [`mail.${domain}`], maxAgeSeconds: WEEK_SECONDS } as const;
      await seed(store, { domain, policy, recordId: 'id1', inserted, lastUpdate: inserted });
    }
    const entries: Entries = {
      '. SOA': { records: ['.'] },
      ...Object.fromEntries(
        domains.flatMap((domain) => [
          [`${domain} MX`, { records: [`10 mail.${domain}`], signed: false }],
          [`_mta-sts.${domain} TXT`, { records: ['v=STSv1; id=id1;'] }],
        ]),
      ),
    };
    const validator = await startValidator({ after: (release) => undo.push(release) }, entries);
    const relay = await createDaemon(
      folder,
      sandboxEnvironment({
        endpoints: stack.endpoints,
        variables: {
          RELAY_TABLE: stack.tableName,
          RELAY_REQUEST_QUEUE_URL: stack.queueUrls['request-queue'],
          RELAY_DNS_SERVERS: `${validator.server.address}:${validator.server.port}`,
        },
      }),
    );
    undo.push(() => relay.stop());
    await relay.start();
    const servers: Server[] = [
      { name: 'the relay, Unix socket', where: { path: relay.path }, pid: relay.pid() },
      { name: 'the relay, TCP', where: { host: '127.0.0.1', port: relay.port }, pid: relay.pid() },
    ];
    if (withDebian) {
      const internet = await startInternet({ dnsPort: 53, policyHostPort: 443 });
      undo.push(() => internet.close());
      for (const domain of domains) internet.set(domain, behaviours.healthy(domain));
      const debian = await startDebianResolver(folder, internet.caFile);
      undo.push(() => debian.stop());
      const where = { host: '127.0.0.1', port: DEBIAN_RESOLVER.port };
      servers.push({ name: `${DEBIAN_RESOLVER.package}, TCP`, where, pid: debian.process.pid });
    }
    for (const server of servers) await warm(server);

    const processors = cpus();
    console.log(
      `${DOMAINS} domains, all cached; ${RUN_MS / 1_000} s each. Client and servers share ${processors.length} processors ` +
        `(${processors[0]?.model}); Node.js ${process.version}\n`,
    );
    const width = Math.max(...servers.map(({ name }) => name.length));
    console.log(`${''.padEnd(width)}  connections  lookups/s   p50 ms   p99 ms  CPU µs/lookup`);
    for (const connections of CONNECTIONS) {
      for (const server of servers) {
        const { perSecond, median, p99, cpu } = await measure(server, connections);
        const columns = [
          server.name.padEnd(width),
          String(connections).padStart(11),
          perSecond.toFixed(0).padStart(9),
          median.toFixed(3).padStart(7),
          p99.toFixed(3).padStart(7),
          cpu.toFixed(0).padStart(13),
        ];
        console.log(columns.join('  '));
      }
    }
  } finally {
    for (const each of undo.reverse()) await each();
  }
}

const isolated = isolatedFolder();
if (isolated !== undefined) {
  await furnish(isolated);
  await compare(isolated, true);
} else {
  const flaw = await isolationFlaw({ [DEBIAN_RESOLVER.program]: DEBIAN_RESOLVER.package });
  if (flaw === undefined) {
    process.exitCode = await isolate();
  } else {
    console.log(`Debian's ${DEBIAN_RESOLVER.package} is left out. ${flaw}\n`);
    const folder = await mkdtemp(join(tmpdir(), 'mta-sts-relay-'));
    await compare(folder, false).finally(() => rm(folder, { recursive: true, force: true }));
  }
}
