// Three pages for whoever watches the relay, on a port of their own: /metrics, /healthz and /ready.

import { createServer } from 'node:http';
import { ListenError } from './server.ts';

/** Milliseconds for a request to arrive as a whole. */
const REQUEST_MS = 5_000;
const MAX_CONNECTIONS = 20;

export interface StatusServer {
  readonly address: string;
  close(): void;
}

export async function startStatusServer({
  host,
  port,
  metrics,
  ready,
}: {
  readonly host: string;
  readonly port: number;
  readonly metrics: () => string;
  /** Whether lookups are answered: from the start of the listening to that of the shutdown. */
  readonly ready: () => boolean;
}): Promise<StatusServer> {
  const pages: Readonly<Record<string, () => { status: number; text: string }>> = {
    '/metrics': () => ({ status: 200, text: metrics() }),
    '/healthz': () => ({ status: 200, text: 'alive\n' }),
    '/ready': () => (ready() ? { status: 200, text: 'ready\n' } : { status: 503, text: 'not ready\n' }),
  };
  const server = createServer(
    { requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS },
    (request, response) => {
      const page = pages[request.url?.split('?', 1)[0] ?? ''];
      const known = page !== undefined && (request.method === 'GET' || request.method === 'HEAD');
      const { status, text } = known ? page() : { status: 404, text: `${Object.keys(pages).join('\n')}\n` };
      response.writeHead(status, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
      response.end(text);
    },
  );
  server.maxConnections = MAX_CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(new ListenError(`Cannot listen on ${host}:${port} for RELAY_METRICS: ${error.message}.`)),
    );
    server.listen(port, host, resolve);
  });
  const address = server.address();
  return {
    address:
      typeof address === 'object' && address !== null
        ? `http://${host.includes(':') ? `[${host}]` : host}:${address.port}`
        : '',
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
