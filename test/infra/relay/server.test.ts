import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  ListenError,
  type Listener,
  SERVER_LIMITS,
  type ServerLimits,
  type ServerOptions,
  startServer,
} from '../../../infra/relay/server.ts';
import { encodeNetstring } from '../../../infra/relay/socketmap.ts';
import { HANG_MS, until } from '../../resources.ts';
import { createRecorder } from './observer.ts';

const folder = await mkdtemp(join(tmpdir(), 'relay-server-'));
/** What tests that fail leave open would keep this process from ending. */
const closers: (() => unknown)[] = [];
after(async () => {
  for (const close of closers) await close();
  await rm(folder, { recursive: true, force: true });
});
let sockets = 0;
const newPath = () => join(folder, `socket-${++sockets}`);

const LIMITS: ServerLimits = { ...SERVER_LIMITS, requestBytes: 100, connections: 50, lingerMs: 50 };
const INET: Listener = { kind: 'inet', host: '127.0.0.1', port: 0 };

interface Options extends Partial<Omit<ServerOptions, 'limits'>> {
  readonly limits?: Partial<ServerLimits>;
}

async function start(options: Options = {}) {
  const recorder = createRecorder();
  const server = await startServer({
    listeners: [INET],
    respond: (payload) => Promise.resolve(`OK ${payload}`),
    refuse: (reason) => `PERM ${reason}`,
    observer: recorder.metrics,
    ...options,
    limits: { ...LIMITS, ...options.limits },
  });
  closers.push(() => server.close(0));
  const [address = ''] = server.addresses;
  return { ...recorder, server, dial: () => dial(address) };
}

/** A client that collects what it receives. */
async function dial(address: string) {
  const [, path] = /^unix:(.*)$/.exec(address) ?? [];
  const [, host = '', port] = /^inet:\[?([^\]]+)\]?:(\d+)$/.exec(address) ?? [];
  const socket = path === undefined ? connect(Number(port), host) : connect(path);
  await once(socket, 'connect');
  let text = '';
  let ended = false;
  socket.on('data', (chunk) => {
    text += chunk;
  });
  socket.on('end', () => {
    ended = true;
  });
  socket.on('error', () => undefined);
  closers.push(() => socket.destroy());
  return {
    socket,
    send: (...payloads: string[]) => socket.write(payloads.map(encodeNetstring).join('')),
    received: () => text,
    ended: () => ended,
    /** Waits until that has been received, or the connection is closed. */
    async until(expected: string) {
      while (!text.includes(expected) && !socket.closed)
        await Promise.race([once(socket, 'data'), closed(socket)]);
      assert.ok(text.includes(expected), `${JSON.stringify(text)} has no ${JSON.stringify(expected)}`);
    },
    closed: () => closed(socket),
  };
}

async function closed(socket: Socket): Promise<void> {
  if (!socket.closed) await once(socket, 'close');
}

const replies = (...payloads: string[]) =>
  payloads.map((payload) => encodeNetstring(`OK ${payload}`)).join('');

/** Something that is settled from outside. */
function gate() {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { passed: promise, open: () => resolve() };
}

const listeners: [name: string, listener: () => Listener, address: RegExp][] = [
  ['TCP', () => INET, /^inet:127\.0\.0\.1:\d+$/],
  ['TCP over IPv6', () => ({ kind: 'inet', host: '::1', port: 0 }), /^inet:\[::1\]:\d+$/],
  ['a Unix socket', () => ({ kind: 'unix', path: newPath(), mode: 0o660 }), /^unix:\/.*socket-\d+$/],
];

for (const [name, listener, address] of listeners) {
  test(`answers over ${name}`, async () => {
    const { server, dial } = await start({ listeners: [listener()] });
    assert.match(server.addresses[0] ?? '', address);
    const client = await dial();
    client.send('mta-sts example.com');
    await client.until(replies('mta-sts example.com'));
    await server.close(1_000);
    await client.closed();
  });
}

test('answers on several sockets at once', async () => {
  const { server } = await start({ listeners: [INET, { kind: 'unix', path: newPath(), mode: 0o666 }, INET] });
  assert.equal(server.addresses.length, 3);
  for (const address of server.addresses) {
    const client = await dial(address);
    client.send(address);
    await client.until(replies(address));
  }
  await server.close(1_000);
});

test('a Unix socket has the permissions that it should have, and is gone afterwards', async () => {
  const path = newPath();
  const { server } = await start({ listeners: [{ kind: 'unix', path, mode: 0o620 }] });
  assert.equal((await stat(path)).mode & 0o777, 0o620);
  await server.close(1_000);
  await assert.rejects(stat(path), { code: 'ENOENT' });
});

test('the socket of a process that is gone is replaced', async () => {
  const path = newPath();
  // Renamed, so that Node does not remove it when its server closes.
  const left = newPath();
  const dead = createServer().listen(left);
  await once(dead, 'listening');
  const { rename } = await import('node:fs/promises');
  await rename(left, path);
  dead.close();
  await once(dead, 'close');
  assert.ok((await stat(path)).isSocket());
  const { server } = await start({ listeners: [{ kind: 'unix', path, mode: 0o666 }] });
  const client = await dial(`unix:${path}`);
  client.send('x');
  await client.until(replies('x'));
  await server.close(1_000);
});

const unusable: [name: string, listener: () => Promise<Listener>, reason: RegExp][] = [
  [
    'a socket that somebody listens on',
    async () => {
      const path = newPath();
      const server = createServer().listen(path);
      await once(server, 'listening');
      server.unref();
      after(() => server.close());
      return { kind: 'unix', path, mode: 0o666 };
    },
    /^Cannot listen on unix:.*: something listens there already; is the relay running twice\?\.$/,
  ],
  [
    'a file that is no socket',
    async () => {
      const path = newPath();
      await writeFile(path, 'precious');
      return { kind: 'unix', path, mode: 0o666 };
    },
    /something listens there already/,
  ],
  [
    'a link to a file',
    async () => {
      const [target, path] = [newPath(), newPath()];
      await writeFile(target, 'precious');
      await symlink(target, path);
      return { kind: 'unix', path, mode: 0o666 };
    },
    /something listens there already/,
  ],
  [
    'a directory that is not there',
    async () => ({ kind: 'unix', path: join(folder, 'nowhere/socket'), mode: 0o666 }),
    /its directory does not exist/,
  ],
  [
    'a path that is too long for a socket',
    async () => ({ kind: 'unix', path: join(folder, 'x'.repeat(120)), mode: 0o666 }),
    /its path is too long/,
  ],
  [
    'a port that is taken',
    async () => {
      const server = createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      server.unref();
      after(() => server.close());
      const address = server.address();
      assert.ok(typeof address === 'object' && address !== null);
      return { kind: 'inet', host: '127.0.0.1', port: address.port };
    },
    /^Cannot listen on inet:127\.0\.0\.1:\d+: something listens there already/,
  ],
  [
    'a descriptor that is not open',
    async () => ({ kind: 'fd', fd: 900 }),
    /^Cannot listen on file descriptor 900: /,
  ],
];

for (const [name, listener, reason] of unusable) {
  test(`says why it cannot listen: ${name}`, async () => {
    const first: Listener = { kind: 'unix', path: newPath(), mode: 0o666 };
    await assert.rejects(start({ listeners: [first, await listener()] }), (error) => {
      assert.ok(error instanceof ListenError);
      assert.equal(error.code, 'listen');
      assert.match(error.message, reason);
      return true;
    });
    // Nor does it stay on the others.
    await assert.rejects(stat(first.path), { code: 'ENOENT' });
  });
}

test('replies come in the order of the requests, whatever is known first', async () => {
  const slow = gate();
  const { server, dial } = await start({
    respond: async (payload) => {
      if (payload === 'slow') await slow.passed;
      return `OK ${payload}`;
    },
  });
  const client = await dial();
  client.send('slow', 'fast', 'faster');
  const other = await dial();
  other.send('fast');
  // Another connection does not wait for this one.
  await other.until(replies('fast'));
  assert.equal(client.received(), '');
  slow.open();
  await client.until(replies('slow', 'fast', 'faster'));
  await server.close(1_000);
});

test('a request may come in any pieces', async () => {
  const { server, dial } = await start();
  const client = await dial();
  client.socket.setNoDelay(true);
  for (const byte of encodeNetstring('mta-sts b\u00FCcher.example')) {
    client.socket.write(byte);
    await new Promise((resolve) => setImmediate(resolve));
  }
  client.send('next');
  await client.until(replies('mta-sts b\u00FCcher.example', 'next'));
  await server.close(1_000);
});

test('no more requests of a connection are worked on than are allowed, and all are answered in the end', async () => {
  let running = 0;
  let most = 0;
  const { server, dial } = await start({
    limits: { pipelined: 4 },
    respond: async (payload) => {
      running += 1;
      most = Math.max(most, running);
      await delay(1);
      running -= 1;
      return `OK ${payload}`;
    },
  });
  const client = await dial();
  const payloads = Array.from({ length: 500 }, (_, index) => `request ${index}`);
  client.send(...payloads);
  // What is asked last is asked while nothing is read.
  client.socket.end();
  await client.closed();
  assert.equal(client.received(), replies(...payloads));
  assert.equal(most, 4);
  await server.close(1_000);
});

test('a client that sends and does not read stops being read', async () => {
  let taken = 0;
  const reply = 'x'.repeat(99_000);
  const { server, dial } = await start({
    limits: { pipelined: 8 },
    respond: async () => {
      taken += 1;
      return reply;
    },
  });
  const client = await dial();
  client.socket.pause();
  const requests = encodeNetstring('mta-sts example.com').repeat(2_000);
  // Far more than the sockets' buffers hold in replies: 198 MB.
  client.socket.write(requests);
  let before = -1;
  while (taken !== before) {
    before = taken;
    await delay(100);
  }
  assert.ok(taken < 500, `${taken} requests were answered to a client that reads nothing`);
  client.socket.resume();
  client.socket.end();
  await client.closed();
  assert.equal(client.received().length, 2_000 * encodeNetstring(reply).length);
  await server.close(1_000);
});

test('a client that never reads is cut off', async () => {
  const { server, dial, gauge } = await start({
    limits: { unreadMs: 50, pipelined: 8 },
    respond: async () => 'x'.repeat(99_000),
  });
  const client = await dial();
  client.socket.pause();
  client.socket.write(encodeNetstring('x').repeat(2_000));
  while (gauge('connections_open') !== 0) await delay(10);
  client.socket.destroy();
  await server.close(1_000);
});

test('a silent client is cut off', async () => {
  const { server, dial } = await start({ limits: { idleMs: 50 } });
  const client = await dial();
  await client.closed();
  await server.close(1_000);
});

const garbage: [name: string, bytes: string, told: RegExp][] = [
  [
    'an HTTP request',
    'GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n',
    /^\d+:PERM a request is a netstring/,
  ],
  ['a TLS handshake', '\x16\x03\x01\x02\x00\x01\x00', /^\d+:PERM a request is a netstring/],
  ['a request that is too long', '101:', /^\d+:PERM a request has at most 100 bytes,$/],
  ['garbage after a request', `${encodeNetstring('first')}nonsense`, /^8:OK first,\d+:PERM /],
];

for (const [name, bytes, told] of garbage) {
  test(`is answered once and cut off: ${name}`, async () => {
    const { server, dial, counted } = await start();
    const client = await dial();
    client.socket.write(Buffer.from(bytes, 'latin1'));
    // It goes on and on, and still gets to read what it is told.
    client.socket.write('x'.repeat(100_000));
    await client.closed();
    assert.match(client.received(), told);
    assert.equal(counted('protocol_errors'), 1);
    await server.close(1_000);
  });
}

test('a client that has sent all it will send gets its replies', async () => {
  const slow = gate();
  const { server, dial } = await start({
    respond: async (payload) => {
      await slow.passed;
      return `OK ${payload}`;
    },
  });
  const client = await dial();
  client.send('one', 'two');
  client.socket.end('5:half');
  await delay(20);
  slow.open();
  await client.closed();
  assert.equal(client.received(), replies('one', 'two'));
  await server.close(1_000);
});

test('a client that goes away while it is being answered does no harm', async () => {
  const slow = gate();
  const started = gate();
  const { server, dial, gauge } = await start({
    respond: async (payload) => {
      started.open();
      await slow.passed;
      return `OK ${payload}`;
    },
  });
  const client = await dial();
  client.send('one', 'two');
  await started.passed;
  client.socket.resetAndDestroy();
  while (gauge('connections_open') !== 0) await delay(5);
  slow.open();
  const other = await dial();
  other.send('three');
  await other.until(replies('three'));
  await server.close(1_000);
});

test('connections above the limit are closed while all wait for replies, and there is room again when one goes', async () => {
  const slow = gate();
  let waiting = 0;
  const { server, dial, counted, gauge } = await start({
    limits: { connections: 2 },
    respond: async (payload) => {
      if (payload === 'slow') {
        waiting += 1;
        await slow.passed;
      }
      return `OK ${payload}`;
    },
  });
  const [first, second] = [await dial(), await dial()];
  for (const client of [first, second]) {
    client.send('1');
    await client.until(replies('1'));
    client.send('slow');
  }
  while (waiting < 2) await delay(5);
  const third = await dial();
  await third.closed();
  assert.equal(counted('connections_refused'), 1);
  first.socket.resetAndDestroy();
  while (gauge('connections_open') !== 1) await delay(5);
  const fourth = await dial();
  fourth.send('4');
  await fourth.until(replies('4'));
  assert.equal(counted('connections', 'inet'), 3);
  assert.equal(counted('connections_evicted'), 0);
  slow.open();
  await second.until(replies('1', 'slow'));
  await server.close(1_000);
});

test('one that waits for nothing makes room for another', async () => {
  const slow = gate();
  let waiting = 0;
  const { server, dial, counted, gauge } = await start({
    limits: { connections: 3 },
    respond: async (payload) => {
      if (payload === 'slow') {
        waiting += 1;
        await slow.passed;
      }
      return `OK ${payload}`;
    },
  });
  const [busy, silent, halfway] = [await dial(), await dial(), await dial()];
  busy.send('1');
  await busy.until(replies('1'));
  busy.send('slow');
  while (waiting < 1) await delay(5);
  halfway.socket.write('5:ab');
  for (const gone of [silent, halfway]) {
    const next = await dial();
    next.send('next');
    await next.until(replies('next'));
    await gone.closed();
    // It is waited for again, so that it is the other's turn.
    const before = waiting;
    next.send('slow');
    while (waiting === before) await delay(5);
  }
  assert.equal(counted('connections_evicted'), 2);
  assert.equal(counted('connections_refused'), 0);
  assert.equal(gauge('connections_open'), 3);
  slow.open();
  await busy.until(replies('1', 'slow'));
  await server.close(1_000);
});

test('many connections at once, each with its own replies', async () => {
  const { server, dial } = await start({
    limits: { connections: 500 },
    respond: async (payload) => {
      await delay(Math.random() * 20);
      return `OK ${payload}`;
    },
  });
  await Promise.all(
    Array.from({ length: 400 }, async (_, index) => {
      const client = await dial();
      for (let round = 0; round < 3; round++) {
        client.send(`${index} ${round}`);
        await client.until(replies(`${index} ${round}`));
      }
      client.socket.end();
    }),
  );
  await server.close(1_000);
});

test('closing finishes what was asked, and takes up nothing more', async () => {
  const slow = gate();
  const started = gate();
  const { server, dial } = await start({
    respond: async (payload) => {
      started.open();
      await slow.passed;
      return `OK ${payload}`;
    },
  });
  const client = await dial();
  const idle = await dial();
  client.send('asked in time');
  await started.passed;
  const closing = server.close(5_000);
  client.send('too late');
  await idle.closed();
  await assert.rejects(dial());
  slow.open();
  await closing;
  await client.closed();
  assert.equal(client.received(), replies('asked in time'));
});

test('closing does not wait for ever', async () => {
  const started = gate();
  const { server, dial } = await start({
    respond: () => {
      started.open();
      return new Promise(() => undefined);
    },
  });
  const client = await dial();
  client.send('never answered');
  await started.passed;
  await server.close(50);
  await client.closed();
  assert.equal(client.received(), '');
});

/** Asks for more replies than the system's buffers hold, and reads none, until the server takes nothing up any more. */
async function floodUnread(client: Awaited<ReturnType<typeof dial>>, requests: number, taken: () => number) {
  client.socket.pause();
  client.socket.write(encodeNetstring('unread').repeat(requests));
  for (let before = -1; taken() !== before || before === 0; ) {
    before = taken();
    await delay(100);
  }
}

test('when all together hold too much, who has not read for the longest is closed, and nobody else', async (t) => {
  let taken = 0;
  const reply = 'x'.repeat(99_000);
  const listener: Listener = { kind: 'unix', path: newPath(), mode: 0o666 };
  const { server, dial, counted, gauge } = await start({
    listeners: [listener],
    // One that does not read holds at most four replies; two such are too many.
    limits: { connections: 3, pipelined: 2, unreadBytes: 200_000, totalBytes: 400_000 },
    respond: async () => {
      taken += 1;
      return reply;
    },
  });
  t.after(() => server.close(0));
  const REQUESTS = 200;
  const first = await dial();
  await floodUnread(first, REQUESTS, () => taken);
  assert.ok(taken < REQUESTS / 2, `${taken} requests were taken up`);
  assert.equal(counted('connections_over_budget'), 0, 'one alone is let be');
  const reader = await dial();
  const second = await dial();
  await floodUnread(second, REQUESTS, () => taken);
  assert.equal(counted('connections_over_budget'), 1);
  assert.equal(gauge('connections_open'), 2);

  reader.send('read');
  await reader.until(encodeNetstring(reply));
  for (const client of [first, second]) {
    client.socket.resume();
    client.socket.end();
    await client.closed();
  }
  const whole = REQUESTS * encodeNetstring(reply).length;
  assert.equal(second.received().length, whole);
  assert.ok(first.received().length < whole);
  assert.equal(counted('connections_over_budget'), 1);
});

test('who holds the most is closed where everybody reads', async (t) => {
  const slow = gate();
  const listener: Listener = { kind: 'unix', path: newPath(), mode: 0o666 };
  const { server, dial, counted } = await start({
    listeners: [listener],
    limits: { connections: 2, pipelined: 8, totalBytes: 400_000 },
    respond: async (payload) => {
      if (payload === 'slow') await slow.passed;
      return payload.padEnd(payload === 'long' ? 99_000 : 0);
    },
  });
  t.after(() => server.close(0));
  const [modest, greedy] = [await dial(), await dial()];
  modest.send('slow', 'short');
  // What is known has to wait for what is not.
  greedy.send('slow', ...Array.from({ length: 7 }, () => 'long'));
  await greedy.closed();
  assert.equal(counted('connections_over_budget'), 1);
  slow.open();
  await modest.until(encodeNetstring('slow') + encodeNetstring('short'));
});

test('one that does not read makes room for another', async (t) => {
  let taken = 0;
  const listener: Listener = { kind: 'unix', path: newPath(), mode: 0o666 };
  const { server, dial, counted } = await start({
    listeners: [listener],
    limits: { connections: 1 },
    // Small ones: what is unread is less than the socket's own limit.
    respond: async () => {
      taken += 1;
      return 'x'.repeat(500);
    },
  });
  t.after(() => server.close(0));
  await floodUnread(await dial(), 20_000, () => taken);
  assert.ok(taken < 20_000, 'it is kept waiting');
  const other = await until(
    async () => {
      const client = await dial();
      client.send('read');
      while (client.received() === '' && !client.socket.closed)
        await Promise.race([once(client.socket, 'data'), client.closed()]);
      return client.received();
    },
    'another is answered',
    HANG_MS / 10,
  );
  assert.equal(other, encodeNetstring('x'.repeat(500)));
  assert.equal(counted('connections_evicted'), 1);
  assert.equal(counted('connections_refused'), 0);
});
