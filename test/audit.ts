// `npm run audit`: known vulnerabilities of what is deployed, from the registry's advisories. Exit status 1 if there is
// one; 2 if nobody could say, since some mirrors of the registry have no advisories.

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const AUDIT_MS = 60_000;

interface Report {
  readonly vulnerabilities?: Readonly<Record<string, Vulnerability>>;
  readonly message?: string;
  readonly error?: { readonly summary?: string };
}

interface Vulnerability {
  readonly severity: string;
  readonly range: string;
  /** Where it is installed, as the lockfile spells it. */
  readonly nodes: readonly string[];
}

interface Lockfile {
  readonly packages: Readonly<Record<string, { readonly dev?: boolean; readonly devOptional?: boolean }>>;
}

const npm = process.env.npm_execpath;
if (npm === undefined) {
  console.error('Run this as `npm run audit`.');
  process.exit(2);
}
const { packages } = JSON.parse(
  readFileSync(join(import.meta.dirname, '../package-lock.json'), 'utf8'),
) as Lockfile;
const isDeployed = (node: string) => packages[node]?.dev !== true && packages[node]?.devOptional !== true;

const command = [npm, 'audit', '--json', '--loglevel=silent'];
// npm ends with 1 for a vulnerability and for a failure alike: what it prints tells them apart.
const output = await new Promise<string>((resolve) => {
  execFile(process.execPath, command, { timeout: AUDIT_MS, maxBuffer: 1 << 26 }, (_, stdout) =>
    resolve(stdout),
  );
});
const report = parse(output);
if (report.vulnerabilities === undefined) {
  const reason = report.message ?? report.error?.summary ?? (output.trim() || 'no answer');
  console.error(
    `The dependencies were not audited: the registry gives no advisories (${reason.slice(0, 200)}).`,
  );
  process.exitCode = 2;
} else {
  const found = Object.entries(report.vulnerabilities);
  const deployed = found.filter(([, { nodes }]) => nodes.some(isDeployed));
  for (const [name, { severity, range }] of deployed) console.error(`${severity}: ${name} ${range}`);
  const tools = found.length - deployed.length;
  console.log(`known vulnerabilities: ${deployed.length} in what is deployed, ${tools} in tools`);
  if (deployed.length > 0) process.exitCode = 1;
}

function parse(text: string): Report {
  try {
    return JSON.parse(text) as Report;
  } catch {
    return {};
  }
}
