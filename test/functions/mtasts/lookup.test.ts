import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type Lookup, lookupRecord } from '../../../functions/mtasts/lookup.ts';
import { createResolver } from '../../../functions/mtasts/resolver.ts';
import { type BehaviourName, type Site, startInternet } from '../../../infra/local/internet/internet.ts';
import type { Name } from '../../../infra/local/internet/site.ts';
import { assertSafe, leavingNothing, PATIENT, policyDomain, SHORT_MS } from './network.ts';

const domain = policyDomain('d1.example.test');
const internet = await startInternet();
after(() => internet.close());

async function lookup(does: Site | BehaviourName, { dnsMs = PATIENT.dnsMs, abortAfterMs = 0 } = {}) {
  internet.set(domain, does);
  internet.traffic.reset();
  const resolver = createResolver({ dnsMs }, [internet.dnsServer]);
  const found = await leavingNothing([internet], (controller) => {
    if (abortAfterMs > 0) void delay(abortAfterMs).then(() => controller.abort());
    return lookupRecord(domain, { resolver, signal: controller.signal });
  });
  assert.equal(internet.traffic.fetches(), 0, 'a lookup fetches nothing');
  return outcome(found);
}

function outcome(found: Lookup): string {
  if (found.status === 'found') return `found ${found.id}`;
  assertSafe(found.failure);
  return `${found.status} ${found.failure.code}`;
}

const behaviours: Record<BehaviourName, string> = {
  healthy: 'found id1',
  'changed-id': 'found id2',
  'changed-policy': 'found id2',
  'mode-none': 'found id2',
  'mode-testing': 'found id2',
  slow: 'found id2',
  delegated: 'found id1',
  'record-gone': 'absent record-absent',
  nxdomain: 'absent record-absent',
  servfail: 'unavailable dns-servfail',
  'servfail-all': 'unavailable dns-servfail',
  'no-answer': 'unavailable dns-timeout',
  'two-records': 'unusable record-multiple',
  'malformed-record': 'unusable record-malformed',
  'host-down': 'found id2',
  hang: 'found id2',
  reset: 'found id2',
  'wrong-certificate': 'found id2',
  'expired-certificate': 'found id2',
  'self-signed': 'found id2',
  'old-tls': 'found id2',
  'not-found': 'found id2',
  'server-error': 'found id2',
  redirect: 'found id2',
  html: 'found id2',
  gzip: 'found id2',
  oversized: 'found id2',
  'oversized-chunked': 'found id2',
  'invalid-policy': 'found id2',
  garbage: 'found id2',
};
for (const [name, expected] of Object.entries(behaviours) as [BehaviourName, string][]) {
  test(`behaviour ${name}: ${expected}`, async () => {
    const dnsMs = expected.endsWith('timeout') ? SHORT_MS : PATIENT.dnsMs;
    assert.equal(await lookup(name, { dnsMs }), expected);
  });
}

const hostile = '\r\n\x1B[31m\u{202E}'.repeat(40).slice(0, 100);
const records: [name: string, record: Name, expected: string][] = [
  ['strings joined without spaces', { txt: [['v=STSv1;', ' id=a', 'b;']] }, 'found ab'],
  ['one string per character', { txt: [[...'v=STSv1; id=1;']] }, 'found 1'],
  ['other records around it', { txt: [['x'], ['v=STSv1; id=1;'], ['v=spf1 -all']] }, 'found 1'],
  [
    'more records than fit in UDP',
    { txt: [...Array(30).fill(['x'.repeat(99)]), ['v=STSv1; id=1;']] },
    'found 1',
  ],
  ['alias', { cname: ['x.test'], txt: [['v=STSv1; id=1;']] }, 'found 1'],
  ['a name without records', {}, 'absent record-absent'],
  ['other records only', { txt: [['v=spf1 -all'], ['x']] }, 'absent record-absent'],
  ['alias of nothing', { cname: ['x.test'] }, 'absent record-absent'],
  ['empty string', { txt: [['']] }, 'absent record-absent'],
  ['the same record twice', { txt: [['v=STSv1; id=1;'], ['v=STSv1; id=1;']] }, 'unusable record-multiple'],
  ['no id', { txt: [['v=STSv1;']] }, 'unusable record-malformed'],
  ['hostile other record', { txt: [[hostile]] }, 'absent record-absent'],
  ['hostile record', { txt: [['v=STSv1; ', hostile, hostile, hostile]] }, 'unusable record-malformed'],
  [
    'bytes that are no text',
    { txt: [['v=STSv1; id=', Buffer.from([0xff, 0xfe, 0x00])]] },
    'unusable record-malformed',
  ],
  ['REFUSED', { rcode: 'REFUSED' }, 'unavailable dns-refused'],
  ['NOTIMP', { rcode: 'NOTIMP' }, 'unavailable dns-error'],
];
for (const [name, record, expected] of records) {
  test(`record: ${name}`, async () => assert.equal(await lookup({ record }), expected));
}

test('the host has no say in the lookup', async () => {
  await lookup({ record: { txt: [['v=STSv1; id=1;']] }, host: { silent: true } });
  assert.equal(internet.traffic.queries(`mta-sts.${domain}`), 0);
});

test('the end of the time for the domain ends the lookup', async () => {
  assert.equal(await lookup('no-answer', { abortAfterMs: 50 }), 'unavailable deadline-exceeded');
});
