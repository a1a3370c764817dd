// What may be set for a stage, checked before anything is packaged or deployed. It knows nothing of osls: a table of
// rules for parameters of its own, and for the rest those by which the functions check their environment.

import { ConfigurationError, planEnvironment, requestEnvironment } from '../../functions/runtime/env.ts';

/** By name; as read from serverless.yml or the command line. */
export type Parameters = Readonly<Record<string, unknown>>;

type Values = Readonly<Record<string, string>>;

export interface Target {
  readonly service: string;
  readonly stage: string;
  readonly region: string;
}

/** Lambda's limit for names of functions, the shortest of those that are built from the stage. */
const MAX_NAME = 64;

/** LastUse is kept to within a day, and relays report it once a day. */
const SHORTEST_UNUSED_SECONDS = 2 * 86_400;

const DAY_SECONDS = 86_400;

/** What CloudWatch Logs takes ("PutRetentionPolicy"), as far as osls knows it. */
const RETENTION_DAYS = [
  1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1827, 2192, 2557, 2922, 3288, 3653,
];

interface Rule {
  readonly allows: (value: string, target: Target) => boolean;
  /** Ends the sentence "it should be …". */
  readonly should: string;
}

function wholeNumber(min: number, max: number): Rule {
  return {
    allows: (value) => /^\d+$/.test(value) && Number(value) >= min && Number(value) <= max,
    should: `a whole number from ${min} to ${max}`,
  };
}

function oneOf(values: readonly (string | number)[], should: string): Rule {
  return { allows: (value) => values.some((each) => String(each) === value), should };
}

const PERCENT = wholeNumber(1, 100);

/** The parameters that become no environment variable. */
const RULES: Readonly<Record<string, Rule>> = {
  dailySchedule: {
    allows: (value) => /^(cron\([^()]+\)|rate\(\d+ (minutes?|hours?|days?)\))$/.test(value),
    should: 'an expression of EventBridge Scheduler, as cron(0 3 * * ? *) or rate(1 day)',
  },
  // Lambda's limits for an event source ("Configuring maximum concurrency for Amazon SQS event sources").
  refreshConcurrency: wholeNumber(2, 1_000),
  requestConcurrency: wholeNumber(2, 1_000),
  // Metrics are lines of level INFO: above it there would be none, and every alarm would be blind.
  logLevel: oneOf(['INFO', 'DEBUG'], 'INFO or DEBUG'),
  logRetentionDays: oneOf(RETENTION_DAYS, `one of ${RETENTION_DAYS.join(', ')}`),
  alarmTopicArn: {
    // CloudWatch notifies topics of its own region only.
    allows: (value, { region }) =>
      value === '' ||
      (/^arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[\w-]+$/.test(value) && value.split(':')[3] === region),
    should: 'empty, or the ARN of an SNS topic in the region of the stack',
  },
  alarmRefreshesFailingPercent: PERCENT,
  alarmPoliciesFailingPercent: PERCENT,
  alarmPoliciesLapsedPercent: PERCENT,
  alarmPrunedPercent: PERCENT,
  alarmDiscoveredPercent: PERCENT,
};

/** Stand-ins for what only CloudFormation knows. */
const KNOWN_LATER = {
  POLICY_TABLE: 'table',
  REFRESH_QUEUE_URL: 'https://queue',
  SCHEDULE_GROUP: 'group',
  DISPATCH_FUNCTION_ARN: 'arn:aws:lambda:',
  SCHEDULER_ROLE_ARN: 'arn:aws:iam:',
  SCHEDULER_DLQ_ARN: 'arn:aws:sqs:',
};

/**
 * @param defaults every parameter that there is.
 * @param given those that are set for the stage or on the command line.
 * @returns what is wrong with them, a sentence for each problem.
 */
export function complaintsAbout(target: Target, defaults: Parameters, given: Parameters): string[] {
  const values: Values = Object.fromEntries(
    Object.entries({ ...defaults, ...given }).map(([name, value]) => [name, String(value ?? '').trim()]),
  );
  const complaints = complaintsAboutTarget(target);
  for (const name of Object.keys(given)) {
    if (Object.hasOwn(defaults, name)) continue;
    complaints.push(`there is no parameter ${name}: it should be one of ${Object.keys(defaults).join(', ')}`);
  }
  for (const [name, { allows, should }] of Object.entries(RULES)) {
    const value = values[name] ?? '';
    if (!allows(value, target)) complaints.push(`${name} is "${value}": it should be ${should}`);
  }
  return [...complaints, ...complaintsOfFunctions(values), ...contradictions(values)];
}

function complaintsAboutTarget({ service, stage, region }: Target): string[] {
  const complaints = [];
  // What is left of a function's name when the service and the longest function are taken off.
  const longest = MAX_NAME - `${service}--dispatch`.length;
  if (!/^[a-z]([a-z0-9-]*[a-z0-9])?$/.test(stage) || stage.length > longest) {
    complaints.push(
      `the stage is "${stage}": it should be lower-case letters, digits and hyphens, begin with a letter, not end ` +
        `with a hyphen, and have at most ${longest} characters, for it is part of every name`,
    );
  }
  if (!/^[a-z]{2}(-[a-z]+)+-\d$/.test(region)) {
    complaints.push(`the region is "${region}": it should be a region's code, as eu-central-1`);
  }
  return complaints;
}

/** What the functions themselves would say at their cold start, of parameters instead of variables. */
function complaintsOfFunctions(values: Values): string[] {
  const variables: Record<string, string> = {};
  for (const [name, value] of Object.entries(values)) variables[variableName(name)] = value;
  const names = new Map(Object.keys(values).map((name) => [variableName(name), name]));
  // `refresh` has no variable that `request` has not.
  return [planEnvironment, requestEnvironment].flatMap((read) => {
    try {
      read({ ...variables, ...KNOWN_LATER });
      return [];
    } catch (error) {
      if (!(error instanceof ConfigurationError)) throw error;
      return error.message.replace(/\b[A-Z_]+\b/g, (word) => names.get(word) ?? word).split('; ');
    }
  });
}

/** What each parameter allows, but not together. */
function contradictions(values: Values): string[] {
  // What is no number has been complained about already, and compares as false.
  const number = (name: string) => Number(values[name] ?? '');
  const spread = number('spreadSeconds');
  const wave = number('waveSeconds');
  const stale = number('staleAfterSeconds');
  const unused = number('unusedAfterSeconds');
  const interval = number('renewalIntervalSeconds');
  const complaints = [];
  if (spread < wave) {
    complaints.push(
      `spreadSeconds is ${spread}, shorter than a wave, waveSeconds, which is ${wave}: raise the one or lower the other`,
    );
  }
  if (stale + spread > DAY_SECONDS) {
    complaints.push(
      `staleAfterSeconds + spreadSeconds is ${stale + spread}, more than a day, ${DAY_SECONDS}: what was refreshed late ` +
        'one day would not count as stale the next, so lower one of them',
    );
  }
  if (unused > 0 && unused < SHORTEST_UNUSED_SECONDS) {
    complaints.push(
      `unusedAfterSeconds is ${unused}: use is known to within a day and reported once a day, so less than ` +
        `${SHORTEST_UNUSED_SECONDS} would delete policies that are in use: raise it, or set it to 0 to keep all`,
    );
  }
  if (interval % 60 > 0) {
    complaints.push(
      `renewalIntervalSeconds is ${interval}: it should be a multiple of 60, since schedules are kept in minutes`,
    );
  }
  return complaints;
}

/** spreadSeconds -> SPREAD_SECONDS */
function variableName(parameter: string): string {
  return parameter.replace(/[A-Z]/g, '_$&').toUpperCase();
}

/** An expression of EventBridge Scheduler ("Schedule types": rate(value unit)). */
export function rate(seconds: number): string {
  const minutes = seconds / 60;
  return `rate(${minutes} ${minutes === 1 ? 'minute' : 'minutes'})`;
}
