// What a run shows: a line for each thing that was seen to be so, with the time since the beginning.

const start = performance.now();

export function heading(text: string): void {
  console.log(`\n${text}`);
}

export function say(text: string): void {
  const seconds = ((performance.now() - start) / 1_000).toFixed(1);
  console.log(`${seconds.padStart(6)} s  ${text}`);
}
