// SPDX-License-Identifier: GPL-2.0-or-later
// @vitastor/osd: control of one OSD, for main and for the simulator.

export * from './engine.js';
export { OsdControl, type OsdControlDeps, type OsdEnd } from './osd-control.js';
export { osdOptions, scrubPlanOf, type OsdOptions } from './options.js';
