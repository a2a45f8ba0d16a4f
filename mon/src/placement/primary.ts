// SPDX-License-Identifier: GPL-2.0-or-later
// Which OSD of a set leads the PG. Source: etcd schema 8.7.

import type { PoolConfig } from '@vitastor/core';

export interface PrimaryCandidates {
  /** May lead now. */
  isUp(osd: number): boolean;
  /** Has all primary_affinity_tags of the pool. */
  hasAffinity(osd: number): boolean;
}

/**
 * 0: nobody of the set is up. pg: from 1.
 *
 * With everybody up it is the choice of 3.0.8. With somebody down only the PGs which that one leads
 * get another primary, spread over those that are left; 3.0.8 counts only who is up, which moves
 * PGs that nothing has happened to, and interrupts them.
 */
export function choosePrimary(
  pg: number,
  osdSet: readonly number[],
  pool: Pick<PoolConfig, 'scheme' | 'dataChunks' | 'primaryAffinityTags'>,
  candidates: PrimaryCandidates,
): number {
  const members = osdSet.filter((osd) => osd !== 0);
  const tagged = pool.primaryAffinityTags.length
    ? members.filter((osd) => candidates.hasAffinity(osd))
    : [];
  let lists = [tagged, members];
  if (pool.scheme !== 'replicated') {
    const data = new Set(osdSet.slice(0, pool.dataChunks));
    const ofData = (osds: readonly number[]): number[] => osds.filter((osd) => data.has(osd));
    lists = [ofData(tagged), tagged, ofData(members), members];
  }
  for (const list of lists) {
    const up = list.filter((osd) => candidates.isUp(osd));
    const first = list[pg % list.length] ?? 0;
    if (up.includes(first)) return first;
    if (up.length > 0) return up[Math.floor(pg / list.length) % up.length] ?? 0;
  }
  return 0;
}
