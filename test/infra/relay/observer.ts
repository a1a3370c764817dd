// An observer that remembers what it was told.

import type { CounterName, Details, GaugeName, Metrics } from '../../../infra/relay/metrics.ts';

interface Told {
  readonly level: 'info' | 'warn' | 'error';
  readonly message: string;
  readonly details: Details;
}

export function createRecorder() {
  const counts = new Map<string, number>();
  const gauges = new Map<GaugeName, number>();
  const told: Told[] = [];
  const answers: string[] = [];
  const metrics: Metrics = {
    count(name, labels = {}, by = 1) {
      const key = [name, ...Object.values(labels)].join(' ');
      counts.set(key, (counts.get(key) ?? 0) + by);
    },
    gauge: (name, value) => void gauges.set(name, value),
    event: (level, message, details = {}) => void told.push({ level, message, details }),
    outage: (what, error) =>
      void told.push({ level: 'error', message: `${what} outage`, details: { error: String(error) } }),
    answered: (map, answer) => void answers.push(`${map} ${answer}`),
    text: () => '',
  };
  return {
    metrics,
    told,
    answers,
    /** Of a counter with the values of its labels. */
    counted: (name: CounterName, ...labels: string[]) => counts.get([name, ...labels].join(' ')) ?? 0,
    gauge: (name: GaugeName) => gauges.get(name),
  };
}
