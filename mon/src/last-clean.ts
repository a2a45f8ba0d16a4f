// SPDX-License-Identifier: GPL-2.0-or-later
// Which PG map was the last one that held everything where it belongs, pool by pool. Source: etcd
// schema 8.8.

import { isCleanState, type ClusterView, type PgItem, type PgItems } from '@vitastor/core';

/**
 * The new record, or null: nothing changes. Pools of which /pg/config knows nothing any more are
 * dropped.
 */
export function nextLastClean(view: ClusterView): PgItems | null {
  const config = view.pgConfig;
  if (config === null) return null;
  const old: PgItems = view.lastCleanPgs ?? new Map();
  const result: PgItems = new Map();
  let changed = false;
  for (const [pool, items] of config.items) {
    const known = old.get(pool);
    const wanted = view.pools.get(pool)?.pgCount;
    if (
      items.length > 0 &&
      items.length === wanted &&
      items.every((item, i) => isClean(view, pool, i + 1, item))
    ) {
      result.set(pool, items);
      changed ||= known === undefined || !sameItems(known, items);
    } else if (known !== undefined) {
      result.set(pool, known);
    }
  }
  changed ||= [...old.keys()].some(
    (pool) => !result.has(pool) && !view.pools.has(pool) && !view.invalidPools.has(pool),
  );
  for (const [pool, items] of old)
    if (!result.has(pool) && (view.pools.has(pool) || view.invalidPools.has(pool)))
      result.set(pool, items);
  return changed ? result : null;
}

/** The state must be that of the present set: right after a move the old state is still there. */
function isClean(view: ClusterView, pool: number, pg: number, item: PgItem): boolean {
  const state = view.pgStates.get(pool, pg);
  if (state === undefined || item.pause || !isCleanState(state.state)) return false;
  return item.osdSet.every((osd) => osd === 0 || state.peers.includes(osd));
}

function sameItems(a: readonly PgItem[], b: readonly PgItem[]): boolean {
  return (
    a.length === b.length &&
    a.every(
      (item, i) =>
        item.osdSet.join(',') === b[i]?.osdSet.join(',') && item.primary === b[i]?.primary,
    )
  );
}
