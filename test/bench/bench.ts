// What the sections of the bench share: the packaged functions, the servers, each in a process of its own and started
// when first needed, and each other's results.

import { join } from 'node:path';
import type { AwsOperations } from './aws-child.ts';
import { everything, type Surroundings } from './function.ts';
import type { InternetOperations } from './internet-child.ts';
import { type Packages, packageFunctions } from './packages.ts';
import { closeRemotes, type Remote, startRemote } from './remote.ts';
import type { Table } from './table.ts';

export interface BenchOptions {
  /** Smaller and fewer: to see that it works, not for figures. */
  readonly quick: boolean;
  /** A folder for profiles of the functions. */
  readonly profiles: string | undefined;
}

/** One part of the bench. `R` can be written as JSON. */
export interface Section<R> {
  readonly name: string;
  /** What it measures, for --help. */
  readonly what: string;
  measure(bench: Bench): Promise<R>;
  tables(result: R): Table[];
}

export interface Bench {
  readonly options: BenchOptions;
  readonly packages: Packages;
  /** Says what is being done. */
  progress(text: string): void;
  /** The result of another section, which is measured if that was not done yet. */
  need<R>(section: Section<R>): Promise<R>;
  aws(): Promise<{ remote: Remote<AwsOperations>; endpoint: string }>;
  internet(): Promise<{
    remote: Remote<InternetOperations>;
    variables: Surroundings['variables'];
    caFile: string;
  }>;
  /** What a function has around it when the services do next to nothing. */
  surroundings(): Promise<Surroundings>;
  close(): Promise<void>;
}

export const child = (name: string) => join(import.meta.dirname, `${name}-child.ts`);

export async function startBench(options: BenchOptions, progress: (text: string) => void): Promise<Bench> {
  progress('packaging the functions');
  const packages = await packageFunctions();
  const results = new Map<string, Promise<unknown>>();
  const aws = once(async () => {
    const remote = await startRemote<AwsOperations>(child('aws'));
    return { remote, endpoint: await remote.call('start') };
  });
  const internet = once(async () => {
    const remote = await startRemote<InternetOperations>(child('internet'));
    const { dnsServer, policyHostPort, caFile } = await remote.call('start');
    const variables = {
      DNS_SERVERS: dnsServer,
      POLICY_HOST_PORT: String(policyHostPort),
      ALLOW_PRIVATE_ADDRESSES: '1',
    };
    return { remote, variables, caFile };
  });
  const bench: Bench = {
    options,
    packages,
    progress,
    need<R>(section: Section<R>) {
      const result = results.get(section.name) ?? section.measure(bench);
      results.set(section.name, result);
      return result as Promise<R>;
    },
    aws,
    internet,
    async surroundings() {
      const [{ endpoint }, { variables, caFile }] = await Promise.all([aws(), internet()]);
      return { endpoints: everything(endpoint), caFile, ...(variables && { variables }) };
    },
    // Also for a second signal, which has to wait for the first one's.
    close: once(async () => {
      if (internet.started()) await (await internet()).remote.call('stop');
      await closeRemotes();
      await packages.remove();
    }),
  };
  return bench;
}

function once<T>(start: () => Promise<T>): (() => Promise<T>) & { started(): boolean } {
  let value: Promise<T> | undefined;
  return Object.assign(
    () => {
      value ??= start();
      return value;
    },
    { started: () => value !== undefined },
  );
}
