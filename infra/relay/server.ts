// Netstring requests on any number of sockets, answered in order. It knows neither maps nor policies, and it expects
// nothing good of its clients: they may send garbage, never read, or stay for ever.

import { chmod, lstat, unlink } from 'node:fs/promises';
import { connect, createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import type { Observer } from './metrics.ts';
import { decodeNetstring, encodeNetstring } from './socketmap.ts';

/** Where requests come from. */
export type Listener =
  | { readonly kind: 'unix'; readonly path: string; readonly mode: number }
  | { readonly kind: 'inet'; readonly host: string; readonly port: number }
  /** A socket that systemd listens on already (sd_listen_fds(3)). */
  | { readonly kind: 'fd'; readonly fd: number };

export interface ServerLimits {
  readonly requestBytes: number;
  /**
   * Connections at once. For one more, another is closed whose client does not read, or which waits for nothing, after
   * which Postfix connects again; if all of them wait for replies, the new one is closed, which Postfix takes for a
   * temporary error.
   */
  readonly connections: number;
  /** Requests of one connection being worked on; no more is read of it meanwhile. Postfix itself sends one at a time. */
  readonly pipelined: number;
  /** Bytes of replies that one client has not read yet; beyond that, no request of its connection is taken up. */
  readonly unreadBytes: number;
  /**
   * Bytes that all connections may hold together: requests that are not answered, replies that are not read. Each
   * connection adds CONNECTION_BYTES to it. Beyond that connections are closed, and the first is the one whose client has
   * not read for the longest.
   */
  readonly totalBytes: number;
  /** Milliseconds that a connection may be silent. Postfix closes its own after 10 s without use, or after 100 s. */
  readonly idleMs: number;
  /** Milliseconds that a client may leave a reply unread. Postfix's own limit is 100 s. */
  readonly unreadMs: number;
  /** Milliseconds for a client to read its last reply and to go. */
  readonly lingerMs: number;
}

export const SERVER_LIMITS: Omit<ServerLimits, 'requestBytes' | 'connections'> = Object.freeze({
  pipelined: 64,
  // Two of the longest replies that socketmap_table(5) allows.
  unreadBytes: 200_000,
  totalBytes: 32 * 1024 * 1024,
  idleMs: 300_000,
  unreadMs: 100_000,
  lingerMs: 500,
});

/** The share of each connection in what all may hold: the longest request, and a reply of ordinary length. */
const CONNECTION_BYTES = 16 * 1024;

/** What a request costs while it is worked on: promises, timers and a place in queues, beside its text. */
const REQUEST_BYTES = 4 * 1024;

/** Replies that are known are sent together, so many bytes at once: each write has a cost of its own in memory. */
const WRITE_BYTES = 64 * 1024;

/** Why nobody can listen there, in a sentence for the operator. */
export class ListenError extends Error {
  readonly code = 'listen';
}

export interface RunningServer {
  /** As `unix:<path>`, `inet:<address>:<port>` or `fd:<number>`, in the order of the listeners. */
  readonly addresses: readonly string[];
  /** Accepts nothing more, finishes what was asked within `graceMs`, and then ends every connection. */
  close(graceMs: number): Promise<void>;
}

export interface ServerOptions {
  readonly listeners: readonly Listener[];
  /** Answers the payload of one request with that of the reply. Must not reject. */
  readonly respond: (payload: string) => Promise<string>;
  /** What a client is told before it is cut off for a request that cannot be read. */
  readonly refuse: (reason: string) => string;
  readonly limits: ServerLimits;
  readonly observer: Observer;
}

/** Rejects with a ListenError, and listens nowhere, if it cannot listen everywhere. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { listeners, limits, observer } = options;
  /** The bytes that each holds. */
  const open = new Map<Connection, number>();
  /** Those whose clients leave something unread, the longest first. */
  const unread = new Set<Connection>();
  const mostBytes = limits.totalBytes + limits.connections * CONNECTION_BYTES;
  let bytesHeld = 0;
  const servers: Server[] = [];
  const addresses: string[] = [];

  const accept = (socket: Socket, listener: string) => {
    if (open.size >= limits.connections && !makeRoom()) {
      observer.count('connections_refused');
      socket.destroy();
      return;
    }
    observer.count('connections', { listener });
    const connection = serve(socket, options, (bytes, isUnread) => holds(connection, bytes, isUnread));
    open.set(connection, 0);
    observer.gauge('connections_open', open.size);
    socket.once('close', () => {
      forget(connection);
      observer.gauge('connections_open', open.size);
    });
  };

  const forget = (connection: Connection) => {
    bytesHeld -= open.get(connection) ?? 0;
    open.delete(connection);
    unread.delete(connection);
  };

  /** Whoever may connect could otherwise take all memory by asking and not reading. */
  const holds = (connection: Connection, bytes: number, isUnread: boolean) => {
    const before = open.get(connection);
    // It is being closed.
    if (before === undefined) return;
    open.set(connection, bytes);
    bytesHeld += bytes - before;
    if (!isUnread) unread.delete(connection);
    else unread.add(connection);
    while (bytesHeld > mostBytes) {
      const [slowest = greatest(open)] = unread;
      if (slowest === undefined) return;
      observer.count('connections_over_budget');
      forget(slowest);
      slowest.destroy();
    }
  };

  /** Whoever may connect could otherwise keep Postfix out by doing nothing. */
  const makeRoom = () => {
    const [slowest] = unread;
    const victim = slowest ?? [...open.keys()].find((connection) => connection.isIdle());
    if (victim === undefined) return false;
    observer.count('connections_evicted');
    forget(victim);
    victim.destroy();
    return true;
  };

  const close = async (graceMs: number) => {
    // The same as the end of all connections, since those are what a server waits for.
    const closed = Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
    for (const connection of open.keys()) connection.finish();
    const timer = setTimeout(() => {
      for (const connection of open.keys()) connection.destroy();
    }, graceMs);
    await closed;
    clearTimeout(timer);
  };

  try {
    for (const listener of listeners) {
      // A client that has sent all it will send (`nc -N`) still wants its replies.
      const server = createServer({ allowHalfOpen: true }, (socket) => accept(socket, listener.kind));
      servers.push(server);
      addresses.push(await listen(server, listener, observer));
    }
  } catch (error) {
    await close(0);
    throw error;
  }
  return { addresses, close };
}

async function listen(server: Server, listener: Listener, observer: Observer): Promise<string> {
  switch (listener.kind) {
    case 'fd':
      await listening(server, { fd: listener.fd }, `file descriptor ${listener.fd}`);
      break;
    case 'inet':
      await listening(
        server,
        { host: listener.host, port: listener.port },
        `inet:${listener.host}:${listener.port}`,
      );
      break;
    case 'unix': {
      const { path, mode } = listener;
      if (await isStale(path)) await unlink(path);
      await listening(server, { path }, `unix:${path}`);
      await chmod(path, mode);
      break;
    }
  }
  // Accepting can fail too, when there are no file descriptors left.
  server.on('error', (error) =>
    observer.event('error', 'cannot accept a connection', { error: error.message }),
  );
  const address = server.address();
  // Of a Unix socket that somebody else has bound, Node does not know the path.
  if (!address) return listener.kind === 'fd' ? `fd:${listener.fd}` : '';
  if (typeof address === 'string') return `unix:${address}`;
  return address.family === 'IPv6'
    ? `inet:[${address.address}]:${address.port}`
    : `inet:${address.address}:${address.port}`;
}

const LISTEN_FAILURES: Readonly<Record<string, string>> = {
  EADDRINUSE: 'something listens there already; is the relay running twice?',
  EADDRNOTAVAIL: 'this machine does not have that address',
  // For a Unix socket, libuv says this of a directory that is not there, too.
  EACCES: 'its directory does not exist, or the user of the relay may not do that there',
  ENOTDIR: 'its directory does not exist',
  EINVAL: 'that is no socket, or its path is too long (107 bytes)',
  EBADF: 'it is not open; RELAY_LISTEN says where to listen without systemd',
};

async function listening(
  server: Server,
  options: ListenOptions | { fd: number },
  where: string,
): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(options, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    throw new ListenError(
      `Cannot listen on ${where}: ${LISTEN_FAILURES[code] ?? (error as Error).message}.`,
      {
        cause: error,
      },
    );
  }
}

/** Whether the file is the socket of a process that is gone. Anything else is left where it is. */
async function isStale(path: string): Promise<boolean> {
  const file = await lstat(path).catch(() => undefined);
  if (!file?.isSocket()) return false;
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
}

/** Of those that read, only one that asks for much at once can hold much. */
function greatest(open: ReadonlyMap<Connection, number>): Connection | undefined {
  let found: Connection | undefined;
  let most = 0;
  for (const [connection, bytes] of open) {
    if (bytes <= most) continue;
    most = bytes;
    found = connection;
  }
  return found;
}

interface Connection {
  /** Whether no reply is due, and none is on its way to a client that is being left. */
  isIdle(): boolean;
  /** Reads nothing more, and ends when everything asked so far is answered. */
  finish(): void;
  destroy(): void;
}

const NOTHING = Buffer.alloc(0);

/** A copy, where a few bytes would keep the 64 KiB alive that they came in. To copy every time would cost as much again. */
function compact(bytes: Buffer): Buffer {
  if (bytes.length === 0) return NOTHING;
  return bytes.length < bytes.buffer.byteLength / 2 ? Buffer.from(bytes) : bytes;
}

interface PendingReply {
  /** Undefined until it is known. */
  text: string | undefined;
}

/** @param holds is told whenever that changes: the bytes of the connection, and whether the client leaves some unread. */
function serve(
  socket: Socket,
  { respond, refuse, limits, observer }: Omit<ServerOptions, 'listeners'>,
  holds: (bytes: number, isUnread: boolean) => void,
): Connection {
  /** Received and not decoded yet: a part of a request, or what came while enough was being worked on. */
  let received: Buffer = NOTHING;
  /** In the order of the requests, from when one is taken up until its reply is handed to the socket. */
  const replies: PendingReply[] = [];
  /** Characters of the replies among them that are known. Nearly all are ASCII. */
  let answered = 0;
  /** The client will send nothing more. */
  let ended = false;
  /** Nothing more is taken up. */
  let finishing = false;
  /** There may be more to take up as soon as replies have been read. */
  let full = false;
  let flushing = false;
  let isUnread = false;
  let lingering: NodeJS.Timeout | undefined;

  socket.setNoDelay(true);
  socket.setTimeout(limits.idleMs, () => socket.destroy());
  socket.on('data', (chunk) => {
    if (finishing) return;
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
    work();
  });
  socket.on('end', () => {
    ended = true;
    work();
  });
  socket.on('close', () => {
    clearTimeout(lingering);
    // Lookups that are still under way would keep all of it.
    replies.length = 0;
    received = NOTHING;
  });
  // What goes wrong with a connection is the client's business; 'close' follows.
  socket.on('error', () => undefined);

  function mayTake(): boolean {
    return replies.length < limits.pipelined && answered + socket.writableLength <= limits.unreadBytes;
  }

  /** Takes up as many requests as may be worked on at once. No more is read until one of them is answered and read. */
  function work(): void {
    if (finishing) return;
    let at = 0;
    let next = decodeNetstring(received, at, limits.requestBytes);
    while (next.kind === 'whole' && mayTake()) {
      take(next.payload.toString('utf8'));
      at = next.end;
      next = decodeNetstring(received, at, limits.requestBytes);
    }
    received = compact(received.subarray(at));
    full = next.kind === 'whole' || !mayTake();
    if (next.kind === 'whole') {
      socket.pause();
    } else if (next.kind === 'malformed') {
      observer.count('protocol_errors');
      pushReply({ text: refuse(next.reason) });
      finish();
    } else if (ended) {
      finish();
    } else if (full) {
      socket.pause();
    } else {
      socket.resume();
    }
    account();
  }

  function take(payload: string): void {
    const reply: PendingReply = { text: undefined };
    pushReply(reply);
    respond(payload).then((text) => {
      if (socket.destroyed) return;
      reply.text = text;
      answered += text.length;
      account();
      if (flushing) return;
      // Replies that are known at the same time are sent together.
      flushing = true;
      process.nextTick(flush);
    });
  }

  function pushReply(reply: PendingReply): void {
    replies.push(reply);
    answered += reply.text?.length ?? 0;
  }

  /** The netstrings of the replies that are next and known, some at once. */
  function shiftReplies(): string {
    let text = '';
    while (replies[0]?.text !== undefined && text.length < WRITE_BYTES) {
      text += encodeNetstring(replies[0].text);
      answered -= replies[0].text.length;
      replies.shift();
    }
    return text;
  }

  /** Sends what is answered, as far as the client reads it, and takes up more if there is room again. */
  function flush(): void {
    flushing = false;
    if (socket.destroyed) return;
    while (!socket.writableNeedDrain && replies[0]?.text !== undefined) {
      // Called back when the client's side has taken it.
      socket.write(shiftReplies(), flush);
    }
    account();
    if (finishing) {
      if (replies.length === 0) end();
    } else if (full && mayTake()) {
      work();
    }
  }

  function account(): void {
    if (socket.destroyed) return;
    // What the system's buffer takes is gone at once: what stays is what the client leaves unread.
    const unread = socket.writableLength > 0;
    if (unread !== isUnread) socket.setTimeout(unread ? limits.unreadMs : limits.idleMs);
    isUnread = unread;
    holds(received.length + answered + socket.writableLength + replies.length * REQUEST_BYTES, unread);
  }

  function finish(): void {
    finishing = true;
    received = NOTHING;
    flush();
  }

  function end(): void {
    if (lingering !== undefined) return;
    socket.end();
    // Closing with something unread resets the connection, and the client may lose its last reply. So what it still
    // sends is read for a moment, and thrown away.
    socket.resume();
    lingering = setTimeout(() => socket.destroy(), limits.lingerMs);
  }

  return {
    isIdle: () => replies.length === 0 && lingering === undefined,
    finish,
    destroy: () => socket.destroy(),
  };
}
