// SPDX-License-Identifier: GPL-2.0-or-later
// Image metadata as transactions: create, clone, snapshot, modify, remove. Source: etcd schema 5.1 to 5.4. Data on OSDs
// is not touched here.

import type { ClusterView } from './cluster-view.js';
import {
  changeOnce,
  deleteOp,
  keyAbsent,
  keyAt,
  keyUnchangedSince,
  putOp,
  readRanges,
  type CallLimits,
} from './etcd-calls.js';
import { VitastorError } from './errors.js';
import { decodeText, INODE_MAX } from './decode.js';
import { ioLimits, withIoLimits } from './io-limits.js';
import { stringifyJson, type JsonObject } from './json.js';
import { decodeMaxId, encodeImageIndex, encodeInodeConfig, type InodeConfig } from './schema/inode.js';
import { fullInode } from './schema/keys.js';
import type { Etcd, KeyRange, KeyValue, TxnOp } from './seams/etcd.js';

/** What every change needs: the door, a view that was loaded just now, and how long to try. */
export interface AdminContext {
  etcd: Etcd;
  view: ClusterView;
  limits: CallLimits;
}

/** Somebody else took the number or the name between reading and writing: read again, so often at most. */
const CREATE_ATTEMPTS = 100;

export interface NewImage {
  pool: number;
  name: string;
  sizeBytes: bigint;
  parent: { pool: number; inode: bigint } | null;
  meta: JsonObject | null;
}

/** Of an image's name, and of a snapshot's behind the @; in UTF-8. What other systems make of names has room for that. */
const MAX_NAME_BYTES = 255;

/** `@` marks snapshots. Of an image, or of a snapshot the part behind the @. Throws ERR_INVALID_ARGUMENT. */
export function checkImageName(name: string): void {
  if (name === '') throw new VitastorError('ERR_INVALID_ARGUMENT', 'Image name is missing');
  if (name.includes('@')) throw new VitastorError('ERR_INVALID_ARGUMENT', `Image name can't contain @ character`);
  const bytes = Buffer.byteLength(name);
  if (bytes > MAX_NAME_BYTES) {
    const start = [...name].slice(0, 20).join('');
    throw new VitastorError('ERR_INVALID_ARGUMENT', `Image name ${start}... has ${bytes} bytes: choose one of at most ${MAX_NAME_BYTES}`);
  }
  // Listings and scripts take a line for an image; a lone surrogate is not the same name after it was written.
  if (/[\p{Cc}\p{Cs}\u2028\u2029]/u.test(name))
    throw new VitastorError('ERR_INVALID_ARGUMENT', `Image name ${JSON.stringify(name)} has control characters in it: choose one without`);
}

function exists(name: string): VitastorError {
  return new VitastorError('ERR_EXISTS', `${name.includes('@') ? 'Snapshot' : 'Image'} ${name} already exists`, {
    data: { image: name },
  });
}

interface FreeInode {
  inode: bigint;
  /** Revision of /index/maxid, 0n = absent. */
  maxIdRevision: bigint;
}

/** One above everything that was ever handed out or stands in /config/inode, images put by hand included. */
async function nextInode(context: AdminContext, pool: number): Promise<FreeInode> {
  const { keys } = context.view;
  const ranges: KeyRange[] = [{ key: keys.indexMaxId(pool) }, { prefix: keys.at(`config/inode/${pool}/`) }];
  const [[maxId] = [], inodes = []] = await readRanges(context.etcd, ranges, context.limits);
  let highest = context.view.highestInode(pool);
  const counted = maxId ? readMaxId(maxId.value) : 0n;
  if (counted > highest) highest = counted;
  for (const kv of inodes) {
    const parsed = keys.parse(kv.key);
    if (parsed?.kind === 'config/inode' && parsed.inode > highest) highest = parsed.inode;
  }
  if (highest >= INODE_MAX)
    throw new VitastorError('ERR_INVALID_ARGUMENT', `pool ${pool} has no free inode number left`);
  return { inode: highest + 1n, maxIdRevision: maxId?.modRevision ?? 0n };
}

/** Garbage counts as nothing: it is overwritten, and the inodes themselves say what is taken. */
function readMaxId(text: string): bigint {
  try {
    return decodeText(decodeMaxId, text);
  } catch {
    return 0n;
  }
}

const holds = (pairs: readonly KeyValue[] | undefined, text: string): boolean => pairs?.[0]?.value === text;

function dying(image: InodeConfig, what: string): VitastorError {
  return new VitastorError('ERR_BUSY', `Image ${image.name} is being removed: it cannot have ${what}`, { data: { image: image.name } });
}

/**
 * Creates the records of an image or clone. Throws ERR_NOT_FOUND or ERR_PARENT_LOOP (below the parent), ERR_BUSY, ERR_EXISTS,
 * ERR_CONFLICT (too much going on), ERR_ETCD_UNAVAILABLE.
 */
export async function createImage(context: AdminContext, image: NewImage): Promise<InodeConfig> {
  const { view, etcd, limits } = context;
  const { keys } = view;
  if (view.imageByName(image.name)) throw exists(image.name);
  const parentKey = image.parent && keys.configInode(image.parent.pool, image.parent.inode);
  const parent = image.parent && view.inodes.get(fullInode(image.parent.pool, image.parent.inode));
  if (parent?.deleted) throw dying(parent, 'clones');
  if (parent) parentChain(view, parent);
  const parentCompare = parentKey ? [keyUnchangedSince(parentKey, view.modRevision(parentKey))] : [];
  for (let attempt = 0; attempt < CREATE_ATTEMPTS; attempt++) {
    const { inode, maxIdRevision } = await nextInode(context, image.pool);
    const config = { ...image, inode, readonly: false, deleted: false, raw: {} };
    const configKey = keys.configInode(image.pool, inode);
    const record = encodeInodeConfig(config);
    const index: KeyRange = { key: keys.indexImage(image.name) };
    const result = await changeOnce(
      etcd,
      {
        compare: [keyAbsent(configKey), keyAbsent(index.key), keyAt(keys.indexMaxId(image.pool), maxIdRevision), ...parentCompare],
        success: [
          putOp(configKey, record),
          putOp(index.key, encodeImageIndex(config)),
          putOp(keys.indexMaxId(image.pool), inode),
        ],
        failure: [{ op: 'range', range: index }, ...(parentKey ? [{ op: 'range' as const, range: { key: parentKey } }] : [])],
      },
      limits,
      (seen) => holds(seen[0], stringifyJson(record)) && holds(seen[1], stringifyJson(encodeImageIndex(config))),
      [{ key: configKey }, index],
    );
    if (result.succeeded) return { ...config, raw: record };
    if (result.responses[0]?.length) throw exists(image.name);
    if (parentKey && result.responses[1]?.[0]?.modRevision !== view.modRevision(parentKey))
      throw imageChanged(parent?.name ?? image.name);
  }
  throw new VitastorError(
    'ERR_CONFLICT',
    `Image ${image.name} was not created: too many others create images at the same time, try again`,
    { retryable: true },
  );
}

/**
 * Turns the current layer of `image` into `image@snapshot` and puts a new writable layer on top, which keeps the name.
 * Throws ERR_EXISTS, ERR_BUSY (it is being removed), ERR_NOT_FOUND, ERR_PARENT_LOOP (below it),
 * ERR_CONFLICT (somebody changed the image meanwhile).
 */
export async function createSnapshot(
  context: AdminContext,
  image: InodeConfig,
  snapshot: string,
  pool: number,
  meta: JsonObject | null,
): Promise<InodeConfig> {
  const { view, etcd, limits } = context;
  const { keys } = view;
  checkImageName(snapshot);
  const fullName = `${image.name}@${snapshot}`;
  if (view.imageByName(fullName)) throw exists(fullName);
  if (image.deleted) throw dying(image, 'snapshots');
  parentChain(view, image);
  const { inode, maxIdRevision } = await nextInode(context, pool);
  const top = {
    pool,
    inode,
    name: image.name,
    sizeBytes: image.sizeBytes,
    parent: { pool: image.pool, inode: image.inode },
    readonly: false,
    deleted: false,
    // Limits are the image's, not a layer's.
    meta: withIoLimits(meta, ioLimits(meta) ?? ioLimits(image.meta)),
  };
  const old = { ...image, name: fullName, readonly: true, meta: null };
  const topKey = keys.configInode(pool, inode);
  const oldKey = keys.configInode(image.pool, image.inode);
  const nameKey = keys.indexImage(image.name);
  const snapKey = keys.indexImage(fullName);
  const record = encodeInodeConfig(top);
  const result = await changeOnce(
    etcd,
    {
      compare: [
        keyAbsent(topKey),
        keyAbsent(snapKey),
        keyAt(keys.indexMaxId(pool), maxIdRevision),
        keyAt(oldKey, view.modRevision(oldKey)),
        keyAt(nameKey, view.modRevision(nameKey)),
      ],
      success: [
        putOp(topKey, record),
        putOp(nameKey, encodeImageIndex(top)),
        putOp(keys.indexMaxId(pool), inode),
        putOp(oldKey, encodeInodeConfig(old)),
        putOp(snapKey, encodeImageIndex(image)),
      ],
      failure: [{ op: 'range', range: { key: snapKey } }],
    },
    limits,
    (seen) => holds(seen[0], stringifyJson(record)),
    [{ key: topKey }],
  );
  if (result.succeeded) return { ...top, raw: record };
  if (result.responses[0]?.length) throw exists(fullName);
  throw imageChanged(image.name);
}

export function imageChanged(name: string): VitastorError {
  return new VitastorError('ERR_CONFLICT', `Image ${name} was changed by someone else meanwhile, try again`, {
    retryable: true,
    data: { image: name },
  });
}

export interface ImageChange {
  name?: string;
  sizeBytes?: bigint;
  readonly?: boolean;
  deleted?: boolean;
  meta?: JsonObject | null;
}

/**
 * Writes a changed record (rename included). The caller has purged data beyond a smaller size. Throws ERR_EXISTS,
 * ERR_CONFLICT.
 */
export async function modifyImage(
  context: AdminContext,
  image: InodeConfig,
  change: ImageChange,
): Promise<{ image: InodeConfig; revision: bigint }> {
  const { view, etcd, limits } = context;
  const { keys } = view;
  const next: InodeConfig = { ...image, ...change };
  const configKey = keys.configInode(image.pool, image.inode);
  const record = encodeInodeConfig(next);
  const compare = [keyUnchangedSince(configKey, view.modRevision(configKey))];
  const success: TxnOp[] = [putOp(configKey, record)];
  if (next.name !== image.name) {
    if (view.imageByName(next.name)) throw exists(next.name);
    const [oldIndex, newIndex] = [keys.indexImage(image.name), keys.indexImage(next.name)];
    compare.push(keyUnchangedSince(oldIndex, view.revision), keyAbsent(newIndex));
    if (image.name !== '' && isIndexed(view, image)) success.push(deleteOp(oldIndex));
    success.push(putOp(newIndex, encodeImageIndex(image)));
  }
  const result = await changeOnce(etcd, { compare, success }, limits, (seen) => holds(seen[0], stringifyJson(record)), [
    { key: configKey },
  ]);
  if (!result.succeeded) throw imageChanged(image.name);
  return { image: { ...next, raw: record }, revision: result.revision };
}

/** The name's index (if any) names this very layer. */
export function isIndexed(view: ClusterView, image: InodeConfig): boolean {
  const index = view.imageIndex.get(image.name);
  return index !== undefined && index.pool === image.pool && index.inode === image.inode;
}

/** The layers below `image`, nearest first. Throws ERR_NOT_FOUND (a parent is missing) or ERR_PARENT_LOOP. */
export function parentChain(view: ClusterView, image: InodeConfig): InodeConfig[] {
  const chain: InodeConfig[] = [];
  let layer = image;
  while (layer.parent) {
    const parent = view.inodes.get((BigInt(layer.parent.pool) << 48n) | layer.parent.inode);
    if (!parent) {
      throw new VitastorError(
        'ERR_NOT_FOUND',
        `Parent of ${layer.name} (inode ${layer.parent.inode} in pool ${layer.parent.pool}) is missing, or its record cannot be read: ` +
          `restore it, or correct parent_id in ${view.keys.configInode(layer.pool, layer.inode)}`,
      );
    }
    if (parent === image || chain.includes(parent))
      throw new VitastorError(
        'ERR_PARENT_LOOP',
        `The parents of ${image.name} form a loop at ${parent.name}: correct parent_id in ${view.keys.configInode(layer.pool, layer.inode)}`,
      );
    chain.push(parent);
    layer = parent;
  }
  return chain;
}
