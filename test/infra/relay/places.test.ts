import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createPlaces, type PlaceLimits, type Taken } from '../../../infra/relay/places.ts';
import { idle } from './scene.ts';

const PATIENT = new AbortController().signal;
const LIMITS: PlaceLimits = { places: 256, waiting: 4_096, perDomain: 6, perRegistrable: 8 };

function open(limits: Partial<PlaceLimits> = {}) {
  const places = createPlaces({ ...LIMITS, ...limits });
  const order: string[] = [];
  const take = (domain: string, signal = PATIENT) => {
    const request: { domain: string; taken: Taken | undefined; leave(): void } = {
      domain,
      taken: undefined,
      leave: () => {
        assert.ok(request.taken?.kind === 'taken', `${domain} has no place`);
        request.taken.leave();
      },
    };
    void places.take(domain, signal).then((taken) => {
      request.taken = taken;
      order.push(`${domain} ${taken.kind}`);
    });
    return request;
  };
  const takeMany = (domain: string, count: number) => Array.from({ length: count }, () => take(domain));
  return { take, takeMany, order };
}

type Requests = ReturnType<ReturnType<typeof open>['takeMany']>;
const countOf = (requests: Requests, kind: Taken['kind'] | undefined) =>
  requests.filter(({ taken }) => taken?.kind === kind).length;

const crowds: [who: string, domains: string[], held: number][] = [
  ['a name', ['a.test'], 6],
  ['two names of one owner', ['x.a.test', 'y.a.test'], 8],
  ['a hundred names of one owner', Array.from({ length: 100 }, (_, i) => `n${i}.a.test`), 8],
  // Hosting companies' customers are owners of their own (publicsuffix.org).
  ['two customers of one company', ['a.github.io', 'b.github.io'], 12],
  ['ten strangers', Array.from({ length: 10 }, (_, i) => `s${i}.test`), 60],
  // When half of the places are taken, the others are for who has none.
  ['a hundred strangers', Array.from({ length: 100 }, (_, i) => `s${i}.test`), 206],
  ['more strangers than places', Array.from({ length: 300 }, (_, i) => `s${i}.test`), 256],
];

for (const [who, domains, held] of crowds) {
  test(`${who} and 40 questions each: ${held} places`, async () => {
    const { takeMany, take, order } = open();
    const requests = domains.flatMap((domain) => takeMany(domain, 40));
    await idle();
    assert.equal(countOf(requests, 'taken'), held);
    const newcomer = take('newcomer.example');
    await idle();
    if (held < LIMITS.places) {
      assert.equal(newcomer.taken?.kind, 'taken');
      return;
    }
    // The next one is the first who has none: 150 have, and their other questions came before.
    requests.find(({ taken }) => taken?.kind === 'taken')?.leave();
    await idle();
    assert.equal(order.at(-1), 's150.test taken');
  });
}

test('whose owner holds least is next, then whose domain does, then who came first', async () => {
  const { take, takeMany, order } = open({ places: 8 });
  takeMany('x.a.test', 2);
  const others = ['b.test', 'c.test', 'd.test', 'e.test', 'f.test', 'g.test'].map((domain) => take(domain));
  await idle();
  const waiting = ['x.a.test', 'y.a.test', 'x.h.test', 'y.h.test'].map((domain) => take(domain));
  await idle();
  order.length = 0;
  for (const request of [...others, waiting[2]]) {
    request?.leave();
    await idle();
  }
  assert.deepEqual(order, ['x.h.test taken', 'y.h.test taken', 'y.a.test taken']);
});

test('one owner cannot fill the room in which everybody waits', async () => {
  const { takeMany, take } = open({ places: 2 });
  takeMany('x.holder.test', 1);
  takeMany('x.other.test', 1);
  const flood = Array.from({ length: 100 }, (_, i) => takeMany(`n${i}.a.test`, 50)).flat();
  await idle();
  // A sixteenth of the room.
  assert.equal(countOf(flood, undefined), 241);
  assert.equal(countOf(flood, 'full'), flood.length - 241);
  const newcomer = take('newcomer.example');
  await idle();
  assert.equal(newcomer.taken, undefined, 'it may wait');
});

test('who gives up waits no more, and who has given up before does not begin to', async () => {
  const { take } = open({ places: 1 });
  const holder = take('a.test');
  const impatient = new AbortController();
  const waiting = take('b.test', impatient.signal);
  const next = take('c.test');
  await idle();
  impatient.abort();
  await idle();
  assert.equal(waiting.taken?.kind, 'aborted');
  holder.leave();
  const late = take('d.test', impatient.signal);
  await idle();
  assert.deepEqual([next.taken?.kind, late.taken?.kind], ['taken', 'aborted']);
});

test('whatever happens, no limit is passed, no place is lost, and nobody without one waits beside one', async () => {
  const limits: PlaceLimits = { places: 5, waiting: 6, perDomain: 2, perRegistrable: 3 };
  const names = ['x.a.test', 'y.a.test', 'z.a.test', 'b.test', 'x.c.test', 'd.test', 'e.test', 'f.test'];
  const step = fc.record({
    name: fc.constantFrom(...names),
    what: fc.constantFrom('take', 'take', 'leave', 'abort'),
    which: fc.nat(20),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const { take } = open(limits);
      const all: { request: Requests[number]; giveUp: AbortController; left: boolean }[] = [];
      const holding = () => all.filter(({ request, left }) => request.taken?.kind === 'taken' && !left);
      const waiting = () => all.filter(({ request }) => request.taken === undefined);
      for (const { name, what, which } of steps) {
        if (what === 'take') {
          const giveUp = new AbortController();
          all.push({ request: take(name, giveUp.signal), giveUp, left: false });
        } else if (what === 'leave') {
          const some = holding();
          const one = some[which % Math.max(1, some.length)];
          if (one !== undefined) {
            one.left = true;
            one.request.leave();
          }
        } else {
          const some = waiting();
          some[which % Math.max(1, some.length)]?.giveUp.abort();
        }
        await Promise.resolve();
        await Promise.resolve();
        const held = holding().map(({ request }) => request.domain);
        assert.ok(held.length <= limits.places);
        assert.ok(waiting().length <= limits.waiting);
        assert.ok(held.filter((domain) => domain.endsWith('a.test')).length <= limits.perRegistrable);
        for (const domain of names)
          assert.ok(held.filter((each) => each === domain).length <= limits.perDomain);
        if (held.length < limits.places) {
          const owners = new Set(held.map((domain) => domain.split('.').slice(-2).join('.')));
          for (const { request } of waiting())
            assert.ok(owners.has(request.domain.split('.').slice(-2).join('.')), request.domain);
        }
      }
      for (const { giveUp } of waiting()) giveUp.abort();
      for (const each of holding()) {
        each.left = true;
        each.request.leave();
      }
      const again = ['1.test', '2.test', '3.test', '4.test', '5.test'].map((domain) => take(domain));
      await Promise.resolve();
      await Promise.resolve();
      assert.equal(countOf(again, 'taken'), limits.places);
    }),
    { numRuns: 200 },
  );
});
