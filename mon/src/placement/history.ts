// SPDX-License-Identifier: GPL-2.0-or-later
// What a PG's history must say after its set or the pool's PG count changed: forgetting a set here
// loses data. Source: etcd schema 8.6.

import { EMPTY_PG_HISTORY, type PgHistory } from '@vitastor/core';

/** Previous PG numbers (from 0) whose data the new PG `pg` (from 0) may hold. */
export function ancestors(pg: number, oldCount: number, newCount: number): number[] {
  if (oldCount === 0) return [];
  if (newCount % oldCount === 0) return [pg % oldCount];
  const all = Array.from({ length: oldCount }, (_, old) => old);
  return oldCount % newCount === 0 ? all.filter((old) => old % newCount === pg) : all;
}

/** Previous sets repeated or cut off to the new count, as the starting point of a placement. */
export function scaleSets<T>(sets: readonly T[], newCount: number): T[] {
  if (sets.length === 0) return [];
  return Array.from({ length: newCount }, (_, pg) => sets[pg % sets.length]).filter(
    (set) => set !== undefined,
  );
}

const withoutEmpty = (set: readonly number[]): number[] => [
  ...new Set(set.filter((osd) => osd !== 0)),
];
const memberKey = (set: readonly number[]): string => [...set].sort((a, b) => a - b).join(',');

export function sameMembers(a: readonly number[], b: readonly number[]): boolean {
  return memberKey(withoutEmpty(a)) === memberKey(withoutEmpty(b));
}

/** Adds a set unless the same members are listed; empty slots and empty sets are left out. */
function withSet(sets: readonly number[][], set: readonly number[]): number[][] {
  const members = withoutEmpty(set);
  if (members.length === 0 || sets.some((known) => sameMembers(known, members))) return [...sets];
  return [...sets, members];
}

export interface OldPg {
  osdSet: readonly number[];
  /** null: no history. */
  history: PgHistory | null;
}

/**
 * The history of a PG whose set moves and whose number stays, to be written even if nothing in it changes: its primary may clear the sets at this
 * moment, because everything lies in the old set, and must learn that it is the old one. null: the set stays, or holds nobody.
 */
export function movedHistory(
  old: OldPg,
  newSet: readonly number[],
  positional: boolean,
): PgHistory | null {
  const same = positional
    ? old.osdSet.join(',') === newSet.join(',')
    : sameMembers(old.osdSet, newSet);
  if (same || withoutEmpty(old.osdSet).length === 0) return null;
  const history = old.history ?? EMPTY_PG_HISTORY;
  return { ...history, osdSets: withSet(history.osdSets, old.osdSet) };
}

/** The histories of all PGs after the count changed; null: nothing to remember. */
export function scaledHistories(old: readonly OldPg[], newCount: number): (PgHistory | null)[] {
  return Array.from({ length: newCount }, (_, pg) => {
    let result: PgHistory = EMPTY_PG_HISTORY;
    for (const index of ancestors(pg, old.length, newCount)) {
      const parent = old[index];
      if (parent === undefined) continue;
      const history = parent.history ?? EMPTY_PG_HISTORY;
      const scrubs = [result.nextScrub, history.nextScrub].filter((time) => time > 0);
      result = {
        epoch: history.epoch > result.epoch ? history.epoch : result.epoch,
        osdSets: withSet(
          history.osdSets.reduce((sets, set) => withSet(sets, set), result.osdSets),
          parent.osdSet,
        ),
        allPeers: [...new Set([...result.allPeers, ...withoutEmpty(history.allPeers)])].sort(
          (a, b) => a - b,
        ),
        nextScrub: scrubs.length ? Math.min(...scrubs) : 0,
      };
    }
    return result.epoch === 0n &&
      result.osdSets.length === 0 &&
      result.allPeers.length === 0 &&
      result.nextScrub === 0
      ? null
      : result;
  });
}
