// What can go wrong with one call, and the words in which each service says so.

import type { Answer, Call, Json, Service } from './call.ts';

/**
 * `applied`: the service did what it was asked, although the caller does not get to know it. `picks` chooses among the
 * keys of BatchGetItem or the entries of a batch, by position and text.
 */
export type Fault =
  | { readonly kind: 'throttle' }
  | { readonly kind: 'error'; readonly status: 500 | 503; readonly applied?: boolean }
  /** The connection is reset. */
  | { readonly kind: 'cut'; readonly applied: boolean }
  /** The connection is reset in the middle of the answer. */
  | { readonly kind: 'truncate' }
  /** The answer stops in the middle, and the connection stays. */
  | { readonly kind: 'stop' }
  /** The answer is late; or, if not applied, the request. */
  | { readonly kind: 'delay'; readonly ms: number; readonly applied?: boolean }
  /** Later calls of the same operation overtake it: so many, as far as there are any within `atMostMs`. */
  | { readonly kind: 'hold'; readonly passes: number; readonly atMostMs: number }
  /**
   * It does not go on until something else has happened. `forget` its condition: no fault of AWS, but of a program that
   * has none, to show that the checks notice.
   */
  | { readonly kind: 'stall'; readonly until: Promise<unknown>; readonly forget: boolean }
  /** UnprocessedKeys of BatchGetItem, or `Failed` entries of a batch. */
  | {
      readonly kind: 'partial';
      readonly picks: (index: number, text: string) => boolean;
      readonly applied?: boolean;
      readonly senderFault?: boolean;
    }
  /** Carried out twice, and answered once. */
  | { readonly kind: 'twice' }
  /** What ReceiveMessage delivers is delivered by the next call again. */
  | { readonly kind: 'redeliver' }
  /** The process that calls is killed. */
  | { readonly kind: 'kill'; readonly applied: boolean };

/** What a call meets; undefined: it goes through. */
export type Programme = (call: Call) => Fault | undefined;

/** As one word for reports. */
export function nameOf(fault: Fault): string {
  const applied = 'applied' in fault && fault.applied === true ? ', applied' : '';
  return `${fault.kind}${fault.kind === 'error' ? ` ${fault.status}` : ''}${applied}`;
}

const THROTTLES: Record<Service, readonly { readonly status: number; readonly type: string }[]> = {
  dynamodb: [
    { status: 400, type: 'com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException' },
    { status: 400, type: 'com.amazon.coral.availability#ThrottlingException' },
  ],
  sqs: [{ status: 400, type: 'com.amazonaws.sqs#RequestThrottled' }],
  scheduler: [{ status: 429, type: 'ThrottlingException' }],
};

const INTERNAL_ERRORS: Record<Service, string> = {
  dynamodb: 'com.amazonaws.dynamodb.v20120810#InternalServerError',
  sqs: 'com.amazonaws.sqs#InternalError',
  scheduler: 'InternalServerException',
};

export function throttled({ service, turn }: Call): Answer {
  const answers = THROTTLES[service];
  const { status, type } = answers[turn % answers.length] as { status: number; type: string };
  return refusal(service, status, type, 'Rate exceeded');
}

export function broken({ service }: Call, status: 500 | 503): Answer {
  if (status === 500) return refusal(service, status, INTERNAL_ERRORS[service], 'Internal error');
  // What is overloaded is answered for by what stands in front of it, which does not speak the service's language.
  const body = '<html><body><b>Http/1.1 Service Unavailable</b></body></html>';
  return { status, headers: { 'content-type': 'text/html' }, body };
}

function refusal(service: Service, status: number, type: string, message: string): Answer {
  const headers: Record<string, string> = { 'content-type': 'application/x-amz-json-1.0' };
  if (service === 'scheduler') headers['x-amzn-errortype'] = type;
  if (service === 'sqs') headers['x-amzn-query-error'] = `${type.split('#')[1]};Receiver`;
  const body = service === 'scheduler' ? { Message: message } : { __type: type, message };
  return { status, headers, body: JSON.stringify(body) };
}

interface Table {
  readonly Keys: readonly Json[];
}

interface Entry {
  readonly Id: string;
}

/**
 * A batch of which a part fails.
 *
 * @param pass puts a call to the service; undefined as the body: nothing is left of it to ask.
 */
export async function partly(
  { operation, body }: Call,
  { picks, applied = false, senderFault = false }: Fault & { kind: 'partial' },
  pass: (body: Json) => Promise<Answer>,
): Promise<Answer> {
  if (operation === 'BatchGetItem') {
    const [[name, table] = ['', { Keys: [] }]] = Object.entries(body.RequestItems as Record<string, Table>);
    const [Keys, left] = divide(table.Keys, picks);
    const answer = await (left.length === 0
      ? answered({ Responses: { [name]: [] } })
      : pass({ ...body, RequestItems: { [name]: { ...table, Keys: left } } }));
    if (Keys.length === 0) return answer;
    return withMembers(answer, { UnprocessedKeys: { [name]: { ...table, Keys } } });
  }
  const [failing, left] = divide(body.Entries as readonly Entry[], picks);
  const asked = applied ? (body.Entries as readonly Entry[]) : left;
  const answer = await (asked.length === 0
    ? answered({ Successful: [], Failed: [] })
    : pass({ ...body, Entries: asked }));
  if (answer.status !== 200) return answer;
  const { Successful = [], Failed = [] } = JSON.parse(answer.body) as Record<string, readonly Entry[]>;
  const code = senderFault ? 'InvalidMessageContents' : 'InternalError';
  const failed = failing.map(({ Id }) => ({ Id, SenderFault: senderFault, Code: code, Message: 'Failed' }));
  const ids = new Set(failing.map(({ Id }) => Id));
  return withMembers(answer, {
    Successful: Successful.filter(({ Id }) => !ids.has(Id)),
    Failed: [...Failed, ...failed],
  });
}

function divide<T>(all: readonly T[], picks: (index: number, text: string) => boolean): [T[], T[]] {
  const picked = all.filter((each, index) => picks(index, JSON.stringify(each)));
  return [picked, all.filter((each) => !picked.includes(each))];
}

async function answered(body: Json): Promise<Answer> {
  return {
    status: 200,
    headers: { 'content-type': 'application/x-amz-json-1.0' },
    body: JSON.stringify(body),
  };
}

function withMembers(answer: Answer, members: Json): Answer {
  if (answer.status !== 200) return answer;
  return { ...answer, body: JSON.stringify({ ...(JSON.parse(answer.body) as Json), ...members }) };
}
