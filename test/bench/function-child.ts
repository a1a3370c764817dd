// The inside of a measured function's process: imports the handler once, then answers invocations, and says what each
// cost: time, CPU time, memory, and calls by what they were. It looks at Node's own diagnostics channels, and changes
// nothing of the function but its clock and where its output goes.

import { subscribe } from 'node:diagnostics_channel';
import { writeFileSync } from 'node:fs';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { Session } from 'node:inspector/promises';
import { performance } from 'node:perf_hooks';
import { pathToFileURL } from 'node:url';
import { serve } from './remote.ts';

export interface Calls {
  count: number;
  /** Of the requests' bodies. */
  bytes: number;
}

export interface Invoked {
  readonly result: unknown;
  readonly wallMs: number;
  readonly cpuMs: number;
  /** Milliseconds in which nothing was done but waiting for a page of a scan. */
  readonly scanWaitMs: number;
  /** The most memory the process ever had, bytes. */
  readonly peakBytes: number;
  /** By operation (`UpdateItem`), or `policy host`. */
  readonly calls: Readonly<Record<string, Calls>>;
  /** TCP connections that were opened. */
  readonly sockets: number;
  readonly lines: readonly string[];
}

export interface Initialized {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly bytes: number;
}

export type FunctionOperations = {
  initialize(file: string): Promise<Initialized>;
  /** @param options.clockMs what the function's clock is ahead of the real one. */
  invoke(event: unknown, options: { timeoutMs: number; clockMs?: number }): Promise<Invoked>;
  startProfile(): Promise<void>;
  /** Ends it, and writes it to `file`. */
  writeProfile(file: string): Promise<void>;
};

const realNow = Date.now;
let clockMs = 0;
Date.now = () => realNow() + clockMs;

let lines: string[] = [];
// What a process writes to a pipe may arrive after its answer.
process.stdout.write = process.stderr.write = (chunk: string | Uint8Array) => {
  lines.push(
    ...String(chunk)
      .split('\n')
      .filter((line) => line !== ''),
  );
  return true;
};

let calls: Record<string, Calls> = {};
let sockets = 0;

/** What is under way, to tell waiting for a scan from waiting for anything else. */
let scans = 0;
let others = 0;
let scanWaitMs = 0;
let utilization = performance.eventLoopUtilization();

function change(isScan: boolean, by: number): void {
  const { idle } = performance.eventLoopUtilization(utilization);
  if (scans > 0 && others === 0) scanWaitMs += idle;
  utilization = performance.eventLoopUtilization();
  if (isScan) scans += by;
  else others += by;
}

function operationOf(request: ClientRequest): string {
  const target = request.getHeader('x-amz-target');
  if (typeof target === 'string') return target.slice(target.lastIndexOf('.') + 1);
  return request.path.startsWith('/schedules/') ? 'CreateSchedule' : request.path;
}

subscribe('http.client.request.start', (message) => {
  const { request } = message as { request: ClientRequest };
  const operation = operationOf(request);
  calls[operation] ??= { count: 0, bytes: 0 };
  calls[operation].count += 1;
  calls[operation].bytes += Number(request.getHeader('content-length') ?? 0);
  change(operation === 'Scan', 1);
  let open = true;
  const ended = () => {
    if (open) change(operation === 'Scan', -1);
    open = false;
  };
  request.once('response', (response: IncomingMessage) => response.once('close', ended));
  request.once('error', ended);
});
subscribe('undici:request:create', () => {
  calls['policy host'] ??= { count: 0, bytes: 0 };
  calls['policy host'].count += 1;
});
subscribe('net.client.socket', () => {
  sockets += 1;
});

const cpuMs = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
};

let handler: (event: unknown, context: object) => unknown;

const session = new Session();
const SAMPLING_MICROSECONDS = 200;

serve({
  async initialize(file) {
    const [wall, cpu] = [performance.now(), cpuMs()];
    ({ handler } = await import(pathToFileURL(file).href));
    return { wallMs: performance.now() - wall, cpuMs: cpuMs() - cpu, bytes: process.memoryUsage.rss() };
  },
  async invoke(event, options) {
    clockMs = options.clockMs ?? 0;
    calls = {};
    sockets = 0;
    lines = [];
    scanWaitMs = 0;
    utilization = performance.eventLoopUtilization();
    const [wall, cpu] = [performance.now(), cpuMs()];
    const result = await handler(event, {
      awsRequestId: 'bench',
      getRemainingTimeInMillis: () => options.timeoutMs - (performance.now() - wall),
    });
    const used = { wallMs: performance.now() - wall, cpuMs: cpuMs() - cpu, scanWaitMs };
    const peakBytes = process.resourceUsage().maxRSS * 1_024;
    return { result, ...used, peakBytes, calls, sockets, lines };
  },
  async startProfile() {
    session.connect();
    await session.post('Profiler.enable');
    await session.post('Profiler.setSamplingInterval', { interval: SAMPLING_MICROSECONDS });
    await session.post('Profiler.start');
  },
  async writeProfile(file) {
    const { profile } = await session.post('Profiler.stop');
    session.disconnect();
    writeFileSync(file, JSON.stringify(profile));
  },
} satisfies FunctionOperations);
