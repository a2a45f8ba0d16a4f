// SPDX-License-Identifier: GPL-2.0-or-later
// Randomness for everything above the seams. Life: the system's generator. Simulation: the seed.

export interface Random {
  /** A whole number in [0, below). below: 1 … 2^32. */
  below(below: number): number;
}
