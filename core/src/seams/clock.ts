// SPDX-License-Identifier: GPL-2.0-or-later
// Time for everything above the seams. Life: SystemClock. Simulation: the virtual clock.

/** Cancels a timer; calling it twice, or after the timer fired, does nothing. */
export type Cancel = () => void;

export interface Clock {
  /** Milliseconds on a clock that never jumps back and counts suspend. The origin is unspecified. */
  nowMs(): number;
  /** Milliseconds since 1970 UTC; may jump. Only for values that people or other daemons read. */
  wallMs(): number;
  /** Runs `fire` once, `delayMs` from now (0 = after the current turn). */
  after(delayMs: number, fire: () => void): Cancel;
}
