// SPDX-License-Identifier: GPL-2.0-or-later
// What an OSD reports: osd/state, osd/stats, osd/space, osd/inodestats. Source: etcd schema 4.13 to 4.16.

import {
  array,
  bigInteger,
  boolean,
  counter,
  INODE_MAX,
  integer,
  mapOf,
  name,
  number,
  object,
  oneOf,
  string,
  u64,
  type Decoder,
} from '../decode.js';
import type { JsonObject, JsonValue } from '../json.js';
import type { ImmediateCommit } from './pools.js';

export interface OsdState {
  /** state is "up". */
  up: boolean;
  addresses: string[];
  port: number;
  /** 0 = none. */
  rdmacmPort: number;
  host: string;
  version: string;
  primaryEnabled: boolean;
  blockstoreEnabled: boolean;
}

const addressList: Decoder<string[]> = (value, path) =>
  typeof value === 'string' ? [value] : array(string)(value, path);

export const decodeOsdState: Decoder<OsdState> = object((f) => ({
  up: f.required('state', string) === 'up',
  addresses: f.optional('addresses', addressList, []),
  port: f.optional('port', integer(0, 65535), 0),
  rdmacmPort: f.optional('rdmacm_port', integer(0, 65535), 0),
  host: f.optional('host', name, ''),
  version: f.optional('version', name, ''),
  primaryEnabled: f.optional('primary_enabled', boolean, true),
  blockstoreEnabled: f.optional('blockstore_enabled', boolean, true),
}));

export function encodeOsdState(state: OsdState): JsonObject {
  const result: JsonObject = {
    state: state.up ? 'up' : 'down',
    addresses: [...state.addresses],
    port: state.port,
    host: state.host,
    version: state.version,
    primary_enabled: state.primaryEnabled,
    blockstore_enabled: state.blockstoreEnabled,
  };
  if (state.rdmacmPort) result['rdmacm_port'] = state.rdmacmPort;
  return result;
}

/** count, usec, bytes: totals since the OSD's start. lat (µs), bps, iops: over the last report period. */
export interface OpStat {
  count: bigint;
  usec: bigint;
  bytes: bigint;
  lat: bigint;
  bps: bigint;
  iops: bigint;
}

export const ZERO_OP_STAT: Readonly<OpStat> = { count: 0n, usec: 0n, bytes: 0n, lat: 0n, bps: 0n, iops: 0n };

export const decodeOpStat: Decoder<OpStat> = object((f) => ({
  count: f.optional('count', counter, 0n),
  usec: f.optional('usec', counter, 0n),
  bytes: f.optional('bytes', counter, 0n),
  lat: f.optional('lat', counter, 0n),
  bps: f.optional('bps', counter, 0n),
  iops: f.optional('iops', counter, 0n),
}));

export type OpStats = Map<string, OpStat>;
const opStats: Decoder<OpStats> = mapOf(string, decodeOpStat);

export interface OsdStats {
  /** Milliseconds since 1970 UTC by the OSD's clock; null = reserved number or a record that lost it. */
  timeMs: number | null;
  blockstoreReady: boolean;
  /** null: not reported. */
  sizeBytes: bigint | null;
  freeBytes: bigint | null;
  /** 0 = not reported. */
  blockSizeBytes: number;
  bitmapGranularityBytes: number;
  immediateCommit: ImmediateCommit | null;
  host: string;
  version: string;
  slowOpsPrimary: number;
  slowOpsSecondary: number;
  /** Bytes by part of the engine. Ours: 3.0.8 neither writes nor reads it. */
  memory: Map<string, bigint>;
  /** Counters of the store since the OSD's start: flushes and synchronous writes by device, discards, throttling. Ours. */
  store: Map<string, bigint>;
  opStats: OpStats;
  subopStats: OpStats;
  recoveryStats: OpStats;
}

export const decodeOsdStats: Decoder<OsdStats> = object((f) => {
  const seconds = f.optional('time', number, null);
  return {
    timeMs: seconds === null ? null : Math.round(seconds * 1000),
    blockstoreReady: f.optional('blockstore_ready', boolean, false),
    sizeBytes: f.optional('size', u64, null),
    freeBytes: f.optional('free', u64, null),
    blockSizeBytes: f.optional('data_block_size', integer(0), 0),
    bitmapGranularityBytes: f.optional('bitmap_granularity', integer(0), 0),
    immediateCommit: f.optional('immediate_commit', oneOf('all', 'small', 'none'), null),
    host: f.optional('host', name, ''),
    version: f.optional('version', name, ''),
    slowOpsPrimary: f.optional('slow_ops_primary', integer(0), 0),
    slowOpsSecondary: f.optional('slow_ops_secondary', integer(0), 0),
    memory: f.optional('memory', mapOf(string, u64), new Map<string, bigint>()),
    store: f.optional('store', mapOf(string, u64), new Map<string, bigint>()),
    opStats: f.optional('op_stats', opStats, new Map<string, OpStat>()),
    subopStats: f.optional('subop_stats', opStats, new Map<string, OpStat>()),
    recoveryStats: f.optional('recovery_stats', opStats, new Map<string, OpStat>()),
  };
});

/** Which fields of a statistic each family writes. */
const OP_FIELDS = ['count', 'usec', 'bytes', 'lat', 'bps', 'iops'] as const;
const SUBOP_FIELDS = ['count', 'usec', 'lat', 'iops'] as const;

export function encodeOpStats(
  stats: OpStats,
  fields: readonly (keyof OpStat)[],
  number: (n: bigint) => JsonValue = (n) => n,
): JsonObject {
  const result: JsonObject = {};
  for (const [op, stat] of stats) result[op] = Object.fromEntries(fields.map((field) => [field, number(stat[field])]));
  return result;
}

/** Unix seconds as a string with at most three decimals, as 3.0.8 readers expect. */
export function encodeTime(timeMs: number): string {
  return (Math.round(timeMs) / 1000).toFixed(3);
}

export function encodeOsdStats(stats: OsdStats): JsonObject {
  const result: JsonObject = {};
  if (stats.timeMs !== null) result['time'] = encodeTime(stats.timeMs);
  result['blockstore_ready'] = stats.blockstoreReady;
  if (stats.sizeBytes !== null) result['size'] = stats.sizeBytes;
  if (stats.freeBytes !== null) result['free'] = stats.freeBytes;
  if (stats.blockSizeBytes) result['data_block_size'] = stats.blockSizeBytes;
  if (stats.bitmapGranularityBytes) result['bitmap_granularity'] = stats.bitmapGranularityBytes;
  if (stats.immediateCommit !== null) result['immediate_commit'] = stats.immediateCommit;
  result['host'] = stats.host;
  result['version'] = stats.version;
  if (stats.slowOpsPrimary) result['slow_ops_primary'] = stats.slowOpsPrimary;
  if (stats.slowOpsSecondary) result['slow_ops_secondary'] = stats.slowOpsSecondary;
  if (stats.memory.size > 0) result['memory'] = Object.fromEntries(stats.memory);
  if (stats.store.size > 0) result['store'] = Object.fromEntries(stats.store);
  result['op_stats'] = encodeOpStats(stats.opStats, OP_FIELDS);
  result['subop_stats'] = encodeOpStats(stats.subopStats, SUBOP_FIELDS);
  result['recovery_stats'] = encodeOpStats(stats.recoveryStats, OP_FIELDS);
  return result;
}

const poolKey = integer(1, 65535);
/** 0 = the whole pool, where it is used for an application. */
const inodeKey = bigInteger(0n, INODE_MAX);

/** Pool → inode (without pool) → bytes allocated on this OSD. */
export type OsdSpace = Map<number, Map<bigint, bigint>>;
export const decodeOsdSpace: Decoder<OsdSpace> = mapOf(poolKey, mapOf(inodeKey, u64));

function encodeTree<T>(tree: Map<number, Map<bigint, T>>, leaf: (value: T) => JsonValue): JsonObject {
  const result: JsonObject = {};
  for (const [pool, inodes] of tree) {
    result[String(pool)] = Object.fromEntries([...inodes].map(([inode, value]) => [inode.toString(), leaf(value)]));
  }
  return result;
}

export function encodeOsdSpace(space: OsdSpace): JsonObject {
  return encodeTree(space, (bytes) => bytes);
}

/** Totals since the OSD's start, counted on primaries. */
export interface IoTotal {
  count: bigint;
  usec: bigint;
  bytes: bigint;
}

export interface InodeIo {
  read: IoTotal;
  write: IoTotal;
  delete: IoTotal;
}

const ioTotal: Decoder<IoTotal> = object((f) => ({
  count: f.optional('count', counter, 0n),
  usec: f.optional('usec', counter, 0n),
  bytes: f.optional('bytes', counter, 0n),
}));

const ZERO_TOTAL: Readonly<IoTotal> = { count: 0n, usec: 0n, bytes: 0n };

const inodeIo: Decoder<InodeIo> = object((f) => ({
  read: f.optional('read', ioTotal, { ...ZERO_TOTAL }),
  write: f.optional('write', ioTotal, { ...ZERO_TOTAL }),
  delete: f.optional('delete', ioTotal, { ...ZERO_TOTAL }),
}));

export type OsdInodeStats = Map<number, Map<bigint, InodeIo>>;
export const decodeOsdInodeStats: Decoder<OsdInodeStats> = mapOf(poolKey, mapOf(inodeKey, inodeIo));

export function encodeOsdInodeStats(stats: OsdInodeStats): JsonObject {
  return encodeTree(stats, (io) => ({ read: { ...io.read }, write: { ...io.write }, delete: { ...io.delete } }));
}
