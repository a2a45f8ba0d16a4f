// SPDX-License-Identifier: GPL-2.0-or-later
// A clock that stands still until it is told to advance: unit tests. (sim/ has its own, shared with the native side.)

import type { Cancel, Clock } from './clock.js';

interface Timer {
  atMs: number;
  order: number;
  fire: () => void;
}

/** Timers fire in order of time, then of creation. */
export class VirtualClock implements Clock {
  #nowMs = 0;
  #order = 0;
  #timers: Timer[] = [];
  readonly #startWallMs: number;

  constructor(startWallMs = 1_700_000_000_000) {
    this.#startWallMs = startWallMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#startWallMs + this.#nowMs;
  }

  after(delayMs: number, fire: () => void): Cancel {
    const timer: Timer = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, fire };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((t) => t !== timer);
    };
  }

  /** Lets `ms` pass: fires what is due, and lets all promises settle after each timer. */
  async advance(ms: number): Promise<void> {
    const end = this.#nowMs + ms;
    await settle();
    for (;;) {
      const next = this.#timers.filter((t) => t.atMs <= end).sort((a, b) => a.atMs - b.atMs || a.order - b.order)[0];
      if (!next) break;
      this.#timers = this.#timers.filter((t) => t !== next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.fire();
      await settle();
    }
    this.#nowMs = end;
  }

  /** Timers that wait: 0 after everything was stopped. */
  get pending(): number {
    return this.#timers.length;
  }
}

/** All promises that can settle have settled. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
