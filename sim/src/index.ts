// SPDX-License-Identifier: GPL-2.0-or-later
// @vitastor/sim: whole clusters in one process, from one seed.

export * from './native.js';
export { runSeed, type RunOptions, type RunResult } from './run.js';
