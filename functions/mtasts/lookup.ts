import type { Domain } from './domain.ts';
import { recordName } from './domain.ts';
import { type Failure, failure } from './failure.ts';
import { selectRecord } from './record.ts';
import type { Resolver } from './resolver.ts';

/**
 * What `_mta-sts.<domain>` says. `absent`: no STS record; `unusable`: several, or one that breaks the grammar;
 * `unavailable`: DNS could not say. RFC 8461 treats the first two alike for an unknown domain, but a sender that
 * holds a policy must not take DNS trouble, which an attacker can cause, for the end of the policy.
 */
export type Lookup =
  | { readonly status: 'found'; readonly id: string }
  | { readonly status: 'absent' | 'unusable' | 'unavailable'; readonly failure: Failure };

/** RFC 8461 §3.1 "MTA-STS TXT Records". Never rejects for anything that the domain's DNS does. */
export async function lookupRecord(
  domain: Domain,
  { resolver, signal }: { resolver: Resolver; signal: AbortSignal },
): Promise<Lookup> {
  const answer = await resolver.txt(recordName(domain), signal);
  switch (answer.status) {
    case 'found':
      return selectRecord(answer.values);
    case 'absent':
      return { status: 'absent', failure: failure('record-absent', answer.detail) };
    case 'unavailable':
      return answer;
  }
}
