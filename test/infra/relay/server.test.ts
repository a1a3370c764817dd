import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rename, stat, symlink, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
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
import { HANG_MS, listen, makeFolder, type Scope, until } from '../../resources.ts';
import { createRecorder } from './observer.ts';

const folder = await makeFolder({ after }, 'relay-server');
let sockets = 0;
const newPath = () => join(folder, `socket-${++sockets}`);

/** A client that goes by itself is never cut off: on a busy machine it may take long to read its last reply. */
const LIMITS: ServerLimits = { ...SERVER_LIMITS, requestBytes: 100, connections: 50, lingerMs: HANG_MS };
const INET: Listener = { kind: 'inet', host: '127.0.0.1', port: 0 };

interface Options extends Partial<Omit<ServerOptions, 'limits'>> {
  readonly limits?: Partial<ServerLimits>;
}

/** A server that is closed with the scope. */
async function start(scope: Scope, options: Options = {}) {
  const recorder = createRecorder();
  const starting = startServer({
    listeners: [INET],
    respond: (payload) => Promise.resolve(`OK ${payload}`),
    refuse: (reason) => `PERM ${reason}`,
    observer: recorder.metrics,
    ...options,
    limits: { ...LIMITS, ...options.limits },
  });
  // Before it has started: whoever expects it not to start may not wait for it.
  scope.after(async () => (await starting.catch(() => undefined))?.close(0));
  const server = await starting;
  const [address = ''] = server.addresses;
  return { ...recorder, server, address, dial: () => dial(scope, address) };
}

/** A client that collects what it receives, closed with the scope. */
async function dial(scope: Scope, address: string, { allowHalfOpen = false } = {}) {
  const [, path] = /^unix:(.*)$/.exec(address) ?? [];
  const [, host = '', port] = /^inet:\[?([^\]]+)\]?:(\d+)$/.exec(address) ?? [];
  const socket = connect({
    ...(path === undefined ? { host, port: Number(port) } : { path }),
    allowHalfOpen,
  });
  scope.after(() => socket.destroy());
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
  test(`answers over ${name}`, async (t) => {
    const { server, dial } = await start(t, { listeners: [listener()] });
    assert.match(server.addresses[0] ?? '', address);
    const client = await dial();
    client.send('mta-sts example.com');
    await client.until(replies('mta-sts example.com'));
    await server.close(HANG_MS);
    await client.closed();
  });
}

test('answers on several sockets at once', async (t) => {
  const { server } = await start(t, {
    listeners: [INET, { kind: 'unix', path: newPath(), mode: 0o666 }, INET],
  });
  assert.equal(server.addresses.length, 3);
  for (const address of server.addresses) {
    const client = await dial(t, address);
    client.send(address);
    await client.until(replies(address));
  }
});

test('a Unix socket has the permissions that it should have, and is gone afterwards', async (t) => {
  const path = newPath();
  const { server } = await start(t, { listeners: [{ kind: 'unix', path, mode: 0o620 }] });
  assert.equal((await stat(path)).mode & 0o777, 0o620);
  await server.close(HANG_MS);
  await assert.rejects(stat(path), { code: 'ENOENT' });
});

test('the socket of a process that is gone is replaced', async (t) => {
  const path = newPath();
  // Renamed, so that Node does not remove it when its server closes.
  const left = newPath();
  const dead = createServer();
  await listen(t, dead, { path: left });
  await rename(left, path);
  dead.close();
  await once(dead, 'close');
  assert.ok((await stat(path)).isSocket());
  await start(t, { listeners: [{ kind: 'unix', path, mode: 0o666 }] });
  const client = await dial(t, `unix:${path}`);
  client.send('x');
  await client.until(replies('x'));
});

const unusable: [name: string, listener: (scope: Scope) => Promise<Listener>, reason: RegExp][] = [
  [
    'a socket that somebody listens on',
    async (scope) => {
      const path = newPath();
      await listen(scope, createServer(), { path });
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
    async (scope) => ({ kind: 'inet', host: '127.0.0.1', port: await listen(scope, createServer()) }),
    /^Cannot listen on inet:127\.0\.0\.1:\d+: something listens there already/,
  ],
  [
    'a descriptor that is not open',
    async () => ({ kind: 'fd', fd: 900 }),
    /^Cannot listen on file descriptor 900: /,
  ],
];

for (const [name, listener, reason] of unusable) {
  test(`says why it cannot listen: ${name}`, async (t) => {
    const first: Listener = { kind: 'unix', path: newPath(), mode: 0o666 };
    await assert.rejects(start(t, { listeners: [first, await listener(t)] }), (error) => {
      assert.ok(error instanceof ListenError);
      assert.equal(error.code, 'listen');
      assert.match(error.message, reason);
      return true;
    });
    // Nor does it stay on the others.
    await assert.rejects(stat(first.path), { code: 'ENOENT' });
  });
}

test('replies come in the order of the requests, whatever is known first', async (t) => {
  const slow = gate();
  const { dial } = await start(t, {
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
});

test('a request may come in any pieces', async (t) => {
  const { dial } = await start(t);
  const client = await dial();
  client.socket.setNoDelay(true);
  for (const byte of encodeNetstring('mta-sts b\u00FCcher.example')) {
    client.socket.write(byte);
    await new Promise((resolve) => setImmediate(resolve));
  }
  client.send('next');
  await client.until(replies('mta-sts b\u00FCcher.example', 'next'));
});

test('no more requests of a connection are worked on than are allowed, and all are answered in the end', async (t) => {
  let running = 0;
  let most = 0;
  const { dial } = await start(t, {
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
});

test('a client that sends and does not read stops being read', async (t) => {
  let taken = 0;
  const reply = 'x'.repeat(99_000);
  const { dial } = await start(t, {
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
  let unchanged = 0;
  await until(() => {
    unchanged = taken > 0 && taken === before ? unchanged + 1 : 0;
    before = taken;
    return unchanged === 20;
  }, 'no more requests are taken');
  assert.ok(taken < 500, `${taken} requests were answered to a client that reads nothing`);
  client.socket.resume();
  client.socket.end();
  await client.closed();
  assert.equal(client.received().length, 2_000 * encodeNetstring(reply).length);
});

test('a client that never reads is cut off', async (t) => {
  const { dial, gauge } = await start(t, {
    limits: { unreadMs: 50, pipelined: 8 },
    respond: async () => 'x'.repeat(99_000),
  });
  const client = await dial();
  client.socket.pause();
  client.socket.write(encodeNetstring('x').repeat(2_000));
  await until(() => gauge('connections_open') === 0, 'the connection is cut off');
});

test('a silent client is cut off', async (t) => {
  const { dial } = await start(t, { limits: { idleMs: 50 } });
  const client = await dial();
  await client.closed();
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
  test(`is answered once and cut off: ${name}`, async (t) => {
    const { dial, counted } = await start(t);
    const client = await dial();
    client.socket.write(Buffer.from(bytes, 'latin1'));
    // It goes on and on, and still gets to read what it is told.
    client.socket.write('x'.repeat(100_000));
    await client.closed();
    assert.match(client.received(), told);
    assert.equal(counted('protocol_errors'), 1);
  });
}

test('a client that has read its last reply and stays is cut off', async (t) => {
  const { address, counted, gauge } = await start(t, { limits: { lingerMs: 50 } });
  const client = await dial(t, address, { allowHalfOpen: true });
  client.socket.write('nonsense');
  await until(() => counted('protocol_errors') === 1, 'it is refused');
  await until(() => gauge('connections_open') === 0, 'the connection is cut off');
  assert.ok(!client.socket.writableEnded, 'it has not ended it itself');
});

test('a client that has sent all it will send gets its replies', async (t) => {
  const slow = gate();
  const { dial } = await start(t, {
    respond: async (payload) => {
      if (payload !== 'fast') await slow.passed;
      return `OK ${payload}`;
    },
  });
  const client = await dial();
  client.send('one', 'two');
  client.socket.end('5:half');
  await once(client.socket, 'finish');
  // When this one has its reply, the server has seen the end of the other, which it was sent before.
  const other = await dial();
  other.send('fast');
  await other.until(replies('fast'));
  slow.open();
  await client.closed();
  assert.equal(client.received(), replies('one', 'two'));
});

test('a client that goes away while it is being answered does no harm', async (t) => {
  const slow = gate();
  const started = gate();
  const { dial, gauge } = await start(t, {
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
  await until(() => gauge('connections_open') === 0, 'the connection is gone');
  slow.open();
  const other = await dial();
  other.send('three');
  await other.until(replies('three'));
});

test('connections above the limit are closed while all wait for replies, and there is room again when one goes', async (t) => {
  const slow = gate();
  let waiting = 0;
  const { dial, counted, gauge } = await start(t, {
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
  await until(() => waiting === 2, 'both wait for a reply');
  const third = await dial();
  await third.closed();
  assert.equal(counted('connections_refused'), 1);
  first.socket.resetAndDestroy();
  await until(() => gauge('connections_open') === 1, 'one connection is gone');
  const fourth = await dial();
  fourth.send('4');
  await fourth.until(replies('4'));
  assert.equal(counted('connections', 'inet'), 3);
  assert.equal(counted('connections_evicted'), 0);
  slow.open();
  await second.until(replies('1', 'slow'));
});

test('one that waits for nothing makes room for another', async (t) => {
  const slow = gate();
  let waiting = 0;
  const { dial, counted, gauge } = await start(t, {
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
  await until(() => waiting === 1, 'one waits for a reply');
  halfway.socket.write('5:ab');
  for (const gone of [silent, halfway]) {
    const next = await dial();
    next.send('next');
    await next.until(replies('next'));
    await gone.closed();
    // It is waited for again, so that it is the other's turn.
    const before = waiting;
    next.send('slow');
    await until(() => waiting > before, 'it waits for a reply');
  }
  assert.equal(counted('connections_evicted'), 2);
  assert.equal(counted('connections_refused'), 0);
  assert.equal(gauge('connections_open'), 3);
  slow.open();
  await busy.until(replies('1', 'slow'));
});

test('many connections at once, each with its own replies', async (t) => {
  const { dial } = await start(t, {
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
});

test('closing finishes what was asked, and takes up nothing more', async (t) => {
  const slow = gate();
  const started = gate();
  const { server, dial } = await start(t, {
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
  const closing = server.close(HANG_MS);
  client.send('too late');
  await idle.closed();
  await assert.rejects(dial());
  slow.open();
  await closing;
  await client.closed();
  assert.equal(client.received(), replies('asked in time'));
});

test('closing does not wait for ever', async (t) => {
  const started = gate();
  const { server, dial } = await start(t, {
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
  let before = 0;
  let quiet = 0;
  // A busy machine stands still for a moment too.
  await until(async () => {
    await delay(50);
    quiet = taken() === before ? quiet + 1 : 0;
    before = taken();
    return before > 0 && quiet === 10;
  }, 'the server takes up nothing more');
}

test('when all together hold too much, who has not read for the longest is closed, and nobody else', async (t) => {
  let taken = 0;
  const reply = 'x'.repeat(99_000);
  const listener: Listener = { kind: 'unix', path: newPath(), mode: 0o666 };
  const { dial, counted, gauge } = await start(t, {
    listeners: [listener],
    // One that does not read holds at most four replies; two such are too many.
    limits: { connections: 3, pipelined: 2, unreadBytes: 200_000, totalBytes: 400_000 },
    respond: async () => {
      taken += 1;
      return reply;
    },
  });
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
  const { dial, counted } = await start(t, {
    listeners: [listener],
    limits: { connections: 2, pipelined: 8, totalBytes: 400_000 },
    respond: async (payload) => {
      if (payload === 'slow') await slow.passed;
      return payload.padEnd(payload === 'long' ? 99_000 : 0);
    },
  });
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
  const { dial, counted } = await start(t, {
    listeners: [listener],
    limits: { connections: 1 },
    // Small ones: what is unread is less than the socket's own limit.
    respond: async () => {
      taken += 1;
      return 'x'.repeat(500);
    },
  });
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
