// SPDX-License-Identifier: GPL-2.0-or-later
// How many PGs each candidate set gets: the linear programs, and rounding to whole PGs. Source:
// etcd schema 9.5, 9.6.

import { setKey, sortedSet, type Combinations, type LeafSet } from './combinations.js';
import type { Leaf } from './fold.js';
import type { LinearProgram, Solver } from './solver.js';

/**
 * How many PGs each leaf should carry. weights: above 0. slots: filled slots of a set. A leaf can
 * be in each PG once at most: what a heavy one cannot take goes to the others in proportion.
 */
export function fairShares(weights: readonly number[], slots: number, pgCount: number): number[] {
  const result = weights.map(() => 0);
  let open = weights.map((_, i) => i);
  let left = slots * pgCount;
  while (open.length > 0) {
    const sum = open.reduce((s, i) => s + (weights[i] ?? 0), 0);
    const capped = open.filter((i) => (left * (weights[i] ?? 0)) / sum >= pgCount - 1e-9);
    if (capped.length === 0) {
      for (const i of open) result[i] = (left * (weights[i] ?? 0)) / sum;
      return result;
    }
    for (const i of capped) result[i] = pgCount;
    left = Math.max(0, left - capped.length * pgCount);
    open = open.filter((i) => !capped.includes(i));
  }
  return result;
}

/** n = round(value / left × PGs left) for each in turn, halves up; the sum is exactly `total`. */
export function roundShares(values: readonly number[], total: number): number[] {
  const exact = values.map((v) => (Math.abs(v - Math.round(v)) < 1e-6 ? Math.round(v) : v));
  let left = exact.reduce((s, v) => s + v, 0);
  let pgsLeft = total;
  return exact.map((value) => {
    const n =
      left > 1e-9 ? Math.min(pgsLeft, Math.floor((value / left) * pgsLeft + 0.5 + 1e-9)) : 0;
    left -= value;
    pgsLeft -= n;
    return n;
  });
}

export function countUses(sets: readonly LeafSet[], leaves: number): number[] {
  const uses = new Array<number>(leaves).fill(0);
  for (const set of sets) for (const leaf of set) uses[leaf] = (uses[leaf] ?? 0) + 1;
  return uses;
}

export interface OptimiseInput {
  leaves: readonly Leaf[];
  combinations: Combinations;
  candidates: readonly LeafSet[];
  pgCount: number;
  pgSize: number;
  /** Previous sets, scaled to pgCount, −1 for members that are gone; [] = an initial run. */
  previous: readonly LeafSet[];
  solver: Solver;
}

/** pgCount sets in no particular order. */
export async function optimise(input: OptimiseInput): Promise<LeafSet[]> {
  const { leaves, combinations, pgCount, pgSize } = input;
  const shares = fairShares(
    leaves.map((leaf) => leaf.weight),
    combinations.filled,
    pgCount,
  );
  const kept = new Map<string, { set: LeafSet; count: number }>();
  for (const set of input.previous) {
    if (!combinations.isValid(set)) continue;
    const sorted = sortedSet(set);
    const entry = kept.get(setKey(sorted)) ?? { set: sorted, count: 0 };
    entry.count++;
    kept.set(setKey(sorted), entry);
  }
  const keptSets = [...kept.values()];
  const uses = countUses(
    keptSets.flatMap(({ set, count }) => Array.from({ length: count }, () => set)),
    leaves.length,
  );
  // Rounding up is no reason to move anything: a leaf may keep what rounding gave it, but gets
  // nothing new beyond its share.
  const limits = shares.map((share, i) =>
    Math.max(share, Math.min(uses[i] ?? 0, Math.ceil(share - 1e-9))),
  );
  const overlap = overlaps(input.previous, leaves.length);
  const sets = [...keptSets.map(({ set }) => set), ...input.candidates];
  const limitRow = leaves.length;
  const program: LinearProgram = {
    cost: sets.map((set, i) =>
      i < keptSets.length
        ? pgSize + 1
        : pgSize + 1 - (pgSize - overlap(set, kept.has(setKey(set)))),
    ),
    columnUpper: sets.map((_, i) => keptSets[i]?.count ?? Number.POSITIVE_INFINITY),
    rowUpper: [...limits, pgCount],
    columnRows: sets.map((set) => [...set, limitRow]),
  };
  if (input.previous.length === 0) program.cost = sets.map(() => 1);
  const values = await input.solver.solve(program);
  const totals = new Map<string, { set: LeafSet; value: number }>();
  sets.forEach((set, i) => {
    const entry = totals.get(setKey(set)) ?? { set, value: 0 };
    entry.value += Math.max(0, values[i] ?? 0);
    totals.set(setKey(set), entry);
  });
  const used = [...totals.values()].filter(({ value }) => value > 1e-9);
  if (used.length === 0) return [];
  const counts = roundShares(
    used.map(({ value }) => value),
    pgCount,
  );
  const result = used.flatMap(({ set }, i) => Array.from({ length: counts[i] ?? 0 }, () => set));
  return levelOut(
    result,
    shares,
    new Map(keptSets.map(({ set, count }) => [setKey(set), count])),
    combinations,
  );
}

/**
 * Largest overlap of a set with any previous one (with any other than itself, for a candidate that
 * was there).
 */
function overlaps(
  previous: readonly LeafSet[],
  leaves: number,
): (set: LeafSet, exceptItself: boolean) => number {
  const distinct = [...new Map(previous.map((set) => [setKey(sortedSet(set)), set])).values()];
  const byLeaf: number[][] = Array.from({ length: leaves }, () => []);
  distinct.forEach((set, p) => new Set(set).forEach((leaf) => byLeaf[leaf]?.push(p)));
  return (set, exceptItself) => {
    const counts = new Map<number, number>();
    for (const leaf of set)
      for (const p of byLeaf[leaf] ?? []) counts.set(p, (counts.get(p) ?? 0) + 1);
    let best = 0;
    for (const [p, n] of counts)
      if (!(exceptItself && n === set.length && distinct[p]?.length === n))
        best = Math.max(best, n);
    return best;
  };
}

/**
 * Rounding may leave a leaf more than one PG off its share: swaps single members while that brings
 * the sum of deviations down.
 */
function levelOut(
  sets: readonly LeafSet[],
  shares: readonly number[],
  keep: ReadonlyMap<string, number>,
  combinations: Combinations,
): LeafSet[] {
  const result = [...sets];
  const uses = countUses(result, shares.length);
  const off = (leaf: number): number => (uses[leaf] ?? 0) - (shares[leaf] ?? 0);
  const keepLeft = new Map(keep);
  const frozen = result.map((set) => {
    const left = keepLeft.get(setKey(set)) ?? 0;
    keepLeft.set(setKey(set), left - 1);
    return left > 0;
  });
  const swapOnce = (): boolean => {
    const order = shares.map((_, i) => i).sort((a, b) => off(b) - off(a) || a - b);
    for (const over of order) {
      if (off(over) <= 0) return false;
      for (const under of [...order].reverse()) {
        if (off(over) - off(under) <= 1 + 1e-9) break;
        // A set that stays as it was is touched only for a leaf that is over by a whole PG.
        const index = result.findIndex(
          (set, i) =>
            (!frozen[i] || off(over) >= 1 - 1e-9) &&
            set.includes(over) &&
            !set.includes(under) &&
            combinations.isValid(set.map((leaf) => (leaf === over ? under : leaf))),
        );
        if (index < 0) continue;
        result[index] = sortedSet(
          (result[index] ?? []).map((leaf) => (leaf === over ? under : leaf)),
        );
        frozen[index] = false;
        uses[over] = (uses[over] ?? 0) - 1;
        uses[under] = (uses[under] ?? 0) + 1;
        return true;
      }
    }
    return false;
  };
  for (let round = 0; round < 2 * result.length && swapOnce(); round++);
  return result;
}
