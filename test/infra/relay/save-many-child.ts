// Saves some thousand policies into the directory that it is told: run by snapshot.test.ts with a limit on the length of
// files.

import { openSnapshot } from '../../../infra/relay/snapshot.ts';
import { DAY, domain, NOW, POLICY, recordingObserver, virtualClock } from './scene.ts';

const [, , directory = ''] = process.argv;
const observer = recordingObserver();
const snapshot = openSnapshot({ directory, readOnly: false, clock: virtualClock(), observer });
const saved = await snapshot.savePolicies(
  Array.from({ length: 5_000 }, (_, i) => ({
    domain: domain(`d${i}.example`),
    policy: POLICY,
    backoff: false,
    validEnd: NOW + DAY,
    recordId: 'id1',
  })),
);
console.log(saved, JSON.stringify(observer.events));
