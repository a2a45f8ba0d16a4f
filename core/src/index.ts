// SPDX-License-Identifier: GPL-2.0-or-later
// @vitastor/core: what the rest of the TypeScript side may use.

export * from './errors.js';
export * from './json.js';
export * from './units.js';
export {
  INODE_MAX, POOL_ID_MAX, decodeText, problemOf, problemText, type Decoder, type Problem,
} from './decode.js';
export * from './schema/keys.js';
export * from './schema/config.js';
export * from './schema/pools.js';
export * from './schema/inode.js';
export * from './schema/pg.js';
export * from './schema/osd.js';
export * from './schema/stats.js';
export * from './seams/clock.js';
export * from './seams/random.js';
export * from './seams/probe.js';
export * from './seams/etcd.js';
export * from './cluster-view.js';
export * from './cluster-state.js';
export * from './data-ops.js';
export * from './seams/system.js';
export * from './seams/etcd-address.js';
export * from './seams/etcd3-adapter.js';
export * from './config/parameters.js';
export * from './config/values.js';
export * from './config/command-line.js';
export * from './config/config.js';
export * from './pg-math.js';
export * from './etcd-calls.js';
export * from './images.js';
export * from './io-limits.js';
export * from './layers.js';
export * from './tree.js';
export * from './pool-admin.js';
export * from './osd-registry.js';
export * from './osd-removal.js';
export * from './cluster-flags.js';
export { loadNativeClient, type NativeClient } from './native/addon.js';
export * from './image.js';
export * from './layer-diff.js';
export * from './backup-stream.js';
export * from './native/data-ops.js';
export * from './osd/admin-messages.js';
export * from './osd/admin-link.js';
