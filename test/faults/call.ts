// One request of a function, a poller or a rival to an AWS service, as the proxy reads it off the wire.

import type { IncomingHttpHeaders } from 'node:http';
import type { Endpoints } from '../../infra/local/environment.ts';

export type Service = keyof Endpoints;
export type Json = Readonly<Record<string, unknown>>;

export interface Call {
  readonly service: Service;
  /** As AWS names it: `UpdateItem`. */
  readonly operation: string;
  /** Who makes it: `refresh-3`, the third process of refresh; `poller-refresh`; `rival`. */
  readonly process: string;
  /** `refresh`, `poller-refresh`, `rival`. */
  readonly by: string;
  /** Of the SDK, from 1. */
  readonly attempt: number;
  readonly body: Json;
  /** What it is about: keys of items, or domains in messages. */
  readonly domains: readonly string[];
  /** It is the so manieth of this operation by this function, attempts included, from 1. */
  readonly turn: number;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

type Item = Readonly<Record<string, { readonly S?: string; readonly N?: string }>>;

interface Entry {
  readonly MessageBody?: string;
}

/** EventBridge Scheduler's own protocol is REST; the others name the operation in a header. */
export function operationOf(headers: IncomingHttpHeaders, method: string): string {
  const target = String(headers['x-amz-target'] ?? '').split('.')[1];
  return target ?? { POST: 'CreateSchedule', GET: 'GetSchedule', DELETE: 'DeleteSchedule' }[method] ?? method;
}

/** The stack gives every process a name, which the SDK sends along; Powertools adds itself to it. */
export function processOf(headers: IncomingHttpHeaders): string {
  return /\bapp\/([a-z]+(?:-\d+|-[a-z]+)?)/.exec(headers['user-agent'] ?? '')?.[1] ?? 'nobody';
}

export function attemptOf(headers: IncomingHttpHeaders): number {
  return Number(/attempt=(\d+)/.exec(String(headers['amz-sdk-request']))?.[1] ?? 1);
}

export function domainsOf(body: Json): string[] {
  const { Key, RequestItems, Entries } = body as {
    Key?: Item;
    RequestItems?: Record<string, { Keys?: Item[] }>;
    Entries?: Entry[];
  };
  const keys = Object.values(RequestItems ?? {}).flatMap((table) => table.Keys ?? []);
  const named = [...(Key ? [Key] : []), ...keys].flatMap((key) => key.Domain?.S ?? []);
  return [...named, ...(Entries ?? []).flatMap(({ MessageBody }) => domainInMessage(MessageBody))];
}

/** Of a task or a request to look. */
export function domainInMessage(body: string | undefined): string[] {
  try {
    const { domain } = JSON.parse(body ?? '') as { domain?: unknown };
    return typeof domain === 'string' ? [domain] : [];
  } catch {
    return [];
  }
}
