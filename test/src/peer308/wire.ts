// SPDX-License-Identifier: GPL-2.0-or-later
// Messages of the OSD protocol for the scripted peer: a table of fields, one row a field, written from the specification and not
// from the C++ tables, so that the two check each other through test/fixtures/wire/golden.json.
// Source: wire-protocol 2, 5-9.

import { strict as assert } from 'node:assert';

export const HEADER_BYTES = 128;
export const REQUEST_MAGIC = 0x2bd7b10325434553n;
export const REPLY_MAGIC = 0xbaa699b87b434553n;
export const NO_BOUND = 0xffffffffffffffffn;
/** "newest" in a read. */
export const NEWEST = 0xffffffffffffffffn;
const MAX_TRANSFER = 64 << 20;
const MAX_JSON = 1 << 20;
const MAX_LIST_BYTES = 1 << 30;

export const OP = {
  SEC_READ: 1,
  SEC_WRITE: 2,
  SEC_WRITE_STABLE: 3,
  SEC_SYNC: 4,
  SEC_STABILIZE: 5,
  SEC_ROLLBACK: 6,
  SEC_DELETE: 7,
  SEC_LIST: 9,
  SHOW_CONFIG: 10,
  READ: 11,
  WRITE: 12,
  SYNC: 13,
  DELETE: 14,
  PING: 15,
  SEC_READ_BMP: 16,
  SCRUB: 17,
  DESCRIBE: 18,
  SEC_LOCK: 19,
} as const;
export type OpName = keyof typeof OP;

export const ERR = {
  ENOENT: -2n,
  EINTR: -4n,
  EIO: -5n,
  EAGAIN: -11n,
  EBUSY: -16n,
  EEXIST: -17n,
  EINVAL: -22n,
  ENOSPC: -28n,
  EROFS: -30n,
  EPIPE: -32n,
} as const;

const NAMES = new Map<number, OpName>((Object.entries(OP) as [OpName, number][]).map(([name, op]) => [op, name]));

/** Name from the specification; undefined for opcodes that do not exist. */
export function opName(op: number): OpName | undefined {
  return NAMES.get(op);
}

type Row = readonly [name: string, offset: number, bytes: 4 | 8];

const CLIENT: readonly Row[] = [
  ['inode', 24, 8],
  ['offset', 32, 8],
  ['len', 40, 4],
  ['flags', 44, 4],
  ['meta_revision', 48, 8],
  ['version', 56, 8],
];
const SUB: readonly Row[] = [
  ['inode', 24, 8],
  ['stripe', 32, 8],
  ['version', 40, 8],
  ['offset', 48, 4],
  ['len', 52, 4],
  ['attr_len', 56, 4],
  ['flags', 60, 4],
];
const TRIPLES: readonly Row[] = [
  ['len', 24, 8],
  ['flags', 32, 4],
];
const SUB_REPLY: readonly Row[] = [
  ['version', 32, 8],
  ['attr_len', 40, 4],
];

const REQUESTS: Readonly<Record<OpName, readonly Row[]>> = {
  SEC_READ: SUB,
  SEC_WRITE: SUB,
  SEC_WRITE_STABLE: SUB,
  SEC_SYNC: [['flags', 24, 4]],
  SEC_STABILIZE: TRIPLES,
  SEC_ROLLBACK: TRIPLES,
  SEC_DELETE: [
    ['inode', 24, 8],
    ['stripe', 32, 8],
    ['version', 40, 8],
    ['flags', 48, 4],
  ],
  SEC_LIST: [
    ['list_pg', 24, 4],
    ['pg_count', 28, 4],
    ['pg_stripe_size', 32, 8],
    ['min_inode', 40, 8],
    ['max_inode', 48, 8],
    ['min_stripe', 56, 8],
    ['max_stripe', 64, 8],
    ['stable_limit', 72, 4],
    ['flags', 76, 8],
  ],
  SHOW_CONFIG: [['json_len', 24, 8]],
  READ: CLIENT,
  WRITE: CLIENT,
  SYNC: [],
  DELETE: CLIENT,
  PING: [],
  SEC_READ_BMP: TRIPLES,
  SCRUB: CLIENT,
  DESCRIBE: [
    ['state_mask', 24, 8],
    ['min_inode', 32, 8],
    ['min_offset', 40, 8],
    ['max_inode', 48, 8],
    ['max_offset', 56, 8],
    ['limit', 64, 8],
    ['pool', 72, 4],
    ['pg', 76, 4],
  ],
  SEC_LOCK: [
    ['flags', 24, 8],
    ['pool', 32, 8],
    ['pg', 40, 8],
    ['state', 48, 8],
  ],
};

/** OSD numbers inside the reply header of DELETE. */
const DEAD_OSDS: readonly Row[] = Array.from({ length: 22 }, (_, i): Row => [`osds.${i}`, 40 + 4 * i, 4]);
const REPLIES: Readonly<Record<OpName, readonly Row[]>> = {
  SEC_READ: SUB_REPLY,
  SEC_WRITE: SUB_REPLY,
  SEC_WRITE_STABLE: SUB_REPLY,
  SEC_SYNC: [],
  SEC_STABILIZE: [],
  SEC_ROLLBACK: [],
  SEC_DELETE: [['version', 32, 8]],
  SEC_LIST: [
    ['stable_count', 32, 8],
    ['flags', 40, 8],
  ],
  SHOW_CONFIG: [],
  READ: [
    ['bitmap_len', 32, 4],
    ['version', 40, 8],
  ],
  WRITE: [['version', 40, 8]],
  SYNC: [],
  DELETE: [['flags', 32, 4], ['osd_count', 36, 4], ...DEAD_OSDS],
  PING: [],
  SEC_READ_BMP: [],
  SCRUB: [],
  DESCRIBE: [['result_bytes', 32, 8]],
  SEC_LOCK: [['holder', 32, 8]],
};

export type Fields = Readonly<Record<string, bigint>>;
export type Kind = 'request' | 'reply';

/** One message as it came or is about to go. `op` may be a number that does not exist. */
export class Message {
  readonly kind: Kind;
  readonly id: bigint;
  readonly op: number;
  /** Of a reply; 0 for requests. */
  readonly retval: bigint;
  readonly fields: Fields;
  readonly header: Buffer;
  readonly payload: Buffer;

  constructor(kind: Kind, header: Buffer, payload: Buffer) {
    this.kind = kind;
    this.header = header;
    this.payload = payload;
    this.id = header.readBigUInt64LE(8);
    this.op = Number(header.readBigUInt64LE(16));
    this.retval = kind === 'reply' ? header.readBigInt64LE(24) : 0n;
    this.fields = decodeFields(kind, this.op, header);
  }

  get name(): string {
    return opName(this.op) ?? `opcode ${this.op}`;
  }

  /** A field by its name in the specification; asking for one that the message does not have is our bug. */
  field(name: string): bigint {
    const value = this.fields[name];
    assert(value !== undefined, `${this.name} ${this.kind} has no field ${name}`);
    return value;
  }

  /** A field that fits a number. */
  num(name: string): number {
    return Number(this.field(name));
  }

  /** CAS answer of a failed DELETE, which overlays the list of OSDs. */
  get casVersion(): bigint {
    return this.header.readBigUInt64LE(40);
  }

  /** Offset of the first byte that must be zero and is not; undefined if there is none. */
  reservedOffset(): number | undefined {
    const name = opName(this.op);
    if (name === undefined) return undefined;
    const again =
      this.kind === 'request'
        ? encodeRequest(this.op, this.id, this.fields).subarray(0, HEADER_BYTES)
        : encodeReply(this.op, this.id, this.retval, this.fields).subarray(0, HEADER_BYTES);
    for (let i = 0; i < HEADER_BYTES; i++) if (again[i] !== this.header[i]) return i;
    return undefined;
  }
}

function rowsOf(kind: Kind, op: number): readonly Row[] {
  const name = opName(op);
  if (name === undefined) return [];
  return kind === 'request' ? REQUESTS[name] : REPLIES[name];
}

/** 9.7: 0 on the wire means no bound, 2^64-1 means 0. */
function swapMaxStripe(value: bigint): bigint {
  if (value === 0n) return NO_BOUND;
  return value === NO_BOUND ? 0n : value;
}

function isMaxStripe(kind: Kind, op: number, name: string): boolean {
  return kind === 'request' && op === OP.SEC_LIST && name === 'max_stripe';
}

function decodeFields(kind: Kind, op: number, header: Buffer): Fields {
  const fields: Record<string, bigint> = {};
  for (const [name, offset, bytes] of rowsOf(kind, op)) {
    const value = bytes === 8 ? header.readBigUInt64LE(offset) : BigInt(header.readUInt32LE(offset));
    fields[name] = isMaxStripe(kind, op, name) ? swapMaxStripe(value) : value;
  }
  return fields;
}

function encodeFields(kind: Kind, op: number, header: Buffer, fields: Fields): void {
  const rows = rowsOf(kind, op);
  for (const name of Object.keys(fields))
    assert(
      rows.some(([known]) => known === name),
      `${opName(op) ?? op} ${kind} has no field ${name}`,
    );
  for (const [name, offset, bytes] of rows) {
    const meaning = fields[name] ?? (isMaxStripe(kind, op, name) ? NO_BOUND : 0n);
    const value = isMaxStripe(kind, op, name) ? swapMaxStripe(meaning) : meaning;
    if (bytes === 8) header.writeBigUInt64LE(value, offset);
    else header.writeUInt32LE(Number(value), offset);
  }
}

/** Header and payload in one piece. */
export function encodeRequest(op: number, id: bigint, fields: Fields = {}, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeBigUInt64LE(REQUEST_MAGIC, 0);
  header.writeBigUInt64LE(id, 8);
  header.writeBigUInt64LE(BigInt(op), 16);
  encodeFields('request', op, header, fields);
  return Buffer.concat([header, payload]);
}

export function encodeReply(
  op: number,
  id: bigint,
  retval: bigint,
  fields: Fields = {},
  payload: Uint8Array = Buffer.alloc(0),
): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeBigUInt64LE(REPLY_MAGIC, 0);
  header.writeBigUInt64LE(id, 8);
  header.writeBigUInt64LE(BigInt(op), 16);
  header.writeBigInt64LE(retval, 24);
  encodeFields('reply', op, header, fields);
  return Buffer.concat([header, payload]);
}

/** Bytes that follow: bitmap first, then data. Source: wire-protocol 2.3. */
export interface PayloadSizes {
  readonly bitmap: number;
  readonly data: number;
}

/** A header that no sane peer sends: lengths over the limits of wire-protocol 14, or wrong magic. */
export class BadHeader extends Error {}

function limited(what: string, bytes: bigint, limit: number): number {
  if (bytes > BigInt(limit)) throw new BadHeader(`${what} announces ${bytes} bytes`);
  return Number(bytes);
}

export function payloadSizes(kind: Kind, header: Buffer): PayloadSizes {
  const message = new Message(kind, header, Buffer.alloc(0));
  const data = (bytes: number): PayloadSizes => ({ bitmap: 0, data: bytes });
  const got = message.retval > 0n ? message.retval : 0n;
  if (kind === 'request') {
    switch (message.op) {
      case OP.SEC_WRITE:
      case OP.SEC_WRITE_STABLE:
        return {
          bitmap: limited('a bitmap', message.field('attr_len'), MAX_JSON),
          data: limited(message.name, message.field('len'), MAX_TRANSFER),
        };
      case OP.WRITE:
        return data(limited('WRITE', message.field('len'), MAX_TRANSFER));
      case OP.SEC_STABILIZE:
      case OP.SEC_ROLLBACK:
      case OP.SEC_READ_BMP:
        return data(limited(message.name, message.field('len'), MAX_TRANSFER));
      case OP.SHOW_CONFIG:
        return data(limited('SHOW_CONFIG', message.field('json_len'), MAX_JSON));
      default:
        return data(0);
    }
  }
  switch (message.op) {
    case OP.SEC_READ:
      return { bitmap: limited('a bitmap', message.field('attr_len'), MAX_JSON), data: limited('SEC_READ', got, MAX_TRANSFER) };
    case OP.READ:
      return { bitmap: limited('a bitmap', message.field('bitmap_len'), MAX_JSON), data: limited('READ', got, MAX_TRANSFER) };
    case OP.SEC_LIST:
      return data(limited('SEC_LIST', got * 24n, MAX_LIST_BYTES));
    case OP.SHOW_CONFIG:
    case OP.SEC_READ_BMP:
      return data(limited(message.name, got, MAX_LIST_BYTES));
    case OP.DESCRIBE:
      return data(limited('DESCRIBE', message.field('result_bytes'), MAX_LIST_BYTES));
    default:
      return data(0);
  }
}

/** Object and version, 24 bytes on the wire. */
export interface Triple {
  readonly inode: bigint;
  readonly stripe: bigint;
  readonly version: bigint;
}

export function encodeTriples(triples: readonly Triple[]): Buffer {
  const out = Buffer.alloc(triples.length * 24);
  triples.forEach((t, i) => {
    out.writeBigUInt64LE(t.inode, i * 24);
    out.writeBigUInt64LE(t.stripe, i * 24 + 8);
    out.writeBigUInt64LE(t.version, i * 24 + 16);
  });
  return out;
}

export function decodeTriples(bytes: Buffer): Triple[] {
  if (bytes.length % 24 !== 0) throw new BadHeader(`a list of ${bytes.length} bytes is not a multiple of 24`);
  return Array.from({ length: bytes.length / 24 }, (_, i) => ({
    inode: bytes.readBigUInt64LE(i * 24),
    stripe: bytes.readBigUInt64LE(i * 24 + 8),
    version: bytes.readBigUInt64LE(i * 24 + 16),
  }));
}

/** Cuts a byte stream into messages by wire-protocol 2.3 alone. */
export class MessageReader {
  #chunks: Buffer[] = [];
  #bytes = 0;
  #need = HEADER_BYTES;
  #pending: { kind: Kind; header: Buffer } | undefined;

  /** Messages completed by these bytes. Throws BadHeader: close the connection. */
  push(chunk: Buffer): Message[] {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    const messages: Message[] = [];
    while (this.#bytes >= this.#need) {
      const all = this.#chunks.length === 1 && this.#chunks[0] ? this.#chunks[0] : Buffer.concat(this.#chunks);
      const unit = all.subarray(0, this.#need);
      this.#chunks = all.length > this.#need ? [all.subarray(this.#need)] : [];
      this.#bytes -= this.#need;
      if (this.#pending) {
        messages.push(new Message(this.#pending.kind, this.#pending.header, unit));
        this.#pending = undefined;
        this.#need = HEADER_BYTES;
        continue;
      }
      const magic = unit.readBigUInt64LE(0);
      if (magic !== REQUEST_MAGIC && magic !== REPLY_MAGIC) throw new BadHeader(`wrong magic 0x${magic.toString(16)}`);
      const kind: Kind = magic === REQUEST_MAGIC ? 'request' : 'reply';
      const header = Buffer.from(unit);
      const sizes = payloadSizes(kind, header);
      const total = sizes.bitmap + sizes.data;
      if (total === 0) {
        messages.push(new Message(kind, header, Buffer.alloc(0)));
      } else {
        this.#pending = { kind, header };
        this.#need = total;
      }
    }
    return messages;
  }
}
