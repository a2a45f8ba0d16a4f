// SPDX-License-Identifier: GPL-2.0-or-later
// From a bag of sets to numbered PGs with ordered slots. Source: etcd schema 9.6.

import { setKey, sortedSet, type LeafSet } from './combinations.js';
import { hash32 } from './hash.js';

/** A fixed shuffle: equal inputs, equal order. */
export function shuffled<T>(items: readonly T[], seed: number): T[] {
  return items
    .map((item, i) => ({ item, rank: hash32(seed, i), i }))
    .sort((a, b) => a.rank - b.rank || a.i - b.i)
    .map(({ item }) => item);
}

/**
 * Gives each PG number one of the sets so that few members change: equal sets first, then the
 * largest overlaps.
 */
export function align(sets: readonly LeafSet[], previous: readonly LeafSet[]): LeafSet[] {
  const result: (LeafSet | undefined)[] = sets.map(() => undefined);
  const bag = new Map<string, number[]>();
  sets.forEach((set, i) => bag.set(setKey(set), [...(bag.get(setKey(set)) ?? []), i]));
  const free = new Set(sets.keys());
  for (let pg = 0; pg < sets.length; pg++) {
    const found = bag.get(setKey(sortedSet(previous[pg] ?? [])))?.shift();
    if (found === undefined) continue;
    result[pg] = sets[found];
    free.delete(found);
  }
  const open = [...result.keys()].filter((pg) => result[pg] === undefined);
  const byLeaf = new Map<number, number[]>();
  for (const i of free)
    for (const leaf of sets[i] ?? []) byLeaf.set(leaf, [...(byLeaf.get(leaf) ?? []), i]);
  const pairs: { pg: number; index: number; common: number }[] = [];
  for (const pg of open) {
    const counts = new Map<number, number>();
    for (const leaf of new Set(previous[pg] ?? []))
      for (const i of byLeaf.get(leaf) ?? []) counts.set(i, (counts.get(i) ?? 0) + 1);
    for (const [index, common] of counts) pairs.push({ pg, index, common });
  }
  pairs.sort((a, b) => b.common - a.common || a.pg - b.pg || a.index - b.index);
  for (const { pg, index } of pairs) {
    if (result[pg] !== undefined || !free.has(index)) continue;
    result[pg] = sets[index];
    free.delete(index);
  }
  const rest = [...free];
  return result.map((set) => set ?? sets[rest.shift() ?? 0] ?? []);
}

/**
 * Puts the members of a set into pgSize slots: those that were in `before` stay where they were,
 * the others fill up; −1 = empty.
 */
export function orderSlots(set: LeafSet, before: LeafSet, pgSize: number): number[] {
  const result = new Array<number>(pgSize).fill(-1);
  const left = new Set(set);
  before.slice(0, pgSize).forEach((leaf, slot) => {
    if (left.delete(leaf)) result[slot] = leaf;
  });
  const rest = [...left];
  return result.map((leaf) => (leaf === -1 ? (rest.shift() ?? -1) : leaf));
}

/**
 * Slots of new PGs: ascending; for erasure codes each copy of a set is turned by one more slot, so
 * that parity is spread.
 */
export function initialSlots(
  sets: readonly LeafSet[],
  pgSize: number,
  rotate: boolean,
): number[][] {
  const copies = new Map<string, number>();
  return sets.map((set) => {
    const padded = orderSlots(set, [], pgSize);
    const turn = rotate ? (copies.get(setKey(set)) ?? 0) : 0;
    copies.set(setKey(set), turn + 1);
    return padded.map((_, slot) => padded[(slot + turn) % pgSize] ?? -1);
  });
}

/**
 * Numbers new PGs so that, with all OSDs up, primaries are spread in proportion: PG n is led by its
 * slot (n mod filled lead slots). leadSlots: slots that lead first (pg_size of replicated pools,
 * data chunks otherwise).
 */
export function numberPgs(
  pgs: readonly (readonly number[])[],
  leadSlots: number,
  seed: number,
): number[][] {
  const groups = new Map<
    string,
    { slots: readonly number[]; leaders: number[]; total: number; used: number }
  >();
  const uses = new Map<number, number>();
  for (const slots of pgs) {
    const leaders = slots.slice(0, leadSlots).filter((leaf) => leaf !== -1);
    for (const leaf of leaders) uses.set(leaf, (uses.get(leaf) ?? 0) + 1);
    const group = groups.get(setKey(slots)) ?? { slots, leaders, total: 0, used: 0 };
    group.total++;
    groups.set(setKey(slots), group);
  }
  const leads = new Map<number, number>();
  const list = [...groups.values()];
  return pgs.map((_, i) => {
    let best = list[0];
    let bestScore = Number.POSITIVE_INFINITY;
    list.forEach((group, g) => {
      if (group.used === group.total) return;
      const leader = group.leaders[(i + 1) % group.leaders.length] ?? -1;
      // How far its leader and the group itself have come; a hash decides between equals.
      const score =
        ((leads.get(leader) ?? 0) + 1) / (uses.get(leader) ?? 1) +
        group.used / group.total +
        hash32(seed, i, g) / 2 ** 60;
      if (score < bestScore) [best, bestScore] = [group, score];
    });
    if (best === undefined) return [];
    best.used++;
    const leader = best.leaders[(i + 1) % best.leaders.length] ?? -1;
    leads.set(leader, (leads.get(leader) ?? 0) + 1);
    return [...best.slots];
  });
}
