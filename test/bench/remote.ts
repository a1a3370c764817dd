// A part of the bench in a process of its own, so that its CPU time and memory are nobody else's: both ends of the
// channel. It knows nothing of what is called.

import { fork } from 'node:child_process';
import { once } from 'node:events';

// biome-ignore lint/suspicious/noExplicitAny: what goes through the channel is up to the two ends.
type Operation = (...args: any[]) => unknown;

/** What a process answers to. */
export type Operations = Readonly<Record<string, Operation>>;

interface Call {
  readonly id: number;
  readonly name: string;
  readonly args: readonly unknown[];
}

interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: string;
}

/** In the child: answers calls until the parent ends the channel. */
export function serve(operations: Operations): void {
  process.on('disconnect', () => process.exit());
  process.on('message', async ({ id, name, args }: Call) => {
    const answer: Answer = await Promise.resolve()
      .then(() => operations[name]?.(...args))
      .then(
        (value) => ({ id, value }),
        (error: unknown) => ({
          id,
          error: error instanceof Error ? (error.stack ?? error.message) : String(error),
        }),
      );
    process.send?.(answer);
  });
  // Ctrl-C goes to every process of the terminal; the parent decides when its children end.
  process.on('SIGINT', () => {});
  process.send?.({ id: 0 } satisfies Answer);
}

/** What the parent holds of a child whose operations are `O`. */
export interface Remote<O extends Operations> {
  call<N extends keyof O & string>(name: N, ...args: Parameters<O[N]>): Promise<Awaited<ReturnType<O[N]>>>;
  close(): Promise<void>;
}

export interface RemoteOptions {
  readonly args?: readonly string[];
  /** Flags of Node. */
  readonly flags?: readonly string[];
  /** The whole environment; that of this process if left out. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** Children that are open, so that none is left behind. */
const open = new Set<() => Promise<void>>();

/** Starts `file`, which has to call `serve`. */
export async function startRemote<O extends Operations>(
  file: string,
  { args = [], flags = [], environment }: RemoteOptions = {},
): Promise<Remote<O>> {
  const child = fork(file, args, {
    execArgv: [...flags],
    env: environment ?? process.env,
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const exit = once(child, 'exit');
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  let calls = 0;
  const expect = (id: number) =>
    new Promise<unknown>((resolve, reject) => waiting.set(id, { resolve, reject }));
  child.on('message', ({ id, value, error }: Answer) => {
    const call = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) call?.resolve(value);
    else call?.reject(new Error(error));
  });
  child.once('exit', (code, signal) => {
    open.delete(close);
    for (const call of waiting.values()) call.reject(new Error(`${file} ended by itself: ${signal ?? code}`));
  });
  const close = async () => {
    if (child.connected) child.disconnect();
    await exit;
  };
  open.add(close);
  await expect(0);
  return {
    call: (name, ...args) => {
      const answer = expect(++calls);
      child.send({ id: calls, name, args } satisfies Call);
      return answer as never;
    },
    close,
  };
}

/** Ends every child that is still open. */
export async function closeRemotes(): Promise<void> {
  await Promise.all([...open].map((close) => close()));
}
