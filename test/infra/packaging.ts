// Runs osls on a copy of the service, so that packages can be made at the same time, and a user's own are left alone.

import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const ROOT = join(import.meta.dirname, '../..');

const COPIED = ['functions', 'infra', 'serverless.yml', 'package.json', 'package-lock.json'];

/** What becomes of a CloudFormation template when nobody says what is in it. */
// biome-ignore lint/suspicious/noExplicitAny: a template is whatever it is.
export type Json = any;

export interface Template {
  readonly Parameters: Record<string, Json>;
  readonly Conditions: Record<string, Json>;
  readonly Resources: Record<
    string,
    {
      Type: string;
      Properties: Json;
      DependsOn?: string[];
      DeletionPolicy?: string;
      UpdateReplacePolicy?: string;
    }
  >;
  readonly Outputs: Record<string, Json>;
}

export interface Packaged {
  /** Holds <function>.zip for each function. */
  readonly folder: string;
  readonly template: Template;
  /** The stage's parameters, by name, and their defaults. */
  readonly parameters: Readonly<Record<string, unknown>>;
  /** What osls said. */
  readonly output: string;
}

/**
 * The stage's parameters, by name, and their defaults, as they stand in serverless.yml: osls takes seconds to read them.
 * That it reads the same is a test of the template.
 */
export async function readDefaults(): Promise<Readonly<Record<string, string | number>>> {
  const text = await readFile(join(ROOT, 'serverless.yml'), 'utf8');
  const [, block = ''] = /^params:\n {2}default:\n((?: {4}.*\n)+)/m.exec(text) ?? [];
  return Object.fromEntries(
    [...block.matchAll(/^ {4}(\w+): (?:(\d+)|'(.*)'|(.*))$/gm)].map(([, name, digits, quoted, plain]) => [
      name,
      digits === undefined ? (quoted ?? plain) : Number(digits),
    ]),
  );
}

const folders: string[] = [];

/** @returns the copy's folder, below `home`. */
export async function copyService(home: string): Promise<string> {
  const service = join(home, 'service');
  await mkdir(service);
  for (const name of COPIED) await cp(join(ROOT, name), join(service, name), { recursive: true });
  await symlink(join(ROOT, 'node_modules'), join(service, 'node_modules'), 'junction');
  return service;
}

/** `osls package` with these options. Rejects, with what osls said in `stdout` and `stderr`, if it fails. */
export async function packageService(...options: string[]): Promise<Packaged> {
  const home = await mkdtemp(join(tmpdir(), 'mta-sts-package-'));
  folders.push(home);
  const service = await copyService(home);
  const folder = join(home, 'package');
  // No credentials and no configuration of the caller's: packaging needs neither.
  const { PATH = '', SystemRoot = '' } = process.env;
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    [join(ROOT, 'node_modules/osls/bin/serverless.js'), 'package', '--package', folder, ...options],
    { cwd: service, env: { PATH, SystemRoot, HOME: home, CI: '1' }, timeout: 90_000 },
  );
  const read = async (name: string): Promise<Json> => JSON.parse(await readFile(join(folder, name), 'utf8'));
  const template: Template = await read('cloudformation-template-update-stack.json');
  const { service: configuration } = await read('serverless-state.json');
  const parameters = configuration.initialServerlessConfig.params.default;
  return { folder, template, parameters, output: stdout + stderr };
}

/** Removes all packages so far. Register it before the first is made: also one that fails leaves a folder. */
export async function removePackages(): Promise<void> {
  await Promise.all(folders.splice(0).map((folder) => rm(folder, { recursive: true, force: true })));
}
