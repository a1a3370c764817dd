// A server without secure renegotiation (RFC 5746) is no reason to lose a policy. That one which starts over is refused, see
// https-connections.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import tls from 'node:tls';
import { createSecureContext, fetchPolicy } from '../../functions/mtasts/fetch.ts';
import { createGate } from '../../functions/mtasts/gate.ts';
import { createAuthority } from '../../infra/local/internet/certificates.ts';
import { PATIENT, policyDomain } from '../functions/mtasts/network.ts';
import { listen } from '../resources.ts';
import { POLICY } from './https.ts';
import { createOldHost } from './old-tls.ts';

test('a policy is fetched from a server without RFC 5746', async (t) => {
  const domain = policyDomain('old.hostile.test');
  const authority = await createAuthority();
  const before = tls.getCACertificates('default');
  tls.setDefaultCACertificates([authority.ca]);
  t.after(() => tls.setDefaultCACertificates(before));
  const head = `HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: ${POLICY.length}\r\n\r\n`;
  const cert = await authority.issue('good', `mta-sts.${domain}`);
  const port = await listen(t, createOldHost(authority.key, cert, Buffer.from(head + POLICY)));
  const controller = new AbortController();
  const fetched = await fetchPolicy(domain, {
    resolver: {
      txt: () => assert.fail('not asked'),
      async *addresses() {
        yield { status: 'found', values: ['127.0.0.1'] };
      },
    },
    gate: createGate(1),
    secureContext: createSecureContext(),
    limits: PATIENT,
    signal: controller.signal,
    port,
    allowPrivateAddresses: true,
  });
  assert.ok(fetched !== 'not-started');
  assert.deepEqual(fetched.ok ? fetched.text : fetched.failure, POLICY);
});
