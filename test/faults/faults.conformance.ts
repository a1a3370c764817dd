// `npm run test:faults`: every row of the table of bad days. It takes minutes; `npm test` has one of each kind.

import { badDays } from './bad-days.ts';

badDays();
