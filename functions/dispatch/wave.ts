// A wave: the tasks that one schedule hands to `dispatch`. Its text is the schedule's input, and so the contract
// between `plan`, which writes it, and `dispatch`, which reads it hours later.

import { checkTask, type Decoded, type RefreshTask } from '../refresh/task.ts';

/** A refresh and when it is due. */
export interface WaveTask extends RefreshTask {
  /** Epoch milliseconds. */
  readonly due: number;
}

export interface Wave {
  readonly runId: string;
  readonly tasks: readonly WaveTask[];
  /** Why entries were left out, if any could not be read. */
  readonly refused: readonly string[];
}

/** EventBridge Scheduler takes 256 KB of input; the rest is a reserve. */
const MAX_WAVE_BYTES = 250_000;

/** Packs tasks into as few waves' texts as their size allows, in order. All of a text is ASCII. */
export function encodeWaves(runId: string, tasks: Iterable<WaveTask>): string[] {
  // Domains are A-labels; the run id alone could be anything.
  const head = `{"runId":${escapeNonAscii(JSON.stringify(runId))},"tasks":[`;
  const tail = ']}';
  const waves: string[] = [];
  let entries: string[] = [];
  let bytes = head.length + tail.length;
  for (const { domain, lastUpdate, due } of tasks) {
    const entry = JSON.stringify([domain, lastUpdate, Math.floor(due / 1_000)]);
    if (entries.length > 0 && bytes + entry.length + 1 > MAX_WAVE_BYTES) {
      waves.push(head + entries.join(',') + tail);
      entries = [];
      bytes = head.length + tail.length;
    }
    entries.push(entry);
    bytes += entry.length + 1;
  }
  if (entries.length > 0) waves.push(head + entries.join(',') + tail);
  return waves;
}

function escapeNonAscii(json: string): string {
  // Matches UTF-16 code units, as it has no flag for Unicode: that is what JSON's escapes stand for.
  return json.replace(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** An entry that cannot be read is left out and reported: it must not take thousands of others with it. */
export function decodeWave(event: unknown): Decoded<Wave> {
  const { runId, tasks } = (event ?? {}) as Record<string, unknown>;
  if (typeof runId !== 'string') return { ok: false, reason: 'not a wave: runId should be a string' };
  if (!Array.isArray(tasks)) return { ok: false, reason: 'not a wave: tasks should be an array' };
  const decoded: WaveTask[] = [];
  const refused: string[] = [];
  for (const [index, entry] of tasks.entries()) {
    const [domain, lastUpdate, dueSeconds]: readonly unknown[] = Array.isArray(entry) ? entry : [];
    const task = checkTask(domain, lastUpdate);
    if (!task.ok) refused.push(`task ${index}: ${task.reason}`);
    else if (!Number.isSafeInteger(dueSeconds)) refused.push(`task ${index}: due should be epoch seconds`);
    else decoded.push({ ...task.value, due: Number(dueSeconds) * 1_000 });
  }
  return { ok: true, value: { runId, tasks: decoded, refused } };
}
