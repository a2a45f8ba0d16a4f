// SPDX-License-Identifier: GPL-2.0-or-later
// Worker processes that run seeds: a few at once, each for many seeds, because the first dozens cost twice as much, until V8 has compiled
// what is used often. A worker that crashes takes only its seed with it.

import { spawn, type ChildProcess } from 'node:child_process';
import type { RunResult } from './run.js';

export interface Task {
  seed: bigint;
  /** Tells runs of one seed apart. */
  run: number;
  /** Where the trace goes. Making it costs about as much as the run, so it is made when a seed has failed and runs once more. */
  trace: 'none' | 'file' | 'print';
  events: boolean;
  /** Name of a planted fault, '' = none. */
  planted: string;
  /** Its cluster without the fault. */
  isControl?: boolean;
  /** Names of faults, null: all. */
  faults: readonly string[] | null;
}

/** Over the pipe: seed as text. */
export type WireTask = Omit<Task, 'seed'> & { seed: string };

export interface TaskResult extends RunResult {
  /** Probe → hits in this run. */
  probes: Record<string, number>;
  /** Of the process, afterwards. */
  memoryMb: number;
}

const SEEDS_PER_PROCESS = 5000;
/** A process that has more is not used again. */
const MEMORY_MAX_MB = 3000;
/** Garbage is collected when there is much of it: V8 would look for it all the time, in other threads, at a third of what a seed costs. */
const HEAP = ['--initial-heap-size=512', '--min-semi-space-size=32', '--max-semi-space-size=64', '--no-flush-bytecode'];
/** Memory that comes and goes all the time is not given back to the system each time. */
const MEMORY_KEPT = { MALLOC_MMAP_THRESHOLD_: '1073741824', MALLOC_TRIM_THRESHOLD_: '1073741824', MALLOC_TOP_PAD_: '16777216' };

interface Worker {
  process: ChildProcess;
  left: number;
  finish: ((result: TaskResult | string) => void) | null;
}

export class WorkerPool {
  readonly #script: string;
  readonly #size: number;
  readonly #idle: Worker[] = [];
  readonly #waiting: (() => void)[] = [];
  #busy = 0;

  constructor(script: string, size: number) {
    this.#script = script;
    this.#size = size;
  }

  /** Runs as soon as a worker is free. Never rejects: a crash is a failure of the seed. */
  async run(task: Task): Promise<TaskResult> {
    while (this.#busy >= this.#size) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#busy++;
    const worker = this.#idle.pop() ?? this.#start();
    const result = await new Promise<TaskResult | string>((resolve) => {
      worker.finish = resolve;
      worker.process.send({ ...task, seed: String(task.seed) } satisfies WireTask);
    });
    worker.finish = null;
    const isGood = typeof result !== 'string' && result.memoryMb < MEMORY_MAX_MB;
    if (--worker.left > 0 && isGood) this.#idle.push(worker);
    else worker.process.kill('SIGKILL');
    this.#busy--;
    this.#waiting.shift()?.();
    if (typeof result !== 'string') return { ...result, seed: task.seed };
    return {
      seed: task.seed, hash: '', failures: [`the process ended with ${result} and gave no result`], operations: 0, faults: 0, virtualMs: 0,
      events: 0, counts: {}, probes: {}, memoryMb: 0,
    };
  }

  stop(): void {
    for (const worker of this.#idle.splice(0)) worker.process.kill('SIGKILL');
  }

  #start(): Worker {
    const child = spawn(process.execPath, [...HEAP, this.#script, '--worker'], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'], env: { ...process.env, ...MEMORY_KEPT },
    });
    const worker: Worker = { process: child, left: SEEDS_PER_PROCESS, finish: null };
    child.on('message', (result) => worker.finish?.(result as TaskResult));
    child.on('exit', (code, signal) => worker.finish?.(signal ?? String(code)));
    return worker;
  }
}
