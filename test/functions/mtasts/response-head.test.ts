import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createResponseHead } from '../../../functions/mtasts/response-head.ts';

const FINAL = 'HTTP/1.1 200 OK\r\nx: y\r\n\r\n';
const HINTS = 'HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n';

// What is sent, how much of that is not body, and what is wrong with it.
const heads: [name: string, bytes: string, length: number | undefined, flaw?: string][] = [
  ['a head', FINAL, FINAL.length],
  ['a head and a body', `${FINAL}body\r\n\r\n`, FINAL.length],
  ['a head without end', FINAL.slice(0, -2), undefined],
  ['line ends before it', `\r\n\n\r\n${FINAL}\r\n`, 5 + FINAL.length],
  ['hints before it', `${HINTS}${HINTS}${FINAL}\r\n`, 2 * HINTS.length + FINAL.length],
  ['hints, and line ends, before it', `${HINTS}\r\n\r\n${FINAL}x`, HINTS.length + 4 + FINAL.length],
  ['hints alone', HINTS, undefined],
  ['a CR more at the end of a line', `HTTP/1.1 200 OK\r\r\n\r\n`, 20],
  ['a fold', 'HTTP/1.1 200 OK\r\nx: y\r\n z\r\n\r\n', 29, 'a header is folded over several lines'],
  [
    'a fold in what comes',
    'HTTP/1.1 200 OK\r\nx: y\r\n\tz',
    undefined,
    'a header is folded over several lines',
  ],
  [
    'two lengths',
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 1\r\n',
    undefined,
    'it has more than one Content-Length',
  ],
  [
    '100',
    `HTTP/1.1 100 Continue\r\n\r\n${FINAL}`,
    25 + FINAL.length,
    'it answers 100, which nobody has asked for',
  ],
];
for (const [name, bytes, length, flaw] of heads) {
  test(`head: ${name}, in one piece and in pieces of one and three bytes`, () => {
    for (const size of [bytes.length, 1, 3]) {
      const head = createResponseHead();
      for (let at = 0; at < bytes.length; at += size) head.add(Buffer.from(bytes.slice(at, at + size)));
      assert.deepEqual([head.bytes, head.flaw()], [length, flaw], `pieces of ${size}`);
    }
  });
}
