// The inside of a local function's process, what Lambda's Node runtime is to a handler. It imports the handler once,
// then answers one invocation at a time over the IPC channel. It knows nothing of the pool, queues or tables.

import { enableCompileCache } from 'node:module';
import { pathToFileURL } from 'node:url';
import type { Context } from 'aws-lambda';

// Each process of each function loads the same modules; so they are compiled once, which saves a quarter of a cold start.
enableCompileCache();

export interface Invocation {
  readonly requestId: string;
  readonly functionArn: string;
  /** The event as JSON. */
  readonly payload: string;
  /** Epoch milliseconds at which the process will be killed. */
  readonly deadline: number;
}

interface HandlerError {
  readonly name: string;
  readonly message: string;
  readonly stack?: string | undefined;
}

export type Reply =
  | { readonly kind: 'ready' }
  | { readonly kind: 'result'; readonly payload: string }
  | { readonly kind: 'error'; readonly error: HandlerError };

// The Node 24 runtime of Lambda has no callbacks any more, so neither does this context.
type HandlerContext = Omit<Context, 'done' | 'fail' | 'succeed'>;
type Handler = (event: unknown, context: HandlerContext) => unknown;

function describe(error: unknown): HandlerError {
  if (error instanceof Error) return { name: error.name, message: error.message, stack: error.stack };
  return { name: typeof error, message: String(error) };
}

function reply(message: Reply, then?: () => void): void {
  process.send?.(message, undefined, undefined, then);
}

async function importHandler(file: string): Promise<Handler> {
  const module: { handler?: unknown; default?: { handler?: unknown } } = await import(
    pathToFileURL(file).href
  );
  const handler = module.handler ?? module.default?.handler;
  if (typeof handler !== 'function') throw new TypeError(`${file} does not export a function 'handler'`);
  return handler as Handler;
}

// Lines and replies travel on different channels. This mark at the end of both streams lets the other side tell
// that it has seen every line of the invocation.
async function endLines(requestId: string): Promise<void> {
  const written = [process.stdout, process.stderr].map(
    (stream) => new Promise<void>((resolve) => stream.write(`\0${requestId}\n`, () => resolve())),
  );
  await Promise.all(written);
}

async function run(handler: Handler, invocation: Invocation): Promise<void> {
  const name = process.env.AWS_LAMBDA_FUNCTION_NAME ?? '';
  const context: HandlerContext = {
    awsRequestId: invocation.requestId,
    callbackWaitsForEmptyEventLoop: true,
    functionName: name,
    functionVersion: '$LATEST',
    invokedFunctionArn: invocation.functionArn,
    logGroupName: `/aws/lambda/${name}`,
    logStreamName: String(process.pid),
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE ?? '128',
    getRemainingTimeInMillis: () => Math.max(0, invocation.deadline - Date.now()),
  };
  let answer: Reply;
  try {
    const result = await handler(JSON.parse(invocation.payload), context);
    answer = { kind: 'result', payload: JSON.stringify(result) ?? 'null' };
  } catch (error) {
    answer = { kind: 'error', error: describe(error) };
  }
  await endLines(invocation.requestId);
  reply(answer);
}

// The parent ends this process by disconnecting; if the parent dies, the channel closes just the same.
process.on('disconnect', () => process.exit());
if (!process.connected) process.exit();
// Ctrl-C goes to every process of the terminal; the parent decides when its functions end.
process.on('SIGINT', () => {});

try {
  const handler = await importHandler(process.argv[2] ?? '');
  process.on('message', (message) => void run(handler, message as Invocation));
  reply({ kind: 'ready' });
} catch (error) {
  reply({ kind: 'error', error: describe(error) }, () => process.exit(1));
}
