import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

interface Options {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Milliseconds. */
  readonly timeout: number;
}

/** Runs a program that does not outlive this one. Rejects, with what it said in `stdout` and `stderr`, if it fails. */
export async function run(file: string, args: readonly string[], options: Options) {
  const running = promisify(execFile)(file, args, { ...options, killSignal: 'SIGKILL' });
  const kill = () => running.child.kill('SIGKILL');
  process.once('exit', kill);
  try {
    return await running;
  } finally {
    process.off('exit', kill);
  }
}
