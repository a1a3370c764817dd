// Three pages for whoever watches the relay, on a port of their own: /metrics, /healthz and /ready.

import { createServer } from 'node:http';
import type { Socket } from 'node:net';
import { ListenError } from './server.ts';

/** Milliseconds for a request to arrive as a whole, and for a client to be silent or to leave an answer unread. */
const REQUEST_MS = 5_000;
/** Milliseconds between two looks at who is late; Node's own are 30 s apart. */
const CHECK_MS = 1_000;
/**
 * Whoever watches needs one or two. For one more the oldest is closed: its request was answered in the moment in which it was
 * there, so all that the others do is to wait, and whoever may connect could keep the watchers out by doing that.
 */
const MAX_CONNECTIONS = 100;

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
  const answering = new WeakSet<Socket>();
  const server = createServer(
    { requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS, connectionsCheckingInterval: CHECK_MS },
    (request, response) => {
      // Whoever watches asks for one page after another. Node answers all that came in one piece, however long the pages,
      // and keeps the answers until they are read: a request before the last answer has gone ends the connection.
      const { socket } = request;
      if (answering.has(socket)) socket.destroy();
      if (socket.destroyed) return;
      answering.add(socket);
      response.once('close', () => answering.delete(socket));
      const page = pages[request.url?.split('?', 1)[0] ?? ''];
      const known = page !== undefined && (request.method === 'GET' || request.method === 'HEAD');
      const { status, text } = known ? page() : { status: 404, text: `${Object.keys(pages).join('\n')}\n` };
      response.writeHead(status, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
      response.end(text);
    },
  );
  server.setTimeout(REQUEST_MS);
  /** The oldest first. */
  const open = new Set<Socket>();
  server.on('connection', (socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    const [oldest] = open;
    if (open.size <= MAX_CONNECTIONS || oldest === undefined) return;
    open.delete(oldest);
    oldest.destroy();
  });
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
