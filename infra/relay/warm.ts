// Asks the functions to discover a list of domains before mail is sent to them: an operator's command, run once. It sends
// what a relay sends, slowly enough for the relays' own questions to be answered in between.

import { type BatchResultErrorEntry, SendMessageBatchCommand, type SQSClient } from '@aws-sdk/client-sqs';
import { type Domain, parseDomain } from '../../functions/mtasts/domain.ts';
import { quote } from '../../functions/mtasts/failure.ts';
import { eachConcurrently } from '../../functions/runtime/concurrent.ts';
import { type Clock, within } from './clock.ts';
import type { Table } from './table.ts';

/** Domains a second. The functions look at ten or so, and relays ask too. */
export const DEFAULT_RATE = 5;

/** SendMessageBatch takes at most 10 entries. */
const ENTRIES_PER_CALL = 10;

const CALL_MS = 20_000;

/** Attempts for what SQS does not take, with pauses of 1, 2, 4, 8 s. */
const ATTEMPTS = 5;
const FIRST_PAUSE_MS = 1_000;

/** A file of something else has nothing but bad lines. */
const MAX_BAD_LINES_SHOWN = 100;

const PROGRESS_MS = 1_000;

/** The functions' own default, `discoveriesPerDay`. */
const DISCOVERIES_A_DAY = 20_000;

/** For the functions to come to the last domains: their minute, and a queue that is not empty. */
const SETTLE_MS = 90_000;
const READ_MS = 5_000;
const READS_AT_ONCE = 16;

export interface WarmOptions {
  readonly client: Pick<SQSClient, 'send'>;
  readonly queueUrl: string;
  /** One domain a line; `#` begins a comment. */
  readonly lines: AsyncIterable<string> | Iterable<string>;
  /** Domains a second. */
  readonly rate: number;
  /** The number of the first line to send, from 1: where an earlier run has ended. */
  readonly from: number;
  readonly dryRun: boolean;
  /** Where to look, after a while, what has become of the domains; undefined: not at all. */
  readonly table: Pick<Table, 'read'> | undefined;
  readonly clock: Clock;
  /** Ends it, and says where to go on. */
  readonly signal: AbortSignal;
  /** One line of the command's output. */
  readonly say: (line: string) => void;
  /** One line about what is wrong. */
  readonly complain: (line: string) => void;
  /** How far it is, now: on a terminal each replaces the one before. */
  readonly progress: (line: string) => void;
}

interface Listed {
  readonly domain: Domain;
  readonly line: number;
}

/** @returns the exit status: 0 if every line was a domain and was sent, 1 if not, 130 if interrupted. */
export async function warm(options: WarmOptions): Promise<number> {
  const { rate, from, dryRun, table, signal, say, complain } = options;
  const { listed, bad, repeated } = await readList(options);
  const domains = listed.filter(({ line }) => line >= from);
  const parts = [
    `${listed.length} domains`,
    repeated > 0 && `${repeated} repeated`,
    bad > 0 && `${bad} bad lines`,
  ];
  say(
    `${parts.filter(Boolean).join(', ')}${from > 1 ? `; ${domains.length} of them from line ${from} on` : ''}`,
  );
  if (domains.length > DISCOVERIES_A_DAY) {
    say(
      `The functions discover ${DISCOVERIES_A_DAY} domains with MTA-STS in a day (UTC), unless deployed with another ` +
        'discoveriesPerDay, and fewer below one registrable domain; requests beyond that are dropped. Of most lists a ' +
        'small part has MTA-STS; else send it in parts, with --from.',
    );
  }
  const seconds = Math.ceil(domains.length / rate);
  if (dryRun) {
    say(`Would send ${domains.length} in ${duration(seconds)}, ${rate} a second. Nothing was sent.`);
    return bad > 0 ? 1 : 0;
  }

  const sent = await sendAll(domains, options);
  say(`Sent ${sent.count} of ${domains.length}.`);
  if (sent.next !== undefined) {
    if (sent.reason !== undefined) complain(sent.reason);
    complain(`To go on where this ended: --from ${sent.next}`);
    return signal.aborted ? 130 : 1;
  }
  if (table !== undefined) await lookAt(domains, table, options);
  if (signal.aborted) return 130;
  return bad + sent.refused > 0 ? 1 : 0;
}

/** The whole list first: its length says how long it takes, and a repeated domain is asked for once. */
async function readList({ lines, complain }: WarmOptions) {
  const listed = new Map<Domain, Listed>();
  let number = 0;
  let bad = 0;
  let repeated = 0;
  for await (const line of lines) {
    number += 1;
    // Takes a byte order mark off too.
    const text = line.replace(/#.*/s, '').trim();
    if (text === '') continue;
    const parsed = parseDomain(text);
    if (!parsed.ok) {
      bad += 1;
      if (bad <= MAX_BAD_LINES_SHOWN) complain(`line ${number}: ${parsed.reason}`);
    } else if (listed.has(parsed.domain)) {
      repeated += 1;
    } else {
      listed.set(parsed.domain, { domain: parsed.domain, line: number });
    }
  }
  if (bad > MAX_BAD_LINES_SHOWN) complain(`and ${bad - MAX_BAD_LINES_SHOWN} more bad lines`);
  return { listed: [...listed.values()], bad, repeated };
}

interface Sent {
  readonly count: number;
  readonly refused: number;
  /** The line to go on with; undefined: it is through. */
  readonly next: number | undefined;
  readonly reason: string | undefined;
}

async function sendAll(domains: readonly Listed[], options: WarmOptions): Promise<Sent> {
  const { rate, clock, signal, complain, progress } = options;
  const start = clock.now();
  let shownAt = start;
  let count = 0;
  let refused = 0;
  for (let i = 0; i < domains.length; i += ENTRIES_PER_CALL) {
    const due = start + (i / rate) * 1_000;
    if (due > clock.now()) await clock.sleep(due - clock.now(), signal);
    const batch = domains.slice(i, i + ENTRIES_PER_CALL);
    if (signal.aborted) return { count, refused, next: batch[0]?.line, reason: undefined };
    const result = await sendBatch(batch, options);
    count += batch.length - result.refused.length - result.left.length;
    refused += result.refused.length;
    for (const { line, domain, reason } of result.refused)
      complain(`line ${line}: ${domain}: SQS refuses it: ${reason}`);
    // In the order of the list, so that everything before the first that is left was sent.
    const [first] = result.left;
    if (first !== undefined) return { count, refused, next: first.line, reason: result.reason };
    if (clock.now() - shownAt >= PROGRESS_MS) {
      shownAt = clock.now();
      const done = i + batch.length;
      const pace = (done * 1_000) / (shownAt - start);
      const rest = duration(Math.ceil((domains.length - done) / Math.min(pace, rate)));
      progress(`${done} of ${domains.length}, ${pace.toFixed(1)} a second, ${rest} left`);
    }
  }
  return { count, refused, next: undefined, reason: undefined };
}

interface BatchResult {
  /** What SQS would refuse again. */
  readonly refused: readonly (Listed & { readonly reason: string })[];
  readonly left: readonly Listed[];
  readonly reason: string | undefined;
}

/** Sends ten domains, and again those that failed. Never rejects. */
async function sendBatch(
  batch: readonly Listed[],
  { client, queueUrl, clock, signal }: WarmOptions,
): Promise<BatchResult> {
  const refused: (Listed & { reason: string })[] = [];
  let left = batch;
  for (let attempt = 1; ; attempt++) {
    let reason: string;
    try {
      const Entries = left.map(({ domain }, i) => ({
        Id: String(i),
        MessageBody: JSON.stringify({ domain }),
      }));
      const { Failed = [] } = await within(CALL_MS, clock, (abortSignal) =>
        client.send(new SendMessageBatchCommand({ QueueUrl: queueUrl, Entries }), { abortSignal }),
      );
      const failures = Failed.flatMap((entry) => {
        const listed = left[Number(entry.Id)];
        return listed ? [{ ...listed, reason: describe(entry), refused: entry.SenderFault === true }] : [];
      }).sort((a, b) => a.line - b.line);
      refused.push(...failures.filter((each) => each.refused));
      left = failures.filter((each) => !each.refused);
      const [first] = failures.filter((each) => !each.refused);
      if (first === undefined) return { refused, left: [], reason: undefined };
      reason = `SQS fails: ${first.reason}`;
    } catch (error) {
      const { name, message, $fault, $retryable } = error as Error & { $fault?: string; $retryable?: object };
      reason = `Requests cannot be sent: ${quote(`${name}: ${message}`)}`;
      // Denied, or no such queue: it will be no better in a second.
      if ($fault === 'client' && $retryable === undefined) return { refused, left, reason };
    }
    if (attempt === ATTEMPTS || signal.aborted) return { refused, left, reason };
    await clock.sleep(FIRST_PAUSE_MS * 2 ** (attempt - 1), signal);
  }
}

function describe({ Code, Message }: BatchResultErrorEntry): string {
  return quote(`${Code}${Message === undefined ? '' : ` (${Message})`}`);
}

/** What the table has of the domains now. Most domains have no MTA-STS, and so no item ever. */
async function lookAt(
  domains: readonly Listed[],
  table: Pick<Table, 'read'>,
  { clock, signal, say, complain, progress }: WarmOptions,
): Promise<void> {
  progress(`waiting ${SETTLE_MS / 1_000} s for the functions`);
  await clock.sleep(SETTLE_MS, signal);
  const counts = {
    enforce: 0,
    testing: 0,
    none: 0,
    backoff: 0,
    ended: 0,
    absent: 0,
    failed: 0,
    unreadable: 0,
  };
  let reason = '';
  await eachConcurrently(domains, READS_AT_ONCE, async ({ domain }) => {
    if (signal.aborted) return;
    const read = await table.read(domain, { consistent: false, milliseconds: READ_MS });
    if (read.kind === 'item') {
      const { backoff, validEnd, policy } = read.entry;
      counts[backoff ? 'backoff' : validEnd <= clock.now() ? 'ended' : policy.mode] += 1;
    } else {
      counts[read.kind] += 1;
      if (read.kind === 'failed') reason = read.reason;
    }
  });
  if (signal.aborted) return;
  const policies = counts.enforce + counts.testing + counts.none;
  say(
    `${policies} have a policy now (${counts.enforce} enforce, ${counts.testing} testing, ${counts.none} none), ` +
      `${counts.backoff} a record without a policy that can be had, ${counts.absent} nothing: no MTA-STS, or not looked at yet.`,
  );
  if (counts.ended > 0) say(`${counts.ended} have a policy that has ended.`);
  if (counts.unreadable > 0) complain(`${counts.unreadable} have an item that cannot be used.`);
  if (counts.failed > 0) complain(`${counts.failed} could not be read: ${reason}`);
}

function duration(seconds: number): string {
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}
