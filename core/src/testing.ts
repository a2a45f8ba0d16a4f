// SPDX-License-Identifier: GPL-2.0-or-later
// @vitastor/core/testing: stand-ins for the seams, for unit tests and the simulator.

export * from './seams/memory-etcd.js';
export * from './seams/virtual-clock.js';
export * from './testing/etcd-server.js';
export * from './testing/native-missing.js';
