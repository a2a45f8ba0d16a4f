// SPDX-License-Identifier: GPL-2.0-or-later
// One pool's placement from the tree and the previous sets. Pure: equal inputs give equal results.
// Source: etcd schema 9.

import type { PoolConfig } from '@vitastor/core';
import { align, initialSlots, numberPgs, orderSlots, shuffled } from './align.js';
import { Combinations, setKey, sortedSet, type LeafSet } from './combinations.js';
import { expand, foldTree, type Leaf } from './fold.js';
import { countUses, deviation, repairSets } from './level.js';
import { fairShares, optimise } from './optimise.js';
import { rulesOf } from './rules.js';
import type { Solver } from './solver.js';
import { filterTree, type ChainedOsd, type Levels } from './tree.js';

export interface Space {
  /** TiB that the distribution can hold. */
  totalRawTb: number;
  /** Smallest number of distinct filled slots over all PGs. */
  pgRealSize: number;
  rawToUsable: number;
  /** 0 … 1. */
  spaceEfficiency: number;
}

export interface PlaceInput {
  pool: PoolConfig;
  /** The whole tree; the pool's own filters are applied here. */
  tree: readonly ChainedOsd[];
  levels: Levels;
  /**
   * Real sets (0 = empty) of the previous PGs, already scaled to pg_count; [] = start from nothing.
   */
  previous: readonly (readonly number[])[];
  solver: Solver;
}

export interface Placement {
  /** pg_count sets of pg_size OSD numbers, 0 = empty slot. */
  sets: number[][];
  space: Space;
}

/** null: no OSD suits the pool. Throws ERR_BAD_VALUE for rules that cannot be read. */
export async function placePool(input: PlaceInput): Promise<Placement | null> {
  const { pool, solver } = input;
  const rules = rulesOf(pool);
  const osds = filterTree(input.tree, pool);
  const leaves = foldTree(osds, rules, input.levels);
  const combinations = new Combinations(leaves, rules);
  const { sets: found, complete } = combinations.candidates(pool.maxOsdCombinations);
  if (found.length === 0) return null;
  const leafOf = new Map(
    leaves.flatMap((leaf) => leaf.osds.map((osd) => [osd.num, leaf.index] as const)),
  );
  const previous = input.previous.map((set) =>
    set.filter((osd) => osd !== 0).map((osd) => leafOf.get(osd) ?? -1),
  );
  const candidates = complete ? found : withRepairs(found, previous, leaves, combinations, pool);
  const shares = fairShares(
    leaves.map((leaf) => leaf.weight),
    combinations.filled,
    pool.pgCount,
  );
  const { pgCount, pgSize } = pool;
  const chosen = await optimise({
    shares,
    combinations,
    candidates,
    pgCount,
    pgSize,
    previous,
    solver,
  });
  if (chosen.length === 0) return null;
  const rotate = pool.scheme !== 'replicated';
  let slots: number[][];
  if (previous.length === 0) {
    const leadSlots = rotate ? pool.dataChunks : pgSize;
    slots = numberPgs(initialSlots(chosen, pgSize, rotate), leadSlots, pool.id);
  } else {
    const aligned = align(shuffled(chosen, pool.id), previous);
    const repaired = repairSets(previous, shares, combinations);
    const cost = (sets: readonly LeafSet[]): number =>
      deviation(countUses(sets, leaves.length), shares) + movedMembers(previous, sets);
    const best = repaired !== null && cost(repaired) <= cost(aligned) ? repaired : aligned;
    const positions = input.previous.map((set) =>
      set.map((osd) => (osd === 0 ? -1 : (leafOf.get(osd) ?? -1))),
    );
    slots = best.map((set, pg) => orderSlots(set, positions[pg] ?? [], pgSize));
  }
  let sets = expand({ leaves, pgs: slots, previous: input.previous });
  const wanted = osdShares(leaves, combinations.filled, pool.pgCount);
  if (
    isWhole(input.previous, previous, pool, combinations) &&
    osdDeviation(input.previous, wanted) <= osdDeviation(sets, wanted) + 1e-6
  ) {
    sets = input.previous.map((set) => [...set]);
  }
  return { sets, space: spaceOf(sets, pool, osds) };
}

/** Members that a PG did not have before. */
function movedMembers(before: readonly LeafSet[], now: readonly LeafSet[]): number {
  return now.reduce(
    (sum, set, pg) => sum + set.filter((leaf) => !before[pg]?.includes(leaf)).length,
    0,
  );
}

/**
 * Sampling does not find the sets that differ little from previous ones: they are added, as many
 * again at most.
 */
function withRepairs(
  found: readonly LeafSet[],
  previous: readonly LeafSet[],
  leaves: readonly Leaf[],
  combinations: Combinations,
  pool: PoolConfig,
): LeafSet[] {
  const unique = new Map(found.map((set) => [setKey(set), set]));
  const uses = countUses(
    previous.filter((set) => combinations.isValid(set)),
    leaves.length,
  );
  const shares = fairShares(
    leaves.map((leaf) => leaf.weight),
    combinations.filled,
    pool.pgCount,
  );
  const wanted = shares.flatMap((share, i) =>
    (uses[i] ?? 0) < Math.floor(share + 1e-9) ? [i] : [],
  );
  const bound = unique.size + pool.maxOsdCombinations;
  for (const set of new Map(previous.map((p) => [setKey(sortedSet(p)), p])).values()) {
    for (const repaired of combinations.repairs(set, wanted))
      unique.set(setKey(repaired), repaired);
    if (unique.size >= bound) break;
  }
  return [...unique.values()];
}

/** True if the previous PGs could stay exactly as they are. */
function isWhole(
  real: readonly (readonly number[])[],
  folded: readonly LeafSet[],
  pool: PoolConfig,
  combinations: Combinations,
): boolean {
  return (
    real.length === pool.pgCount &&
    real.every((set) => set.length === pool.pgSize) &&
    folded.every((set) => combinations.isValid(set))
  );
}

/** PGs that each OSD should have. */
function osdShares(leaves: readonly Leaf[], filled: number, pgCount: number): Map<number, number> {
  const shares = fairShares(
    leaves.map((leaf) => leaf.weight),
    filled,
    pgCount,
  );
  return new Map(
    leaves.flatMap((leaf) =>
      leaf.osds.map(
        (osd) => [osd.num, ((shares[leaf.index] ?? 0) * osd.weight) / leaf.weight] as const,
      ),
    ),
  );
}

function countOsds(sets: readonly (readonly number[])[]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const set of sets)
    for (const osd of new Set(set)) if (osd !== 0) counts.set(osd, (counts.get(osd) ?? 0) + 1);
  return counts;
}

function osdDeviation(
  sets: readonly (readonly number[])[],
  wanted: ReadonlyMap<number, number>,
): number {
  const counts = countOsds(sets);
  let sum = 0;
  for (const [osd, share] of wanted) sum += Math.abs((counts.get(osd) ?? 0) - share);
  return sum;
}

/** What the sets can hold: the OSD that fills up first is the limit. */
export function spaceOf(
  sets: readonly (readonly number[])[],
  pool: PoolConfig,
  osds: readonly ChainedOsd[],
): Space {
  const counts = countOsds(sets);
  const sizes = sets.map((set) => new Set(set.filter((osd) => osd !== 0)).size);
  const pgRealSize = sizes.length ? Math.min(...sizes) : pool.pgSize;
  const largest = sizes.length ? Math.max(...sizes) : 0;
  let limit = Number.POSITIVE_INFINITY;
  let weight = 0;
  for (const osd of osds) {
    weight += osd.weight;
    const count = counts.get(osd.num) ?? 0;
    if (count > 0) limit = Math.min(limit, (osd.weight * sets.length) / count);
  }
  const totalRawTb = Number.isFinite(limit) ? largest * limit : 0;
  return {
    totalRawTb,
    pgRealSize,
    rawToUsable: pgRealSize / pool.dataChunks,
    spaceEfficiency: weight > 0 ? totalRawTb / weight : 0,
  };
}
