// SPDX-License-Identifier: GPL-2.0-or-later
// What has changed between two layers of a chain, from bitmaps alone. Which layers hold the changes is known from metadata; where, from
// the OSDs (ImageClient.mapLayers).

import type { ClusterView } from './cluster-view.js';
import { VitastorError } from './errors.js';
import type { Extent, ImageClient, MapRequest } from './image.js';
import { imageChanged, parentChain } from './images.js';
import { findLayer } from './layers.js';
import { inodeKeyOf, type InodeConfig } from './schema/inode.js';

export interface LayerDiff {
  to: InodeConfig;
  /** null: all that `to` shows, against nothing. */
  from: InodeConfig | null;
  /** That hold the changes: from `to` down to the one above `from`. */
  layers: readonly InodeConfig[];
}

/** Part of what has changed; `zero`: it reads as zeroes and nobody has written there. */
export interface ChangedExtent extends Extent {
  type: 'data' | 'zero';
}

/** A snapshot of `image`, by its own name or by image@snapshot. */
export function findSnapshot(view: ClusterView, image: string, snapshot: string): InodeConfig {
  const base = image.replace(/@[^@]*$/, '');
  const full = snapshot.includes('@') || !view.imageByName(`${base}@${snapshot}`) ? snapshot : `${base}@${snapshot}`;
  const found = view.imageByName(full);
  if (found && (full.includes('@') || found.readonly)) return found;
  if (found) throw new VitastorError('ERR_INVALID_ARGUMENT', `${full} is an image that may be written to, and no snapshot: take one by snap-create`);
  throw new VitastorError('ERR_NOT_FOUND', `Snapshot ${snapshot.includes('@') ? snapshot : `${base}@${snapshot}`} does not exist`, { data: { image: snapshot } });
}

/**
 * from, to: snapshots, null: nothing, the image itself. Throws ERR_NOT_FOUND, ERR_INVALID_ARGUMENT (`from` is not below `to`), ERR_PARENT_LOOP.
 */
export function layersBetween(view: ClusterView, image: string, from: string | null, to: string | null): LayerDiff {
  const top = to === null ? findLayer(view, image) : findSnapshot(view, image, to);
  const chain = [top, ...parentChain(view, top)];
  if (from === null) return { to: top, from: null, layers: chain };
  const lowest = findSnapshot(view, image, from);
  const index = chain.indexOf(lowest);
  if (index >= 0) return { to: top, from: lowest, layers: chain.slice(0, index) };
  if (parentChain(view, lowest).includes(top))
    throw new VitastorError('ERR_INVALID_ARGUMENT', `${lowest.name} is newer than ${top.name}: what has changed is listed from the older to the newer`);
  const below = chain.slice(1).map((layer) => layer.name);
  throw new VitastorError('ERR_INVALID_ARGUMENT',
    `${top.name} does not stand on ${lowest.name}: ${below.length ? `it stands on ${below.slice(0, 10).join(', ')}${below.length > 10 ? ', ...' : ''}` : 'it stands on nothing'}`);
}

/** Throws ERR_CONFLICT where layers were removed, merged or resized since `diff` was made: what was listed may not be all. */
export function checkUnchanged(view: ClusterView, diff: LayerDiff): void {
  const same = (a: InodeConfig['parent'], b: InodeConfig['parent']): boolean => a?.pool === b?.pool && a?.inode === b?.inode;
  for (const layer of diff.layers) {
    const now = view.inodes.get(inodeKeyOf(layer));
    if (!now || !same(now.parent, layer.parent) || now.deleted !== layer.deleted || (layer === diff.to && now.sizeBytes !== layer.sizeBytes)) throw imageChanged(layer.name);
  }
}

/**
 * In order, a part at a time, parts of about `maxExtents`; an extent of one kind never touches the next one of its kind. Ends at the size of `to`.
 * Throws what mapLayers() throws.
 */
export async function* changedExtents(
  client: ImageClient, diff: LayerDiff, options: Pick<MapRequest, 'iodepth' | 'parallelOsds' | 'maxExtents' | 'onProgress'> = {},
): AsyncGenerator<ChangedExtent[]> {
  const size = diff.to.sizeBytes;
  // What the image has grown by was not there before, and reads as zeroes where nobody wrote.
  const grownFrom = diff.from === null || diff.from.sizeBytes > size ? size : diff.from.sizeBytes;
  let last: ChangedExtent | null = null;
  /** All before it has been given out or is `last`. */
  let position = 0n;
  const add = (part: ChangedExtent[], extent: ChangedExtent): void => {
    if (last && last.type === extent.type && last.offset + last.length === extent.offset) {
      last.length += extent.length;
    } else {
      if (last) part.push(last);
      last = extent;
    }
    position = extent.offset + extent.length;
  };
  const addZeroes = (part: ChangedExtent[], end: bigint): void => {
    const offset = position > grownFrom ? position : grownFrom;
    if (offset < end) add(part, { type: 'zero', offset, length: end - offset });
  };
  if (diff.layers.length > 0 && size > 0n) {
    for await (const extents of client.mapLayers({ ...options, layers: diff.layers.map(inodeKeyOf), maxOffset: size })) {
      const part: ChangedExtent[] = [];
      for (const { offset, length } of extents) {
        addZeroes(part, offset);
        add(part, { type: 'data', offset, length: offset + length > size ? size - offset : length });
      }
      if (part.length) yield part;
    }
  }
  const rest: ChangedExtent[] = [];
  addZeroes(rest, size);
  if (last) rest.push(last);
  if (rest.length) yield rest;
}
