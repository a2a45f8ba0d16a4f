// SPDX-License-Identifier: GPL-2.0-or-later
// Bitmaps of written granules: bit i is byte i/8, mask 1 << (i mod 8). Source: wire-protocol 4.

/** A copy of `bitmap` with the bits of [offset, offset + len) set. */
export function withRange(bitmap: Uint8Array, granularity: number, offset: number, len: number): Buffer {
  const out = Buffer.from(bitmap);
  for (let bit = Math.floor(offset / granularity); bit * granularity < offset + len; bit++)
    out[bit >> 3] = (out[bit >> 3] ?? 0) | (1 << (bit & 7));
  return out;
}
