// SPDX-License-Identifier: GPL-2.0-or-later
// What the monitor reports: mon/member, mon/master, stats, inode/stats, pool/stats. Source: etcd schema 4.17 to 4.20.

import { array, counter, integer, mapOf, name, number, object, string, type Decoder } from '../decode.js';
import type { JsonObject } from '../json.js';
import { decodeOpStat, encodeOpStats, ZERO_OP_STAT, type OpStat, type OpStats } from './osd.js';

export interface MonMember {
  ip: string[];
  hostname: string;
  /** Lease id in decimal; '' for a member record. */
  id: string;
}

export const decodeMonMember: Decoder<MonMember> = object((f) => ({
  ip: f.optional('ip', array(string), []),
  hostname: f.optional('hostname', name, ''),
  id: f.optional('id', name, ''),
}));

/** mon/member with id '', mon/master with the lease id. */
export function encodeMonMember(member: MonMember): JsonObject {
  const result: JsonObject = { ip: [...member.ip], hostname: member.hostname };
  if (member.id !== '') result['id'] = member.id;
  return result;
}

export const OBJECT_KINDS = ['object', 'clean', 'misplaced', 'degraded', 'incomplete'] as const;
export type ObjectKind = (typeof OBJECT_KINDS)[number];
export type ObjectAmounts = Record<ObjectKind, bigint>;

export const ZERO_AMOUNTS: Readonly<ObjectAmounts> = {
  object: 0n,
  clean: 0n,
  misplaced: 0n,
  degraded: 0n,
  incomplete: 0n,
};

const amounts: Decoder<ObjectAmounts> = object((f) => ({
  object: f.optional('object', counter, 0n),
  clean: f.optional('clean', counter, 0n),
  misplaced: f.optional('misplaced', counter, 0n),
  degraded: f.optional('degraded', counter, 0n),
  incomplete: f.optional('incomplete', counter, 0n),
}));

export interface ClusterStats {
  opStats: OpStats;
  subopStats: OpStats;
  recoveryStats: OpStats;
  objectCounts: ObjectAmounts;
  objectBytes: ObjectAmounts;
  /** The record as written: `status --json` copies parts of it. */
  raw: JsonObject;
}

const opStats: Decoder<OpStats> = mapOf(string, decodeOpStat);

export const decodeClusterStats: Decoder<ClusterStats> = object((f) => ({
  opStats: f.optional('op_stats', opStats, new Map<string, OpStat>()),
  subopStats: f.optional('subop_stats', opStats, new Map<string, OpStat>()),
  recoveryStats: f.optional('recovery_stats', opStats, new Map<string, OpStat>()),
  objectCounts: f.optional('object_counts', amounts, { ...ZERO_AMOUNTS }),
  objectBytes: f.optional('object_bytes', amounts, { ...ZERO_AMOUNTS }),
  raw: f.raw,
}));

const text = (n: bigint): string => n.toString();
const textAmounts = (a: ObjectAmounts): JsonObject =>
  Object.fromEntries(OBJECT_KINDS.map((kind) => [kind, text(a[kind])]));

/** All numbers as decimal strings. */
export function encodeClusterStats(stats: Omit<ClusterStats, 'raw'>): JsonObject {
  return {
    op_stats: encodeOpStats(stats.opStats, ['count', 'usec', 'bytes', 'bps', 'iops', 'lat'], text),
    subop_stats: encodeOpStats(stats.subopStats, ['count', 'usec', 'iops', 'lat'], text),
    recovery_stats: encodeOpStats(stats.recoveryStats, ['count', 'bytes', 'bps', 'iops'], text),
    object_counts: textAmounts(stats.objectCounts),
    object_bytes: textAmounts(stats.objectBytes),
  };
}

export interface InodeStats {
  /** Raw bytes on all OSDs together. */
  rawUsedBytes: bigint;
  read: OpStat;
  write: OpStat;
  delete: OpStat;
}

export const decodeInodeStats: Decoder<InodeStats> = object((f) => ({
  rawUsedBytes: f.optional('raw_used', counter, 0n),
  read: f.optional('read', decodeOpStat, { ...ZERO_OP_STAT }),
  write: f.optional('write', decodeOpStat, { ...ZERO_OP_STAT }),
  delete: f.optional('delete', decodeOpStat, { ...ZERO_OP_STAT }),
}));

/** All numbers as decimal strings. */
export function encodeInodeStats(stats: InodeStats): JsonObject {
  const ops = encodeOpStats(
    new Map([
      ['read', stats.read],
      ['write', stats.write],
      ['delete', stats.delete],
    ]),
    ['count', 'usec', 'bytes', 'bps', 'iops', 'lat'],
    text,
  );
  return { raw_used: text(stats.rawUsedBytes), ...ops };
}

export interface PoolStats {
  /** TiB. */
  usedRawTb: number;
  totalRawTb: number;
  /** Smallest number of distinct filled slots over all PGs. */
  pgRealSize: number;
  rawToUsable: number;
  /** 0 … 1. */
  spaceEfficiency: number;
}

export const decodePoolStats: Decoder<PoolStats> = object((f) => ({
  usedRawTb: f.optional('used_raw_tb', number, 0),
  totalRawTb: f.optional('total_raw_tb', number, 0),
  pgRealSize: f.optional('pg_real_size', integer(0), 0),
  rawToUsable: f.optional('raw_to_usable', number, 0),
  spaceEfficiency: f.optional('space_efficiency', number, 0),
}));

export function encodePoolStats(stats: PoolStats): JsonObject {
  return {
    used_raw_tb: stats.usedRawTb,
    total_raw_tb: stats.totalRawTb,
    pg_real_size: stats.pgRealSize,
    raw_to_usable: stats.rawToUsable,
    space_efficiency: stats.spaceEfficiency,
  };
}
