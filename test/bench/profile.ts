// Where the CPU time of an invocation went: a profile of V8's, mapped back from the bundle to its sources.

import { existsSync, readFileSync } from 'node:fs';
import { SourceMap } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { Table } from './table.ts';

interface Frame {
  readonly functionName: string;
  readonly url: string;
  /** From 0. */
  readonly lineNumber: number;
  readonly columnNumber: number;
}

interface Profile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: Frame;
    readonly children?: readonly number[];
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

export interface Spent {
  readonly where: string;
  /** The function's own time, and with all that it called. */
  readonly selfMs: number;
  readonly totalMs: number;
}

const IDLE = new Set(['(idle)', '(root)']);
/** The profiler's own. */
const OWN = 'node:inspector';

/** Functions by their own time, most first. */
export function readProfile(file: string): { busyMs: number; functions: Spent[] } {
  const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(file, 'utf8')) as Profile;
  const nodeById = new Map(nodes.map((node) => [node.id, node]));
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])));
  const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
  const self = new Map<string, number>();
  const total = new Map<string, number>();
  let busyMs = 0;
  for (const [i, id] of samples.entries()) {
    const ms = (timeDeltas[i] ?? 0) / 1_000;
    const name = names.get(id) ?? '';
    const { functionName = '', url = '' } = nodeById.get(id)?.callFrame ?? {};
    if (IDLE.has(functionName) || url === OWN) continue;
    busyMs += ms;
    self.set(name, (self.get(name) ?? 0) + ms);
    const seen = new Set<string>();
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at))
      seen.add(names.get(at) ?? '');
    for (const each of seen) total.set(each, (total.get(each) ?? 0) + ms);
  }
  const functions = [...total].map(([where, totalMs]) => ({ where, selfMs: self.get(where) ?? 0, totalMs }));
  return { busyMs, functions: functions.sort((a, b) => b.selfMs - a.selfMs) };
}

const maps = new Map<string, SourceMap | undefined>();

function nameOf({ functionName, url, lineNumber, columnNumber }: Frame): string {
  if (url === '') return functionName;
  if (!url.startsWith('file:')) return `${functionName || '(anonymous)'} ${url}:${lineNumber + 1}`;
  const file = fileURLToPath(url);
  if (!maps.has(file)) {
    const map = `${file}.map`;
    maps.set(file, existsSync(map) ? new SourceMap(JSON.parse(readFileSync(map, 'utf8'))) : undefined);
  }
  // Its type does not know of names.
  const entry: { originalSource?: string; originalLine?: number; name?: string } | undefined = maps
    .get(file)
    ?.findEntry(lineNumber, columnNumber);
  if (entry?.originalSource === undefined) return `${functionName} ${file}:${lineNumber + 1}`;
  const source = entry.originalSource.replace(/^.*\/(node_modules|functions)\//, (_, top) =>
    top === 'functions' ? 'functions/' : '',
  );
  return `${entry.name ?? functionName} ${source}:${(entry.originalLine ?? 0) + 1}`;
}

/** The functions of a profile, by their own time, in whatever unit that is given. */
export function profileTable(
  unit: string,
  busy: number,
  { file, functions }: { readonly file: string; readonly functions: readonly Spent[] },
): Table {
  return {
    title: `PROFILE of it, ${unit}: ${Math.round(busy)} in all`,
    columns: ['own', 'with calls'],
    rows: functions.map(({ where, selfMs, totalMs }) => ({
      label: where.slice(-80),
      digits: 0,
      cells: [selfMs, totalMs],
    })),
    notes: [`All of it in ${file}.`],
  };
}
