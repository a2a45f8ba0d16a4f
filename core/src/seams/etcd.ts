// SPDX-License-Identifier: GPL-2.0-or-later
// The door to etcd for monitor, OSD control and CLI. Life: a thin adapter over the package `etcd3`.
// Simulation and unit tests: MemoryEtcd. Both pass the same contract tests.
//
// Keys are whole keys (prefix included); values are text (JSON). Revisions, lease ids and versions are bigint.
// Every call takes a timeout and rejects with VitastorError: ERR_ETCD_UNAVAILABLE (retryable; the outcome of a
// transaction is then unknown), ERR_LEASE_LOST (a put names a lease that is gone; nothing was changed),
// ERR_ETCD_REQUEST (our bug or a
// limit of the server; not retryable), or ERR_ABORTED (after close()).

export interface KeyValue {
  key: string;
  value: string;
  createRevision: bigint;
  modRevision: bigint;
  version: bigint;
  /** 0n: no lease. */
  lease: bigint;
}

/** All keys that start with `prefix`, or exactly `key`. */
export type KeyRange = { key: string } | { prefix: string };

export type Compare =
  | { target: 'version'; key: string; result: 'equal' | 'less' | 'greater'; value: bigint }
  | { target: 'createRevision'; key: string; result: 'equal' | 'less' | 'greater'; value: bigint }
  | { target: 'modRevision'; key: string; result: 'equal' | 'less' | 'greater'; value: bigint }
  | { target: 'lease'; key: string; result: 'equal'; value: bigint };

export type TxnOp =
  | { op: 'put'; key: string; value: string; lease?: bigint }
  | { op: 'delete'; range: KeyRange }
  | { op: 'range'; range: KeyRange; keysOnly?: boolean };

export interface Txn {
  compare: readonly Compare[];
  success: readonly TxnOp[];
  failure?: readonly TxnOp[];
}

export interface TxnResult {
  succeeded: boolean;
  revision: bigint;
  /** One entry per operation of the branch that ran: the pairs of a range, [] for put and delete. */
  responses: KeyValue[][];
}

export interface WatchEvent {
  type: 'put' | 'delete';
  key: string;
  /** '' for a delete. */
  value: string;
  modRevision: bigint;
  lease: bigint;
}

export interface WatchHandlers {
  /**
   * Events in order. All events of one revision and one range arrive in one call; different ranges of a watch may run
   * ahead of each other.
   * Everything up to `revision` has been delivered on every range: resume at revision + 1. Without events: only that
   * has moved on.
   */
  onEvents(events: readonly WatchEvent[], revision: bigint): void;
  /**
   * The watch is over and no event follows: 'compacted' (reload everything, then watch anew), 'cancelled' by the
   * server,
   * 'lost' (connection gone or silent: watch anew from the last seen revision + 1). Called at most once, never after
   * close().
   */
  onEnd(reason: 'compacted' | 'cancelled' | 'lost'): void;
}

export interface Watch {
  close(): void;
}

export interface MemberStatus {
  address: string;
  alive: boolean;
  dbSizeBytes: number;
  error?: string;
}

export interface Etcd {
  txn(txn: Txn, timeoutMs: number): Promise<TxnResult>;
  /** Watches all `ranges` from `startRevision` on (inclusive). */
  watch(ranges: readonly KeyRange[], startRevision: bigint, handlers: WatchHandlers): Watch;
  leaseGrant(ttlSeconds: number, timeoutMs: number): Promise<bigint>;
  /** Remaining TTL in seconds that the server confirmed; 0: the lease is gone. */
  leaseKeepalive(lease: bigint, timeoutMs: number): Promise<number>;
  leaseRevoke(lease: bigint, timeoutMs: number): Promise<void>;
  /** One entry per configured address. Never rejects for a dead member. */
  status(timeoutMs: number): Promise<MemberStatus[]>;
  /** Replaces the address list from the next request on. */
  setAddresses(addresses: readonly string[]): void;
  /** Ends all watches (without onEnd) and connections; every open call rejects. */
  close(): void;
}
