// Values of HTTP header fields that are lists (RFC 9110 §5.6.1), or that proxies make lists of by joining repeated lines.

/**
 * The members of a field's value, in order, without blanks around them and with empty ones left in: what an empty member
 * means is for the field to say.
 *
 * A comma within a quoted string separates nothing (RFC 9110 §5.6.4). A string that does not end in its line is no quoted
 * string: otherwise one lone quote would hide all members after it.
 *
 * @param value as undici gives it: undefined without such a field, one string for each line.
 */
export function fieldMembers(value: string | readonly string[] | undefined): string[] {
  if (value === undefined) return [];
  const lines = typeof value === 'string' ? [value] : value;
  return lines.flatMap(lineMembers).map((member) => member.trim());
}

function lineMembers(line: string): string[] {
  const members: string[] = [];
  let start = 0;
  let quoted = false;
  for (let at = 0; at < line.length; at++) {
    const character = line[at];
    if (character === '"') quoted = !quoted;
    else if (character === '\\' && quoted) at++;
    else if (character === ',' && !quoted) {
      members.push(line.slice(start, at));
      start = at + 1;
    }
  }
  return quoted ? line.split(',') : [...members, line.slice(start)];
}
