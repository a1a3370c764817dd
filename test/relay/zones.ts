// DNS as the relays of the world see it, in small: a signed root and a signed zone below it, with one below that which is
// not signed, on NSD; and unbound, which validates what it gets from there.

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createDns, type DnsAnswer, type QuestionType } from '../../infra/relay/dns.ts';
import { run, startProgram, until } from './program.ts';

/** A line of a zone file without its time to live and class: `name TYPE data`, the names with their dot at the end. */
export type ZoneLine = string;

export interface Zones {
  /** Replaces the records of these names and types in `test.`, and waits until the resolver knows. */
  change(lines: readonly ZoneLine[]): Promise<void>;
  close(): Promise<void>;
}

/** What is not signed is below this. */
export const UNSIGNED = 'unsigned.test.';

/** Its TXT record is the number of the zone's version. */
const MARKER = 'version.test';

const AUTHORITY_PORT = 5353;
const RESOLVER_PORT = 53;
const ZONES = ['.', 'test.', UNSIGNED] as const;
type ZoneName = (typeof ZONES)[number];

/** Seconds. So short that a change is known at once, and long enough to be remembered at all. */
const TTL = 1;
const CHANGE_MS = 10_000;
const ANSWER_MS = 500;

/** @param broken of these names and types in `test.` the signatures are those of other records: what is bogus. */
export async function startZones(
  folder: string,
  lines: readonly ZoneLine[],
  broken: ReadonlyMap<string, string> = new Map(),
): Promise<Zones> {
  let serial = 1;
  let all = [...lines];
  const rootKey = await keyOf('.');
  const testKey = await keyOf('test');
  const testDs = await readFile(`${testKey}.ds`, 'utf8');

  async function keyOf(zone: string): Promise<string> {
    const name = await run('ldns-keygen', ['-a', 'ECDSAP256SHA256', '-k', zone], { cwd: folder });
    return join(folder, name.trim());
  }

  async function write(): Promise<void> {
    const start = (zone: ZoneName) => [
      `${zone} ${TTL} IN SOA ns.test. hostmaster.test. ${serial} 3600 600 86400 ${TTL}`,
      `${zone} ${TTL} IN NS ns.test.`,
    ];
    const records = all.map((line) => line.replace(' ', ` ${TTL} IN `));
    const below = (line: string) => line.split(' ', 1)[0]?.endsWith(UNSIGNED) ?? false;
    const texts: Record<ZoneName, string[]> = {
      '.': [...start('.'), `test. ${TTL} IN NS ns.test.`, `ns.test. ${TTL} IN A 127.0.0.1`, testDs.trim()],
      'test.': [
        ...start('test.'),
        `ns.test. ${TTL} IN A 127.0.0.1`,
        `${UNSIGNED} ${TTL} IN NS ns.test.`,
        `${MARKER}. ${TTL} IN TXT "${serial}"`,
        ...records.filter((line) => !below(line)),
      ],
      [UNSIGNED]: [...start(UNSIGNED), ...records.filter(below)],
    };
    for (const zone of ZONES) await writeFile(fileOf(zone), `${texts[zone].join('\n')}\n`);
    await run('ldns-signzone', ['-f', `${fileOf('.')}.signed`, fileOf('.'), rootKey]);
    // NSEC3, so that both kinds of denial are met.
    await run('ldns-signzone', ['-n', '-f', `${fileOf('test.')}.signed`, fileOf('test.'), testKey]);
    const signed = await readFile(`${fileOf('test.')}.signed`, 'utf8');
    const changed = [...broken].reduce((text, [from, to]) => text.replaceAll(from, to), signed);
    await writeFile(`${fileOf('test.')}.signed`, changed);
  }

  function fileOf(zone: ZoneName): string {
    return join(folder, zone === '.' ? 'root.zone' : `${zone}zone`);
  }

  await write();
  await writeFile(join(folder, 'nsd.conf'), nsdConfiguration(folder, fileOf));
  await writeFile(join(folder, 'unbound.conf'), unboundConfiguration(folder, `${rootKey}.key`));
  const authority = await startProgram({
    file: 'nsd',
    args: ['-c', join(folder, 'nsd.conf'), '-d'],
    // A server without recursion is here, and not for the likes of us.
    ready: async () => /recursion/.test(JSON.stringify(await ask(AUTHORITY_PORT, MARKER, 'TXT'))),
  });
  const resolver = await startProgram({
    file: 'unbound',
    args: ['-c', join(folder, 'unbound.conf'), '-d'],
    ready: async () => (await ask(RESOLVER_PORT, MARKER, 'TXT')).status === 'found',
  });

  return {
    async change(others) {
      const replaced = new Set(others.map(keyOfLine));
      all = [...all.filter((line) => !replaced.has(keyOfLine(line))), ...others];
      serial += 1;
      await write();
      authority.process.kill('SIGHUP');
      await until('the resolver knows the changed zone', CHANGE_MS, async () => {
        const answer = await ask(RESOLVER_PORT, MARKER, 'TXT');
        return (
          answer.status === 'found' &&
          answer.records.some((each) => 'text' in each && each.text === `${serial}`)
        );
      });
    },
    async close() {
      await resolver.stop();
      await authority.stop();
    },
  };
}

function keyOfLine(line: ZoneLine): string {
  return line.split(' ', 2).join(' ');
}

async function ask(port: number, name: string, type: QuestionType): Promise<DnsAnswer> {
  const dns = createDns({ servers: [{ address: '127.0.0.1', port }], observer: { count: () => {} } });
  try {
    return await dns.ask(name, type, AbortSignal.timeout(ANSWER_MS));
  } finally {
    dns.close();
  }
}

function nsdConfiguration(folder: string, fileOf: (zone: ZoneName) => string): string {
  const zones = ZONES.map(
    (zone) =>
      `zone:\n  name: "${zone}"\n  zonefile: "${fileOf(zone)}${zone === UNSIGNED ? '' : '.signed'}"\n`,
  );
  return `server:
  ip-address: 127.0.0.1@${AUTHORITY_PORT}
  username: ""
  chroot: ""
  database: ""
  zonesdir: "${folder}"
  xfrdir: "${folder}"
  pidfile: "${folder}/nsd.pid"
  xfrdfile: "${folder}/nsd.xfrd"
  zonelistfile: "${folder}/nsd.zones"
  server-count: 1
  # Its protection of strangers from floods, which the resolver's questions look like.
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
remote-control:
  control-enable: no
${zones.join('')}`;
}

function unboundConfiguration(folder: string, anchor: string): string {
  const stubs = ZONES.map(
    (zone) => `stub-zone:\n  name: "${zone}"\n  stub-addr: 127.0.0.1@${AUTHORITY_PORT}\n`,
  );
  return `server:
  interface: 127.0.0.1
  port: ${RESOLVER_PORT}
  do-ip6: no
  username: ""
  chroot: ""
  directory: "${folder}"
  pidfile: "${folder}/unbound.pid"
  use-syslog: no
  do-not-query-localhost: no
  module-config: "validator iterator"
  trust-anchor-file: "${anchor}"
  # By itself unbound knows that there is no "test" (RFC 6761).
  local-zone: "test." nodefault
  qname-minimisation: no
  cache-max-ttl: ${TTL}
  cache-max-negative-ttl: ${TTL}
  val-bogus-ttl: ${TTL}
remote-control:
  control-enable: no
${stubs.join('')}`;
}
