// SPDX-License-Identifier: GPL-2.0-or-later
// A stream into an image: what is there is checked, the image is marked until the stream has come to its end, and becomes a snapshot then.

import {
  changedExtents, createImage, createSnapshot, findPool, modifyImage, parentChain, VitastorError,
  type AdminContext, type ChangedExtent, type InodeConfig, type StreamDecoder, type StreamHeader, type StreamTotals,
} from '@vitastor/core';
import { Copier, type Copied } from '../copy/copier.js';
import type { BlockSource } from '../copy/endpoints.js';
import { CommandImages, findImage, IMAGE_PATHS, requirePlaced, type OpenImage } from '../copy/images.js';
import { choosePool } from '../image-create.js';
import type { Session } from '../session.js';
import { importState, isInterrupted, mismatch, refusal, targetSnapshot, withImportState, type ImportState } from './import-state.js';

/** Of data under way. */
const MEMORY_BYTES = 64 << 20;

export interface ImportOptions {
  image: string;
  pool: string | undefined;
  force: boolean;
  depth: number;
  onProgress(written: bigint): void;
}

export interface Imported {
  totals: StreamTotals;
  /** Made at the end, or there already; null: the stream is of no snapshot. */
  snapshot: string | null;
  /** Nothing had to be done. */
  wasThere: boolean;
}

interface Target {
  image: InodeConfig;
  /** Nothing has ever been written to it. */
  blank: boolean;
  /** Layers whose data is to be cleared where a full stream has none; null: there is nothing to clear. */
  clear: readonly InodeConfig[] | null;
}

const NOTHING: StreamTotals = { records: 0n, dataBytes: 0n, zeroBytes: 0n };

export async function importStream(session: Session, decoder: StreamDecoder, header: StreamHeader, options: ImportOptions): Promise<Imported> {
  const context = await session.admin(IMAGE_PATHS);
  const snapshot = targetSnapshot(options.image, header.to);
  if (isThere(context, header, options, snapshot)) {
    for await (const _ of decoder.records()) void _; // It shall be whole nevertheless.
    return { totals: NOTHING, snapshot, wasThere: true };
  }
  let images: CommandImages | null = null;
  let target: Target | null = null;
  try {
    // A client that was there before may not have heard of a new image.
    if (!header.from) target = await prepareFull(session, context, header, options, snapshot);
    images = await CommandImages.start(session);
    target ??= await prepareIncrement(session, context, images, header, options, snapshot);
    const image = await images.open(options.image, false);
    const { granularity } = image.io;
    if (header.granularity % granularity !== 0)
      throw refusal(`the stream has granules of ${header.granularity} bytes, and those of ${options.image} are larger (${granularity}): import it into a pool with a finer bitmap_granularity`);
    const totals = await write(images, image, target, decoder, options);
    await image.flush();
    await finish(session, target.image, header, snapshot);
    return { totals, snapshot, wasThere: false };
  } catch (error) {
    const cause = session.environment.signal.aborted ? new VitastorError('ERR_ABORTED', 'interrupted') : error;
    throw target && cause instanceof VitastorError ? withState(cause, options.image, header) : cause;
  } finally {
    await images?.close();
  }
}

/** After the mark was set: what is where. */
function withState(error: VitastorError, image: string, { from }: StreamHeader): VitastorError {
  const state = from
    ? `${image} holds a part of the increment since ${from.name}, and the snapshot below it is untouched: repeat the import`
    : `${image} is incomplete, and marked so: repeat the import, or remove it by vitastor-cli rm ${image}`;
  return new VitastorError(error.code, `${error.message}; ${state}`, { retryable: error.retryable, cause: error });
}

/** The command was repeated after it had succeeded. */
function isThere({ view }: AdminContext, header: StreamHeader, options: ImportOptions, snapshot: string | null): boolean {
  const image = view.imageByName(options.image);
  const state = image && importState(image);
  if (!image || !state?.complete || !snapshot || !header.to) return false;
  const below = image.parent && view.inodes.get((BigInt(image.parent.pool) << 48n) | image.parent.inode);
  return below?.name === snapshot && below.sizeBytes === header.sizeBytes && isInterrupted({ ...state, complete: false }, header);
}

function writable(image: InodeConfig): void {
  if (image.readonly) throw refusal(`Image ${image.name} is read-only`);
  if (image.deleted) throw refusal(`Image ${image.name} is being removed`);
}

function refuseTaken({ view }: AdminContext, snapshot: string | null): void {
  if (snapshot && view.imageByName(snapshot)) throw new VitastorError('ERR_EXISTS', `Snapshot ${snapshot} exists, and would be made of what is imported: remove or rename it first`);
}

const mark = (header: StreamHeader): ImportState => ({ to: header.to, from: header.from, complete: false });

async function prepareFull(session: Session, context: AdminContext, header: StreamHeader, options: ImportOptions, snapshot: string | null): Promise<Target> {
  const { view } = context;
  const { image: name, pool, force } = options;
  const old = view.imageByName(name);
  refuseTaken(context, snapshot);
  if (!old) {
    if (name.includes('@')) throw refusal(`${name}: a stream is imported into an image, and makes its snapshot itself`);
    if (header.sizeBytes === 0n) throw refusal('the stream is of an image without size');
    const chosen = choosePool(view, pool, null);
    if (chosen.usedForApp !== '' && !force) throw refusal(`Pool ${chosen.name} is used for ${chosen.usedForApp}. Use --force to create an image in it`);
    const image = await createImage(context, {
      pool: chosen.id, name, sizeBytes: header.sizeBytes, parent: null, meta: withImportState({ meta: null }, mark(header)),
    });
    requirePlaced(view, image);
    return { image, blank: true, clear: null };
  }
  writable(old);
  const state = importState(old);
  const mine = isInterrupted(state, header);
  if (pool !== undefined && findPool(view, pool).id !== old.pool) throw refusal(`Image ${name} exists, and not in pool ${pool}`);
  if (!mine && !force) {
    throw new VitastorError('ERR_EXISTS',
      state && !state.complete ? `Image ${name} is incomplete, of another stream (${state.to?.name ?? 'no snapshot'}): repeat that one, or --force writes over it`
        : `Image ${name} already exists: --force writes over it, or give another name`);
  }
  if (old.sizeBytes < header.sizeBytes || (old.sizeBytes > header.sizeBytes && !mine))
    throw refusal(`Image ${name} has ${old.sizeBytes} bytes, and the stream ${header.sizeBytes}: vitastor-cli modify ${name} --resize ${header.sizeBytes} first`);
  requirePlaced(view, old);
  const { image } = await modifyImage(context, old, { meta: withImportState(old, mark(header)) });
  session.step(mine ? `${name} was incomplete: the import begins anew` : `${name} is written over`);
  return { image, blank: false, clear: [old, ...parentChain(view, old)] };
}

async function prepareIncrement(
  session: Session, context: AdminContext, images: CommandImages, header: StreamHeader, options: ImportOptions, snapshot: string | null,
): Promise<Target> {
  const { view } = context;
  const { from } = header;
  if (!from) throw new Error('a full stream is no increment');
  const image = view.imageByName(options.image);
  if (!image) throw new VitastorError('ERR_NOT_FOUND', `Image ${options.image} does not exist, and the stream holds only what has changed since ${from.name}: import the full stream first`);
  writable(image);
  refuseTaken(context, snapshot);
  requirePlaced(view, image);
  const state = importState(image);
  const mine = isInterrupted(state, header);
  const problem = mismatch(view, image, from);
  if (problem !== '' && !options.force && !mine) throw refusal(`${problem}; --force imports it nevertheless`);
  if (!mine && !options.force) {
    if (state && !state.complete) throw refusal(`${image.name} holds a part of another increment (to ${state.to?.name ?? 'no snapshot'}): repeat that one first`);
    if (await images.isWritten([image])) throw refusal(`${image.name} was written to since ${from.name}: --force puts the increment over it`);
  }
  const { sizeBytes } = header;
  if (sizeBytes < image.sizeBytes && options.force && problem !== '')
    throw refusal(`Image ${image.name} has ${image.sizeBytes} bytes, and the stream ${header.sizeBytes}: vitastor-cli modify ${image.name} --resize ${sizeBytes} first`);
  const { image: marked } = await modifyImage(context, image, { sizeBytes, meta: withImportState(image, mark(header)) });
  if (mine) session.step(`${image.name} held a part of the increment: the import begins anew`);
  return { image: marked, blank: false, clear: null };
}

const roundUp = (bytes: bigint, step: bigint): bigint => ((bytes + step - 1n) / step) * step;

/** Writes under way: at most so many, of at most so many bytes. */
class Window {
  readonly #depth: number;
  readonly #pending = new Set<Promise<void>>();
  #bytes = 0;
  #error: unknown = null;

  constructor(depth: number) {
    this.#depth = depth;
  }
  /** Resolves when there is room for the next one. Rejects with the first error of any of them. */
  async add(bytes: number, run: () => Promise<void>): Promise<void> {
    this.#bytes += bytes;
    const pending = run().catch((error: unknown) => { this.#error ??= error; }).finally(() => {
      this.#bytes -= bytes;
      this.#pending.delete(pending);
    });
    this.#pending.add(pending);
    while (!this.#error && (this.#pending.size >= this.#depth || this.#bytes > MEMORY_BYTES)) await Promise.race(this.#pending);
    if (this.#error) throw this.#error;
  }
  async drain(): Promise<void> {
    await Promise.all(this.#pending);
    if (this.#error) throw this.#error;
  }
}

/** Discards what an image holds between the records of a full stream. Offsets only grow. */
class Clearer {
  readonly #parts: AsyncGenerator<ChangedExtent[]>;
  readonly #discard: (offset: bigint, length: bigint) => Promise<void>;
  #part: ChangedExtent[] = [];
  #next = 0;
  #ended = false;

  constructor(parts: AsyncGenerator<ChangedExtent[]>, discard: (offset: bigint, length: bigint) => Promise<void>) {
    this.#parts = parts;
    this.#discard = discard;
  }
  async clear(from: bigint, to: bigint): Promise<void> {
    while (from < to) {
      const extent = this.#part[this.#next];
      if (!extent) {
        if (this.#ended) return;
        const next = await this.#parts.next();
        this.#ended = next.done === true;
        [this.#part, this.#next] = [next.done === true ? [] : next.value, 0];
        continue;
      }
      const end = extent.offset + extent.length;
      if (end <= from) {
        this.#next++;
        continue;
      }
      if (extent.offset >= to) return;
      const [first, last] = [extent.offset > from ? extent.offset : from, end < to ? end : to];
      await this.#discard(first, last - first);
      from = last;
    }
  }
}

/** Raw bytes: source is at its beginning. */
export async function importRaw(session: Session, source: BlockSource, sizeBytes: bigint, options: ImportOptions & { blockBytes: number }): Promise<Copied> {
  const context = await session.admin(IMAGE_PATHS);
  const header: StreamHeader = { image: options.image, sizeBytes, granularity: 1, to: null, from: null };
  let images: CommandImages | null = null;
  let target: Target | null = null;
  try {
    target = await prepareFull(session, context, header, options, null);
    images = await CommandImages.start(session);
    const image = await images.open(options.image, false);
    const copier = new Copier(source, image.sink(target.blank), {
      blockBytes: options.blockBytes, depth: options.depth, from: 0n, to: 0n, limit: null, sparse: true, skipErrors: false, sync: true,
      allocate: (bytes) => Buffer.allocUnsafeSlow(bytes), onProgress: options.onProgress, signal: session.environment.signal,
    });
    const copied = await copier.run();
    if (target.clear && copied.bytes < sizeBytes) {
      const parts = changedExtents(images.client, { to: target.image, from: null, layers: target.clear });
      await new Clearer(parts, (offset, length) => image.discard(offset, length)).clear(copied.bytes, sizeBytes);
      await image.flush();
    }
    await finish(session, target.image, header, null);
    return copied;
  } catch (error) {
    const cause = session.environment.signal.aborted ? new VitastorError('ERR_ABORTED', 'interrupted') : error;
    throw target && cause instanceof VitastorError ? withState(cause, options.image, header) : cause;
  } finally {
    await images?.close();
  }
}

async function write(images: CommandImages, image: OpenImage, target: Target, decoder: StreamDecoder, options: ImportOptions): Promise<StreamTotals> {
  const window = new Window(options.depth);
  const { granularity, sizeBytes } = image.io;
  const step = BigInt(granularity);
  const discard = (offset: bigint, length: bigint) => window.add(0, () => image.discard(offset / step * step, roundUp(offset + length, step) - offset / step * step));
  const all = target.clear && changedExtents(images.client, { to: target.image, from: null, layers: target.clear });
  const clearer = all && new Clearer(all, discard);
  let [position, written] = [0n, 0n];
  const records = decoder.records();
  try {
    for (;;) {
      const next = await records.next();
      if (next.done === true) {
        await clearer?.clear(position, sizeBytes);
        await window.drain();
        return next.value;
      }
      const record = next.value;
      const length = record.type === 'zero' ? record.length : BigInt(record.data.length);
      await clearer?.clear(position, record.offset);
      if (record.type === 'data') {
        const data = padded(record.data, granularity);
        await window.add(data.length, () => image.write(record.offset, data));
      } else if (clearer) {
        await clearer.clear(record.offset, record.offset + length);
      } else if (!target.blank) {
        await discard(record.offset, length);
      }
      position = record.offset + length;
      written += length;
      options.onProgress(written);
    }
  } finally {
    await window.drain().catch(() => undefined);
    await all?.return(undefined);
  }
}

/** The end of an image whose size is no multiple of the granularity. */
function padded(data: Buffer, granularity: number): Buffer {
  const rest = data.length % granularity;
  return rest === 0 ? data : Buffer.concat([data, Buffer.alloc(granularity - rest)]);
}

/** Clears the mark, and makes the snapshot, in one transaction. */
async function finish(session: Session, target: InodeConfig, header: StreamHeader, snapshot: string | null): Promise<void> {
  const context = await session.admin(IMAGE_PATHS);
  const image = findImage(context.view, target.name);
  if (image.pool !== target.pool || image.inode !== target.inode)
    throw new VitastorError('ERR_CONFLICT', `a snapshot of ${target.name} was taken while the stream was imported: what was imported is complete, but ${snapshot ?? 'the image'} is not marked as such`);
  if (snapshot === null) await modifyImage(context, image, { meta: withImportState(image, null) });
  else await createSnapshot(context, image, snapshot.slice(snapshot.lastIndexOf('@') + 1), image.pool, withImportState(image, { to: header.to, from: header.from, complete: true }));
}
