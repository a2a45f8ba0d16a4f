// SPDX-License-Identifier: GPL-2.0-or-later
// Where an export goes: a pipe, a device, or a file that has its name only when it is complete.

import { constants } from 'node:fs';
import { open, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
import { VitastorError } from '@vitastor/core';
import { tried } from '../copy/files.js';

/** One caller at a time. Buffers are borrowed until the promise resolves. */
export interface Output {
  readonly name: string;
  /** Bytes at the end of what was written before. */
  append(pieces: readonly Buffer[]): Promise<void>;
  /** So many bytes of zeroes at the end: a hole where there can be one. */
  skip(bytes: bigint): Promise<void>;
  /** Durable and under its name. */
  finish(): Promise<void>;
  /** After an error: nothing that could be taken for complete stays. Idempotent, also after finish(). */
  close(): Promise<void>;
}

const SMALL = 65536;
const ZEROES = Buffer.alloc(1 << 20);

async function zeroes(bytes: bigint, put: (data: Buffer) => Promise<void>): Promise<void> {
  for (let left = bytes; left > 0n;) {
    const size = left < BigInt(ZEROES.length) ? Number(left) : ZEROES.length;
    await put(ZEROES.subarray(0, size));
    left -= BigInt(size);
  }
}

export class PipeOutput implements Output {
  readonly name: string;
  readonly #put: (data: Buffer) => Promise<void>;

  constructor(name: string, put: (data: Buffer) => Promise<void>) {
    this.name = name;
    this.#put = (data) => tried(`cannot write to ${name}`, () => put(data));
  }
  async append(pieces: readonly Buffer[]): Promise<void> {
    const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (bytes <= SMALL) return this.#put(Buffer.concat(pieces));
    for (const piece of pieces) await this.#put(piece);
  }
  skip(bytes: bigint): Promise<void> {
    return zeroes(bytes, this.#put);
  }
  async finish(): Promise<void> {}
  async close(): Promise<void> {}
}

async function writeAll(file: FileHandle, data: Buffer, position: number | null): Promise<void> {
  for (let done = 0; done < data.length;)
    done += (await file.write(data, done, data.length - done, position === null ? null : position + done)).bytesWritten;
}

class FileOutput implements Output {
  readonly name: string;
  readonly #file: FileHandle;
  /** Its name until it is complete; null: it is written in place. */
  readonly #part: string | null;
  /** Holes read as zeroes. */
  readonly #blank: boolean;
  readonly #sync: boolean;
  #position = 0;
  #open = true;

  constructor(name: string, file: FileHandle, part: string | null, kind: { blank: boolean; sync: boolean }) {
    this.name = name;
    this.#file = file;
    this.#part = part;
    this.#blank = kind.blank;
    this.#sync = kind.sync;
  }
  async append(pieces: readonly Buffer[]): Promise<void> {
    await tried(`cannot write to ${this.#part ?? this.name}`, async () => {
      for (const piece of pieces) {
        await writeAll(this.#file, piece, this.#sync ? this.#position : null);
        this.#position += piece.length;
      }
    });
  }
  async skip(bytes: bigint): Promise<void> {
    if (this.#blank) this.#position += Number(bytes);
    else await zeroes(bytes, (data) => this.append([data]));
  }
  async finish(): Promise<void> {
    await tried(`cannot finish ${this.#part ?? this.name}`, async () => {
      if (this.#blank) await this.#file.truncate(this.#position);
      if (this.#sync) await this.#file.sync();
      if (this.#part !== null) await rename(this.#part, this.name);
      this.#open = false;
      await this.#file.close();
    });
  }
  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#file.close();
    if (this.#part !== null) await unlink(this.#part).catch(() => undefined);
  }
}

/** A file is not written over without `force`. */
export async function openOutput(path: string, force: boolean): Promise<Output> {
  return tried(`cannot open ${path}`, async () => {
    const old = await stat(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    });
    if (old?.isDirectory()) throw new VitastorError('ERR_INVALID_ARGUMENT', 'it is a directory');
    if (old && !old.isFile()) {
      const device = old.isBlockDevice();
      return new FileOutput(path, await open(path, constants.O_WRONLY), null, { blank: false, sync: device });
    }
    if (old && !force) throw new VitastorError('ERR_EXISTS', 'it exists; --force writes over it');
    const part = `${path}.part`;
    return new FileOutput(path, await open(part, 'w'), part, { blank: true, sync: true });
  });
}

/** A raw copy of an older snapshot that is brought forward in place. */
export class RawUpdate {
  readonly name: string;
  readonly #file: FileHandle;
  #open = true;

  private constructor(name: string, file: FileHandle) {
    this.name = name;
    this.#file = file;
  }
  static async open(path: string, olderBytes: bigint, olderName: string): Promise<RawUpdate> {
    return tried(`cannot open ${path}`, async () => {
      const file = await open(path, constants.O_RDWR);
      const stats = await file.stat();
      if (!stats.isFile() || BigInt(stats.size) === olderBytes) return new RawUpdate(path, file);
      await file.close();
      throw new VitastorError('ERR_INVALID_ARGUMENT', `it has ${stats.size} bytes, and a copy of ${olderName} has ${olderBytes}`);
    });
  }
  async write(offset: bigint, data: Buffer): Promise<void> {
    await tried(`cannot write to ${this.name}`, () => writeAll(this.#file, data, Number(offset)));
  }
  async zero(offset: bigint, bytes: bigint): Promise<void> {
    let at = offset;
    await zeroes(bytes, async (data) => {
      await this.write(at, data);
      at += BigInt(data.length);
    });
  }
  async finish(sizeBytes: bigint): Promise<void> {
    await tried(`cannot finish ${this.name}`, async () => {
      if ((await this.#file.stat()).isFile()) await this.#file.truncate(Number(sizeBytes));
      await this.#file.sync();
    });
    await this.close();
  }
  async close(): Promise<void> {
    if (this.#open) await this.#file.close();
    this.#open = false;
  }
}
