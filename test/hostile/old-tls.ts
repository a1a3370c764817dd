// A policy host of 2009: TLS 1.2, and nothing of what was added later, above all not the "renegotiation_info" of RFC 5746.
// OpenSSL cannot be told to leave that out, so the records are made here (RFC 5246, RFC 8422, RFC 5288).

import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';

const CHANGE_CIPHER_SPEC = 20;
const HANDSHAKE = 22;
const APPLICATION_DATA = 23;
const HEADER_BYTES = 5;
const TAG_BYTES = 16;
const EXPLICIT_NONCE_BYTES = 8;

/** Handshake messages (RFC 5246 §7.4). */
const SERVER_HELLO = 2;
const CERTIFICATE = 11;
const SERVER_KEY_EXCHANGE = 12;
const SERVER_HELLO_DONE = 14;
const FINISHED = 20;

/** TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, or _RSA_. */
const CIPHERS = { ec: [0xc0, 0x2b], rsa: [0xc0, 0x2f] } as const;
/** SHA-256 with ECDSA, or with RSA (RFC 5246 §7.4.1.4.1). */
const SIGNATURES = { ec: [4, 3], rsa: [4, 1] } as const;
/** A named curve: x25519 (RFC 8422 §5.1.1). */
const CURVE = [3, 0, 0x1d];
const POINT_BYTES = 32;

/** What SubjectPublicKeyInfo has before an x25519 point (RFC 8410 §4). */
const X25519_PREFIX = Buffer.from('302a300506032b656e032100', 'hex');

/** A length of so many bytes, and the content. */
function vector(lengthBytes: number, content: Buffer): Buffer {
  const length = Buffer.alloc(lengthBytes);
  length.writeUIntBE(content.length, 0, lengthBytes);
  return Buffer.concat([length, content]);
}

const handshake = (type: number, content: Buffer) => Buffer.concat([Buffer.from([type]), vector(3, content)]);

/** RFC 5246 §5. */
function prf(secret: Buffer, label: string, seed: Buffer, bytes: number): Buffer {
  const hmac = (...parts: Buffer[]) => createHmac('sha256', secret).update(Buffer.concat(parts)).digest();
  const labelled = Buffer.concat([Buffer.from(label), seed]);
  const output: Buffer[] = [];
  for (let a = hmac(labelled); Buffer.concat(output).length < bytes; a = hmac(a))
    output.push(hmac(a, labelled));
  return Buffer.concat(output).subarray(0, bytes);
}

/** One direction of AES-128-GCM (RFC 5288 §3). */
class Direction {
  readonly #key: Buffer;
  readonly #salt: Buffer;
  #sequence = 0;

  constructor(key: Buffer, salt: Buffer) {
    this.#key = key;
    this.#salt = salt;
  }

  #next(type: number, bytes: number): Buffer {
    const data = Buffer.alloc(13);
    data.writeUIntBE(this.#sequence++, 2, 6);
    data.set([type, 3, 3, bytes >> 8, bytes & 255], 8);
    return data;
  }

  seal(type: number, text: Buffer): Buffer {
    const data = this.#next(type, text.length);
    const explicit = data.subarray(0, EXPLICIT_NONCE_BYTES);
    const cipher = createCipheriv('aes-128-gcm', this.#key, Buffer.concat([this.#salt, explicit])).setAAD(
      data,
    );
    return Buffer.concat([explicit, cipher.update(text), cipher.final(), cipher.getAuthTag()]);
  }

  open(type: number, sealed: Buffer): Buffer {
    const text = sealed.subarray(EXPLICIT_NONCE_BYTES, -TAG_BYTES);
    const nonce = Buffer.concat([this.#salt, sealed.subarray(0, EXPLICIT_NONCE_BYTES)]);
    const decipher = createDecipheriv('aes-128-gcm', this.#key, nonce)
      .setAAD(this.#next(type, text.length))
      .setAuthTag(sealed.subarray(-TAG_BYTES));
    return Buffer.concat([decipher.update(text), decipher.final()]);
  }
}

/** Answers the first request of each connection with these bytes, and closes it. */
export function createOldHost(key: string, cert: string, answer: Buffer): Server {
  return createServer((socket) => {
    socket.on('error', () => {});
    serve(socket, key, cert, answer);
  });
}

function serve(socket: Socket, key: string, cert: string, answer: Buffer): void {
  const certificate = new X509Certificate(cert);
  const kind = certificate.publicKey.asymmetricKeyType === 'ec' ? 'ec' : 'rsa';
  const { publicKey, privateKey } = generateKeyPairSync('x25519');
  const serverRandom = randomBytes(32);
  const transcript: Buffer[] = [];
  let clientRandom: Buffer = Buffer.alloc(0);
  let master: Buffer = Buffer.alloc(0);
  let read: Direction | undefined;
  let write: Direction | undefined;
  let encrypted = false;

  const send = (type: number, content: Buffer) => {
    socket.write(Buffer.concat([Buffer.from([type, 3, 3]), vector(2, content)]));
  };
  const sendHandshake = (type: number, content: Buffer) => {
    const message = handshake(type, content);
    transcript.push(message);
    send(HANDSHAKE, message);
  };
  const digest = () => createHash('sha256').update(Buffer.concat(transcript)).digest();

  function greet(hello: Buffer): void {
    clientRandom = hello.subarray(6, 38);
    // Version, random, no session, cipher, no compression, and no extensions at all.
    sendHandshake(SERVER_HELLO, Buffer.from([3, 3, ...serverRandom, 0, ...CIPHERS[kind], 0]));
    sendHandshake(CERTIFICATE, vector(3, vector(3, certificate.raw)));
    const point = publicKey.export({ type: 'spki', format: 'der' }).subarray(-POINT_BYTES);
    const parameters = Buffer.from([...CURVE, POINT_BYTES, ...point]);
    const signature = sign('sha256', Buffer.concat([clientRandom, serverRandom, parameters]), key);
    sendHandshake(
      SERVER_KEY_EXCHANGE,
      Buffer.concat([parameters, Buffer.from(SIGNATURES[kind]), vector(2, signature)]),
    );
    sendHandshake(SERVER_HELLO_DONE, Buffer.alloc(0));
  }

  function agree(keyExchange: Buffer): void {
    const point = keyExchange.subarray(-POINT_BYTES);
    const peer = createPublicKey({ key: Buffer.concat([X25519_PREFIX, point]), type: 'spki', format: 'der' });
    const premaster = diffieHellman({ privateKey, publicKey: peer });
    master = prf(premaster, 'master secret', Buffer.concat([clientRandom, serverRandom]), 48);
    const block = prf(master, 'key expansion', Buffer.concat([serverRandom, clientRandom]), 40);
    read = new Direction(block.subarray(0, 16), block.subarray(32, 36));
    write = new Direction(block.subarray(16, 32), block.subarray(36, 40));
  }

  function finish(message: Buffer): void {
    transcript.push(message);
    const verify = prf(master, 'server finished', digest(), 12);
    send(CHANGE_CIPHER_SPEC, Buffer.from([1]));
    send(HANDSHAKE, write?.seal(HANDSHAKE, handshake(FINISHED, verify)) ?? Buffer.alloc(0));
  }

  function take(type: number, content: Buffer): void {
    if (type === CHANGE_CIPHER_SPEC) encrypted = true;
    else if (type === HANDSHAKE && encrypted) finish(read?.open(type, content) ?? Buffer.alloc(0));
    else if (type === HANDSHAKE) {
      transcript.push(content);
      if (clientRandom.length === 0) greet(content);
      else agree(content);
    } else if (type === APPLICATION_DATA) {
      read?.open(type, content);
      send(APPLICATION_DATA, write?.seal(APPLICATION_DATA, answer) ?? Buffer.alloc(0));
      socket.end();
    } else socket.destroy();
  }

  let waiting: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    waiting = Buffer.concat([waiting, chunk]);
    while (waiting.length >= HEADER_BYTES) {
      const end = HEADER_BYTES + waiting.readUInt16BE(3);
      if (waiting.length < end) return;
      const record = waiting.subarray(0, end);
      waiting = waiting.subarray(end);
      take(record.readUInt8(0), record.subarray(HEADER_BYTES));
    }
  });
}
