// SPDX-License-Identifier: GPL-2.0-or-later
// Virtual time for both languages: one native event or one timer, then all promises, then the next.

import { setFlagsFromString } from 'node:v8';
import type { Cancel, Clock } from '@vitastor/core';
import type { SimWorld } from './native.js';

interface Timer {
  atNs: bigint;
  order: number;
  fire: () => void;
}

const NS_PER_MS = 1_000_000;

/** Timers of the TypeScript side, on the world's clock. Equal times fire in order of creation. */
export class SimClock implements Clock {
  readonly #world: SimWorld;
  #heap: Timer[] = [];
  #order = 0;

  constructor(world: SimWorld) {
    this.#world = world;
  }

  nowMs(): number {
    return Number(this.#world.nowNs()) / NS_PER_MS;
  }

  wallMs(): number {
    return 1_700_000_000_000 + Math.floor(this.nowMs());
  }

  after(delayMs: number, fire: () => void): Cancel {
    const timer: Timer = { atNs: this.#world.nowNs() + BigInt(Math.max(0, Math.round(delayMs * NS_PER_MS))), order: this.#order++, fire };
    this.#push(timer);
    return () => {
      timer.fire = () => undefined;
    };
  }

  /** -1n: none. */
  nextNs(): bigint {
    return this.#heap[0]?.atNs ?? -1n;
  }

  fireNext(): void {
    const timer = this.#pop();
    timer?.fire();
  }

  #before(a: Timer, b: Timer): boolean {
    return a.atNs < b.atNs || (a.atNs === b.atNs && a.order < b.order);
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let i = heap.length;
    heap.push(timer);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const above = heap[parent];
      if (!above || this.#before(above, timer)) break;
      heap[i] = above;
      i = parent;
    }
    heap[i] = timer;
  }

  #pop(): Timer | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (!top || !last || heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      const left = heap[child];
      if (!left) break;
      const right = heap[child + 1];
      if (right && this.#before(right, left)) child++;
      const least = heap[child];
      if (!least || this.#before(last, least)) break;
      heap[i] = least;
      i = child;
    }
    heap[i] = last;
    return top;
  }
}

/** Steps after which Node's own loop has a turn: messages of the parent process, what the garbage collector has left to do. */
const STEPS_PER_TURN = 5000;

/**
 * Runs whatever promises have to run, until nothing is left. A turn of Node's loop does that too, at ten times the price, which simulated
 * clusters would spend a good part of their time on.
 */
const settle: () => void = (() => {
  setFlagsFromString('--allow-natives-syntax');
  const made = new Function('%PerformMicrotaskCheckpoint()') as () => void;
  setFlagsFromString('--no-allow-natives-syntax');
  return made;
})();

/**
 * Runs until `done()` or until virtual time has reached `untilMs`. Returns whether `done` was reached; it is asked after every timer and
 * every native event that called into JavaScript.
 */
export function runUntil(world: SimWorld, clock: SimClock, untilMs: number, done: () => boolean): Promise<boolean> {
  const untilNs = BigInt(Math.round(untilMs * NS_PER_MS));
  /** Null: not yet. */
  const step = (): boolean | null => {
    if (done()) return true;
    const timer = clock.nextNs();
    const isTimer = timer >= 0n && timer <= untilNs;
    // A native event of the same moment goes before a timer.
    const isCall = world.run(isTimer ? timer : untilNs);
    if (!isCall) {
      if (!isTimer) return done();
      clock.fireNext();
    }
    settle();
    return null;
  };
  return new Promise<boolean>((resolve, reject) => {
    const turn = (): void => {
      try {
        settle();
        for (let i = 0; i < STEPS_PER_TURN; i++) {
          const result = step();
          if (result !== null) return resolve(result);
        }
      } catch (error) {
        return reject(error instanceof Error ? error : new Error(String(error)));
      }
      setImmediate(turn);
    };
    setImmediate(turn);
  });
}
