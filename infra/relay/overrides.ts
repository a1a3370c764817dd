// The operator's word on single domains, from a file on the relay's host: it goes before DANE and MTA-STS. The file is read
// again when it changes; one that cannot be read as a whole changes nothing.

import { readFile, stat } from 'node:fs/promises';
import { type Domain, parseDomain } from '../../functions/mtasts/domain.ts';
import { quote } from '../../functions/mtasts/failure.ts';
import type { Observer } from './metrics.ts';

export type Override =
  /** MTA-STS is not applied: not found, as if the relay were not there. */
  | { readonly action: 'off' }
  | { readonly action: 'defer' }
  /** For Postfix to read. */
  | { readonly action: 'policy'; readonly text: string };

export type ParsedOverrides =
  | { readonly ok: true; readonly overrides: ReadonlyMap<Domain, Override> }
  /** One sentence for each bad line. */
  | { readonly ok: false; readonly flaws: readonly string[] };

/** postconf(5) smtp_tls_policy_maps: what a policy for Postfix begins with. */
const LEVELS: ReadonlySet<string> = new Set([
  'none',
  'may',
  'encrypt',
  'dane',
  'dane-only',
  'fingerprint',
  'verify',
  'secure',
]);

const MAX_POLICY_CHARACTERS = 4_096;

/** A mistake in a generated file is on every line of it. */
const MAX_FLAWS = 10;

/** How often the file is looked at. */
const POLL_MS = 5_000;

/** Reads lines of `domain action`; what follows a `#` at the start of a line is a comment. */
export function parseOverrides(text: string): ParsedOverrides {
  const overrides = new Map<Domain, Override>();
  const flaws: string[] = [];
  for (const [index, untrimmed] of text.split('\n').entries()) {
    const line = untrimmed.trim();
    if (line === '' || line.startsWith('#')) continue;
    const flaw = readLine(line, overrides);
    if (flaw !== undefined) flaws.push(`Line ${index + 1}: ${flaw}`);
  }
  return flaws.length === 0 ? { ok: true, overrides } : { ok: false, flaws: flaws.slice(0, MAX_FLAWS) };
}

/**
 * What shows that the file is only a part of what somebody wrote, on a full disk or after a loss of power; undefined: nothing
 * does. Each `defer` and `secure` that is missing lets mail go out that should not.
 */
function truncationFlaw(text: string): string | undefined {
  if (text.trim() === '') {
    return 'It is empty: a map that is meant to have no entries has a comment in it, as "# none".';
  }
  if (!text.endsWith('\n'))
    return 'Its last line has no line end, so it may have been cut: every line ends with one.';
  return undefined;
}

function readLine(line: string, overrides: Map<Domain, Override>): string | undefined {
  const [, name = '', action = ''] = /^(\S+)(?:\s+(.*))?$/.exec(line) ?? [];
  const domain = parseDomain(name);
  if (!domain.ok) return domain.reason;
  const override = readAction(action);
  if (override === undefined) {
    return (
      `"${quote(action)}" is no action: it should be "off", "defer" or a policy for Postfix that begins with one of ` +
      `${[...LEVELS].join(', ')}.`
    );
  }
  if (overrides.has(domain.domain)) return `there is another line for ${domain.domain} before.`;
  overrides.set(domain.domain, override);
  return undefined;
}

function readAction(action: string): Override | undefined {
  if (action === 'off' || action === 'defer') return { action };
  const printable = /^[ -~]+$/.test(action) && action.length <= MAX_POLICY_CHARACTERS;
  const [level = ''] = action.split(' ', 1);
  return printable && LEVELS.has(level) ? { action: 'policy', text: action } : undefined;
}

export interface Overrides {
  get(domain: Domain): Override | undefined;
  /** Reads the file again if it has changed, or in any case if told so. Never rejects. */
  reload(options?: { readonly always?: boolean }): Promise<void>;
  close(): void;
}

/** There is no override map, or none that can be read. The message says what to mend. */
export class OverridesError extends Error {
  readonly code = 'overrides';
}

/** Rejects with an OverridesError if the file cannot be read as it should be; later on that is only logged. */
export async function openOverrides(
  path: string | undefined,
  { observer, pollMs = POLL_MS }: { readonly observer: Observer; readonly pollMs?: number },
): Promise<Overrides> {
  if (path === undefined) {
    return { get: () => undefined, reload: () => Promise.resolve(), close: () => undefined };
  }
  const file = path;
  let overrides: ReadonlyMap<Domain, Override> = new Map();
  /** What the file looked like when it was read. */
  let seen: string | undefined;

  async function load(always: boolean): Promise<void> {
    // The change of the inode too: what could not be read may become readable, and copies can keep their time.
    const { mtimeMs, ctimeMs, size, ino } = await stat(file);
    const looks = `${mtimeMs} ${ctimeMs} ${size} ${ino}`;
    if (looks === seen && !always) return;
    const text = await readFile(file, 'utf8');
    seen = looks;
    const truncated = truncationFlaw(text);
    if (truncated !== undefined) throw new Error(truncated);
    const parsed = parseOverrides(text);
    if (!parsed.ok) throw new Error(parsed.flaws.join(' '));
    overrides = parsed.overrides;
    observer.gauge('overrides_loaded', overrides.size);
    observer.event('info', 'override map read', { file, entries: overrides.size });
  }

  try {
    await load(true);
  } catch (error) {
    throw new OverridesError(`RELAY_OVERRIDES: ${file} cannot be used. ${(error as Error).message}`, {
      cause: error,
    });
  }

  let said: string | undefined;
  let loading = Promise.resolve();
  const reload: Overrides['reload'] = ({ always = false } = {}) => {
    loading = loading.then(async () => {
      try {
        await load(always);
        said = undefined;
      } catch (error) {
        const reason = (error as Error).message;
        // Looked at every few seconds, said once.
        if (reason !== said) {
          observer.event('error', 'the override map cannot be used; the one from before stays in force', {
            file,
            reason,
          });
        }
        said = reason;
      }
    });
    return loading;
  };
  const timer = setInterval(reload, pollMs);
  timer.unref();
  return { get: (domain) => overrides.get(domain), reload, close: () => clearInterval(timer) };
}
