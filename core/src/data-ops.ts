// SPDX-License-Identifier: GPL-2.0-or-later
// Work on the data of inodes that the command line needs and only native code does: the meeting point of cli/ and
// core/binding.

/**
 * One inode's data, or a part of it, to be removed. Offsets are bytes; objects that reach into [min, max) whole or in
 * part by their start.
 */
export interface RemoveDataRequest {
  pool: number;
  /** Without the pool. */
  inode: bigint;
  /** Objects that begin below this stay; rounded down to a whole object by the caller. */
  minOffset: bigint;
  /** Objects that begin at or above this stay; null = no limit. */
  maxOffset: bigint | null;
  /** Operations in flight per OSD. */
  iodepth: number;
  /** OSDs worked on at once. */
  parallelOsds: number;
  /** List everything before the first removal. */
  waitList: boolean;
  /** Go on although OSDs that hold leftovers are down. */
  downOk: boolean;
  /** How long inactive PGs are waited for (client_wait_up_timeout). */
  waitUpTimeoutMs: number;
}

export interface RemoveDataProgress {
  removedObjects: bigint;
  /** Known so far: grows while listing. */
  totalObjects: bigint;
  /** True when every PG has been listed. */
  listed: boolean;
}

export interface RemoveDataResult {
  removedObjects: bigint;
  totalObjects: bigint;
  errorCount: bigint;
  /** OSDs that are down and may hold leftovers. */
  inactiveOsds: number[];
  /** PGs that could not be listed. */
  inactivePgs: number[];
}

export interface DataOps {
  /**
   * Lists the inode's objects on the primary of every PG (LIST), deletes those in range (DELETE), and syncs (SYNC)
   * where the pool's
   * commit mode needs it. Resolves also when something stayed behind: the caller judges by errorCount, inactiveOsds and
   * inactivePgs.
   * Rejects with VitastorError ERR_NOT_FOUND (no such pool), ERR_ETCD_UNAVAILABLE, ERR_ABORTED.
   * Durable on return: every removal that is counted.
   */
  deleteInodeData(
    request: RemoveDataRequest,
    onProgress?: (progress: RemoveDataProgress) => void,
    signal?: AbortSignal,
  ): Promise<RemoveDataResult>;
  close(): Promise<void>;
}

/** What opening the cluster takes: the effective configuration, as for libvitastor. */
export type OpenDataOps = (config: Readonly<Record<string, string>>) => Promise<DataOps>;
