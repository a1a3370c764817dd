// The programmable internet in a process of its own.

import { subscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { type Internet, startInternet } from '../../infra/local/internet/internet.ts';
import { type Latency, siteOf } from './domains.ts';
import { serve } from './remote.ts';

export type InternetOperations = {
  start(): Promise<{ dnsServer: string; policyHostPort: number; caFile: string }>;
  /** These domains do what their names say, with so much latency. Forgets the traffic so far. */
  populate(domains: readonly { readonly domain: string; readonly latency: Latency }[]): void;
  /** `received`: bytes on connections that have ended, of TLS and below it nothing. */
  traffic(): { questions: number; connections: number; received: number };
  /** When each of these was asked for first, epoch milliseconds. */
  firstLookups(domains: readonly string[]): (number | undefined)[];
  stop(): Promise<void>;
};

/**
 * Policy hosts have addresses of their own here, for refresh opens few connections to one. macOS has one address on
 * loopback; figures there are of providers with all domains on one address.
 */
const ADDRESSES =
  process.platform === 'darwin' ? ['127.0.0.1'] : Array.from({ length: 100 }, (_, i) => `127.0.1.${i + 1}`);

let internet: Internet;
let hosts = 0;
let received = 0;

subscribe('net.server.socket', (message) => {
  const { socket } = message as { socket: Socket };
  socket.once('close', () => {
    received += socket.bytesRead;
  });
});

serve({
  async start() {
    internet = await startInternet({ policyHostAddresses: ADDRESSES });
    return {
      dnsServer: internet.dnsServer,
      policyHostPort: internet.policyHostPort,
      caFile: internet.caFile,
    };
  },
  populate(domains) {
    for (const { domain, latency } of domains) {
      internet.set(
        domain,
        siteOf(domain, { ...latency, address: ADDRESSES[hosts++ % ADDRESSES.length] ?? '' }),
      );
    }
    internet.traffic.reset();
    received = 0;
  },
  traffic: () => {
    const { queries, fetches } = internet.traffic;
    return { questions: queries(), connections: fetches(), received };
  },
  firstLookups: (domains) => domains.map((domain) => internet.traffic.firstLookup(domain)),
  // It has a file to remove.
  stop: () => internet.close(),
} satisfies InternetOperations);
