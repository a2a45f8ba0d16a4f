// SPDX-License-Identifier: GPL-2.0-or-later
// Layers of images: removing any of them with the least movement of data, and detaching an image from its parents. What
// moves data is handed in; here is what is merged where, and the transactions around it. Source: tools 2.8, 2.10, etcd schema 5.4.
//
// Every step leaves all images that are not being removed as they read before, so that each command can be interrupted
// anywhere and repeated.

import type { ClusterView } from './cluster-view.js';
import { changeOnce, deleteOp, keyUnchangedSince, putOp, readRanges } from './etcd-calls.js';
import { VitastorError } from './errors.js';
import { imageChanged, isIndexed, modifyImage, parentChain, type AdminContext } from './images.js';
import { stringifyJson } from './json.js';
import { encodeImageIndex, encodeInodeConfig, inodeKeyOf, type InodeConfig } from './schema/inode.js';
import type { Compare, TxnOp } from './seams/etcd.js';

/** What the caller lends: etcd, and the side that moves data. */
export interface LayerWork {
  /** A view read just now, with LAYER_PATHS. */
  load(): Promise<AdminContext>;
  /** Before anything is changed: throws where nobody can say where the data of these layers is. */
  check(view: ClusterView, layers: readonly InodeConfig[]): void;
  /** Merges these layers (lowest first) into one of them. Durable on return; rejects where it is not complete. */
  merge(view: ClusterView, layers: readonly InodeConfig[], target: InodeConfig): Promise<void>;
  /** Deletes all data of the layer; rejects where something may have stayed. */
  purge(view: ClusterView, layer: InodeConfig): Promise<void>;
  /** A finished step, for people. */
  step(text: string): void;
}

/** Besides config/: what removeLayers() and flattenLayer() read. */
export const LAYER_PATHS = ['index/', 'inode/stats/'];

export interface RemovedLayers {
  /** Full inode numbers. */
  deletedIds: bigint[];
  deletedImages: string[];
  /** Images that have taken over data of what was removed. */
  rebasedImages: string[];
  /** The removed layer that has become `renamedTo` instead of being copied into it; '' = none. */
  renamedFrom: string;
  renamedTo: string;
}

export function nothingRemoved(): RemovedLayers {
  return { deletedIds: [], deletedImages: [], rebasedImages: [], renamedFrom: '', renamedTo: '' };
}

/** etcd takes 128 operations and 128 compares a transaction unless it is told otherwise. */
const MAX_LAYERS_COMPARED = 60;
const MAX_LAYERS_PER_TXN = 50;
/** Beyond them a child is rebased, however large it is. */
const MAX_GRANDCHILDREN = 30;
const MAX_POOLS_COMPARED = 30;

export function findLayer(view: ClusterView, name: string): InodeConfig {
  const image = view.imageByName(name);
  if (!image) throw new VitastorError('ERR_NOT_FOUND', `Layer ${name} not found`, { data: { image: name } });
  return image;
}

/**
 * From `from` up to its descendant `to`, lowest first. Throws ERR_NOT_FOUND, ERR_INVALID_ARGUMENT (no descendant) or
 * ERR_PARENT_LOOP.
 */
export function layerChain(view: ClusterView, from: string, to: string): InodeConfig[] {
  const [lowest, top] = [findLayer(view, from), findLayer(view, to)];
  const below = lowest === top ? [] : parentChain(view, top);
  const end = below.indexOf(lowest);
  if (lowest !== top && end < 0)
    throw new VitastorError('ERR_INVALID_ARGUMENT', `${top.name} is not a descendant of ${lowest.name}`);
  return [top, ...below.slice(0, end + 1)].reverse();
}

const same = (a: InodeConfig, b: InodeConfig): boolean => inodeKeyOf(a) === inodeKeyOf(b);
const reference = (layer: InodeConfig) => ({ pool: layer.pool, inode: layer.inode });
const configKey = (view: ClusterView, layer: InodeConfig): string => view.keys.configInode(layer.pool, layer.inode);

/** Images that stand on the chain and are not part of it, by full inode number. */
function childrenOutside(view: ClusterView, chain: readonly InodeConfig[]): InodeConfig[] {
  return chain
    .flatMap((layer) => view.childrenOf(layer.pool, layer.inode))
    .filter((child) => !chain.some((layer) => same(layer, child)))
    .sort((a, b) => (inodeKeyOf(a) < inodeKeyOf(b) ? -1 : 1));
}

/** The layers of the chain that the child reads, and the child: what is merged for it. */
function branch(chain: readonly InodeConfig[], child: InodeConfig): InodeConfig[] {
  const top = chain.findIndex((layer) => layer.pool === child.parent?.pool && layer.inode === child.parent.inode);
  return [...chain.slice(0, top + 1), child];
}

function unchanged(view: ClusterView, layers: readonly InodeConfig[]): Compare[] {
  const [lowest] = layers;
  const compared =
    lowest && layers.length > MAX_LAYERS_COMPARED ? [lowest, ...layers.slice(1 - MAX_LAYERS_COMPARED)] : layers;
  return compared.map((layer) => {
    const key = configKey(view, layer);
    return keyUnchangedSince(key, view.modRevision(key));
  });
}

export interface Inverse {
  child: InodeConfig;
  /** The layer of the chain that takes the child's data, and then its name. */
  target: InodeConfig;
}

/**
 * The child, nobody writing to it, that is smaller than a layer of the chain below it by most: its data moves down instead.
 * Only within a pool, and only into granules that are fine enough.
 */
export function chooseInverse(
  view: ClusterView,
  chain: readonly InodeConfig[],
  children: readonly InodeConfig[],
  writersStopped: boolean,
): Inverse | null {
  const used = (layer: InodeConfig): bigint => view.inodeStats.get(inodeKeyOf(layer))?.rawUsedBytes ?? 0n;
  const granularity = (layer: InodeConfig): number => view.pools.get(layer.pool)?.bitmapGranularityBytes ?? 0;
  let best: Inverse | null = null;
  let gain = 0n;
  for (const child of view.pools.size > MAX_POOLS_COMPARED ? [] : children) {
    if (!child.readonly && !writersStopped) continue;
    if (view.childrenOf(child.pool, child.inode).length > MAX_GRANDCHILDREN) continue;
    const layers = branch(chain, child);
    for (const target of layers.slice(0, -1)) {
      const fits = granularity(target) > 0 && layers.every((layer) => granularity(layer) % granularity(target) === 0);
      if (target.pool !== child.pool || !fits || used(target) - used(child) <= gain) continue;
      gain = used(target) - used(child);
      best = { child, target };
    }
  }
  return best;
}

/** Data that went into a layer while its removal deletes it would stay behind when its record is gone. */
function refuseDying(layer: InodeConfig): void {
  if (!layer.deleted) return;
  throw new VitastorError(
    'ERR_BUSY',
    `Image ${layer.name} is being removed: finish that first (rm ${layer.name}), or take the mark away (modify ${layer.name} --deleted 0)`,
    { data: { image: layer.name } },
  );
}

/** Puts changed records of layers. Every layer that `compared` names is as the view knows it, or ERR_CONFLICT. */
async function putLayers(
  context: AdminContext,
  about: InodeConfig,
  compared: readonly Compare[],
  layers: readonly InodeConfig[],
  more: readonly TxnOp[] = [],
): Promise<void> {
  const { view, etcd, limits } = context;
  const records = layers.map((layer) => ({ key: configKey(view, layer), value: encodeInodeConfig(layer) }));
  const result = await changeOnce(
    etcd,
    { compare: [...compared], success: [...records.map(({ key, value }) => putOp(key, value)), ...more] },
    limits,
    (seen) => records.every(({ value }, i) => seen[i]?.[0]?.value === stringifyJson(value)),
    records.map(({ key }) => ({ key })),
  );
  if (!result.succeeded) throw imageChanged(about.name);
}

/** Detaches `child` from the layers below it down to and with `chain[0]`, after their data is in it. */
async function rebase(context: AdminContext, layers: readonly InodeConfig[], child: InodeConfig): Promise<void> {
  const parent = layers[0]?.parent ?? null;
  await putLayers(context, child, unchanged(context.view, layers), [{ ...child, parent }]);
}

/** The chain as it is now. Throws ERR_CONFLICT where it is not the one that we began with. */
function chainNow(view: ClusterView, chain: readonly InodeConfig[]): InodeConfig[] {
  return chain.map((layer, i) => {
    const now = view.inodes.get(inodeKeyOf(layer));
    const below = chain[i - 1];
    const fits = now && (!below || (now.parent?.pool === below.pool && now.parent.inode === below.inode));
    if (!fits) throw imageChanged(layer.name);
    return now;
  });
}

/**
 * Removes the chain from `from` up to `to`. Images that stand on it get what they read of it, and stand on what is
 * below it. `done` tells what has been done, also when this rejects: ERR_NOT_FOUND, ERR_INVALID_ARGUMENT,
 * ERR_PARENT_LOOP, ERR_BUSY (a child is being removed), ERR_CONFLICT (somebody else changed one of the layers: repeat), and what merge and
 * purge reject with.
 */
export async function removeLayers(
  work: LayerWork,
  from: string,
  to: string,
  options: { writersStopped: boolean },
  done: RemovedLayers,
): Promise<void> {
  let context = await work.load();
  let chain = layerChain(context.view, from, to);
  const children = childrenOutside(context.view, chain);
  // On a loop or a missing parent no child can stand.
  if (chain[0] && children.length > 0) parentChain(context.view, chain[0]);
  children.forEach(refuseDying);
  work.check(context.view, [...chain, ...children]);
  const inverse = chooseInverse(context.view, chain, children, options.writersStopped);
  const stays = inverse && inodeKeyOf(inverse.child);
  for (;;) {
    const [child] = childrenOutside(context.view, chain).filter((image) => inodeKeyOf(image) !== stays);
    if (!child) break;
    refuseDying(child);
    const layers = branch(chain, child);
    await work.merge(context.view, layers, child);
    await rebase(context, layers, child);
    done.rebasedImages.push(child.name);
    work.step(`Layer ${child.name} took over what it reads of ${from === to ? from : `${from} to ${to}`}`);
    context = await work.load();
    chain = chainNow(context.view, chain);
  }
  for (const layer of chain.filter((one) => !one.deleted)) {
    await modifyImage(context, layer, { deleted: true });
    work.step(`Image ${layer.name} modified`);
  }
  // From here on nobody makes a clone of them (createImage); what was made until now is seen here.
  context = await work.load();
  chain = chainNow(context.view, chain);
  const late = childrenOutside(context.view, chain).find((image) => inodeKeyOf(image) !== stays);
  if (late) throw imageChanged(late.name);
  if (inverse) chain = await mergeDown(work, context, chain, inverse, done);
  await purgeAndForget(work, chain, done);
}

/** Moves the child's data into one of the layers below it, which then becomes the child. Returns the chain that is left. */
async function mergeDown(
  work: LayerWork,
  before: AdminContext,
  chain: readonly InodeConfig[],
  inverse: Inverse,
  done: RemovedLayers,
): Promise<InodeConfig[]> {
  const child = before.view.inodes.get(inodeKeyOf(inverse.child));
  const at = chain.findIndex((layer) => same(layer, inverse.target));
  const target = chain[at];
  if (!child || !target || !childrenOutside(before.view, chain).includes(child)) throw imageChanged(inverse.child.name);
  const layers = branch(chain, child);
  await work.merge(before.view, layers, target);
  const now = await work.load();
  const grandchildren = now.view.childrenOf(child.pool, child.inode);
  const { keys } = now.view;
  // What is left of the child takes the place and the name of the layer that has become the child: nothing of the chain
  // vanishes before its data does, and the same command finds it again.
  const remains: InodeConfig = {
    ...child, name: target.name, sizeBytes: target.sizeBytes, parent: target.parent, readonly: true, deleted: true, meta: null, raw: {},
  };
  const above = chain[at + 1];
  const success: TxnOp[] = [];
  if (child.name !== '') success.push(putOp(keys.indexImage(child.name), encodeImageIndex(target)));
  if (isIndexed(now.view, target)) success.push(putOp(keys.indexImage(target.name), encodeImageIndex(child)));
  await putLayers(
    now,
    child,
    [
      ...unchanged(before.view, layers),
      ...unchanged(now.view, grandchildren),
      ...(above ? unchanged(before.view, [above]) : []),
      // A clone that has been made since `now` was read would be left behind.
      ...[...now.view.pools.keys()].map((pool) => keyUnchangedSince(keys.indexMaxId(pool), now.view.revision)),
    ],
    [
      { ...child, pool: target.pool, inode: target.inode, parent: chain[0]?.parent ?? null },
      remains,
      ...(above ? [{ ...above, parent: reference(child) }] : []),
      ...grandchildren.map((image) => ({ ...image, parent: reference(target) })),
    ],
    success,
  );
  done.renamedFrom = target.name;
  done.renamedTo = child.name;
  work.step(`Layer ${target.name} took over the data of ${child.name} and is called so now`);
  return [...chain.slice(0, at), remains, ...chain.slice(at + 1)];
}

/** Topmost first, so that nothing ever stands on a layer whose data is gone; records last and together. */
async function purgeAndForget(work: LayerWork, chain: readonly InodeConfig[], done: RemovedLayers): Promise<void> {
  const { view } = await work.load();
  const late = childrenOutside(view, chainNow(view, chain))[0];
  if (late) throw imageChanged(late.name);
  const topFirst = [...chain].reverse();
  for (const layer of topFirst) {
    await work.purge(view, layer);
  }
  const context = await work.load();
  const records = chainNow(context.view, chain).reverse();
  for (let i = 0; i < records.length; i += MAX_LAYERS_PER_TXN) {
    const part = records.slice(i, i + MAX_LAYERS_PER_TXN);
    await forget(context, view, part);
    done.deletedIds.push(...part.map(inodeKeyOf));
    done.deletedImages.push(...part.map((layer) => layer.name));
  }
}

/** `before`: what was known of the layers when their data was still there. */
async function forget(context: AdminContext, before: ClusterView, layers: readonly InodeConfig[]): Promise<void> {
  const { view, etcd, limits } = context;
  const success = layers.map((layer) => deleteOp(configKey(view, layer)));
  for (const layer of layers) if (isIndexed(view, layer)) success.push(deleteOp(view.keys.indexImage(layer.name)));
  const look = layers.map((layer) => ({ key: configKey(view, layer) }));
  const result = await changeOnce(
    etcd,
    { compare: unchanged(before, layers), success },
    limits,
    (found) => found.every((pairs) => pairs.length === 0),
    look,
  );
  if (result.succeeded) return;
  const left = await readRanges(etcd, look, limits);
  const at = left.findIndex((pairs, i) => pairs[0]?.modRevision !== before.modRevision(look[i]?.key ?? ''));
  throw imageChanged(layers[Math.max(at, 0)]?.name ?? '');
}

/** Copies what the image reads of its parents into it and detaches it. False: it has none. Rejects as removeLayers(). */
export async function flattenLayer(work: LayerWork, name: string): Promise<{ layers: InodeConfig[]; changed: boolean }> {
  const context = await work.load();
  const layer = findLayer(context.view, name);
  const layers = [layer, ...parentChain(context.view, layer)].reverse();
  if (layers.length === 1) return { layers, changed: false };
  refuseDying(layer);
  work.check(context.view, layers);
  await work.merge(context.view, layers, layer);
  await putLayers(context, layer, unchanged(context.view, layers), [{ ...layer, parent: null }]);
  return { layers, changed: true };
}
