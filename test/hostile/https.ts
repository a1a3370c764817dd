// What the tables of hostile policy hosts are written in. Every domain of theirs has a sound record under a new id, so
// that a refresh has to fetch; a row says what its host does, and what a sender makes of it.

import assert from 'node:assert/strict';
import { policyHost } from '../../functions/mtasts/domain.ts';
import type { FailureCode, ResultType } from '../../functions/mtasts/failure.ts';
import { policyText } from '../../infra/local/internet/behaviours.ts';
import type { HttpResponse, PolicyHost } from '../../infra/local/internet/site.ts';
import type { HostileCase, Played } from './frame.ts';

/** A sound policy; not the one held. */
export const POLICY = policyText('served.test');

export type More = Pick<HostileCase, 'limits' | 'heavy' | 'also' | 'domain'>;

/** The policy is fetched: it replaces the one held, and is discovered. */
export function serves(name: string, https: PolicyHost, more: More = {}): HostileCase {
  return { ...rowOf(name, https, more), refresh: ['replaced'], discovery: ['discovered'] };
}

/** What a limit is that a row waits for, where all others are long. */
const BRIEF_MS = 60;

/**
 * A writer of rows where there is no policy to be had: the one held is kept, and an unknown domain is backed off from.
 *
 * @param wait the limit that ends it.
 */
export function failing(
  code: FailureCode,
  result: ResultType,
  wait?: NonNullable<HostileCase['waits']>[number],
) {
  return (name: string, https: PolicyHost, more: More = {}): HostileCase => {
    const row = { ...rowOf(name, https, more), refresh: ['kept', code, result] } as const;
    // The domain's own time begins with DNS, and on a busy machine may end there: then it is no back-off.
    if (wait === 'domainMs') return { ...row, waits: [wait] };
    const discovery = ['backed-off', code, result] as const;
    return {
      ...row,
      discovery,
      ...(wait && { waits: [wait], limits: { [wait]: BRIEF_MS, ...more.limits } }),
    };
  };
}

function rowOf(name: string, https: PolicyHost, { also, ...more }: More) {
  return {
    name,
    does: { record: { txt: [['v=STSv1; id=id2;']] }, https },
    ...more,
    also(played: Played) {
      assertRestraint(played);
      also?.(played);
    },
  };
}

/** Whatever the host says, one connection is made, to it alone, and one request, to a host that proved its name. */
function assertRestraint({ internet, domain, outcome }: Played): void {
  assert.ok(internet.traffic.fetches() <= 1, `${internet.traffic.fetches()} connections`);
  const requests: string[] = [];
  for (const { kind, name, detail } of internet.traffic.events()) {
    if (kind === 'query') assert.ok(name.endsWith(`mta-sts.${domain}`), name);
    else assert.equal(name, policyHost(domain));
    if (kind === 'request') requests.push(detail);
  }
  const stranger = 'failure' in outcome && outcome.failure.code.startsWith('certificate-');
  if (stranger) assert.deepEqual(requests, []);
  else assert.ok(requests.every((path) => path === '/.well-known/mta-sts.txt') && requests.length <= 1);
}

/** A host that gives this answer in place of the sound policy. */
export function answering(answer: HttpResponse): PolicyHost {
  return { policy: { body: POLICY, ...answer } };
}

/** The rows of all groups, each named with its group. */
export function grouped(groups: Readonly<Record<string, readonly HostileCase[]>>): HostileCase[] {
  return Object.entries(groups).flatMap(([group, rows]) =>
    rows.map((each) => ({ ...each, name: `${group}: ${each.name}` })),
  );
}
