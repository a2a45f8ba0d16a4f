// SPDX-License-Identifier: GPL-2.0-or-later
// Images as ls shows them. Source: tools 2.5.

import {
  formatCount,
  formatFraction,
  formatLatency,
  formatSize,
  fullInode,
  inodeInPool,
  poolOfInode,
  type ClusterView,
  type InodeConfig,
  type InodeStats,
  type JsonObject,
  type OpStat,
} from '@vitastor/core';
import type { Column } from '../table.js';

const OPS = ['read', 'write', 'delete'] as const;

export interface ImageRow {
  /** Full inode number. */
  id: bigint;
  /** null: known from statistics only. */
  image: InodeConfig | null;
  name: string;
  poolName: string;
  usedBytes: bigint;
  stats: InodeStats | null;
  parentId: bigint | null;
  parentName: string;
  json: JsonObject;
}

export interface ImageListOptions {
  /** Used bytes, rates, and inodes without a record. */
  long: boolean;
  /** null: all pools. */
  pool: number | null;
}

/** Share of one copy of the data: raw / copies × data chunks, as every other reader divides. */
export function logicalUsedBytes(view: ClusterView, pool: number, rawUsedBytes: bigint): bigint {
  const config = view.pools.get(pool);
  const real = BigInt(view.poolStats.get(pool)?.pgRealSize || config?.pgSize || 1);
  return (rawUsedBytes / real) * BigInt(config?.dataChunks ?? 1);
}

const queueOf = (stat: OpStat): number => Number(stat.iops * stat.lat) / 1e6;

export function imageRows(view: ClusterView, options: ImageListOptions): ImageRow[] {
  const ids = new Set<bigint>(view.inodes.keys());
  if (options.long) for (const id of view.inodeStats.keys()) if (inodeInPool(id) !== 0n) ids.add(id);
  return [...ids]
    .filter((id) => options.pool === null || poolOfInode(id) === options.pool)
    .map((id) => imageRow(view, id, options.long));
}

function imageRow(view: ClusterView, id: bigint, long: boolean): ImageRow {
  const [pool, inode] = [poolOfInode(id), inodeInPool(id)];
  const image = view.inodes.get(id) ?? null;
  const stats = long ? view.inodeStats.get(id) ?? null : null;
  const name = image?.name || `Pool:${pool},ID:${inode}`;
  const poolName = view.pools.get(pool)?.name ?? `N/A (ID ${pool})`;
  const usedBytes = logicalUsedBytes(view, pool, stats?.rawUsedBytes ?? 0n);
  const parentId = image?.parent ? fullInode(image.parent.pool, image.parent.inode) : null;
  const parentName = parentId === null ? '' : view.inodes.get(parentId)?.name ?? '';
  const json: JsonObject = {
    name,
    size: image?.sizeBytes ?? 0,
    used_size: usedBytes,
    readonly: image?.readonly ?? false,
    deleted: image?.deleted ?? false,
    pool_id: pool,
    pool_name: poolName,
    inode_num: inode,
    inode_id: id,
  };
  if (parentId !== null) {
    Object.assign(json, {
      parent_name: parentName,
      parent_pool_id: poolOfInode(parentId),
      parent_inode_num: inodeInPool(parentId),
      parent_inode_id: parentId,
    });
  }
  if (stats) {
    for (const op of OPS) {
      const stat = stats[op];
      // Decimal strings, as the monitor stores them and readers of this listing expect.
      Object.assign(json, {
        [`${op}_iops`]: stat.iops.toString(),
        [`${op}_bps`]: stat.bps.toString(),
        [`${op}_lat`]: stat.lat.toString(),
        [`${op}_queue`]: queueOf(stat),
      });
    }
  }
  return { id, image, name, poolName, usedBytes, stats, parentId, parentName, json };
}

export interface ImageColumns {
  pool: boolean;
  long: boolean;
  deletes: boolean;
}

/** `names` replace the first column (tree branches). */
export function imageTable(
  rows: readonly ImageRow[],
  show: ImageColumns,
  names: readonly string[],
): { columns: Column[]; cells: string[][] } {
  const columns: Column[] = [{ title: 'NAME' }];
  if (show.pool) columns.push({ title: 'POOL' });
  columns.push({ title: 'SIZE' });
  const ops = show.long ? OPS.slice(0, show.deletes ? 3 : 2) : [];
  if (show.long) columns.push({ title: 'USED' });
  for (const op of ops)
    columns.push(
      { title: op === 'delete' ? 'DEL' : op.toUpperCase() },
      { title: 'IOPS' },
      { title: 'QUEUE' },
      { title: 'LAT' },
    );
  columns.push({ title: 'FLAGS', align: 'right' }, { title: 'PARENT' });
  const cells = rows.map((row, i) => [
    names[i] ?? row.name,
    ...(show.pool ? [row.poolName] : []),
    row.image ? formatSize(row.image.sizeBytes) : '-',
    ...(show.long ? [formatSize(row.usedBytes)] : []),
    ...ops.flatMap((op) => opCells(row.stats?.[op])),
    row.image?.deleted ? 'DEL' : row.image?.readonly ? 'RO' : '-',
    row.parentName,
  ]);
  return { columns, cells };
}

function opCells(stat: OpStat | undefined): string[] {
  if (!stat) return ['0 B/s', '0', '0', '0 us'];
  return [`${formatSize(stat.bps)}/s`, formatCount(stat.iops), formatFraction(queueOf(stat)), formatLatency(stat.lat)];
}

/** Rows in tree order with branches before their names. A row whose parent is not listed is a root; loops are cut. */
export function imageTree(rows: readonly ImageRow[]): { row: ImageRow; name: string }[] {
  const byId = new Map(rows.map((row) => [row.id, row]));
  const children = new Map<bigint | null, ImageRow[]>();
  for (const row of rows) {
    const parent = row.parentId !== null && byId.has(row.parentId) ? row.parentId : null;
    children.set(parent, [...(children.get(parent) ?? []), row]);
  }
  const result: { row: ImageRow; name: string }[] = [];
  const seen = new Set<bigint>();
  const visit = (row: ImageRow, branch: string, below: string): void => {
    if (seen.has(row.id)) return;
    seen.add(row.id);
    result.push({ row, name: branch + row.name });
    const list = children.get(row.id) ?? [];
    list.forEach((child, i) =>
      visit(child, below + (i + 1 < list.length ? '├─ ' : '└─ '), below + (i + 1 < list.length ? '│  ' : '   ')),
    );
  };
  for (const root of children.get(null) ?? []) visit(root, '', '');
  for (const row of rows) visit(row, '', ''); // Members of a loop have no root above them.
  return result;
}
