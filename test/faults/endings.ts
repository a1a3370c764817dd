// How a soak has to end: every domain as its kind says, every dead letter and every error accounted for.

import type { Site } from '../../infra/local/internet/internet.ts';
import type { DeadLetter } from './faulty-stack.ts';
import { breachesOf } from './invariants.ts';
import { type Item, versionOf, type Write } from './journal.ts';
import type { Neighbour } from './town.ts';

interface Ending {
  readonly neighbours: readonly Neighbour[];
  /** The table as it was, and as it is. */
  readonly firsts: ReadonlyMap<string, Item>;
  readonly lasts: ReadonlyMap<string, Item>;
  readonly writes: readonly Write[];
  /** From the bad days. */
  readonly letters: readonly DeadLetter[];
  /** When the calm day's run began. */
  readonly calm: number;
  /** What everybody does on the calm day. */
  readonly sites: ReadonlyMap<string, Site>;
}

export function brokenAtTheEnd(ending: Ending): string[] {
  const { neighbours, firsts, lasts, writes, letters } = ending;
  const entries = neighbours.map(({ domain }) => ({
    domain,
    first: firsts.get(domain),
    last: lasts.get(domain),
  }));
  const known = new Set<string>(neighbours.map(({ domain }) => domain));
  const strangers = [...lasts.keys()].filter((domain) => !known.has(domain) && !domain.startsWith('#'));
  return [
    ...breachesOf(entries, writes),
    ...strangers.map((domain) => `${domain} is in the table, and nobody knows why`),
    ...neighbours.flatMap((neighbour) => {
      const wrong = wrongAbout(neighbour, ending);
      return wrong === undefined ? [] : [`${neighbour.domain}: ${wrong}`];
    }),
    ...letters.flatMap((letter) => {
      const wrong = wrongAboutLetter(letter, known);
      return wrong === undefined ? [] : [`${letter.queue}: ${wrong}: ${letter.body.slice(0, 300)}`];
    }),
  ];
}

/** @returns why a domain is not as it should be. */
function wrongAbout(
  neighbour: Neighbour,
  { firsts, lasts, writes, letters, calm, sites }: Ending,
): string | undefined {
  const { domain, end, seed, used, mode } = neighbour;
  const item = lasts.get(domain);
  const asked = letters.some(({ queue, body }) => queue === 'request-dlq' && body.includes(`"${domain}"`));
  const deleted = writes.some(
    (write) => write.domain === domain && (write.kind === 'prune' || write.kind === 'removal'),
  );
  const notFresh = () => {
    if (item === undefined) return 'is not there';
    if ((versionOf(item) ?? 0) < calm)
      return `was not refreshed on the calm day: ${versionOf(item)} < ${calm}`;
    if (item.FailingSince !== undefined) return 'is said to fail';
    if (item.Backoff?.BOOL !== false) return 'is a back-off';
    if (item.Mode?.S !== mode) return `has mode ${item.Mode?.S}, not ${mode}`;
    const id = /id=(\w+)/.exec(String(sites.get(domain)?.record?.txt?.[0]?.[0]))?.[1];
    if (id !== undefined && item.RecordID?.S !== id) return `has id ${item.RecordID?.S}, not ${id}`;
    if (Number(item.ValidEnd?.N) <= calm) return 'has expired';
    return undefined;
  };
  if (used && !asked && item !== undefined && Number(item.LastUse?.N) < calm - 3_600_000) {
    return 'was used, and the report is neither in the table nor a dead letter';
  }
  switch (end) {
    case 'fresh':
      // A request that was given up is a dead letter, and asks for nothing any more.
      return seed === undefined && asked && item === undefined ? undefined : notFresh();
    case 'gone':
      if (item !== undefined) return 'is still there';
      return deleted ? undefined : 'is gone, and nobody has deleted it';
    case 'fresh or gone':
      return item === undefined && deleted ? undefined : notFresh();
    case 'kept': {
      const first = firsts.get(domain);
      const kept = ['Mode', 'MX', 'MaxAgeSeconds', 'PolicyText', 'RecordID'].filter(
        (name) => JSON.stringify(first?.[name]) !== JSON.stringify(item?.[name]),
      );
      return kept.length === 0 ? undefined : `has lost ${kept.join(', ')}`;
    }
    case 'backed-off':
      if (item === undefined) return asked ? undefined : 'was asked for, and there is nothing';
      return item.Backoff?.BOOL === true ? undefined : 'is no back-off';
    case 'absent':
      return item === undefined ? undefined : 'is there';
  }
}

/** What AWS may have said, or the lack of an answer, that ends in an error of a function. */
const FAULTS =
  /ThrottlingException|ProvisionedThroughputExceededException|RequestThrottled|Rate exceeded|Internal|Service Unavailable|is not valid JSON|TimeoutError|ECONNRESET|socket hang up|aborted|left the item unread|SQS failed \d+ tasks|SIGKILL/;

const LINES = [
  /^(refresh|request): (domain|batch) failed, SQS delivers (its message|its messages) again \((?<why>.*)\)$/,
  /^plan: entry not pruned, the next run tries again \((?<why>.*)\)$/,
  /^event source: (?<why>.*)$/,
];

/** Whether an error that was logged is what faults come to. */
export function isExplained(line: string): boolean {
  if (/^(refresh|request): message refused$/.test(line)) return true;
  if (/^event source: Error: DeleteMessageBatch failed for \d+: Failed$/.test(line)) return true;
  return LINES.some((pattern) => FAULTS.test(pattern.exec(line)?.groups?.why ?? ''));
}

interface FailureRecord {
  readonly requestContext: { readonly functionArn: string; readonly approximateInvokeCount: number };
  readonly requestPayload: { readonly kind?: string; readonly tasks?: readonly (readonly [string])[] };
  readonly responsePayload: { readonly errorType: string; readonly errorMessage: string };
}

/** A dead letter names what is known, and an invocation has been tried three times and died of a fault. */
function wrongAboutLetter({ queue, body }: DeadLetter, known: ReadonlySet<string>): string | undefined {
  const { domain, used, requestContext, requestPayload, responsePayload } = JSON.parse(body) as {
    domain?: string;
    used?: readonly string[];
  } & Partial<FailureRecord>;
  if (queue !== 'failures') {
    const named = used ?? [domain ?? ''];
    return named.every((each) => known.has(each)) ? undefined : 'names a stranger';
  }
  if (requestContext?.approximateInvokeCount !== 3) return 'was not tried three times';
  const { errorType = '', errorMessage = '' } = responsePayload ?? {};
  if (!FAULTS.test(`${errorType}: ${errorMessage}`)) return 'died of no fault';
  const { kind, tasks } = requestPayload ?? {};
  if (kind === 'daily' || kind === 'renewal') return undefined;
  return tasks?.every(([each]) => known.has(each)) ? undefined : 'is neither a run nor a wave';
}
