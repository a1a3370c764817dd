import assert from 'node:assert/strict';
import { getEventListeners, once } from 'node:events';
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { connect, Socket, type TcpNetConnectOpts } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import tls from 'node:tls';
import { isDeepStrictEqual } from 'node:util';
import { Worker } from 'node:worker_threads';
import { type Domain, parseDomain } from '../../../functions/mtasts/domain.ts';
import type { Failure } from '../../../functions/mtasts/failure.ts';
import { LIMITS, type Limits } from '../../../functions/mtasts/limits.ts';
import { type Internet, startInternet } from '../../../infra/local/internet/internet.ts';
import type { Scope } from '../../resources.ts';

/** Loopback; and where there is no route to, so that nothing is sent (see fetch.test.ts). */
const HARMLESS = /^(?:127\.[\d.]+|::1|localhost|255\.255\.255\.255)$/;

// Tests of what is connected to name public addresses, and keep watch over connections in their own ways. Should one of
// these miss a connection, it is not made all the same.
const connectSocket = Socket.prototype.connect;
Socket.prototype.connect = function (this: Socket, ...args: [unknown]) {
  // As net.connect passes it on, with a listener beside it.
  const [options] = [args[0]].flat() as [Partial<TcpNetConnectOpts>];
  const { host = 'localhost' } = options;
  if (!HARMLESS.test(host)) throw new Error(`a test would have connected to ${host}`);
  return Reflect.apply(connectSocket, this, args);
};

/**
 * So generous that a busy machine meets them. A test that waits for a limit shortens that one. Those of HTTPS are longer
 * than PROMPT_MS, so that a test sees when one of them is waited for that should not be. That of DNS is not: fractions
 * of it are waited for where a server is silent.
 */
export const PATIENT: Limits = {
  ...LIMITS,
  domainMs: 120_000,
  dnsMs: 5_000,
  connectMs: 60_000,
  headersMs: 60_000,
  bodyIdleMs: 60_000,
};

/** What a limit that a test waits for is. */
export const SHORT_MS = 100;
/** What takes so long beyond the limits that it waits for, waits for another. */
export const PROMPT_MS = 20_000;
/** What is still open after so long stays open. */
const CLOSED_MS = 20_000;

export function policyDomain(text: string): Domain {
  const parsed = parseDomain(text);
  assert.ok(parsed.ok);
  return parsed.domain;
}

/** Far less than any limit that a test waits for. */
const STOOD_STILL_MS = 20;
const MAX_REPETITIONS = 10;

/**
 * Does `work`, which asserts what came of it and has short limits. If it fails although this process stood still
 * meanwhile, it is done again: the servers of a test are in the same process, so what they sent in time was late, and
 * the failure says nothing about the program. What fails without that, or each time, is a failure.
 */
export async function undisturbed<T>(work: () => Promise<T>): Promise<T> {
  for (let repetition = 0; ; repetition++) {
    const stalls = monitorEventLoopDelay({ resolution: 5 });
    stalls.enable();
    try {
      return await work();
    } catch (error) {
      // What stood still until now is counted in the next turn.
      await turn();
      const stoodStillMs = Math.round(stalls.max / 1e6);
      if (stoodStillMs < STOOD_STILL_MS || repetition === MAX_REPETITIONS) throw error;
      // Shown with the file also when it passes, so that a failure that comes again and again is not hidden.
      console.error(`repeated, as this process stood still for ${stoodStillMs} ms: ${firstLine(error)}`);
    } finally {
      stalls.disable();
    }
  }
}

/** An internet whose root this process trusts, as it would by NODE_EXTRA_CA_CERTS; closed afterwards. */
export async function startTrustedInternet(scope: Scope): Promise<Internet> {
  const internet = await startInternet();
  scope.after(() => internet.close());
  tls.setDefaultCACertificates([internet.ca]);
  return internet;
}

function firstLine(error: unknown): string {
  return String(error).split('\n', 1)[0] ?? '';
}

/** What keeps this process alive (handles, requests and timers) and is not in `before`. */
function resourcesBeyond(before: readonly string[]): string[] {
  const known = [...before];
  return process.getActiveResourcesInfo().filter((resource) => {
    const index = known.indexOf(resource);
    if (index >= 0) known.splice(index, 1);
    return index < 0;
  });
}

const DESCRIPTORS = '/proc/self/fd';

/** The sockets of this process, c-ares's too, which Node does not count as resources. Only Linux tells. */
function socketsOfThisProcess(): number {
  if (!existsSync(DESCRIPTORS)) return 0;
  return readdirSync(DESCRIPTORS).filter((descriptor) => {
    try {
      return readlinkSync(`${DESCRIPTORS}/${descriptor}`).startsWith('socket:');
    } catch {
      return false; // closed since, as the one for the folder itself
    }
  }).length;
}

/**
 * Does `work`, and insists that it is done within `withinMs` and leaves nothing: no connection at the other end, no
 * socket, handle or timer at this end, no listener on the signal.
 */
export async function leavingNothing<T>(
  internets: readonly Internet[],
  work: (controller: AbortController) => Promise<T>,
  withinMs = PROMPT_MS,
): Promise<T> {
  const before = process.getActiveResourcesInfo();
  const socketsBefore = socketsOfThisProcess();
  const controller = new AbortController();
  const start = performance.now();
  const result = await work(controller);
  const took = performance.now() - start;
  assert.ok(took < withinMs, `took ${took} ms of ${withinMs}: ${JSON.stringify(result)}`);

  const known = () => ({
    connections: internets.reduce((sum, internet) => sum + internet.openSockets(), 0),
    listeners: getEventListeners(controller.signal, 'abort').length,
    resources: resourcesBeyond(before),
  });
  const nothing = { connections: 0, listeners: 0, resources: [] };
  const sockets = () => Math.max(0, socketsOfThisProcess() - socketsBefore);
  const end = performance.now() + CLOSED_MS;
  // Sockets come last: to count them takes longer than everything else together.
  while (!(isDeepStrictEqual(known(), nothing) && sockets() === 0) && performance.now() < end) await delay(2);
  assert.deepEqual({ ...known(), sockets: sockets() }, { ...nothing, sockets: 0 });
  return result;
}

/** Fit for a log line, whatever strangers put into it: two quotations at most, and some words of ours. */
export function assertSafe({ detail }: Failure): void {
  assert.doesNotMatch(detail, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u);
  assert.ok(detail.length > 0 && detail.length <= 500, detail);
}

/**
 * An address of loopback where connections to `port` are neither accepted nor refused, which takes a listener that
 * never looks and whose queue is full. Only Linux drops what does not fit, and has 127.0.0.2.
 */
export async function startBlackhole(scope: Scope, port: number): Promise<string> {
  const address = '127.0.0.2';
  const sleeper = `
    const { createServer } = require('node:net');
    const { parentPort, workerData } = require('node:worker_threads');
    const server = createServer().listen({ ...workerData, backlog: 1 }, () => {
      parentPort.postMessage('listening');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  const worker = new Worker(sleeper, { eval: true, workerData: { host: address, port } });
  scope.after(() => worker.terminate());
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  const queue = [1, 2].map(() => {
    // It is reset when the worker ends.
    const socket = connect(port, address).on('error', () => {});
    scope.after(() => socket.destroy());
    return socket;
  });
  await Promise.all(queue.map((socket) => once(socket, 'connect')));
  return address;
}
