// SPDX-License-Identifier: GPL-2.0-or-later
// A strict scripted peer that talks as Vitastor 3.0.8 does, in both roles.

export * from './bitmap.js';
export * from './journal.js';
export * from './link.js';
export { PeerOpener, type OpenerOptions, Refused } from './opener.js';
export { PeerOsd, type OsdOptions, type PeerPool } from './osd.js';
export * from './recording.js';
export * from './replay.js';
export { Abort, PeerStore, type StoreOptions } from './store.js';
export * from './wire.js';
