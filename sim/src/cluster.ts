// SPDX-License-Identifier: GPL-2.0-or-later
// A whole cluster on virtual hardware: etcd in memory, monitors and OSD control (the real TypeScript), engines and clients (the real C++).

import { Config, KeySpace, stringifyJson, type JsonObject } from '@vitastor/core';
import { MemoryEtcd, type MemoryEtcdClient } from '@vitastor/core/testing';
import { Monitor, type Solver } from '@vitastor/mon';
import { OsdControl, osdOptions, scrubPlanOf, type CreateEngine, type EngineApi } from '@vitastor/osd';
import { ClientProcess } from './client.js';
import { SimClock } from './driver.js';
import type { NativeModule, SimEngine, SimWorld } from './native.js';
import { Gate, ProcessClock, ProcessEtcd } from './process.js';
import type { Shape } from './shape.js';

export const POOL = 1;
const PARENT_POOL = 2;
/** OSDs to be added while the cluster runs have numbers up to this. */
export const OSD_MAX = 8;

type EngineCommand = Parameters<EngineApi['post']>[0];

const CLEAN = /"state":\["active"(,"scrubbing")?\]/;

interface SimOsd {
  num: number;
  node: number;
  etcd: MemoryEtcdClient | null;
  engine: SimEngine | null;
  control: OsdControl | null;
  gate: Gate | null;
  clock: ProcessClock | null;
  /** Set while the process lives. */
  running: boolean;
  /** How many it has had so far. */
  disks: number;
  deaths: number;
}

/** What etcd says of all PGs at some revision. */
interface Summary {
  revision: bigint;
  active: boolean;
  clean: boolean;
  settled: boolean;
  scrubbed: boolean;
}

interface SimMonitor {
  etcd: MemoryEtcdClient;
  gate: Gate;
  clock: ProcessClock;
}

/** A fault that is built in on purpose, to see that the simulator notices: sim/src/planted.ts. */
export interface Planted {
  /** The engine as control sees it. */
  wrapEngine?: (create: CreateEngine) => CreateEngine;
  /** Number for SimWorld.plant(). */
  native?: number;
  shape?: (shape: Shape) => Shape;
  /** Milliseconds between two faults, at least and at most. */
  pauseMs?: readonly [number, number];
  /** Further options of each OSD. */
  options?: Record<string, string>;
}

export interface ClusterOptions {
  native: NativeModule;
  solver: Solver;
  seed: bigint;
  shape: Shape;
  /** Null: nobody wants to read it. */
  trace: ((line: string) => void) | null;
  planted?: Planted;
}

export class SimCluster {
  readonly world: SimWorld;
  readonly clock: SimClock;
  readonly etcd: MemoryEtcd;
  readonly keys = new KeySpace();
  readonly shape: Shape;
  readonly osds = new Map<number, SimOsd>();
  readonly clients: ClientProcess[] = [];
  /** What went wrong in a way that no fault explains. */
  readonly failures: string[] = [];
  /** An OSD that ends in order is started again. */
  keepsRunning = false;
  readonly #options: ClusterOptions;
  readonly #monitors = new Map<number, SimMonitor>();

  constructor(options: ClusterOptions) {
    const { shape } = options;
    this.#options = options;
    this.shape = shape;
    this.world = options.native.createWorld(options.seed);
    if (options.planted?.native !== undefined) this.world.plant(options.planted.native);
    this.clock = new SimClock(this.world);
    this.etcd = new MemoryEtcd(this.clock);
    this.world.setNetwork(shape.network);
    for (let num = 1; num <= shape.osds; num++) this.#addOsd(num);
    for (let num = 1; num <= shape.clients; num++) {
      this.clients.push(
        new ClientProcess(num, {
          world: this.world, clock: this.clock, etcd: this.etcd, keys: this.keys, etcdDelayMs: shape.etcdDelayMs,
          options: { hostname: 'host1', ...shape.clientOptions },
        }),
      );
    }
  }

  note(text: string): void {
    this.world.note(text);
    this.#log('sim', text);
  }

  /** For people only: no part of the hash. `text` is asked only if somebody reads it. */
  trace(text: () => string): void {
    if (this.#options.trace) this.#log('sim', text());
  }

  imageName(image: number): string {
    return `image${image}`;
  }

  /** Pool and images in etcd, monitors, OSDs, clients. They come up as virtual time passes. */
  start(): void {
    const { keys, shape } = this;
    this.etcd.put(keys.configGlobal, stringifyJson({
      immediate_commit: shape.immediateCommit, block_size: shape.blockSize,
      ...(shape.pgLocks ? { enable_pg_locks: true } : {}),
      ...(shape.autosyncInterval === null ? {} : { autosync_interval: shape.autosyncInterval }),
      ...(shape.autosyncWrites === null ? {} : { autosync_writes: shape.autosyncWrites }),
      recovery_queue_depth: shape.recoveryQueueDepth,
      ...(shape.autoScrubS === null ? {} : { auto_scrub: true, scrub_interval: shape.autoScrubS, scrub_find_best: shape.scrubFindsBest }),
      ...(shape.tombstoneInterval === null ? {} : { tombstone_interval: shape.tombstoneInterval }),
    }));
    const plain = { failure_domain: 'osd', scheme: 'replicated', pg_size: Math.min(2, shape.osds), pg_minsize: 1, pg_count: 2 };
    this.etcd.put(keys.configPools, stringifyJson({
      [POOL]: {
        name: 'sim', scheme: shape.scheme, pg_size: shape.pgSize, pg_minsize: shape.pgMinSize, pg_count: shape.pgCount,
        failure_domain: shape.failureDomain, local_reads: shape.localReads,
        ...(shape.scheme === 'replicated' ? {} : { parity_chunks: shape.parityChunks }),
      },
      ...(shape.hasParent ? { [PARENT_POOL]: { name: 'parents', ...plain } } : {}),
    }));
    const parent = shape.hasParent ? { parent_pool: PARENT_POOL, parent_id: 1 } : {};
    if (shape.hasParent) this.etcd.put(keys.configInode(PARENT_POOL, 1n), stringifyJson({ name: 'parent', size: shape.imageBytes, readonly: true }));
    for (let image = 1; image <= shape.images; image++) {
      const fields = { name: this.imageName(image), size: shape.imageBytes, ...(image === 1 ? parent : {}) };
      this.etcd.put(keys.configInode(POOL, BigInt(image)), stringifyJson(fields));
    }
    for (let num = 1; num <= shape.monitors; num++) this.startMonitor(num);
    for (const num of this.osds.keys()) this.startOsd(num);
    for (const client of this.clients) client.start();
  }

  /** Edits the pool as an administrator would. */
  changePool(fields: JsonObject): void {
    const pools = JSON.parse(this.etcd.get(this.keys.configPools) ?? '{}') as Record<string, JsonObject>;
    this.etcd.put(this.keys.configPools, stringifyJson({ ...pools, [POOL]: { ...pools[POOL], ...fields } }));
  }

  changeGlobal(fields: JsonObject): void {
    const global = JSON.parse(this.etcd.get(this.keys.configGlobal) ?? '{}') as JsonObject;
    this.etcd.put(this.keys.configGlobal, stringifyJson({ ...global, ...fields }));
  }

  configureOsd(num: number, fields: JsonObject): void {
    this.etcd.put(this.keys.at(`config/osd/${num}`), stringifyJson(fields));
  }

  startMonitor(num: number): void {
    if (this.#monitors.has(num)) return;
    const gate = new Gate();
    const etcd = this.etcd.client();
    etcd.delayMs = this.shape.etcdDelayMs;
    const clock = new ProcessClock(this.clock, gate);
    this.#monitors.set(num, { etcd, gate, clock });
    const log = (text: string): void => this.#log(`mon${num}`, text);
    new Monitor({
      etcd: new ProcessEtcd(etcd, gate), clock, solver: this.#options.solver, keys: this.keys, hostname: `mon${num}`, ips: [`10.0.0.${200 + num}`],
      config: new Config({ commandLine: { mon_change_timeout: '100' } }),
      log: { info: log, warn: log, error: log },
    }).start();
  }

  /** As kill -9 would end it. */
  killMonitor(num: number): void {
    const monitor = this.#monitors.get(num);
    this.#monitors.delete(num);
    monitor?.gate.kill();
    monitor?.etcd.close();
  }

  /** A new disk in a new OSD. */
  addOsd(): number {
    const num = this.osds.size + 1;
    this.#addOsd(num);
    this.startOsd(num);
    return num;
  }

  startOsd(num: number): void {
    const osd = this.osd(num);
    if (osd.running) return;
    this.world.restart(osd.node);
    osd.running = true;
    const gate = new Gate();
    osd.gate = gate;
    osd.etcd = this.etcd.client();
    osd.etcd.delayMs = this.shape.etcdDelayMs;
    const clock = new ProcessClock(this.clock, gate);
    osd.clock = clock;
    const create = this.#createEngine(osd, gate);
    const commandLine = this.#osdCommandLine(num);
    const config = new Config({ commandLine });
    const control = new OsdControl({
      etcd: new ProcessEtcd(osd.etcd, gate), clock, keys: this.keys,
      createEngine: this.#options.planted?.wrapEngine?.(create) ?? create,
      options: osdOptions(config, { hostname: this.hostOf(num), localAddresses: [] }),
      publishedAddresses: (bound) => [...bound],
      settingsFor: (global: JsonObject) => config.withEtcd(global).asText(),
      scrubPlanFor: (global: JsonObject) => scrubPlanOf(config.withEtcd(global)),
      log: (level, text) => this.#log(`osd${num}`, `${level} ${text}`),
    });
    osd.control = control;
    void control.run().then((end) => {
      if (osd.control !== control) return;
      this.note(`osd${num} ends by itself with ${end.exitCode}: ${end.reason}`);
      if (end.exitCode !== 0) this.failures.push(`osd${num} ended by itself: ${end.reason}`);
      this.killOsd(num, false);
      // As a service manager would: "already up" is said of the lease of a former instance that etcd has renewed when it restarted.
      const { deaths } = osd;
      const restart = (): void => {
        if (osd.deaths === deaths) this.startOsd(num); // nobody has killed it again
      };
      if (this.keepsRunning || end.reason === 'already up') this.clock.after(1000, restart);
    });
  }

  /** As kill -9 (or, with powerLoss, a power cut) would end it. */
  killOsd(num: number, powerLoss: boolean): void {
    const osd = this.osd(num);
    osd.deaths++;
    if (!osd.running) return;
    osd.running = false;
    osd.control = null;
    osd.gate?.kill();
    osd.gate = null;
    osd.etcd?.close();
    this.world.crash(osd.node, powerLoss);
    osd.engine?.destroy();
    osd.engine = null;
  }

  /** Orderly, as SIGTERM ends it. */
  stopOsd(num: number): void {
    void this.osd(num).control?.stop();
  }

  /** Control stands still; the engine goes on. */
  stallOsd(num: number, isStalled: boolean): void {
    const { gate } = this.osd(num);
    if (isStalled) gate?.stall();
    else gate?.resume();
  }

  isRunning(num: number): boolean {
    return this.osd(num).running;
  }

  /** No state key tells of it any more. */
  isGone(num: number): boolean {
    return this.etcd.get(this.keys.osdState(num)) === undefined;
  }

  nodeOf(num: number): number {
    return this.osd(num).node;
  }

  diskOf(num: number): string {
    const { disks } = this.osd(num);
    return `/sim/osd${num}${disks === 1 ? '' : `.${disks}`}`;
  }

  /** As an administrator with a bad disk would: an empty one takes its place, under the same number. */
  replaceDisk(num: number): void {
    this.killOsd(num, false);
    this.osd(num).disks++;
    this.world.addDisk(this.diskOf(num), this.shape.disk);
    this.startOsd(num);
  }

  hostOf(num: number): string {
    return `host${((num - 1) % this.shape.hosts) + 1}`;
  }

  /**
   * Cuts or heals one or both directions between two nodes. What was sent meanwhile arrives then, also on connections that their clients
   * have given up: seconds late (docs/adr/0048).
   */
  link(from: number, to: number, state: 'cut' | 'heal', isOneWay = false): void {
    this.world[state](from, to);
    if (!isOneWay) this.world[state](to, from);
  }

  healLinks(): void {
    const nodes = [...[...this.osds.values()].map((osd) => osd.node), ...this.clients.map((client) => client.node)];
    for (const a of nodes) for (const b of nodes) if (a !== b) this.link(a, b, 'heal', true);
  }

  /** Takes etcd away from an OSD, or gives it back. */
  etcdOf(num: number, isConnected: boolean): void {
    const client = this.osd(num).etcd;
    if (client) client.connected = isConnected;
  }

  /** Transactions of this OSD are answered at once, and its watches hear of everything later. */
  delayNewsOf(num: number, lagMs: number): void {
    const client = this.osd(num).etcd;
    if (client) client.watchLagMs = lagMs;
  }

  delayNewsOfMonitor(num: number, lagMs: number): void {
    const monitor = this.#monitors.get(num);
    if (monitor) monitor.etcd.watchLagMs = lagMs;
  }

  /** The next answers of etcd to this OSD are lost. */
  loseAnswers(num: number, count: number): void {
    this.osd(num).etcd?.failNext(...Array.from({ length: count }, () => 'reply-lost' as const));
  }

  /**
   * Etcd forgets the lease of this OSD before its time. Not while it lives and cannot hear of it: it may serve until the lease that it knows has ended,
   * so whoever revokes a lease knows that its process is dead (safety.md 3).
   */
  revokeLease(num: number): void {
    const osd = this.osd(num);
    if (osd.running && (osd.gate?.isStalled === true || osd.etcd?.connected === false || (osd.etcd?.watchLagMs ?? 0) > 0)) return;
    const kv = this.etcd.pairs().find((pair) => pair.key === this.keys.osdState(num));
    if (kv && kv.lease !== 0n) this.etcd.revoke(kv.lease);
  }

  jumpClock(num: number, ms: number): void {
    const osd = this.osd(num);
    this.world.jumpClock(osd.node, ms * 1000);
    if (osd.clock) osd.clock.wallJumpMs += ms;
  }

  /** All copies and chunks of all PGs are read and compared, and nothing is mended: isScrubbed, then allClean says whether they are equal. */
  scrubAll(): void {
    this.changeGlobal({ auto_scrub: false, scrub_find_best: false });
    for (const kv of this.#histories()) this.etcd.put(kv.key, stringifyJson({ ...(JSON.parse(kv.value) as JsonObject), next_scrub: 1 }));
  }

  /** Of some object there is no whole version among the newest ones. */
  get isIncomplete(): boolean {
    return this.pgStates().includes('"has_incomplete"');
  }

  /** A scrub has found copies that differ. */
  get isInconsistent(): boolean {
    const { revision } = this.etcd;
    if (this.#inconsistent.revision !== revision) {
      const pairs = this.etcd.pairs(this.keys.at('pg/state/'));
      this.#inconsistent = { revision, is: pairs.some((kv) => kv.value.includes('"has_inconsistent"')) };
    }
    return this.#inconsistent.is;
  }

  /** Asked after every event, in all phases. */
  #inconsistent = { revision: 0n, is: false };

  /** Every scrub that scrubAll() asked for has ended. */
  get isScrubbed(): boolean {
    return this.#summarise().scrubbed;
  }

  /** Of all PGs. */
  #histories(): { key: string; value: string }[] {
    return this.etcd.pairs(this.keys.at('pg/history/'));
  }

  /** What etcd says of the PGs at this revision: asked after every event, looked at once per change. */
  #summary: Summary | null = null;

  #summarise(): Summary {
    const { revision } = this.etcd;
    if (this.#summary?.revision === revision) return this.#summary;
    const config = JSON.parse(this.etcd.get(this.keys.at('pg/config')) ?? '{}') as { items?: Record<string, Record<string, unknown>> };
    const pgs = Object.entries(config.items ?? {}).flatMap(([pool, items]) => Object.keys(items).map((pg) => `pg/state/${pool}/${pg}`));
    const states = pgs.map((path) => this.etcd.get(this.keys.at(path)));
    const active = states.length > 0 && states.every((state) => state?.includes('"active"') === true);
    const clean = states.length === this.#pgCount && states.every((state) => CLEAN.test(state ?? ''));
    const histories = this.#histories().map((kv) => JSON.parse(kv.value) as { osd_sets?: unknown[]; next_scrub?: number });
    const settled = clean && histories.every((history) => (history.osd_sets ?? []).length === 0);
    const scrubbed = histories.every((history) => (history.next_scrub ?? 0) !== 1);
    return (this.#summary = { revision, active, clean, settled, scrubbed });
  }

  /** Every PG is active. */
  get allActive(): boolean {
    return this.#summarise().active;
  }

  /** Every PG is clean and says so in its history too, which may need one more write to etcd: any copy will do from now on. */
  get allSettled(): boolean {
    return this.#summarise().settled;
  }

  /** Every PG is active and nothing else (but perhaps being scrubbed), and there are as many as the pool wants. */
  get allClean(): boolean {
    return this.#summarise().clean;
  }

  /** Every OSD is registered, every PG is active, and none misses an OSD. */
  get allThere(): boolean {
    return [...this.osds.keys()].every((num) => !this.isGone(num)) && this.allActive && !this.pgStates().includes('left_on_dead');
  }

  /** As the pool has it now. */
  get pgSize(): number {
    return this.#pools[POOL]?.pg_size ?? this.shape.pgSize;
  }

  get #pools(): Record<string, { pg_count?: number; pg_size?: number }> {
    return JSON.parse(this.etcd.get(this.keys.configPools) ?? '{}') as Record<string, { pg_count?: number; pg_size?: number }>;
  }

  get #pgCount(): number {
    return Object.values(this.#pools).reduce((sum, pool) => sum + (pool.pg_count ?? 0), 0);
  }

  /** What each OSD's control waits for. */
  describe(): string[] {
    const room = this.etcd.pairs(this.keys.at('osd/space/')).map((kv) => `${kv.key} ${kv.value}`);
    return [...this.osds.values()].flatMap((osd) => (osd.control?.describePgs() ?? ['is dead']).map((line) => `osd${osd.num}: ${line}`)).concat(room);
  }

  pgStates(): string {
    return this.etcd.pairs(this.keys.at('pg/state/')).map((kv) => `${kv.key.split('/').slice(-2).join('/')} ${kv.value}`).join(' ');
  }

  destroy(): void {
    for (const num of this.osds.keys()) this.killOsd(num, false);
    for (const num of [...this.#monitors.keys()]) this.killMonitor(num);
    for (const client of this.clients) client.kill();
    this.etcd.stop();
    this.world.destroy();
  }

  osd(num: number): SimOsd {
    const osd = this.osds.get(num);
    if (!osd) throw new Error(`there is no OSD ${num}`);
    return osd;
  }

  #addOsd(num: number): void {
    const node = this.world.addNode(`osd${num}`, `10.0.0.${num}`, this.shape.driftPpm[num - 1] ?? 0);
    this.osds.set(num, { num, node, disks: 1, deaths: 0, etcd: null, engine: null, control: null, gate: null, clock: null, running: false });
    this.world.addDisk(this.diskOf(num), this.shape.disk);
  }

  #osdCommandLine(num: number): Record<string, string> {
    const { shape } = this;
    return {
      osd_num: String(num), data_device: this.diskOf(num), bind_address: `10.0.0.${num}`, bind_port: '7000', hostname: this.hostOf(num),
      immediate_commit: shape.immediateCommit, block_size: String(shape.blockSize), data_csum_type: shape.checksums ? 'crc32c' : 'none',
      disable_data_fsync: shape.disk.volatileCache ? '0' : '1', etcd_stats_interval: '10',
      // As an administrator of such a disk would: it tears at its logical blocks.
      ...(shape.disk.tornSectors ? { atomic_write_size: '512' } : {}),
      ...(this.osd(num).disks > 1 ? { allow_fresh_disk: '1' } : {}),
      ...shape.osdOptions,
      ...this.#options.planted?.options,
    };
  }

  #createEngine(osd: SimOsd, gate: Gate): CreateEngine {
    return (onEvents) => {
      const engine = this.world.createEngine(osd.node, (events) => {
        if (osd.engine !== engine) return;
        if (this.#options.trace) for (const event of events) if ('pg' in event) this.#log(`osd${osd.num}`, `event ${shown(event)}`);
        gate.run(() => onEvents(events));
      });
      osd.engine = engine;
      return {
        bootTimeNs: () => engine.bootTimeNs(),
        post: (command) => {
          if (this.#options.trace && 'pg' in command) this.#log(`osd${osd.num}`, `command ${shown(command)}`);
          engine.post(this.#withSmallCache(command));
        },
      };
    };
  }

  #withSmallCache(command: EngineCommand): EngineCommand {
    if (command.kind !== 'configure') return command;
    return { ...command, store: { ...command.store, checksumCacheSize: BigInt(this.shape.checksumCacheBytes) } };
  }

  #log(who: string, text: string): void {
    this.#options.trace?.(`${this.clock.nowMs().toFixed(3).padStart(10)} ms  ${who}: ${text}`);
  }
}

function shown(value: object): string {
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? Number(item) : item));
}
