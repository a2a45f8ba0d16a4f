// SPDX-License-Identifier: GPL-2.0-or-later
// Block by block from a source to a sink, several at once, in memory of blockBytes * depth.

import { VitastorError } from '@vitastor/core';
import { isZero, type BlockSink, type BlockSource } from './endpoints.js';

export interface CopyOptions {
  blockBytes: number;
  /** Blocks under way at once. */
  depth: number;
  /** Where reading begins, and where writing. */
  from: bigint;
  to: bigint;
  /** So many bytes at most; null: to the end of the source. */
  limit: bigint | null;
  /** Zeroes are written only over what is not zero. */
  sparse: boolean;
  /** What cannot be read counts as zeroes, in pieces as small as possible. */
  skipErrors: boolean;
  sync: boolean;
  /** Makes the memory of one block. */
  allocate(bytes: number): Buffer;
  onProgress(copiedBytes: bigint): void;
  signal: AbortSignal;
}

export interface Copied {
  bytes: bigint;
  /** Of them: could not be read, are zeroes now. */
  unreadable: bigint;
}

/** Of a block that cannot be read as a whole, these are tried one by one. */
const SMALLEST_PIECE = 4096;

export class Copier {
  readonly #source: BlockSource;
  readonly #sink: BlockSink;
  readonly #options: CopyOptions;
  /** Relative to `from` and `to`: the next block, and the end, which may come nearer. */
  #next = 0n;
  #end: bigint;
  /** Resolves when all blocks before have been written. */
  #before: Promise<void> = Promise.resolve();
  #failed: Error | null = null;
  #tellFailed: () => void = () => undefined;
  readonly copied: Copied = { bytes: 0n, unreadable: 0n };

  constructor(source: BlockSource, sink: BlockSink, options: CopyOptions) {
    this.#source = source;
    this.#sink = sink;
    this.#options = options;
    const rest = source.sizeBytes === null ? null : source.sizeBytes > options.from ? source.sizeBytes - options.from : 0n;
    this.#end = rest === null ? options.limit ?? 1n << 63n : options.limit !== null && options.limit < rest ? options.limit : rest;
  }

  /** Rejects with the first error, while other blocks may still be under way; `copied` says how far it had come. */
  async run(): Promise<Copied> {
    const { depth, to, sync, signal } = this.#options;
    // Not after the other blocks: one of them may wait for a pipe that nobody writes to.
    const failed = new Promise<void>((resolve) => { this.#tellFailed = resolve; });
    const abort = (): void => this.#fail(new VitastorError('ERR_ABORTED', 'interrupted'));
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    await Promise.race([failed, Promise.all(Array.from({ length: depth }, () => this.#work()))]);
    signal.removeEventListener('abort', abort);
    if (this.#failed) throw this.#failed;
    await this.#sink.finish(to + this.#end, sync);
    return this.copied;
  }

  #fail(error: Error): void {
    this.#failed ??= error;
    this.#tellFailed();
  }

  async #work(): Promise<void> {
    const { blockBytes, allocate, onProgress } = this.#options;
    let block: Buffer | null = null;
    while (!this.#failed && this.#next < this.#end) {
      const at = this.#next;
      const wanted = this.#end - at < BigInt(blockBytes) ? Number(this.#end - at) : blockBytes;
      this.#next += BigInt(wanted);
      const before = this.#before;
      let done = (): void => undefined;
      this.#before = new Promise((resolve) => { done = resolve; });
      try {
        block ??= allocate(blockBytes);
        const data = block.subarray(0, await this.#read(at, block.subarray(0, wanted)));
        if (data.length < wanted && at + BigInt(data.length) < this.#end) this.#end = at + BigInt(data.length);
        if (this.#sink.sequential) await before;
        if (data.length > 0 && !this.#failed) await this.#write(this.#options.to + at, data);
        if (!this.#failed) this.copied.bytes += BigInt(data.length);
        onProgress(this.copied.bytes);
      } catch (error) {
        this.#fail(error instanceof Error ? error : new Error(String(error)));
      } finally {
        done();
      }
    }
  }

  async #read(at: bigint, target: Buffer): Promise<number> {
    const offset = this.#options.from + at;
    try {
      return await this.#source.read(offset, target);
    } catch (error) {
      if (!this.#options.skipErrors || this.#source.sequential || this.#options.signal.aborted) throw error;
    }
    const step = Math.max(SMALLEST_PIECE, this.#source.alignment);
    for (let done = 0; done < target.length; done += step) {
      const piece = target.subarray(done, done + step);
      try {
        const size = await this.#source.read(offset + BigInt(done), piece);
        if (size < piece.length) return done + size;
      } catch {
        piece.fill(0);
        this.copied.unreadable += BigInt(piece.length);
      }
    }
    return target.length;
  }

  async #write(offset: bigint, data: Buffer): Promise<void> {
    const sink = this.#sink;
    if (data.length % sink.alignment !== 0) {
      throw new VitastorError('ERR_INVALID_ARGUMENT',
        `${this.#source.name} ends ${data.length % sink.alignment} bytes behind a multiple of ${sink.alignment}, which ${sink.name} cannot hold: ` +
        'pad the input (truncate -s) or give count=');
    }
    if (sink.sizeBytes !== null && offset + BigInt(data.length) > sink.sizeBytes)
      throw new VitastorError('ERR_INVALID_ARGUMENT', `${sink.name} is full: it has ${sink.sizeBytes} bytes, and the input goes on`);
    if (this.#options.sparse && !sink.sequential && isZero(data)) {
      if (sink.blankFrom !== null && offset >= sink.blankFrom) return;
      // Never into `data`: it is to be written if something else is there.
      const there = Buffer.allocUnsafeSlow(data.length);
      const size = await sink.read(offset, there);
      if (isZero(there.subarray(0, size))) return;
    }
    await sink.write(offset, data);
  }
}
