// Runs files of tests, each in a process of its own, and ends in a bounded time whatever they do: Node's runner limits
// tests, but waits for a process for ever. It knows nothing of the project.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { LEFT_OPEN } from './left-open.ts';

export interface Limits {
  /** For one test, unless it says otherwise. */
  readonly testSeconds: number;
  /** For one file, with its start and its end. */
  readonly fileSeconds: number;
  readonly runSeconds: number;
  /** After a file's last test; then whatever keeps its process alive is a failure. */
  readonly graceSeconds: number;
}

export interface RunOptions extends Limits {
  /** Absolute paths. */
  readonly files: readonly string[];
  /** Processes at a time. */
  readonly concurrency: number;
  readonly write: (text: string) => void;
}

export interface Totals {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** Those of which a test failed, or which ended badly, and those for which no time was left. */
  readonly badFiles: readonly string[];
}

interface Event {
  readonly type: string;
  readonly data: { readonly file?: string; readonly message?: string };
}
type Summary = {
  file?: string;
  success: boolean;
  counts: Record<'passed' | 'failed' | 'cancelled' | 'skipped', number>;
};

/** A process that is told to end has so long to do it. */
const KILL_SECONDS = 5;

export async function runTests(options: RunOptions): Promise<Totals> {
  const { files, concurrency, runSeconds, write } = options;
  const totals = { passed: 0, failed: 0, skipped: 0, badFiles: [] as string[] };
  const over = AbortSignal.timeout(runSeconds * 1_000);
  const waiting = [...files];

  async function work(): Promise<void> {
    for (;;) {
      const file = waiting.shift();
      if (file === undefined) return;
      const name = relative(process.cwd(), file);
      if (over.aborted) {
        totals.badFiles.push(name);
        totals.failed += 1;
        write(`✖ ${name}: not run, since the run took longer than ${runSeconds} s\n`);
        continue;
      }
      const { events, summary, seconds, stuck } = await runFile(file, options, over);
      const good = stuck === undefined && summary?.success === true;
      const { passed = 0, failed = 0, cancelled = 0, skipped = 0 } = summary?.counts ?? {};
      totals.passed += passed;
      totals.failed += good ? 0 : Math.max(failed + cancelled, 1);
      totals.skipped += skipped;
      if (!good) totals.badFiles.push(name);
      write(
        `${good ? '✔' : '✖'} ${name}  ${passed} passed${good ? '' : `, ${failed + cancelled} failed`}, ${seconds} s\n`,
      );
      if (stuck !== undefined) write(`  ${stuck}\n`);
      if (good) for (const note of notes(events)) write(`    ${note}\n`);
      else write(await inFull(events));
    }
  }

  await Promise.all(Array.from({ length: concurrency }, work));
  return totals;
}

/** How a file's process ended. */
export interface FileRun {
  readonly events: readonly Event[];
  readonly summary: Summary | undefined;
  readonly seconds: string;
  /** Says so if it was ended before it ended itself. */
  readonly stuck: string | undefined;
  /** What kept the process alive after its last test. */
  readonly leftOpen: string | undefined;
}

/** @param preload what its process loads before the tests, besides the guard. */
export async function runFile(
  file: string,
  { testSeconds, fileSeconds, graceSeconds }: Omit<Limits, 'runSeconds'>,
  over: AbortSignal,
  preload: readonly URL[] = [],
): Promise<FileRun> {
  const start = performance.now();
  const folder = mkdtempSync(join(tmpdir(), 'mta-sts-test-'));
  const underWay = join(folder, 'under-way');
  const guard = new URL('guard.ts', import.meta.url);
  guard.searchParams.set('grace', String(graceSeconds * 1_000));
  guard.searchParams.set('underWay', underWay);
  const late = AbortSignal.timeout(fileSeconds * 1_000);
  const events: Event[] = [];
  let summary: Summary | undefined;
  const stream = run({
    files: [file],
    isolation: 'process',
    execArgv: [guard, ...preload].flatMap(({ href }) => ['--import', href]),
    timeout: testSeconds * 1_000,
    signal: AbortSignal.any([late, over]),
  });
  const reading = (async () => {
    for await (const event of stream as AsyncIterable<Event>) {
      // The file's own comes first, then that of the run, which knows how the process ended.
      if (event.type === 'test:summary') summary = event.data as unknown as Summary;
      else events.push(event);
    }
  })();
  const killed = Promise.race([aborted(late), aborted(over)]).then(() => pause(KILL_SECONDS));
  await Promise.race([reading, killed]);
  const seconds = ((performance.now() - start) / 1_000).toFixed(1);
  const ended = late.aborted || over.aborted;
  const limit = over.aborted ? 'the whole run had no more time' : `a file may take ${fileSeconds} s`;
  const stuck = ended ? `ended from outside ${place(underWay)}: ${limit}` : undefined;
  rmSync(folder, { recursive: true, force: true });
  return { events, summary, seconds, stuck, leftOpen: leftOpenIn(events) };
}

function leftOpenIn(events: readonly Event[]): string | undefined {
  const errors = events.filter(({ type }) => type === 'test:stderr').map(({ data }) => data.message ?? '');
  const text = errors.join('');
  const begin = text.indexOf(LEFT_OPEN);
  return begin < 0 ? undefined : text.slice(begin).trimEnd();
}

/** As the guard wrote it down: a process in an endless loop tells nothing. */
function place(underWay: string): string {
  try {
    const tests = readFileSync(underWay, 'utf8');
    return tests === '' ? 'when no test was under way' : `in ${tests}`;
  } catch {
    return 'before its first test';
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

function pause(seconds: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, seconds * 1_000).unref();
  });
}

/** What tests that pass have to say. */
function notes(events: readonly Event[]): string[] {
  return events
    .filter(
      ({ type, data }) => type === 'test:stderr' || (type === 'test:diagnostic' && data.file !== undefined),
    )
    .map(({ data }) => data.message?.trimEnd() ?? '');
}

async function inFull(events: readonly Event[]): Promise<string> {
  // The counts of the file come without it, and stand above already.
  const tests = events.filter(({ type, data }) => type !== 'test:diagnostic' || data.file !== undefined);
  const chunks: unknown[] = await Readable.from(tests).compose(new spec()).toArray();
  return chunks.join('');
}
