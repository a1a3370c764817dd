// The service as an operator deploys it, by osls, on a copy of it: packages can be made at the same time, and a user's
// own are left alone. Between packaging and deploying it takes out what the emulator does not know.

import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { copyService, type Template } from '../infra/packaging.ts';
import { run } from './child.ts';

const OSLS_MS = 120_000;

export const STAGE = 'emulator';

export type Parameters = Readonly<Record<string, string | number>>;

export interface Package {
  readonly folder: string;
  /** What the emulator is given. */
  readonly template: Template;
  /** Logical ids of what it is not given, since it does not know it. */
  readonly withheld: readonly string[];
}

export interface Service {
  package(parameters: Parameters): Promise<Package>;
  /** @returns what osls said. */
  deploy(made: Package, parameters: Parameters): Promise<string>;
  remove(parameters: Parameters): Promise<string>;
}

/** What osls said, when it did not end well. */
export class OslsError extends Error {}

/** @param environment all that osls gets. */
export async function createService(folder: string, environment: Record<string, string>): Promise<Service> {
  const service = await copyService(folder);
  let packages = 0;

  async function osls(command: string, options: string[], parameters: Parameters): Promise<string> {
    const params = Object.entries(parameters).flatMap(([name, value]) => ['--param', `${name}=${value}`]);
    const bin = join(service, 'node_modules/osls/bin/serverless.js');
    try {
      const { stdout, stderr } = await run(
        process.execPath,
        [bin, command, '--stage', STAGE, ...options, ...params],
        { cwd: service, env: environment, timeout: OSLS_MS },
      );
      return stdout + stderr;
    } catch (cause) {
      const { stdout = '', stderr = '' } = cause as { stdout?: string; stderr?: string };
      throw new OslsError(`osls ${command} failed:\n${stdout}${stderr}`, { cause });
    }
  }

  return {
    async package(parameters) {
      const made = join(folder, `package-${++packages}`);
      await osls('package', ['--package', made], parameters);
      return adapt(made);
    },
    deploy: (made, parameters) => osls('deploy', ['--package', made.folder, '--verbose'], parameters),
    remove: (parameters) => osls('remove', ['--verbose'], parameters),
  };
}

/** A type that the emulator does not know; CloudFormation would refuse the whole template for it. */
const UNKNOWN_TYPES = new Set(['AWS::Logs::QueryDefinition']);

async function adapt(folder: string): Promise<Package> {
  const templateFile = join(folder, 'cloudformation-template-update-stack.json');
  // `osls deploy --package` takes the template from its own notes.
  const stateFile = join(folder, 'serverless-state.json');
  const template = JSON.parse(await readFile(templateFile, 'utf8')) as Template;
  const withheld = withhold(template);
  const state = JSON.parse(await readFile(stateFile, 'utf8'));
  state.service.provider.compiledCloudFormationTemplate = template;
  await writeFile(stateFile, JSON.stringify(state));
  await rm(templateFile);
  return { folder, template, withheld };
}

/** @returns the logical ids of what was taken out. */
function withhold({ Resources }: Template): string[] {
  const withheld = Object.entries(Resources)
    // An alarm on an expression has Metrics in place of one metric.
    .filter(([, { Type, Properties }]) => UNKNOWN_TYPES.has(Type) || Properties.Metrics !== undefined)
    .map(([id]) => id);
  for (const id of withheld) {
    const { AlarmName } = Resources[id]?.Properties ?? {};
    delete Resources[id];
    if (AlarmName === undefined) continue;
    // The dashboard shows it by its ARN.
    const arn = `arn:\${AWS::Partition}:cloudwatch:\${AWS::Region}:\${AWS::AccountId}:alarm:${AlarmName}`;
    for (const resource of Object.values(Resources)) {
      resource.Properties = JSON.parse(JSON.stringify(resource.Properties).replaceAll(`\${${id}.Arn}`, arn));
    }
  }
  return withheld;
}
