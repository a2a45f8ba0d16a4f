// SPDX-License-Identifier: GPL-2.0-or-later
// Whether one list of extents lies within another.

import type { Extent } from '@vitastor/core';

/** Both in order, disjoint. The first offset of `inner` that is not in `outer`; null: there is none. Neither is held in memory. */
export async function firstUncovered(inner: AsyncIterable<readonly Extent[]>, outer: AsyncIterable<readonly Extent[]>): Promise<bigint | null> {
  const cover = flat(outer);
  let at = await cover.next();
  for await (const part of inner) {
    for (const { offset, length } of part) {
      const end = offset + length;
      let from = offset;
      while (from < end) {
        while (!at.done && at.value.offset + at.value.length <= from) at = await cover.next();
        if (at.done === true || at.value.offset > from) return from;
        from = at.value.offset + at.value.length;
      }
    }
  }
  return null;
}

async function* flat(parts: AsyncIterable<readonly Extent[]>): AsyncGenerator<Extent, void> {
  for await (const part of parts) yield* part;
}
