// Makes the calls of telemetry that it is sent, in a process of its own: what it writes is what CloudWatch would get.

import { createTelemetry, type Telemetry } from '../../../functions/runtime/telemetry.ts';

/** A method's name and its arguments. */
export type Call = { [Name in keyof Telemetry]: [Name, ...Parameters<Telemetry[Name]>] }[keyof Telemetry];

const telemetry = createTelemetry();

process.once('message', (calls) => {
  for (const [name, ...args] of calls as Call[]) {
    (telemetry[name] as (...args: readonly unknown[]) => void)(...args);
  }
  process.disconnect();
});
