// SPDX-License-Identifier: GPL-2.0-or-later
// How many PGs each candidate set gets: the linear programs, and rounding to whole PGs. Source:
// etcd schema 9.5, 9.6.

import { setKey, sortedSet, type Combinations, type LeafSet } from './combinations.js';
import { countUses, levelOut } from './level.js';
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

export interface OptimiseInput {
  /** PGs that each leaf should have. */
  shares: readonly number[];
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
  const { shares, combinations, pgCount, pgSize } = input;
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
    shares.length,
  );
  // Rounding up is no reason to move anything: a leaf may keep what rounding gave it, but gets
  // nothing new beyond its share.
  const limits = shares.map((share, i) =>
    Math.max(share, Math.min(uses[i] ?? 0, Math.ceil(share - 1e-9))),
  );
  const overlap = overlaps(input.previous, shares.length);
  const sets = [...keptSets.map(({ set }) => set), ...input.candidates];
  const limitRow = shares.length;
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
  // Rounding may leave a leaf more than one PG off its share.
  const left = new Map(keptSets.map(({ set, count }) => [setKey(set), count]));
  const frozen = result.map((set) => {
    const n = left.get(setKey(set)) ?? 0;
    left.set(setKey(set), n - 1);
    return n > 0;
  });
  return levelOut(result, shares, frozen, combinations);
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
