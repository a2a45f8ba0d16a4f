// SPDX-License-Identifier: GPL-2.0-or-later
// What an OSD tells etcd about itself: osd/stats, osd/space, osd/inodestats, pgstats. Source: etcd schema 4.12 to 4.16.

import {
  encodeOsdInodeStats, encodeOsdSpace, encodeOsdStats, encodePgStats, inodeInPool, poolOfInode, stringifyJson,
  type ImmediateCommit, type InodeIo, type KeySpace, type OpStat, type OsdInodeStats, type OsdSpace, type TxnOp,
} from '@vitastor/core';
import type { OpCounters, PgCounters, Statistics, StoreStats } from './engine.js';

export interface OsdIdentity {
  osd: number;
  host: string;
  version: string;
  blockSize: number;
  bitmapGranularity: number;
  immediateCommit: ImmediateCommit;
}

/** Pools whose inodes are accounted as one (pseudo-inode 0). */
export type IsAppPool = (pool: number) => boolean;

/** Remembers the last report, for rates, and when an inode became empty. */
export class StatisticsReport {
  readonly #identity: OsdIdentity;
  readonly #inodeVanishMs: number;
  #last: { atMs: number; stats: Statistics } | null = null;
  readonly #emptySince = new Map<bigint, number>();

  constructor(identity: OsdIdentity, inodeVanishMs: number) {
    this.#identity = identity;
    this.#inodeVanishMs = inodeVanishMs;
  }

  /**
   * Puts of one transaction. nowMs: monotonic; wallMs: since 1970. reportPg: false for PGs that are starting or
   * offline.
   */
  build(
    keys: KeySpace,
    stats: Statistics,
    nowMs: number,
    wallMs: number,
    isAppPool: IsAppPool,
    reportPg: (pg: PgCounters) => boolean,
  ): TxnOp[] {
    const { osd } = this.#identity;
    const ops: TxnOp[] = [
      {
        op: 'put',
        key: keys.osdStats(osd),
        value: stringifyJson(encodeOsdStats(this.#osdStats(stats, nowMs, wallMs))),
      },
      { op: 'put', key: keys.osdSpace(osd), value: stringifyJson(encodeOsdSpace(spaceOf(stats, isAppPool))) },
      {
        op: 'put',
        key: keys.osdInodeStats(osd),
        value: stringifyJson(encodeOsdInodeStats(this.#inodeStats(stats, nowMs))),
      },
    ];
    for (const pg of stats.pgs.filter(reportPg)) {
      ops.push({
        op: 'put',
        key: keys.pgStats(pg.pg.pool, pg.pg.pg),
        value: stringifyJson(
          encodePgStats({
            objectCount: pg.objectCount,
            cleanCount: pg.cleanCount,
            misplacedCount: pg.misplacedCount,
            degradedCount: pg.degradedCount,
            incompleteCount: pg.incompleteCount,
            corruptedCount: pg.corruptedCount,
            writeOsdSet: pg.writeOsdSet.map(Number),
          }),
        ),
      });
    }
    this.#last = { atMs: nowMs, stats };
    return ops;
  }

  #osdStats(stats: Statistics, nowMs: number, wallMs: number): Parameters<typeof encodeOsdStats>[0] {
    const { host, version, blockSize, bitmapGranularity, immediateCommit } = this.#identity;
    const before = this.#last?.stats;
    const deltaMs = this.#last ? BigInt(Math.max(0, Math.round(nowMs - this.#last.atMs))) : 0n;
    const rates = (now: Record<string, OpCounters>, was: Record<string, OpCounters> | undefined): Map<string, OpStat> =>
      new Map(Object.entries(now).map(([op, counters]) => [op, rateOf(counters, was?.[op], deltaMs)]));
    return {
      timeMs: wallMs,
      blockstoreReady: true,
      sizeBytes: stats.store.totalBlocks * BigInt(blockSize),
      freeBytes: stats.store.freeBlocks * BigInt(blockSize),
      blockSizeBytes: blockSize,
      bitmapGranularityBytes: bitmapGranularity,
      immediateCommit,
      host,
      version,
      slowOpsPrimary: Number(stats.slowOpsPrimary),
      slowOpsSecondary: Number(stats.slowOpsSecondary),
      memory: new Map(Object.entries(stats.memoryBy)),
      store: storeCounters(stats.store),
      opStats: rates(stats.opStats, before?.opStats),
      subopStats: rates(stats.subopStats, before?.subopStats),
      recoveryStats: new Map([
        ['degraded', rateOf(stats.recoveryDegraded, before?.recoveryDegraded, deltaMs)],
        ['misplaced', rateOf(stats.recoveryMisplaced, before?.recoveryMisplaced, deltaMs)],
      ]),
    };
  }

  /** Leaves out inodes that have been empty and untouched for a while. */
  #inodeStats(stats: Statistics, nowMs: number): OsdInodeStats {
    const used = new Set(stats.space.filter((entry) => entry.bytes > 0n).map((entry) => entry.inode));
    const result: OsdInodeStats = new Map();
    for (const entry of stats.inodes) {
      if (used.has(entry.inode)) this.#emptySince.delete(entry.inode);
      else if (!this.#emptySince.has(entry.inode)) this.#emptySince.set(entry.inode, nowMs);
      const since = this.#emptySince.get(entry.inode);
      if (since !== undefined && nowMs - since >= this.#inodeVanishMs) continue;
      const io: InodeIo = { read: { ...entry.read }, write: { ...entry.write }, delete: { ...entry.del } };
      inner(result, poolOfInode(entry.inode)).set(inodeInPool(entry.inode), io);
    }
    return result;
  }
}

/** Names as in etcd and metrics; with one device everything is `data`. */
function storeCounters(store: StoreStats): Map<string, bigint> {
  return new Map([
    ['device_bytes_written', store.deviceBytesWritten],
    ['client_bytes_written', store.clientBytesWritten],
    ['data_flushes', store.dataFlushes],
    ['meta_flushes', store.metaFlushes],
    ['data_sync_writes', store.dataSyncWrites],
    ['meta_sync_writes', store.metaSyncWrites],
    ['discards', store.discards],
    ['discarded_bytes', store.discardedBytes],
    ['throttled_writes', store.throttledWrites],
    ['throttled_us', store.throttledUs],
    ['checksum_errors', store.checksumErrors],
    ['checksum_reads', store.checksumReads],
    ['checksum_bytes_written', store.checksumBytesWritten],
    // For the next start: fresh-disk.ts.
    ['log_sequence', store.logSequence],
    ['uuid', store.uuid],
  ]);
}

function inner<T>(outer: Map<number, Map<bigint, T>>, pool: number): Map<bigint, T> {
  let found = outer.get(pool);
  if (!found) outer.set(pool, (found = new Map<bigint, T>()));
  return found;
}

function spaceOf(stats: Statistics, isAppPool: IsAppPool): OsdSpace {
  const result: OsdSpace = new Map();
  for (const entry of stats.space) {
    const pool = poolOfInode(entry.inode);
    const inode = isAppPool(pool) ? 0n : inodeInPool(entry.inode);
    const inodes = inner(result, pool);
    inodes.set(inode, (inodes.get(inode) ?? 0n) + entry.bytes);
  }
  return result;
}

function rateOf(now: OpCounters, was: OpCounters | undefined, deltaMs: bigint): OpStat {
  const count = now.count - (was?.count ?? 0n);
  const usec = now.usec - (was?.usec ?? 0n);
  const bytes = now.bytes - (was?.bytes ?? 0n);
  const measured = was !== undefined && deltaMs > 0n;
  return {
    ...now,
    lat: measured && count > 0n ? usec / count : 0n,
    bps: measured ? (bytes * 1000n) / deltaMs : 0n,
    iops: measured ? (count * 1000n) / deltaMs : 0n,
  };
}
