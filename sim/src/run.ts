// SPDX-License-Identifier: GPL-2.0-or-later
// One seed: draws a cluster, a workload and faults; phase one with faults, phase two without, then everything is read back.

import { SimCluster, type Shape } from './cluster.js';
import { runUntil } from './driver.js';
import type { Solver } from '@vitastor/mon';
import type { NativeModule } from './native.js';
import { fillGranule, GRANULE, granuleValue, Oracle } from './oracle.js';
import { SeededRandom } from './rng.js';

export interface RunOptions {
  seed: bigint;
  /** Virtual time with faults. */
  faultMs: number;
  /** Limit for everything to come back after the faults. */
  healMs: number;
  trace: (line: string) => void;
  /** File for one line per native event. */
  nativeTrace?: string;
}

export interface RunResult {
  seed: bigint;
  hash: string;
  /** Empty: passed. */
  failures: string[];
  operations: number;
  faults: number;
  virtualMs: number;
}

const START_LIMIT_MS = 60_000;

export async function runSeed(native: NativeModule, solver: Solver, options: RunOptions): Promise<RunResult> {
  const run = new SeedRun(native, solver, options);
  try {
    return await run.run();
  } finally {
    run.cluster.destroy();
  }
}

function drawShape(random: SeededRandom): Shape {
  const immediateCommit = random.pick(['all', 'all', 'all', 'none', 'small'] as const);
  return {
    osds: random.between(3, 4), copies: random.between(2, 3), pgCount: random.between(1, 8), immediateCommit,
    volatileCache: immediateCommit !== 'all' && random.chance(70), osdBytes: 96n << 20n,
  };
}

class SeedRun {
  readonly cluster: SimCluster;
  readonly #options: RunOptions;
  readonly #oracle = new Oracle();
  readonly #failures: string[] = [];
  readonly #workload: SeededRandom;
  readonly #faultRandom: SeededRandom;
  #operations = 0;
  #inFlight = 0;
  #faults = 0;
  #working = false;

  constructor(native: NativeModule, solver: Solver, options: RunOptions) {
    this.#options = options;
    this.#workload = new SeededRandom(options.seed, 'workload');
    this.#faultRandom = new SeededRandom(options.seed, 'faults');
    const shape = drawShape(new SeededRandom(options.seed, 'shape'));
    this.cluster = new SimCluster(native, solver, options.seed, shape, options.trace);
    this.cluster.note(`seed ${options.seed}: ${JSON.stringify(shape, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value))}`);
  }

  async run(): Promise<RunResult> {
    const { cluster } = this;
    if (this.#options.nativeTrace !== undefined) cluster.world.traceTo(this.#options.nativeTrace);
    cluster.start();
    if (!(await this.#until(START_LIMIT_MS, () => cluster.allActive))) {
      this.#failures.push(`the cluster did not become active in ${START_LIMIT_MS} ms of virtual time: ${cluster.pgStates()}`);
      return this.#result();
    }
    let opened = false;
    cluster.client?.openImage(1, 'image', (result) => {
      opened = true;
      if (result !== 0) this.#failures.push(`opening the image answered ${result}`);
    });
    if (!(await this.#until(10_000, () => opened))) this.#failures.push('opening the image was not answered in 10 s of virtual time');
    if (this.#failures.length > 0) return this.#result();

    this.#working = true;
    for (let i = 0; i < 8; i++) this.#nextOperation();
    this.#scheduleFault();
    await this.#until(this.#options.faultMs, () => this.#bad);
    this.#working = false;
    this.#healAll();
    const well = await this.#until(this.#options.healMs, () => this.#bad || (this.#inFlight === 0 && cluster.allActive));
    if (!well) for (const line of cluster.describe()) cluster.note(line);
    if (!well) this.#failures.push(`${this.#inFlight} operations unanswered, PGs ${cluster.pgStates()}: not well ${this.#options.healMs} ms of virtual time after the faults`);
    if (!this.#bad) await this.#readEverything();
    return this.#result();
  }

  get #bad(): boolean {
    return this.#failures.length > 0 || this.cluster.failures.length > 0;
  }

  #result(): RunResult {
    return {
      seed: this.#options.seed, hash: this.cluster.world.hash(), failures: [...this.#failures, ...this.cluster.failures],
      operations: this.#operations, faults: this.#faults, virtualMs: Math.round(this.cluster.clock.nowMs()),
    };
  }

  #until(ms: number, done: () => boolean): Promise<boolean> {
    return runUntil(this.cluster.world, this.cluster.clock, this.cluster.clock.nowMs() + ms, done);
  }

  // ---------------------------------------------------------------- workload

  #nextOperation(): void {
    if (!this.#working || this.#bad) return;
    const random = this.#workload;
    const total = this.cluster.imageBytes / GRANULE;
    const count = random.chance(80) ? 1 : random.chance(70) ? random.between(2, 16) : 32;
    const first = count === 32 ? random.below(total / 32) * 32 : random.below(total - count);
    const kind = random.below(100);
    if (kind < 50) this.#write(first, count);
    else if (kind < 95) this.#read(first, count);
    else this.#flush();
  }

  #finished(): void {
    this.#inFlight--;
    this.#operations++;
    this.cluster.clock.after(this.#workload.below(20), () => this.#nextOperation());
  }

  #write(first: number, count: number): void {
    const granules = Array.from({ length: count }, (_, i) => first + i);
    const id = this.#oracle.beginWrite(1, granules);
    const data = new Uint8Array(count * GRANULE);
    for (let i = 0; i < count; i++) fillGranule(data, i * GRANULE, id);
    this.#inFlight++;
    this.cluster.client?.write(1, BigInt(first * GRANULE), data, (result) => {
      this.cluster.note(`write ${id} at ${first}+${count} answers ${result}`);
      if (result === data.length) this.#oracle.endWrite(1, granules, id);
      else this.#failures.push(`write ${id} at granule ${first} answered ${result}`);
      this.#finished();
    });
  }

  #read(first: number, count: number, then: () => void = () => this.#finished()): void {
    const began = this.#oracle.now();
    this.#inFlight++;
    this.cluster.client?.read(1, BigInt(first * GRANULE), count * GRANULE, (result, data) => {
      if (result !== count * GRANULE) this.#failures.push(`read at granule ${first} answered ${result}`);
      else for (let i = 0; i < count; i++) this.#check(first + i, data, i * GRANULE, began);
      then();
    });
  }

  #check(granule: number, data: Uint8Array, offset: number, began: number): void {
    const value = granuleValue(data, offset);
    const wrong = value === null ? `granule ${granule}: torn or foreign bytes` : this.#oracle.checkRead(1, granule, value, began);
    if (wrong !== null) {
      this.cluster.note(`WRONG ${wrong}`);
      this.#failures.push(wrong);
    }
  }

  #flush(): void {
    this.#inFlight++;
    this.cluster.client?.flush(1, (result) => {
      if (result !== 0) this.#failures.push(`flush answered ${result}`);
      this.#finished();
    });
  }

  async #readEverything(): Promise<void> {
    const objects = this.cluster.imageBytes / GRANULE / 32;
    let left = objects;
    for (let i = 0; i < objects; i++) {
      this.#read(i * 32, 32, () => {
        this.#inFlight--;
        left--;
      });
    }
    if (!(await this.#until(30_000, () => left === 0 || this.#bad))) this.#failures.push(`reading everything back: ${left} objects unanswered after 30 s of virtual time`);
  }

  // ---------------------------------------------------------------- faults

  #scheduleFault(): void {
    this.cluster.clock.after(this.#faultRandom.between(500, 6000), () => {
      if (!this.#working || this.#bad) return;
      this.#fault();
      this.#scheduleFault();
    });
  }

  #fault(): void {
    const { cluster } = this;
    const random = this.#faultRandom;
    const num = random.between(1, cluster.shape.osds);
    const laterMs = random.between(200, 9000);
    this.#faults++;
    switch (random.below(7)) {
      case 0: case 1: {
        // A power cut in mode "all" with a volatile cache would be the operator's lie; shapes never draw it.
        const powerLoss = random.chance(50);
        cluster.note(`fault: osd${num} is killed${powerLoss ? ' by a power cut' : ''}, back after ${laterMs} ms`);
        cluster.killOsd(num, powerLoss);
        cluster.clock.after(laterMs, () => cluster.startOsd(num));
        break;
      }
      case 2: {
        const other = random.below(cluster.shape.osds + 1);
        const oneWay = random.chance(30);
        if (other === num) break;
        cluster.note(`fault: osd${num} and ${other === 0 ? 'the client' : `osd${other}`} are cut${oneWay ? ' one way' : ''} for ${laterMs} ms`);
        cluster.link(num, other, 'cut', oneWay);
        cluster.clock.after(laterMs, () => cluster.link(num, other, 'heal', oneWay));
        break;
      }
      case 3:
        cluster.note(`fault: osd${num} loses etcd for ${laterMs} ms`);
        cluster.etcdOf(num, false);
        cluster.clock.after(laterMs, () => cluster.etcdOf(num, true));
        break;
      case 4:
        cluster.note('fault: etcd restarts');
        cluster.etcd.restart();
        break;
      case 5:
        cluster.note('fault: etcd is compacted and restarts');
        cluster.etcd.compact();
        cluster.etcd.restart();
        break;
      case 6:
        cluster.note('fault: the monitor is replaced');
        cluster.killMonitor();
        cluster.clock.after(random.between(0, 2000), () => cluster.startMonitor());
        break;
    }
  }

  #healAll(): void {
    const { cluster } = this;
    cluster.note('faults end');
    for (let a = 1; a <= cluster.shape.osds; a++) {
      for (let b = 0; b <= cluster.shape.osds; b++) if (a !== b) cluster.link(a, b, 'heal');
      cluster.etcdOf(a, true);
      cluster.startOsd(a);
    }
  }
}
