// Why Postfix is told what it is told about one key, step by step, for the operator who asks "why was this deferred?".

import { answer, formatReply, MAPS, type Verdict } from './answer.ts';
import type { Dane } from './dane.ts';
import { readKey } from './names.ts';
import type { Overrides } from './overrides.ts';
import type { Policies } from './policies.ts';
import type { Resolve } from './resolve.ts';

/** The answer to a key that is a domain with a large policy is not for reading. */
const MAX_SHOWN_CHARACTERS = 2_000;

/** @returns lines of text, without anything that a terminal would act on. */
export async function explain(
  key: string,
  {
    overrides,
    dane,
    policies,
    resolve,
    signal,
  }: {
    readonly overrides: Pick<Overrides, 'get'>;
    readonly dane: Pick<Dane, 'explain'> | undefined;
    readonly policies: Pick<Policies, 'explain'>;
    readonly resolve: Resolve;
    readonly signal: AbortSignal;
  },
): Promise<string[]> {
  const lines: string[] = [];
  const section = (title: string, body: readonly string[]) =>
    lines.push(title, ...body.map((line) => `  ${line}`), '');

  const read = readKey(key);
  if (read.kind === 'destination') {
    const { domain, port, direct } = read.destination;
    const way = direct ? 'the host itself, since it is in square brackets' : 'its MX hosts';
    section('Lookup key', [`domain ${domain}`, `mail goes to ${way}, port ${port}`]);

    const override = overrides.get(domain);
    const says = override?.action === 'policy' ? override.text : override?.action;
    section('Override map', [
      says === undefined
        ? 'has no line for the domain'
        : `says "${says}", which decides; the rest is for information`,
    ]);
    section(
      'DANE',
      dane ? await dane.explain(read.destination, signal) : ['is not looked at, since RELAY_DANE is off'],
    );
    section('MTA-STS', await policies.explain(domain, signal));
  } else {
    section('Lookup key', [read.reason]);
  }

  const verdict = await resolve(key);
  section(
    'Postfix is told',
    MAPS.map((map) => `${map.padEnd(14)}  ${shorten(formatReply(answer(map, verdict)))}`),
  );
  section('Because', [because(verdict)]);
  return lines.slice(0, -1);
}

function because(verdict: Verdict): string {
  switch (verdict.kind) {
    case 'enforce':
      return `${verdict.domain} has a valid policy with the mode enforce, and no DANE that would go before it.`;
    case 'dane':
      if (verdict.unclear !== undefined)
        return `Whether an MX host of ${verdict.domain} has DANE cannot be told, no other host has, and no policy would be lost: ${verdict.unclear}`;
      return verdict.level === 'dane-only'
        ? `All MX hosts of ${verdict.domain} have DANE, which goes before MTA-STS.`
        : `Some MX hosts of ${verdict.domain} have DANE, which goes before MTA-STS.`;
    case 'override':
      return `The override map says so for ${verdict.domain}.`;
    case 'not-found':
    case 'defer':
      return verdict.reason;
  }
}

function shorten(text: string): string {
  if (text.length <= MAX_SHOWN_CHARACTERS) return text.trimEnd();
  return `${text.slice(0, MAX_SHOWN_CHARACTERS)}… (${text.length} characters)`;
}
