// SPDX-License-Identifier: GPL-2.0-or-later
// A whole cluster on virtual hardware: etcd in memory, monitors and OSD control (the real TypeScript), engines and a client (the real C++).

import { Config, KeySpace, stringifyJson, type Etcd, type JsonObject, type Watch } from '@vitastor/core';
import { MemoryEtcd, type MemoryEtcdClient } from '@vitastor/core/testing';
import { Monitor, type Solver } from '@vitastor/mon';
import { OsdControl, osdOptions, scrubPlanOf, type CreateEngine } from '@vitastor/osd';
import { ProcessClock, SimClock } from './driver.js';
import type { NativeModule, NativePair, SimClient, SimEngine, SimWorld } from './native.js';

export interface Shape {
  osds: number;
  copies: number;
  pgCount: number;
  immediateCommit: 'all' | 'small' | 'none';
  /** A power cut loses or tears unflushed sectors. */
  volatileCache: boolean;
  osdBytes: bigint;
}

interface SimOsd {
  num: number;
  node: number;
  etcd: MemoryEtcdClient | null;
  engine: SimEngine | null;
  control: OsdControl | null;
  clock: ProcessClock | null;
  /** Set while the process lives. */
  running: boolean;
}

const IMAGE_BYTES = 64 * 131072;

export class SimCluster {
  readonly world: SimWorld;
  readonly clock: SimClock;
  readonly etcd: MemoryEtcd;
  readonly keys = new KeySpace();
  readonly shape: Shape;
  readonly osds = new Map<number, SimOsd>();
  /** What went wrong in a way that no fault explains. */
  readonly failures: string[] = [];
  client: SimClient | null = null;
  readonly clientNode: number;
  readonly #solver: Solver;
  readonly #trace: (line: string) => void;
  #monitor: Monitor | null = null;
  #monitorEtcd: MemoryEtcdClient | null = null;
  #monitorClock: ProcessClock | null = null;
  #clientEtcd: MemoryEtcdClient | null = null;
  #clientWatch: Watch | null = null;

  constructor(native: NativeModule, solver: Solver, seed: bigint, shape: Shape, trace: (line: string) => void) {
    this.#solver = solver;
    this.#trace = trace;
    this.shape = shape;
    this.world = native.createWorld(seed);
    this.clock = new SimClock(this.world);
    this.etcd = new MemoryEtcd(this.clock);
    this.clientNode = this.world.addNode('client', '10.0.0.100');
    for (let num = 1; num <= shape.osds; num++) {
      const node = this.world.addNode(`osd${num}`, `10.0.0.${num}`);
      this.world.addDisk(diskPath(num), { sizeBytes: shape.osdBytes, volatileCache: shape.volatileCache });
      this.osds.set(num, { num, node, etcd: null, engine: null, control: null, clock: null, running: false });
    }
  }

  note(text: string): void {
    this.world.note(text);
    this.#trace(`${this.clock.nowMs().toFixed(3).padStart(10)} ms  ${text}`);
  }

  /** Pool and image in etcd, monitor, OSDs, client. They come up as virtual time passes. */
  start(): void {
    const { keys, shape } = this;
    this.etcd.put(keys.configGlobal, stringifyJson({ immediate_commit: shape.immediateCommit }));
    this.etcd.put(keys.configPools, stringifyJson({
      1: { name: 'sim', scheme: 'replicated', pg_size: shape.copies, pg_minsize: 1, pg_count: shape.pgCount, failure_domain: 'host' },
    }));
    this.etcd.put(keys.configInode(1, 1n), stringifyJson({ name: 'image', size: IMAGE_BYTES }));
    this.startMonitor();
    for (const num of this.osds.keys()) this.startOsd(num);
    this.#startClient();
  }

  get imageBytes(): number {
    return IMAGE_BYTES;
  }

  startMonitor(): void {
    this.#monitorEtcd = this.etcd.client();
    this.#monitorClock = new ProcessClock(this.clock);
    this.#monitor = new Monitor({
      etcd: this.#monitorEtcd, clock: this.#monitorClock, solver: this.#solver, keys: this.keys, hostname: 'mon', ips: ['10.0.0.200'],
      config: new Config({ commandLine: { mon_change_timeout: '100' } }),
      log: { info: (text) => this.#log('mon', text), warn: (text) => this.#log('mon', text), error: (text) => this.#log('mon', text) },
    });
    this.#monitor.start();
  }

  /** As kill -9 would end it. */
  killMonitor(): void {
    this.#monitorClock?.kill();
    this.#monitorEtcd?.close();
    this.#monitor = null;
  }

  startOsd(num: number): void {
    const osd = this.#osd(num);
    if (osd.running) return;
    this.world.restart(osd.node);
    osd.running = true;
    osd.etcd = this.etcd.client();
    const clock = new ProcessClock(this.clock);
    osd.clock = clock;
    const createEngine: CreateEngine = (onEvents) => {
      const engine = this.world.createEngine(osd.node, (events) => {
        if (osd.engine !== engine) return;
        for (const event of events) if ('pg' in event) this.#log(`osd${num}`, `event ${shown(event)}`);
        onEvents(events);
      });
      osd.engine = engine;
      return {
        bootTimeNs: () => engine.bootTimeNs(),
        post: (command) => {
          if ('pg' in command) this.#log(`osd${num}`, `command ${shown(command)}`);
          engine.post(command);
        },
      };
    };
    const { shape } = this;
    const commandLine = {
      osd_num: String(num), data_device: diskPath(num), bind_address: `10.0.0.${num}`, bind_port: '7000', hostname: `host${num}`,
      immediate_commit: shape.immediateCommit, disable_data_fsync: shape.volatileCache ? '0' : '1', etcd_stats_interval: '5',
    };
    const config = new Config({ commandLine });
    const control = new OsdControl({
      etcd: osd.etcd, clock, keys: this.keys, createEngine,
      options: osdOptions(config, { hostname: `host${num}`, localAddresses: [] }),
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
    });
  }

  /** As kill -9 (or, with powerLoss, a power cut) would end it. */
  killOsd(num: number, powerLoss: boolean): void {
    const osd = this.#osd(num);
    if (!osd.running) return;
    osd.running = false;
    osd.control = null;
    osd.clock?.kill();
    osd.etcd?.close();
    this.world.crash(osd.node, powerLoss);
    osd.engine?.destroy();
    osd.engine = null;
  }

  isRunning(num: number): boolean {
    return this.#osd(num).running;
  }

  /** Cuts or heals both directions between an OSD and another node (0 = the client). */
  link(a: number, b: number, state: 'cut' | 'heal', oneWay = false): void {
    const from = a === 0 ? this.clientNode : this.#osd(a).node;
    const to = b === 0 ? this.clientNode : this.#osd(b).node;
    this.world[state](from, to);
    if (!oneWay) this.world[state](to, from);
  }

  /** Takes etcd away from an OSD, or gives it back. */
  etcdOf(num: number, connected: boolean): void {
    const client = this.#osd(num).etcd;
    if (client) client.connected = connected;
  }

  /** Every PG has a state key, and all are active. */
  get allActive(): boolean {
    const states = this.etcd.pairs().filter((kv) => kv.key.startsWith(this.keys.at('pg/state/')));
    return states.length === this.shape.pgCount && states.every((kv) => kv.value.includes('"active"'));
  }

  /** What each OSD's control waits for. */
  describe(): string[] {
    return [...this.osds.values()].flatMap((osd) => (osd.control?.describePgs() ?? ['is dead']).map((line) => `osd${osd.num}: ${line}`));
  }

  pgStates(): string {
    return this.etcd.pairs().filter((kv) => kv.key.startsWith(this.keys.at('pg/state/'))).map((kv) => kv.value).join(' ');
  }

  destroy(): void {
    for (const num of this.osds.keys()) this.killOsd(num, false);
    this.killMonitor();
    this.#clientWatch?.close();
    this.#clientEtcd?.close();
    this.client?.destroy();
    this.etcd.stop();
    this.world.destroy();
  }

  #startClient(): void {
    this.client = this.world.createClient(this.clientNode, { etcd_address: 'simulated' });
    this.#clientEtcd = this.etcd.client();
    this.#feedClient(this.#clientEtcd);
  }

  #feedClient(etcd: Etcd): void {
    const { client, keys } = this;
    if (!client) return;
    const prefixes = ['config/', 'osd/state/', 'pg/'].map((path) => ({ prefix: keys.at(path) }));
    const pairs = this.etcd.pairs().filter((kv) => prefixes.some(({ prefix }) => kv.key.startsWith(prefix)));
    client.load(pairs.map(({ key, value, modRevision }): NativePair => ({ key, value, modRevision })), this.etcd.revision);
    this.#clientWatch = etcd.watch(prefixes, this.etcd.revision + 1n, {
      onEvents: (events, revision) => client.apply(events.map(({ key, value, modRevision }) => ({ key, value, modRevision })), revision),
      onEnd: () => this.clock.after(1, () => this.#feedClient(etcd)),
    });
  }

  #log(who: string, text: string): void {
    this.#trace(`${this.clock.nowMs().toFixed(3).padStart(10)} ms  ${who}: ${text}`);
  }

  #osd(num: number): SimOsd {
    const osd = this.osds.get(num);
    if (!osd) throw new Error(`there is no OSD ${num}`);
    return osd;
  }
}

function shown(value: object): string {
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? Number(item) : item));
}

function diskPath(num: number): string {
  return `/sim/osd${num}`;
}
