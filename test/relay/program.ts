// Programs that run beside the test, and what they say.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

const START_MS = 20_000;
const STOP_MS = 10_000;
const RUN_MS = 60_000;
const PAUSE_MS = 20;
const MAX_OUTPUT_CHARACTERS = 100_000;

export interface Program {
  readonly process: ChildProcess;
  /** The end of what it wrote to standard output and standard error. */
  output(): string;
  /** Asks it to end, and waits. @returns its exit status. */
  stop(): Promise<number | null>;
}

export interface Start {
  readonly file: string;
  readonly args?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** Tried until it is true. Rejecting is being false. */
  readonly ready: (output: string) => boolean | Promise<boolean>;
}

export async function startProgram({ file, args = [], env, cwd, ready }: Start): Promise<Program> {
  const child = spawn(file, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(env && { env }),
    ...(cwd && { cwd }),
  });
  let said = '';
  let ended = false;
  const exited = once(child, 'close').then(() => {
    ended = true;
  });
  exited.catch(() => {});
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-MAX_OUTPUT_CHARACTERS);
    });
  }
  const program: Program = {
    process: child,
    output: () => said,
    async stop() {
      if (!ended) child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      await exited;
      clearTimeout(timer);
      return child.exitCode;
    },
  };
  try {
    await until(`${file} is ready`, START_MS, async () => {
      if (ended) throw new Error(`${file} ended with status ${child.exitCode}`);
      return await Promise.resolve(ready(said)).catch(() => false);
    });
  } catch (error) {
    await program.stop();
    throw new Error(`${(error as Error).message}. It said:\n${said}`, { cause: error });
  }
  return program;
}

/** Runs a program to its end. Rejects, with what it said, if it fails. */
export async function run(
  file: string,
  args: readonly string[],
  { env, cwd, input = '' }: { env?: NodeJS.ProcessEnv; cwd?: string; input?: string } = {},
): Promise<string> {
  const running = promisify(execFile)(file, args, {
    timeout: RUN_MS,
    killSignal: 'SIGKILL',
    ...(env && { env }),
    ...(cwd && { cwd }),
  });
  // One that does not read what it is given says so in another way.
  running.child.stdin?.on('error', () => {}).end(input);
  try {
    return (await running).stdout;
  } catch (cause) {
    const { stdout = '', stderr = '', message } = cause as Error & { stdout?: string; stderr?: string };
    throw new Error(`${message}\n${stdout}${stderr}`, { cause });
  }
}

/** Waits for something that nothing announces. Rejects, naming it, when it takes too long. */
export async function until(
  what: string,
  milliseconds: number,
  holds: () => boolean | Promise<boolean>,
): Promise<void> {
  const end = Date.now() + milliseconds;
  while (!(await holds())) {
    if (Date.now() >= end) throw new Error(`Not within ${milliseconds} ms: ${what}`);
    await delay(PAUSE_MS);
  }
}
