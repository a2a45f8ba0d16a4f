// SPDX-License-Identifier: GPL-2.0-or-later
// Pools: create, modify, delete, with the checks that keep people from losing data. Source: etcd schema 5.5, tools
// 2.15.

import type { ClusterView } from './cluster-view.js';
import { isVitastorError, VitastorError } from './errors.js';
import { changeOnce, keyUnchangedSince, putOp, readKey } from './etcd-calls.js';
import type { AdminContext } from './images.js';
import { isJsonObject, stringifyJson, type JsonObject } from './json.js';
import { decodePool, decodeRawPools, schemeOf, type BlockLayout, type PoolConfig } from './schema/pools.js';
import { ancestorOfLevel, isBelow, placementTree } from './tree.js';
import { formatSizeCompact } from './units.js';

/** Somebody else changes pools at the same time: read again, so often at most. */
const CHANGE_ATTEMPTS = 100;

const invalid = (text: string): VitastorError => new VitastorError('ERR_INVALID_ARGUMENT', text);

/** A pool by id or name. Throws ERR_NOT_FOUND, ERR_BAD_VALUE (it stands there and cannot be read). */
export function findPool(view: ClusterView, idOrName: string): PoolConfig {
  const byId = /^\d+$/.test(idOrName) ? view.pools.get(Number(idOrName)) : undefined;
  const pool = byId ?? view.poolByName(idOrName);
  if (!pool && /^\d+$/.test(idOrName) && view.invalidPools.has(Number(idOrName)))
    throw new VitastorError('ERR_BAD_VALUE', `Pool ${idOrName} in /config/pools is not valid: correct it in etcd first`);
  if (!pool) throw new VitastorError('ERR_NOT_FOUND', `Pool ${idOrName} does not exist`, { data: { pool: idOrName } });
  return pool;
}

/** Which OSDs may hold data of a pool, so far as a check before creation can tell. */
interface Candidates {
  /** Failure domains with at least one fitting OSD. */
  domains: ReadonlySet<string>;
  layout: BlockLayout;
}

const COMMIT_RANK = { none: 0, small: 1, all: 2 } as const;

function candidates(
  view: ClusterView,
  pool: PoolConfig,
  entry: JsonObject,
  nowMs: number,
  outTimeSeconds: number,
): Candidates {
  const nodes = placementTree(view);
  const seen = [...view.osdStats].filter(
    ([osd, stats]) =>
      (view.osdStates.has(osd) || (stats.timeMs !== null && stats.timeMs >= nowMs - outTimeSeconds * 1000)) &&
      (view.osdConfig.get(osd)?.reweight ?? 1) > 0 &&
      pool.osdTags.every((tag) => view.osdConfig.get(osd)?.tags.includes(tag)) &&
      (pool.rootNode === '' || isBelow(nodes, String(osd), pool.rootNode)),
  );
  const layout = guessLayout(
    pool,
    entry,
    seen.map(([, stats]) => stats),
  );
  const domains = new Set<string>();
  for (const [osd, stats] of seen) {
    const fits =
      (stats.blockSizeBytes === 0 || stats.blockSizeBytes === layout.blockSizeBytes) &&
      (stats.bitmapGranularityBytes === 0 || stats.bitmapGranularityBytes === layout.bitmapGranularityBytes) &&
      (stats.immediateCommit === null || COMMIT_RANK[stats.immediateCommit] >= COMMIT_RANK[layout.immediateCommit]);
    const domain = fits ? ancestorOfLevel(nodes, String(osd), pool.failureDomain) : null;
    if (domain !== null) domains.add(domain);
  }
  return { domains, layout };
}

/** What the pool does not say is taken from most of the OSDs, where none of them has the inherited layout. */
function guessLayout(
  pool: PoolConfig,
  entry: JsonObject,
  osds: readonly {
    blockSizeBytes: number;
    bitmapGranularityBytes: number;
    immediateCommit: BlockLayout['immediateCommit'] | null;
  }[],
): BlockLayout {
  const most = <T,>(values: readonly T[], inherited: T): T => {
    if (values.length === 0 || values.includes(inherited)) return inherited;
    const counts = new Map<T, number>();
    for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    return [...counts].reduce((best, next) => (next[1] > best[1] ? next : best))[0];
  };
  const commits = osds.map((osd) => osd.immediateCommit).filter((commit) => commit !== null);
  return {
    blockSizeBytes:
      entry['block_size'] !== undefined
        ? pool.blockSizeBytes
        : most(
            osds.map((o) => o.blockSizeBytes).filter((n) => n > 0),
            pool.blockSizeBytes,
          ),
    bitmapGranularityBytes:
      entry['bitmap_granularity'] !== undefined
        ? pool.bitmapGranularityBytes
        : most(
            osds.map((o) => o.bitmapGranularityBytes).filter((n) => n > 0),
            pool.bitmapGranularityBytes,
          ),
    immediateCommit:
      entry['immediate_commit'] !== undefined ? pool.immediateCommit : most(commits, pool.immediateCommit),
  };
}

export interface PoolCheck {
  /** Leave the checks against OSDs out, and allow what loses data. */
  force: boolean;
  nowMs: number;
  osdOutTimeSeconds: number;
}

function decoded(view: ClusterView, id: number, entry: JsonObject): PoolConfig {
  try {
    return decodePool(id, entry, view.layout, '');
  } catch (error) {
    if (!isVitastorError(error, 'ERR_BAD_VALUE')) throw error;
    throw invalid(`Pool parameters are wrong: ${error.message.replace('field .', 'field ')}`);
  }
}

/**
 * The entry to store for a new pool: checked, with the block layout of the OSDs where it differs. Throws
 * ERR_INVALID_ARGUMENT.
 */
export function prepareNewPool(view: ClusterView, entry: JsonObject, check: PoolCheck): JsonObject {
  const pool = decoded(view, 1, entry);
  if (check.force) return entry;
  const { domains, layout } = candidates(view, pool, entry, check.nowMs, check.osdOutTimeSeconds);
  if (domains.size < pool.pgSize) {
    throw invalid(
      [
        'Not enough matching OSDs to create pool. Change parameters or add --force to create a degraded pool.',
        '',
        `At least ${pool.pgSize} (pg_size=${pool.pgSize}) OSDs should have:`,
        `- block_size ${formatSizeCompact(layout.blockSizeBytes)}`,
        `- bitmap_granularity ${formatSizeCompact(layout.bitmapGranularityBytes)}`,
        `- immediate_commit ${layout.immediateCommit}`,
        ...(pool.osdTags.length ? [`- '${pool.osdTags.join(`', '`)}' tags`] : []),
        ...(pool.rootNode ? [`- '${pool.rootNode}' above them in the tree`] : []),
        ...(pool.failureDomain === 'osd' ? [] : [`- different parent '${pool.failureDomain}' nodes`]),
      ].join('\n'),
    );
  }
  return {
    ...entry,
    ...(layout.blockSizeBytes === pool.blockSizeBytes ? {} : { block_size: layout.blockSizeBytes }),
    ...(layout.bitmapGranularityBytes === pool.bitmapGranularityBytes
      ? {}
      : { bitmap_granularity: layout.bitmapGranularityBytes }),
    ...(layout.immediateCommit === pool.immediateCommit ? {} : { immediate_commit: layout.immediateCommit }),
  };
}

/** What must not change under existing data. Throws ERR_INVALID_ARGUMENT unless forced. */
export function checkPoolChange(
  view: ClusterView,
  before: PoolConfig,
  entry: JsonObject,
  check: PoolCheck,
): PoolConfig {
  const refuse = (what: string): VitastorError =>
    invalid(`Changing ${what} for an existing pool will lead to data loss. Use --force to proceed`);
  // Before the rest is looked at: another scheme makes other fields wrong, and those are not the news.
  if (!check.force && schemeOf(entry['scheme']) !== before.scheme) throw refuse('scheme');
  const after = decoded(view, before.id, entry);
  if (check.force) return after;
  if (after.scheme === 'xor' && after.pgSize !== before.pgSize) throw refuse('PG size');
  if (after.dataChunks !== before.dataChunks) throw refuse('EC data chunk count');
  if (after.blockSizeBytes !== before.blockSizeBytes) throw refuse('block_size');
  if (after.bitmapGranularityBytes !== before.bitmapGranularityBytes) throw refuse('bitmap_granularity');
  if (after.immediateCommit !== before.immediateCommit) throw refuse('immediate_commit');
  if (after.pgStripeSizeBytes !== before.pgStripeSizeBytes) throw refuse('pg_stripe_size');
  if (after.usedForApp !== before.usedForApp && after.usedForApp !== '') checkNoOtherImages(view, after);
  return after;
}

function checkNoOtherImages(view: ClusterView, pool: PoolConfig): void {
  const own = pool.usedForApp.startsWith('fs:') ? pool.usedForApp.slice(3) : null;
  const others = [...view.inodes.values()].filter((image) => image.pool === pool.id && image.name !== own);
  if (others.length) {
    throw invalid(
      `Pool ${pool.name} contains images (${others
        .slice(0, 3)
        .map((image) => image.name)
        .join(', ')}${others.length > 3 ? ', …' : ''}) and can't be given to ${pool.usedForApp}`,
    );
  }
}

/** Reads, edits and writes /config/pools until nobody interferes. `edit` returns the new entries; it may throw. */
async function editPools(context: AdminContext, edit: (pools: JsonObject) => JsonObject): Promise<JsonObject> {
  const key = context.view.keys.configPools;
  for (let attempt = 0; attempt < CHANGE_ATTEMPTS; attempt++) {
    const kv = await readKey(context.etcd, key, context.limits);
    const next = edit(decodeRawPools(kv?.value ?? ''));
    const text = stringifyJson(next);
    const result = await changeOnce(
      context.etcd,
      { compare: [keyUnchangedSince(key, kv?.modRevision ?? 0n)], success: [putOp(key, next)] },
      context.limits,
      (seen) => seen[0]?.[0]?.value === text,
      [{ key }],
    );
    if (result.succeeded) return next;
  }
  throw new VitastorError('ERR_CONFLICT', 'Pools are being changed by someone else all the time, try again', {
    retryable: true,
  });
}

const nameOf = (entry: unknown): unknown =>
  typeof entry === 'object' && entry !== null && 'name' in entry ? entry.name : undefined;

/** Stores a prepared entry under the next free number. Throws ERR_EXISTS when the name was taken meanwhile. */
export async function createPool(context: AdminContext, entry: JsonObject): Promise<{ id: number; pools: JsonObject }> {
  let id = 0;
  const pools = await editPools(context, (before) => {
    if (Object.values(before).some((other) => nameOf(other) === entry['name']))
      throw new VitastorError('ERR_EXISTS', `Pool ${String(entry['name'])} already exists`);
    // Images that a removed pool left behind must not turn up in the new one.
    const left = [...context.view.inodes.values()].map((image) => image.pool);
    id = Math.max(0, ...left, ...Object.keys(before).map(Number).filter(Number.isSafeInteger)) + 1;
    return { ...before, [String(id)]: entry };
  });
  return { id, pools };
}

/** Sets (null: removes) fields of a pool, after the checks. Returns all entries. */
export async function modifyPool(
  context: AdminContext,
  pool: PoolConfig,
  fields: JsonObject,
  check: PoolCheck,
): Promise<JsonObject> {
  return editPools(context, (before) => {
    const old = before[String(pool.id)];
    if (!isJsonObject(old)) throw new VitastorError('ERR_NOT_FOUND', `Pool ${pool.name} does not exist`);
    const entry = Object.fromEntries(Object.entries({ ...old, ...fields }).filter(([, value]) => value !== null));
    const clash = Object.entries(before).some(
      ([id, other]) => id !== String(pool.id) && nameOf(other) === entry['name'],
    );
    if (clash) throw new VitastorError('ERR_EXISTS', `Pool ${String(entry['name'])} already exists`);
    checkPoolChange(context.view, decoded(context.view, pool.id, old), entry, check);
    return { ...before, [String(pool.id)]: entry };
  });
}

/**
 * Takes a pool away; the monitor stops its PGs. Throws ERR_NOT_EMPTY while images exist, unless forced. Returns the
 * remaining entries.
 */
export async function deletePool(context: AdminContext, pool: PoolConfig, force: boolean): Promise<JsonObject> {
  const images = [...context.view.inodes.values()].filter((image) => image.pool === pool.id).map((image) => image.name);
  if (images.length && !force) {
    throw new VitastorError(
      'ERR_NOT_EMPTY',
      `Pool ${pool.name} cannot be removed as it still has the following images/snapshots associated with it: ${images.join(', ')}`,
    );
  }
  return editPools(context, (before) => {
    if (before[String(pool.id)] === undefined)
      throw new VitastorError('ERR_NOT_FOUND', `Pool ${pool.name} does not exist`);
    const { [String(pool.id)]: _gone, ...rest } = before;
    return rest;
  });
}
