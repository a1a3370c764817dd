import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { behaviours, startInternet } from '../../../../infra/local/internet/internet.ts';
import { bindUdp, killAfter, until } from '../../../resources.ts';
import { codeOf, get, resolverOf } from './observe.ts';

const domain = 'd1.example.test';

test('a domain does what it was last set to do, and nothing once removed', async (t) => {
  const internet = await startInternet();
  t.after(() => internet.close());
  const resolver = resolverOf(internet);
  internet.set(domain, 'healthy');
  assert.deepEqual(await resolver.resolveTxt(`_mta-sts.${domain}`), [['v=STSv1; id=id1;']]);
  internet.set(domain, behaviours.healthy(domain, { id: 'id7' }));
  assert.deepEqual(await resolver.resolveTxt(`_mta-sts.${domain}`), [['v=STSv1; id=id7;']]);
  internet.remove(domain);
  assert.equal(await resolver.resolveTxt(`_mta-sts.${domain}`).catch(codeOf), 'ENOTFOUND');
  assert.equal(await get(internet, domain).catch(codeOf), 'ECONNRESET');
});

test('only domains under test are taken', async (t) => {
  const internet = await startInternet();
  t.after(() => internet.close());
  for (const wrong of ['example.com', 'test', 'D1.example.test', 'd1.example.test.']) {
    assert.throws(() => internet.set(wrong, 'healthy'), /not a domain under test/);
  }
});

test('traffic counts questions and connections by domain, and forgets on reset', async (t) => {
  const internet = await startInternet();
  t.after(() => internet.close());
  const { traffic } = internet;
  internet.set(domain, 'healthy');
  internet.set('d2.example.test', 'self-signed');
  await resolverOf(internet).resolveTxt(`_mta-sts.${domain}`);
  await resolverOf(internet).resolve4(`mta-sts.${domain}`);
  await resolverOf(internet).resolve4('mta-sts.d2.example.test');
  await get(internet, domain);
  await assert.rejects(get(internet, 'd2.example.test'));

  assert.equal(traffic.queries(), 3);
  assert.equal(traffic.queries(domain), 2);
  assert.equal(traffic.queries(`_mta-sts.${domain}`), 1);
  assert.equal(traffic.fetches(), 2);
  assert.equal(traffic.fetches(domain), 1);
  assert.equal(traffic.fetches('d2.example.test'), 1, 'a handshake that the client breaks off is traffic');
  assert.deepEqual(
    traffic.events().map(({ kind, name, detail }) => [kind, name, detail].join(' ').trim()),
    [
      `query _mta-sts.${domain} TXT udp`,
      `query mta-sts.${domain} A udp`,
      'query mta-sts.d2.example.test A udp',
      `connection mta-sts.${domain}`,
      `request mta-sts.${domain} /.well-known/mta-sts.txt`,
      'connection mta-sts.d2.example.test',
    ],
  );

  traffic.reset();
  assert.deepEqual([traffic.queries(), traffic.fetches(), traffic.events().length], [0, 0, 0]);
});

test('hundreds of domains at once', async (t) => {
  const internet = await startInternet();
  t.after(() => internet.close());
  const domains = Array.from({ length: 300 }, (_, index) => `d${index}.example.test`);
  for (const each of domains) internet.set(each, 'changed-id');
  const resolver = resolverOf(internet, 1_000, 5);
  const outcomes = domains.map(async (each) => {
    await resolver.resolveTxt(`_mta-sts.${each}`);
    return (await get(internet, each)).status;
  });
  assert.deepEqual(new Set(await Promise.all(outcomes)), new Set([200]));
  assert.equal(internet.traffic.fetches(), 300);
});

test('policy hosts can have several addresses, and each says how many it had to serve at once', {
  skip: process.platform === 'darwin' && 'loopback has one IPv4 address',
}, async (t) => {
  const policyHostAddresses = ['127.0.0.1', '127.0.0.2', '127.0.0.3'];
  const internet = await startInternet({ policyHostAddresses });
  t.after(() => internet.close());
  internet.set(domain, { https: { policy: { body: 'x' } } });
  assert.equal((await get(internet, domain, { host: '127.0.0.3' })).body, 'x');
  assert.equal(internet.mostAtOnce(), 1);
  await until(() => internet.openSockets() === 0, 'it is seen to leave');

  internet.set(domain, 'hang');
  const leaving = new AbortController();
  t.after(() => leaving.abort());
  const ask = (host: string) => get(internet, domain, { host, signal: leaving.signal }).catch(codeOf);
  const asked = policyHostAddresses.flatMap((host) => [ask(host), ask(host)]);
  await until(() => internet.openSockets() === 6, 'two connections to each address');
  assert.equal(internet.mostAtOnce(), 2);
  leaving.abort();
  assert.deepEqual(new Set(await Promise.all(asked)), new Set(['ABORT_ERR']));
});

test('the root file serves NODE_EXTRA_CA_CERTS', async (t) => {
  const internet = await startInternet();
  t.after(() => internet.close());
  internet.set(domain, 'healthy');
  assert.equal(readFileSync(internet.caFile, 'utf8'), internet.ca);
  const script = `const socket = require('node:tls').connect({ host: '127.0.0.1', port: ${internet.policyHostPort},
    servername: 'mta-sts.${domain}' }, () => { console.log(socket.authorized); socket.destroy(); });`;
  const child = killAfter(
    t,
    spawn(process.execPath, ['-e', script], {
      env: { ...process.env, NODE_EXTRA_CA_CERTS: internet.caFile },
      stdio: ['ignore', 'pipe', 'inherit'],
    }),
  );
  assert.equal((await text(child.stdout)).trim(), 'true');
});

test('ports can be chosen; one that is taken is an error that leaves nothing behind', async (t) => {
  const internet = await startInternet();
  t.after(() => internet.close());
  const udp = await bindUdp(t);
  const { policyHostPort } = internet;
  for (const taken of [{ policyHostPort }, { dnsPort: policyHostPort }, { dnsPort: udp.address().port }]) {
    const started = startInternet(taken);
    // If it does start, it is closed like any other.
    const close = () => started.then((other) => other.close()).catch(() => {});
    t.after(close);
    await assert.rejects(started, { code: 'EADDRINUSE' });
  }
});

test('close waits for nobody and leaves no socket, timer or file', async (t) => {
  const internet = await startInternet();
  t.after(() => internet.close());
  internet.set(domain, { record: { delayMs: 3_600_000 }, https: { policy: { delayMs: 3_600_000 } } });
  internet.set('d2.example.test', { https: { policy: { body: '' }, stop: { at: 'request', how: 'hang' } } });
  const dns = connect(Number(internet.dnsServer.split(':')[1]), '127.0.0.1');
  t.after(() => dns.destroy());
  const asked = [
    get(internet, domain).catch(codeOf),
    get(internet, 'd2.example.test').catch(codeOf),
    resolverOf(internet, 200).resolveTxt(`_mta-sts.${domain}`).catch(codeOf),
  ];
  const busy = () => internet.openSockets() >= 3 && internet.traffic.events().length >= 5;
  await until(busy, 'everybody is waiting for an answer');

  await internet.close();
  assert.equal(internet.openSockets(), 0);
  assert.equal(existsSync(internet.caFile), false);
  assert.deepEqual((await Promise.all(asked)).slice(0, 2), ['ECONNRESET', 'ECONNRESET']);
  dns.destroy();
  const left = () => process.getActiveResourcesInfo().filter((kind) => /Server|UDP|TLS/.test(kind));
  await until(() => left().length === 0, 'nothing of it is left');
});
