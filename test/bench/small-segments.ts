// For each page of a scan, DynamoDB Local reads all that is left of the segment: eight seconds for a quarter of a million
// items, which no client waits for. So this stands before it and divides each segment into smaller ones, of about a page
// each, which it has scanned one after the other.

import { createServer, type IncomingMessage } from 'node:http';
import { type LoopbackServer, listenOnLoopback } from '../../infra/local/loopback.ts';

/** Somewhat fewer of the bench's items than a page has: segments are never equally full. */
const ITEMS_OF_A_PART = 2_500;

interface Key {
  readonly Domain: { readonly S: string };
}

/** @param database the endpoint of one whose table has `count` items. */
export function divideSegments(database: string, count: number): Promise<LoopbackServer> {
  async function ask(request: IncomingMessage, body: string): Promise<{ status: number; text: string }> {
    const { host: _, connection: __, 'content-length': ___, ...headers } = request.headers;
    const answer = await fetch(database, {
      method: 'POST',
      headers: headers as Record<string, string>,
      body,
    });
    return { status: answer.status, text: await answer.text() };
  }

  /** A key says where to go on: in which part, and after which item of it. */
  async function scan(request: IncomingMessage, body: string): Promise<{ status: number; text: string }> {
    const { Segment = 0, TotalSegments = 1, ExclusiveStartKey, ...input } = JSON.parse(body);
    const parts = Math.ceil(count / TotalSegments / ITEMS_OF_A_PART);
    const [, place = '0', after = ''] = /^(\d+) (.*)$/.exec((ExclusiveStartKey as Key)?.Domain.S ?? '') ?? [];
    const part = Number(place);
    const { status, text } = await ask(
      request,
      JSON.stringify({
        ...input,
        Segment: Segment * parts + part,
        TotalSegments: TotalSegments * parts,
        ...(after !== '' && { ExclusiveStartKey: { Domain: { S: after } } }),
      }),
    );
    if (status !== 200) return { status, text };
    const { LastEvaluatedKey: last, ...page } = JSON.parse(text);
    const next = last ? `${part} ${(last as Key).Domain.S}` : part + 1 < parts ? `${part + 1} ` : undefined;
    const more = next === undefined ? {} : { LastEvaluatedKey: { Domain: { S: next } } };
    return { status, text: JSON.stringify({ ...page, ...more }) };
  }

  const server = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray()).toString();
    const isScan = String(request.headers['x-amz-target']).endsWith('.Scan');
    const { status, text } = await (isScan ? scan : ask)(request, body);
    response.writeHead(status, { 'content-type': 'application/x-amz-json-1.0' }).end(text);
  });
  server.keepAliveTimeout = 0;
  return listenOnLoopback(server);
}
