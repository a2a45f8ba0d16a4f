// SPDX-License-Identifier: GPL-2.0-or-later
// An image, or what has changed in it since a snapshot, as a stream or as raw bytes. Format: docs/formats/stream.md.

import {
  changedExtents, StreamEncoder,
  type ChangedExtent, type InodeConfig, type LayerDiff, type LayerIdentity, type StreamTotals,
} from '@vitastor/core';
import type { CommandImages, OpenImage } from '../copy/images.js';
import { SPAN_BYTES, readExtents } from './reading.js';
import type { Output, RawUpdate } from './outputs.js';

/** Extents that are held to know how much there is before it is read. */
const KNOWN_EXTENTS = 1 << 18;

export interface ExportOptions {
  /** Reads of SPAN_BYTES under way at once. */
  depth: number;
  iodepth: number;
  parallelOsds: number;
  /** done of total: bytes of changes, or (total unknown) null. */
  onProgress(doneBytes: bigint, totalBytes: bigint | null): void;
  /** Last, before the end is written: throws where what was read may be no state that there was. */
  confirm(): Promise<void>;
  signal: AbortSignal;
}

export const MEMORY_BYTES = (depth: number): number => depth * SPAN_BYTES;

export function identityOf(layer: InodeConfig): LayerIdentity {
  return { name: layer.name, sizeBytes: layer.sizeBytes, pool: layer.pool, inode: layer.inode };
}

/** All extents, some of them listed already; their sum when that are all. */
async function known(parts: AsyncGenerator<ChangedExtent[]>): Promise<{ total: bigint | null; all: AsyncIterable<ChangedExtent[]> }> {
  const first: ChangedExtent[][] = [];
  let [count, total, ended]: [number, bigint, boolean] = [0, 0n, false];
  while (!ended && count < KNOWN_EXTENTS) {
    const next = await parts.next();
    if (next.done === true) ended = true;
    else {
      first.push(next.value);
      count += next.value.length;
      for (const extent of next.value) total += extent.length;
    }
  }
  async function* all(): AsyncGenerator<ChangedExtent[]> {
    for (let part = first.shift(); part; part = first.shift()) yield part;
    yield* parts;
  }
  return { total: ended ? total : null, all: all() };
}

async function* pieces(images: CommandImages, image: OpenImage, diff: LayerDiff, options: ExportOptions) {
  const { iodepth, parallelOsds, depth, onProgress, signal } = options;
  const { total, all } = await known(changedExtents(images.client, diff, { iodepth, parallelOsds, maxExtents: KNOWN_EXTENTS }));
  let done = 0n;
  onProgress(0n, total);
  for await (const some of readExtents(image.source(), all, depth)) {
    signal.throwIfAborted();
    yield some;
    for (const piece of some) done += piece.length;
    onProgress(done, total);
  }
  await options.confirm();
}

export async function exportStream(images: CommandImages, image: OpenImage, diff: LayerDiff, output: Output, options: ExportOptions): Promise<StreamTotals> {
  const encoder = new StreamEncoder();
  const { to, from } = diff;
  await output.append([encoder.header({
    image: to.name.replace(/@[^@]*$/, ''), sizeBytes: to.sizeBytes, granularity: image.io.granularity,
    to: isSnapshot(to) ? identityOf(to) : null, from: from && identityOf(from),
  })]);
  for await (const some of pieces(images, image, diff, options)) {
    const bytes: Buffer[] = [];
    for (const { offset, length, data } of some) {
      if (!data) bytes.push(encoder.zero(offset, length));
      else bytes.push(encoder.data(offset, data), data);
    }
    await output.append(bytes);
  }
  await output.append([encoder.end()]);
  await output.finish();
  return encoder.totals;
}

/** All bytes of the image. */
export async function exportRaw(images: CommandImages, image: OpenImage, diff: LayerDiff, output: Output, options: ExportOptions): Promise<StreamTotals> {
  const totals: StreamTotals = { records: 0n, dataBytes: 0n, zeroBytes: 0n };
  let position = 0n;
  for await (const some of pieces(images, image, diff, options)) {
    for (const { offset, length, data } of some) {
      if (!data) continue;
      await output.skip(offset - position);
      await output.append([data]);
      position = offset + length;
      totals.dataBytes += length;
    }
  }
  await output.skip(diff.to.sizeBytes - position);
  await output.finish();
  totals.zeroBytes = diff.to.sizeBytes - totals.dataBytes;
  return totals;
}

/** What has changed, into a raw copy of the older snapshot. */
export async function updateRaw(images: CommandImages, image: OpenImage, diff: LayerDiff, file: RawUpdate, options: ExportOptions): Promise<StreamTotals> {
  const totals: StreamTotals = { records: 0n, dataBytes: 0n, zeroBytes: 0n };
  for await (const some of pieces(images, image, diff, options)) {
    for (const { offset, length, data } of some) {
      if (data) await file.write(offset, data);
      else await file.zero(offset, length);
      totals[data ? 'dataBytes' : 'zeroBytes'] += length;
    }
  }
  await file.finish(diff.to.sizeBytes);
  return totals;
}

export function isSnapshot(layer: InodeConfig): boolean {
  return layer.readonly && layer.name.includes('@');
}
