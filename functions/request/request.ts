// What relays ask: look at this domain now, and these policies were in use. A relay's word never changes a policy;
// it only makes this program look for itself, and not too often.

import type { SQSRecord } from 'aws-lambda';
import { type Domain, parseDomain } from '../mtasts/domain.ts';
import { type Job, runBatch } from '../refresh/batch.ts';
import { isLately } from '../refresh/lately.ts';
import { type Refresher, refreshDomain } from '../refresh/refresh.ts';
import { checkDomain, type Decoded, decodeJsonObject } from '../refresh/task.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import type { Admits } from './discovery.ts';

export type RelayRequest =
  | { readonly kind: 'look'; readonly domain: Domain }
  | {
      readonly kind: 'used';
      readonly domains: readonly Domain[];
      /** Names in the report that cannot be policy domains, such as address literals. */
      readonly ignored: number;
    };

const MAX_USED_DOMAINS = 1_000;

/** LastUse is kept to within a day: a policy used all day is written once. */
const USE_GRANULARITY_MS = 86_400_000;

/**
 * Reports are worked through piece by piece: ten messages can name 10,000 domains, and a hostile domain's policy may
 * have thousands of patterns, so all items at once would not fit into the function's memory.
 */
const USES_AT_ONCE = 25;

export function decodeRequest(body: string): Decoded<RelayRequest> {
  const json = decodeJsonObject(body);
  if (!json.ok) return json;
  const { domain, used } = json.value;
  if (domain !== undefined && used === undefined) {
    const checked = checkDomain(domain);
    return checked.ok ? { ok: true, value: { kind: 'look', domain: checked.value } } : checked;
  }
  if (domain === undefined && Array.isArray(used)) {
    if (used.length > MAX_USED_DOMAINS) {
      return { ok: false, reason: `used has ${used.length} domains: at most ${MAX_USED_DOMAINS} a message` };
    }
    if (!used.every((name) => typeof name === 'string')) {
      return { ok: false, reason: 'used should be an array of strings' };
    }
    // Relays report what they delivered to, which may be an address literal: that is no reason to lose the rest.
    const domains = new Set<Domain>();
    let ignored = 0;
    for (const name of used) {
      const parsed = parseDomain(name);
      if (parsed.ok) domains.add(parsed.domain);
      else ignored++;
    }
    return { ok: true, value: { kind: 'used', domains: [...domains], ignored } };
  }
  return { ok: false, reason: 'it should be {"domain":"…"} or {"used":["…"]}' };
}

interface Context {
  readonly refresher: Refresher;
  readonly admits: Admits;
  readonly telemetry: Telemetry;
  readonly signal: AbortSignal;
}

/** Serves a batch of requests. @returns the ids of the messages that SQS shall deliver again. */
export async function answerRequests(messages: readonly SQSRecord[], context: Context): Promise<string[]> {
  const { telemetry } = context;
  const looks = new Map<Domain, SQSRecord[]>();
  const uses = new Map<Domain, SQSRecord[]>();
  const ask = (asked: Map<Domain, SQSRecord[]>, domain: Domain, message: SQSRecord) => {
    const others = asked.get(domain);
    if (others === undefined) asked.set(domain, [message]);
    else others.push(message);
  };
  for (const message of messages) {
    const { messageId } = message;
    const request = decodeRequest(message.body);
    if (!request.ok) {
      telemetry.refused(messageId, request.reason);
    } else if (request.value.kind === 'look') {
      ask(looks, request.value.domain, message);
    } else {
      for (const domain of request.value.domains) ask(uses, domain, message);
      if (request.value.ignored > 0) {
        telemetry.info('names in a report of use are no policy domains', {
          message_id: messageId,
          ignored: request.value.ignored,
        });
      }
    }
  }
  const failed = await Promise.all([look(jobs(looks), context), recordUse(jobs(uses), context)]);
  return failed.flat();
}

function jobs(asked: ReadonlyMap<Domain, SQSRecord[]>): Job[] {
  return [...asked].map(([domain, messages]) => ({ domain, messages }));
}

/** Discovers domains that are not known, so many a day; refreshes the others, each at most once in five minutes. */
function look(looks: readonly Job[], { refresher, admits, telemetry, signal }: Context): Promise<string[]> {
  const { store, limits, now } = refresher;
  return runBatch(looks, { store, telemetry, signal }, async ({ domain }, record) => {
    // A back-off may have a new id by now, which is to be fetched at once.
    if (record !== undefined && !record.backoff && isLately(record.lastUpdate, now(), limits.retryAfterMs)) {
      return { kind: 'skipped', reason: 'too-soon' };
    }
    return refreshDomain(domain, record, refresher, signal, admits);
  });
}

/** A read costs a fifth of a write: in a fleet, all relays but the first report what is known already. */
async function recordUse(uses: readonly Job[], { refresher, telemetry, signal }: Context): Promise<string[]> {
  const { store, now } = refresher;
  const before = now() - USE_GRANULARITY_MS;
  const failed: string[] = [];
  for (let i = 0; i < uses.length; i += USES_AT_ONCE) {
    if (signal.aborted) {
      // Each piece would be read in vain.
      failed.push(...uses.slice(i).flatMap(({ messages }) => messages.map(({ messageId }) => messageId)));
      break;
    }
    const some = uses.slice(i, i + USES_AT_ONCE);
    const again = await runBatch(some, { store, telemetry, signal }, async ({ domain }, record) => {
      if (record !== undefined && (record.lastUse ?? 0) < before) await store.touch(domain, now(), before);
      return undefined;
    });
    failed.push(...again);
  }
  return failed;
}
