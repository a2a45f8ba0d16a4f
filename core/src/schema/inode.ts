// SPDX-License-Identifier: GPL-2.0-or-later
// /config/inode, /index/image and /index/maxid: images and their names. Source: etcd schema 4.5 to 4.7.

import { bigInteger, boolean, INODE_MAX, integer, name, object, POOL_ID_MAX, u64, type Decoder } from '../decode.js';
import { isJsonObject, type JsonObject, type JsonValue } from '../json.js';
import { fullInode } from './keys.js';

export interface InodeConfig {
  pool: number;
  /** Without the pool, 1 … 2^48−1. */
  inode: bigint;
  /** '' only in records put by hand. Snapshots: `base@snap`. */
  name: string;
  sizeBytes: bigint;
  /** The layer below, or null. */
  parent: { pool: number; inode: bigint } | null;
  readonly: boolean;
  /** Deletion started and not finished. */
  deleted: boolean;
  /** Application data, null = none. */
  meta: JsonObject | null;
  /** The record as written, for edits that keep fields we do not know. */
  raw: JsonObject;
}

export function decodeInodeConfig(pool: number, inode: bigint): Decoder<InodeConfig> {
  return object((f) => {
    const parentInode = f.optional('parent_id', bigInteger(0n, INODE_MAX), 0n);
    const parentPool = f.optional('parent_pool', integer(0, POOL_ID_MAX), 0);
    return {
      pool,
      inode,
      name: f.optional('name', name, ''),
      sizeBytes: f.optional('size', u64, 0n),
      parent: parentInode === 0n ? null : { pool: parentPool || pool, inode: parentInode },
      readonly: f.optional('readonly', boolean, false),
      deleted: f.optional('deleted', boolean, false),
      meta: f.optional('meta', (v: JsonValue) => (isJsonObject(v) ? v : null), null),
      raw: f.raw,
    };
  });
}

const OWN_FIELDS: ReadonlySet<string> = new Set([
  'name',
  'size',
  'parent_id',
  'parent_pool',
  'readonly',
  'deleted',
  'meta',
]);

/** Fields with nothing to say are left out; unknown fields of `raw` are kept. */
export function encodeInodeConfig(config: Omit<InodeConfig, 'raw' | 'inode'> & { raw?: JsonObject }): JsonObject {
  const result: JsonObject = { name: config.name, size: config.sizeBytes };
  if (config.parent) {
    result['parent_id'] = config.parent.inode;
    if (config.parent.pool !== config.pool) result['parent_pool'] = config.parent.pool;
  }
  if (config.readonly) result['readonly'] = true;
  if (config.deleted) result['deleted'] = true;
  if (config.meta) result['meta'] = config.meta;
  for (const [field, value] of Object.entries(config.raw ?? {})) if (!OWN_FIELDS.has(field)) result[field] = value;
  return result;
}

export interface ImageIndex {
  pool: number;
  inode: bigint;
}

export const decodeImageIndex: Decoder<ImageIndex> = object((f) => ({
  pool: f.required('pool_id', integer(1, POOL_ID_MAX)),
  inode: f.required('id', bigInteger(1n, INODE_MAX)),
}));

export function encodeImageIndex(index: ImageIndex): JsonObject {
  return { id: index.inode, pool_id: index.pool };
}

/** The highest inode number ever handed out in a pool. */
export const decodeMaxId: Decoder<bigint> = bigInteger(0n, INODE_MAX);

export function inodeKeyOf(config: { pool: number; inode: bigint }): bigint {
  return fullInode(config.pool, config.inode);
}
