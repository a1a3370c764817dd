import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { decode, encode, type Packet, type RecordType, streamDecode, streamEncode } from 'dns-packet';
import { type Internet, startInternet } from '../../../../infra/local/internet/internet.ts';
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

function question(asked: string, type: RecordType, udpPayloadSize?: number): Packet {
  const opt = { name: '.', type: 'OPT', udpPayloadSize, extendedRcode: 0, ednsVersion: 0, flags: 0 } as const;
  return {
    type: 'query',
    id: 4711,
    questions: [{ name: asked, type }],
    additionals: udpPayloadSize ? [{ ...opt, udpPayloadSize, flag_do: false, options: [] }] : [],
  };
}

/** Sends over UDP, and gives the first `count` messages that come back. */
async function overUdp(message: Buffer, count = 1): Promise<Buffer[]> {
  const socket = createSocket('udp4');
  const received: Buffer[] = [];
  try {
    socket.send(message, port, '127.0.0.1');
    while (received.length < count) {
      const [bytes] = await once(socket, 'message', { signal: AbortSignal.timeout(1000) });
      received.push(bytes);
    }
    return received;
  } finally {
    socket.close();
  }
}

async function ask(query: Packet) {
  const [bytes = Buffer.alloc(0)] = await overUdp(encode(query));
  return { ...decode(bytes), bytes: bytes.length };
}

async function askOverTcp(query: Packet): Promise<Packet> {
  const socket = connect(port, '127.0.0.1');
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
  assert.deepEqual([...messages.map((bytes) => decode(bytes).id), `${noise}`], [4712, 4711, 'noise']);
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
  for (const bytes of [...noise, encode({ type: 'query', id: 1 })]) {
    await assert.rejects(
      async () => {
        const socket = createSocket('udp4');
        socket.send(bytes, port, '127.0.0.1');
        await once(socket, 'message', { signal: AbortSignal.timeout(30) }).finally(() => socket.close());
      },
      { name: 'AbortError' },
    );
  }
  assert.deepEqual(await resolverOf(internet).resolveTxt(name), [['v=STSv1; id=id1;']]);
});
