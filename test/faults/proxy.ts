// Stands between the functions and a service, on loopback: passes calls on, or does to them what the programme says.
// Whatever reaches the database is written into the journal, as the database answered it. It knows the services'
// protocols and nothing of what the functions are for.

import { Agent, createServer, type IncomingHttpHeaders, request, type ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { type LoopbackServer, listenOnLoopback } from '../../infra/local/loopback.ts';
import {
  type Answer,
  attemptOf,
  type Call,
  domainsOf,
  type Json,
  operationOf,
  processOf,
  type Service,
} from './call.ts';
import { broken, type Fault, nameOf, type Programme, partly, throttled } from './fault.ts';
import type { Journal } from './journal.ts';

export interface Proxies {
  /** For `StackOptions.between`. */
  readonly between: (service: Service, endpoint: string) => Promise<LoopbackServer>;
  /** What calls meet from now on; their turns are counted anew. */
  play(programme: Programme): void;
  /** Calls under way, but for those that wait for messages. */
  readonly busy: number;
  /** Faults so far, by service, operation and kind. */
  readonly injected: ReadonlyMap<string, number>;
}

/** Never sent on: they belong to one connection, or to a body that may be changed. */
const OWN_HEADERS = ['connection', 'content-length', 'transfer-encoding', 'keep-alive', 'x-amz-crc32'];

/** The connection to the service broke, as it does when everything is closed. */
class Unreachable extends Error {}

/** @param kill ends a process at once and resolves when it is gone. */
export function createProxies(journal: Journal, kill: (process: string) => Promise<unknown>): Proxies {
  let programme: Programme = () => undefined;
  const turns = new Map<string, number>();
  const injected = new Map<string, number>();
  const held = new Set<(operation: string) => void>();
  /** Messages that are delivered again, by queue. */
  const again = new Map<unknown, readonly Json[]>();
  /** Answers of the second time. There is no third. */
  const twice = new WeakSet<Answer>();
  let busy = 0;

  function hold({ operation }: Call, { passes, atMostMs }: Fault & { kind: 'hold' }): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    let left = passes;
    const timer = setTimeout(resolve, atMostMs);
    const overtaken = (other: string) => {
      if (other === operation && --left <= 0) resolve();
    };
    held.add(overtaken);
    return promise.finally(() => {
      clearTimeout(timer);
      held.delete(overtaken);
    });
  }

  /** @returns undefined where the caller gets no whole answer. */
  async function suffer(call: Call, fault: Fault | undefined, pass: Pass): Promise<Answer | undefined> {
    switch (fault?.kind) {
      case undefined:
        return pass(call.body);
      case 'throttle':
        return throttled(call);
      case 'error':
        if (fault.applied) await pass(call.body);
        return broken(call, fault.status);
      case 'cut':
        if (fault.applied) await pass(call.body);
        return undefined;
      case 'truncate':
      case 'stop':
        return pass(call.body);
      case 'delay': {
        if (!fault.applied) await delay(fault.ms);
        const answer = await pass(call.body);
        if (fault.applied) await delay(fault.ms);
        return answer;
      }
      case 'hold':
        await hold(call, fault);
        return pass(call.body);
      case 'stall':
        await fault.until;
        return pass(fault.forget ? withoutCondition(call.body) : call.body);
      case 'partial':
        return partly(call, fault, pass);
      case 'twice': {
        const answer = await pass(call.body);
        await pass(call.body);
        return answer;
      }
      case 'redeliver': {
        const answer = await pass(call.body);
        const { Messages = [] } = JSON.parse(answer.body) as { Messages?: Json[] };
        if (Messages.length > 0 && !twice.has(answer)) again.set(call.body.QueueUrl, Messages);
        return answer;
      }
      case 'kill':
        if (fault.applied) await pass(call.body);
        await kill(call.process);
        return undefined;
    }
  }

  async function between(service: Service, endpoint: string): Promise<LoopbackServer> {
    const agent = new Agent({ keepAlive: true });
    const target = new URL(endpoint);

    function forward(
      method: string,
      path: string,
      headers: IncomingHttpHeaders,
      body: string,
    ): Promise<Answer> {
      const { promise, resolve, reject } = Promise.withResolvers<Answer>();
      const options = { agent, method, path, hostname: target.hostname, port: target.port };
      const outgoing = request({ ...options, headers: { ...passedOn(headers), host: target.host } });
      outgoing.on('response', async (response) => {
        try {
          const text = Buffer.concat(await response.toArray()).toString();
          resolve({ status: response.statusCode ?? 0, headers: passedOn(response.headers), body: text });
        } catch (error) {
          reject(new Unreachable(String(error)));
        }
      });
      outgoing.on('error', (error) => reject(new Unreachable(String(error))));
      outgoing.end(body);
      return promise;
    }

    const server = createServer(async (incoming, response) => {
      try {
        const { method = '', url = '/', headers } = incoming;
        const text = Buffer.concat(await incoming.toArray()).toString();
        const call = readCall(service, method, headers, text);
        const pass: Pass = (body) => {
          const redelivered = call.operation === 'ReceiveMessage' ? again.get(body.QueueUrl) : undefined;
          if (redelivered && redelivered.length <= Number(body.MaxNumberOfMessages)) {
            again.delete(body.QueueUrl);
            const answer = ok({ Messages: redelivered });
            twice.add(answer);
            return journal.record(call, body, async () => answer);
          }
          const send = (changed: Json) =>
            forward(method, url, headers, text === '' ? '' : JSON.stringify(changed));
          return journal.record(call, body, send);
        };
        const fault = programme(call);
        if (fault) add(injected, `${service} ${call.operation} ${nameOf(fault)}`);
        const counts = call.operation === 'ReceiveMessage' ? 0 : 1;
        busy += counts;
        const answer = await suffer(call, fault, pass).finally(() => {
          busy -= counts;
        });
        for (const overtaken of held) overtaken(call.operation);
        respond(response, answer, fault);
      } catch (error) {
        // The caller went away with half of its request sent, or the service did.
        if (!(error instanceof Unreachable) && (error as { code?: string }).code !== 'ECONNRESET')
          throw error;
        response.socket?.destroy();
      }
    });
    // Else Node closes a connection in the very moment in which a function sends its next call.
    server.keepAliveTimeout = 0;
    const listening = await listenOnLoopback(server);
    return {
      endpoint: listening.endpoint,
      close: async () => {
        await listening.close();
        agent.destroy();
      },
    };
  }

  function readCall(service: Service, method: string, headers: IncomingHttpHeaders, text: string): Call {
    const operation = operationOf(headers, method);
    const process = processOf(headers);
    const by = process.replace(/-\d+$/, '');
    const body = (text === '' ? {} : JSON.parse(text)) as Json;
    const turn = add(turns, `${by} ${operation}`);
    return {
      service,
      operation,
      process,
      by,
      attempt: attemptOf(headers),
      body,
      domains: domainsOf(body),
      turn,
    };
  }

  return {
    between,
    get busy() {
      return busy;
    },
    injected,
    play(next) {
      programme = next;
      turns.clear();
    },
  };
}

/** Puts a call to the service, with this body. */
type Pass = (body: Json) => Promise<Answer>;

function respond(response: ServerResponse, answer: Answer | undefined, fault: Fault | undefined): void {
  if (answer === undefined) return void response.socket?.resetAndDestroy();
  const body = Buffer.from(answer.body);
  response.writeHead(answer.status, { ...answer.headers, 'content-length': body.length });
  if (fault?.kind !== 'truncate' && fault?.kind !== 'stop') return void response.end(body);
  // Not a reset, which could overtake what was sent.
  response.write(body.subarray(0, body.length / 2), () => {
    if (fault.kind === 'truncate') response.socket?.destroy();
  });
}

function ok(body: Json): Answer {
  return {
    status: 200,
    headers: { 'content-type': 'application/x-amz-json-1.0' },
    body: JSON.stringify(body),
  };
}

function passedOn(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !OWN_HEADERS.includes(name)));
}

/** Nor may there be names and values left over, which DynamoDB refuses. */
function withoutCondition({ ConditionExpression: _, ...body }: Json): Json {
  const used = (token: string) => new RegExp(`${token}\\b`).test(String(body.UpdateExpression ?? ''));
  const left = (name: string) => {
    const entries = Object.entries((body[name] ?? {}) as Json).filter(([token]) => used(token));
    return entries.length === 0 ? {} : { [name]: Object.fromEntries(entries) };
  };
  const { ExpressionAttributeNames: __, ExpressionAttributeValues: ___, ...rest } = body;
  return { ...rest, ...left('ExpressionAttributeNames'), ...left('ExpressionAttributeValues') };
}

function add(counts: Map<string, number>, key: string): number {
  const count = (counts.get(key) ?? 0) + 1;
  counts.set(key, count);
  return count;
}
