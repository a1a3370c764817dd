// The table of bad days: one row for each service, operation and fault, and for each point at which a process can be
// killed. Rows that need the same stack are one stage.

import assert from 'node:assert/strict';
import { seeded } from '../functions/dispatch/tasks.ts';
import { until } from '../resources.ts';
import type { Call } from './call.ts';
import type { Fault } from './fault.ts';
import type { Deliver } from './faulty-stack.ts';
import type { Resident, Scene, SceneOptions, Start } from './scene.ts';

/** A fault, and the calls that meet it. */
export interface Rule {
  /** In a row with several. */
  readonly name?: string;
  readonly meets: (call: Call) => boolean;
  readonly fault: Fault;
}

export interface Row {
  readonly name: string;
  /** Each must happen. */
  readonly rules: readonly Rule[];
  /** Default: that of the stage. */
  readonly start?: Start;
  /** Where that ends which the run could not do. Default: there is nothing. */
  readonly ends?: 'refresh-dlq' | 'request-dlq' | 'failures' | 'next run';
  /** What comes more than once: tasks for a domain, deliveries of a message. Default: nothing does. */
  readonly repeats?: 'tasks' | 'deliveries' | 'perhaps';
  /** What is logged as an error. Default: nothing. */
  readonly errors?: RegExp;
  readonly deliver?: Deliver;
  /** What else happens during the run. */
  readonly meanwhile?: (scene: Scene) => Promise<unknown>;
  /** What the checks find, in rows that show that they do. */
  readonly breaks?: RegExp;
}

export interface Stage {
  readonly name: string;
  readonly start: Start;
  readonly options: SceneOptions;
  readonly rows: readonly Row[];
}

/** The fixture of `plan` that works in small blocks. */
export const IN_BLOCKS = 'plan-in-small-blocks';

const THROTTLED: Fault = { kind: 'throttle' };
const ERROR: Fault = { kind: 'error', status: 500 };
const CUT: Fault = { kind: 'cut', applied: false };
const LOST: Fault = { kind: 'cut', applied: true };
const TWICE: Fault = { kind: 'twice' };
const KILLED: Fault = { kind: 'kill', applied: false };
const DONE_AND_KILLED: Fault = { kind: 'kill', applied: true };

/** A little more than the five seconds for which a client waits for an answer. */
const TOO_LATE_MS = 5_300;

/** What can happen to any call. The SDK's own attempts make it good. */
const COMMON: readonly (readonly [name: string, fault: Fault])[] = [
  ['throttled', THROTTLED],
  ['answered 500', ERROR],
  ['answered 503, in HTML', { kind: 'error', status: 503 }],
  ['carried out, and answered 500', { kind: 'error', status: 500, applied: true }],
  ['cut before it arrives', CUT],
  ['carried out, its answer lost', LOST],
  ['carried out, its answer cut off', { kind: 'truncate' }],
  ['slow', { kind: 'delay', ms: 300 }],
  ['overtaken by others', { kind: 'hold', passes: 2, atMostMs: 300 }],
  ['carried out twice', TWICE],
];

/** Whether a call that meets it is carried out twice, sooner or later. */
function doubles(fault: Fault): boolean {
  return (
    fault.kind === 'twice' || fault.kind === 'truncate' || ('applied' in fault && fault.applied === true)
  );
}

/** @param turns which of these calls; all if there are none. */
function on(by: string, operation: string, fault: Fault, ...turns: number[]): Rule {
  const meets = (call: Call) =>
    call.by === by && call.operation === operation && (turns.length === 0 || turns.includes(call.turn));
  return { meets, fault };
}

/** Only calls about these domains. */
function about(part: string, { meets, fault }: Rule): Rule {
  return { meets: (call) => meets(call) && call.domains.some((domain) => domain.includes(part)), fault };
}

/** The first call alone. */
function once({ meets, fault }: Rule): Rule {
  let met = false;
  return {
    fault,
    meets(call) {
      if (met || !meets(call)) return false;
      met = true;
      return true;
    },
  };
}

/**
 * Rows for an operation: each of the common faults happens to one call.
 *
 * @param calls so many there are in a run, without repetitions; or the name of domains, each of which has its own.
 */
function each(by: string, operation: string, calls: number | string, differs: Partial<Row> = {}): Row[] {
  const rows: Row[] = [];
  const rule = (fault: Fault, i: number) =>
    typeof calls === 'number'
      ? on(by, operation, fault, i + 1)
      : once(about(`${calls}-${i}.`, on(by, operation, fault)));
  const inOne = typeof calls === 'number' ? calls : COMMON.length;
  for (let i = 0; i < COMMON.length; i += inOne) {
    const some = COMMON.slice(i, i + inOne);
    rows.push({
      name: `${by} ${operation}: ${some.map(([name]) => name).join('; ')}`,
      rules: some.map(([name, fault], turn) => ({ name, ...rule(fault, turn) })),
      ...(some.some(([, fault]) => doubles(fault)) ? differs : {}),
    });
  }
  return rows;
}

/** Rows of operations that do not come in each other's way, in the same runs. */
function together(...tables: readonly (readonly Row[])[]): Row[] {
  const length = Math.max(...tables.map((rows) => rows.length));
  return Array.from({ length }, (_, i) => {
    const rows = tables.flatMap((table) => table[i] ?? []);
    const name = rows.map((row) => row.name).join(' | ');
    return Object.assign({}, ...rows, { name, rules: rows.flatMap(({ rules }) => rules) }) as Row;
  });
}

const TASKS = { repeats: 'tasks' } as const;
const DELIVERIES = { repeats: 'deliveries' } as const;

const every = (nth: number) => (index: number) => index % nth === 0;
const named = (part: string) => (_: number, text: string) => text.includes(part);

const DIED = /^event source: FunctionError: Runtime exited without an answer: SIGKILL$/;

function killed(when: string, rule: Rule, differs: Partial<Row> = {}): Row {
  return { name: `killed: ${when}`, rules: [rule], ...differs };
}

/** Killed at calls that seeds choose. The last column is how many of them there are. */
function killedAtRandom(
  points: readonly (readonly [by: string, operation: string, calls: number])[],
  differs: Partial<Row>,
): Row[] {
  const all = points.flatMap(([by, operation, calls]) =>
    Array.from({ length: calls }, (_, i) => ({ by, operation, turn: i + 1 })),
  );
  return [2, 4, 5].map((seed) => {
    const random = seeded(seed * 1_000_003);
    const { by, operation, turn } = all[Math.floor(random() * all.length)] as (typeof all)[number];
    const applied = random() < 0.5;
    const when = `seed ${seed}, ${by}, ${applied ? 'after' : 'before'} ${operation} number ${turn}`;
    const rule = on(by, operation, { kind: 'kill', applied }, turn);
    return killed(when, rule, { repeats: 'perhaps', ...differs });
  });
}

/**
 * A domain is refreshed by somebody else just before `refresh` writes what it has read.
 *
 * @param also what else happens to that write.
 */
function overtaken(also?: 'without its condition'): Pick<Row, 'rules' | 'meanwhile'> {
  const caught = Promise.withResolvers<string>();
  const newer = Promise.withResolvers<void>();
  const write = about(
    'extended-0.',
    on('refresh', 'UpdateItem', { kind: 'stall', until: newer.promise, forget: also !== undefined }),
  );
  const meets = (call: Call) => {
    if (!write.meets(call)) return false;
    caught.resolve(call.domains[0] ?? '');
    return true;
  };
  return {
    rules: [{ meets, fault: write.fault }],
    meanwhile: async ({ rival }) => {
      const domain = (await caught.promise) as Resident['domain'];
      const { records } = await rival.read([domain]);
      const { lastUpdate = 0, validEnd = 0 } = records.get(domain) ?? {};
      const change = { kind: 'extend', lastUpdate: Date.now(), validEnd: validEnd + 1 } as const;
      assert.equal(await rival.write(domain, change, lastUpdate), 'written');
      newer.resolve();
    },
  };
}

/** The first schedule after a message: of the second block. */
function betweenBlocks(): Rule {
  let sent = false;
  return once({
    fault: KILLED,
    meets({ by, operation }) {
      sent ||= by === 'plan' && operation === 'SendMessageBatch';
      return sent && by === 'plan' && operation === 'CreateSchedule';
    },
  });
}

const AT_ONCE = {
  refreshBatchSize: 10,
  refreshWindowSeconds: 0.1,
  retryDelayMs: 50,
  visibilityTimeoutSeconds: 600,
  maxReceiveCount: 3,
  environment: { SPREAD_SECONDS: '1', WAVE_SECONDS: '1', SCHEDULE_LATENESS_SECONDS: '1' },
} as const;

/** The most of it in waves. */
const IN_WAVES = { ...AT_ONCE, environment: { ...AT_ONCE.environment, SPREAD_SECONDS: '5' } } as const;

/** Polling goes on all the time, so one fault at a time. */
const receiving = COMMON.filter(([, { kind }]) => kind !== 'hold').map(
  ([name, fault]): Row => ({
    name: `poller-refresh ReceiveMessage: ${name}`,
    rules: [on('poller-refresh', 'ReceiveMessage', fault, 1)],
    ...(doubles(fault) ? DELIVERIES : {}),
  }),
);

const sending = (by: 'plan' | 'dispatch', start: Start): Row[] => {
  const send = (fault: Fault, ...turns: number[]) => on(by, 'SendMessageBatch', fault, ...turns);
  const rows: Row[] = [
    ...together(
      each(by, 'SendMessageBatch', 3, TASKS),
      by === 'plan' ? each('plan', 'DeleteItem', 2) : [],
      by === 'plan' ? each('plan', 'Scan', 2) : [],
    ),
    {
      name: `${by} SendMessageBatch: some entries fail; all do; some do, and are sent all the same`,
      rules: [
        send({ kind: 'partial', picks: every(3) }, 1),
        send({ kind: 'partial', picks: every(1) }, 2),
        send({ kind: 'partial', picks: every(2), applied: true }, 3),
      ],
      repeats: 'tasks',
    },
    {
      name: `${by} SendMessageBatch: one entry is always refused`,
      rules: [
        about('replaced-0.', send({ kind: 'partial', picks: named('replaced-0.'), senderFault: true })),
      ],
      ends: 'failures',
      repeats: 'tasks',
    },
    {
      name: `${by} SendMessageBatch: answered too late`,
      rules: [send({ kind: 'delay', ms: TOO_LATE_MS, applied: true }, 1)],
      repeats: 'tasks',
    },
    { name: `${by} SendMessageBatch: always fails`, rules: [send(ERROR)], ends: 'failures' },
    killed(`${by}, before it sends`, send(KILLED, 1), { repeats: 'perhaps' }),
    killed(`${by}, half way through what it sends`, send(DONE_AND_KILLED, 2), { repeats: 'tasks' }),
    killed(`${by}, as it has sent all`, send(DONE_AND_KILLED, 3), { repeats: 'tasks' }),
    killed(`${by}, each time before it sends`, send(KILLED), { ends: 'failures' }),
  ];
  return rows.map((row) => ({ ...row, start }));
};

/** What cannot be done, until SQS gives up. */
const deadLetters = [
  {
    name: 'refresh BatchGetItem: one key is never processed',
    rules: [
      about('replaced-1.', on('refresh', 'BatchGetItem', { kind: 'partial', picks: named('replaced-1.') })),
    ],
    errors:
      /^refresh: domain failed, SQS delivers its message again \(Error: DynamoDB left the item unread\)$/,
  },
  {
    name: 'refresh BatchGetItem: always fails',
    rules: [on('refresh', 'BatchGetItem', ERROR)],
    errors: /^refresh: batch failed, SQS delivers its messages again \(InternalServerError/,
  },
  {
    name: 'refresh UpdateItem: always fails for one domain',
    rules: [about('extended-1.', on('refresh', 'UpdateItem', ERROR))],
    errors: /^refresh: domain failed, SQS delivers its message again \(InternalServerError/,
  },
  {
    name: 'poller-refresh DeleteMessageBatch: always fails',
    rules: [on('poller-refresh', 'DeleteMessageBatch', ERROR)],
    errors: /^event source: InternalError/,
  },
  killed('refresh, each time before it reads', on('refresh', 'BatchGetItem', KILLED), { errors: DIED }),
].map((row): Row => ({ ends: 'refresh-dlq', repeats: 'deliveries', ...row }));

export const STAGES: readonly Stage[] = [
  {
    name: 'plan',
    start: 'plan',
    options: { ...AT_ONCE, functions: ['plan', 'refresh'], settings: { plan: { concurrency: 2 } } },
    rows: [
      { name: 'no fault', rules: [] },
      { name: 'plan Scan: always fails', rules: [on('plan', 'Scan', ERROR)], ends: 'failures' },
      {
        name: 'plan DeleteItem: always fails',
        rules: [on('plan', 'DeleteItem', CUT)],
        ends: 'next run',
        errors: /^plan: entry not pruned, the next run tries again/,
      },
      {
        name: 'two plans at once',
        rules: [on('plan', 'Scan', { kind: 'delay', ms: 300 })],
        meanwhile: ({ stack }) => stack.functions.plan.invokeAsync({ kind: 'daily', runId: 'other' }),
        repeats: 'tasks',
      },
      killed('plan, while it reads', on('plan', 'Scan', DONE_AND_KILLED, 1)),
      killed('plan, as it has pruned', on('plan', 'DeleteItem', DONE_AND_KILLED, 1)),
      ...killedAtRandom(
        [
          ['plan', 'Scan', 4],
          ['plan', 'DeleteItem', 2],
          ['plan', 'SendMessageBatch', 3],
        ],
        {},
      ),
    ],
  },
  {
    name: 'sending',
    start: 'plan',
    options: { ...AT_ONCE, functions: ['plan', 'dispatch', 'refresh'] },
    rows: [...sending('plan', 'plan'), ...sending('dispatch', 'wave')],
  },
  {
    name: 'refresh',
    start: 'tasks',
    options: { ...AT_ONCE, functions: ['refresh'], settings: { refresh: { concurrency: 2 } } },
    rows: [
      ...together(
        each('refresh', 'UpdateItem', 'extended'),
        each('refresh', 'BatchGetItem', 2),
        each('refresh', 'DeleteItem', 2),
      ),
      {
        name: 'refresh BatchGetItem: some keys unprocessed; all are',
        rules: [
          on('refresh', 'BatchGetItem', { kind: 'partial', picks: every(2) }, 1),
          on('refresh', 'BatchGetItem', { kind: 'partial', picks: every(1) }, 2),
        ],
      },
      {
        name: 'refresh UpdateItem: answered too late',
        rules: [on('refresh', 'UpdateItem', { kind: 'delay', ms: TOO_LATE_MS, applied: true }, 1, 2)],
      },
      {
        name: 'refresh UpdateItem: its answer stops half way',
        rules: [on('refresh', 'UpdateItem', { kind: 'stop' }, 1, 2)],
      },
      {
        name: 'refresh UpdateItem: arrives after its repetition',
        rules: [on('refresh', 'UpdateItem', { kind: 'delay', ms: TOO_LATE_MS }, 1, 2)],
        meanwhile: ({ journal }) => until(() => journal.refused === 2, 'two writes are refused'),
      },
      { name: 'refresh UpdateItem: a newer write comes first', ...overtaken() },
      {
        name: 'checked: a newer write comes first, and the condition is forgotten',
        ...overtaken('without its condition'),
        breaks: /^\S+extended-0.test: refresh by refresh-\d is over version \d+, but was made of \d+$/m,
      },
    ],
  },
  {
    name: 'deliveries',
    start: 'tasks',
    options: { ...AT_ONCE, functions: ['refresh'] },
    rows: [
      ...receiving,
      // Its client tries three times; then the messages come again.
      ...each('poller-refresh', 'DeleteMessageBatch', 3).map(
        (row): Row => ({ ...row, repeats: 'perhaps', errors: /^event source: / }),
      ),
      {
        name: 'poller-refresh ReceiveMessage: delivers twice',
        rules: [on('poller-refresh', 'ReceiveMessage', { kind: 'redeliver' })],
        repeats: 'deliveries',
      },
      {
        name: 'poller-refresh DeleteMessageBatch: some entries fail',
        rules: [on('poller-refresh', 'DeleteMessageBatch', { kind: 'partial', picks: every(2) }, 1, 2)],
        repeats: 'deliveries',
        errors: /^event source: Error: DeleteMessageBatch failed for \d/,
      },
      ...deadLetters,
    ],
  },
  {
    name: 'killed',
    start: 'tasks',
    options: {
      ...AT_ONCE,
      functions: ['refresh'],
      settings: { refresh: { concurrency: 2 } },
    },
    rows: [
      killed('refresh, before it reads', on('refresh', 'BatchGetItem', KILLED, 1)),
      killed('refresh, as it has read', on('refresh', 'BatchGetItem', DONE_AND_KILLED, 2)),
      killed('refresh, before it writes', on('refresh', 'UpdateItem', KILLED, 1)),
      killed(
        'refresh, after a write, before the acknowledgement',
        on('refresh', 'UpdateItem', DONE_AND_KILLED, 8),
      ),
      killed('refresh, after a removal', on('refresh', 'DeleteItem', DONE_AND_KILLED, 1)),
      killed(
        'refresh, after the note of a failure',
        once(about('kept', on('refresh', 'UpdateItem', DONE_AND_KILLED))),
      ),
      ...killedAtRandom(
        [
          ['refresh', 'BatchGetItem', 3],
          ['refresh', 'UpdateItem', 19],
          ['refresh', 'DeleteItem', 2],
        ],
        { repeats: 'deliveries' },
      ),
    ].map((row): Row => ({ repeats: 'deliveries', errors: DIED, ...row })),
  },
  {
    name: 'requests',
    start: 'requests',
    options: { ...AT_ONCE, asked: true, functions: ['request'] },
    rows: [
      ...together(each('request', 'UpdateItem', 'discovered'), each('request', 'BatchGetItem', 2)),
      {
        name: 'request BatchGetItem: some keys unprocessed',
        rules: [on('request', 'BatchGetItem', { kind: 'partial', picks: every(2) }, 1, 2)],
      },
      {
        name: 'poller-request ReceiveMessage: delivers twice',
        rules: [on('poller-request', 'ReceiveMessage', { kind: 'redeliver' })],
        repeats: 'deliveries',
      },
      killed(
        'request, as it has discovered',
        once(about('discovered-2.', on('request', 'UpdateItem', DONE_AND_KILLED))),
        { repeats: 'deliveries', errors: DIED },
      ),
      killed(
        'request, as it has noted a use',
        once(about('used', on('request', 'UpdateItem', DONE_AND_KILLED))),
        {
          repeats: 'deliveries',
          errors: DIED,
        },
      ),
      {
        name: 'request UpdateItem: always fails for one domain',
        rules: [about('discovered-1.', on('request', 'UpdateItem', ERROR))],
        ends: 'request-dlq',
        repeats: 'deliveries',
        errors: /^request: domain failed, SQS delivers its message again \(InternalServerError/,
      },
    ],
  },
  {
    name: 'waves',
    start: 'plan',
    options: { ...IN_WAVES, functions: ['plan', 'dispatch', 'refresh'] },
    // A schedule that was carried out is gone, so its repetition makes it anew and its tasks are sent again.
    rows: [...each('plan', 'CreateSchedule', 2, { repeats: 'perhaps' })],
  },
  {
    name: 'later waves',
    start: 'plan',
    options: { ...IN_WAVES, functions: ['plan', 'dispatch', 'refresh'] },
    rows: [
      {
        name: 'plan CreateSchedule: always fails',
        rules: [on('plan', 'CreateSchedule', ERROR)],
        ends: 'failures',
      },
      {
        name: 'plan CreateSchedule: arrives when its time is past',
        rules: [on('plan', 'CreateSchedule', { kind: 'delay', ms: 4_000 })],
      },
      { name: 'schedules are delivered twice', rules: [], deliver: twice, repeats: 'tasks' },
    ],
  },
  {
    name: 'blocks',
    start: 'plan',
    options: {
      ...IN_WAVES,
      functions: ['plan', 'dispatch', 'refresh'],
      plan: IN_BLOCKS,
    },
    rows: [
      { name: 'no fault, in small blocks', rules: [] },
      killed('plan, as it has scheduled a wave', on('plan', 'CreateSchedule', DONE_AND_KILLED, 1), {
        repeats: 'tasks',
      }),
      killed('plan, between scheduling and sending', on('plan', 'SendMessageBatch', KILLED, 1), {
        repeats: 'tasks',
      }),
      killed('plan, between blocks', betweenBlocks(), { repeats: 'tasks' }),
    ],
  },
];

function twice(invoke: () => void): void {
  invoke();
  invoke();
}
