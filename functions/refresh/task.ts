import { type Domain, parseDomain } from '../mtasts/domain.ts';
import { quote } from '../mtasts/failure.ts';

/** A message of the refresh queue: refresh this version of this domain's entry. */
export interface RefreshTask {
  readonly domain: Domain;
  /** `LastUpdate` of the entry when the task was planned, epoch milliseconds. */
  readonly lastUpdate: number;
}

export type Decoded<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly reason: string };

export function encodeTask({ domain, lastUpdate }: RefreshTask): string {
  return JSON.stringify({ domain, lastUpdate });
}

/** Unknown members are ignored, so that a newer version can add some. */
export function decodeTask(body: string): Decoded<RefreshTask> {
  const json = decodeJsonObject(body);
  if (!json.ok) return json;
  return checkTask(json.value.domain, json.value.lastUpdate);
}

export function checkTask(domain: unknown, lastUpdate: unknown): Decoded<RefreshTask> {
  const checked = checkDomain(domain);
  if (!checked.ok) return checked;
  if (!Number.isSafeInteger(lastUpdate)) {
    return { ok: false, reason: 'lastUpdate should be a whole number, epoch milliseconds' };
  }
  return { ok: true, value: { domain: checked.value, lastUpdate: lastUpdate as number } };
}

export function checkDomain(domain: unknown): Decoded<Domain> {
  if (typeof domain !== 'string') return { ok: false, reason: 'domain should be a string' };
  const parsed = parseDomain(domain);
  return parsed.ok ? { ok: true, value: parsed.domain } : parsed;
}

export function decodeJsonObject(body: string): Decoded<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return { ok: false, reason: `not JSON: ${quote(body)}` };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return { ok: false, reason: `not a JSON object: ${quote(body)}` };
  }
  return { ok: true, value: value as Record<string, unknown> };
}
