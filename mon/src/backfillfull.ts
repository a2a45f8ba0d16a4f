// SPDX-License-Identifier: GPL-2.0-or-later
// Pools whose rebalance would overfill an OSD. Source: etcd schema 8.4.

import type { ClusterView, PgItems } from '@vitastor/core';

/**
 * For each OSD the objects of all PGs that name it; above ratio × its blocks all pools of those PGs
 * are backfillfull. Ascending.
 */
export function backfillfullPools(view: ClusterView, items: PgItems, ratio: number): number[] {
  const objects = new Map<number, { count: bigint; pools: Set<number> }>();
  for (const [pool, pgs] of items) {
    pgs.forEach((pg, i) => {
      const count = view.pgStats.get(pool, i + 1)?.objectCount ?? 0n;
      for (const osd of new Set(pg.osdSet)) {
        if (osd === 0) continue;
        const entry = objects.get(osd) ?? { count: 0n, pools: new Set<number>() };
        entry.count += count;
        entry.pools.add(pool);
        objects.set(osd, entry);
      }
    });
  }
  const full = new Set<number>();
  for (const [osd, { count, pools }] of objects) {
    const stats = view.osdStats.get(osd);
    if (stats === undefined || stats.sizeBytes === null || stats.blockSizeBytes === 0) continue;
    if (Number(count) > (Number(stats.sizeBytes) / stats.blockSizeBytes) * ratio)
      for (const pool of pools) full.add(pool);
  }
  return [...full].sort((a, b) => a - b);
}
