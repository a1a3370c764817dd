// What osls does not do by itself when it packages and deploys this stack: it checks the stage's parameters first, says
// how large the bundles are, and after a deployment starts plan, so that a new stack works from its first minute.

import { InvokeCommand, LambdaClient, type LambdaClientConfig } from '@aws-sdk/client-lambda';
import AdmZip from 'adm-zip';
import { complaintsAbout, type Parameters, rate } from './parameters.ts';

/** What is used here of osls's own object, which has no types. */
export interface Osls {
  readonly processedInput: {
    readonly commands: readonly string[];
    /** `--param name=value`, as often as given. */
    readonly options: { readonly param?: readonly string[] };
  };
  /** serverless.yml, its variables resolved as far as that is possible before plugins are loaded. */
  readonly configurationInput: {
    readonly params: { readonly default: Parameters } & Record<string, unknown>;
  };
  readonly service: {
    readonly service: string;
    readonly provider: { readonly shouldNotDeploy?: boolean };
    getAllFunctions(): string[];
    getFunction(name: string): { readonly name: string; readonly package?: { readonly artifact?: string } };
  };
  readonly classes: { readonly Error: new (message: string, code: string) => Error };
  getProvider(name: 'aws'): {
    getStage(): string;
    getRegion(): string;
    getAwsSdkV3Config(): Promise<LambdaClientConfig>;
  };
}

export interface Output {
  readonly log: { notice(message: string): void; warning(message: string): void };
}

/** Described in osls's documentation, "Creating plugins". */
export default class Deployment {
  readonly #osls: Osls;
  readonly #log: Output['log'];

  /** `${rate:name}` in serverless.yml: the schedule that fires every so many seconds as the parameter `name` says. */
  readonly configurationVariablesSources = {
    rate: {
      resolve: async ({ address, resolveVariable }: RateVariable) => ({
        value: rate(Number(await resolveVariable(`param:${address}`))),
      }),
    },
  };

  readonly hooks = {
    'after:package:createDeploymentArtifacts': () => this.#printSizes(),
    'after:deploy:deploy': () => this.#startPlan(),
  };

  constructor(osls: Osls, _options: unknown, { log }: Output) {
    this.#osls = osls;
    this.#log = log;
  }

  /** Before osls looks at the configuration itself: its complaints would be about its schema, not about parameters. */
  async asyncInit(): Promise<void> {
    const { processedInput, configurationInput, service, classes } = this.#osls;
    const [command = '', subcommand] = processedInput.commands;
    if (!['package', 'deploy'].includes(command) || subcommand === 'list') return;
    const provider = this.#osls.getProvider('aws');
    const target = { service: service.service, stage: provider.getStage(), region: provider.getRegion() };
    const { params } = configurationInput;
    // As osls itself: the command line, then the stage, then the defaults.
    const given = {
      ...((params[target.stage] ?? {}) as Parameters),
      ...parseParameters(processedInput.options.param ?? []),
    };
    const complaints = complaintsAbout(target, params.default, given);
    if (complaints.length === 0) return;
    const list = complaints.map((complaint) => `- ${complaint}`).join('\n');
    throw new classes.Error(`Nothing was done, since the parameters cannot be used:\n${list}`, 'PARAMETERS');
  }

  #printSizes(): void {
    const { service } = this.#osls;
    for (const name of service.getAllFunctions()) {
      const artifact = service.getFunction(name).package?.artifact;
      if (artifact === undefined) continue;
      const entries = new AdmZip(artifact).getEntries();
      const size = (suffix: string) =>
        entries
          .filter(({ entryName }) => entryName.endsWith(suffix))
          .reduce((sum, { header }) => sum + header.size, 0);
      const zipped = entries.reduce((sum, { header }) => sum + header.compressedSize, 0);
      this.#log.notice(
        `${name}: ${kilobytes(size('.mjs'))} of code, ${kilobytes(size('.map'))} of source map, ` +
          `${kilobytes(zipped)} to upload`,
      );
    }
  }

  async #startPlan(): Promise<void> {
    const { service } = this.#osls;
    // osls found nothing to change, so there is nothing new.
    if (service.provider.shouldNotDeploy) return;
    const runId = `deployment-${new Date().toISOString()}`;
    try {
      const lambda = new LambdaClient(await this.#osls.getProvider('aws').getAwsSdkV3Config());
      await lambda.send(
        new InvokeCommand({
          FunctionName: service.getFunction('plan').name,
          // It is started, not waited for; if it fails, Lambda repeats and reports it as any other run.
          InvocationType: 'Event',
          Payload: JSON.stringify({ kind: 'daily', runId }),
        }),
      );
      this.#log.notice(`Started plan once, as run ${runId}`);
    } catch (error) {
      // The stack is there, and its schedule will start plan: that is no reason to call the deployment failed.
      this.#log.warning(
        `plan could not be started now, and waits for its schedule: ${(error as Error).message}`,
      );
    }
  }
}

interface RateVariable {
  readonly address: string;
  readonly resolveVariable: (variable: string) => Promise<unknown>;
}

/** `name=value`; what has no value is for osls to complain about. */
function parseParameters(options: readonly string[]): Parameters {
  return Object.fromEntries(
    options.flatMap((option) => {
      const end = option.indexOf('=');
      return end < 1 ? [] : [[option.slice(0, end), option.slice(end + 1)]];
    }),
  );
}

function kilobytes(bytes: number): string {
  return `${Math.round(bytes / 1_000)} kB`;
}
