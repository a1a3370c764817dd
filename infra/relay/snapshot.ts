// What survives a restart: the last known policies, and the use that is not reported yet. Both are files of lines,
// replaced as a whole, and read as if a stranger had written them: nothing in them can stop the relay.

import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Domain, parseDomain } from '../../functions/mtasts/domain.ts';
import { quote } from '../../functions/mtasts/failure.ts';
import { MODES } from '../../functions/mtasts/policy.ts';
import type { Clock } from './clock.ts';
import { checkEntry, type Entry } from './entry.ts';
import type { Observer } from './metrics.ts';

/** Policies in use of which the table was not told yet. */
export interface Use {
  readonly domains: ReadonlySet<Domain>;
  /** Epoch milliseconds of the last report. */
  readonly reportedAt: number;
  /** When in the day (UTC) this host reports: milliseconds after midnight. */
  readonly timeOfDay: number;
}

/**
 * How a file was read: to its end, also if there is none; given up, so that nothing of it is on disk under its name any
 * more; or only until the signal was aborted.
 */
export type Loaded = 'read' | 'set-aside' | 'stopped';

export interface Snapshot {
  /**
   * Hands over those that can be read, in the order in which they were saved, one by one: the file may hold more than
   * memory. Those that have ended are among them, as the clock may be wrong. In between, the event loop turns.
   */
  loadPolicies(keep: (entry: Entry) => void, signal?: AbortSignal): Promise<Loaded>;
  /** @returns whether they are on disk now. */
  savePolicies(entries: readonly Entry[]): Promise<boolean>;
  loadUse(): Promise<Use | undefined>;
  /** @returns whether it is on disk now. */
  saveUse(use: Use): Promise<boolean>;
}

interface File {
  readonly name: string;
  /** What the file says of itself in its first line. */
  readonly format: string;
  readonly version: number;
  /** One that has more is not read. */
  readonly maxBytes: number;
  /** One that has more is read so far. */
  readonly maxLines: number;
}

const MiB = 1024 * 1024;

const POLICIES: File = {
  name: 'policies.jsonl',
  format: 'mta-sts-relay policies',
  version: 1,
  // More than a million policies of ordinary size; read slice by slice.
  maxBytes: 1024 * MiB,
  // RELAY_CACHED_DOMAINS is at most so many; and the first line.
  maxLines: 1_000_001,
};
const USE: File = {
  name: 'use.jsonl',
  format: 'mta-sts-relay use',
  version: 1,
  // A hundred thousand of the longest names, which is all that a relay notes.
  maxBytes: 32 * MiB,
  maxLines: 100_001,
};

/** 8 KiB of MX patterns (MAX_MX_BYTES) are 32 KiB as JSON if each has one character; the rest of a line is short. */
const MAX_LINE_BYTES = 64 * 1024;

/** Between two of these, the event loop serves lookups and signals: some 500 policies, 3 ms. */
const SLICE_BYTES = 64 * 1024;

/**
 * A file that has more of them is none of ours any more. To say of each of four million line ends that it is no JSON takes
 * half a minute.
 */
const MAX_BAD_LINES = 1_000;

/** Between two of these, the event loop serves lookups. */
const LINES_PER_WRITE = 500;

const NEWLINE = 0x0a;

const DAY_MS = 86_400_000;

/**
 * @param options.directory is made if it is not there.
 * @param options.readOnly nothing in it is changed, and it counts as saved.
 */
export function openSnapshot(options: {
  readonly directory: string;
  readonly readOnly: boolean;
  readonly clock: Clock;
  readonly observer: Pick<Observer, 'count' | 'event'>;
}): Snapshot {
  const { directory, readOnly, clock, observer } = options;
  const pathOf = ({ name }: File) => join(directory, name);
  /** The files that could not be written the last time: said once. */
  const failing = new Set<File>();

  async function load(
    file: File,
    onHeader: (header: Fields) => void,
    onLine: (line: unknown) => string | undefined,
    signal?: AbortSignal,
  ): Promise<Loaded> {
    const path = pathOf(file);
    let lines = 0;
    let bad = 0;
    let firstFlaw = '';
    const take = (line: string | undefined) => {
      lines += 1;
      if (lines > file.maxLines) throw new BrokenFile(`it has more than ${file.maxLines} lines`);
      if (lines === 1) return onHeader(checkHeader(line, file));
      const flaw = line === undefined ? 'The line is too long' : readJson(line, onLine);
      if (flaw === undefined) return;
      bad += 1;
      firstFlaw ||= flaw;
      if (bad > MAX_BAD_LINES)
        throw new BrokenFile(
          `more than ${MAX_BAD_LINES} of its lines cannot be used; the first: ${firstFlaw}`,
        );
    };
    try {
      if (!(await readLines(path, file.maxBytes, take, signal))) return 'stopped';
      if (lines === 0) throw new BrokenFile('it is empty');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'read';
      return (await setAside(path, error)) ? 'set-aside' : 'read';
    }
    if (bad > 0) {
      observer.event('warn', 'lines of a file of the relay cannot be used', {
        path,
        lines: bad,
        first: firstFlaw,
      });
    }
    return 'read';
  }

  /** @returns whether nothing is there under its name any more. */
  async function setAside(path: string, error: unknown): Promise<boolean> {
    const reason = quote(error instanceof Error ? error.message : String(error));
    const aside = `${path}.broken`;
    const kept =
      error instanceof BrokenFile &&
      !readOnly &&
      (await rename(path, aside).then(
        () => true,
        () => false,
      ));
    observer.event('warn', 'a file of the relay cannot be read; going on without it', {
      path,
      reason,
      ...(kept ? { kept_as: aside } : {}),
    });
    return kept;
  }

  async function save(file: File, header: Fields, lines: Iterable<unknown>): Promise<boolean> {
    if (readOnly) return true;
    const path = pathOf(file);
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      await replaceFile(path, { format: file.format, version: file.version, ...header }, lines);
    } catch (error) {
      observer.count('snapshots', { result: 'failed' });
      if (!failing.has(file)) {
        failing.add(file);
        const reason = quote(error instanceof Error ? error.message : String(error));
        observer.event('warn', 'a file of the relay cannot be written; a restart would lose it', {
          path,
          reason,
        });
      }
      return false;
    }
    observer.count('snapshots', { result: 'written' });
    if (failing.delete(file)) observer.event('info', 'a file of the relay can be written again', { path });
    return true;
  }

  return {
    loadPolicies(keep, signal) {
      const now = clock.now();
      return load(
        POLICIES,
        () => {},
        (line) => {
          const read = readEntry(line, now);
          if (!read.ok) return read.reason;
          keep(read.entry);
          return undefined;
        },
        signal,
      );
    },

    savePolicies: (entries) =>
      save(
        POLICIES,
        {},
        entries.map(({ domain, policy, recordId, validEnd }) => ({
          domain,
          mode: policy.mode,
          mx: policy.mx,
          maxAgeSeconds: policy.maxAgeSeconds,
          recordId,
          validEnd,
        })),
      ),

    async loadUse() {
      const domains = new Set<Domain>();
      let head: Fields | undefined;
      await load(
        USE,
        (header) => {
          head = header;
        },
        (line) => {
          const parsed = parseDomain(typeof line === 'string' ? line : '');
          if (parsed.ok) domains.add(parsed.domain);
          return parsed.ok ? undefined : parsed.reason;
        },
      );
      const { reportedAt, timeOfDay } = head ?? {};
      if (!isNumber(reportedAt) || !isNumber(timeOfDay) || timeOfDay < 0 || timeOfDay >= DAY_MS)
        return undefined;
      return { domains, reportedAt, timeOfDay };
    },

    saveUse: ({ domains, reportedAt, timeOfDay }) => save(USE, { reportedAt, timeOfDay }, domains),
  };
}

type Fields = Readonly<Record<string, unknown>>;

/** Nothing in the file can be used; never leaves this file of code. */
class BrokenFile extends Error {}

function isNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function checkHeader(line: string | undefined, { format, version }: File): Fields {
  let header: unknown;
  try {
    header = JSON.parse(line ?? '');
  } catch {
    // Said below.
  }
  if (!isFields(header) || header.format !== format)
    throw new BrokenFile(`its first line is not that of "${format}"`);
  if (header.version !== version) {
    throw new BrokenFile(
      `it is of version ${quote(String(header.version))}, and this relay reads ${version}`,
    );
  }
  return header;
}

function readJson(line: string, read: (value: unknown) => string | undefined): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return 'The line is not JSON';
  }
  return read(value);
}

function readEntry(line: unknown, now: number) {
  const refuse = (reason: string) => ({ ok: false, reason }) as const;
  if (!isFields(line)) return refuse('The line is not an object');
  const { mx, maxAgeSeconds, recordId, validEnd } = line;
  const parsed = parseDomain(typeof line.domain === 'string' ? line.domain : '');
  if (!parsed.ok) return refuse(parsed.reason);
  if (parsed.domain !== line.domain) return refuse(`The domain should be ${parsed.domain}`);
  const mode = MODES.find((known) => known === line.mode);
  if (mode === undefined) return refuse(`The mode is not one of ${MODES.join(', ')}`);
  if (!Array.isArray(mx) || !mx.every((pattern) => typeof pattern === 'string')) {
    return refuse('mx is not a list of strings');
  }
  if (!isNumber(maxAgeSeconds) || !isNumber(validEnd))
    return refuse('maxAgeSeconds or validEnd is not a number');
  if (recordId !== undefined && typeof recordId !== 'string') return refuse('recordId is not a string');
  return checkEntry(
    { domain: parsed.domain, policy: { mode, mx, maxAgeSeconds }, backoff: false, validEnd, recordId },
    now,
  );
}

/**
 * @param take is given each line, and undefined for one that is too long to be one of ours.
 * @returns false if the signal was aborted before the end.
 */
async function readLines(
  path: string,
  maxBytes: number,
  take: (line: string | undefined) => void,
  signal?: AbortSignal,
): Promise<boolean> {
  // O_NONBLOCK: to open a FIFO would wait for somebody who writes to it.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stats = await handle.stat();
    if (!stats.isFile()) throw new BrokenFile('it is not a file');
    if (stats.size > maxBytes) throw new BrokenFile(`it has more than ${maxBytes} bytes`);
    const splitter = createSplitter(take);
    const slice = Buffer.allocUnsafe(SLICE_BYTES);
    // Somebody may append to it meanwhile.
    for (let left = maxBytes; left > 0; ) {
      if (signal?.aborted) return false;
      const { bytesRead } = await handle.read(slice, 0, Math.min(left, SLICE_BYTES));
      if (bytesRead === 0) break;
      left -= bytesRead;
      splitter.add(slice.subarray(0, bytesRead));
    }
    splitter.end();
    return true;
  } finally {
    await handle.close();
  }
}

function createSplitter(take: (line: string | undefined) => void) {
  /** The beginning of a line whose end is not there yet. */
  let pieces: Buffer[] = [];
  /** Its bytes, also where they are too many to be kept. */
  let length = 0;
  const finish = () => {
    take(length > MAX_LINE_BYTES ? undefined : Buffer.concat(pieces).toString('utf8'));
    pieces = [];
    length = 0;
  };
  const keep = (piece: Buffer) => {
    length += piece.length;
    if (length > MAX_LINE_BYTES) pieces = [];
    // A copy: the slice is written over.
    else pieces.push(Buffer.from(piece));
  };
  return {
    add(slice: Buffer): void {
      let start = 0;
      for (let end = slice.indexOf(NEWLINE); end >= 0; end = slice.indexOf(NEWLINE, start)) {
        if (length === 0) {
          // The rule: all of the line is in this slice, which is no longer than a line may be.
          take(slice.toString('utf8', start, end));
        } else {
          keep(slice.subarray(start, end));
          finish();
        }
        start = end + 1;
      }
      if (start < slice.length) keep(slice.subarray(start));
    },
    end(): void {
      if (length > 0) finish();
    },
  };
}

/** Whoever reads finds the old file or the new one, whole, also after a loss of power. */
async function replaceFile(path: string, header: Fields, lines: Iterable<unknown>): Promise<void> {
  const unfinished = `${path}.new`;
  try {
    // One that was left behind, or a link that somebody put there: to open it would write over what it points to.
    await rm(unfinished, { force: true });
    // O_EXCL: what is there again in between is not opened, nor followed if it is a link (open(2)).
    const file = await open(unfinished, 'wx', 0o600);
    try {
      await writeLines(file, header, lines);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(unfinished, path);
  } catch (error) {
    await rm(unfinished, { force: true }).catch(() => {});
    throw error;
  }
  await syncDirectory(join(path, '..'));
}

async function writeLines(file: FileHandle, header: Fields, lines: Iterable<unknown>): Promise<void> {
  let text = `${JSON.stringify(header)}\n`;
  let count = 0;
  for (const line of lines) {
    text += `${JSON.stringify(line)}\n`;
    count += 1;
    if (count % LINES_PER_WRITE === 0) {
      await file.writeFile(text);
      text = '';
    }
  }
  await file.writeFile(text);
}

/** Where directories cannot be synced, the rename is as durable as it gets. */
async function syncDirectory(path: string): Promise<void> {
  try {
    const directory = await open(path, 'r');
    await directory.sync().finally(() => directory.close());
  } catch {
    // The file itself is whole, whichever of the two it is.
  }
}
