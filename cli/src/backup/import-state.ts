// SPDX-License-Identifier: GPL-2.0-or-later
// What an image says of the streams it was made of, in meta.import: which snapshot it holds, or that a stream has not come to its end. And whether a
// stream fits it.

import {
  decodeIdentity, encodeIdentity, isJsonObject, parseBoolean, sameIdentity, VitastorError,
  type ClusterView, type InodeConfig, type JsonObject, type LayerIdentity, type StreamHeader,
} from '@vitastor/core';
import { identityOf } from './export.js';

export interface ImportState {
  to: LayerIdentity | null;
  from: LayerIdentity | null;
  complete: boolean;
}

/** null: it was not imported, or somebody has written something else there. */
export function importState(image: InodeConfig): ImportState | null {
  const state = image.meta?.['import'];
  if (!isJsonObject(state)) return null;
  try {
    return {
      to: decodeIdentity(state['to'] ?? null, 'to'), from: decodeIdentity(state['from'] ?? null, 'from'),
      complete: parseBoolean(state['complete'] ?? false) ?? false,
    };
  } catch {
    return null;
  }
}

/** The image's metadata with this state, everything else as it is. */
export function withImportState(image: { meta: JsonObject | null }, state: ImportState | null): JsonObject | null {
  const { import: _, ...rest } = image.meta ?? {};
  if (!state) return Object.keys(rest).length ? rest : null;
  return { ...rest, import: { to: encodeIdentity(state.to), from: encodeIdentity(state.from), complete: state.complete } };
}

/** The same stream was begun, and did not come to its end. */
export function isInterrupted(state: ImportState | null, header: StreamHeader): boolean {
  return state !== null && !state.complete && sameIdentity(state.to, header.to) && sameIdentity(state.from, header.from);
}

const snapName = (name: string): string => name.slice(name.lastIndexOf('@') + 1);

/** The snapshot's name in a target that may have another name than the exported image. */
export function targetSnapshot(image: string, to: LayerIdentity | null): string | null {
  return to === null ? null : `${image}@${snapName(to.name)}`;
}

/** Why the layer below `image` is not what the increment stands on, or ''. */
export function mismatch(view: ClusterView, image: InodeConfig, from: LayerIdentity): string {
  const below = image.parent && view.inodes.get((BigInt(image.parent.pool) << 48n) | image.parent.inode);
  if (!below) return `${image.name} has no snapshot, and the stream goes on from ${from.name}: import the full stream first`;
  const state = importState(image);
  // What was exported from this very cluster stands on itself.
  if (sameIdentity(identityOf(below), from)) return '';
  const names = below.name === from.name || below.name === `${image.name}@${snapName(from.name)}`;
  if (!names) return `${image.name} stands on ${below.name}, and the stream goes on from ${from.name}`;
  if (below.sizeBytes !== from.sizeBytes) return `${below.name} has ${below.sizeBytes} bytes, and the ${from.name} that the stream goes on from had ${from.sizeBytes}`;
  if (state?.complete && state.to && !sameIdentity(state.to, from))
    return `${below.name} was imported from another ${state.to.name} (inode ${state.to.inode} of pool ${state.to.pool}, the stream goes on from inode ${from.inode} of pool ${from.pool})`;
  return '';
}

export const refusal = (text: string): VitastorError => new VitastorError('ERR_INVALID_ARGUMENT', text);
