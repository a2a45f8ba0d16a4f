// SPDX-License-Identifier: GPL-2.0-or-later
// Local search beside the linear program: it repairs what lost members, and moves single members
// from full leaves to empty ones. Each step is one moved copy, so little data moves.

import { sortedSet, type Combinations, type LeafSet } from './combinations.js';
import { hash32 } from './hash.js';

export function countUses(sets: readonly LeafSet[], leaves: number): number[] {
  const uses = new Array<number>(leaves).fill(0);
  for (const set of sets) for (const leaf of set) uses[leaf] = (uses[leaf] ?? 0) + 1;
  return uses;
}

/** How far the uses of the leaves are from their shares, all together. */
export function deviation(uses: readonly number[], shares: readonly number[]): number {
  return shares.reduce((sum, share, leaf) => sum + Math.abs((uses[leaf] ?? 0) - share), 0);
}

/**
 * Brings uses closer to the shares by swapping single members. frozen: sets that stay as they were;
 * they are touched only for a leaf that is over by a whole PG. Order of the sets stays.
 */
export function levelOut(
  sets: readonly LeafSet[],
  shares: readonly number[],
  frozen: readonly boolean[],
  combinations: Combinations,
): LeafSet[] {
  const result = [...sets];
  const isFrozen = [...frozen];
  const uses = countUses(result, shares.length);
  const holders = shares.map(() => new Set<number>());
  result.forEach((set, i) => set.forEach((leaf) => holders[leaf]?.add(i)));
  const off = (leaf: number): number => (uses[leaf] ?? 0) - (shares[leaf] ?? 0);
  const swap = (over: number, under: number): boolean => {
    for (const i of holders[over] ?? []) {
      const set = result[i] ?? [];
      if ((isFrozen[i] && off(over) < 1 - 1e-9) || set.includes(under)) continue;
      const next = sortedSet(set.map((leaf) => (leaf === over ? under : leaf)));
      if (!combinations.isValid(next)) continue;
      result[i] = next;
      isFrozen[i] = false;
      holders[over]?.delete(i);
      holders[under]?.add(i);
      uses[over] = (uses[over] ?? 0) - 1;
      uses[under] = (uses[under] ?? 0) + 1;
      return true;
    }
    return false;
  };
  const swapAny = (): boolean => {
    const order = shares.map((_, leaf) => leaf).sort((a, b) => off(b) - off(a) || a - b);
    for (const over of order) {
      if (off(over) <= 0) return false;
      for (let i = order.length - 1; i >= 0; i--) {
        const under = order[i] ?? over;
        if (off(over) - off(under) <= 1 + 1e-9) break;
        if (swap(over, under)) return true;
      }
    }
    return false;
  };
  // Each swap lowers the sum of deviations; the bound is only for what nobody thought of.
  for (let round = 0; round < 4 * (result.length + 1) * shares.length && swapAny(); round++);
  return result;
}

/**
 * The previous sets, PG by PG, with the members that are gone replaced, levelled out. null: some
 * set cannot be repaired that way. previous: as in the program, −1 for members that are gone.
 */
export function repairSets(
  previous: readonly LeafSet[],
  shares: readonly number[],
  combinations: Combinations,
): LeafSet[] | null {
  const whole = previous.map((set) => combinations.isValid(set));
  const uses = countUses(
    previous.filter((_, i) => whole[i]),
    shares.length,
  );
  const result: LeafSet[] = [];
  for (const [i, set] of previous.entries()) {
    if (whole[i]) {
      result.push(sortedSet(set));
      continue;
    }
    const off = (leaf: number): number => (uses[leaf] ?? 0) - (shares[leaf] ?? 0);
    const order = shares
      .map((_, leaf) => leaf)
      .sort((a, b) => off(a) - off(b) || hash32(i, a) - hash32(i, b));
    const repaired = combinations.complete(set, order);
    if (repaired === null) return null;
    for (const leaf of repaired) uses[leaf] = (uses[leaf] ?? 0) + 1;
    result.push(repaired);
  }
  return levelOut(result, shares, whole, combinations);
}
