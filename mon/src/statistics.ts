// SPDX-License-Identifier: GPL-2.0-or-later
// Adds up what the OSDs report: /stats, /inode/stats, used space of /pool/stats. Source: etcd
// schema 4.18 to 4.20, 8.4. All arithmetic on whole numbers; counters that went back (an OSD
// restarted) give a rate of 0, not a negative one.

import {
  fullInode,
  OBJECT_KINDS,
  ZERO_AMOUNTS,
  ZERO_OP_STAT,
  type ChangeSet,
  type ClusterStats,
  type ClusterView,
  type InodeIo,
  type InodeStats,
  type ObjectAmounts,
  type OpStat,
  type OpStats,
  type OsdInodeStats,
  type OsdStats,
  type PgStats,
} from '@vitastor/core';
import { isUp, TIB } from './inputs.js';

type Totals = Pick<OpStat, 'count' | 'usec' | 'bytes'>;
const OP_KINDS = ['read', 'write', 'delete'] as const;
type OpKind = (typeof OP_KINDS)[number];
/** Full inode number → operation → rates. */
type InodeRates = Map<bigint, Record<OpKind, OpStat>>;

interface OsdRecord {
  stats: OsdStats;
  inodes: OsdInodeStats;
  rates: { op: OpStats; subop: OpStats; recovery: OpStats; inodes: InodeRates };
}

/** Totals of `now` with the rates since `before`. deltaMs: above 0. */
function rate(now: Totals, before: Totals, deltaMs: number): OpStat {
  const less = (a: bigint, b: bigint): bigint => (a > b ? a - b : 0n);
  const ms = BigInt(Math.max(1, Math.round(deltaMs)));
  const count = less(now.count, before.count);
  return {
    count: now.count,
    usec: now.usec,
    bytes: now.bytes,
    bps: (less(now.bytes, before.bytes) * 1000n) / ms,
    iops: (count * 1000n) / ms,
    lat: count > 0n ? less(now.usec, before.usec) / count : 0n,
  };
}

function rates(now: OpStats, before: OpStats, deltaMs: number): OpStats {
  return new Map(
    [...now].map(([op, stat]) => [op, rate(stat, before.get(op) ?? ZERO_OP_STAT, deltaMs)]),
  );
}

/** Sums of counts and rates; latencies weigh by iops. */
class Sum {
  count = 0n;
  usec = 0n;
  bytes = 0n;
  bps = 0n;
  iops = 0n;
  #weighted = 0n;

  add(stat: OpStat): void {
    this.count += stat.count;
    this.usec += stat.usec;
    this.bytes += stat.bytes;
    this.bps += stat.bps;
    this.iops += stat.iops;
    this.#weighted += stat.lat * stat.iops;
  }

  get result(): OpStat {
    const { count, usec, bytes, bps, iops } = this;
    return { count, usec, bytes, bps, iops, lat: iops > 0n ? this.#weighted / iops : 0n };
  }
}

function sumOps(all: readonly OpStats[]): OpStats {
  const sums = new Map<string, Sum>();
  for (const stats of all) {
    for (const [op, stat] of stats) {
      const sum = sums.get(op) ?? new Sum();
      sum.add(stat);
      sums.set(op, sum);
    }
  }
  return new Map(
    [...sums].sort(([a], [b]) => (a < b ? -1 : 1)).map(([op, sum]) => [op, sum.result]),
  );
}

const AMOUNT_OF: Readonly<Record<(typeof OBJECT_KINDS)[number], (stats: PgStats) => bigint>> = {
  object: (s) => s.objectCount,
  clean: (s) => s.cleanCount,
  misplaced: (s) => s.misplacedCount,
  degraded: (s) => s.degradedCount,
  incomplete: (s) => s.incompleteCount,
};

/** Remembers the last report of each OSD, for rates. */
export class Statistics {
  readonly #view: ClusterView;
  readonly #osds = new Map<number, OsdRecord>();

  constructor(view: ClusterView) {
    this.#view = view;
    for (const osd of view.osdStats.keys()) this.#take(osd);
  }

  /** True if anything that is added up changed. */
  onChange(set: ChangeSet): boolean {
    let changed = set.reloaded;
    for (const { parsed } of set.changes) {
      switch (parsed.kind) {
        case 'osd/stats':
        case 'osd/inodestats':
          this.#take(parsed.osd);
          changed = true;
          break;
        case 'osd/state':
        case 'osd/space':
        case 'pgstats':
        case 'pg/stats':
        case 'config/inode':
        case 'config/pools':
          changed = true;
          break;
        default:
          break;
      }
    }
    return changed;
  }

  /**
   * Only a report with a later time gives new rates: statistics and inode statistics of an OSD come
   * in one transaction.
   */
  #take(osd: number): void {
    const stats = this.#view.osdStats.get(osd);
    if (stats === undefined) {
      this.#osds.delete(osd);
      return;
    }
    const inodes = this.#view.osdInodeStats.get(osd) ?? new Map();
    const before = this.#osds.get(osd);
    const deltaMs = (stats.timeMs ?? 0) - (before?.stats.timeMs ?? 0);
    if (before !== undefined && deltaMs <= 0) return;
    const first = before === undefined || before.stats.timeMs === null;
    this.#osds.set(osd, {
      stats,
      inodes,
      rates: {
        op: first ? zeroRates(stats.opStats) : rates(stats.opStats, before.stats.opStats, deltaMs),
        subop: first
          ? zeroRates(stats.subopStats)
          : rates(stats.subopStats, before.stats.subopStats, deltaMs),
        recovery: first
          ? zeroRates(stats.recoveryStats)
          : rates(stats.recoveryStats, before.stats.recoveryStats, deltaMs),
        inodes: inodeRates(inodes, first ? null : before.inodes, deltaMs),
      },
    });
  }

  #up(): OsdRecord[] {
    return [...this.#osds]
      .filter(([osd]) => isUp(this.#view, osd))
      .sort(([a], [b]) => a - b)
      .map(([, record]) => record);
  }

  clusterStats(): Omit<ClusterStats, 'raw'> {
    const up = this.#up();
    const counts: ObjectAmounts = { ...ZERO_AMOUNTS };
    const bytes: ObjectAmounts = { ...ZERO_AMOUNTS };
    for (const [poolId, , stats] of this.#view.pgStats.entries()) {
      const pool = this.#view.pools.get(poolId);
      const objectBytes =
        BigInt(pool?.blockSizeBytes ?? this.#view.layout.blockSizeBytes) *
        BigInt(pool?.dataChunks ?? 1);
      for (const kind of OBJECT_KINDS) {
        const count = AMOUNT_OF[kind](stats);
        counts[kind] += count;
        bytes[kind] += count * objectBytes;
      }
    }
    return {
      opStats: sumOps(up.map((osd) => osd.rates.op)),
      subopStats: sumOps(up.map((osd) => osd.rates.subop)),
      recoveryStats: sumOps(up.map((osd) => osd.rates.recovery)),
      objectCounts: counts,
      objectBytes: bytes,
    };
  }

  /** Full inode number → statistics; null: the record in etcd is to be deleted. */
  inodeStats(): Map<bigint, InodeStats | null> {
    const used = this.usedBytes();
    const sums = new Map<bigint, Record<OpKind, Sum>>();
    for (const {
      rates: { inodes },
    } of this.#up()) {
      for (const [inode, ops] of inodes) {
        const sum = sums.get(inode) ?? { read: new Sum(), write: new Sum(), delete: new Sum() };
        for (const kind of OP_KINDS) sum[kind].add(ops[kind]);
        sums.set(inode, sum);
      }
    }
    const result = new Map<bigint, InodeStats | null>();
    for (const inode of new Set([
      ...used.keys(),
      ...sums.keys(),
      ...this.#view.inodeStats.keys(),
    ])) {
      const sum = sums.get(inode);
      const rawUsedBytes = used.get(inode) ?? 0n;
      const stats: InodeStats = {
        rawUsedBytes,
        read: sum?.read.result ?? { ...ZERO_OP_STAT },
        write: sum?.write.result ?? { ...ZERO_OP_STAT },
        delete: sum?.delete.result ?? { ...ZERO_OP_STAT },
      };
      const idle = OP_KINDS.every((kind) => stats[kind].bps === 0n && stats[kind].iops === 0n);
      result.set(
        inode,
        rawUsedBytes === 0n && idle && !this.#view.inodes.has(inode) ? null : stats,
      );
    }
    return result;
  }

  /** Raw bytes by full inode number, over all OSDs, also those that are down. */
  usedBytes(): Map<bigint, bigint> {
    const result = new Map<bigint, bigint>();
    for (const space of this.#view.osdSpace.values()) {
      for (const [pool, inodes] of space) {
        for (const [inode, bytes] of inodes) {
          const id = fullInode(pool, inode);
          result.set(id, (result.get(id) ?? 0n) + bytes);
        }
      }
    }
    return result;
  }

  /** TiB by pool. */
  usedRawTb(): Map<number, number> {
    const bytes = new Map<number, bigint>();
    for (const space of this.#view.osdSpace.values()) {
      for (const [pool, inodes] of space)
        for (const n of inodes.values()) bytes.set(pool, (bytes.get(pool) ?? 0n) + n);
    }
    return new Map([...bytes].map(([pool, n]) => [pool, Number(n) / TIB]));
  }
}

function zeroRates(stats: OpStats): OpStats {
  return new Map(
    [...stats].map(([op, { count, usec, bytes }]) => [op, { ...ZERO_OP_STAT, count, usec, bytes }]),
  );
}

function inodeRates(now: OsdInodeStats, before: OsdInodeStats | null, deltaMs: number): InodeRates {
  const result: InodeRates = new Map();
  for (const [pool, inodes] of now) {
    for (const [inode, io] of inodes) {
      const old = before?.get(pool)?.get(inode);
      const of = (kind: keyof InodeIo): OpStat =>
        before === null
          ? { ...ZERO_OP_STAT, ...io[kind] }
          : rate(io[kind], old?.[kind] ?? ZERO_OP_STAT, deltaMs);
      result.set(fullInode(pool, inode), {
        read: of('read'),
        write: of('write'),
        delete: of('delete'),
      });
    }
  }
  return result;
}
