// Every unit price that the cost model knows: dollars, us-east-1, before free tiers and discounts. As of November 2026,
// from the services' public price pages (aws.amazon.com/<service>/pricing); those of DynamoDB on demand since November
// 2024, those of Lambda's arm64 since 2021. Put your region's here: all figures follow.

const MILLION = 1_000_000;
const HOURS_OF_A_DAY = 24;
const DAYS_OF_A_MONTH = 30;

export const PRICES = {
  dynamodb: {
    /** A unit: a write of an item of 1 KB or less. */
    writeUnit: 0.625 / MILLION,
    /** A consistent read of an item of 4 KB or less; half of it if it need not be consistent. */
    readUnit: 0.125 / MILLION,
    gigabyteDay: 0.25 / DAYS_OF_A_MONTH,
    /** Point-in-time recovery. */
    recoveryGigabyteDay: 0.2 / DAYS_OF_A_MONTH,
    /** Provisioned: one write, or consistent read, a second. */
    writeCapacityDay: 0.00065 * HOURS_OF_A_DAY,
    readCapacityDay: 0.00013 * HOURS_OF_A_DAY,
  },
  /** Standard queues; a request is a call of up to 64 KB. */
  sqs: { request: 0.4 / MILLION },
  /** EventBridge Scheduler. */
  scheduler: { invocation: 1 / MILLION },
  lambda: {
    request: 0.2 / MILLION,
    /** arm64. */
    gigabyteSecond: 0.0000133334,
    x86GigabyteSecond: 0.0000166667,
  },
  cloudwatch: {
    logGigabyte: 0.5,
    metricDay: 0.3 / DAYS_OF_A_MONTH,
    alarmDay: 0.1 / DAYS_OF_A_MONTH,
    dashboardDay: 3 / DAYS_OF_A_MONTH,
  },
  /** Out of AWS to the internet. */
  transfer: { gigabyte: 0.09 },
} as const;
