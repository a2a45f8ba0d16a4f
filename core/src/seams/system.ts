// SPDX-License-Identifier: GPL-2.0-or-later
// The seams in real life: the system's clock and random generator.

import { randomInt } from 'node:crypto';
import { uptime } from 'node:os';
import type { Cancel, Clock } from './clock.js';
import type { Random } from './random.js';

/** A gap between the two system clocks beyond this is a suspend, not the coarseness of uptime(). */
const SUSPEND_MIN_MS = 100;

export class SystemClock implements Clock {
  /**
   * What uptime() (counts suspend, coarse) was ahead of performance.now() (fine, stands still in suspend) at the start.
   */
  readonly #gapMs = uptime() * 1000 - performance.now();
  #suspendedMs = 0;

  nowMs(): number {
    const fine = performance.now();
    const gap = uptime() * 1000 - fine - this.#gapMs;
    if (gap - this.#suspendedMs > SUSPEND_MIN_MS) this.#suspendedMs = gap;
    return fine + this.#suspendedMs;
  }

  wallMs(): number {
    return Date.now();
  }

  after(delayMs: number, fire: () => void): Cancel {
    if (delayMs <= 0) {
      const immediate = setImmediate(fire);
      return () => clearImmediate(immediate);
    }
    const timer = setTimeout(fire, Math.min(delayMs, 0x7fffffff));
    return () => clearTimeout(timer);
  }
}

export class SystemRandom implements Random {
  below(below: number): number {
    return randomInt(below);
  }
}
