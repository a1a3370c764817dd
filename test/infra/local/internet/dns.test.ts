import assert from 'node:assert/strict';
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, afterEach, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { decode, encode, type Packet, type RecordType, streamDecode, streamEncode } from 'dns-packet';
import { type Internet, startInternet } from '../../../../infra/local/internet/internet.ts';
import type { Name } from '../../../../infra/local/internet/site.ts';
import { codeOf, resolverOf } from './observe.ts';

const domain = 'd1.example.test';
const name = `_mta-sts.${domain}`;
let internet: Internet;
let port: number;
before(async () => {
  internet = await startInternet();
  port = Number(internet.dnsServer.split(':')[1]);
});
after(() => internet.close());

const udpSockets = new Set<UdpSocket>();
const tcpSockets = new Set<Socket>();
afterEach(() => {
  for (const socket of udpSockets) socket.close();
  for (const socket of tcpSockets) socket.destroy();
  udpSockets.clear();
  tcpSockets.clear();
});

function openUdp(): UdpSocket {
  const socket = createSocket('udp4');
  udpSockets.add(socket);
  return socket;
}

function openTcp(to = port): Socket {
  const socket = connect(to, '127.0.0.1');
  tcpSockets.add(socket);
  return socket;
}

function question(asked: string, type: RecordType, udpPayloadSize?: number): Packet {
  const opt = { name: '.', type: 'OPT', udpPayloadSize, extendedRcode: 0, ednsVersion: 0, flags: 0 } as const;
  return {
    type: 'query',
    id: 4711,
    questions: [{ name: asked, type }],
    additionals: udpPayloadSize ? [{ ...opt, udpPayloadSize, flag_do: false, options: [] }] : [],
  };
}

/** Sends over UDP from one port, and gives the first `count` messages that come back there, with the ports they are from. */
async function overUdp(
  messages: Buffer | readonly Buffer[],
  count = 1,
): Promise<{ bytes: Buffer; from: number }[]> {
  const socket = openUdp();
  const received: { bytes: Buffer; from: number }[] = [];
  const all = new Promise<void>((resolve) => {
    socket.on('message', (bytes, { port: from }) => {
      received.push({ bytes, from });
      if (received.length === count) resolve();
    });
  });
  for (const message of [messages].flat()) socket.send(message, port, '127.0.0.1');
  await all;
  return received;
}

/** Everything that comes back over TCP until the other end closes, or until there are so many bytes. */
async function rawOverTcp(
  query: Packet,
  enough = Number.POSITIVE_INFINITY,
): Promise<{ bytes: Buffer; end: string }> {
  const socket = openTcp();
  socket.write(streamEncode(query));
  let bytes = Buffer.alloc(0);
  try {
    for await (const chunk of socket) {
      bytes = Buffer.concat([bytes, chunk]);
      if (bytes.length >= enough) return { bytes, end: 'open' };
    }
    return { bytes, end: 'closed' };
  } catch (error) {
    return { bytes, end: codeOf(error) };
  }
}

async function askRaw(query: Packet): Promise<Buffer> {
  const [answer] = await overUdp(encode(query));
  return answer?.bytes ?? Buffer.alloc(0);
}

async function ask(query: Packet) {
  const bytes = await askRaw(query);
  return { ...decode(bytes), bytes: bytes.length };
}

async function askOverTcp(query: Packet): Promise<Packet> {
  const socket = openTcp();
  // in two pieces, as TCP may deliver it
  const message = streamEncode(query);
  socket.write(message.subarray(0, 5));
  await delay(5);
  socket.write(message.subarray(5));
  let received = Buffer.alloc(0);
  for await (const chunk of socket) {
    received = Buffer.concat([received, chunk]);
    if (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) break;
  }
  return streamDecode(received);
}

test('several records, each of several strings', async () => {
  internet.set(domain, { record: { txt: [['v=STSv1; ', 'id=id1;'], ['other']] } });
  assert.deepEqual(await resolverOf(internet).resolveTxt(name), [['v=STSv1; ', 'id=id1;'], ['other']]);
});

test('codes above those of RFC 1035', async () => {
  const rcodes = { YXDOMAIN: 6, YXRRSET: 7, NXRRSET: 8, NOTAUTH: 9, NOTZONE: 10, DSOTYPENI: 11 } as const;
  for (const [rcode, code] of Object.entries(rcodes) as [keyof typeof rcodes, number][]) {
    internet.set(domain, { record: { txt: [['x']], rcode } });
    const bytes = await askRaw(question(name, 'TXT'));
    assert.deepEqual([(bytes[3] ?? 0) & 15, decode(bytes).answers?.length], [code, 0]);
  }
});

test('a negative answer without SOA, and times to live', async () => {
  internet.set(domain, { record: { rcode: 'NXDOMAIN', soa: false }, host: { a: ['127.0.0.1'], ttl: 77 } });
  assert.equal((await ask(question(name, 'TXT'))).authorities?.length, 0);
  const [answer] = (await ask(question(`mta-sts.${domain}`, 'A'))).answers ?? [];
  assert.ok(answer && 'ttl' in answer && answer.ttl === 77);
});

test('a name can do something else from the second question of each type on', async () => {
  const host = `mta-sts.${domain}`;
  internet.set(domain, { host: { a: ['127.0.0.1'], aaaa: ['::1'], afterwards: { a: ['127.0.0.2'] } } });
  const resolver = resolverOf(internet);
  assert.deepEqual(await resolver.resolve4(host), ['127.0.0.1']);
  assert.deepEqual(await resolver.resolve6(host), ['::1']);
  for (const _ of [2, 3]) {
    assert.deepEqual(await resolverOf(internet).resolve4(host), ['127.0.0.2']);
    assert.equal(await resolverOf(internet).resolve6(host).catch(codeOf), 'ENODATA');
  }
});

test('truncated on demand, with or without the records', async () => {
  for (const [truncated, count] of [
    ['whole', 1],
    ['empty', 0],
  ] as const) {
    internet.set(domain, { record: { txt: [['x']], truncated } });
    const overUdp = await ask(question(name, 'TXT'));
    assert.deepEqual([overUdp.flag_tc, overUdp.answers?.length], [true, count]);
    assert.equal((await askOverTcp(question(name, 'TXT'))).answers?.length, 1);
  }
});

test('forged messages come first, and from another port', async () => {
  internet.set(domain, {
    record: { txt: [['truth']], forge: (reply) => [{ ...reply, answers: [] }, Buffer.from('noise')] },
  });
  const messages = await overUdp(encode(question(name, 'TXT')), 3);
  assert.deepEqual(
    messages.map(({ from }) => from === port),
    [false, false, true],
  );
  assert.equal((await askOverTcp(question(name, 'TXT'))).answers?.length, 1);
});

test('over TCP: a false length, a part, pieces, and the end', async () => {
  const tcp = async (does: NonNullable<Name['tcp']>, enough?: number) => {
    internet.set(domain, { record: { txt: [['x']], tcp: does } });
    return rawOverTcp(question(name, 'TXT'), enough);
  };
  const { bytes: whole } = await tcp({ end: 'close' });
  assert.equal(whole.readUInt16BE(), whole.length - 2);
  assert.equal((await tcp({ claimedBytes: 9, end: 'close' })).bytes.readUInt16BE(), 9);
  assert.deepEqual(await tcp({ cutAfter: 7, end: 'close' }), { bytes: whole.subarray(0, 7), end: 'closed' });
  assert.deepEqual(await tcp({ cutAfter: 0, end: 'close' }), { bytes: Buffer.alloc(0), end: 'closed' });
  assert.deepEqual(await tcp({ cutAfter: 0, end: 'reset' }), { bytes: Buffer.alloc(0), end: 'ECONNRESET' });
  assert.deepEqual(await tcp({}, whole.length), { bytes: whole, end: 'open' });
  const start = performance.now();
  assert.deepEqual(await tcp({ trickle: { bytes: 20, everyMs: 20 } }, whole.length), {
    bytes: whole,
    end: 'open',
  });
  assert.ok(performance.now() - start >= 20 * Math.ceil(whole.length / 20) - 5);
});

test('it may be there over UDP only', async (t) => {
  const udpOnly = await startInternet({ dnsOverTcp: false });
  t.after(() => udpOnly.close());
  udpOnly.set(domain, { record: { txt: [['x']] } });
  assert.deepEqual(await resolverOf(udpOnly).resolveTxt(name), [['x']]);
  const socket = openTcp(Number(udpOnly.dnsServer.split(':')[1]));
  await assert.rejects(once(socket, 'connect'), { code: 'ECONNREFUSED' });
});

test('names are found in any case, and answered as asked', async () => {
  internet.set(domain, 'healthy');
  const answer = await ask(question('_MTA-sts.D1.example.TEST', 'TXT'));
  assert.equal(answer.answers?.[0]?.name, '_MTA-sts.D1.example.TEST');
});

test('a policy host is at 127.0.0.1, with no AAAA record: NODATA with the SOA', async () => {
  internet.set(domain, {});
  const host = `mta-sts.${domain}`;
  assert.deepEqual(await resolverOf(internet).resolve4(host), ['127.0.0.1']);
  assert.equal(await resolverOf(internet).resolve6(host).catch(codeOf), 'ENODATA');
  const answer = await ask(question(host, 'AAAA'));
  assert.deepEqual([answer.answers?.length, answer.authorities?.[0]?.type], [0, 'SOA']);
});

test('addresses of both families', async () => {
  internet.set(domain, { host: { a: ['127.0.0.1', '127.0.0.2'], aaaa: ['::1'] } });
  const host = `mta-sts.${domain}`;
  assert.deepEqual(await resolverOf(internet).resolve4(host), ['127.0.0.1', '127.0.0.2']);
  assert.deepEqual(await resolverOf(internet).resolve6(host), ['::1']);
});

test('the ways to have no answer are told apart', async () => {
  const rcodes = {
    NXDOMAIN: 'ENOTFOUND',
    SERVFAIL: 'ESERVFAIL',
    REFUSED: 'EREFUSED',
    NOTIMP: 'ENOTIMP',
  } as const;
  for (const [rcode, code] of Object.entries(rcodes) as [keyof typeof rcodes, string][]) {
    internet.set(domain, { record: { rcode } });
    assert.equal(await resolverOf(internet).resolveTxt(name).catch(codeOf), code);
  }
  internet.set(domain, { record: {} });
  assert.equal(await resolverOf(internet).resolveTxt(name).catch(codeOf), 'ENODATA');
  internet.set(domain, { record: { silent: true } });
  assert.equal(await resolverOf(internet, 50).resolveTxt(name).catch(codeOf), 'ETIMEOUT');
});

test('record and policy host fail on their own', async () => {
  internet.set(domain, { record: { txt: [['x']] }, host: { rcode: 'SERVFAIL' } });
  assert.deepEqual(await resolverOf(internet).resolveTxt(name), [['x']]);
  assert.equal(await resolverOf(internet).resolve4(`mta-sts.${domain}`).catch(codeOf), 'ESERVFAIL');
});

test('unknown names do not exist; the domain itself does, without records', async () => {
  internet.set(domain, 'healthy');
  for (const unknown of ['_mta-sts.d2.example.test', 'mta-sts.d2.example.test', 'example.com']) {
    assert.equal(await resolverOf(internet).resolveTxt(unknown).catch(codeOf), 'ENOTFOUND');
  }
  assert.equal(await resolverOf(internet).resolveMx(domain).catch(codeOf), 'ENODATA');
});

test('SERVFAIL to the first questions of each type, counted from `set`', async () => {
  const host = `mta-sts.${domain}`;
  const outcome = async (type: RecordType) => (await ask(question(host, type))).answers?.length;
  for (const _ of [1, 2]) {
    internet.set(domain, { host: { a: ['127.0.0.1'], servfailFirst: 2 } });
    assert.deepEqual([await outcome('A'), await outcome('A'), await outcome('A')], [0, 0, 1]);
    assert.equal(await outcome('AAAA'), 0);
  }
});

test('an answer can be late', async () => {
  internet.set(domain, { record: { txt: [['x']], delayMs: 60 } });
  const start = performance.now();
  assert.deepEqual(await resolverOf(internet).resolveTxt(name), [['x']]);
  assert.ok(performance.now() - start >= 55);
});

test('an alias is answered with its whole chain', async () => {
  internet.set(domain, { record: { cname: ['one.test', 'two.test'], txt: [['x']] } });
  const { answers } = await ask(question(name, 'TXT'));
  assert.deepEqual(
    answers?.map((answer) => [answer.name, answer.type]),
    [
      [name, 'CNAME'],
      ['one.test', 'CNAME'],
      ['two.test', 'TXT'],
    ],
  );
  internet.set(domain, { record: { cname: ['one.test'], rcode: 'NXDOMAIN' } });
  assert.equal(await resolverOf(internet).resolveTxt(name).catch(codeOf), 'ENOTFOUND');
  internet.set(domain, { record: { cname: ['one.test'] } });
  assert.deepEqual(
    await resolverOf(internet).resolveTxt(name),
    [],
    'to Node, an alias of nothing is no error',
  );
});

test('what does not fit in UDP is cut to nothing with TC, and whole over TCP', async () => {
  const strings = Array.from({ length: 20 }, (_, index) => [`${index}`.padEnd(90, '.')]);
  internet.set(domain, { record: { txt: strings } });
  const cut = await ask(question(name, 'TXT'));
  assert.deepEqual([cut.flag_tc, cut.answers?.length], [true, 0]);
  assert.ok(cut.bytes <= 512);
  assert.equal((await ask(question(name, 'TXT', 1232))).flag_tc, true);
  assert.equal((await ask(question(name, 'TXT', 4096))).answers?.length, 20);
  assert.equal((await askOverTcp(question(name, 'TXT'))).answers?.length, 20);
  assert.deepEqual(
    await resolverOf(internet).resolveTxt(name),
    strings,
    'a stub resolver asks again over TCP',
  );
});

test('EDNS is answered with EDNS, and only then', async () => {
  internet.set(domain, 'healthy');
  assert.equal((await ask(question(name, 'TXT', 1232))).additionals?.[0]?.type, 'OPT');
  assert.equal((await ask(question(name, 'TXT'))).additionals?.length, 0);
});

test('the raw hook sends anything, also by transport', async () => {
  internet.set(domain, {
    record: {
      txt: [['truth']],
      respond: (reply, query, transport) =>
        transport === 'tcp' ? [] : [{ ...reply, id: (query.id ?? 0) + 1 }, reply, Buffer.from('noise')],
    },
  });
  const messages = await overUdp(encode(question(name, 'TXT')), 3);
  const noise = messages.pop();
  assert.deepEqual(
    [...messages.map(({ bytes }) => decode(bytes).id), `${noise?.bytes}`],
    [4712, 4711, 'noise'],
  );
  assert.deepEqual(
    await resolverOf(internet).resolveTxt(name),
    [['truth']],
    'a stub resolver drops other ids',
  );
});

test('noise and answers are not answered, and do no harm', async () => {
  internet.set(domain, 'healthy');
  const noise = [
    Buffer.alloc(0),
    Buffer.from('noise'),
    encode({ ...question(name, 'TXT'), type: 'response' }),
  ];
  // An answer to any of them would come before the answer to the question.
  const sent = [...noise, encode({ type: 'query', id: 1 }), encode(question(name, 'TXT'))];
  const [first] = await overUdp(sent);
  assert.deepEqual(decode(first?.bytes ?? Buffer.alloc(0)).id, 4711);
  assert.deepEqual(await resolverOf(internet).resolveTxt(name), [['v=STSv1; id=id1;']]);
});
