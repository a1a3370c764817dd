// One bad day of each kind: a fault of each operation, a process killed at each kind of moment, and the checks that find
// a fault of the program. `npm run test:faults` has all of them.

import { THOROUGH } from '../runner/thorough.ts';
import { badDays } from './bad-days.ts';

const ONE_OF_EACH_KIND = [
  'killed: plan, as it has pruned',
  'plan SendMessageBatch: throttled',
  'plan SendMessageBatch: one entry is always refused',
  'killed: dispatch, half way through what it sends',
  'refresh UpdateItem: throttled',
  'refresh BatchGetItem: some keys unprocessed; all are',
  'refresh UpdateItem: a newer write comes first',
  'checked: a newer write comes first, and the condition is forgotten',
  'poller-refresh ReceiveMessage: delivers twice',
  'refresh UpdateItem: always fails for one domain',
  'killed: refresh, after a write, before the acknowledgement',
  'request UpdateItem: throttled',
  'killed: request, as it has discovered',
  'plan CreateSchedule: carried out, its answer cut off; slow',
];

badDays(THOROUGH ? undefined : ONE_OF_EACH_KIND);
