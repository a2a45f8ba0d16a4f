// SPDX-License-Identifier: GPL-2.0-or-later
// Draws in halves of 32 bits are those of SplitMix64 in 64 bits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../src/rng.js';

const MASK = (1n << 64n) - 1n;

/** As published, with the state that the stream '' has. */
function plain(seed: bigint): () => bigint {
  let state = seed & MASK;
  return () => {
    state = (state + 0x9e3779b97f4a7c15n) & MASK;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
    return z ^ (z >> 31n);
  };
}

test('numbers and numbers below a bound are those of SplitMix64', () => {
  for (const seed of [0n, 1n, 12345n, 0xffffffffn, MASK, 0x8000000080000000n]) {
    const expected = plain(seed);
    const random = new SeededRandom(seed, '');
    for (let i = 0; i < 2000; i++) {
      const bound = [1, 2, 7, 100, 4096, 2 ** 20 - 1, 2 ** 20, 2 ** 20 + 1, 2 ** 40 + 3][i % 9] ?? 1;
      if (i % 10 === 0) assert.equal(random.u64(), expected());
      else assert.equal(random.below(bound), Number(expected() % BigInt(bound)));
    }
  }
});
