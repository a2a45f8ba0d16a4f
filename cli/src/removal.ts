// SPDX-License-Identifier: GPL-2.0-or-later
// Removing data of an inode: progress, result, and when it counts as failed. Source: tools 2.9.

import { decodeRawPools, formatCount, VitastorError, type ClusterView, type JsonObject, type RemoveDataProgress, type RemoveDataResult } from '@vitastor/core';
import { wholeNumber } from './list-flags.js';
import { Pace } from './progress.js';
import type { Session } from './session.js';

export interface RemovalTarget {
  pool: number;
  inode: bigint;
  minOffset: bigint;
  maxOffset: bigint | null;
  /** The object that minOffset lies in is zeroed from there on. */
  cut?: boolean;
}

export interface RemovalOptions {
  waitList: boolean;
  downOk: boolean;
}

export interface Removal {
  json: JsonObject;
  /** null: everything is gone. */
  error: VitastorError | null;
}

/** Besides config/: what removeData() needs of the view. */
export const REMOVAL_PATHS = ['pg/config', 'pgstats/'];

const NOTHING: RemoveDataResult = { removedObjects: 0n, totalObjects: 0n, errorCount: 0n, inactiveOsds: [], inactivePgs: [] };

/**
 * true: the pool never had a placement group, or was deleted, so that there is no data. Throws where data may be there and nobody can say
 * on which OSDs: ERR_BAD_VALUE (its record cannot be read), ERR_IO (its placement groups cannot).
 */
export function isWithoutData(view: ClusterView, pool: number): boolean {
  if ((view.pgConfig?.items.get(pool)?.length ?? 0) > 0 && view.pools.has(pool)) return false;
  const raw = decodeRawPools(view.entry(view.keys.configPools)?.value ?? '');
  if (!view.pools.has(pool) && raw[String(pool)] !== undefined && raw[String(pool)] !== null)
    throw new VitastorError('ERR_BAD_VALUE', `Pool ${pool} in /config/pools is not valid: correct it in etcd first`);
  if (!view.pools.has(pool)) return true;
  const map = view.entry(view.keys.pgConfig) ?? view.entry(view.keys.oldPgConfig);
  const hadPgs = view.pgStats.ofPool(pool).size > 0 || (map !== undefined && (view.pgConfig === null || view.pgConfig.items.has(pool)));
  if (!hadPgs) return true;
  throw new VitastorError(
    'ERR_IO',
    `Pool ${view.pools.get(pool)?.name ?? pool} has data, but /pg/config does not say where: repeat the command when the monitor has placed it`,
    { retryable: true },
  );
}

/** --iodepth and --parallel_osds, which every command that works on data has. */
export function dataOption(session: Session, name: 'iodepth' | 'parallel_osds', absent: number): number {
  const value = session.options.parameters[name];
  return value === undefined ? absent : wholeNumber(`--${name}`, value, 1);
}

/** Rejects only where nothing could be tried. The view holds REMOVAL_PATHS. */
export async function removeData(
  session: Session,
  view: ClusterView,
  target: RemovalTarget,
  options: RemovalOptions,
): Promise<Removal> {
  if (isWithoutData(view, target.pool)) return { json: resultJson(NOTHING), error: null };
  const config = await session.config();
  const ops = await session.dataOps();
  const pgs = BigInt(view.pgConfig?.items.get(target.pool)?.length ?? 0);
  const pace = new Pace(session.environment.clock);
  const result = await ops.deleteInodeData({
    ...target, ...options, iodepth: dataOption(session, 'iodepth', 32), parallelOsds: dataOption(session, 'parallel_osds', 4),
    waitUpTimeoutMs: config.number('client_wait_up_timeout') * 1000,
  }, (progress) => session.progress(removalText(progress, pgs, pace), false), session.environment.signal);
  if (result.totalObjects > 0n)
    session.progress(`Removed ${result.removedObjects}/${result.totalObjects} objects`, true);
  return { json: resultJson(result), error: judge(result, options) };
}

/** How long it takes is worked out as if the PGs that are not listed yet had as many objects as the others. */
export function removalText({ removedObjects, totalObjects, unlistedPgs }: RemoveDataProgress, pgs: bigint, pace: Pace): string {
  const expected = pgs > unlistedPgs ? (totalObjects * pgs) / (pgs - unlistedPgs) : null;
  const rate = pace.text(removedObjects, formatCount, removedObjects, expected);
  const toList = unlistedPgs > 0n ? `${unlistedPgs} PGs to list` : 'all PGs listed';
  return `Removed ${removedObjects}/${totalObjects} objects${rate}, ${toList}...`;
}

function resultJson(result: RemoveDataResult): JsonObject {
  return {
    removed_objects: result.removedObjects, total_objects: result.totalObjects, error_count: result.errorCount,
    inactive_osds: [...result.inactiveOsds], inactive_pgs: [...result.inactivePgs],
  };
}

function judge(result: RemoveDataResult, options: RemovalOptions): VitastorError | null {
  const reasons: string[] = [];
  if (result.errorCount > 0n) reasons.push(`${result.errorCount} objects could not be removed`);
  if (result.inactivePgs.length)
    reasons.push(`PGs ${result.inactivePgs.join(', ')} are inactive and could not be listed`);
  if (result.inactiveOsds.length && !options.downOk) {
    reasons.push(
      `some data may remain on OSDs which are currently down: ${result.inactiveOsds.join(', ')} (--down-ok accepts that)`,
    );
  }
  if (!reasons.length) return null;
  return new VitastorError(
    'ERR_IO',
    `Failed: some blocks were not removed: ${reasons.join('; ')}. Repeat the command when the cluster is healthy`,
    { retryable: true },
  );
}
