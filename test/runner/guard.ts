// Loaded into every process of tests before the tests are: a process that something keeps alive after its last test
// ends with a failure that says what it is and where it was made. It knows nothing of the project.

import { createHook } from 'node:async_hooks';
import { writeFileSync, writeSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { isIP, Server } from 'node:net';
import { after, afterEach, beforeEach } from 'node:test';
import { isMainThread } from 'node:worker_threads';
import { LEFT_OPEN } from './left-open.ts';

/** Between the end of the last test and the report; what closes in its own time has closed by then. */
const DEFAULT_GRACE_MS = 8_000;

/** What can keep a process alive, by the names that Node gives them, and what to call them. */
const KINDS: Readonly<Record<string, string>> = {
  FSEVENTWRAP: 'watcher of a file',
  MESSAGEPORT: 'message port',
  PIPESERVERWRAP: 'server at a Unix socket',
  PIPEWRAP: 'pipe or Unix socket',
  PROCESSWRAP: 'child process',
  SIGNALWRAP: 'listener to a signal',
  STATWATCHER: 'watcher of a file',
  TCPSERVERWRAP: 'TCP server',
  TCPWRAP: 'TCP connection',
  Timeout: 'timer',
  UDPWRAP: 'UDP socket',
  WORKER: 'worker thread',
};

const FRAMES = 12;
const MAX_PLACES = 20;

interface Address {
  readonly address?: string;
  readonly port?: number;
}

/** What is asked of a resource here; which of it there is depends on its kind. */
interface Resource {
  readonly fd?: number;
  readonly pid?: number;
  hasRef?(): boolean;
  getsockname?(address: Address): number;
  getpeername?(address: Address): number;
  readonly _idleTimeout?: number;
  readonly _repeat?: number | null;
}

interface Made {
  readonly type: string;
  readonly resource: WeakRef<Resource>;
  /** With the stack of its making; read only for the report. */
  readonly at: { stack?: string };
}

const made = new Map<number, Made>();

/** A server's handle is often made when the stack of whoever called `listen` is gone. */
const listened = new WeakMap<object, { stack?: string }>();
function trace(): { stack?: string } {
  const at: { stack?: string } = {};
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = FRAMES;
  Error.captureStackTrace(at, trace);
  Error.stackTraceLimit = limit;
  return at;
}

function keepsAlive({ type, resource }: Made): boolean {
  if (!(type in KINDS)) return false;
  const { fd, hasRef } = resource.deref() ?? {};
  if (fd !== undefined && fd >= 0 && fd <= 2) return false;
  return hasRef?.call(resource.deref()) === true;
}

function ends(resource: Resource): string {
  const text = (get: ((address: Address) => number) | undefined) => {
    const found: Address = {};
    if (get === undefined || get.call(resource, found) !== 0 || found.address === undefined) return undefined;
    const host = isIP(found.address) === 6 ? `[${found.address}]` : found.address;
    return `${host}:${found.port}`;
  };
  const [near, far] = [text(resource.getsockname), text(resource.getpeername)];
  const parts = [
    ownerOf(resource)?._pipeName,
    near !== undefined && far !== undefined ? `${near} to ${far}` : near,
    typeof resource.pid === 'number' ? `pid ${resource.pid}` : undefined,
    resource._idleTimeout === undefined
      ? undefined
      : `${resource._repeat ? 'every' : 'of'} ${resource._idleTimeout} ms`,
  ];
  return parts.filter((part) => part !== undefined).join(', ');
}

/** The socket or server of a handle: Node keeps it at the handle, under a symbol. */
function ownerOf(resource: Resource): { _pipeName?: string } | undefined {
  const symbol = Object.getOwnPropertySymbols(resource).find((each) => each.description === 'owner_symbol');
  return symbol && (resource as Record<symbol, { _pipeName?: string }>)[symbol];
}

/** The frames of files that are neither Node's nor a package's. */
function originOf({ resource, at }: Made): string[] {
  const owner = ownerOf(resource.deref() ?? {});
  const { stack = '' } = (owner && listened.get(owner)) ?? at;
  const frames = stack.split('\n').slice(1);
  const ours = frames.filter(
    (frame) => /file:/.test(frame) && !/\/node_modules\/|\/runner\/guard\.ts/.test(frame),
  );
  return ours.length > 0 ? ours.map((frame) => frame.trim()) : ['where no stack tells, such as in a package'];
}

function report(graceMs: number): string {
  const alive = [...made.values()].filter(keepsAlive).map((each) => {
    const resource = each.resource.deref();
    const where = resource === undefined ? '' : ends(resource);
    return { what: `${KINDS[each.type]}${where && ` ${where}`}`, origin: originOf(each).join('\n      ') };
  });
  const places = [...Map.groupBy(alive, ({ origin }) => origin)];
  const lines = places.slice(0, MAX_PLACES).map(([origin, [first, ...rest]]) => {
    const more = rest.length > 0 ? ` and ${rest.length} more` : '';
    return `  ${first?.what}${more}, made\n      ${origin}`;
  });
  if (places.length > MAX_PLACES)
    lines.push(`  … and others, made at ${places.length - MAX_PLACES} more places`);
  // Something that Node does not show by a handle: requests under way, native code.
  if (alive.length === 0)
    lines.push(`  ${process.getActiveResourcesInfo().join(', ') || 'nothing that Node knows of'}`);
  return [`${LEFT_OPEN} ${graceMs / 1_000} s after the last test of ${process.argv[1]}:`, ...lines].join(
    '\n',
  );
}

/** From now on, what is made is remembered with the stack of its making. */
function remember(): void {
  createHook({
    init(id, type, _, resource) {
      if (type in KINDS) made.set(id, { type, resource: new WeakRef(resource as Resource), at: trace() });
    },
    destroy(id) {
      made.delete(id);
    },
    // Stacks reach through promises without it.
    trackPromises: false,
  } as Parameters<typeof createHook>[0]).enable();

  const { listen } = Server.prototype;
  Server.prototype.listen = function (this: Server, ...options: unknown[]) {
    listened.set(this, trace());
    return Reflect.apply(listen, this, options) as Server;
  } as typeof listen;
}

/** @param underWay a file that always has the names of the tests that have begun and not ended. */
function watch(graceMs: number, underWay: string | null): void {
  const running = new Map<object, string>();
  let grace: NodeJS.Timeout | undefined;

  function idle(): void {
    clearTimeout(grace);
    if (running.size > 0) return;
    grace = setTimeout(() => {
      writeSync(2, `${report(graceMs)}\n`);
      process.exit(1);
    }, graceMs);
    // Whatever keeps the process alive, it is not this.
    grace.unref();
  }

  function tell(): void {
    if (underWay !== null)
      writeFileSync(underWay, [...running.values()].map((name) => `"${name}"`).join(', '));
  }

  beforeEach((t) => {
    running.set(t, t.name);
    tell();
    clearTimeout(grace);
  });
  afterEach((t) => {
    running.delete(t);
    tell();
    idle();
  });
  after(idle);
}

// Worker threads load it too, and end with their process.
if (isMainThread) {
  // Processes that tests start are no processes of tests.
  const mine = process.execArgv.findIndex((option) => option.includes('runner/guard.ts'));
  if (mine > 0) process.execArgv.splice(mine - 1, 2);
  // A tenth of the suite's processor time is the compilation of the same modules in each process.
  enableCompileCache();
  remember();
  const { searchParams } = new URL(import.meta.url);
  watch(Number(searchParams.get('grace') ?? DEFAULT_GRACE_MS), searchParams.get('underWay'));
}
