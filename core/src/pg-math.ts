// SPDX-License-Identifier: GPL-2.0-or-later
// From a byte of an image to its object and PG. Source: configuration 9. The inode number plays no part.

import type { PoolConfig } from './schema/pools.js';

type Layout = Pick<PoolConfig, 'blockSizeBytes' | 'dataChunks' | 'pgStripeSizeBytes'>;

/** Bytes of an image in one object: block size × data chunks. */
export function objectSpanBytes(pool: Layout): bigint {
  return BigInt(pool.blockSizeBytes) * BigInt(pool.dataChunks);
}

/** Offset of the object that holds byte `offset`: rounded down. */
export function objectStart(pool: Layout, offset: bigint): bigint {
  return offset - (offset % objectSpanBytes(pool));
}

/** PG number 1 … pgCount (the real count of the PG map, not the wanted one of the pool). */
export function pgOfOffset(pool: Layout, pgCount: number, offset: bigint): number {
  return Number((objectStart(pool, offset) / BigInt(pool.pgStripeSizeBytes)) % BigInt(pgCount)) + 1;
}
