// SPDX-License-Identifier: GPL-2.0-or-later
// Randomness from a seed: SplitMix64. Each part of a run has a stream of its own, so that one more draw in one part moves nothing elsewhere.

import type { Random } from '@vitastor/core';

/** What V8 computes in registers, other than `& (2n ** 64n - 1n)`. */
const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

export class SeededRandom implements Random {
  #state: bigint;

  constructor(seed: bigint, stream: string) {
    let state = u64(seed);
    for (const char of stream) state = u64(state * 0x100000001b3n ^ BigInt(char.codePointAt(0) ?? 0));
    this.#state = state;
  }

  u64(): bigint {
    this.#state = u64(this.#state + 0x9e3779b97f4a7c15n);
    let z = this.#state;
    z = u64((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = u64((z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return z ^ (z >> 31n);
  }

  below(below: number): number {
    return Number(this.u64() % BigInt(below));
  }

  /** Inclusive. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** True in `percent` of 100 draws. */
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new Error('nothing to pick from');
    return item;
  }
}
