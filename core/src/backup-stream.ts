// SPDX-License-Identifier: GPL-2.0-or-later
// The stream format of `vitastor-cli export` and `import`: bytes in and out. Format: docs/formats/stream.md.

import { bigInteger, decodeText, INODE_MAX, integer, nonEmptyString, object, POOL_ID_MAX, u64, type Decoder } from './decode.js';
import { errorText, VitastorError } from './errors.js';
import { stringifyJson, type JsonObject } from './json.js';
import { loadNativeClient } from './native/addon.js';

export const STREAM_MAGIC = Buffer.from('VitaStrm', 'latin1');
const VERSION = 1;
/** magic, version, length of the JSON text. */
const PREFIX_BYTES = 16;
const MAX_HEADER_BYTES = 65536;
const RECORD_MAGIC = 0x64634556;
const RECORD_BYTES = 40;
/** Of one data record. */
export const STREAM_DATA_MAX = 4 * 1024 * 1024;

const crc32c = (data: Buffer, previous = 0): number => loadNativeClient().crc32c(data, previous);

/** Which snapshot, in the numbers of the cluster that it was exported from: what an incremental stream must find below it. */
export interface LayerIdentity {
  name: string;
  sizeBytes: bigint;
  pool: number;
  /** Without the pool. */
  inode: bigint;
}

export interface StreamHeader {
  image: string;
  sizeBytes: bigint;
  /** Of all offsets and lengths, but for the end of an image that is no multiple of it. */
  granularity: number;
  /** What the target is afterwards; null: an image that may have been written to meanwhile. */
  to: LayerIdentity | null;
  /** null: a full stream, everything that is not in it reads as zeroes. */
  from: LayerIdentity | null;
}

export type StreamRecord =
  | { type: 'data'; offset: bigint; data: Buffer }
  | { type: 'zero'; offset: bigint; length: bigint };

export interface StreamTotals {
  records: bigint;
  dataBytes: bigint;
  zeroBytes: bigint;
}

const TYPES = { data: 1, zero: 2, end: 3 } as const;

const identity: Decoder<LayerIdentity> = object((f) => ({
  name: f.required('name', nonEmptyString),
  sizeBytes: f.required('size', u64),
  pool: f.required('pool', integer(1, POOL_ID_MAX)),
  inode: f.required('inode', bigInteger(1n, INODE_MAX)),
}));
export const decodeIdentity: Decoder<LayerIdentity | null> = (value, path) => (value === null ? null : identity(value, path));
const decodeHeader: Decoder<StreamHeader> = object((f) => ({
  image: f.required('image', nonEmptyString),
  sizeBytes: f.required('size', u64),
  granularity: f.required('granularity', integer(512, 1 << 30)),
  to: f.optional('to', decodeIdentity, null),
  from: f.optional('from', decodeIdentity, null),
}));

export function sameIdentity(a: LayerIdentity | null, b: LayerIdentity | null): boolean {
  return a === b || (a !== null && b !== null && a.pool === b.pool && a.inode === b.inode && a.name === b.name && a.sizeBytes === b.sizeBytes);
}

export function encodeIdentity(layer: LayerIdentity | null): JsonObject | null {
  return layer && { name: layer.name, size: layer.sizeBytes, pool: layer.pool, inode: layer.inode };
}

/** Makes the bytes of one stream, in order. */
export class StreamEncoder {
  #sequence = 0n;
  #totals: StreamTotals = { records: 0n, dataBytes: 0n, zeroBytes: 0n };
  /** Of the header: part of every checksum, so that records of two streams do not mix. */
  #seed = 0;
  /** Of all records so far: of their heads, which hold the checksums of the data. */
  #all = 0;

  header(header: StreamHeader): Buffer {
    const json = Buffer.from(stringifyJson({
      image: header.image, size: header.sizeBytes, granularity: header.granularity,
      to: encodeIdentity(header.to), from: encodeIdentity(header.from),
    }));
    const bytes = Buffer.alloc(PREFIX_BYTES + json.length + 4);
    STREAM_MAGIC.copy(bytes);
    bytes.writeUInt32LE(VERSION, 8);
    bytes.writeUInt32LE(json.length, 12);
    json.copy(bytes, PREFIX_BYTES);
    this.#seed = crc32c(bytes.subarray(0, bytes.length - 4));
    bytes.writeUInt32LE(this.#seed, bytes.length - 4);
    return bytes;
  }

  /** data: 1 to STREAM_DATA_MAX bytes; what is returned goes before it. */
  data(offset: bigint, data: Buffer): Buffer {
    this.#totals.dataBytes += BigInt(data.length);
    this.#totals.records++;
    return this.#record(TYPES.data, offset, BigInt(data.length), crc32c(data));
  }

  zero(offset: bigint, length: bigint): Buffer {
    this.#totals.zeroBytes += length;
    this.#totals.records++;
    return this.#record(TYPES.zero, offset, length, 0);
  }

  end(): Buffer {
    const { dataBytes, zeroBytes } = this.#totals;
    return this.#record(TYPES.end, dataBytes, zeroBytes, this.#all);
  }

  get totals(): StreamTotals {
    return { ...this.#totals };
  }

  #record(type: number, first: bigint, second: bigint, dataCrc: number): Buffer {
    const bytes = Buffer.alloc(RECORD_BYTES);
    bytes.writeUInt32LE(RECORD_MAGIC, 0);
    bytes.writeUInt32LE(type, 4);
    bytes.writeBigUInt64LE(this.#sequence++, 8);
    bytes.writeBigUInt64LE(first, 16);
    bytes.writeBigUInt64LE(second, 24);
    bytes.writeUInt32LE(dataCrc, 32);
    bytes.writeUInt32LE(crc32c(bytes.subarray(0, 36), this.#seed), 36);
    this.#all = crc32c(bytes, this.#all);
    return bytes;
  }
}

/** Exact pieces of something that comes in pieces of any size. */
class Bytes {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);
  offset = 0;

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }
  /** Fewer at the end of the input only. The memory is the caller's. */
  async take(count: number): Promise<Buffer> {
    const out = count < 1024 ? Buffer.allocUnsafe(count) : Buffer.allocUnsafeSlow(count);
    let filled = 0;
    while (filled < count) {
      if (this.#rest.length === 0) {
        const next = await this.#chunks.next();
        if (next.done === true) break;
        this.#rest = next.value;
        continue;
      }
      const size = this.#rest.copy(out, filled, 0, count - filled);
      this.#rest = this.#rest.subarray(size);
      filled += size;
    }
    this.offset += filled;
    return out.subarray(0, filled);
  }
}

/** Reads one stream. Nothing is given out whose checksum has not been compared. All errors are ERR_BAD_VALUE and name the byte of the input. */
export class StreamDecoder {
  readonly #bytes: Bytes;
  #seed = 0;
  #all = 0;
  #header: StreamHeader | null = null;

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#bytes = new Bytes(chunks);
  }

  /** Bytes of the input that have been taken. */
  get position(): number {
    return this.#bytes.offset;
  }

  async header(): Promise<StreamHeader> {
    const prefix = await this.#bytes.take(PREFIX_BYTES);
    if (prefix.length === 0) throw bad('the input is empty');
    if (!prefix.subarray(0, 8).equals(STREAM_MAGIC)) throw bad('this is no stream of vitastor-cli export; for the bytes of a disk use --format raw');
    if (prefix.length < PREFIX_BYTES) throw bad(`the stream is cut off at byte ${prefix.length}, in its header`);
    const version = prefix.readUInt32LE(8);
    if (version !== VERSION) throw bad(`the stream has version ${version}, this program knows ${VERSION}`);
    const length = prefix.readUInt32LE(12);
    if (length > MAX_HEADER_BYTES) throw bad(`the header is damaged (length ${length})`);
    const rest = await this.#bytes.take(length + 4);
    if (rest.length < length + 4) throw bad(`the stream is cut off at byte ${this.#bytes.offset}, in its header`);
    this.#seed = crc32c(rest.subarray(0, length), crc32c(prefix));
    if (this.#seed !== rest.readUInt32LE(length)) throw bad('the header is damaged (checksum)');
    try {
      this.#header = decodeText(decodeHeader, rest.toString('utf8', 0, length));
    } catch (error) {
      throw bad(`the header is damaged (${errorText(error)})`);
    }
    return this.#header;
  }

  /** In order of offset; ends only behind an end record whose totals are right. Returns them. */
  async *records(): AsyncGenerator<StreamRecord, StreamTotals> {
    const header = this.#header;
    if (!header) throw new Error('header() comes first');
    const totals: StreamTotals = { records: 0n, dataBytes: 0n, zeroBytes: 0n };
    let position = 0n;
    for (;;) {
      const start = this.#bytes.offset;
      const head = await this.#bytes.take(RECORD_BYTES);
      if (head.length < RECORD_BYTES) throw bad(`the stream is cut off at byte ${this.#bytes.offset}: it has no end`);
      if (head.readUInt32LE(0) !== RECORD_MAGIC || crc32c(head.subarray(0, 36), this.#seed) !== head.readUInt32LE(36))
        throw bad(`the record at byte ${start} is damaged`);
      const type = head.readUInt32LE(4);
      const [first, second] = [head.readBigUInt64LE(16), head.readBigUInt64LE(24)];
      if (head.readBigUInt64LE(8) !== totals.records) throw bad(`the record at byte ${start} is not the next one: a part of the stream is missing`);
      if (type === TYPES.end) {
        if (first !== totals.dataBytes || second !== totals.zeroBytes || head.readUInt32LE(32) !== this.#all) throw bad(`the totals at byte ${start} are not those of the stream`);
        if ((await this.#bytes.take(1)).length > 0) throw bad(`something follows the end of the stream at byte ${this.#bytes.offset - 1}`);
        return totals;
      }
      if (type !== TYPES.data && type !== TYPES.zero) throw bad(`the record at byte ${start} is of unknown type ${type}`);
      totals.records++;
      this.#all = crc32c(head, this.#all);
      const end = first + second;
      const step = BigInt(header.granularity);
      const aligned = first % step === 0n && (end % step === 0n || end === header.sizeBytes);
      if (second === 0n || first < position || end > header.sizeBytes || !aligned) throw bad(`the record at byte ${start} lies outside of its place in the image`);
      position = end;
      if (type === TYPES.zero) {
        totals.zeroBytes += second;
        yield { type: 'zero', offset: first, length: second };
        continue;
      }
      if (second > BigInt(STREAM_DATA_MAX)) throw bad(`the record at byte ${start} is too long`);
      const data = await this.#bytes.take(Number(second));
      if (data.length < Number(second)) throw bad(`the stream is cut off at byte ${this.#bytes.offset}: it has no end`);
      if (crc32c(data) !== head.readUInt32LE(32)) throw bad(`the data at byte ${start + RECORD_BYTES} is damaged`);
      totals.dataBytes += second;
      yield { type: 'data', offset: first, data };
    }
  }
}

function bad(text: string): VitastorError {
  return new VitastorError('ERR_BAD_VALUE', text);
}
