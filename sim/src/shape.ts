// SPDX-License-Identifier: GPL-2.0-or-later
// The shape of a cluster, drawn from a seed: what stands where, with which settings.

import type { DiskOptions, NetworkOptions } from './native.js';
import { GRANULE } from './oracle.js';
import type { SeededRandom } from './rng.js';

/** Share of erasure-coded pools. */
const EC_PERCENT = 25;

export const DISK_BYTES = 96n << 20n;

export type CommitMode = 'all' | 'small' | 'none';

export interface Shape {
  osds: number;
  /** OSD n is on host (n − 1) modulo hosts. */
  hosts: number;
  scheme: 'replicated' | 'xor' | 'ec';
  pgSize: number;
  parityChunks: number;
  pgMinSize: number;
  pgCount: number;
  failureDomain: 'host' | 'osd';
  localReads: 'primary' | 'nearest' | 'random';
  immediateCommit: CommitMode;
  blockSize: number;
  checksums: boolean;
  /** Seconds and writes after which an OSD flushes by itself; null: the default. */
  autosyncInterval: number | null;
  autosyncWrites: number | null;
  recoveryQueueDepth: number;
  /** Default: for pools with local reads. */
  pgLocks: boolean;
  clients: number;
  /** Operations that each client keeps in flight. */
  depth: number;
  /** About so many, of virtual time. */
  operationsPerMinute: number;
  images: number;
  imageBytes: number;
  disk: DiskOptions;
  network: NetworkOptions;
  /** How much faster or slower each OSD's clock runs, parts in a million. */
  driftPpm: number[];
  /** Of 100 operations on images whose objects may be deleted, so many are discards. */
  discardPercent: number;
  /** Whole objects are deleted also where an OSD is away, as rm-data does: tombstones must hold. */
  removes: boolean;
  /** Every PG is scrubbed once in so many seconds; null: never by itself. */
  autoScrubS: number | null;
  /** Image 1 has a parent in another pool: an empty one, so that what was never written still reads as zeroes. */
  hasParent: boolean;
  /** Somebody makes snapshots of the images, removes them and detaches images from their parents, while all of them are in use. */
  isLayered: boolean;
  /** Disks are too small for everything that clients write: what may be deleted makes room again. */
  isTight: boolean;
  /** Further options of each OSD. */
  osdOptions: Record<string, string>;
  /** Bytes of memory for checksums of an OSD that keeps them out of it: fewer than any configuration may say. */
  checksumCacheBytes: number;
  /** Further options of each client. */
  clientOptions: Record<string, string>;
  /** A scrub that finds copies which differ mends them; false: it says so, and the seed fails. */
  scrubFindsBest: boolean;
  /** Seconds after which a clean PG forgets its tombstones. */
  tombstoneInterval: number | null;
  /** Milliseconds that an answer of etcd takes. */
  etcdDelayMs: number;
  monitors: number;
}

/** Chunks with data; 1 for replicated. */
export function dataChunks(shape: Shape): number {
  return shape.scheme === 'replicated' ? 1 : shape.pgSize - shape.parityChunks;
}

export function objectBytes(shape: Shape): number {
  return shape.blockSize * dataChunks(shape);
}

/** Two clients may share an image only where what one has acknowledged cannot be undone by the replay of the other. */
export function isShared(shape: Shape): boolean {
  return shape.immediateCommit === 'all' && shape.clients > 1;
}

/** Clients keep writes in memory until a flush. */
export function isBuffered(shape: Shape): boolean {
  return shape.clientOptions['client_enable_writeback'] === '1';
}

export function drawShape(random: SeededRandom): Shape {
  const shape = drawPlainShape(random);
  return drawOptions(random, random.chance(20) ? tightened(shape) : shape);
}

const LAYERED_PERCENT = 20;

/**
 * The same with layers, in some seeds. Two writers of an image hear of a snapshot one after the other, so each image has one. What deletes objects
 * without asking whether there is a parent would show what lies below.
 */
export function withLayers(random: SeededRandom, shape: Shape): Shape {
  if (shape.isTight || shape.removes || !random.chance(LAYERED_PERCENT)) return shape;
  return { ...shape, isLayered: true, clients: shape.immediateCommit === 'all' ? 1 : shape.clients };
}

/** Log, superblock and what the store keeps for overwrites. */
const STORE_BYTES = 3_600_000;
const SPARE_BLOCKS = 6;

/** The same cluster on disks that take about four fifths of what is written, but all that is never deleted. */
function tightened(shape: Shape): Shape {
  const objects = Math.max(24, shape.imageBytes / objectBytes(shape));
  const expected = shape.images * objects * Math.min(1, shape.pgSize / shape.osds);
  const blocks = Math.max(objects, Math.ceil(expected * 0.8)) + SPARE_BLOCKS;
  return {
    ...shape, isTight: true, imageBytes: objects * objectBytes(shape), discardPercent: 25,
    disk: { ...shape.disk, sizeBytes: BigInt(Math.ceil((STORE_BYTES + blocks * shape.blockSize) / 65536) * 65536) },
  };
}

/** Operations a minute. Few are enough for most faults; some races need many. */
const SPARSE = 4000;
export const DENSE = 8000;

/** Settings that matter rarely: each has its own branches. */
function drawOptions(random: SeededRandom, shape: Shape): Shape {
  const osdOptions: Record<string, string> = {};
  const clientOptions: Record<string, string> = {};
  const isBigSector = !shape.disk.tornSectors && random.chance(20);
  if (isBigSector) osdOptions['atomic_write_size'] = '16384';
  if (random.chance(25)) osdOptions['inmemory_metadata'] = '0';
  if (random.chance(25)) {
    osdOptions['discard_freed'] = '1';
    osdOptions['min_discard_size'] = String(shape.blockSize);
  }
  // Without room for tombstones a delete that is interrupted may leave an erasure-coded object incomplete (docs/adr/0046).
  if (random.chance(15) && !shape.isTight && shape.scheme === 'replicated') osdOptions['max_tombstones'] = '2';
  if (random.chance(40)) clientOptions['client_max_dirty_ops'] = random.pick(['2', '16']);
  if (shape.isTight && random.chance(30)) clientOptions['client_retry_enospc'] = '0';
  const network = { ...shape.network, lateSentChance: random.chance(30) ? 0.1 : 0 };
  const localReads = shape.scheme !== 'replicated' && random.chance(40) ? random.pick(['nearest', 'random'] as const) : shape.localReads;
  const operationsPerMinute = random.pick([SPARSE, SPARSE, SPARSE, DENSE]);
  // Buffered writes are seen by their own client only, and a flush may find no room for them.
  if (!shape.isTight && !isShared(shape) && random.chance(15)) {
    Object.assign(clientOptions, {
      client_enable_writeback: '1', client_writeback_allowed: '1',
      client_max_buffered_bytes: random.pick(['16384', '65536', '1048576']), client_max_writeback_iodepth: random.pick(['1', '256']),
    });
  }
  return { ...shape, localReads, osdOptions, clientOptions, network, operationsPerMinute, ...(isBigSector ? { disk: { ...shape.disk, sectorBytes: 16384 } } : {}) };
}

function drawPlainShape(random: SeededRandom): Shape {
  const immediateCommit = random.pick(['all', 'all', 'all', 'none', 'small'] as const);
  const redundancy = drawRedundancy(random);
  const { pgSize } = redundancy;
  const osds = random.between(pgSize, Math.min(6, pgSize + 2));
  const hosts = random.chance(70) ? osds : random.between(pgSize, osds);
  const blockSize = random.pick([32768, 131072]);
  const chunks = redundancy.scheme === 'replicated' ? 1 : pgSize - redundancy.parityChunks;
  const objects = random.pick([8, 24, 48]);
  const isLocal = redundancy.scheme === 'replicated' && immediateCommit === 'all' && random.chance(30);
  return {
    ...redundancy, osds, hosts, immediateCommit, blockSize,
    pgCount: random.between(1, 8),
    failureDomain: random.chance(50) ? 'host' : 'osd',
    localReads: isLocal ? random.pick(['nearest', 'random'] as const) : 'primary',
    checksums: random.chance(80),
    autosyncInterval: random.chance(70) ? null : random.between(1, 5),
    autosyncWrites: random.chance(70) ? null : random.pick([1, 8, 64]),
    recoveryQueueDepth: random.pick([1, 4, 16]),
    pgLocks: isLocal || random.chance(20),
    clients: random.between(1, 3),
    depth: random.pick([1, 4, 8]),
    operationsPerMinute: SPARSE,
    images: 2,
    imageBytes: objects * blockSize * chunks,
    disk: {
      sizeBytes: DISK_BYTES,
      volatileCache: immediateCommit !== 'all' && random.chance(70),
      tornSectors: random.chance(30),
      shortChance: random.chance(20) ? 0.02 : 0,
      slowChance: random.chance(20) ? 0.001 : 0,
    },
    network: { shortChance: random.chance(30) ? 0.1 : 0, killChance: random.chance(20) ? 0.2 : 0, killAfterMaxBytes: 1 << 20 },
    driftPpm: Array.from({ length: osds }, () => (random.chance(30) ? random.between(-200, 200) : 0)),
    etcdDelayMs: random.pick([0, 1, 20]),
    monitors: random.chance(30) ? 2 : 1,
    discardPercent: random.pick([4, 8, 25]),
    hasParent: random.chance(20),
    isTight: false,
    isLayered: false,
    removes: false,
    osdOptions: {},
    checksumCacheBytes: random.pick([256, 1024, 65536]),
    clientOptions: {},
    autoScrubS: random.chance(40) ? random.between(2, 20) : null,
    scrubFindsBest: random.chance(60),
    tombstoneInterval: random.chance(50) ? null : random.between(1, 10),
  };
}

type Redundancy = Pick<Shape, 'scheme' | 'pgSize' | 'parityChunks' | 'pgMinSize'>;

function drawRedundancy(random: SeededRandom): Redundancy {
  if (random.chance(EC_PERCENT)) {
    const [data, parityChunks] = random.pick([[2, 1], [2, 1], [2, 2], [3, 1], [4, 2]] as const);
    const pgSize = data + parityChunks;
    const scheme = parityChunks === 1 && random.chance(50) ? 'xor' : 'ec';
    return { scheme, pgSize, parityChunks, pgMinSize: data + random.below(parityChunks) };
  }
  const pgSize = random.pick([1, 2, 2, 2, 3, 3, 4]);
  return { scheme: 'replicated', pgSize, parityChunks: 0, pgMinSize: random.between(1, Math.min(2, pgSize)) };
}

/** Granules of an image. */
export function granulesOf(shape: Shape): number {
  return shape.imageBytes / GRANULE;
}
