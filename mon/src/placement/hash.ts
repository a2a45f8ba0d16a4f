// SPDX-License-Identifier: GPL-2.0-or-later
// Hashes for placement: equal inputs give equal choices on every machine, without a generator that
// has state.

/** Mixes whole numbers into 32 bits (murmur3's finaliser after each). */
export function hash32(...words: number[]): number {
  let h = 0x9e3779b9;
  for (const word of words) {
    h = Math.imul(h ^ (word | 0), 0x85ebca6b);
    h ^= h >>> 13;
    h = Math.imul(h, 0xc2b2ae35);
    h ^= h >>> 16;
    h = (h + 0x165667b1) | 0;
  }
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  h ^= h >>> 12;
  return h >>> 0;
}

/** FNV-1a over UTF-16 units, mixed. */
export function hashText(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return hash32(h);
}

/**
 * Weighted highest-random-weight score: the highest of all wins in proportion to the weights. hash:
 * 32 bits. weight: above 0.
 */
export function hrwScore(hash: number, weight: number): number {
  return weight / -Math.log((hash + 0.5) / 4294967296);
}
