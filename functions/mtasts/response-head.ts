// The head of an HTTP/1.1 response (RFC 9112 §2.1), as bytes. undici reads responses, but tells neither how long their
// heads were, nor, once it has seen a Content-Length, what it does not like about them.

export interface ResponseHead {
  /** Takes the next bytes from the server; what belongs to the body is ignored. */
  add(bytes: Buffer): void;
  /**
   * Bytes up to the body: the head, and informational (1xx) responses and line ends before it. undefined: the head has not
   * ended yet.
   */
  readonly bytes: number | undefined;
  /** What is wrong with the head, in words for an operator; undefined: none of the usual flaws. */
  flaw(): string | undefined;
}

const CR = 0x0d;
const LF = 0x0a;
/** An empty line, after the end of a line (RFC 9112 §2.1). */
const END = Buffer.from('\r\n\r\n');

/** RFC 9110 §15.2: 100 and 101 answer what a client may ask for, and this one does not. The others are hints. */
const SWITCHING_PROTOCOLS = '101';

/** So much of a head is kept to look for flaws in: what undici allows for headers. */
const MAX_KEPT_CHARACTERS = 16_384;

export function createResponseHead(): ResponseHead {
  let text = '';
  let bytes = 0;
  let matched = 0;
  let begun = false;
  let ended = false;
  let unasked: string | undefined;

  return {
    add(chunk) {
      let start = 0;
      for (let at = 0; at < chunk.length && !ended; at++) {
        bytes++;
        const byte = chunk[at];
        // The parser skips line ends before a status line, and so does this.
        if (!begun && (byte === CR || byte === LF)) {
          start = at + 1;
          continue;
        }
        begun = true;
        matched = byte === END[matched] ? matched + 1 : byte === CR ? 1 : 0;
        if (matched < END.length) continue;
        keep(chunk.subarray(start, at + 1));
        start = at + 1;
        matched = 0;
        // RFC 9110 §15.2: any number of informational responses can come before the final one.
        const status = statusOf(text);
        if (status.startsWith('1')) {
          begun = false;
          text = '';
          if (status <= SWITCHING_PROTOCOLS) unasked ??= status;
        } else ended = true;
      }
      if (!ended) keep(chunk.subarray(start));
    },
    get bytes() {
      return ended ? bytes : undefined;
    },
    flaw: () => (unasked === undefined ? flawOf(text) : `it answers ${unasked}, which nobody has asked for`),
  };

  function keep(part: Buffer): void {
    text += part.toString('latin1', 0, MAX_KEPT_CHARACTERS - text.length);
  }
}

function statusOf(head: string): string {
  return /^\S+ +([0-9]{3})/.exec(head)?.[1] ?? '';
}

function flawOf(head: string): string | undefined {
  const lines = head.split('\r\n');
  const valuesOf = (name: string) =>
    lines
      .filter((line) => line.toLowerCase().startsWith(`${name}:`))
      .map((line) => line.slice(name.length + 1).trim());
  const lengths = valuesOf('content-length');
  // RFC 9112 §5.2: a user agent "MUST replace each received obs-fold with one or more SP". undici's parser refuses the
  // message instead, as the section lets servers do, and cannot be told otherwise. It stays so: servers must not send
  // folds, nobody is known to, and programs that read them differently can be made to disagree about where a body ends.
  if (lines.some((line) => /^[ \t]/.test(line))) return 'a header is folded over several lines';
  // RFC 9110 §8.6: also equal ones may be refused. Then they need not be compared.
  if (lengths.length > 1 || lengths[0]?.includes(',')) return 'it has more than one Content-Length';
  if (lengths.length > 0 && valuesOf('transfer-encoding').length > 0) {
    return 'it has both Content-Length and Transfer-Encoding';
  }
  if (lengths.some((length) => !/^[0-9]{1,15}$/.test(length))) return 'its Content-Length is not a length';
  return undefined;
}
