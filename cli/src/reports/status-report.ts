// SPDX-License-Identifier: GPL-2.0-or-later
// The cluster in one screen. Source: tools 2.3.

import {
  formatCount,
  formatSize,
  parseBoolean,
  parseNumber,
  ZERO_AMOUNTS,
  ZERO_OP_STAT,
  type ClusterView,
  type JsonObject,
  type MemberStatus,
  type ObjectKind,
} from '@vitastor/core';
import { poolStatus } from './pool-rows.js';

const DEFAULT_NEARFULL_RATIO = 0.95;
const SWITCHES = ['readonly', 'no_recovery', 'no_rebalance', 'no_scrub'] as const;

export interface StatusReport {
  json: JsonObject;
  text: string;
}

interface OsdSums {
  total: bigint;
  free: bigint;
  down: bigint;
  freeDown: bigint;
  up: number;
  count: number;
  full: number;
  nearfull: number;
  primarySlow: number[];
  secondarySlow: number[];
}

function sumOsds(view: ClusterView, nearfullRatio: number): OsdSums {
  const sums: OsdSums = {
    total: 0n,
    free: 0n,
    down: 0n,
    freeDown: 0n,
    up: 0,
    count: 0,
    full: 0,
    nearfull: 0,
    primarySlow: [],
    secondarySlow: [],
  };
  for (const osd of [...new Set([...view.osdStats.keys(), ...view.osdStates.keys()])].sort((a, b) => a - b)) {
    const stats = view.osdStats.get(osd);
    const up = view.osdStates.get(osd)?.up ?? false;
    const size = stats?.sizeBytes ?? 0n;
    const free = stats?.freeBytes ?? 0n;
    sums.count++;
    if (up) sums.up++;
    sums.total += size;
    sums.free += free;
    if (!up) {
      sums.down += size;
      sums.freeDown += free;
    }
    if (size > 0n && free === 0n) sums.full++;
    else if (size > 0n && Number(free) < Number(size) * (1 - nearfullRatio)) sums.nearfull++;
    if (stats?.slowOpsPrimary) sums.primarySlow.push(osd);
    if (stats?.slowOpsSecondary) sums.secondarySlow.push(osd);
  }
  return sums;
}

function countPgStates(view: ClusterView): Map<string, number> {
  const counts = new Map<string, number>();
  for (const pool of view.pools.values()) {
    (view.pgConfig?.items.get(pool.id) ?? []).forEach((_, i) => {
      const state = view.pgStates.get(pool.id, i + 1)?.state.join('+') ?? 'offline';
      counts.set(state, (counts.get(state) ?? 0) + 1);
    });
  }
  return new Map([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));
}

export function statusReport(view: ClusterView, members: readonly MemberStatus[]): StatusReport {
  const osds = sumOsds(view, parseNumber(view.global['osd_nearfull_ratio'] ?? null) || DEFAULT_NEARFULL_RATIO);
  const pgStates = countPgStates(view);
  const switches = Object.fromEntries(SWITCHES.map((name) => [name, parseBoolean(view.global[name] ?? null) ?? false]));
  const bytes = view.stats?.objectBytes ?? ZERO_AMOUNTS;
  const active = [...view.pools.values()].filter((pool) => {
    const pgs = view.pgConfig?.items.get(pool.id) ?? [];
    return pgs.length > 0 && pgs.every((_, i) => view.pgStates.get(pool.id, i + 1)?.state.includes('active'));
  }).length;
  const backfillfull = view.pgConfig?.backfillfullPools ?? [];
  const json: JsonObject = {
    etcd_alive: members.filter((m) => m.alive).length,
    etcd_count: members.length,
    etcd_db_size: Math.max(0, ...members.map((m) => m.dbSizeBytes)),
    mon_count: view.monMembers.size,
    mon_master: view.monMaster?.hostname ?? '',
    osd_up: osds.up,
    osd_count: osds.count,
    osds_full: osds.full,
    osds_nearfull: osds.nearfull,
    osds_primary_slow_ops: osds.primarySlow,
    osds_secondary_slow_ops: osds.secondarySlow,
    total_raw: osds.total,
    free_raw: osds.free,
    down_raw: osds.down,
    free_down_raw: osds.freeDown,
    ...switches,
    pool_count: view.pools.size + view.invalidPools.size,
    active_pool_count: active,
    backfillfull_pools: [...backfillfull],
    pg_states: Object.fromEntries(pgStates),
    op_stats: view.stats?.raw['op_stats'] ?? {},
    recovery_stats: view.stats?.raw['recovery_stats'] ?? {},
    object_counts: view.stats?.raw['object_counts'] ?? {},
    clean_data: bytes.clean,
    misplaced_data: bytes.misplaced,
    degraded_data: bytes.degraded,
    incomplete_data: bytes.incomplete,
  };
  return { json, text: statusText(view, json, osds, pgStates, members) };
}

function statusText(
  view: ClusterView,
  json: JsonObject,
  osds: OsdSums,
  pgStates: ReadonlyMap<string, number>,
  members: readonly MemberStatus[],
): string {
  const lines = [
    '  cluster:',
    `    etcd: ${String(json['etcd_alive'])} / ${members.length} up, ${formatSize(Number(json['etcd_db_size']))} database size`,
    `    mon:  ${view.monMembers.size} up${view.monMaster ? `, master ${view.monMaster.hostname}` : ', no master'}`,
    `    osd:  ${osds.up} / ${osds.count} up`,
  ];
  const warnings = warningLines(view, osds, members);
  if (warnings.length) lines.push('', '  warning:', ...warnings.map((warning) => `    ${warning}`));
  const states = [...pgStates].map(([state, count]) => `${count} ${state}`);
  lines.push(
    '  ',
    '  data:',
    `    raw:   ${rawText(osds)}`,
    `    state: ${stateText(view)}`,
    `    pools: ${String(json['active_pool_count'])} / ${String(json['pool_count'])} active`,
    `    pgs:   ${states.join('\n           ')}`,
    '  ',
    `  io${json['readonly'] === true ? ' (read-only mode)' : ''}:`,
    ...ioLines(view, json),
  );
  return lines.join('\n');
}

function rawText(osds: OsdSums): string {
  const down = osds.down > 0n ? `, ${formatSize(osds.down)} down` : '';
  return `${formatSize(osds.total - osds.free)} used, ${formatSize(osds.free - osds.freeDown)} / ${formatSize(osds.total - osds.down)} available${down}`;
}

function stateText(view: ClusterView): string {
  const bytes = view.stats?.objectBytes ?? ZERO_AMOUNTS;
  const unclean: ObjectKind[] = ['misplaced', 'degraded', 'incomplete'];
  return [
    `${formatSize(bytes.clean)} clean`,
    ...unclean.filter((kind) => bytes[kind] > 0n).map((kind) => `${formatSize(bytes[kind])} ${kind}`),
  ].join(', ');
}

function warningLines(view: ClusterView, osds: OsdSums, members: readonly MemberStatus[]): string[] {
  const few = (n: number, one: string, many: string): string => `${n} ${n === 1 ? one : many}`;
  const lines: string[] = [];
  if (osds.full) lines.push(few(osds.full, 'osd is full', 'osds are full'));
  if (osds.nearfull) lines.push(few(osds.nearfull, 'osd is almost full', 'osds are almost full'));
  if (osds.primarySlow.length) lines.push(`slow client operations on osd ${osds.primarySlow.join(', ')}`);
  if (osds.secondarySlow.length) lines.push(`slow replication operations on osd ${osds.secondarySlow.join(', ')}`);
  const pools = (view.pgConfig?.backfillfullPools ?? []).map((id) => view.pools.get(id)?.name ?? String(id));
  if (pools.length)
    lines.push(
      `${pools.length === 1 ? 'pool' : 'pools'} ${pools.join(', ')} ${pools.length === 1 ? 'is' : 'are'} backfillfull`,
    );
  if (view.invalidPools.size) lines.push(`pool ${[...view.invalidPools].join(', ')} in /config/pools is not valid`);
  const inactive = [...view.pools.values()].filter(
    (pool) => poolStatus(view, pool, view.pgConfig?.items.get(pool.id) ?? []) === 'inactive',
  );
  if (inactive.length)
    lines.push(
      `${inactive.length === 1 ? 'pool' : 'pools'} ${inactive.map((pool) => pool.name).join(', ')} ${inactive.length === 1 ? 'is' : 'are'} inactive`,
    );
  if (!view.monMaster && (view.pools.size > 0 || osds.count > 0))
    lines.push(view.monMembers.size > 0 ? 'no monitor is master yet' : 'no monitor runs: nobody reacts when an OSD fails');
  lines.push(...orphanLines(view));
  for (const member of members) if (!member.alive) lines.push(`etcd ${member.address} does not answer`);
  return lines;
}

/** What a pool has left behind that was taken out of /config/pools. */
function orphanLines(view: ClusterView): string[] {
  const known = (pool: number): boolean => view.pools.has(pool) || view.invalidPools.has(pool);
  const images = new Map<number, number>();
  for (const { pool } of view.inodes.values()) if (!known(pool)) images.set(pool, (images.get(pool) ?? 0) + 1);
  const pgs = new Map([...(view.pgConfig?.items ?? [])].filter(([pool, items]) => !known(pool) && items.length > 0).map(([pool, items]) => [pool, items.length]));
  return [...new Set([...images.keys(), ...pgs.keys()])].sort((a, b) => a - b).map((pool) => {
    const left = [[images.get(pool) ?? 0, 'image', 'images'], [pgs.get(pool) ?? 0, 'PG', 'PGs']] as const;
    const parts = left.filter(([count]) => count > 0).map(([count, one, many]) => `${count} ${count === 1 ? one : many}`);
    return `pool ${pool} does not exist, but still has ${parts.join(' and ')}`;
  });
}

/** What is left to do, and how long at this rate. '' where there is nothing to say. */
function remaining(objects: bigint, iops: bigint): string {
  if (objects === 0n || iops === 0n) return '';
  return `, ${objects} ${objects === 1n ? 'object' : 'objects'} left, about ${durationText(objects / iops)}`;
}

function durationText(seconds: bigint): string {
  if (seconds < 1n) return '1 s';
  if (seconds < 120n) return `${seconds} s`;
  if (seconds < 7200n) return `${seconds / 60n} min`;
  if (seconds < 172800n) return `${seconds / 3600n} h`;
  return `${seconds / 86400n} days`;
}

function ioLines(view: ClusterView, json: JsonObject): string[] {
  const op = (name: string) => view.stats?.opStats.get(name) ?? ZERO_OP_STAT;
  const recovery = (name: string) => view.stats?.recoveryStats.get(name) ?? ZERO_OP_STAT;
  const rate = (stat: { bps: bigint; iops: bigint }): string =>
    `${formatSize(stat.bps)}/s, ${formatCount(stat.iops)} op/s`;
  const [read, write] = [op('primary_read'), op('primary_write')];
  const lines: [string, string][] = [
    [
      'client',
      `${formatSize(read.bps)}/s rd, ${formatCount(read.iops)} op/s rd, ${formatSize(write.bps)}/s wr, ${formatCount(write.iops)} op/s wr`,
    ],
  ];
  const counts = view.stats?.objectCounts ?? ZERO_AMOUNTS;
  const scrubbing = [...view.pgStates.entries()].filter(
    ([pool, pg]) => view.pgStates.get(pool, pg)?.state.includes('scrubbing'),
  ).length;
  for (const [title, stat, off, left] of [
    ['recovery', recovery('degraded'), json['no_recovery'], remaining(counts.degraded, recovery('degraded').iops)],
    ['rebalance', recovery('misplaced'), json['no_rebalance'], remaining(counts.misplaced, recovery('misplaced').iops)],
    ['scrub', op('scrub'), json['no_scrub'], scrubbing ? `, ${scrubbing} ${scrubbing === 1 ? 'PG' : 'PGs'} at work` : ''],
  ] as const) {
    const busy = stat.bps > 0n || stat.iops > 0n;
    if (busy || off === true)
      lines.push([title, off === true ? (busy ? `${rate(stat)} (disabled)` : 'disabled') : rate(stat) + left]);
  }
  const size = Math.max(...lines.map(([title]) => title.length)) + 1;
  return lines.map(([title, text]) => `    ${`${title}:`.padEnd(size)} ${text}`);
}
