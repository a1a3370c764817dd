// Debian's postfix-mta-sts-resolver: what a relay has today. It fetches policies itself, for itself.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Program, startProgram } from './program.ts';
import { connectSocketmap } from './socketmap-client.ts';

/** What one calls it, and where it answers. */
export const DEBIAN_RESOLVER = { program: 'mta-sts-daemon', package: 'postfix-mta-sts-resolver', port: 8461 };

/** @param roots file with the certification authorities of policy hosts. */
export async function startDebianResolver(folder: string, roots: string): Promise<Program> {
  const file = join(folder, 'mta-sts-daemon.yml');
  // Its defaults, but for the cache, which is in memory, and for its patience at the end. JSON is YAML.
  const configuration = {
    host: '127.0.0.1',
    port: DEBIAN_RESOLVER.port,
    shutdown_timeout: 1,
    cache_grace: 3_600,
    cache: { type: 'internal', options: { cache_size: 10_000 } },
    default_zone: { strict_testing: false, timeout: 4 },
  };
  await writeFile(file, JSON.stringify(configuration));
  return await startProgram({
    file: DEBIAN_RESOLVER.program,
    args: ['-c', file],
    env: { PATH: process.env.PATH, SSL_CERT_FILE: roots, LANG: 'C.UTF-8' },
    ready: async () => {
      (await connectSocketmap({ port: DEBIAN_RESOLVER.port, host: '127.0.0.1' })).close();
      return true;
    },
  });
}
