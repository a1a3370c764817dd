import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { type BehaviourName, behaviours, policyText } from '../../../../infra/local/internet/behaviours.ts';
import { type Internet, startInternet } from '../../../../infra/local/internet/internet.ts';
import { HANG_MS } from '../../../resources.ts';
import { codeOf, get, leave, resolverOf } from './observe.ts';

let internet: Internet;
before(async () => {
  internet = await startInternet();
});
after(() => internet.close());

interface Sight {
  /** The text of each TXT record, or the error. */
  readonly record: string | readonly string[];
  /** The policy, or what came instead of it, or the error. */
  readonly policy: string;
}

/** What a sender gets to see that asks as RFC 8461 says, but judges nothing. */
async function look(domain: string, behaviour?: BehaviourName): Promise<Sight> {
  const resolver = resolverOf(internet, behaviour === 'no-answer' ? 100 : HANG_MS);
  const record = resolver
    .resolveTxt(`_mta-sts.${domain}`)
    .then((records) => records.map((strings) => strings.join('')), codeOf);
  const addresses = Promise.any([
    resolver.resolve4(`mta-sts.${domain}`),
    resolver.resolve6(`mta-sts.${domain}`),
  ]).catch((error) => Promise.reject(error.errors[0]));
  const policy = addresses.then(async ([address]) => {
    const answer =
      behaviour === 'hang'
        ? await leave(internet, domain, 'connection', 100)
        : await get(internet, domain, { host: address });
    if (typeof answer === 'string') return answer;
    const { 'content-type': type, 'content-encoding': coding, location } = answer.headers;
    if (answer.status !== 200) return [answer.status, location].join(' ').trim();
    if (coding) return `${coding} of ${gunzipSync(Buffer.from(answer.body, 'latin1'))}`;
    if (type !== 'text/plain') return `${type} ${answer.body}`;
    return answer.body.length > 65_536
      ? `more than 64 KiB in ${answer.headers['content-length'] ?? 'chunks'}`
      : answer.body;
  });
  return { record: await record, policy: await policy.catch(codeOf) };
}

const domain = 'd1.example.test';
const id1 = ['v=STSv1; id=id1;'];
const id2 = ['v=STSv1; id=id2;'];
const policy = policyText(domain);

const promises: Record<BehaviourName, Sight> = {
  healthy: { record: id1, policy },
  'changed-id': { record: id2, policy },
  'changed-policy': {
    record: id2,
    policy: policyText(domain, { mx: [`mx1.${domain}`, `mx2.${domain}`], maxAgeSeconds: 1_209_600 }),
  },
  'mode-none': { record: id2, policy: policyText(domain, { mode: 'none' }) },
  'mode-testing': { record: id2, policy: policyText(domain, { mode: 'testing' }) },
  slow: { record: id2, policy },
  delegated: { record: id1, policy },
  'record-gone': { record: 'ENOTFOUND', policy },
  nxdomain: { record: 'ENOTFOUND', policy: 'ENOTFOUND' },
  servfail: { record: 'ESERVFAIL', policy },
  'servfail-all': { record: 'ESERVFAIL', policy: 'ESERVFAIL' },
  'no-answer': { record: 'ETIMEOUT', policy: 'ETIMEOUT' },
  'two-records': { record: [...id1, ...id2], policy },
  'malformed-record': { record: ['v=STSv1; id=not-an-id;'], policy },
  'host-down': { record: id2, policy: 'ECONNREFUSED' },
  hang: { record: id2, policy: 'ABORT_ERR' },
  reset: { record: id2, policy: 'ECONNRESET' },
  'wrong-certificate': { record: id2, policy: 'ERR_TLS_CERT_ALTNAME_INVALID' },
  'expired-certificate': { record: id2, policy: 'CERT_HAS_EXPIRED' },
  'self-signed': { record: id2, policy: 'DEPTH_ZERO_SELF_SIGNED_CERT' },
  'old-tls': { record: id2, policy: 'EPROTO' },
  'not-found': { record: id2, policy: '404' },
  'server-error': { record: id2, policy: '500' },
  redirect: { record: id2, policy: '302 /elsewhere.txt' },
  html: { record: id2, policy: `text/html ${policy}` },
  gzip: { record: id2, policy: `gzip of ${policy}` },
  oversized: { record: id2, policy: 'more than 64 KiB in 65620' },
  'oversized-chunked': { record: id2, policy: 'more than 64 KiB in chunks' },
  'invalid-policy': { record: id2, policy: policy.replace('604800', 'a week') },
  garbage: { record: id2, policy: 'HPE_INVALID_CONSTANT' },
};

for (const [name, promise] of Object.entries(promises) as [BehaviourName, Sight][]) {
  test(`${name} keeps its promise`, async () => {
    internet.set(domain, name === 'slow' ? behaviours.slow(domain, { delayMs: 50 }) : name);
    assert.deepEqual(await look(domain, name), promise);
  });
}

test('record and policy follow the options of a behaviour', async () => {
  const options = { id: '20250101', mode: 'testing', mx: ['*.mx.test'], maxAgeSeconds: 86_400 } as const;
  for (const name of ['healthy', 'changed-policy', 'mode-none'] as const) {
    internet.set(domain, behaviours[name](domain, options));
    const policy = 'version: STSv1\r\nmode: testing\r\nmx: *.mx.test\r\nmax_age: 86400\r\n';
    assert.deepEqual(await look(domain), { record: ['v=STSv1; id=20250101;'], policy });
  }
});

test('the policy that a redirect leads to is there for a sender that follows it', async () => {
  internet.set(domain, 'redirect');
  assert.equal((await get(internet, domain, { path: '/elsewhere.txt' })).body, policy);
});
