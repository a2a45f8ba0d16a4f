// SPDX-License-Identifier: GPL-2.0-or-later

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Extent } from '@vitastor/core';
import { firstUncovered } from '../src/coverage.js';

type Range = readonly [from: number, to: number];

async function* parts(ranges: readonly Range[], size: number): AsyncGenerator<Extent[]> {
  for (let i = 0; i <= ranges.length; i += size) yield ranges.slice(i, i + size).map(([from, to]) => ({ offset: BigInt(from), length: BigInt(to - from) }));
}

test('all pairs of sets of eight blocks', async () => {
  const rangesOf = (bits: number): Range[] => {
    const ranges: [number, number][] = [];
    for (let i = 0; i < 8; i++) {
      if (!(bits >> i & 1)) continue;
      const last = ranges.at(-1);
      if (last?.[1] === i) last[1] = i + 1;
      else ranges.push([i, i + 1]);
    }
    return ranges;
  };
  for (let inner = 0; inner < 256; inner++) {
    for (let outer = 0; outer < 256; outer += 1 + (inner % 3)) {
      const open = inner & ~outer;
      const wanted = open === 0 ? null : BigInt(Math.log2(open & -open));
      assert.equal(await firstUncovered(parts(rangesOf(inner), 1 + (outer % 3)), parts(rangesOf(outer), 1 + (inner % 2))), wanted, `${inner} in ${outer}`);
    }
  }
  // Extents of the outer one that touch without being one.
  assert.equal(await firstUncovered(parts([[0, 9]], 5), parts([[0, 4], [4, 9]], 1)), null);
});
