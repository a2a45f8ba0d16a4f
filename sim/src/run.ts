// SPDX-License-Identifier: GPL-2.0-or-later
// One seed: draws a cluster, a workload and faults. Phase one with faults; phase two without, until everything is clean and
// was read back, once more without one of the OSDs; phase three damages data of one OSD, where checksums tell.

import { SimCluster, type Planted } from './cluster.js';
import { runUntil } from './driver.js';
import { Faults } from './faults.js';
import type { Solver } from '@vitastor/mon';
import type { NativeModule } from './native.js';
import { SeededRandom } from './rng.js';
import { LayerWorker } from './layers.js';
import { drawShape, withLayers } from './shape.js';
import { Workload } from './workload.js';

export interface RunOptions {
  seed: bigint;
  /** Virtual time with faults. */
  faultMs: number;
  /** Limit for everything to come back after the faults. */
  healMs: number;
  /** Null: nobody reads it. */
  trace: ((line: string) => void) | null;
  /** File for one line per native event. */
  nativeTrace?: string;
  planted?: Planted;
  /** Only these faults; null: all. */
  faults?: readonly string[] | null;
}

export interface RunResult {
  seed: bigint;
  hash: string;
  /** Empty: passed. */
  failures: string[];
  operations: number;
  faults: number;
  virtualMs: number;
  /** Native events. */
  events: number;
  /** Name of a fault or kind of operation → times. */
  counts: Record<string, number>;
}

const START_LIMIT_MS = 60_000;
const READ_LIMIT_MS = 60_000;
const LAYERS_LIMIT_MS = 300_000;
const SCRUB_LIMIT_MS = 120_000;
const STEADY_MS = 3000;
/** After the last scrub, until etcd knows. */
const CLEAN_LIMIT_MS = 5000;
const DECAYS = 6;
/** How often room is made again on full disks, while that helps: what waits may be more than fits, and takes the room at once. */
const ROOM_ROUNDS = 12;
/** What a seed does at least, however slow the faults make it. */
const OPERATIONS = 2000;
const FAULTS = 5;
const MORE_LIMIT_MS = 600_000;
const STUCK_MS = 5000;

export async function runSeed(native: NativeModule, solver: Solver, options: RunOptions): Promise<RunResult> {
  const run = new SeedRun(native, solver, options);
  try {
    return await run.run();
  } finally {
    run.destroy();
  }
}

class SeedRun {
  readonly cluster: SimCluster;
  readonly #options: RunOptions;
  readonly #workload: Workload;
  readonly #faults: Faults;
  readonly #layers: LayerWorker | null;
  readonly #random: SeededRandom;
  readonly #failures: string[] = [];
  /** The decayed disk was taken out. */
  #isReplaced = false;

  constructor(native: NativeModule, solver: Solver, options: RunOptions) {
    const { seed, planted } = options;
    this.#options = options;
    this.#random = new SeededRandom(seed, 'run');
    const drawn = drawShape(new SeededRandom(seed, 'shape'));
    const layers = new SeededRandom(seed, 'layers');
    const shape = planted ? (planted.shape?.(drawn) ?? drawn) : withLayers(layers, drawn);
    this.cluster = new SimCluster({ native, solver, seed, shape, trace: options.trace, ...(planted ? { planted } : {}) });
    const only = options.faults ? new Set(options.faults) : null;
    this.#workload = new Workload(this.cluster, new SeededRandom(seed, 'workload'));
    this.#faults = new Faults(this.cluster, this.#workload, new SeededRandom(seed, 'faults'), only, planted?.pauseMs);
    this.#layers = shape.isLayered ? new LayerWorker(this.cluster, this.#workload, layers) : null;
    this.#workload.isDecaying = () => this.#faults.decays > 0;
    this.cluster.note(`seed ${seed}: ${JSON.stringify(shape, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value))}`);
  }

  destroy(): void {
    this.#layers?.stop();
    this.cluster.destroy();
  }

  async run(): Promise<RunResult> {
    const { cluster } = this;
    if (this.#options.nativeTrace !== undefined) cluster.world.traceTo(this.#options.nativeTrace);
    cluster.start();
    if (!(await this.#until(START_LIMIT_MS, () => cluster.allActive))) {
      this.#failures.push(`the cluster did not become active in ${START_LIMIT_MS} ms of virtual time: ${cluster.pgStates()}`);
      return this.#result();
    }
    this.#workload.start();
    this.#faults.start();
    this.#layers?.start();
    await this.#until(this.#options.faultMs, () => this.#bad);
    await this.#goOn();
    this.#workload.stop();
    this.#layers?.stop();
    this.#faults.endAll();
    if (!this.#bad && cluster.shape.isTight) await this.#makeRoom();
    if (!this.#bad) await this.#heal('faults');
    if (!this.#bad) await this.#finishLayers();
    if (!this.#bad) await this.#readEverything('clean');
    if (!this.#bad && cluster.pgSize > 1) await this.#compareCopies();
    if (!this.#bad && cluster.pgSize > 1) await this.#readWithoutOne();
    if (!this.#bad && cluster.pgSize > 1 && cluster.shape.checksums) await this.#decay();
    return this.#result();
  }

  /** Until enough has been done. Where everybody waits for room for long, somebody deletes something. */
  async #goOn(): Promise<void> {
    const isEnough = (): boolean => this.#bad || (this.#workload.operations >= OPERATIONS && this.#faults.count >= FAULTS);
    for (let leftMs = MORE_LIMIT_MS; leftMs > 0; leftMs -= STUCK_MS) {
      const before = this.#workload.operations;
      if (await this.#until(STUCK_MS, isEnough)) return;
      if (this.cluster.shape.isTight && this.#workload.operations === before) this.#workload.relieve();
    }
  }

  get #bad(): boolean {
    if (this.cluster.isInconsistent && this.#faults.decays === 0 && this.#failures.length === 0) {
      this.#failures.push(`a scrub finds copies that differ: ${this.cluster.pgStates()}`);
    }
    return this.#failures.length > 0 || this.cluster.failures.length > 0 || this.#workload.failures.length > 0;
  }

  #result(): RunResult {
    const { cluster } = this;
    return {
      seed: this.#options.seed, hash: cluster.world.hash(), failures: [...this.#failures, ...cluster.failures, ...this.#workload.failures],
      operations: this.#workload.operations, faults: this.#faults.count, virtualMs: Math.round(cluster.clock.nowMs()),
      events: cluster.world.events(), counts: { ...this.#workload.counts, ...this.#faults.counts, ...this.#layers?.counts },
    };
  }

  #until(ms: number, done: () => boolean): Promise<boolean> {
    return runUntil(this.cluster.world, this.cluster.clock, this.cluster.clock.nowMs() + ms, done);
  }

  /** Everything is answered and clean, in bounded time. */
  async #heal(after: string): Promise<void> {
    const { cluster } = this;
    const { healMs } = this.#options;
    const heals = (): Promise<boolean> => this.#until(healMs, () => this.#bad || (this.#workload.inFlight === 0 && cluster.allSettled));
    if (await heals()) return;
    const bad = this.#faults.decaying;
    if (bad !== null && this.#faults.decays > 0 && !this.#isReplaced && cluster.isIncomplete) {
      // A write that was never acknowledged lies on the decayed disk alone, and rots there: the newest version cannot be read. Whoever looks after
      // the cluster replaces the disk, and everything acknowledged must be there without it.
      this.#isReplaced = true;
      cluster.note(`the disk of osd${bad} is replaced: ${cluster.pgStates()}`);
      cluster.replaceDisk(bad);
      if (await heals()) return;
    }
    // Writes that had waited for room took it at once, and recovery needs more: somebody deletes again.
    let waiting = Number.POSITIVE_INFINITY;
    for (let round = 0; round < ROOM_ROUNDS && cluster.shape.isTight && !this.#bad; round++) {
      const { inFlight } = this.#workload;
      if (inFlight > 0 && inFlight >= waiting) break;
      waiting = inFlight;
      cluster.note(`room is made once more, ${this.#workload.inFlight} operations unanswered: ${cluster.pgStates()}`);
      await this.#makeRoom();
      if (this.#bad || (await heals())) return;
    }
    for (const line of cluster.describe()) cluster.note(line);
    this.#failures.push(`${this.#workload.inFlight} operations unanswered, PGs ${cluster.pgStates()}: not well ${healMs} ms of virtual time after ${after}`);
  }

  /** Full disks may have nothing left for recovery: then somebody must delete something. */
  async #makeRoom(): Promise<void> {
    const { cluster } = this;
    const { healMs } = this.#options;
    // What is deleted while an OSD is away may come back with it, where tombstones have no room: all are there, and stay for a while.
    let sinceMs = cluster.clock.nowMs();
    const isSteady = (): boolean => {
      const nowMs = cluster.clock.nowMs();
      if (!cluster.allThere) sinceMs = nowMs;
      return nowMs - sinceMs > STEADY_MS;
    };
    if (!(await this.#until(healMs, () => this.#bad || isSteady()))) {
      this.#failures.push(`not all PGs are active ${healMs} ms of virtual time after faults: ${cluster.pgStates()}`);
      return;
    }
    let isDone = false;
    if (!this.#bad) this.#workload.removeDeletable(() => (isDone = true));
    await this.#until(healMs, () => this.#bad || isDone);
  }

  /** In clean PGs all copies are equal, and all chunks belong together. */
  async #compareCopies(): Promise<void> {
    const { cluster } = this;
    if (cluster.shape.autoScrubS !== null && cluster.shape.checksums) await this.#mendDecay();
    if (this.#bad) return;
    cluster.note('all copies are compared');
    cluster.scrubAll();
    const isDone = await this.#until(SCRUB_LIMIT_MS, () => this.#bad || cluster.isScrubbed);
    if (!isDone) this.#failures.push(`scrubs did not end in ${SCRUB_LIMIT_MS} ms of virtual time: ${cluster.pgStates()}`);
    else if (!(await this.#until(CLEAN_LIMIT_MS, () => this.#bad || cluster.allClean))) {
      if (cluster.isInconsistent || cluster.isIncomplete) this.#failures.push(`copies in clean PGs differ: ${cluster.pgStates()}`);
      // A monitor may have moved PGs meanwhile, by weights that were changed back when faults ended: objects that lie elsewhere are no difference.
      else await this.#heal('all copies were compared');
    }
  }

  /** What has decayed under faults is found by one scrub more, and repaired. */
  async #mendDecay(): Promise<void> {
    const { cluster } = this;
    const atMs = cluster.clock.nowMs() + 1000 * (cluster.shape.autoScrubS ?? 0) + 5000;
    await runUntil(cluster.world, cluster.clock, atMs, () => this.#bad);
    if (!this.#bad) await this.#heal('what had decayed was scrubbed');
  }

  /** What was interrupted is done when it is repeated, and snapshots are what they were. */
  async #finishLayers(): Promise<void> {
    if (!this.#layers) return;
    let isDone = false;
    this.#layers.finish(() => (isDone = true));
    if (!(await this.#until(LAYERS_LIMIT_MS, () => isDone || this.#bad)))
      this.#failures.push(`layers were not finished in ${LAYERS_LIMIT_MS} ms of virtual time: ${this.#layers.doing}`);
    if (!this.#bad) await this.#heal('layers were finished');
  }

  async #readWithoutOne(): Promise<void> {
    const { cluster } = this;
    const { shape } = cluster;
    const num = this.#random.between(1, cluster.osds.size);
    cluster.note(`osd${num} is killed, and everything is read from the others`);
    cluster.killOsd(num, false);
    const limitMs = shape.pgMinSize < cluster.pgSize ? this.#options.healMs : 6000;
    const isActive = await this.#until(limitMs, () => this.#bad || (cluster.isGone(num) && cluster.allActive));
    if (!isActive && shape.pgMinSize < cluster.pgSize) this.#failures.push(`without osd${num} the PGs do not become active: ${cluster.pgStates()}`);
    // What is sent again to those that are left may find no room there, and reads of the same object wait for it until there is some.
    if (isActive && !this.#bad) await this.#readEverything(`without osd${num}`, shape.isTight);
    cluster.startOsd(num);
    if (!this.#bad) await this.#heal(`osd${num} is back`);
  }

  /** One OSD's medium decays under load; no client may notice. Nothing else may happen: the other copies must stay whole. */
  async #decay(): Promise<void> {
    const { cluster } = this;
    const num = this.#random.between(1, cluster.osds.size);
    cluster.note(`osd${num} decays`);
    this.#workload.start();
    for (let i = 0; i < DECAYS && !this.#bad; i++) {
      this.#faults.decay(num);
      await this.#until(300, () => this.#bad);
    }
    this.#workload.stop();
    // What is sent again waits for room, and reads of the same object with it.
    if (!this.#bad && cluster.shape.isTight) await this.#makeRoom();
    await this.#until(READ_LIMIT_MS, () => this.#bad || this.#workload.inFlight === 0);
    if (!this.#bad) await this.#readEverything('with a decayed OSD');
  }

  async #readEverything(when: string, mayWait = false): Promise<void> {
    let isDone = false;
    this.#workload.readEverything(() => (isDone = true));
    if ((await this.#until(READ_LIMIT_MS, () => isDone || this.#bad)) || mayWait) return;
    this.#failures.push(`reading everything back (${when}): ${this.#workload.inFlight} reads unanswered after ${READ_LIMIT_MS} ms of virtual time`);
  }
}
