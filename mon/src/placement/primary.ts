// SPDX-License-Identifier: GPL-2.0-or-later
// Which OSD of a set leads the PG. Source: etcd schema 8.7.

import type { PoolConfig } from '@vitastor/core';

export interface PrimaryCandidates {
  /** May lead now. */
  isUp(osd: number): boolean;
  /** Has all primary_affinity_tags of the pool. */
  hasAffinity(osd: number): boolean;
}

/** 0: nobody of the set is up. pg: from 1. */
export function choosePrimary(
  pg: number,
  osdSet: readonly number[],
  pool: Pick<PoolConfig, 'scheme' | 'dataChunks' | 'primaryAffinityTags'>,
  candidates: PrimaryCandidates,
): number {
  const up = osdSet.filter((osd) => osd !== 0 && candidates.isUp(osd));
  const tagged = pool.primaryAffinityTags.length
    ? up.filter((osd) => candidates.hasAffinity(osd))
    : [];
  let lists = [tagged, up];
  if (pool.scheme !== 'replicated') {
    const data = new Set(osdSet.slice(0, pool.dataChunks));
    const ofData = (osds: readonly number[]): number[] => osds.filter((osd) => data.has(osd));
    lists = [ofData(tagged), tagged, ofData(up), up];
  }
  const best = lists.find((list) => list.length > 0) ?? [];
  return best[pg % best.length] ?? 0;
}
