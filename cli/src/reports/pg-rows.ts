// SPDX-License-Identifier: GPL-2.0-or-later
// Placement groups as pg-list shows them. Source: tools 2.14.

import {
  EMPTY_PG_HISTORY,
  formatSize,
  isPaused,
  objectSpanBytes,
  VitastorError,
  type ClusterView,
  type JsonObject,
  type PgItem,
  type PoolConfig,
} from '@vitastor/core';
import type { Column } from '../table.js';

export interface PgRow {
  pool: PoolConfig;
  pg: number;
  item: PgItem;
  state: readonly string[];
  json: JsonObject;
}

export interface PgFilter {
  pool: number | null;
  min: number;
  /** 0 = no limit. */
  max: number;
  /** PGs with at least one of them; empty = all. */
  osds: readonly number[];
  /** `a+b` = all of these words; leading ^ or ! = not all of them; several: any of them. */
  states: readonly string[];
}

export function matchesState(filters: readonly string[], state: readonly string[]): boolean {
  return filters.length === 0 || filters.some((filter) => {
    const negative = /^[!^]/.test(filter);
    const all = filter.replace(/^[!^]/, '').split('+').every((word) => state.includes(word));
    return negative ? !all : all;
  });
}

export function pgRows(view: ClusterView, filter: PgFilter): PgRow[] {
  const rows: PgRow[] = [];
  for (const pool of [...view.pools.values()].sort((a, b) => a.id - b.id)) {
    if (filter.pool !== null && pool.id !== filter.pool) continue;
    (view.pgConfig?.items.get(pool.id) ?? []).forEach((item, i) => {
      const pg = i + 1;
      const row = pgRow(view, pool, pg, item);
      const inRange = pg >= filter.min && (filter.max === 0 || pg <= filter.max);
      const onOsd =
        filter.osds.length === 0 ||
        filter.osds.some((osd) => item.osdSet.includes(osd) || row.json['cur_primary'] === osd);
      if (inRange && onOsd && matchesState(filter.states, row.state)) rows.push(row);
    });
  }
  return rows;
}

function pgRow(view: ClusterView, pool: PoolConfig, pg: number, item: PgItem): PgRow {
  const state = view.pgStates.get(pool.id, pg);
  const history = view.pgHistory.get(pool.id, pg) ?? EMPTY_PG_HISTORY;
  const stats = view.pgStats.get(pool.id, pg);
  const words: readonly string[] = state?.state ?? ['offline'];
  return {
    pool,
    pg,
    item,
    state: words,
    json: {
      pool_id: pool.id,
      pool_name: pool.name,
      pg_num: pg,
      pause: isPaused(item, pool.pgSize),
      state: [...words],
      cur_primary: state?.primary ?? 0,
      target_primary: item.primary,
      target_set: [...item.osdSet],
      target_history: history.osdSets.map((set) => [...set]),
      all_peers: [...history.allPeers],
      epoch: history.epoch,
      next_scrub: history.nextScrub,
      object_count: stats?.objectCount ?? 0,
      clean_count: stats?.cleanCount ?? 0,
      misplaced_count: stats?.misplacedCount ?? 0,
      degraded_count: stats?.degradedCount ?? 0,
      incomplete_count: stats?.incompleteCount ?? 0,
    },
  };
}

export function pgTable(
  view: ClusterView,
  rows: readonly PgRow[],
  showPool: boolean,
): { columns: Column[]; cells: string[][] } {
  const titles = [
    ...(showPool ? ['POOL'] : []),
    'NUM',
    'OSD SET',
    'PRIMARY',
    'DATA CLEAN',
    'MISPLACED',
    'DEGRADED',
    'INCOMPLETE',
    'STATE',
  ];
  const cells = rows.map((row) => {
    const stats = view.pgStats.get(row.pool.id, row.pg);
    const span = objectSpanBytes(row.pool);
    const bytes = (count: bigint | undefined): string => formatSize((count ?? 0n) * span);
    return [
      ...(showPool ? [row.pool.name] : []),
      String(row.pg),
      row.item.osdSet.join(','),
      primaryCell(view, row),
      bytes(stats?.cleanCount),
      bytes(stats?.misplacedCount),
      bytes(stats?.degradedCount),
      bytes(stats?.incompleteCount),
      row.state.join('+'),
    ];
  });
  return { columns: titles.map((title) => ({ title })), cells };
}

function primaryCell(view: ClusterView, row: PgRow): string {
  const current = view.pgStates.get(row.pool.id, row.pg)?.primary ?? 0;
  const wanted = row.item.primary;
  if (current === wanted) return wanted === 0 ? '-' : String(wanted);
  return `${current || '-'}->${wanted || '-'}`;
}

/** `1,2` → [1, 2]. Throws ERR_INVALID_ARGUMENT. */
export function parseOsdList(text: string): number[] {
  return text.split(',').map((part) => {
    if (!/^\d{1,15}$/.test(part.trim()))
      throw new VitastorError('ERR_INVALID_ARGUMENT', `"${part}" in --osd is not an OSD number`);
    return Number(part);
  });
}
