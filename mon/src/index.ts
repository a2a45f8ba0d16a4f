// SPDX-License-Identifier: GPL-2.0-or-later
// @vitastor/mon: the monitor, for `main` and for the simulator.

export * from './placement/index.js';
export { HighsSolver } from './highs-solver.js';
export { WorkerSolver } from './worker-solver.js';
export { Monitor } from './monitor.js';
export type { MonitorDeps, Role } from './instance.js';
export { SILENT_LOG, type Log } from './log.js';
export { monSettings, type MonSettings } from './settings.js';
