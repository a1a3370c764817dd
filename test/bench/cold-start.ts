// Cold starts: what a new process of each function costs before its first event.

import type { Section } from './bench.ts';
import { startFunction } from './function.ts';
import { FUNCTION_NAMES, type FunctionName } from './packages.ts';
import { median } from './table.ts';

interface ColdStart {
  readonly name: FunctionName;
  readonly codeBytes: number;
  readonly uploadBytes: number;
  /** Medians. */
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly bytes: number;
}

export type ColdStartResult = readonly ColdStart[];

export const coldStartSection: Section<ColdStartResult> = {
  name: 'cold-start',
  what: 'import and initialisation of each bundle',
  async measure(bench) {
    const surroundings = await bench.surroundings();
    const results: ColdStart[] = [];
    for (const name of FUNCTION_NAMES) {
      bench.progress(`cold starts of ${name}`);
      const packaged = bench.packages.functions[name];
      const starts = [];
      for (let i = 0; i < (bench.options.quick ? 3 : 9); i++) {
        const started = await startFunction(packaged, surroundings);
        starts.push(started.initialized);
        await started.close();
      }
      results.push({
        name,
        codeBytes: packaged.codeBytes,
        uploadBytes: packaged.uploadBytes,
        wallMs: median(starts.map(({ wallMs }) => wallMs)),
        cpuMs: median(starts.map(({ cpuMs }) => cpuMs)),
        bytes: median(starts.map(({ bytes }) => bytes)),
      });
    }
    return results;
  },
  tables(results) {
    const each = (of: (one: ColdStart) => number) => results.map(of);
    return [
      {
        title: 'COLD START, import and initialisation',
        columns: results.map(({ name }) => name),
        rows: [
          { label: 'time', unit: 'ms', digits: 0, cells: each(({ wallMs }) => wallMs) },
          { label: 'CPU time', unit: 'ms', digits: 0, cells: each(({ cpuMs }) => cpuMs) },
          { label: 'memory then', unit: 'MB', digits: 0, cells: each(({ bytes }) => bytes / 1e6) },
          { label: 'bundle', unit: 'kB', digits: 0, cells: each(({ codeBytes }) => codeBytes / 1e3) },
          {
            label: 'upload, with its source map',
            unit: 'kB',
            digits: 0,
            cells: each(({ uploadBytes }) => uploadBytes / 1e3),
          },
        ],
      },
    ];
  },
};
