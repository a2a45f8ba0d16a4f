// SPDX-License-Identifier: GPL-2.0-or-later
// The cluster as etcd describes it, decoded: one table a key family. Fed key by key; knows nothing of connections.
//
// A value that does not decode is reported and ignored: what was known of that key before stays (a PG does not vanish
// because somebody
// wrote garbage). A pool entry that does not decode is left out of `pools` and named in `invalidPools`.

import { decodeText, problemOf, type Problem } from './decode.js';
import type { JsonObject } from './json.js';
import {
  decodeGlobalConfig,
  decodeNodePlacement,
  decodeOsdConfig,
  type OsdConfig,
  type PlacementNode,
} from './schema/config.js';
import { decodeImageIndex, decodeInodeConfig, decodeMaxId, type ImageIndex, type InodeConfig } from './schema/inode.js';
import { fullInode, type KeySpace, type ParsedKey } from './schema/keys.js';
import {
  decodeOsdInodeStats,
  decodeOsdSpace,
  decodeOsdState,
  decodeOsdStats,
  type OsdInodeStats,
  type OsdSpace,
  type OsdState,
  type OsdStats,
} from './schema/osd.js';
import {
  decodeLastCleanPgs,
  decodePgConfig,
  decodePgHistory,
  decodePgState,
  decodePgStats,
  type PgConfig,
  type PgHistory,
  type PgItem,
  type PgItems,
  type PgState,
  type PgStats,
} from './schema/pg.js';
import { decodePools, decodeRawPools, globalBlockLayout, type BlockLayout, type PoolConfig } from './schema/pools.js';
import {
  decodeClusterStats,
  decodeInodeStats,
  decodeMonMember,
  decodePoolStats,
  type ClusterStats,
  type InodeStats,
  type MonMember,
  type PoolStats,
} from './schema/stats.js';
import type { KeyValue } from './seams/etcd.js';

/** A table by pool and PG number. */
export class PgTable<T> {
  readonly #pools = new Map<number, Map<number, T>>();

  get(pool: number, pg: number): T | undefined {
    return this.#pools.get(pool)?.get(pg);
  }

  set(pool: number, pg: number, value: T): void {
    let pgs = this.#pools.get(pool);
    if (!pgs) this.#pools.set(pool, (pgs = new Map<number, T>()));
    pgs.set(pg, value);
  }

  delete(pool: number, pg: number): void {
    const pgs = this.#pools.get(pool);
    if (pgs?.delete(pg) && pgs.size === 0) this.#pools.delete(pool);
  }

  pools(): number[] {
    return [...this.#pools.keys()];
  }

  /** PG number → value of one pool. */
  ofPool(pool: number): ReadonlyMap<number, T> {
    return this.#pools.get(pool) ?? new Map<number, T>();
  }

  *entries(): Generator<[pool: number, pg: number, value: T]> {
    for (const [pool, pgs] of this.#pools) for (const [pg, value] of pgs) yield [pool, pg, value];
  }
}

export interface StateChange {
  key: string;
  parsed: ParsedKey;
  deleted: boolean;
}

/** Read-only for everybody but the loader that feeds it. */
export class ClusterView {
  readonly keys: KeySpace;
  /** Of the last load or event. */
  revision = 0n;
  global: JsonObject = {};
  /** What pools inherit. */
  layout: BlockLayout = globalBlockLayout({});
  pools: ReadonlyMap<number, PoolConfig> = new Map();
  /** Pools that stand in /config/pools and do not decode: neither used nor gone. */
  invalidPools: ReadonlySet<number> = new Set();
  nodePlacement: ReadonlyMap<string, PlacementNode> = new Map();
  readonly osdConfig = new Map<number, OsdConfig>();
  /** By full inode number. */
  readonly inodes = new Map<bigint, InodeConfig>();
  /** /index/image: a hint only; images put by hand have none. Look names up with imageByName(). */
  readonly imageIndex = new Map<string, ImageIndex>();
  readonly maxIds = new Map<number, bigint>();
  /** null: no PG was ever made. */
  pgConfig: PgConfig | null = null;
  lastCleanPgs: PgItems | null = null;
  readonly pgStates = new PgTable<PgState>();
  readonly pgHistory = new PgTable<PgHistory>();
  /** pgstats and the old pg/stats together; the new key wins. */
  readonly pgStats = new PgTable<PgStats>();
  readonly osdStates = new Map<number, OsdState>();
  readonly osdStats = new Map<number, OsdStats>();
  readonly osdSpace = new Map<number, OsdSpace>();
  readonly osdInodeStats = new Map<number, OsdInodeStats>();
  readonly monMembers = new Map<string, MonMember>();
  monMaster: MonMember | null = null;
  stats: ClusterStats | null = null;
  /** By full inode number. */
  readonly inodeStats = new Map<bigint, InodeStats>();
  readonly poolStats = new Map<number, PoolStats>();

  readonly #entries = new Map<string, KeyValue>();
  readonly #names = new Map<string, Set<bigint>>();
  readonly #onProblem: (problem: Problem) => void;

  constructor(keys: KeySpace, onProblem: (problem: Problem) => void = () => undefined) {
    this.keys = keys;
    this.#onProblem = onProblem;
  }

  /** The pair as last seen, or undefined: absent (an empty value counts as absent). */
  entry(key: string): KeyValue | undefined {
    return this.#entries.get(key);
  }

  /** 0n: absent. */
  modRevision(key: string): bigint {
    return this.#entries.get(key)?.modRevision ?? 0n;
  }

  entries(): IterableIterator<KeyValue> {
    return this.#entries.values();
  }

  /**
   * The image of that name. Two records of one name: the one that /index/image names, else the highest number (the
   * newest layer).
   */
  imageByName(name: string): InodeConfig | null {
    const found = [...(this.#names.get(name) ?? [])].sort((a, b) => (a < b ? 1 : -1));
    const index = this.imageIndex.get(name);
    const indexed =
      index && found.includes(fullInode(index.pool, index.inode)) ? fullInode(index.pool, index.inode) : undefined;
    const id = indexed ?? found[0];
    return id === undefined ? null : this.inodes.get(id) ?? null;
  }

  /** Highest inode number (without pool) that was handed out or is in use; 0n = none. The next free one is this + 1. */
  highestInode(pool: number): bigint {
    let highest = this.maxIds.get(pool) ?? 0n;
    for (const config of this.inodes.values())
      if (config.pool === pool && config.inode > highest) highest = config.inode;
    return highest;
  }

  childrenOf(pool: number, inode: bigint): InodeConfig[] {
    return [...this.inodes.values()].filter((config) => config.parent?.pool === pool && config.parent.inode === inode);
  }

  poolByName(name: string): PoolConfig | null {
    for (const pool of this.pools.values()) if (pool.name === name) return pool;
    return null;
  }

  /** PG `pg` of the map; undefined: not in the map. */
  pgItem(pool: number, pg: number): PgItem | undefined {
    return this.pgConfig?.items.get(pool)?.[pg - 1];
  }

  /**
   * Takes one pair from a load or a watch (value '' = deleted). Returns the change, or null when there is nothing new:
   * an older
   * revision, a key outside the catalogue, or a value that does not decode (the one before stays in force; that of a history does not).
   */
  apply(kv: KeyValue): StateChange | null {
    const known = this.#entries.get(kv.key);
    const parsed = this.keys.parse(kv.key);
    if (!parsed || (known && kv.modRevision <= known.modRevision)) return null;
    if (kv.value === '') {
      if (!known) return null;
      this.#entries.delete(kv.key);
      this.#clear(parsed);
      return { key: kv.key, parsed, deleted: true };
    }
    this.#entries.set(kv.key, kv);
    try {
      this.#set(parsed, kv.key, kv.value);
    } catch (error) {
      this.#onProblem(problemOf(kv.key, error));
      if (parsed.kind !== 'pg/history') return null;
      // An older history would be believed to be the present one: better none.
      this.#clear(parsed);
    }
    return { key: kv.key, parsed, deleted: false };
  }

  /** Replaces everything by `pairs` of a full load at `revision`; keys of ours that are not among them are deleted. */
  replaceAll(pairs: readonly KeyValue[], revision: bigint): StateChange[] {
    const changes: StateChange[] = [];
    const present = new Set<string>();
    for (const kv of pairs) if (kv.value !== '') present.add(kv.key);
    for (const key of [...this.#entries.keys()]) if (!present.has(key)) changes.push(...this.#vanish(key, revision));
    for (const kv of pairs) {
      const change = this.apply(kv);
      if (change) changes.push(change);
    }
    this.revision = revision;
    return changes;
  }

  #vanish(key: string, revision: bigint): StateChange[] {
    const change = this.apply({
      key,
      value: '',
      createRevision: 0n,
      modRevision: revision + 1n,
      version: 0n,
      lease: 0n,
    });
    return change ? [change] : [];
  }

  #set(parsed: ParsedKey, key: string, text: string): void {
    switch (parsed.kind) {
      case 'config/global':
        this.global = decodeText(decodeGlobalConfig, text);
        this.#applyLayout();
        break;
      case 'config/pools':
        this.#applyPools(text, true);
        break;
      case 'config/node_placement': {
        const { nodes, problems } = decodeNodePlacement(key, text);
        this.nodePlacement = nodes;
        problems.forEach(this.#onProblem);
        break;
      }
      case 'pg/config':
      case 'config/pgs':
        this.#applyPgConfig(parsed.kind, key, text);
        break;
      case 'history/last_clean_pgs': {
        const { items, problems } = decodeLastCleanPgs(key, text);
        this.lastCleanPgs = items;
        problems.forEach(this.#onProblem);
        break;
      }
      case 'mon/master':
        this.monMaster = decodeText(decodeMonMember, text);
        break;
      case 'mon/member':
        this.monMembers.set(parsed.id, decodeText(decodeMonMember, text));
        break;
      case 'stats':
        this.stats = decodeText(decodeClusterStats, text);
        break;
      case 'config/osd':
        this.osdConfig.set(parsed.osd, decodeText(decodeOsdConfig, text));
        break;
      case 'osd/state':
        this.osdStates.set(parsed.osd, decodeText(decodeOsdState, text));
        break;
      case 'osd/stats':
        this.osdStats.set(parsed.osd, decodeText(decodeOsdStats, text));
        break;
      case 'osd/space':
        this.osdSpace.set(parsed.osd, decodeText(decodeOsdSpace, text));
        break;
      case 'osd/inodestats':
        this.osdInodeStats.set(parsed.osd, decodeText(decodeOsdInodeStats, text));
        break;
      case 'config/inode':
        this.#setInode(decodeText(decodeInodeConfig(parsed.pool, parsed.inode), text));
        break;
      case 'inode/stats':
        this.inodeStats.set(fullInode(parsed.pool, parsed.inode), decodeText(decodeInodeStats, text));
        break;
      case 'index/image':
        this.imageIndex.set(parsed.name, decodeText(decodeImageIndex, text));
        break;
      case 'index/maxid':
        this.maxIds.set(parsed.pool, decodeText(decodeMaxId, text));
        break;
      case 'pool/stats':
        this.poolStats.set(parsed.pool, decodeText(decodePoolStats, text));
        break;
      case 'pg/state':
        this.pgStates.set(parsed.pool, parsed.pg, decodeText(decodePgState, text));
        break;
      case 'pg/history':
        this.pgHistory.set(parsed.pool, parsed.pg, decodeText(decodePgHistory, text));
        break;
      case 'pgstats':
        this.pgStats.set(parsed.pool, parsed.pg, decodeText(decodePgStats, text));
        break;
      case 'pg/stats': {
        const stats = decodeText(decodePgStats, text);
        if (!this.#entries.has(this.keys.pgStats(parsed.pool, parsed.pg)))
          this.pgStats.set(parsed.pool, parsed.pg, stats);
        break;
      }
    }
  }

  #clear(parsed: ParsedKey): void {
    switch (parsed.kind) {
      case 'config/global':
        this.global = {};
        this.#applyLayout();
        break;
      case 'config/pools':
        this.pools = new Map();
        this.invalidPools = new Set();
        break;
      case 'config/node_placement': this.nodePlacement = new Map(); break;
      case 'pg/config': this.#applyPgConfigFallback(); break;
      case 'config/pgs': if (!this.#entries.has(this.keys.pgConfig)) this.pgConfig = null; break;
      case 'history/last_clean_pgs': this.lastCleanPgs = null; break;
      case 'mon/master': this.monMaster = null; break;
      case 'mon/member': this.monMembers.delete(parsed.id); break;
      case 'stats': this.stats = null; break;
      case 'config/osd': this.osdConfig.delete(parsed.osd); break;
      case 'osd/state': this.osdStates.delete(parsed.osd); break;
      case 'osd/stats': this.osdStats.delete(parsed.osd); break;
      case 'osd/space': this.osdSpace.delete(parsed.osd); break;
      case 'osd/inodestats': this.osdInodeStats.delete(parsed.osd); break;
      case 'config/inode': this.#deleteInode(fullInode(parsed.pool, parsed.inode)); break;
      case 'inode/stats': this.inodeStats.delete(fullInode(parsed.pool, parsed.inode)); break;
      case 'index/image': this.imageIndex.delete(parsed.name); break;
      case 'index/maxid': this.maxIds.delete(parsed.pool); break;
      case 'pool/stats': this.poolStats.delete(parsed.pool); break;
      case 'pg/state': this.pgStates.delete(parsed.pool, parsed.pg); break;
      case 'pg/history': this.pgHistory.delete(parsed.pool, parsed.pg); break;
      case 'pgstats': case 'pg/stats': this.#applyPgStatsFallback(parsed.pool, parsed.pg); break;
    }
  }

  /** A new global layout changes what pools inherit. */
  #applyLayout(): void {
    this.layout = globalBlockLayout(this.global);
    const text = this.#entries.get(this.keys.configPools)?.value;
    if (text === undefined) return;
    try {
      this.#applyPools(text, false);
    } catch (error) {
      problemOf(this.keys.configPools, error); // Reported when the key came; anything but a bad value is thrown on.
    }
  }

  #applyPools(text: string, report: boolean): void {
    const { pools, problems } = decodePools(this.keys.configPools, text, this.layout);
    this.pools = pools;
    const named = Object.entries(decodeRawPools(text)).filter(([, value]) => value !== null).map(([id]) => Number(id));
    this.invalidPools = new Set(named.filter((id) => id > 0 && !pools.has(id)));
    if (report) problems.forEach(this.#onProblem);
  }

  #applyPgConfig(kind: 'pg/config' | 'config/pgs', key: string, text: string): void {
    const { config, problems } = decodePgConfig(key, text);
    if (kind === 'config/pgs' && this.#entries.has(this.keys.pgConfig)) return;
    this.pgConfig = config;
    problems.forEach(this.#onProblem);
  }

  #applyPgConfigFallback(): void {
    this.pgConfig = null;
    const old = this.#entries.get(this.keys.oldPgConfig);
    if (old) this.#applyPgConfig('config/pgs', old.key, old.value);
  }

  #applyPgStatsFallback(pool: number, pg: number): void {
    this.pgStats.delete(pool, pg);
    const entry = this.#entries.get(this.keys.pgStats(pool, pg)) ?? this.#entries.get(this.keys.oldPgStats(pool, pg));
    if (!entry) return;
    try {
      this.pgStats.set(pool, pg, decodeText(decodePgStats, entry.value));
    } catch (error) {
      problemOf(entry.key, error); // Reported when the key came.
    }
  }

  #setInode(config: InodeConfig): void {
    const id = fullInode(config.pool, config.inode);
    this.#deleteInode(id);
    this.inodes.set(id, config);
    if (config.name === '') return;
    const ids = this.#names.get(config.name) ?? new Set<bigint>();
    this.#names.set(config.name, ids.add(id));
  }

  #deleteInode(id: bigint): void {
    const name = this.inodes.get(id)?.name;
    this.inodes.delete(id);
    if (name === undefined) return;
    const ids = this.#names.get(name);
    if (ids?.delete(id) && ids.size === 0) this.#names.delete(name);
  }
}
