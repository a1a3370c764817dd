// What makes the local stack unable to reach a real AWS account: the variables of its functions, and the settings of
// clients made in this process. Nothing is inherited from the caller's AWS configuration.

import { join } from 'node:path';

export const REGION = 'us-east-1';
export const ACCOUNT = '000000000000';

export interface Endpoints {
  readonly dynamodb: string;
  readonly sqs: string;
  readonly scheduler: string;
}

export interface SandboxOptions {
  readonly endpoints: Endpoints;
  readonly functionName?: string;
  /** Of the one process among several of the function; it says so in the user agent of its requests. */
  readonly processName?: string;
  readonly memoryMegabytes?: number;
  /** PEM file with extra roots of trust. */
  readonly caFile?: string | undefined;
  /** The function's own variables; they win over the others. */
  readonly variables?: Readonly<Record<string, string>> | undefined;
}

// A path below a regular file can never exist, whoever may write to the directories around it.
const NOWHERE = join(import.meta.filename, 'nowhere');

// Nobody listens on port 1: an AWS service that has no stand-in refuses the connection at once.
const CLOSED_ENDPOINT = 'http://127.0.0.1:1';

const CREDENTIALS = { accessKeyId: 'local', secretAccessKey: 'local' };

// Without SystemRoot, Node cannot open a socket on Windows.
const INHERITED = ['PATH', 'SystemRoot', 'TMPDIR', 'TEMP', 'TMP'];

/** The whole environment of a function's process, built from nothing. */
export function sandboxEnvironment(options: SandboxOptions): Record<string, string> {
  const {
    endpoints,
    functionName = 'local',
    processName = functionName,
    memoryMegabytes = 128,
    caFile,
  } = options;
  const environment: Record<string, string> = {};
  for (const name of INHERITED) {
    const value = process.env[name];
    if (value !== undefined) environment[name] = value;
  }
  return {
    ...environment,
    HOME: NOWHERE,
    USERPROFILE: NOWHERE,
    TZ: 'UTC',
    AWS_REGION: REGION,
    AWS_DEFAULT_REGION: REGION,
    AWS_ACCESS_KEY_ID: CREDENTIALS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: CREDENTIALS.secretAccessKey,
    AWS_EC2_METADATA_DISABLED: 'true',
    AWS_CONFIG_FILE: NOWHERE,
    AWS_SHARED_CREDENTIALS_FILE: NOWHERE,
    AWS_ENDPOINT_URL: CLOSED_ENDPOINT,
    AWS_ENDPOINT_URL_DYNAMODB: endpoints.dynamodb,
    AWS_ENDPOINT_URL_SQS: endpoints.sqs,
    AWS_ENDPOINT_URL_SCHEDULER: endpoints.scheduler,
    AWS_SDK_UA_APP_ID: processName,
    AWS_LAMBDA_FUNCTION_NAME: functionName,
    AWS_LAMBDA_FUNCTION_VERSION: '$LATEST',
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(memoryMegabytes),
    POWERTOOLS_SERVICE_NAME: 'mta-sts-refresher',
    POWERTOOLS_METRICS_NAMESPACE: 'mta-sts-refresher',
    ...(caFile === undefined ? {} : { NODE_EXTRA_CA_CERTS: caFile }),
    ...options.variables,
  };
}

/** Settings of an SDK client made in this process: all explicit, so that no variable or profile is consulted. */
export function localClientConfig(endpoint: string) {
  // An inherited AWS_USE_FIPS_ENDPOINT or _DUALSTACK_ENDPOINT would contradict the custom endpoint.
  return {
    endpoint,
    region: REGION,
    credentials: CREDENTIALS,
    useFipsEndpoint: false,
    useDualstackEndpoint: false,
  };
}
