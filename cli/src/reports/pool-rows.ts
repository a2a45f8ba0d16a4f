// SPDX-License-Identifier: GPL-2.0-or-later
// Pools as df and ls-pools show them. Source: tools 2.4.

import {
  formatCount,
  formatFraction,
  formatLatency,
  formatSize,
  objectSpanBytes,
  type ClusterView,
  type JsonObject,
  type OpStat,
  type PgItem,
  type PoolConfig,
} from '@vitastor/core';
import type { Column } from '../table.js';

const TIB = 2 ** 40;
const OPS = ['read', 'write', 'delete'] as const;

export interface PoolRow {
  pool: PoolConfig;
  /** Everything; the commands leave out what was not asked for. */
  json: JsonObject;
  status: string;
  pgs: string;
  totalBytes: number;
  usedBytes: number;
  availableBytes: number;
  usedPercent: number;
  efficiencyPercent: number;
  objects: { object: bigint; misplaced: bigint; degraded: bigint; incomplete: bigint };
  io: Record<(typeof OPS)[number], { bps: bigint; iops: bigint; lat: bigint }>;
  osdCount: number;
}

export function schemeName(pool: PoolConfig): string {
  return pool.scheme === 'replicated'
    ? `${pool.pgSize}/${pool.pgMinSize}`
    : `EC ${pool.dataChunks}+${pool.parityChunks}`;
}

/** The first that applies: what an administrator should look at. */
export function poolStatus(view: ClusterView, pool: PoolConfig, pgs: readonly PgItem[]): string {
  const states = pgs.map((_, i) => view.pgStates.get(pool.id, i + 1)?.state ?? []);
  if (states.length === 0 || states.some((words) => !words.includes('active') && !words.includes('incomplete')))
    return 'inactive';
  for (const word of ['incomplete', 'has_incomplete', 'degraded', 'has_degraded', 'has_misplaced'] as const) {
    if (states.some((words) => words.includes(word))) return word;
  }
  return 'active';
}

/** What the fullest OSD still allows: least of free × reweight × PGs / PGs on that OSD, times data chunks. */
function availableBytes(
  view: ClusterView,
  pool: PoolConfig,
  pgs: readonly PgItem[],
  pgsOn: ReadonlyMap<number, number>,
): number {
  let least = Number.POSITIVE_INFINITY;
  for (const [osd, count] of pgsOn) {
    const free = Number(view.osdStats.get(osd)?.freeBytes ?? 0n);
    least = Math.min(least, (free * (view.osdConfig.get(osd)?.reweight ?? 1) * pgs.length) / count);
  }
  return pgsOn.size === 0 ? 0 : Math.floor(least * pool.dataChunks);
}

function countPerOsd(pgs: readonly PgItem[]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const { osdSet } of pgs) for (const osd of osdSet) if (osd !== 0) counts.set(osd, (counts.get(osd) ?? 0) + 1);
  return counts;
}

/** Rates of all inodes of a pool together; latency weighted by rate. */
function poolIo(view: ClusterView, pool: PoolConfig): PoolRow['io'] {
  const sums = OPS.map((op) => {
    const total = { bps: 0n, iops: 0n, weighted: 0n };
    for (const [inode, stats] of view.inodeStats) {
      if (inode >> 48n !== BigInt(pool.id)) continue;
      const stat: OpStat = stats[op];
      total.bps += stat.bps;
      total.iops += stat.iops;
      total.weighted += stat.lat * stat.iops;
    }
    return [op, { bps: total.bps, iops: total.iops, lat: total.iops ? total.weighted / total.iops : 0n }] as const;
  });
  return { read: sums[0]?.[1] ?? ZERO_IO, write: sums[1]?.[1] ?? ZERO_IO, delete: sums[2]?.[1] ?? ZERO_IO };
}

const ZERO_IO = { bps: 0n, iops: 0n, lat: 0n };

export function poolRow(view: ClusterView, pool: PoolConfig): PoolRow {
  const pgs = view.pgConfig?.items.get(pool.id) ?? [];
  const pgsOn = countPerOsd(pgs);
  const stats = view.poolStats.get(pool.id);
  const totalRaw = Math.floor((stats?.totalRawTb ?? 0) * TIB);
  const usedRaw = Math.floor((stats?.usedRawTb ?? 0) * TIB);
  const rawToUsable = stats?.rawToUsable || pool.pgSize / pool.dataChunks;
  const available = availableBytes(view, pool, pgs, pgsOn);
  const objects = { object: 0n, misplaced: 0n, degraded: 0n, incomplete: 0n };
  for (const pg of view.pgStats.ofPool(pool.id).values()) {
    objects.object += pg.objectCount;
    objects.misplaced += pg.misplacedCount;
    objects.degraded += pg.degradedCount;
    objects.incomplete += pg.incompleteCount;
  }
  const io = poolIo(view, pool);
  const status = poolStatus(view, pool, pgs);
  return {
    pool,
    status,
    objects,
    io,
    osdCount: pgsOn.size,
    pgs: pgs.length === pool.pgCount ? String(pgs.length) : `${pgs.length}->${pool.pgCount}`,
    totalBytes: totalRaw / rawToUsable,
    usedBytes: usedRaw / rawToUsable,
    availableBytes: available,
    usedPercent: usedPercent(totalRaw, usedRaw, available * rawToUsable),
    efficiencyPercent: (stats?.spaceEfficiency ?? 0) * 100,
    json: {
      ...pool.raw,
      ...(pool.usedForApp === '' ? {} : { used_for_app: pool.usedForApp }),
      id: pool.id,
      name: pool.name,
      status,
      pg_count: pool.pgCount,
      real_pg_count: pgs.length,
      scheme_name: schemeName(pool),
      used_raw: usedRaw,
      total_raw: totalRaw,
      max_available: available,
      raw_to_usable: rawToUsable,
      space_efficiency: stats?.spaceEfficiency ?? 0,
      pg_real_size: stats?.pgRealSize ?? 0,
      osd_count: pgsOn.size,
      backfillfull: view.pgConfig?.backfillfullPools.includes(pool.id) ? 1 : 0,
    },
  };
}

/** Of what can be filled. Free space that the placement cannot use may exceed the total. */
function usedPercent(totalRaw: number, usedRaw: number, availableRaw: number): number {
  if (totalRaw > 0) return Math.max(0, 100 - (100 * availableRaw) / totalRaw);
  return usedRaw > 0 ? 100 : 0;
}

export function recoveryJson(row: PoolRow): JsonObject {
  const { object, misplaced, degraded, incomplete } = row.objects;
  return { object_count: object, misplaced_count: misplaced, degraded_count: degraded, incomplete_count: incomplete };
}

export function ioJson(row: PoolRow): JsonObject {
  return Object.fromEntries(
    OPS.flatMap((op) => (['bps', 'iops', 'lat'] as const).map((field) => [`${op}_${field}`, row.io[op][field]])),
  );
}

export interface PoolColumns {
  recovery: boolean;
  io: boolean;
}

export function poolTable(rows: readonly PoolRow[], show: PoolColumns): { columns: Column[]; cells: string[][] } {
  const titles = ['NAME', 'SCHEME', 'STATUS', 'PGS', 'TOTAL', 'USED', 'AVAILABLE', 'USED%', 'EFFICIENCY'];
  if (show.recovery) titles.push('RECOVERY');
  if (show.io) titles.push('READ', 'IOPS', 'LAT', 'WRITE', 'IOPS', 'LAT', 'DELETE', 'IOPS', 'LAT');
  const cells = rows.map((row) => [
    row.pool.name,
    schemeName(row.pool),
    row.status,
    row.pgs,
    formatSize(row.totalBytes),
    formatSize(row.usedBytes),
    formatSize(row.availableBytes),
    `${formatFraction(row.usedPercent)}%`,
    `${formatFraction(row.efficiencyPercent)}%`,
    ...(show.recovery ? [recoveryCell(row)] : []),
    ...(show.io ? OPS.flatMap((op) => ioCells(row.io[op])) : []),
  ]);
  return { columns: titles.map((title) => ({ title })), cells };
}

function ioCells(io: { bps: bigint; iops: bigint; lat: bigint }): string[] {
  return [`${formatSize(io.bps)}/s`, formatCount(io.iops), formatLatency(io.lat)];
}

const UNCLEAN = ['incomplete', 'degraded', 'misplaced'] as const;

function percent(part: bigint, whole: bigint): string {
  return `${formatFraction(whole > 0n ? (100 * Number(part)) / Number(whole) : 0)}%`;
}

/** `degraded 12.5%, misplaced 3%`, or `-`. */
function recoveryCell(row: PoolRow): string {
  const parts = UNCLEAN.filter((kind) => row.objects[kind] > 0n).map(
    (kind) => `${kind} ${percent(row.objects[kind], row.objects.object)}`,
  );
  return parts.join(', ') || '-';
}

/** `--detail`: one "Title: value" line a fact. */
export function poolDetail(row: PoolRow): string {
  const { pool, io } = row;
  const span = objectSpanBytes(pool);
  const lines: [string, string][] = [
    ['Name', pool.name],
    ['ID', String(pool.id)],
    ['Scheme', pool.scheme === 'replicated' ? `x${pool.pgSize}` : schemeName(pool)],
    ['Status', row.status],
    ['PGs', row.pgs],
    ['PG minsize', String(pool.pgMinSize)],
    ['Failure domain', pool.failureDomain],
  ];
  if (pool.rootNode) lines.push(['Root node', pool.rootNode]);
  if (pool.osdTags.length) lines.push(['OSD tags', pool.osdTags.join(', ')]);
  if (pool.primaryAffinityTags.length) lines.push(['Primary affinity tags', pool.primaryAffinityTags.join(', ')]);
  if (pool.raw['block_size'] !== undefined) lines.push(['Block size', formatSize(pool.blockSizeBytes)]);
  if (pool.raw['bitmap_granularity'] !== undefined)
    lines.push(['Bitmap granularity', formatSize(pool.bitmapGranularityBytes)]);
  if (pool.raw['immediate_commit'] !== undefined) lines.push(['Immediate commit', pool.immediateCommit]);
  if (pool.usedForApp) lines.push(['Used for app', pool.usedForApp]);
  lines.push(
    ['Total', formatSize(row.totalBytes)],
    ['Used', formatSize(row.usedBytes)],
    ['Available', formatSize(row.availableBytes)],
    ['Used%', `${formatFraction(row.usedPercent)}%`],
    ['Efficiency', `${formatFraction(row.efficiencyPercent)}%`],
    ['OSD count', String(row.osdCount)],
  );
  for (const kind of UNCLEAN) {
    const count = row.objects[kind];
    if (count > 0n)
      lines.push([
        kind.charAt(0).toUpperCase() + kind.slice(1),
        `${formatSize(count * span)} / ${percent(count, row.objects.object)}`,
      ]);
  }
  for (const op of OPS) {
    lines.push([
      op.charAt(0).toUpperCase() + op.slice(1),
      `${formatSize(io[op].bps)}/s, ${formatCount(io[op].iops)} op/s, ${formatLatency(io[op].lat)} lat`,
    ]);
  }
  const size = Math.max(...lines.map(([title]) => title.length)) + 1;
  return lines.map(([title, value]) => `${`${title}:`.padEnd(size)} ${value}`).join('\n');
}
