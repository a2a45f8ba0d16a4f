// SPDX-License-Identifier: GPL-2.0-or-later
// What the monitor's tests share: pools, trees, a cluster in memory whose OSDs do as they are told.

import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import {
  Config,
  decodePgConfig,
  decodePool,
  decodeText,
  DEFAULT_BLOCK_LAYOUT,
  isJsonObject,
  KeySpace,
  parseJson,
  stringifyJson,
  type JsonObject,
  type JsonValue,
  type KeyValue,
  type PgConfig,
  type PoolConfig,
} from '@vitastor/core';
import { MemoryEtcd, VirtualClock, type MemoryEtcdClient } from '@vitastor/core/testing';
import {
  buildTree,
  HighsSolver,
  Monitor,
  withDefaultLevels,
  type ChainedOsd,
  type Levels,
  type Log,
  type TreeOsd,
} from '../src/index.js';

/** One for all tests: loading the module takes longer than any program here. */
export const solver = await HighsSolver.load();
export const defaultLevels: Levels = withDefaultLevels(new Map());
export const GIB = 2 ** 30;

export function pool(fields: JsonObject = {}): PoolConfig {
  const id = Number(fields['id'] ?? 1);
  return decodePool(
    id,
    { name: 'p', scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 8, ...fields },
    DEFAULT_BLOCK_LAYOUT,
    String(id),
  );
}

export function osd(num: number, fields: Partial<TreeOsd> = {}): TreeOsd {
  return {
    num,
    weight: 1,
    tags: [],
    host: `host${num}`,
    blockSizeBytes: 131072,
    bitmapGranularityBytes: 4096,
    immediateCommit: 'all',
    ...fields,
  };
}

export function treeOf(
  osds: readonly TreeOsd[],
  nodes: Record<string, { level: string; parent: string }> = {},
  levels = defaultLevels,
): ChainedOsd[] {
  return buildTree(osds, new Map(Object.entries(nodes)), levels);
}

/** A small generator for property tests: the seed in a failure's message repeats it. */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A whole number in [0, below). */
  below(below: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    let x = this.#state;
    x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
    x = Math.imul(x ^ (x >>> 12), 0x297a2d39);
    return ((x ^ (x >>> 15)) >>> 0) % below;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new Error('nothing to pick from');
    return item;
  }
}

export function countOsds(sets: readonly (readonly number[])[]): Map<number, number> {
  const result = new Map<number, number>();
  for (const set of sets)
    for (const num of set) if (num !== 0) result.set(num, (result.get(num) ?? 0) + 1);
  return result;
}

/** Members of `now` that were not in the set of the same number before. */
export function movedSlots(
  before: readonly (readonly number[])[],
  now: readonly (readonly number[])[],
): number {
  return now.reduce(
    (sum, set, i) => sum + set.filter((num) => num !== 0 && !before[i]?.includes(num)).length,
    0,
  );
}

export interface LogLine {
  level: 'info' | 'warn' | 'error';
  text: string;
}

export class LogList implements Log {
  readonly lines: LogLine[] = [];
  info(text: string): void {
    this.lines.push({ level: 'info', text });
  }
  warn(text: string): void {
    this.lines.push({ level: 'warn', text });
  }
  error(text: string): void {
    this.lines.push({ level: 'error', text });
  }
  has(pattern: RegExp): boolean {
    return this.lines.some(({ text }) => pattern.test(text));
  }
}

export interface Member {
  monitor: Monitor;
  etcd: MemoryEtcdClient;
  log: LogList;
}

/** etcd, a clock that stands still, monitors, and OSD records. stop() ends all. */
export class TestCluster {
  readonly clock = new VirtualClock();
  readonly server = new MemoryEtcd(this.clock);
  readonly keys = new KeySpace();
  readonly members: Member[] = [];
  readonly osdLeases = new Map<number, bigint>();

  put(path: string, value: JsonValue): void {
    this.server.put(this.keys.at(path), stringifyJson(value));
  }

  text(path: string): string | undefined {
    return this.server.get(this.keys.at(path));
  }

  json(path: string): JsonValue | undefined {
    const text = this.text(path);
    return text === undefined ? undefined : parseJson(text);
  }

  revisionOf(path: string): bigint {
    return this.server.pairs().find(({ key }) => key === this.keys.at(path))?.modRevision ?? 0n;
  }

  get pgConfig(): PgConfig {
    return decodePgConfig(this.keys.pgConfig, this.text('pg/config') ?? '{}').config;
  }

  sets(pool: number): number[][] {
    return (this.pgConfig.items.get(pool) ?? []).map((item) => item.osdSet);
  }

  primaries(pool: number): number[] {
    return (this.pgConfig.items.get(pool) ?? []).map((item) => item.primary);
  }

  addMonitor(options: JsonObject = {}): Member {
    const etcd = this.server.client();
    const log = new LogList();
    const monitor = new Monitor({
      etcd,
      clock: this.clock,
      solver,
      log,
      keys: this.keys,
      hostname: `mon${this.members.length + 1}`,
      ips: ['192.0.2.1'],
      config: new Config({ commandLine: options }),
    });
    const member = { monitor, etcd, log };
    this.members.push(member);
    monitor.start();
    return member;
  }

  get masters(): Member[] {
    return this.members.filter(({ monitor }) => monitor.role === 'master');
  }

  /** The OSD reports itself and holds its state under a lease without end. */
  osdUp(num: number, stats: JsonObject = {}, state: JsonObject = {}): void {
    const host = `host${num}`;
    this.osdReport(num, stats);
    const lease = this.server.grant(1e9);
    this.osdLeases.set(num, lease);
    const value = stringifyJson({
      state: 'up',
      addresses: ['192.0.2.9'],
      port: 6000 + num,
      host,
      primary_enabled: true,
      blockstore_enabled: true,
      ...state,
    });
    this.server.apply({
      compare: [],
      success: [{ op: 'put', key: this.keys.osdState(num), value, lease }],
    });
  }

  osdReport(num: number, stats: JsonObject = {}): void {
    this.put(`osd/stats/${num}`, {
      time: (this.clock.wallMs() / 1000).toFixed(3),
      size: 4 * GIB,
      free: 4 * GIB,
      host: `host${num}`,
      data_block_size: 131072,
      bitmap_granularity: 4096,
      immediate_commit: 'all',
      ...stats,
    });
  }

  /** Its lease ends: osd/state and the PG states it held go at once. */
  osdDown(num: number): void {
    const lease = this.osdLeases.get(num);
    if (lease !== undefined) this.server.revoke(lease);
    this.osdLeases.delete(num);
  }

  /** OSDs do what pg/config says: take and give up PGs; exactly active where all members are up. */
  obey(pools: readonly number[]): void {
    for (const id of pools) {
      const items = this.pgConfig.items.get(id) ?? [];
      for (const { key } of this.server
        .pairs()
        .filter(({ key: k }) => k.startsWith(this.keys.at(`pg/state/${id}/`))))
        this.server.delete(key);
      items.forEach((item, i) => {
        const lease = this.osdLeases.get(item.primary);
        if (item.pause || lease === undefined) return;
        const peers = item.osdSet.filter((num) => this.osdLeases.has(num));
        const state = peers.length === item.osdSet.length ? ['active'] : ['active', 'degraded'];
        const value = stringifyJson({ primary: item.primary, state, peers });
        this.server.apply({
          compare: [],
          success: [{ op: 'put', key: this.keys.pgState(id, i + 1), value, lease }],
        });
      });
    }
  }

  async stop(): Promise<void> {
    const stopping = this.members.map(({ monitor }) => monitor.stop());
    await this.clock.advance(60_000);
    await Promise.all(stopping);
    for (const { etcd } of this.members) etcd.close();
    this.server.stop();
  }
}

/** From mon/dist/test to the folder beside the repository. */
const recordings = fileURLToPath(
  new URL('../../../../shared/fixtures/vitastor-3.0.8/', import.meta.url),
);
export const RECORDINGS_MISSING: string | false = existsSync(recordings)
  ? false
  : 'left out: the recordings ../shared/fixtures/vitastor-3.0.8 are not here';

/** The pairs of a recorded dump, values as text. */
export function recordedPairs(name: string): KeyValue[] {
  return readFileSync(`${recordings}${name}`, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const entry = decodeText((value) => {
        if (!isJsonObject(value)) throw new Error(`${name}: not an object`);
        return value;
      }, line);
      const modRevision = BigInt(Number(entry['mod_revision']));
      return {
        key: String(entry['key']),
        value: stringifyJson(entry['value'] ?? null),
        createRevision: modRevision,
        modRevision,
        version: 1n,
        lease: entry['lease'] === true ? 1n : 0n,
      };
    });
}
