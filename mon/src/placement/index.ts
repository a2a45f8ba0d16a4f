// SPDX-License-Identifier: GPL-2.0-or-later

export * from './tree.js';
export * from './rules.js';
export * from './fold.js';
export * from './combinations.js';
export * from './solver.js';
export * from './level.js';
export * from './optimise.js';
export * from './align.js';
export * from './place.js';
export * from './primary.js';
export * from './history.js';
export * from './hash.js';
