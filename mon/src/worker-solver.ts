// SPDX-License-Identifier: GPL-2.0-or-later
// Solving on a thread of its own: keepalives and dying OSDs do not wait for a large program.

import { Worker } from 'node:worker_threads';
import type { LinearProgram, Solver } from './placement/solver.js';

export interface SolverRequest {
  id: number;
  program: LinearProgram;
}

export type SolverReply = { id: number; values: number[] } | { id: number; error: string };

interface Pending {
  resolve: (values: number[]) => void;
  reject: (error: Error) => void;
}

/** The thread starts with the first program; one that dies fails what it had and is replaced. */
export class WorkerSolver implements Solver {
  #worker: Worker | null = null;
  #nextId = 0;
  readonly #pending = new Map<number, Pending>();

  solve(program: LinearProgram): Promise<number[]> {
    const worker = this.#worker ?? this.#start();
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      worker.ref();
      worker.postMessage({ id, program } satisfies SolverRequest);
    });
  }

  /** Ends the thread; what it was at is rejected. */
  async close(): Promise<void> {
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(new URL('./solver-worker.js', import.meta.url));
    this.#worker = worker;
    const gone = (error: Error): void => {
      if (this.#worker !== worker) return;
      this.#worker = null;
      for (const { reject } of this.#pending.values()) reject(error);
      this.#pending.clear();
    };
    worker.on('message', (reply: SolverReply) => {
      const pending = this.#pending.get(reply.id);
      this.#pending.delete(reply.id);
      // An idle thread keeps no process alive.
      if (this.#pending.size === 0) worker.unref();
      if ('values' in reply) pending?.resolve(reply.values);
      else pending?.reject(new Error(reply.error));
    });
    worker.on('error', (error) => gone(error));
    worker.on('exit', (code) => gone(new Error(`the solver's thread ended with code ${code}`)));
    return worker;
  }
}
