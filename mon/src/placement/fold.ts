// SPDX-License-Identifier: GPL-2.0-or-later
// Folding: levels below every level that the rules mention do not matter to the optimiser, so each
// node just above them becomes one leaf with the sum of the weights (with failure domain host: it
// works on hosts). Expanding gives every slot of a leaf back to a real OSD. Source: etcd schema
// 9.3.

import { hash32 } from './hash.js';
import { keepsSlotsApart, mentionedLevels, type PlacementRules } from './rules.js';
import type { ChainedOsd, Levels } from './tree.js';

/** What the optimiser places: one OSD, or a folded node. */
export interface Leaf {
  /** Position in the list of leaves. */
  index: number;
  /** Name of the node, or the OSD number. */
  node: string;
  weight: number;
  /** Level → node, from the leaf upwards. */
  path: ReadonlyMap<string, string>;
  osds: readonly { num: number; weight: number }[];
}

/** Leaves ordered by their lowest OSD number. */
export function foldTree(
  osds: readonly ChainedOsd[],
  rules: PlacementRules,
  levels: Levels,
): Leaf[] {
  let lowest = Number.POSITIVE_INFINITY;
  if (keepsSlotsApart(rules)) {
    lowest = Math.max(
      ...[...mentionedLevels(rules)].map((level) => levels.get(level) ?? Number.POSITIVE_INFINITY),
    );
  }
  const groups = new Map<
    string,
    {
      path: Map<string, string>;
      node: string;
      weight: number;
      osds: { num: number; weight: number }[];
    }
  >();
  for (const osd of osds) {
    const above = osd.chain.findLastIndex((step) => step.levelNumber >= lowest);
    const chain = osd.chain.slice(Math.max(above, 0));
    const top = chain[0];
    if (top === undefined) continue;
    // Node names and OSD numbers are two name spaces.
    const key = `${top.level === 'osd' ? 'o' : 'n'}${top.node}`;
    let group = groups.get(key);
    if (group === undefined) {
      group = {
        path: new Map(chain.map((step) => [step.level, step.node])),
        node: top.node,
        weight: 0,
        osds: [],
      };
      groups.set(key, group);
    }
    group.weight += osd.weight;
    group.osds.push({ num: osd.num, weight: osd.weight });
  }
  return [...groups.values()].map((group, index) => ({ index, ...group }));
}

export interface ExpandInput {
  leaves: readonly Leaf[];
  /** Per PG, per slot: the leaf or −1. */
  pgs: readonly (readonly number[])[];
  /** Previous real sets by PG number − 1; [] = none. */
  previous: readonly (readonly number[])[];
}

interface Slot {
  pg: number;
  slot: number;
  /** The OSD of this node that the PG used before; 0 = none. */
  before: number;
}

/**
 * Real OSD sets, 0 = empty slot. Keeps the previous OSD of a PG in a node where that costs no
 * balance.
 */
export function expand(input: ExpandInput): number[][] {
  const result = input.pgs.map((pg) => pg.map(() => 0));
  const slotsOf = new Map<number, Slot[]>();
  input.pgs.forEach((pg, p) =>
    pg.forEach((index, slot) => {
      const leaf = input.leaves[index];
      if (leaf === undefined) return;
      const before =
        input.previous[p]?.find((osd) => leaf.osds.some((mine) => mine.num === osd)) ?? 0;
      const list = slotsOf.get(index) ?? [];
      list.push({ pg: p, slot, before });
      slotsOf.set(index, list);
    }),
  );
  for (const [index, slots] of slotsOf) {
    const leaf = input.leaves[index];
    if (leaf === undefined) continue;
    const chosen = share(leaf, slots);
    slots.forEach((slot, i) => {
      const set = result[slot.pg];
      if (set !== undefined) set[slot.slot] = chosen[i] ?? 0;
    });
  }
  return result;
}

/**
 * One OSD of the leaf for each slot: as before where possible, shares in proportion to the weights.
 */
function share(leaf: Leaf, slots: readonly Slot[]): number[] {
  const [only, second] = leaf.osds;
  if (only !== undefined && second === undefined) return slots.map(() => only.num);
  const target = new Map(
    leaf.osds.map((osd) => [osd.num, (slots.length * osd.weight) / leaf.weight]),
  );
  const count = new Map(leaf.osds.map((osd) => [osd.num, 0]));
  const deviation = (osd: number): number => (count.get(osd) ?? 0) - (target.get(osd) ?? 0);
  const add = (osd: number, n: number): void => void count.set(osd, (count.get(osd) ?? 0) + n);
  const result = slots.map((slot) => slot.before);
  for (const osd of result) if (osd !== 0) add(osd, 1);
  slots.forEach((slot, i) => {
    if (result[i] !== 0) return;
    let best = 0;
    for (const { num } of leaf.osds) {
      const gap = best === 0 ? -1 : deviation(num) - deviation(best);
      if (gap < -1e-9 || (gap < 1e-9 && hash32(slot.pg, num) < hash32(slot.pg, best))) best = num;
    }
    result[i] = best;
    add(best, 1);
  });
  // Each move lowers the sum of deviations by at least a little; one per slot is enough to reach
  // the end.
  for (let round = 0; round < slots.length; round++) {
    const byDeviation = leaf.osds
      .map((osd) => osd.num)
      .sort((a, b) => deviation(b) - deviation(a) || a - b);
    const over = byDeviation[0];
    const under = byDeviation[byDeviation.length - 1];
    if (over === undefined || under === undefined) break;
    const gain =
      Math.abs(deviation(over)) +
      Math.abs(deviation(under)) -
      Math.abs(deviation(over) - 1) -
      Math.abs(deviation(under) + 1);
    if (gain < 1e-9) break;
    const moved = slots.findIndex((slot, i) => result[i] === over && slot.before !== over);
    const index = moved >= 0 ? moved : result.indexOf(over);
    result[index] = under;
    add(over, -1);
    add(under, 1);
  }
  return result;
}
