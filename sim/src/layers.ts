// SPDX-License-Identifier: GPL-2.0-or-later
// An administrator's tools on images that are in use: snapshots and clones made and removed, images detached from their parents, made smaller and
// larger, by the code of vitastor-cli over the real merge and purge. Each command is a process of its own, which may be killed anywhere and is repeated. What
// images read does not change by any of it (the workload judges that); what a snapshot reads, or a clone of it, does not change at all.

import {
  ClusterState, createImage, createSnapshot, findLayer, flattenLayer, fullInode, inodeKeyOf, isVitastorError, LAYER_PATHS, modifyImage, nothingRemoved,
  removeLayers,
  VitastorError, type AdminContext, type ClusterView, type InodeConfig, type LayerWork,
} from '@vitastor/core';
import { ClientProcess } from './client.js';
import { POOL, type SimCluster } from './cluster.js';
import { GRANULE, granuleValue, type WriteToken } from './oracle.js';
import { Gate, ProcessClock, ProcessEtcd } from './process.js';
import type { SeededRandom } from './rng.js';
import { granulesOf, isBuffered, objectBytes } from './shape.js';
import type { Workload } from './workload.js';

const MAX_SNAPSHOTS = 4;
const MAX_CLONES = 2;
const RESIZE_PERCENT = 20;
/** Between two commands, virtual milliseconds. */
const PAUSE_MS = [200, 4000] as const;
const POLL_MS = 100;
/** How long a command may take while there are faults. */
const PATIENCE_MS = 20_000;
const LIMITS = { timeoutMs: 1000, attempts: 5 };
/** The commands' client has the number after the last that a cluster may have. */
const TOOL = 9;

/** Or a clone of one, which nobody writes to. */
interface Snapshot {
  name: string;
  /** Moments of the workload: it was made in between. */
  began: number;
  ended: number;
  /** Granules. */
  end: number;
  /** By granule, from the first time it was read on. */
  values: Map<number, number>;
  /** Nothing that was written to it is under way any more. */
  isSettled: boolean;
  /** Removing it has begun, perhaps without an end. */
  isDoomed: boolean;
  /** Those between two flattens stand on each other. */
  family: number;
}

interface Command {
  text: string;
  run: (tool: Tool) => Promise<void>;
}

export class LayerWorker {
  readonly #cluster: SimCluster;
  readonly #workload: Workload;
  readonly #random: SeededRandom;
  readonly #client: ClientProcess;
  /** By image, oldest first. */
  readonly #snapshots = new Map<number, Snapshot[]>();
  readonly #clones = new Map<number, Snapshot[]>();
  /** A command that did not end well, and has to be repeated. */
  #open: Command | null = null;
  #running: Tool | null = null;
  #active = false;
  #names = 0;
  #family = 0;
  /** The last command, for a report. */
  doing = 'nothing';
  readonly counts: Record<string, number> = {};

  constructor(cluster: SimCluster, workload: Workload, random: SeededRandom) {
    this.#cluster = cluster;
    this.#workload = workload;
    this.#random = random;
    const { world, clock, etcd, keys, shape } = cluster;
    // Of snapshots, which are read in order; the window takes at least one such read.
    const readahead = random.chance(50) ? { client_readahead_bytes: random.pick(['1048576', '4194304']) } : {};
    const options = { hostname: 'host1', client_wait_up_timeout: '5', ...readahead };
    this.#client = new ClientProcess(TOOL, { world, clock, etcd, keys, etcdDelayMs: shape.etcdDelayMs, options });
    for (let image = 1; image <= shape.images; image++) {
      this.#snapshots.set(image, []);
      this.#clones.set(image, []);
    }
  }

  start(): void {
    this.#active = true;
    this.#schedule();
  }

  /** Whatever runs dies. */
  stop(): void {
    this.#active = false;
    this.#kill();
  }

  /** What is open is repeated until it is done, then all snapshots are read; `done` after that. Nothing may hinder that any more. */
  finish(done: () => void): void {
    const open = this.#open;
    if (open) {
      return this.#execute(open, null, (error) => {
        if (!error) return this.finish(done);
        if (error instanceof VitastorError && error.retryable) return void this.#cluster.clock.after(1000, () => this.finish(done));
        this.#workload.fail(`${open.text} when nothing hinders it: ${String(error)}`);
      });
    }
    this.#execute({ text: 'all snapshots are read', run: (tool) => this.#readAll(tool) }, null, (error) => {
      if (error) this.#workload.fail(`snapshots could not be read: ${String(error)}`);
      else done();
    });
  }

  #schedule(): void {
    const { clock } = this.#cluster;
    clock.after(this.#random.between(...PAUSE_MS), () => {
      if (!this.#active) return;
      const command = this.#open ?? this.#next();
      const killAfterMs = this.#random.chance(35) ? this.#random.between(1, 2000) : PATIENCE_MS;
      this.#execute(command, killAfterMs, (error) => {
        if (error) this.#cluster.trace(() => `${command.text}: ${String(error)}`);
        if (error && !isVitastorError(error)) this.#workload.fail(`${command.text}: ${error instanceof Error ? (error.stack ?? '') : String(error)}`);
        if (this.#active) this.#schedule();
      });
    });
  }

  #next(): Command {
    const random = this.#random;
    const image = random.between(1, this.#cluster.shape.images);
    const snapshots = this.#snapshots.get(image) ?? [];
    // With no room for tombstones a cut must be repeated when the OSDs that it named are back, not before (docs/reliability.md).
    if (random.chance(RESIZE_PERCENT) && this.#cluster.shape.osdOptions['max_tombstones'] === undefined) return this.#resizeCommand(image);
    const kind = random.below(100);
    if (snapshots.length === 0 || (kind < 35 && snapshots.length < MAX_SNAPSHOTS)) return this.#snapshotCommand(image, snapshots);
    const clones = this.#clones.get(image) ?? [];
    const clone = random.chance(50) ? clones[0] : undefined;
    if (kind < 45) {
      const snapshot = random.pick(snapshots);
      if (snapshot.isSettled && clones.length < MAX_CLONES) return this.#cloneCommand(snapshot, clones);
    }
    if (kind < 50 && clone) return this.#removeCommand(clones, [clone]);
    if (kind < 75) {
      const from = random.below(snapshots.length);
      const to = random.chance(30) ? random.between(from, snapshots.length - 1) : from;
      const { family } = snapshots[from] ?? { family: 0 };
      return this.#removeCommand(snapshots, snapshots.slice(from, to + 1).filter((snapshot) => snapshot.family === family));
    }
    if (kind < 85) return this.#flattenCommand(clone?.name ?? this.#cluster.imageName(image));
    return { text: 'snapshots are read', run: (tool) => this.#readAll(tool) };
  }

  #snapshotCommand(image: number, snapshots: Snapshot[]): Command {
    const tag = `s${++this.#names}`;
    const name = this.#cluster.imageName(image);
    const snapshot: Snapshot = { name: `${name}@${tag}`, began: 0, ended: 0, end: this.#workload.endOf(image), values: new Map(), isSettled: false, isDoomed: false, family: this.#family };
    return {
      text: `snapshot ${snapshot.name}`,
      run: async (tool) => {
        const context = await tool.load();
        if (snapshot.began === 0) snapshot.began = this.#workload.now();
        if (!snapshots.includes(snapshot)) snapshots.push(snapshot);
        if (!context.view.imageByName(snapshot.name)) await createSnapshot(context, findLayer(context.view, name), tag, POOL, null);
        await this.#settled(tool, image, snapshot);
      },
    };
  }

  /**
   * To any size, or to a larger one where a parent would show below what is gone. What lies behind a new end is answered and durable before: who
   * makes an image smaller has made its file system smaller.
   */
  #resizeCommand(image: number): Command {
    const name = this.#cluster.imageName(image);
    const total = granulesOf(this.#cluster.shape);
    const before = this.#workload.endOf(image);
    const end = this.#random.chance(30) ? total : this.#random.between(1, total);
    let cut: WriteToken | null = null;
    return {
      text: `resize ${name} from ${before} to ${end} granules`,
      run: async (tool) => {
        const context = await tool.load();
        const layer = findLayer(context.view, name);
        if (end < before) {
          if (layer.parent?.pool === POOL) return;
          this.#workload.setEnd(image, end);
          const moment = this.#workload.now();
          while (this.#active && !this.#workload.isSettledSince(image, moment)) await tool.pause();
          cut ??= this.#workload.beginCut(image, end, before);
        }
        const sizeBytes = BigInt(end * GRANULE);
        if (sizeBytes < layer.sizeBytes) await tool.cut(layer, sizeBytes);
        if (sizeBytes !== layer.sizeBytes) await modifyImage(context, layer, { sizeBytes });
        await this.#heard(tool);
        this.#workload.setEnd(image, end);
        if (cut) this.#workload.endCut(cut);
      },
    };
  }

  /** Every client knows of all images as they are. */
  async #heard(tool: Tool): Promise<void> {
    const { etcd, clients, keys } = this.#cluster;
    const revision = etcd.pairs(keys.at('config/inode/')).reduce((newest, kv) => (kv.modRevision > newest ? kv.modRevision : newest), 0n);
    while (!clients.every((client) => client.isRunning && client.seenRevision >= revision)) await tool.pause();
    await tool.pause();
  }

  /** Every client knows of the snapshot, and nothing is under way to the layer that it has become (docs/reliability.md). */
  async #settled(tool: Tool, image: number, snapshot: Snapshot): Promise<void> {
    await this.#heard(tool);
    if (snapshot.ended === 0) snapshot.ended = this.#workload.now();
    // Where nobody flushes any more, nobody knows what it holds.
    while (this.#active && !this.#workload.isSettledSince(image, snapshot.ended)) await tool.pause();
    snapshot.isSettled = this.#workload.isSettledSince(image, snapshot.ended);
  }

  #cloneCommand(snapshot: Snapshot, clones: Snapshot[]): Command {
    const clone: Snapshot = { ...snapshot, name: `clone${++this.#names}`, values: new Map(snapshot.values), isDoomed: false };
    return {
      text: `clone ${clone.name} of ${snapshot.name}`,
      run: async (tool) => {
        const context = await tool.load();
        const parent = findLayer(context.view, snapshot.name);
        const fields = { pool: POOL, name: clone.name, sizeBytes: parent.sizeBytes, parent: { pool: parent.pool, inode: parent.inode }, meta: null };
        if (!context.view.imageByName(clone.name)) await createImage(context, fields);
        if (!clones.includes(clone)) clones.push(clone);
      },
    };
  }

  /** removed: some of `all` that stand on each other, oldest first. */
  #removeCommand(all: Snapshot[], removed: readonly Snapshot[]): Command {
    const first = removed[0]?.name ?? '';
    const last = removed[removed.length - 1]?.name ?? '';
    return {
      text: `rm ${first} ${last}`,
      run: async (tool) => {
        for (const snapshot of removed) snapshot.isDoomed = true;
        const { view } = await tool.load();
        const isThere = [first, last].map((name) => view.imageByName(name) !== null);
        if (isThere[0] !== isThere[1]) this.#workload.fail(`of ${first} to ${last} one end is gone`);
        else if (isThere[0] === true) await removeLayers(tool, first, last, { writersStopped: false }, nothingRemoved());
        all.splice(0, all.length, ...all.filter((snapshot) => !removed.includes(snapshot)));
      },
    };
  }

  #flattenCommand(name: string): Command {
    this.#family++;
    return { text: `flatten ${name}`, run: async (tool) => void (await flattenLayer(tool, name)) };
  }

  async #readAll(tool: Tool): Promise<void> {
    for (const [image, snapshots] of [...this.#snapshots, ...this.#clones]) {
      for (const snapshot of snapshots) if (!snapshot.isDoomed && snapshot.isSettled) await this.#readSnapshot(tool, image, snapshot);
    }
  }

  async #readSnapshot(tool: Tool, image: number, snapshot: Snapshot): Promise<void> {
    const handle = await tool.open(snapshot.name);
    const step = objectBytes(this.#cluster.shape) / GRANULE;
    for (let first = 0; first < snapshot.end; first += step) {
      const values = await tool.read(handle, snapshot.name, first, Math.min(step, snapshot.end - first));
      values.forEach((value, i) => this.#check(image, snapshot, first + i, value));
    }
  }

  #check(image: number, snapshot: Snapshot, granule: number, value: number | null): void {
    const known = snapshot.values.get(granule);
    // What a client kept in memory is not in it.
    const wrong = isBuffered(this.#cluster.shape) && value !== null ? null : this.#workload.checkCopy(image, granule, value, snapshot.began, snapshot.ended);
    if (wrong !== null) return this.#workload.fail(`${snapshot.name} granule ${granule}: ${wrong}`);
    if (known !== undefined && known !== value && !this.#workload.isUnsure(known) &&
      !this.#workload.mayComeLater(image, granule, value ?? 0, snapshot.began, snapshot.ended))
      return this.#workload.fail(`${snapshot.name} granule ${granule} was ${known} and is ${value}`);
    snapshot.values.set(granule, value ?? 0);
  }

  /** killAfterMs null: never. `ended` once, with an error or null; a command that is killed has the error that it was. */
  #execute(command: Command, killAfterMs: number | null, ended: (error: unknown) => void): void {
    const cluster = this.#cluster;
    this.doing = command.text;
    this.#open = command;
    this.counts[command.text.split(' ')[0] ?? ''] = (this.counts[command.text.split(' ')[0] ?? ''] ?? 0) + 1;
    cluster.note(`command: ${command.text}`);
    this.#client.start();
    const tool = new Tool(cluster, this.#client);
    this.#running = tool;
    const end = (error: unknown): void => {
      if (this.#running !== tool) return;
      this.#kill();
      if (!error) this.#open = null;
      cluster.note(`command: ${command.text} ${error ? 'did not end' : 'is done'}`);
      ended(error);
    };
    command.run(tool).then(() => end(null), end);
    if (killAfterMs !== null) cluster.clock.after(killAfterMs, () => end(new VitastorError('ERR_ABORTED', 'killed', { retryable: true })));
  }

  #kill(): void {
    this.#running?.kill();
    this.#running = null;
    this.#client.kill();
  }
}

/** One command's process: etcd, and a client of its own. */
class Tool implements LayerWork {
  readonly #cluster: SimCluster;
  readonly #client: ClientProcess;
  readonly #gate = new Gate();
  readonly #clock: ProcessClock;
  readonly #etcd: ProcessEtcd;
  #images = 0;

  constructor(cluster: SimCluster, client: ClientProcess) {
    this.#cluster = cluster;
    this.#client = client;
    this.#clock = new ProcessClock(cluster.clock, this.#gate);
    this.#etcd = new ProcessEtcd(cluster.etcd.client(), this.#gate);
  }

  kill(): void {
    this.#gate.kill();
    this.#etcd.close();
  }

  async load(): Promise<AdminContext> {
    const state = new ClusterState({
      etcd: this.#etcd, clock: this.#clock, keys: this.#cluster.keys, paths: ['config/', ...LAYER_PATHS], onProblem: () => undefined,
    });
    await state.load(LIMITS);
    return { etcd: this.#etcd, view: state.view, limits: LIMITS };
  }

  check(): void {
    // Every pool has had its PGs before the workload began.
  }

  merge(_view: ClusterView, layers: readonly InodeConfig[], target: InodeConfig): Promise<void> {
    const what = `merge into ${target.name}`;
    return this.#native(what, (done) => this.#client.native?.merge(layers.map(inodeKeyOf), layers.indexOf(target), done));
  }

  purge(_view: ClusterView, layer: InodeConfig): Promise<void> {
    return this.#native(`purge of ${layer.name}`, (done) => this.#client.native?.purge(layer.pool, fullInode(layer.pool, layer.inode), 0n, done));
  }

  /** All data behind sizeBytes goes. */
  cut(layer: InodeConfig, sizeBytes: bigint): Promise<void> {
    return this.#native(`cut of ${layer.name}`, (done) => this.#client.native?.purge(layer.pool, fullInode(layer.pool, layer.inode), sizeBytes, done));
  }

  step(text: string): void {
    this.#cluster.note(text);
  }

  pause(): Promise<void> {
    return new Promise((resolve) => void this.#clock.after(POLL_MS, resolve));
  }

  open(name: string): Promise<number> {
    const image = ++this.#images;
    return this.#gate.pass(new Promise((resolve, reject) => {
      this.#client.native?.openImage(image, name, (result) => (result === 0 ? resolve(image) : reject(failed(`open of ${name}`, result))));
    }));
  }

  /** Null: torn. */
  read(image: number, name: string, first: number, count: number): Promise<(number | null)[]> {
    return this.#gate.pass(new Promise((resolve, reject) => {
      this.#client.native?.read(image, BigInt(first) * BigInt(GRANULE), count * GRANULE, (result, _version, data) => {
        if (result !== count * GRANULE) return reject(failed(`read of ${name}`, result));
        const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
        resolve(Array.from({ length: count }, (_, i) => granuleValue(bytes, i * GRANULE)));
      });
    }));
  }

  #native(what: string, start: (done: (result: number, json: string) => void) => void): Promise<void> {
    return this.#gate.pass(new Promise((resolve, reject) => {
      start((result, json) => {
        const said = JSON.parse(json) as { error_count?: number; inactive_osds?: unknown[]; inactive_pgs?: unknown[] };
        const isWhole = !said.error_count && !said.inactive_osds?.length && !said.inactive_pgs?.length;
        if (result === 0 && isWhole) resolve();
        else reject(failed(`${what} says ${json}`, result));
      });
    }));
  }
}

function failed(what: string, result: number): VitastorError {
  return new VitastorError('ERR_IO', `${what}: ${result}`, { retryable: true });
}
