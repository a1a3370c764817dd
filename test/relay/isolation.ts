// A place of its own for programs that want the usual ports and files: port 25, 53 and 443, /etc/resolv.conf, /etc/postfix.
// The kernel gives the process and all that it starts a network with nothing but loopback, a view of the file system in
// which other files can lie over those of the machine, and an end: when this process ends, they all do.

import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The argument before the folder, for the script that runs once more. */
const INSIDE = '--isolated';

const UNSHARE = 'unshare';
const FLAGS = ['--mount', '--net', '--pid', '--fork', '--mount-proc'];

/** What isolation itself needs, with the Debian package of each. */
const TOOLS = { [UNSHARE]: 'util-linux', mount: 'mount', ip: 'iproute2' };

/** Where Debian has what only root usually runs. */
const SYSTEM_FOLDERS = ['/usr/sbin', '/sbin', '/usr/bin', '/bin'];

/** The folder for whatever the isolated script writes; undefined in the first run, which is not isolated. */
export function isolatedFolder(): string | undefined {
  const at = process.argv.indexOf(INSIDE);
  return at < 0 ? undefined : process.argv[at + 1];
}

function findProgram(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), ...SYSTEM_FOLDERS];
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

/**
 * What keeps this machine from isolating these programs, in a sentence for whoever can mend it; undefined if nothing does.
 * @param programs with the Debian package of each.
 */
export async function isolationFlaw(programs: Readonly<Record<string, string>>): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'It runs on Linux.';
  if (process.getuid?.() !== 0) return 'It needs root, for namespaces of its own and for Postfix.';
  const needed = Object.entries({ ...TOOLS, ...programs });
  const missing = needed.filter(([name]) => findProgram(name) === undefined);
  if (missing.length > 0) {
    const names = missing.map(([name]) => name).join(', ');
    const packages = [...new Set(missing.map(([, inPackage]) => inPackage))].join(' ');
    return `Missing: ${names}. On Debian: apt-get install --no-install-recommends ${packages}`;
  }
  try {
    await run(UNSHARE, [...FLAGS, 'ip', 'link', 'set', 'lo', 'up']);
    return undefined;
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim() || (error as Error).message;
    return `This machine gives out no namespaces (a container needs the capability SYS_ADMIN for that): ${said}`;
  }
}

/** Runs this very script once more, isolated, with a folder that is gone afterwards. @returns its exit status. */
export async function isolate(): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'mta-sts-relay-'));
  // Postfix's processes run as another user.
  await chmod(folder, 0o755);
  const [node, script = '', ...args] = process.argv as [string, ...string[]];
  const child = spawn(UNSHARE, [...FLAGS, '--kill-child', node, script, ...args, INSIDE, folder], {
    stdio: 'inherit',
    env: {
      ...process.env,
      PATH: [process.env.PATH ?? '', ...SYSTEM_FOLDERS].join(delimiter),
      TMPDIR: folder,
    },
  });
  const ended = new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => resolve(code ?? 1));
  });
  // Whatever ends this process ends that one, and with it, by the kernel, all that it has started.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => child.kill('SIGTERM'));
  try {
    return await ended;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Loopback, with every address of 127.0.0.0/8, and a resolver on port 53 of it. */
export async function furnish(folder: string): Promise<void> {
  await run('ip', ['link', 'set', 'lo', 'up']);
  const resolvers = join(folder, 'resolv.conf');
  await writeFile(resolvers, 'nameserver 127.0.0.1\noptions edns0 trust-ad\n');
  await cover('/etc/resolv.conf', resolvers);
}

/** For this process and its children, `path` is from now on what `with` is. */
export async function cover(path: string, other: string): Promise<void> {
  await run('mount', ['--bind', other, path]);
}
