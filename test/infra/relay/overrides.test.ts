import assert from 'node:assert/strict';
import { chmod, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { type Domain, parseDomain } from '../../../functions/mtasts/domain.ts';
import {
  type Override,
  OverridesError,
  openOverrides,
  parseOverrides,
} from '../../../infra/relay/overrides.ts';
import { makeFolder, type Scope, until } from '../../resources.ts';
import { createRecorder } from './observer.ts';

const folder = await makeFolder({ after }, 'relay-overrides');
let files = 0;
/** Looks for changes at intervals so long that only `reload` finds any. */
const NEVER_MS = 3_600_000;

/** An override map that is closed with the scope, and what it says of itself. */
async function open(scope: Scope, file: string | undefined, pollMs = NEVER_MS) {
  const { metrics, told, gauge } = createRecorder();
  const opening = openOverrides(file, { observer: metrics, pollMs });
  // Before it is open: whoever expects it not to open may not wait for it.
  scope.after(async () => (await opening.catch(() => undefined))?.close());
  const overrides = await opening;
  return { overrides, told, gauge };
}

const newFile = () => join(folder, `overrides-${++files}`);

function domainOf(text: string): Domain {
  const parsed = parseDomain(text);
  assert.ok(parsed.ok);
  return parsed.domain;
}

const read: [name: string, line: string, domain: string, override: Override][] = [
  ['never apply MTA-STS', 'example.com off', 'example.com', { action: 'off' }],
  ['hold the mail', 'example.com defer', 'example.com', { action: 'defer' }],
  [
    'a policy of the operator',
    'example.com secure match=mx.example.net:.example.org servername=hostname',
    'example.com',
    { action: 'policy', text: 'secure match=mx.example.net:.example.org servername=hostname' },
  ],
  ['a level alone', 'example.com encrypt', 'example.com', { action: 'policy', text: 'encrypt' }],
  ['tabs between', 'example.com\t\tmay', 'example.com', { action: 'policy', text: 'may' }],
  ['blanks around, CRLF', '  example.com  off \r', 'example.com', { action: 'off' }],
  ['upper case and a trailing dot', 'EXAMPLE.com. off', 'example.com', { action: 'off' }],
  ['U-labels', 'b\u00FCcher.example off', 'xn--bcher-kva.example', { action: 'off' }],
];

for (const [name, line, domain, override] of read) {
  test(`a line: ${name}`, () => {
    const parsed = parseOverrides(`# comment\n\n${line}\n`);
    assert.ok(parsed.ok);
    assert.deepEqual([...parsed.overrides], [[domain, override]]);
  });
}

const refused: [name: string, text: string, flaw: RegExp][] = [
  ['no action', 'example.com', /^Line 1: "" is no action: it should be "off", "defer" or a policy/],
  ['an unknown action', 'example.com on', /"on" is no action/],
  ['an action in upper case', 'example.com OFF', /"OFF" is no action/],
  ['more after the action', 'example.com off please', /"off please" is no action/],
  ['no level', 'example.com match=mx.example.com', /"match=mx\.example\.com" is no action/],
  ['an unknown level', 'example.com strict match=mx.example.com', /is no action/],
  ['a comment after the action', 'example.com off # for now', /"off # for now" is no action/],
  ['a control character', 'example.com secure match=\x07', /is no action/],
  ['not ASCII', 'example.com secure match=b\u00FCcher.example', /is no action/],
  ['longer than anybody writes', `example.com secure match=${'x'.repeat(4_096)}`, /is no action/],
  ['no domain', '*.example.com off', /^Line 1: The domain "\*\.example\.com" has the character "\*"/],
  ['a smart host', '[smtp.example.com] off', /the character "\["/],
  [
    'the same domain twice',
    'example.com off\nEXAMPLE.com defer',
    /^Line 2: there is another line for example\.com before\.$/,
  ],
];

for (const [name, text, flaw] of refused) {
  test(`refused: ${name}`, () => {
    const parsed = parseOverrides(text);
    assert.ok(!parsed.ok);
    assert.match(parsed.flaws[0] ?? '', flaw);
  });
}

test('every bad line is named, up to ten', () => {
  const parsed = parseOverrides(Array.from({ length: 30 }, () => 'x').join('\n'));
  assert.ok(!parsed.ok);
  assert.equal(parsed.flaws.length, 10);
  assert.match(parsed.flaws[9] ?? '', /^Line 10: /);
});

test('no text makes the parser throw, and what it refuses can be printed', () => {
  const part = fc.oneof(
    fc.constantFrom('example.com', ' ', '\n', 'off', 'defer', 'secure', '#', '\0'),
    fc.string({ unit: 'binary' }),
  );
  fc.assert(
    fc.property(fc.array(part), (parts) => {
      const parsed = parseOverrides(parts.join(''));
      if (!parsed.ok)
        for (const flaw of parsed.flaws) assert.doesNotMatch(flaw, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u);
    }),
  );
});

test('without a file there are no overrides', async (t) => {
  const { overrides } = await open(t, undefined);
  assert.equal(overrides.get(domainOf('example.com')), undefined);
  await overrides.reload();
});

const unusable: [name: string, content: string | undefined, message: RegExp][] = [
  ['it is not there', undefined, /^RELAY_OVERRIDES: .*overrides-\d+ cannot be used\. ENOENT/],
  ['a line is bad', 'example.com off\nexample.net x\n', /cannot be used\. Line 2: "x" is no action/],
];

for (const [name, content, message] of unusable) {
  test(`at the start, a file that cannot be used is an error: ${name}`, async (t) => {
    const file = newFile();
    if (content !== undefined) await writeFile(file, content);
    await assert.rejects(open(t, file), (error) => {
      assert.ok(error instanceof OverridesError);
      assert.match(error.message, message);
      return true;
    });
  });
}

/** As editors and configuration management replace files. */
async function replace(file: string, content: string) {
  const unfinished = newFile();
  await writeFile(unfinished, content);
  await rename(unfinished, file);
}

test('a changed file is read again, and a bad one changes nothing and is said once', async (t) => {
  const file = newFile();
  await writeFile(file, 'example.com off\n');
  const { overrides, told, gauge } = await open(t, file);
  const domain = domainOf('example.com');
  assert.deepEqual(overrides.get(domain), { action: 'off' });
  assert.equal(gauge('overrides_loaded'), 1);

  await replace(file, 'example.com defer\nexample.net off\n');
  await overrides.reload();
  assert.deepEqual(overrides.get(domain), { action: 'defer' });
  assert.equal(gauge('overrides_loaded'), 2);

  told.length = 0;
  await replace(file, 'example.com defer\nexample.net nonsense\n');
  await overrides.reload();
  await overrides.reload({ always: true });
  assert.deepEqual(overrides.get(domain), { action: 'defer' });
  assert.deepEqual(
    told.map(({ level, message }) => `${level} ${message}`),
    ['error the override map cannot be used; the one from before stays in force'],
  );
  assert.match(String(told[0]?.details.reason), /^Line 2: "nonsense" is no action/);

  await rm(file);
  await overrides.reload();
  assert.deepEqual(overrides.get(domain), { action: 'defer' });
  assert.match(String(told[1]?.details.reason), /ENOENT/);

  await writeFile(file, '# none\n');
  await overrides.reload();
  assert.equal(overrides.get(domain), undefined);
});

test('nobody has to say that it has changed', async (t) => {
  const file = newFile();
  await writeFile(file, 'example.com off\n');
  const { gauge } = await open(t, file, 10);
  await replace(file, 'example.com off\nexample.net off\n');
  await until(() => gauge('overrides_loaded') === 2, 'the changed file is read');
});

test('what has not changed is not read again, unless somebody says so', async (t) => {
  const file = newFile();
  await writeFile(file, 'example.com off\n');
  const { overrides, told } = await open(t, file);
  await overrides.reload();
  assert.equal(told.length, 1);
  await overrides.reload({ always: true });
  assert.equal(told.length, 2);
});

test('a file that becomes readable without being written is read again', async (t) => {
  const file = newFile();
  await writeFile(file, 'example.com off\n', { mode: 0o600 });
  const { overrides, told } = await open(t, file);
  await chmod(file, 0o644);
  await overrides.reload();
  assert.equal(told.length, 2);
});

test('a file that cannot be read is tried again, and said once', async (t) => {
  const file = newFile();
  await writeFile(file, 'example.com off\n');
  const { overrides, told } = await open(t, file);
  told.length = 0;
  await rm(file);
  // Nobody can read this as a file, root included.
  await mkdir(file);
  for (const always of [false, false, true]) await overrides.reload({ always });
  assert.deepEqual(
    told.map(({ level }) => level),
    ['error'],
  );
  assert.deepEqual(overrides.get(domainOf('example.com')), { action: 'off' });
  await rm(file, { recursive: true });
  await writeFile(file, 'example.com defer\n');
  await overrides.reload();
  assert.deepEqual(overrides.get(domainOf('example.com')), { action: 'defer' });
});

const DEFER = 'example.com defer\n';
const truncated: [name: string, text: string, reason: RegExp][] = [
  ['emptied', '', /^It is empty: /],
  ['of nothing but line ends', '\n\r\n \n', /^It is empty: /],
  [
    'cut in its last line, where that still reads well',
    `${DEFER}example.net secure match=mx.a`,
    /may have been cut/,
  ],
  ['cut before its last line end', DEFER.trimEnd(), /may have been cut/],
  ['cut in a comment', `${DEFER}# example.net is`, /may have been cut/],
  ['of zeroes, as after a loss of power', '\0'.repeat(4_096), /may have been cut/],
];

for (const [name, text, reason] of truncated) {
  test(`a file ${name} is kept out and said, at the start and later`, async (t) => {
    const file = newFile();
    await writeFile(file, text);
    const { metrics, told, gauge } = createRecorder();
    await assert.rejects(openOverrides(file, { observer: metrics }), OverridesError);

    await replace(file, DEFER);
    const overrides = await openOverrides(file, { observer: metrics, pollMs: 3_600_000 });
    t.after(() => overrides.close());
    told.length = 0;
    await replace(file, text);
    for (const always of [false, true, false]) await overrides.reload({ always });
    assert.deepEqual(overrides.get(domainOf('example.com')), { action: 'defer' });
    assert.equal(gauge('overrides_loaded'), 1);
    assert.deepEqual(
      told.map(({ level, message }) => `${level} ${message}`),
      ['error the override map cannot be used; the one from before stays in force'],
    );
    assert.match(String(told[0]?.details.reason), reason);
  });
}

test('a map that is meant to have no entries says so in a comment', async (t) => {
  const file = newFile();
  await writeFile(file, DEFER);
  const { metrics, gauge } = createRecorder();
  const overrides = await openOverrides(file, { observer: metrics, pollMs: 3_600_000 });
  t.after(() => overrides.close());
  await replace(file, '# none\n');
  await overrides.reload();
  assert.equal(overrides.get(domainOf('example.com')), undefined);
  assert.equal(gauge('overrides_loaded'), 0);
});
