// SPDX-License-Identifier: GPL-2.0-or-later
// Randomness from a seed: SplitMix64. Each part of a run has a stream of its own, so that one more draw in one part moves nothing elsewhere.
// Tens of thousands of draws a seed: in halves of 32 bits, because bigint would be ten times slower.

import type { Random } from '@vitastor/core';

const MASK = (1n << 64n) - 1n;
const HALF = 2 ** 32;
/** Below this, below() needs no bigint. */
const EXACT = 2 ** 20;

export class SeededRandom implements Random {
  /** The state, and what next() leaves. Each 32 bits, unsigned. */
  #high: number;
  #low: number;
  #outHigh = 0;
  #outLow = 0;

  constructor(seed: bigint, stream: string) {
    let state = seed & MASK;
    for (const char of stream) state = (state * 0x100000001b3n ^ BigInt(char.codePointAt(0) ?? 0)) & MASK;
    this.#high = Number(state >> 32n);
    this.#low = Number(state & 0xffffffffn);
  }

  u64(): bigint {
    this.#next();
    return (BigInt(this.#outHigh) << 32n) | BigInt(this.#outLow);
  }

  below(below: number): number {
    if (below >= EXACT) return Number(this.u64() % BigInt(below));
    this.#next();
    return ((this.#outHigh % below) * (HALF % below) + this.#outLow) % below;
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

  #next(): void {
    const low = this.#low + 0x7f4a7c15;
    this.#high = (this.#high + 0x9e3779b9 + (low >= HALF ? 1 : 0)) >>> 0;
    this.#low = low >>> 0;
    this.#outHigh = this.#high;
    this.#outLow = this.#low;
    this.#shiftIn(30);
    this.#multiply(0xbf58476d, 0x1ce4e5b9);
    this.#shiftIn(27);
    this.#multiply(0x94d049bb, 0x133111eb);
    this.#shiftIn(31);
  }

  /** out ^= out >> bits; bits: 1 … 31. */
  #shiftIn(bits: number): void {
    this.#outLow = (this.#outLow ^ ((this.#outHigh << (32 - bits)) | (this.#outLow >>> bits))) >>> 0;
    this.#outHigh = (this.#outHigh ^ (this.#outHigh >>> bits)) >>> 0;
  }

  /** out *= factor, the lower 64 bits of it. */
  #multiply(high: number, low: number): void {
    const a = this.#outLow & 0xffff;
    const b = this.#outLow >>> 16;
    const c = low & 0xffff;
    const d = low >>> 16;
    const middle = b * c + Math.floor((a * c) / 0x10000);
    const other = a * d + (middle % 0x10000);
    const carry = b * d + Math.floor(middle / 0x10000) + Math.floor(other / 0x10000);
    this.#outHigh = (carry + Math.imul(this.#outHigh, low) + Math.imul(this.#outLow, high)) >>> 0;
    this.#outLow = Math.imul(this.#outLow, low) >>> 0;
  }
}
