// What the local commands show: a live line where there is a terminal, plain lines where there is none.

import { styleText } from 'node:util';

/** Colours only where they are wanted: styleText looks at the stream, NO_COLOR and FORCE_COLOR. */
export function paint(format: Parameters<typeof styleText>[0], text: string): string {
  return styleText(format, text, { stream: process.stdout });
}

const BAR_WIDTH = 24;

/** Between plain lines, where there is no terminal. */
const PLAIN_EVERY_MS = 5_000;

export interface Progress {
  update(done: number, total: number, text: string): void;
  /** Leaves the last state standing. */
  end(): void;
}

export function createProgress(stream: NodeJS.WriteStream = process.stdout): Progress {
  let lastPlain = Number.NEGATIVE_INFINITY;
  let last = '';
  /** A plain line whose turn has not come. */
  let waiting = '';
  return {
    update(done, total, text) {
      const share = total === 0 ? 1 : Math.min(done / total, 1);
      const filled = Math.round(share * BAR_WIDTH);
      const figures = `${String(done).padStart(String(total).length)}/${total}  ${text}`;
      if (stream.isTTY) {
        const bar = '█'.repeat(filled) + '░'.repeat(BAR_WIDTH - filled);
        // One line: a longer one would wrap, and could not be drawn over.
        last = `  ${bar} ${figures}`.slice(0, (stream.columns ?? 80) - 1);
        stream.write(`\r\u{1b}[2K${last}`);
      } else if (figures !== last) {
        last = figures;
        waiting = `  ${figures}\n`;
        if (Date.now() - lastPlain < PLAIN_EVERY_MS) return;
        lastPlain = Date.now();
        stream.write(waiting);
        waiting = '';
      }
    },
    end() {
      stream.write(stream.isTTY ? '\n' : waiting);
    },
  };
}

const BLOCKS = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/** A column for each bucket, as high as its count; a blank for none. */
export function columns(counts: readonly number[], width: number): string {
  const most = Math.max(...counts, 1);
  return counts
    .map((count) => (count === 0 ? ' ' : (BLOCKS[Math.ceil((count / most) * BLOCKS.length) - 1] ?? ' ')))
    .map((block) => block.repeat(width))
    .join('');
}

/** Rows of cells, each column as wide as its widest cell; the last is not padded. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows.reduce<number[]>(
    (widest, row) => row.map((cell, i) => Math.max(cell.length, widest[i] ?? 0)),
    [],
  );
  return rows.map((row) =>
    row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0))).join('  '),
  );
}
