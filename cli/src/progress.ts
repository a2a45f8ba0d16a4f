// SPDX-License-Identifier: GPL-2.0-or-later
// How fast something long goes, and how much longer it takes.

import type { Clock } from '@vitastor/core';

/** Before that a rate says nothing. */
const SETTLE_MS = 1000;

/** Counts from its making. `format`: a rate, per second. */
export class Pace {
  readonly #clock: Clock;
  readonly #startMs: number;

  get elapsedMs(): number {
    return this.#clock.nowMs() - this.#startMs;
  }

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#startMs = clock.nowMs();
  }

  /**
   * ', 12.3 MB/s, 0:45 left', or '' in the first second. amount: of what the rate is given in; done of total: objects. total null: nobody knows, and how
   * long it takes is left out.
   */
  text(amount: bigint, format: (perSecond: bigint) => string, done: bigint, total: bigint | null): string {
    const elapsedMs = this.#clock.nowMs() - this.#startMs;
    if (elapsedMs < SETTLE_MS || done === 0n) return '';
    const rate = format((amount * 1000n) / BigInt(Math.round(elapsedMs)));
    if (total === null) return `, ${rate}/s`;
    const leftSeconds = Math.ceil((elapsedMs / 1000) * (Number(total - done) / Number(done)));
    return `, ${rate}/s, ${shortTime(leftSeconds)} left`;
  }
}

/** 0:05, 12:30, 1:02:03. */
export function shortTime(seconds: number): string {
  const two = (n: number): string => String(n).padStart(2, '0');
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** On a terminal a line is written over so often. */
const LINE_MS = 100;

/** A line of progress that is made only when it is shown. */
export class ProgressLine {
  readonly #session: { progress(text: string, last: boolean): void };
  readonly #pace: Pace;
  /** Nothing is shown of what is done at once. */
  #lastMs = SETTLE_MS - LINE_MS;

  constructor(session: { progress(text: string, last: boolean): void }, pace: Pace) {
    this.#session = session;
    this.#pace = pace;
  }
  show(text: () => string): void {
    if (this.#pace.elapsedMs - this.#lastMs < LINE_MS) return;
    this.#lastMs = this.#pace.elapsedMs;
    this.#session.progress(text(), false);
  }
}
