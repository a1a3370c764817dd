// The log: one line for each event, on standard error, from where systemd or a container takes it.

import type { Details, Observer } from './metrics.ts';

type Level = Parameters<Observer['event']>[0];

export interface Log {
  event(level: Level, message: string, details?: Details): void;
}

/** sd-daemon(3): the priority that journald gives a line which starts with it. */
const PRIORITIES: Readonly<Record<Level, string>> = { info: '<6>', warn: '<4>', error: '<3>' };

/**
 * `text`: `level message name=value …`, and for journald its priority instead of the level; `json`: an object with the
 * time, the level, the message and the details.
 */
export function createLog({
  format,
  journal = false,
  write,
  now,
}: {
  readonly format: 'text' | 'json';
  /** Whether journald reads the lines: it knows the time, and takes the priority. */
  readonly journal?: boolean;
  readonly write: (line: string) => void;
  /** Epoch milliseconds. */
  readonly now: () => number;
}): Log {
  return {
    event(level, message, details = {}) {
      const time = new Date(now()).toISOString();
      if (format === 'json') {
        write(`${JSON.stringify({ time, level, message, ...details })}\n`);
        return;
      }
      const pairs = Object.entries(details).map(([name, value]) => ` ${name}=${toText(value)}`);
      const start = journal ? PRIORITIES[level] : `${time} ${level} `;
      write(`${start}${message}${pairs.join('')}\n`);
    },
  };
}

/** One word as it is; anything else in quotes, so that a value can neither be taken for another nor end the line. */
function toText(value: string | number): string {
  const text = String(value);
  return /^[\w.:/@+,[\]-]+$/.test(text) ? text : JSON.stringify(text);
}
