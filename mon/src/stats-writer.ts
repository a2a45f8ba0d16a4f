// SPDX-License-Identifier: GPL-2.0-or-later
// Writes the statistics: coalesced, only what changed, in pieces that any etcd accepts, and only
// while we are master.

import {
  encodeClusterStats,
  encodeInodeStats,
  encodePoolStats,
  errorText,
  inodeInPool,
  poolOfInode,
  stringifyJson,
  VitastorError,
  type Cancel,
  type ChangeSet,
  type ClusterView,
  type Clock,
  type Compare,
  type Etcd,
  type InodeStats,
  type TxnOp,
} from '@vitastor/core';
import type { Log } from './log.js';
import type { MonSettings } from './settings.js';
import { Statistics } from './statistics.js';

/** etcd's default limit of operations a transaction is 128. */
const OPS_PER_TXN = 100;

export interface StatsWriterOptions {
  view: ClusterView;
  etcd: Etcd;
  clock: Clock;
  log: Log;
  masterLease: bigint;
  settings: () => MonSettings;
  /** After each run. */
  onRun: () => void;
}

interface Write {
  op: TxnOp;
  compare?: Compare;
}

export class StatsWriter {
  readonly #o: StatsWriterOptions;
  readonly #statistics: Statistics;
  #timer: Cancel | null = null;
  #running = false;
  #stopped = false;

  constructor(options: StatsWriterOptions) {
    this.#o = options;
    this.#statistics = new Statistics(options.view);
  }

  start(): void {
    this.#schedule();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.();
    this.#timer = null;
  }

  onChange(set: ChangeSet): void {
    if (this.#statistics.onChange(set)) this.#schedule();
  }

  #schedule(): void {
    if (this.#timer !== null || this.#stopped) return;
    this.#timer = this.#o.clock.after(this.#o.settings().statsDelayMs, () => {
      this.#timer = null;
      void this.#run();
    });
  }

  async #run(): Promise<void> {
    if (this.#running) {
      this.#schedule();
      return;
    }
    this.#running = true;
    const { etcd, view, log, masterLease } = this.#o;
    try {
      const writes = this.#writes();
      for (let at = 0; at < writes.length && !this.#stopped; at += OPS_PER_TXN) {
        const part = writes.slice(at, at + OPS_PER_TXN);
        const compare = part.flatMap((write) => (write.compare ? [write.compare] : []));
        const { succeeded } = await etcd.txn(
          {
            compare: [
              { target: 'lease', key: view.keys.monMaster, result: 'equal', value: masterLease },
              ...compare,
            ],
            success: part.map((write) => write.op),
          },
          this.#o.settings().startTimeoutMs,
        );
        if (!succeeded) {
          this.#schedule();
          break;
        }
      }
      if (!this.#stopped) this.#o.onRun();
    } catch (error) {
      if (!this.#stopped) {
        log.warn(`writing statistics: ${errorText(error)}`);
        if (error instanceof VitastorError && error.retryable) this.#schedule();
      }
    } finally {
      this.#running = false;
    }
  }

  #writes(): Write[] {
    const { view } = this.#o;
    const { keys } = view;
    const result: Write[] = [];
    const put = (key: string, value: string, guarded: boolean): void => {
      if (view.entry(key)?.value === value) return;
      const op: TxnOp = { op: 'put', key, value };
      result.push(
        guarded
          ? {
              op,
              compare: { target: 'modRevision', key, result: 'less', value: view.revision + 1n },
            }
          : { op },
      );
    };
    put(keys.stats, stringifyJson(encodeClusterStats(this.#statistics.clusterStats())), false);
    for (const [id, stats] of this.#statistics.inodeStats()) {
      const known = view.inodeStats.get(id);
      // Most images are idle: comparing is far cheaper than writing them out as text.
      if (stats !== null && known !== undefined && isSame(stats, known)) continue;
      const key = keys.inodeStats(poolOfInode(id), inodeInPool(id));
      if (stats !== null) put(key, stringifyJson(encodeInodeStats(stats)), false);
      else if (view.entry(key) !== undefined) result.push({ op: { op: 'delete', range: { key } } });
    }
    // Placement writes the same records: whoever comes second looks again.
    const used = this.#statistics.usedRawTb();
    for (const [pool, stats] of view.poolStats) {
      const key = keys.poolStats(pool);
      if (view.pools.has(pool))
        put(
          key,
          stringifyJson(encodePoolStats({ ...stats, usedRawTb: used.get(pool) ?? 0 })),
          true,
        );
      else if (
        !view.invalidPools.has(pool) &&
        view.pools.size > 0 &&
        !view.pgConfig?.items.has(pool)
      )
        result.push({ op: { op: 'delete', range: { key } } });
    }
    return result;
  }
}

function isSame(a: InodeStats, b: InodeStats): boolean {
  return (
    a.rawUsedBytes === b.rawUsedBytes &&
    (['read', 'write', 'delete'] as const).every((kind) => {
      const [x, y] = [a[kind], b[kind]];
      return (
        x.count === y.count &&
        x.usec === y.usec &&
        x.bytes === y.bytes &&
        x.bps === y.bps &&
        x.iops === y.iops &&
        x.lat === y.lat
      );
    })
  );
}
