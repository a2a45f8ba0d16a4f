// SPDX-License-Identifier: GPL-2.0-or-later
// @vitastor/core/light: what a small process may use. Nothing here loads etcd, the schema or an addon (10 to 30 MiB of
// memory).

export * from './errors.js';
export * from './config/command-line.js';
export * from './seams/clock.js';
export * from './seams/etcd-address.js';
export * from './seams/random.js';
export * from './seams/system.js';
