// Figures as tables: what a section has measured, with the budget beside it, for a terminal, a file, and a comparison.

type Cell = number | string | undefined;

/** The most that a figure may be. */
interface Budget {
  readonly most: number;
  /** The column that it is about; the last by default. */
  readonly column?: number;
}

interface Row {
  readonly label: string;
  /** Of the numbers, as `ms`; `$` goes in front. */
  readonly unit?: string;
  /** After the point; by default as many as make three significant ones. */
  readonly digits?: number;
  readonly cells: readonly Cell[];
  readonly budget?: Budget;
}

export interface Table {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly Row[];
  readonly notes?: readonly string[];
}

const WIDTH = 110;

export function number(value: number, digits?: number): string {
  const places = digits ?? Math.max(0, Math.min(3, 2 - Math.floor(Math.log10(Math.abs(value) || 1))));
  return value.toLocaleString('en-US', { minimumFractionDigits: places, maximumFractionDigits: places });
}

function figure(cell: Cell, { unit, digits }: Row): string {
  if (typeof cell !== 'number') return cell ?? '-';
  if (unit !== '$') return number(cell, digits);
  return `${cell < 0 ? '-' : ''}$${number(Math.abs(cell), digits ?? 3)}`;
}

export interface Verdict {
  readonly figure: string;
  readonly value: number;
  readonly most: number;
  readonly kept: boolean;
}

function verdictOf(table: Table, row: Row): Verdict | undefined {
  if (row.budget === undefined) return undefined;
  const value = row.cells[row.budget.column ?? row.cells.length - 1];
  if (typeof value !== 'number') return undefined;
  return {
    figure: `${table.title}: ${row.label}`,
    value,
    most: row.budget.most,
    kept: value <= row.budget.most,
  };
}

/** Those of the tables that have a budget. */
export function verdicts(tables: readonly Table[]): Verdict[] {
  return tables.flatMap((table) => table.rows.flatMap((row) => verdictOf(table, row) ?? []));
}

export function render(table: Table): string {
  const { title, columns, rows, notes = [] } = table;
  const budgets = rows.some(({ budget }) => budget !== undefined);
  const head = ['', ...columns, ...(budgets ? ['budget'] : [])];
  const lines = rows.map((row) => {
    const verdict = verdictOf(table, row);
    const most =
      verdict &&
      `${figure(verdict.most, { ...row, digits: undefined as never })} ${verdict.kept ? 'ok' : 'OVER'}`;
    const unit = row.unit && row.unit !== '$' ? `, ${row.unit}` : '';
    return [
      row.label + unit,
      ...row.cells.map((cell) => figure(cell, row)),
      ...(budgets ? [most ?? ''] : []),
    ];
  });
  const widths = head.map((name, i) => Math.max(name.length, ...lines.map((line) => line[i]?.length ?? 0)));
  const text = (line: readonly string[]) =>
    `  ${line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('   ')}`.trimEnd();
  return [title, '', ...[head, ...lines].map(text), ...notes.flatMap((note) => ['', ...wrap(note)]), ''].join(
    '\n',
  );
}

function wrap(text: string): string[] {
  const lines: string[] = [];
  let line = ' ';
  for (const word of text.split(' ')) {
    if (line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = ' ';
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}

export interface Change {
  readonly table: string;
  readonly figure: string;
  readonly before: number;
  readonly after: number;
}

/** Figures that are in both, and differ by more than a tenth. */
export function changes(before: readonly Table[], after: readonly Table[]): Change[] {
  const then = new Map(before.map((table) => [table.title, table]));
  return after.flatMap(({ title: table, columns, rows }) => {
    const old = then.get(table);
    return rows.flatMap(({ label, unit, cells }) => {
      const oldRow = old?.rows.find((row) => row.label === label);
      return cells.flatMap((now, i) => {
        const column = columns[i] ?? '';
        const was = oldRow?.cells[old?.columns.indexOf(column) ?? -1];
        if (typeof was !== 'number' || typeof now !== 'number') return [];
        const figure = [label, unit, column].filter((part) => part).join(', ');
        return Math.abs(now - was) > 0.1 * Math.abs(was) ? [{ table, figure, before: was, after: now }] : [];
      });
    });
  });
}

export function renderChanges(list: readonly Change[], file: string): string {
  const tables = [...Map.groupBy(list, ({ table }) => table)];
  const rendered = tables.map(([title, some]) =>
    render({
      title,
      columns: ['before', 'now', 'now / before'],
      rows: some.map(({ figure: label, before, after }) => ({
        label,
        cells: [before, after, before === 0 ? '-' : number(after / before, 2)],
      })),
    }),
  );
  return [`COMPARED WITH ${file}: what differs by more than a tenth\n`, ...rendered].join('\n');
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Of the nearest rank. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)] ?? Number.NaN;
}

export const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
export const mean = (values: readonly number[]) => sum(values) / values.length;
