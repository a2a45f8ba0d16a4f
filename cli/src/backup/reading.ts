// SPDX-License-Identifier: GPL-2.0-or-later
// Changed extents of an image with their bytes, in order, several reads under way at once, in memory of depth * SPAN_BYTES.

import type { ChangedExtent } from '@vitastor/core';
import { isZero, type BlockSource } from '../copy/endpoints.js';

/** Read at once. */
export const SPAN_BYTES = 1 << 20;
/** Extents that are so near are read with what lies between: a request costs more than these bytes. */
const GAP_BYTES = 32n * 1024n;
/** Zeroes within data are told apart in steps of so much. */
const ZERO_STEP = 65536;

/** data: borrowed until the next one is asked for; null: zeroes. */
export interface Piece {
  offset: bigint;
  length: bigint;
  data: Buffer | null;
}

interface Span {
  offset: bigint;
  length: number;
  extents: ChangedExtent[];
}

/** Extents cut and put together to what is read at once; a zero extent is a span of length 0. */
async function* spansOf(parts: AsyncIterable<readonly ChangedExtent[]>): AsyncGenerator<Span> {
  let span: Span | null = null;
  for await (const part of parts) {
    for (const extent of part) {
      if (extent.type === 'zero') {
        if (span) yield span;
        span = null;
        yield { offset: extent.offset, length: 0, extents: [extent] };
        continue;
      }
      const end = extent.offset + extent.length;
      for (let at = extent.offset; at < end;) {
        const spanEnd: bigint = span === null ? 0n : span.offset + BigInt(span.length);
        const room = span === null ? 0n : span.offset + BigInt(SPAN_BYTES) - at;
        if (span !== null && at - spanEnd <= GAP_BYTES && room > 0n) {
          const size = end - at < room ? end - at : room;
          span.extents.push({ type: 'data', offset: at, length: size });
          span.length = Number(at + size - span.offset);
          at += size;
        } else {
          if (span) yield span;
          span = { offset: at, length: 0, extents: [] };
        }
      }
    }
  }
  if (span) yield span;
}

/** Rejects with what reading or listing rejects with. */
export async function* readExtents(source: BlockSource, parts: AsyncIterable<readonly ChangedExtent[]>, depth: number): AsyncGenerator<Piece[]> {
  const free: Buffer[] = [];
  const queue: { span: Span; memory: Buffer | null; read: Promise<number> }[] = [];
  const take = async function* (keep: number): AsyncGenerator<Piece[]> {
    while (queue.length > keep) {
      const first = queue.shift();
      if (!first) return;
      await first.read;
      yield piecesOf(first.span, first.memory);
      if (first.memory) free.push(first.memory);
    }
  };
  try {
    for await (const span of spansOf(parts)) {
      const memory = span.length > 0 ? free.pop() ?? Buffer.allocUnsafeSlow(SPAN_BYTES) : null;
      const read = memory ? source.read(span.offset, memory.subarray(0, span.length)) : Promise.resolve(0);
      read.catch(() => undefined); // It is awaited when it is its turn.
      queue.push({ span, memory, read });
      yield* take(depth - 1);
    }
    yield* take(0);
  } finally {
    // Memory that is being read into is not let go.
    await Promise.allSettled(queue.map(({ read }) => read));
  }
}

function piecesOf(span: Span, memory: Buffer | null): Piece[] {
  const pieces: Piece[] = [];
  for (const { offset, length } of span.extents) {
    if (!memory) {
      pieces.push({ offset, length, data: null });
      continue;
    }
    const start = Number(offset - span.offset);
    const end = start + Number(length);
    for (let at = start; at < end;) {
      const first = at;
      const zero = isZero(memory.subarray(at, Math.min(at + ZERO_STEP, end)));
      while (at < end && isZero(memory.subarray(at, Math.min(at + ZERO_STEP, end))) === zero) at = Math.min(at + ZERO_STEP, end);
      pieces.push({ offset: span.offset + BigInt(first), length: BigInt(at - first), data: zero ? null : memory.subarray(first, at) });
    }
  }
  return pieces;
}
