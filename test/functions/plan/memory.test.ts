import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

const CHILD = join(import.meta.dirname, 'memory-child.ts');

/**
 * A heap that one block of 65,000 domains fits into (36 MB are enough) and 200,000 at once do not: when run.ts makes
 * a single block of them, the child is out of memory below 72 MB. The young generation is kept small, else what is
 * measured is how lazily garbage is collected.
 */
const FLAGS = ['--max-old-space-size=48', '--max-semi-space-size=1'];

async function plan(count: number, signal: AbortSignal) {
  // Flags and coverage that the tests themselves run with are no part of what is measured.
  const env = { ...process.env, NODE_OPTIONS: '', NODE_V8_COVERAGE: '' };
  const { stdout } = await promisify(execFile)(process.execPath, [...FLAGS, CHILD, String(count)], {
    env,
    signal,
  });
  const report: { planned: number; messages: number; peakHeap: number; peakRss: number } = JSON.parse(stdout);
  assert.equal(report.planned, count);
  assert.equal(report.messages, count);
  return report;
}

// A table smaller than a block takes less memory than a block, so 20,000 and 200,000 domains cannot take exactly the
// same: the limit is what a block adds to the program itself (100 MB). That memory is flat shows beyond the block.
test('memory is flat: ten times the domains do not take ten times the memory, nor much more than one block', async (t) => {
  const small = await plan(20_000, t.signal);
  const block = await plan(65_000, t.signal);
  const large = await plan(200_000, t.signal);
  for (const { planned, peakRss, peakHeap } of [small, block, large]) {
    const [rss, heap] = [peakRss, peakHeap].map((bytes) => Math.round(bytes / 1e6));
    t.diagnostic(`${planned} domains: peak ${rss} MB resident, ${heap} MB of it heap`);
  }
  assert.ok(large.peakRss <= 1.15 * block.peakRss, 'three blocks take more than one');
  assert.ok(large.peakRss <= 1.4 * small.peakRss, 'one block takes more than it should');
});
