// SPDX-License-Identifier: GPL-2.0-or-later
// @vitastor/mon: the monitor, for `main` and for the simulator.

export * from './placement/index.js';
export { HighsSolver } from './highs-solver.js';
