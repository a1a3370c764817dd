// Two instances of Debian's Postfix: the relay, which is the one at /etc/postfix and sends, and the mail hosts of everybody
// else, which are one that receives on many addresses, with a certificate for each. What became of a message is read from
// the relay's log, as its operator would read it.

import { chmod, chown, cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cover } from './isolation.ts';
import { type Program, run, startProgram, until } from './program.ts';

/** A mail host: what it has on port 25 of its address. */
export interface MailHost {
  readonly address: string;
  /** Key and certificates, PEM; undefined: it knows no STARTTLS. */
  readonly certificate: string | undefined;
}

export interface Delivery {
  readonly status: 'sent' | 'deferred' | 'bounced';
  /** How Postfix calls the TLS connection, if there was one: Verified, Trusted, Untrusted or Anonymous. */
  readonly tls: string | undefined;
  /** What the log gives as the reason, after what it says of the certificate or the relay if it is that. */
  readonly reason: string;
}

export interface Postfix {
  /** Sends a message and waits for what becomes of it at the first attempt. */
  send(recipient: string): Promise<Delivery>;
  /** Tries what waits in the queue again: all that is for the recipient. */
  retry(recipient: string): Promise<Delivery>;
  /** The recipients of the messages that have arrived. */
  received(): Promise<string[]>;
  /** The end of the relay's log. */
  log(): Promise<string>;
  close(): Promise<void>;
}

const LIBRARY = '/usr/lib/postfix/sbin';
const SENDER = 'sender@relay.test';
const DELIVERY_MS = 15_000;

const COMMON_SERVICES = `
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
tlsmgr unix - - n 1000? 1 tlsmgr
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
postlog unix-dgram n - n - 1 postlogd
`;

interface Instance {
  readonly folder: string;
  readonly configuration: string;
  readonly logFile: string;
}

export async function startPostfix(
  folder: string,
  {
    policyMap,
    roots,
    hosts,
  }: {
    /** As in main.cf. */
    readonly policyMap: string;
    /** PEM of the certification authorities of mail hosts. */
    readonly roots: string;
    readonly hosts: Readonly<Record<string, MailHost>>;
  },
): Promise<Postfix> {
  const rootsFile = join(folder, 'mail-roots.pem');
  await writeFile(rootsFile, roots);
  const receiver = await configure(folder, 'receiver', {
    main: {
      myhostname: 'mail-hosts.test',
      virtual_mailbox_domains: 'static:everything',
      virtual_mailbox_maps: 'static:inbox/',
      virtual_mailbox_base: join(folder, 'mail'),
      virtual_uid_maps: 'static:65534',
      virtual_gid_maps: 'static:65534',
      smtpd_peername_lookup: 'no',
      smtpd_relay_restrictions: 'reject_unauth_destination',
      smtpd_recipient_restrictions: '',
    },
    services: [...(await smtpServers(folder, hosts)), 'virtual unix - n n - - virtual'],
  });
  const inbox = join(folder, 'mail/inbox/new');
  await mkdir(inbox, { recursive: true });
  for (const each of ['mail', 'mail/inbox', 'mail/inbox/new'])
    await chown(join(folder, each), 65_534, 65_534);

  const sender = await configure(folder, 'sender', {
    main: {
      myhostname: 'relay.test',
      smtp_dns_support_level: 'dnssec',
      smtp_tls_security_level: 'dane',
      smtp_tls_policy_maps: policyMap,
      smtp_tls_CAfile: rootsFile,
      smtp_tls_loglevel: '1',
      // A connection that is kept would not be logged again.
      smtp_connection_cache_on_demand: 'no',
    },
    services: ['pickup unix n - n 60 1 pickup', 'smtp unix - - n - - smtp', 'relay unix - - n - - smtp'],
  });
  // Now sendmail, postqueue and the like mean this instance, as they do on a relay.
  await cover('/etc/postfix', sender.configuration);
  const instances = [await start(receiver), await start({ ...sender, configuration: '/etc/postfix' })];

  const attempts = new Map<string, number>();
  async function next(recipient: string): Promise<Delivery> {
    const before = attempts.get(recipient) ?? 0;
    let found: Delivery | undefined;
    await until(`Postfix logs what became of the mail to ${recipient}`, DELIVERY_MS, async () => {
      found = findDelivery(await readFile(sender.logFile, 'utf8'), recipient, before);
      return found !== undefined;
    });
    attempts.set(recipient, before + 1);
    return found as unknown as Delivery;
  }

  return {
    async send(recipient) {
      await run('sendmail', ['-i', '-f', SENDER, recipient], { input: 'Subject: test\n\nHello.\n' });
      return await next(recipient);
    },
    async retry(recipient) {
      const queue = await run('postqueue', ['-j']);
      const waiting = queue
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as { queue_id: string; recipients: { address: string }[] })
        .filter(({ recipients }) => recipients.some(({ address }) => address === recipient));
      for (const { queue_id } of waiting) await run('postqueue', ['-i', queue_id]);
      return await next(recipient);
    },
    async received() {
      const names = await readdir(inbox);
      const messages = await Promise.all(names.map((name) => readFile(join(inbox, name), 'utf8')));
      return messages.map((text) => /^Delivered-To: (.*)$/m.exec(text)?.[1] ?? '');
    },
    log: async () => (await readFile(sender.logFile, 'utf8')).split('\n').slice(-40).join('\n'),
    async close() {
      for (const { program, stop } of instances.reverse()) {
        await stop();
        await program.stop();
      }
    },
  };
}

async function smtpServers(folder: string, hosts: Readonly<Record<string, MailHost>>): Promise<string[]> {
  const servers: string[] = [];
  for (const [name, { address, certificate }] of Object.entries(hosts)) {
    const file = join(folder, `${name}.pem`);
    if (certificate !== undefined) await writeFile(file, certificate);
    const tls =
      certificate === undefined
        ? '-o smtpd_tls_security_level=none'
        : `-o smtpd_tls_security_level=may -o smtpd_tls_chain_files=${file}`;
    servers.push(`${address}:25 inet n - n - - smtpd ${tls} -o myhostname=${name}`);
  }
  return servers;
}

async function configure(
  folder: string,
  name: string,
  { main, services }: { main: Readonly<Record<string, string>>; services: readonly string[] },
): Promise<Instance> {
  const instance = {
    folder: join(folder, name),
    configuration: join(folder, name, 'etc'),
    logFile: join(folder, name, 'log/mail.log'),
  };
  // With Debian's own files for the tables of drivers and of permissions.
  await mkdir(instance.folder);
  await cp('/etc/postfix', instance.configuration, { recursive: true });
  for (const each of ['queue', 'data', 'log']) await mkdir(join(instance.folder, each));
  const settings = {
    compatibility_level: '3.6',
    queue_directory: join(instance.folder, 'queue'),
    data_directory: join(instance.folder, 'data'),
    daemon_directory: LIBRARY,
    shlib_directory: '/usr/lib/postfix',
    command_directory: '/usr/sbin',
    mail_owner: 'postfix',
    setgid_group: 'postdrop',
    maillog_file: instance.logFile,
    maillog_file_prefixes: instance.folder,
    inet_interfaces: '127.0.0.1',
    inet_protocols: 'ipv4',
    mydestination: '',
    mynetworks: '127.0.0.0/8',
    alias_maps: '',
    alias_database: '',
    ...main,
  };
  const lines = Object.entries(settings).map(([key, value]) => `${key} = ${value}\n`);
  await writeFile(join(instance.configuration, 'main.cf'), lines.join(''));
  await writeFile(join(instance.configuration, 'master.cf'), `${services.join('\n')}${COMMON_SERVICES}`);
  await run('chown', ['postfix', join(instance.folder, 'data')]);
  await chmod(join(instance.folder, 'data'), 0o700);
  return instance;
}

async function start({
  configuration,
  logFile,
  folder,
}: Instance): Promise<{ program: Program; stop: () => Promise<unknown> }> {
  const program = await startProgram({
    file: 'postfix',
    args: ['-c', configuration, 'start-fg'],
    ready: async () => /daemon started/.test(await readFile(logFile, 'utf8')),
  }).catch(async (error) => {
    throw new Error(
      `${error.message}\n${await readFile(logFile, 'utf8').catch(() => `nothing in ${folder}`)}`,
    );
  });
  return { program, stop: () => run('postfix', ['-c', configuration, 'stop']).catch(() => undefined) };
}

/** `… postfix/smtp[123]: 4ABC: to=<a@b>, relay=…, dsn=4.7.5, status=deferred (Server certificate not verified)` */
const STATUS =
  /postfix\/(?:smtp|error|qmgr|bounce|retry)\[(?<pid>\d+)\]: \w+: to=<(?<to>[^>]+)>.* status=(?<status>\w+) \((?<reason>.*)\)$/;
/** `… postfix/smtp[123]: Verified TLS connection established to mx[127.0.0.2]:25: TLSv1.3 …` */
const TLS = /postfix\/smtp\[(?<pid>\d+)\]: (?<level>\w+) TLS connection established to/;

/**
 * What Postfix says before that, and not in the status:
 * `… postfix/smtp[123]: server certificate verification failed for mx[127.0.0.2]:25: num=62:hostname mismatch`
 * `… postfix/smtp[123]: warning: socketmap:unix:…:mta-sts socketmap server temporary error: example.test: …`
 */
const FLAW =
  /postfix\/smtp\[(?<pid>\d+)\]: (?:(?:server )?certificate verification failed for \S+: (?:num=\d+:)?|warning: (?:table )?socketmap:\S+ (?:socketmap server temporary|lookup) error: )(?<flaw>.*)$/;

/** What became of the n-th attempt to deliver to the recipient. */
function findDelivery(log: string, recipient: string, attempt: number): Delivery | undefined {
  // One process delivers one message after another: what it met since the last one belongs to this one.
  const met = new Map<string, { tls?: string; flaw?: string }>();
  let seen = 0;
  for (const line of log.split('\n')) {
    const tls = TLS.exec(line)?.groups;
    if (tls?.pid) met.set(tls.pid, { ...met.get(tls.pid), tls: tls.level ?? '' });
    const said = FLAW.exec(line)?.groups;
    if (said?.pid) met.set(said.pid, { ...met.get(said.pid), flaw: said.flaw ?? '' });
    const { pid = '', to, status, reason = '' } = STATUS.exec(line)?.groups ?? {};
    if (to === undefined) continue;
    const its = met.get(pid);
    met.delete(pid);
    if (to !== recipient) continue;
    if (seen === attempt) {
      const reasons = its?.flaw ? `${its.flaw}: ${reason}` : reason;
      return { status: status as Delivery['status'], tls: its?.tls, reason: reasons };
    }
    seen += 1;
  }
  return undefined;
}
