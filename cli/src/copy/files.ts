// SPDX-License-Identifier: GPL-2.0-or-later
// Files, devices and pipes as sources and sinks.

import { constants, type Stats } from 'node:fs';
import { open, readFile, stat, type FileHandle } from 'node:fs/promises';
import { errorText, VitastorError, type ErrorCode } from '@vitastor/core';
import type { BlockSink, BlockSource } from './endpoints.js';

/** O_DIRECT wants memory, offsets and lengths that are multiples of it, on every disk. */
export const DIRECT_ALIGNMENT = 4096;

const FILE_ERRORS: Readonly<Record<string, ErrorCode>> = { ENOENT: 'ERR_NOT_FOUND', EEXIST: 'ERR_EXISTS', EINVAL: 'ERR_INVALID_ARGUMENT' };

/** Node's error with what was done to which file. */
export function fileError(what: string, error: unknown): VitastorError {
  if (error instanceof VitastorError) return new VitastorError(error.code, `${what}: ${error.message}`, { cause: error });
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return new VitastorError(FILE_ERRORS[code] ?? 'ERR_IO', `${what}: ${errorText(error)}`, { cause: error });
}

export async function tried<T>(what: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw fileError(what, error);
  }
}

/** null: what has no size, or is not there. */
async function sizeOf(path: string, stats: Stats): Promise<bigint | null> {
  if (stats.isFile()) return BigInt(stats.size);
  if (!stats.isBlockDevice()) return null;
  // Node does not say how large a device is.
  const [major, minor] = [(stats.rdev >> 8) & 0xfff, (stats.rdev & 0xff) | ((stats.rdev >> 12) & 0xfff00)];
  const sectors = await tried(`cannot find out the size of ${path}`, () => readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8'));
  return BigInt(sectors.trim()) * 512n;
}

/** In order, whatever comes in which pieces. */
export class StreamSource implements BlockSource {
  readonly name: string;
  readonly sizeBytes = null;
  readonly alignment = 1;
  readonly sequential = true;
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);
  #position = 0n;
  #last: Promise<unknown> = Promise.resolve();

  readonly #close: () => Promise<void> | void;

  /** close: ends a read that is under way, too. */
  constructor(name: string, chunks: AsyncIterable<Buffer>, close: () => Promise<void> | void) {
    this.name = name;
    this.#chunks = chunks[Symbol.asyncIterator]();
    this.#close = close;
  }

  read(offset: bigint, target: Buffer): Promise<number> {
    const mine = this.#last.then(() => this.#take(offset, target));
    this.#last = mine.catch(() => undefined);
    return mine;
  }

  async #take(offset: bigint, target: Buffer): Promise<number> {
    let filled = 0;
    while (filled < target.length) {
      if (this.#rest.length === 0) {
        const next = await tried(`cannot read ${this.name}`, () => this.#chunks.next());
        if (next.done === true) break;
        this.#rest = next.value;
        continue;
      }
      const drop = offset - this.#position;
      const size = drop > 0n
        ? Number(drop < BigInt(this.#rest.length) ? drop : BigInt(this.#rest.length))
        : this.#rest.copy(target, filled);
      if (drop <= 0n) {
        filled += size;
        offset += BigInt(size);
      }
      this.#position += BigInt(size);
      this.#rest = this.#rest.subarray(size);
    }
    return filled;
  }

  async close(): Promise<void> {
    await this.#close();
  }
}

/** All of it from where it stands, in pieces. */
export async function* chunksOf(file: FileHandle, bytes = 1 << 16): AsyncGenerator<Buffer> {
  for (;;) {
    const chunk = Buffer.allocUnsafeSlow(bytes);
    const { bytesRead } = await file.read(chunk, 0, chunk.length, null);
    if (bytesRead === 0) return;
    yield chunk.subarray(0, bytesRead);
  }
}

class FileSource implements BlockSource {
  readonly name: string;
  readonly sizeBytes: bigint;
  readonly alignment: number;
  readonly sequential = false;
  readonly #file: FileHandle;

  constructor(name: string, file: FileHandle, sizeBytes: bigint, alignment: number) {
    this.name = name;
    this.#file = file;
    this.sizeBytes = sizeBytes;
    this.alignment = alignment;
  }

  async read(offset: bigint, target: Buffer): Promise<number> {
    // Its end need not be a multiple of what O_DIRECT wants; `target` is cut from a whole block.
    return tried(`cannot read ${this.name} at ${offset}`, () => readAll(this.#file, offset, target, this.alignment));
  }
  async close(): Promise<void> {
    await this.#file.close();
  }
}

async function readAll(file: FileHandle, offset: bigint, target: Buffer, alignment: number): Promise<number> {
  const whole = Math.ceil(target.length / alignment) * alignment;
  // Only the last block of a direct read is longer than what is wanted; it was allocated whole.
  const memory = whole === target.length ? target : Buffer.from(target.buffer, target.byteOffset, whole);
  let filled = 0;
  while (filled < target.length) {
    const { bytesRead } = await file.read(memory, filled, memory.length - filled, Number(offset) + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
    if (filled % alignment !== 0) break;
  }
  return Math.min(filled, target.length);
}

export async function openFileSource(path: string, direct: boolean): Promise<BlockSource> {
  return tried(`cannot open ${path}`, async () => {
    const file = await open(path, constants.O_RDONLY | (direct ? constants.O_DIRECT : 0));
    try {
      const stats = await file.stat();
      if (stats.isDirectory()) throw new VitastorError('ERR_INVALID_ARGUMENT', 'it is a directory');
      const size = await sizeOf(path, stats);
      if (size !== null) return new FileSource(path, file, size, direct ? DIRECT_ALIGNMENT : 1);
      if (direct) throw new VitastorError('ERR_INVALID_ARGUMENT', 'iflag=direct is for files and block devices');
    } catch (error) {
      await file.close();
      throw error;
    }
    return new StreamSource(path, chunksOf(file), () => file.close());
  });
}

/** Standard output. */
export class StreamSink implements BlockSink {
  readonly alignment = 1;
  readonly sequential = true;
  readonly sizeBytes = null;
  readonly blankFrom = null;
  readonly name: string;
  readonly #put: (data: Buffer) => Promise<void>;

  constructor(name: string, put: (data: Buffer) => Promise<void>) {
    this.name = name;
    this.#put = put;
  }
  async write(_offset: bigint, data: Buffer): Promise<void> {
    await tried(`cannot write to ${this.name}`, () => this.#put(data));
  }
  read(): Promise<number> {
    return Promise.resolve(0);
  }
  async finish(): Promise<void> {}
  async close(): Promise<void> {}
}

export interface FileSinkOptions {
  create: boolean;
  /** Cut where writing begins. */
  truncateAt: bigint | null;
  append: boolean;
  direct: boolean;
  /** Of a file that is made now. */
  sizeBytes: bigint | null;
}

class FileSink implements BlockSink {
  readonly name: string;
  readonly alignment: number = 1;
  readonly sequential: boolean;
  readonly sizeBytes: bigint | null;
  readonly blankFrom: bigint | null;
  readonly #file: FileHandle;
  readonly #regular: boolean;
  readonly #syncs: boolean;
  readonly #minSize: bigint;
  readonly #direct: boolean;
  readonly #readable: boolean;

  constructor(name: string, file: FileHandle, more: {
    stats: Stats; sequential: boolean; deviceBytes: bigint | null; blankFrom: bigint | null; minSize: bigint; direct: boolean; readable: boolean;
  }) {
    this.name = name;
    this.#file = file;
    this.sequential = more.sequential;
    this.sizeBytes = more.deviceBytes;
    this.blankFrom = more.blankFrom;
    this.#regular = more.stats.isFile();
    this.#syncs = this.#regular || more.stats.isBlockDevice();
    this.#minSize = more.minSize;
    this.#direct = more.direct;
    this.#readable = more.readable;
  }

  async write(offset: bigint, data: Buffer): Promise<void> {
    await tried(`cannot write to ${this.name}${this.sequential ? '' : ` at ${offset}`}`, async () => {
      if (this.#direct && data.length % DIRECT_ALIGNMENT !== 0) return this.#writeTail(offset, data);
      for (let done = 0; done < data.length;) {
        const position = this.sequential ? null : Number(offset) + done;
        done += (await this.#file.write(data, done, data.length - done, position)).bytesWritten;
      }
    });
  }
  /** The end of the input, through the page cache: O_DIRECT cannot. */
  async #writeTail(offset: bigint, data: Buffer): Promise<void> {
    const file = await open(this.name, constants.O_WRONLY);
    try {
      for (let done = 0; done < data.length;)
        done += (await file.write(data, done, data.length - done, Number(offset) + done)).bytesWritten;
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async read(offset: bigint, target: Buffer): Promise<number> {
    if (!this.#readable || this.#direct) return target.fill(1).length;
    return tried(`cannot read ${this.name} at ${offset}`, () => readAll(this.#file, offset, target, 1));
  }

  async finish(endOffset: bigint, sync: boolean): Promise<void> {
    const end = endOffset > this.#minSize ? endOffset : this.#minSize;
    await tried(`cannot finish ${this.name}`, async () => {
      if (this.#regular && !this.sequential && BigInt((await this.#file.stat()).size) < end) await this.#file.truncate(Number(end));
      if (sync && this.#syncs) await this.#file.sync();
    });
  }
  async close(): Promise<void> {
    await this.#file.close();
  }
}

export async function openFileSink(path: string, options: FileSinkOptions): Promise<BlockSink> {
  const old = await tried(`cannot open ${path}`, () => stat(path).catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }));
  if (old?.isDirectory()) throw new VitastorError('ERR_INVALID_ARGUMENT', `cannot open ${path}: it is a directory`);
  if (!old && !options.create) throw new VitastorError('ERR_NOT_FOUND', `${path} does not exist, and conv=nocreat does not let it be made`);
  return tried(`cannot open ${path}`, async () => {
    const [regular, device] = [!old || old.isFile(), old?.isBlockDevice() === true];
    const sequential = options.append || !(regular || device);
    const { O_CREAT, O_EXCL, O_APPEND, O_DIRECT, O_RDWR, O_WRONLY } = constants;
    const more = (old ? 0 : O_CREAT | O_EXCL) | (options.append ? O_APPEND : 0) | (options.direct ? O_DIRECT : 0);
    let readable = !sequential;
    const file = await open(path, (readable ? O_RDWR : O_WRONLY) | more, 0o666).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EACCES' || !readable) throw error;
      readable = false;
      return open(path, O_WRONLY | more);
    });
    try {
      if (old && regular && options.truncateAt !== null) await file.truncate(Number(options.truncateAt));
      const blankFrom = regular ? (!old ? 0n : options.truncateAt ?? BigInt(old.size)) : null;
      return new FileSink(path, file, {
        stats: await file.stat(), sequential, deviceBytes: old && device ? await sizeOf(path, old) : null, blankFrom,
        minSize: old ? 0n : options.sizeBytes ?? 0n, direct: options.direct, readable,
      });
    } catch (error) {
      await file.close();
      throw error;
    }
  });
}
