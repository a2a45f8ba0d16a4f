// SPDX-License-Identifier: GPL-2.0-or-later
// The engine of one OSD as control sees it: the commands and events of native/engine/engine.hpp, in its order, as plain
// objects.
// 64-bit numbers are bigint, lists are arrays, absent optional text is ''. `kind` names the struct.

import type { ImmediateCommit, LocalReads, Scheme } from '@vitastor/core';

export type { ImmediateCommit, LocalReads, Scheme };
export type FileIo = 'direct' | 'cached' | 'direct_sync';

export interface PgId {
  pool: number;
  pg: number;
}

/** Mirrors store::StoreOptions. Offsets and sizes in bytes; size 0n = to the end. */
export interface StoreOptions {
  osdNum: bigint;
  dataDevice: string;
  metaDevice: string;
  dataOffset: bigint;
  dataSize: bigint;
  metaOffset: bigint;
  metaSize: bigint;
  blockSize: number;
  bitmapGranularity: number;
  immediateCommit: ImmediateCommit;
  disableDataFsync: boolean;
  disableMetaFsync: boolean;
  disableDeviceLock: boolean;
  readonly: boolean;
  checksums: boolean;
  checksumsInMemory: boolean;
  /** Bytes. */
  checksumCacheSize: bigint;
  dataIo: FileIo;
  metaIo: FileIo;
  maxWriteIodepth: number;
  maxTombstones: bigint;
  atomicWriteSize: number;
  discardFreed: 'off' | 'on' | 'automatic';
  discardOnStart: boolean;
  minDiscardSize: bigint;
  discardGranularity: number;
  skipDamagedMetadata: boolean;
  create: boolean;
}

export interface ListenAddress {
  host: string;
  port: number;
}

export interface PeerAddress {
  osd: bigint;
  addresses: string[];
  port: number;
}

export interface PoolConfig {
  pool: number;
  scheme: Scheme;
  pgSize: number;
  pgMinsize: number;
  parityChunks: number;
  pgCount: number;
  pgStripeSize: bigint;
  blockSize: number;
  bitmapGranularity: number;
  immediateCommit: ImmediateCommit;
  localReads: LocalReads;
  backfillfull: boolean;
  usedForApp: boolean;
}

export interface InodeConfig {
  inode: bigint;
  parent: bigint;
  modRevision: bigint;
}

export type Command =
  | {
      kind: 'configure';
      store: StoreOptions;
      listen: ListenAddress[];
      clusterNetworks: string[];
      settings: Record<string, string>;
      leaseTimeoutS: bigint;
    }
  | { kind: 'settings'; settings: Record<string, string> }
  | { kind: 'peerList'; up: PeerAddress[] }
  | { kind: 'pools'; pools: PoolConfig[] }
  | { kind: 'inodes'; inodes: InodeConfig[] }
  | {
      kind: 'startPg';
      pg: PgId;
      osdSet: bigint[];
      allPeers: bigint[];
      historySets: bigint[][];
      epoch: bigint;
      interval: bigint;
    }
  | { kind: 'stopPg'; pg: PgId; interval: bigint }
  | { kind: 'confirmHistory'; pg: PgId; interval: bigint; epoch: bigint }
  | { kind: 'scrubPg'; pg: PgId; interval: bigint }
  | { kind: 'leaseUntil'; deadlineNs: bigint }
  | { kind: 'reportStatistics' }
  | { kind: 'stop' };

/** Mirrors store::StoreStats. */
export interface StoreStats {
  totalBlocks: bigint;
  freeBlocks: bigint;
  objectCount: bigint;
  memoryBytes: bigint;
  deviceBytesWritten: bigint;
  clientBytesWritten: bigint;
  flushes: bigint;
  dataFlushes: bigint;
  metaFlushes: bigint;
  dataSyncWrites: bigint;
  metaSyncWrites: bigint;
  discards: bigint;
  discardedBytes: bigint;
  throttledWrites: bigint;
  throttledUs: bigint;
  checksumErrors: bigint;
  checksumReads: bigint;
  checksumBytesWritten: bigint;
  uuid: bigint;
  logSequence: bigint;
}

export interface OpCounters {
  count: bigint;
  usec: bigint;
  bytes: bigint;
}

export interface PgCounters {
  pg: PgId;
  objectCount: bigint;
  cleanCount: bigint;
  misplacedCount: bigint;
  degradedCount: bigint;
  incompleteCount: bigint;
  corruptedCount: bigint;
  writeOsdSet: bigint[];
}

export interface InodeSpace {
  inode: bigint;
  bytes: bigint;
}

export interface InodeCounters {
  inode: bigint;
  read: OpCounters;
  write: OpCounters;
  del: OpCounters;
}

export interface Statistics {
  kind: 'statistics';
  store: StoreStats;
  space: InodeSpace[];
  opStats: Record<string, OpCounters>;
  subopStats: Record<string, OpCounters>;
  recoveryDegraded: OpCounters;
  recoveryMisplaced: OpCounters;
  pgs: PgCounters[];
  inodes: InodeCounters[];
  slowOpsPrimary: bigint;
  slowOpsSecondary: bigint;
  memoryBytes: bigint;
  memoryBy: Record<string, bigint>;
}

export interface PgStateChanged {
  kind: 'pgStateChanged';
  pg: PgId;
  interval: bigint;
  /** Bits of wire::pg_state. */
  state: number;
  peers: bigint[];
  deadPeers: bigint[];
  reason: string;
}

export interface HistoryWanted {
  kind: 'historyWanted';
  pg: PgId;
  interval: bigint;
  epoch: bigint;
  addCurrentSet: boolean;
  currentSet: bigint[];
  /** Further sets to add: OSDs that hold the only good copies of some objects. */
  moreSets?: bigint[][];
}

/** Every object of the PG was looked at. */
export interface PgScrubbed {
  kind: 'pgScrubbed';
  pg: PgId;
  interval: bigint;
}

export type EngineEvent =
  | { kind: 'ready'; port: number; addresses: string[]; store: StoreStats; runtime: string }
  | PgStateChanged
  | HistoryWanted
  | PgScrubbed
  | { kind: 'peerLost'; osd: bigint; reason: string }
  | Statistics
  | { kind: 'fatal'; name: string; text: string }
  | { kind: 'logLine'; level: 'error' | 'warning' | 'info' | 'debug'; text: string }
  | { kind: 'leaseExpired' }
  | { kind: 'stopped' };

/** In life the addon of osd/binding; in simulation an engine on a simulated loop; in unit tests a fake. */
export interface EngineApi {
  /** Never blocks, never throws for a well-formed command. */
  post(command: Command): void;
  /** Nanoseconds of the engine's clock (CLOCK_BOOTTIME), for leaseUntil. */
  bootTimeNs(): bigint;
}

/** Opens an engine; events arrive in order on the control thread, in batches. Exported by the addon as createEngine. */
export type CreateEngine = (onEvents: (events: EngineEvent[]) => void) => EngineApi;
