// The bad days of a soak, drawn from a seed beforehand: which call of which function meets what, when a service is out,
// and when processes are killed. The same seed draws the same; which domain a call is about is the moment's.

import { seeded } from '../functions/dispatch/tasks.ts';
import type { Call, Service } from './call.ts';
import type { Fault, Programme } from './fault.ts';

type Draw = () => number;

/** Of a hundred calls, so many meet a fault; those of functions that make few, more. */
const FAULTS_IN_A_HUNDRED = 15;
const FAULTS_OF_THE_RARE = 30;
const RARE = ['plan', 'dispatch'];

type Template = (random: Draw) => Fault;

/** What a fault may be, and how often compared with the others. */
const ANY: readonly (readonly [weight: number, fault: Template])[] = [
  [4, () => ({ kind: 'throttle' })],
  [2, (random) => ({ kind: 'error', status: random() < 0.5 ? 500 : 503 })],
  [1, () => ({ kind: 'error', status: 500, applied: true })],
  [2, () => ({ kind: 'cut', applied: false })],
  [4, () => ({ kind: 'cut', applied: true })],
  [2, () => ({ kind: 'truncate' })],
  [3, (random) => ({ kind: 'delay', ms: 50 + random() * 900 })],
  [2, (random) => ({ kind: 'hold', passes: 1 + Math.floor(random() * 3), atMostMs: 800 })],
  [2, () => ({ kind: 'twice' })],
  [0.3, (random) => ({ kind: 'delay', ms: 5_300, applied: random() < 0.5 })],
  [0.2, () => ({ kind: 'stop' })],
];

const KILL: readonly [number, Template] = [0.5, (random) => ({ kind: 'kill', applied: random() < 0.6 })];

const PARTIAL: readonly [number, Template] = [
  6,
  (random) => {
    const nth = 1 + Math.floor(random() * 3);
    return { kind: 'partial', picks: (index) => index % nth === 0, applied: random() < 0.3 };
  },
];

const REDELIVER: readonly [number, Template] = [8, () => ({ kind: 'redeliver' })];

function templatesFor({ by, operation }: Call): readonly (readonly [number, Template])[] {
  const batches = /Batch/.test(operation) ? [PARTIAL] : [];
  const receives = operation === 'ReceiveMessage' ? [REDELIVER] : [];
  const dies = by === 'rival' || by.startsWith('poller') ? [] : [KILL];
  return [...ANY, ...batches, ...receives, ...dies];
}

interface Outage {
  readonly service: Service;
  /** Milliseconds from the beginning of its day. */
  readonly from: number;
  readonly to: number;
}

export interface Weather {
  readonly programme: Programme;
  /** Of each day. */
  readonly outages: readonly (readonly Outage[])[];
  /** Moments of each day at which some process is killed, milliseconds from its beginning. */
  readonly kills: readonly (readonly number[])[];
}

const SERVICES: readonly Service[] = ['dynamodb', 'sqs', 'scheduler'];
const OUTAGES_A_DAY = 2;
const KILLS_A_DAY = 4;

/** @param time milliseconds since the first day began. */
export function createWeather(
  { seed, days, dayMs }: { seed: number; days: number; dayMs: number },
  time: () => number,
): Weather {
  const random = seeded(seed);
  const outages = Array.from({ length: days }, () =>
    Array.from({ length: OUTAGES_A_DAY }, () => {
      const from = random() * dayMs;
      const service = SERVICES[Math.floor(random() * SERVICES.length)] as Service;
      return { service, from, to: from + 800 + random() * 1_500 };
    }),
  );
  const kills = Array.from({ length: days }, () =>
    Array.from({ length: KILLS_A_DAY }, () => random() * dayMs).sort((a, b) => a - b),
  );
  /** Each function's calls of an operation have draws of their own, so that none depends on how others interleave. */
  const draws = new Map<string, Draw>();

  const isOut = (service: Service) => {
    const day = Math.floor(time() / dayMs);
    const at = time() % dayMs;
    return outages[day]?.some((outage) => outage.service === service && at >= outage.from && at < outage.to);
  };

  return {
    outages,
    kills,
    programme(call) {
      const { by, operation, service } = call;
      const key = `${by} ${operation}`;
      const draw = draws.get(key) ?? seeded(hash(`${seed} ${key}`));
      draws.set(key, draw);
      const meets = draw() * 100 < (RARE.includes(by) ? FAULTS_OF_THE_RARE : FAULTS_IN_A_HUNDRED);
      const fault = pick(templatesFor(call), draw);
      if (by !== 'rival' && isOut(service)) return { kind: 'error', status: 503 };
      return meets ? fault : undefined;
    },
  };
}

function pick(templates: readonly (readonly [number, Template])[], draw: Draw): Fault {
  const total = templates.reduce((sum, [weight]) => sum + weight, 0);
  let left = draw() * total;
  // Always as many draws, whatever comes of them.
  const random = seeded(Math.floor(draw() * 2 ** 32));
  for (const [weight, template] of templates) {
    left -= weight;
    if (left < 0) return template(random);
  }
  return { kind: 'throttle' };
}

/** FNV-1a, 32 bits. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const unit of text) value = Math.imul(value ^ unit.charCodeAt(0), 0x01000193);
  return value >>> 0;
}
