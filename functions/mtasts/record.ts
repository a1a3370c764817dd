import { type Failure, failure, quote } from './failure.ts';

export type ParsedRecord = { ok: true; id: string } | { ok: false; failure: Failure };

export type SelectedRecord =
  | { status: 'found'; id: string }
  | { status: 'absent' | 'unusable'; failure: Failure };

// RFC 8461 §3.1. A value of an extension has no blank and no ";" in it, so that splitting at ";" is exact.
const VERSION_FIELD = /^v=STSv1[ \t]*$/;
const FIELD = /^[ \t]*([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3A\x3C\x3E-\x7E]+)[ \t]*$/;
const ID = /^[A-Za-z0-9]{1,32}$/;

/** RFC 8461 §3.1: other TXT records "are discarded". The ABNF allows blanks before the ";" that the prose quotes. */
const STS_RECORD = /^v=STSv1[ \t]*;/;

/** Whether the text is the value of an `id` (RFC 8461 §3.1, `sts-id`). */
export function isRecordId(text: string): boolean {
  return ID.test(text);
}

function malformed(text: string, flaw: string): { ok: false; failure: Failure } {
  return { ok: false, failure: failure('record-malformed', `The TXT record "${quote(text)}" ${flaw}.`) };
}

/**
 * Reads the text of one TXT record, its strings already joined (RFC 8461 §3.1, `sts-text-record`). `id` says
 * which policy the domain has now. The failure is `record-malformed`.
 */
export function parseRecord(text: string): ParsedRecord {
  const [version = '', ...fields] = text.split(';');
  // "The TXT record MUST begin with sts-version field", so no blank before it.
  if (!VERSION_FIELD.test(version)) return malformed(text, 'does not begin with "v=STSv1;"');

  const last = fields.at(-1) ?? '';
  if (/^[ \t]*$/.test(last)) {
    fields.pop();
  } else if (/[ \t]$/.test(last)) {
    // Blanks are part of a delimiter, and after the last field there is one only if there is a ";".
    return malformed(text, 'has a blank at its end');
  }

  let id: string | undefined;
  for (const field of fields) {
    const [, name, value] = FIELD.exec(field) ?? [];
    if (name === undefined || value === undefined) {
      return malformed(text, `has a field "${quote(field)}" that is not name=value`);
    }
    // Field names are case-sensitive (%s), "unknown fields SHALL be ignored", and of a duplicated field "all
    // entries except for the first SHALL be ignored", whatever is in them (§3.2, of records and policies).
    if (name !== 'id' || id !== undefined) continue;
    // As printed the grammar lets a bad id pass as an extension named "id"; a record with that alone has no id.
    if (!ID.test(value))
      return malformed(text, `has the id "${quote(value)}", not 1 to 32 letters and digits`);
    id = value;
  }
  return id === undefined ? malformed(text, 'has no id') : { ok: true, id };
}

/**
 * Finds the one STS record among all TXT records of a name (RFC 8461 §3.1). No STS record is "absent"
 * (`record-absent`); several (`record-multiple`) or a bad one (`record-malformed`) is "unusable".
 */
export function selectRecord(texts: readonly string[]): SelectedRecord {
  const [text, ...others] = texts.filter((candidate) => STS_RECORD.test(candidate));
  if (text === undefined) {
    const detail =
      texts.length === 0
        ? 'There is no TXT record.'
        : `None of the TXT records begins with "v=STSv1;": the first is "${quote(texts[0] ?? '')}".`;
    return { status: 'absent', failure: failure('record-absent', detail) };
  }
  if (others.length > 0) {
    const detail = `${1 + others.length} TXT records begin with "v=STSv1;", where one is allowed.`;
    return { status: 'unusable', failure: failure('record-multiple', detail) };
  }
  const record = parseRecord(text);
  return record.ok ? { status: 'found', id: record.id } : { status: 'unusable', failure: record.failure };
}
