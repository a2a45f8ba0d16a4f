// SPDX-License-Identifier: GPL-2.0-or-later

import type { Cancel, Clock } from '@vitastor/core';

/** Runs something once at the earliest of the moments that were asked for. */
export class Soon {
  readonly #clock: Clock;
  readonly #run: () => void;
  #timer: { cancel: Cancel; atMs: number } | null = null;
  #stopped = false;

  constructor(clock: Clock, run: () => void) {
    this.#clock = clock;
    this.#run = run;
  }

  in(delayMs: number): void {
    if (this.#stopped) return;
    const atMs = this.#clock.nowMs() + delayMs;
    if (this.#timer !== null && this.#timer.atMs <= atMs) return;
    this.#timer?.cancel();
    const cancel = this.#clock.after(delayMs, () => {
      this.#timer = null;
      this.#run();
    });
    this.#timer = { cancel, atMs };
  }

  /** Nothing runs afterwards. */
  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#timer = null;
  }
}
