// Errors as they may be logged: those of AWS above all, whose texts are as long as AWS likes and may quote the request.

import { legible } from '../mtasts/failure.ts';

/** An error without what only this process may know. Everything in it is bounded and fit for a log line. */
export interface Fault {
  readonly name: string;
  readonly message: string;
  /** Where it was thrown, line by line as in Node, with the message as it is here. */
  readonly stack: string;
  /** Such as ECONNRESET. */
  readonly code?: string;
  /** HTTP status of AWS's answer. */
  readonly status?: number;
  /** What AWS support asks for. */
  readonly request_id?: string;
  readonly cause?: Fault;
}

/** Characters of a name, a code or a request id: names of exceptions have up to 50, ids 52. */
const MAX_NAME_CHARACTERS = 100;

/** Characters of a message. AWS's usual ones have under 300; one that quotes a request has thousands. */
const MAX_MESSAGE_CHARACTERS = 1_000;

/** Lines of a stack: as many as Node makes. */
const MAX_FRAMES = 10;

/** Characters of such a line: a function's name and a path. */
const MAX_FRAME_CHARACTERS = 300;

/** Causes of causes: an SDK wraps an error of the network, and Node one of the system. */
const MAX_CAUSES = 3;

/**
 * No word of an error is so long, but a session token is, and the signature of a presigned request with it: letters and
 * digits of base64, also as encoded in URLs. Labels of host names end after 63.
 */
const TOKEN = /[A-Za-z0-9+/=_%-]{100,}/g;

/** A thousand times what is logged in the end is not searched. */
const MAX_SEARCHED_CHARACTERS = 100_000;

/** @param error whatever was thrown. */
export function describeFault(error: unknown, causes = MAX_CAUSES): Fault {
  if (!(error instanceof Error)) return describeFault(new Error(String(error)), causes);
  const name = fit(error.name, MAX_NAME_CHARACTERS);
  const message = fit(error.message, MAX_MESSAGE_CHARACTERS);
  const { code, $metadata } = error as {
    code?: unknown;
    $metadata?: { httpStatusCode?: unknown; requestId?: unknown };
  };
  const { httpStatusCode: status, requestId } = $metadata ?? {};
  return {
    name,
    message,
    stack: [`${name}: ${message}`, ...framesOf(error)].join('\n'),
    ...(typeof code === 'string' && { code: fit(code, MAX_NAME_CHARACTERS) }),
    ...(typeof status === 'number' && { status }),
    ...(typeof requestId === 'string' && { request_id: fit(requestId, MAX_NAME_CHARACTERS) }),
    ...(error.cause !== undefined && causes > 0 && { cause: describeFault(error.cause, causes - 1) }),
  };
}

/** The error to throw where Lambda's runtime logs what a handler throws, which it does word by word. */
export function toThrow(error: unknown): Error {
  const { name, message, stack } = describeFault(error);
  return Object.assign(new Error(message), { name, stack });
}

/** Node puts the message, with all its lines, before the frames. */
function framesOf({ stack = '' }: Error): string[] {
  const frames = stack.slice(0, MAX_SEARCHED_CHARACTERS).match(/^ {4}at .*$/gm) ?? [];
  return frames.slice(-MAX_FRAMES).map((frame) => fit(frame, MAX_FRAME_CHARACTERS));
}

function fit(text: string, limit: number): string {
  return legible(text.slice(0, MAX_SEARCHED_CHARACTERS).replace(TOKEN, '[redacted]'), limit);
}
