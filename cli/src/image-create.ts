// SPDX-License-Identifier: GPL-2.0-or-later
// create and snap-create. Source: tools 2.6.

import {
  checkImageName,
  createImage,
  createSnapshot,
  findPool,
  isJsonObject,
  parseJson,
  requireSize,
  VitastorError,
  type AdminContext,
  type ClusterView,
  type JsonObject,
  type PoolConfig,
} from '@vitastor/core';
import type { Outcome } from './base-command.js';
import { changedLimits, type LimitOptions } from './limit-options.js';

export const SECTOR_BYTES = 4096n;

export interface CreateOptions {
  name: string;
  size?: string | undefined;
  pool?: string | undefined;
  parent?: string | undefined;
  snapshot?: string | undefined;
  imageMeta?: string | undefined;
  limits?: LimitOptions;
  force: boolean;
  forceSize: boolean;
}

const invalid = (text: string): VitastorError => new VitastorError('ERR_INVALID_ARGUMENT', text);
const missing = (text: string): VitastorError => new VitastorError('ERR_NOT_FOUND', text);

/** What create and snap-create read. */
export const CREATE_PATHS = ['index/'];

export async function createCommand(context: AdminContext, options: CreateOptions): Promise<Outcome> {
  checkImageName(options.name);
  return options.snapshot === undefined ? create(context, options) : snapshot(context, options, options.snapshot);
}

async function create(context: AdminContext, options: CreateOptions): Promise<Outcome> {
  const { view } = context;
  const parent = options.parent === undefined || options.parent === '' ? null : view.imageByName(options.parent);
  if (options.parent && !parent) throw missing(`Parent image ${options.parent} does not exist`);
  const pool = choosePool(view, options.pool, parent?.pool ?? null);
  const sizeBytes = options.size === undefined ? parent?.sizeBytes ?? 0n : requireSize('--size', options.size);
  if (!options.forceSize && sizeBytes === 0n) throw invalid('Image size is missing');
  if (!options.forceSize && sizeBytes % SECTOR_BYTES !== 0n)
    throw invalid(`Size should be a multiple of ${SECTOR_BYTES}`);
  if (pool.usedForApp !== '' && !options.force) {
    throw invalid(`Pool ${pool.name} is used for ${pool.usedForApp}. Use --force to create an image in it`);
  }
  await createImage(context, {
    pool: pool.id,
    name: options.name,
    sizeBytes,
    parent: parent && { pool: parent.pool, inode: parent.inode },
    meta: metaOf(options),
  });
  return {
    text: `Image ${options.name} created`,
    json: { name: options.name, parent: options.parent ?? '', pool: options.pool ?? pool.id, size: sizeBytes },
  };
}

/** The one that is named, the parent's, or the only one there is. */
export function choosePool(view: ClusterView, name: string | undefined, parentPool: number | null): PoolConfig {
  if (name) return findPool(view, name);
  const inherited = parentPool === null ? undefined : findPool(view, String(parentPool));
  const only = view.pools.size === 1 ? [...view.pools.values()][0] : undefined;
  const pool = inherited ?? only;
  if (!pool) throw invalid('Pool name or ID is missing');
  return pool;
}

async function snapshot(context: AdminContext, options: CreateOptions, name: string): Promise<Outcome> {
  if (options.size !== undefined)
    throw invalid('Image size is not used with snapshots: they have the size of the image');
  const image = context.view.imageByName(options.name);
  if (!image) throw missing(`Image ${options.name} does not exist`);
  const pool = options.pool ? findPool(context.view, options.pool).id : findPool(context.view, String(image.pool)).id;
  await createSnapshot(context, image, name, pool, metaOf(options));
  const fullName = `${options.name}@${name}`;
  return {
    text: `Snapshot ${fullName} created`,
    json: { name: fullName, parent: options.parent ?? '', pool, size: image.sizeBytes },
  };
}

function metaOf(options: CreateOptions): JsonObject | null {
  const meta = parseMeta(options.imageMeta);
  const changed = changedLimits(meta, options.limits ?? {});
  return changed === undefined ? meta : changed;
}

function parseMeta(text: string | undefined): JsonObject | null {
  if (!text) return null;
  const value = parseJson(text);
  if (!isJsonObject(value)) throw invalid('--image_meta must be a JSON object');
  return value;
}
