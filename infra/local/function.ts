// A stand-in for AWS Lambda. Each function runs in processes of its own, so that it has its own variables, memory and
// output, and can be killed. It knows nothing of what invokes it.

import { type ChildProcess, fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { ACCOUNT, type Endpoints, REGION, sandboxEnvironment } from './environment.ts';
import type { Invocation, Reply } from './function-runtime.ts';

const RUNTIME = join(import.meta.dirname, 'function-runtime.ts');

/** Lambda allows 10 s to import a handler; a busy machine that strips types may need longer. */
const INIT_TIMEOUT_MS = 30_000;

/** What a process gets to exit by itself before it is killed. */
const EXIT_GRACE_MS = 1_000;

export interface FunctionOptions {
  readonly name: string;
  /** Path of the module that exports `handler`: TypeScript source or a bundle. */
  readonly handler: string;
  readonly endpoints: Endpoints;
  readonly variables?: Readonly<Record<string, string>> | undefined;
  readonly caFile?: string | undefined;
  readonly timeoutSeconds: number;
  readonly memoryMegabytes?: number;
  /** At most this many processes; further invocations wait. */
  readonly concurrency: number;
  /** Retries of an asynchronous invocation. Lambda waits one minute, then two; here it is `retryDelayMs`. */
  readonly retries?: number;
  readonly retryDelayMs?: number;
  readonly onFailure?: (record: FailureRecord) => void | Promise<void>;
  /** Every line of standard output and error; all lines of an invocation come before its result. */
  readonly onLine?: ((functionName: string, line: string) => void) | undefined;
}

/** A failed invocation. `errorType` is the handler's error name, or `Sandbox.Timedout`, `Runtime.ExitError`. */
export class FunctionError extends Error {
  override readonly name = 'FunctionError';
  readonly errorType: string;

  constructor(errorType: string, message: string, stack?: string) {
    super(message);
    this.errorType = errorType;
    if (stack !== undefined) this.stack = stack;
  }
}

export function functionArn(name: string): string {
  return `arn:aws:lambda:${REGION}:${ACCOUNT}:function:${name}`;
}

/** What Lambda sends to the on-failure destination of an asynchronous invocation. */
export type FailureRecord = ReturnType<typeof failureRecord>;

function failureRecord(
  payload: unknown,
  arn: string,
  requestId: string,
  attempts: number,
  error: FunctionError,
) {
  return {
    version: '1.0',
    timestamp: new Date().toISOString(),
    requestContext: {
      requestId,
      functionArn: `${arn}:$LATEST`,
      condition: 'RetriesExhausted',
      approximateInvokeCount: attempts,
    },
    requestPayload: payload,
    responseContext: { statusCode: 200, executedVersion: '$LATEST', functionError: 'Unhandled' },
    responsePayload: { errorType: error.errorType, errorMessage: error.message },
  };
}

interface Expectation {
  resolve(payload: string): void;
  reject(error: FunctionError): void;
  reply?: Reply;
  /** Ends every line of the invocation, once on each stream. */
  readonly mark: string;
  openStreams: number;
}

/** One process, which answers one invocation at a time. */
class Sandbox {
  readonly name: string;
  readonly ready: Promise<string>;
  /** Resolves when the process is gone and its last line delivered. */
  readonly ended: Promise<void>;
  readonly #child: ChildProcess;
  readonly #onLine: (line: string) => void;
  #expected: Expectation | undefined;
  #cause: FunctionError | undefined;

  constructor(
    name: string,
    handler: string,
    environment: Record<string, string>,
    onLine: (line: string) => void,
  ) {
    this.name = name;
    this.#onLine = onLine;
    this.#child = fork(RUNTIME, [handler], {
      env: environment,
      // Nothing of the parent's flags: under the test runner those would make it a test of its own.
      execArgv: ['--enable-source-maps'],
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.ready = this.#expect('', 0, INIT_TIMEOUT_MS, 'Initialization');
    this.#child.on('message', (reply: Reply) => {
      if (this.#expected) this.#expected.reply = reply;
      this.#settle();
    });
    this.ended = this.#end();
  }

  get alive(): boolean {
    return this.#child.connected && this.#child.exitCode === null && this.#cause === undefined;
  }

  invoke(invocation: Omit<Invocation, 'deadline'>, timeoutSeconds: number): Promise<string> {
    const timeoutMs = timeoutSeconds * 1_000;
    const answer = this.#expect(`\0${invocation.requestId}`, 2, timeoutMs, 'Task');
    // A channel that is closed shows itself as the end of the process.
    this.#child.send({ ...invocation, deadline: Date.now() + timeoutMs } satisfies Invocation, () => {});
    return answer;
  }

  /** As a machine that fails under it: at once, whatever it is doing. Its invocation fails. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended;
  }

  async close(): Promise<void> {
    this.#cause ??= new FunctionError('Sandbox.Closed', 'The function was closed');
    if (this.#child.connected) this.#child.disconnect();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), EXIT_GRACE_MS);
    await this.ended;
    clearTimeout(timer);
  }

  #expect(mark: string, openStreams: number, timeoutMs: number, what: string): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const timer = setTimeout(() => {
      this.#cause ??= new FunctionError(
        'Sandbox.Timedout',
        `${what} timed out after ${timeoutMs / 1_000} seconds`,
      );
      this.#child.kill('SIGKILL');
    }, timeoutMs);
    this.#expected = { resolve, reject, mark, openStreams };
    return promise.finally(() => clearTimeout(timer));
  }

  #settle(): void {
    const expected = this.#expected;
    if (!expected?.reply || expected.openStreams > 0) return;
    this.#expected = undefined;
    const { reply } = expected;
    if (reply.kind === 'result') expected.resolve(reply.payload);
    else if (reply.kind === 'ready') expected.resolve('');
    else {
      const error = new FunctionError(reply.error.name, reply.error.message, reply.error.stack);
      // A process whose handler cannot be imported exits; the next invocation is a new cold start.
      if (expected.mark === '') this.#cause = error;
      expected.reject(error);
    }
  }

  async #end(): Promise<void> {
    const { stdout, stderr } = this.#child;
    // Not the event 'close': it does not come after a disconnect() on this side.
    const how = await Promise.all([
      once(this.#child, 'exit'),
      once(this.#child, 'disconnect'),
      this.#readLines(stdout),
      this.#readLines(stderr),
    ]).then(([[code, signal]]) => signal ?? `exit status ${code}`, String);
    this.#cause ??= new FunctionError('Runtime.ExitError', `Runtime exited without an answer: ${how}`);
    this.#expected?.reject(this.#cause);
  }

  // node:readline would also break lines at U+2028, which JSON may hold.
  async #readLines(stream: Readable | null): Promise<void> {
    if (!stream) return;
    let rest = '';
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#line(line.endsWith('\r') ? line.slice(0, -1) : line);
    });
    stream.on('end', () => this.#line(rest));
    await once(stream, 'close');
  }

  #line(line: string): void {
    const expected = this.#expected;
    const marked = expected !== undefined && expected.mark !== '' && line.endsWith(expected.mark);
    const text = marked ? line.slice(0, -expected.mark.length) : line;
    if (text !== '') this.#onLine(text);
    if (!marked) return;
    expected.openStreams -= 1;
    this.#settle();
  }
}

/** A deployed function: a pool of processes, started on demand and kept warm. */
export class LocalFunction {
  readonly name: string;
  readonly arn: string;
  readonly #options: FunctionOptions;
  readonly #sandboxes = new Set<Sandbox>();
  readonly #idle: Sandbox[] = [];
  readonly #waiting: (() => void)[] = [];
  readonly #closing = new AbortController();
  #running = 0;
  #pending = 0;
  #started = 0;

  constructor(options: FunctionOptions) {
    this.#options = options;
    this.name = options.name;
    this.arn = functionArn(options.name);
  }

  /** Invocations that have not ended, retries and waiting ones included. */
  get pending(): number {
    return this.#pending;
  }

  /** Names of the processes that there are, idle ones included; see SandboxOptions.processName. */
  get processes(): string[] {
    return [...this.#sandboxes].map(({ name }) => name);
  }

  /** Kills a process. Resolves when it is gone, to whether it was there. */
  async kill(processName: string): Promise<boolean> {
    const sandbox = [...this.#sandboxes].find(({ name }) => name === processName);
    await sandbox?.kill();
    return sandbox !== undefined;
  }

  /** Synchronous invocation. Throws FunctionError when the handler fails, times out or its process ends. */
  async invoke(event: unknown): Promise<unknown> {
    this.#pending += 1;
    try {
      return await this.#execute(event, randomUUID());
    } finally {
      this.#pending -= 1;
    }
  }

  /**
   * Lambda's asynchronous invocation: failures are retried, the last one goes to `onFailure`. Resolves when all of that
   * is over; only an `onFailure` that throws makes it reject.
   */
  async invokeAsync(event: unknown): Promise<void> {
    const { retries = 2, retryDelayMs = 200, onFailure } = this.#options;
    const requestId = randomUUID();
    this.#pending += 1;
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          await this.#execute(event, requestId);
          return;
        } catch (error) {
          if (this.#closing.signal.aborted || !(error instanceof FunctionError)) throw error;
          if (attempt > retries) {
            await onFailure?.(failureRecord(event, this.arn, requestId, attempt, error));
            return;
          }
        }
        await delay(retryDelayMs, undefined, { signal: this.#closing.signal });
      }
    } catch (error) {
      if (!this.#closing.signal.aborted) throw error;
    } finally {
      this.#pending -= 1;
    }
  }

  /** Ends the processes; what still runs fails. */
  async close(): Promise<void> {
    this.#closing.abort();
    for (const wake of this.#waiting.splice(0)) wake();
    await Promise.all([...this.#sandboxes].map((sandbox) => sandbox.close()));
  }

  async #execute(event: unknown, requestId: string): Promise<unknown> {
    const payload = JSON.stringify(event ?? null);
    if (this.#running >= this.#options.concurrency) {
      // The one who wakes us leaves us its place.
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else {
      this.#running += 1;
    }
    try {
      if (this.#closing.signal.aborted) throw new FunctionError('Sandbox.Closed', 'The function was closed');
      const sandbox = this.#take();
      try {
        await sandbox.ready;
        const { timeoutSeconds } = this.#options;
        return JSON.parse(
          await sandbox.invoke({ requestId, functionArn: this.arn, payload }, timeoutSeconds),
        );
      } finally {
        if (sandbox.alive) this.#idle.push(sandbox);
      }
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running -= 1;
    }
  }

  #take(): Sandbox {
    for (let sandbox = this.#idle.pop(); sandbox; sandbox = this.#idle.pop()) {
      if (sandbox.alive) return sandbox;
    }
    const { name, handler, onLine } = this.#options;
    this.#started += 1;
    const processName = `${name}-${this.#started}`;
    const environment = sandboxEnvironment({ ...this.#options, functionName: name, processName });
    const sandbox = new Sandbox(processName, handler, environment, (line) => onLine?.(name, line));
    this.#sandboxes.add(sandbox);
    void sandbox.ended.then(() => this.#sandboxes.delete(sandbox));
    return sandbox;
  }
}
