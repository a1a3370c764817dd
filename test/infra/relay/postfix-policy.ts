// Postfix's own reading of a TLS policy, retold from src/smtp/smtp_tls_policy.c and the functions of src/util that it uses, so
// that tests can see what Postfix would make of an answer.

export interface PostfixPolicy {
  readonly level: string;
  /** In order, repeated ones too. */
  readonly attributes: readonly (readonly [name: string, value: string])[];
  /** What a certificate is matched against, from all `match` attributes. */
  readonly match: readonly string[];
}

/** Once in a policy at most: Postfix refuses it otherwise. */
const SINGLE = [
  'servername',
  'policy_type',
  'policy_domain',
  'policy_ttl',
  'policy_failure',
  'ciphers',
  'protocols',
];
const REPEATED = ['match', 'policy_string', 'mx_host_pattern', 'connection_reuse'];
const LEVELS = ['none', 'may', 'encrypt', 'dane', 'dane-only', 'fingerprint', 'verify', 'secure'];

/** @throws where Postfix would log a warning and defer the mail. */
export function readTlsPolicy(text: string): PostfixPolicy {
  const [level, ...words] = tokens(text);
  if (level === undefined || !LEVELS.includes(level)) throw new Error(`invalid security level "${level}"`);
  const attributes = words.map(readAttribute);
  const names = attributes.map(([name]) => name);
  for (const name of names) {
    if (!SINGLE.includes(name) && !REPEATED.includes(name))
      throw new Error(`invalid attribute name: "${name}"`);
    if (SINGLE.includes(name) && names.filter((other) => other === name).length > 1) {
      throw new Error(`attribute "${name}" is specified multiple times`);
    }
  }
  const match = attributes.flatMap(([name, value]) => (name === 'match' ? value.split(':') : []));
  return { level, attributes, match: match.filter((name) => name !== '') };
}

/** mystrtokq(3): separated by commas and white space, but not within braces. */
function tokens(text: string): string[] {
  const found: string[] = [];
  let token = '';
  let depth = 0;
  for (const character of text) {
    if (character === '{') depth += 1;
    else if (depth > 0 && character === '}') depth -= 1;
    else if (depth === 0 && /[,\s]/.test(character)) {
      if (token !== '') found.push(token);
      token = '';
      continue;
    }
    token += character;
  }
  return token === '' ? found : [...found, token];
}

/** extpar(3) and split_nameval(3). */
function readAttribute(token: string): [name: string, value: string] {
  if (token.startsWith('{') && !token.endsWith('}')) throw new Error(`missing "}" in "${token}"`);
  const inner = token.startsWith('{') ? token.slice(1, -1).trim() : token;
  const [, name, value] = /^([^\s=]+)\s*=\s*(.*?)\s*$/s.exec(inner) ?? [];
  if (name === undefined || value === undefined) throw new Error(`malformed attribute/value pair "${token}"`);
  return [name.toLowerCase(), value];
}
