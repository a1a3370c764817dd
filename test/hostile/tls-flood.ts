// A policy host that, after the TLS 1.3 handshake, sends what TLS keeps to itself, for ever: session tickets, or key
// updates. Node cannot be told to, so the records are made here (RFC 8446 §5.2, §7.1).

import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';

export type Flood = 'session tickets' | 'key updates';

const HANDSHAKE = 22;
const APPLICATION_DATA = 23;
const HEADER_BYTES = 5;
const TAG_BYTES = 16;

/** With a life of two hours, a ticket of one byte, and no extensions. */
const TICKET = Buffer.from([4, 0, 0, 14, 0, 0, 28, 32, 1, 2, 3, 4, 0, 0, 1, 7, 0, 0]);
const KEY_UPDATE = Buffer.from([24, 0, 0, 1, 0]);

interface Keys {
  readonly key: Buffer;
  readonly iv: Buffer;
}

function derive(secret: Buffer, name: string, bytes: number): Buffer {
  const label = Buffer.from(`tls13 ${name}`);
  const info = Buffer.concat([Buffer.from([0, bytes, label.length]), label, Buffer.from([0, 1])]);
  return createHmac('sha256', secret).update(info).digest().subarray(0, bytes);
}

const keysOf = (secret: Buffer): Keys => ({ key: derive(secret, 'key', 16), iv: derive(secret, 'iv', 12) });

function nonce({ iv }: Keys, sequence: number): Buffer {
  const bytes = Buffer.from(iv);
  bytes.writeUInt32BE((bytes.readUInt32BE(8) ^ sequence) >>> 0, 8);
  return bytes;
}

function seal(keys: Keys, sequence: number, text: Buffer): Buffer {
  const inner = Buffer.concat([text, Buffer.from([HANDSHAKE])]);
  const length = inner.length + TAG_BYTES;
  const header = Buffer.from([APPLICATION_DATA, 3, 3, length >> 8, length & 255]);
  const cipher = createCipheriv('aes-128-gcm', keys.key, nonce(keys, sequence)).setAAD(header);
  return Buffer.concat([header, cipher.update(inner), cipher.final(), cipher.getAuthTag()]);
}

function isSealedWith(keys: Keys, sequence: number, record: Buffer): boolean {
  const decipher = createDecipheriv('aes-128-gcm', keys.key, nonce(keys, sequence))
    .setAAD(record.subarray(0, HEADER_BYTES))
    .setAuthTag(record.subarray(-TAG_BYTES));
  decipher.update(record.subarray(HEADER_BYTES, -TAG_BYTES));
  try {
    decipher.final();
    return true;
  } catch {
    return false;
  }
}

function* recordsOf(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
    const end = at + HEADER_BYTES + bytes.readUInt16BE(at + 3);
    yield bytes.subarray(at, end);
    at = end;
  }
}

/** Some 60 KB at a time. */
function* flood(kind: Flood, handshake: Buffer, trafficSecret: Buffer): Generator<Buffer> {
  let secret = trafficSecret;
  let keys = keysOf(secret);
  let sequence = 0;
  // What TLS itself has sent with these keys.
  for (const record of recordsOf(handshake)) {
    if (record[0] === APPLICATION_DATA && isSealedWith(keys, sequence, record)) sequence++;
  }
  const tickets = Buffer.concat(Array(800).fill(TICKET));
  for (;;) {
    if (kind === 'session tickets') {
      yield Buffer.concat(Array.from({ length: 4 }, () => seal(keys, sequence++, tickets)));
      continue;
    }
    yield Buffer.concat(
      Array.from({ length: 500 }, () => {
        const record = seal(keys, sequence, KEY_UPDATE);
        [secret, sequence] = [derive(secret, 'traffic upd', 32), 0];
        keys = keysOf(secret);
        return record;
      }),
    );
  }
}

/** @param certificate of the policy host. */
export function createFloodingHost(kind: Flood, key: string, certificate: string): Server {
  return createServer((wire: Socket) => {
    wire.on('error', () => {});
    const sent: Buffer[] = [];
    let secret: Buffer | undefined;
    let flooding = false;
    const beneath = new Duplex({
      read() {},
      write(chunk: Buffer, _, done) {
        if (!flooding) {
          sent.push(chunk);
          wire.write(chunk);
        }
        done();
      },
    });
    wire.on('data', (chunk) => beneath.push(chunk));
    const socket = new TLSSocket(beneath, {
      ...{ isServer: true, key, cert: certificate },
      ...{ minVersion: 'TLSv1.3', ciphers: 'TLS_AES_128_GCM_SHA256' },
    });
    socket.on('error', () => {});
    socket.on('keylog', (line) => {
      const [label, , value = ''] = line.toString().trim().split(' ');
      if (label === 'SERVER_TRAFFIC_SECRET_0') secret = Buffer.from(value, 'hex');
    });
    // The request has come, so TLS has sent all that it sends by itself.
    socket.once('data', () => {
      if (secret === undefined) throw new Error('there is no traffic secret');
      flooding = true;
      const pieces = flood(kind, Buffer.concat(sent), secret);
      const pump = () => {
        if (wire.destroyed) return;
        const { value } = pieces.next();
        if (wire.write(value)) setImmediate(pump);
        else wire.once('drain', pump);
      };
      pump();
    });
    wire.once('close', () => socket.destroy());
  });
}
