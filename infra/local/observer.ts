// Reads what the functions write, as CloudWatch would: counts from the embedded metrics, and log entries.

export interface LogEntry {
  readonly function: string;
  readonly level: string;
  readonly message: string;
  readonly domain?: string;
  readonly code?: string;
  readonly detail?: string;
}

export interface Observer {
  /** Takes one line of a function's output. */
  readonly line: (functionName: string, line: string) => void;
  /** Sums of the metrics of the functions that look at domains so far, by name. */
  readonly counts: ReadonlyMap<string, number>;
  /** Log entries so far, all levels. */
  readonly entries: readonly LogEntry[];
}

export function createObserver(): Observer {
  const counts = new Map<string, number>();
  const entries: LogEntry[] = [];
  return {
    counts,
    entries,
    line(functionName, line) {
      let value: Record<string, unknown>;
      try {
        value = JSON.parse(line);
      } catch {
        // Node's own warnings and fatal errors are no JSON, and are worth showing.
        entries.push({ function: functionName, level: 'ERROR', message: line });
        return;
      }
      const metrics = value._aws as { CloudWatchMetrics?: { Metrics: { Name: string }[] }[] } | undefined;
      if (metrics === undefined) {
        entries.push({ ...(value as unknown as LogEntry), function: functionName });
        return;
      }
      if (functionName !== 'refresh' && functionName !== 'request') return;
      for (const { Metrics } of metrics.CloudWatchMetrics ?? []) {
        for (const { Name } of Metrics) counts.set(Name, (counts.get(Name) ?? 0) + Number(value[Name]));
      }
    },
  };
}
