// SPDX-License-Identifier: GPL-2.0-or-later
// Work on the data of inodes that the command line needs and only native code does: the meeting point of cli/ and
// core/binding.

/** One inode's data, or a part of it, to be removed: objects that begin in [minOffset, maxOffset), in bytes. */
export interface RemoveDataRequest {
  pool: number;
  /** Without the pool. */
  inode: bigint;
  /** Objects that begin below this stay. */
  minOffset: bigint;
  /** The object that minOffset lies in reads as zeroes from there on, also where a parent has data. Default: it stays whole. */
  cut?: boolean;
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
  /** Of the PGs listed so far. */
  totalObjects: bigint;
  unlistedPgs: bigint;
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

/** Layers of a chain to be merged into one of them. */
export interface MergeLayersRequest {
  /** Full inode numbers, lowest first; at least two. */
  layers: readonly bigint[];
  /** Index into layers. */
  target: number;
  /** Compare-and-set writes, so that somebody may write to the target meanwhile; null = as the metadata says. */
  cas: boolean | null;
  /** Objects under way per OSD. */
  iodepth: number;
  /** OSDs worked on at once. */
  parallelOsds: number;
  /** Writes between two flushes. */
  fsyncInterval: number;
  /** How long inactive PGs are waited for (client_wait_up_timeout). */
  waitUpTimeoutMs: number;
}

export interface MergeLayersProgress {
  doneObjects: bigint;
  totalObjects: bigint;
  writtenBytes: bigint;
}

export interface MergeLayersResult {
  mergedObjects: bigint;
  writtenBytes: bigint;
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
  /**
   * Writes into the target exactly those granules that the view of the topmost layer, read over these layers alone,
   * takes from another one. Changes no metadata and no other layer. May be aborted at any point and repeated.
   * Rejects with VitastorError ERR_INVALID_ARGUMENT (the target's granularity is too coarse), ERR_NOT_FOUND,
   * ERR_CONFLICT (repeat), ERR_IO, ERR_ETCD_UNAVAILABLE, ERR_ABORTED. Durable on return.
   */
  mergeLayers(
    request: MergeLayersRequest,
    onProgress?: (progress: MergeLayersProgress) => void,
    signal?: AbortSignal,
  ): Promise<MergeLayersResult>;
  close(): Promise<void>;
}

/** What opening the cluster takes: the effective configuration, as for libvitastor. */
export type OpenDataOps = (config: Readonly<Record<string, string>>) => Promise<DataOps>;
