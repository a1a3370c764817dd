// The functions as they are deployed: bundles, memory, variables, event source, all out of the packaged template.

import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import AdmZip from 'adm-zip';
import { packageService, removePackages } from '../infra/packaging.ts';

export type FunctionName = 'plan' | 'dispatch' | 'refresh' | 'request';
export const FUNCTION_NAMES: readonly FunctionName[] = ['plan', 'dispatch', 'refresh', 'request'];

export interface PackagedFunction {
  /** The bundle. */
  readonly file: string;
  readonly codeBytes: number;
  readonly uploadBytes: number;
  readonly memoryMegabytes: number;
  readonly timeoutSeconds: number;
  /** Those that are text; the others are references to what the stack makes. */
  readonly variables: Readonly<Record<string, string>>;
}

export interface Packages {
  readonly functions: Readonly<Record<FunctionName, PackagedFunction>>;
  /** The event source of refresh. */
  readonly batchSize: number;
  readonly windowSeconds: number;
  readonly concurrency: number;
  /** Of what costs by the month, how many there are. */
  readonly alarms: number;
  remove(): Promise<void>;
}

export async function packageFunctions(): Promise<Packages> {
  const { folder, template } = await packageService();
  const unpacked = await mkdtemp(join(tmpdir(), 'mta-sts-bench-'));
  const load = async (name: FunctionName): Promise<[FunctionName, PackagedFunction]> => {
    const zip = join(folder, `${name}.zip`);
    new AdmZip(zip).extractAllTo(join(unpacked, name));
    const file = join(unpacked, name, 'functions', name, 'handler.mjs');
    const resource = `${name.charAt(0).toUpperCase()}${name.slice(1)}LambdaFunction`;
    const { MemorySize, Timeout, Environment } = template.Resources[resource]?.Properties ?? {};
    const variables = Object.entries(Environment.Variables).filter(([, value]) => typeof value === 'string');
    return [
      name,
      {
        file,
        codeBytes: (await stat(file)).size,
        uploadBytes: (await stat(zip)).size,
        memoryMegabytes: MemorySize,
        timeoutSeconds: Timeout,
        variables: Object.fromEntries(variables) as Record<string, string>,
      },
    ];
  };
  const functions = Object.fromEntries(await Promise.all(FUNCTION_NAMES.map(load)));
  const source = template.Resources.RefreshEventSource?.Properties;
  const alarms = Object.values(template.Resources).filter(({ Type }) => Type === 'AWS::CloudWatch::Alarm');
  return {
    functions: functions as Packages['functions'],
    batchSize: source.BatchSize,
    windowSeconds: source.MaximumBatchingWindowInSeconds,
    concurrency: Number(source.ScalingConfig.MaximumConcurrency),
    alarms: alarms.length,
    async remove() {
      await removePackages();
      await rm(unpacked, { recursive: true, force: true });
    },
  };
}
