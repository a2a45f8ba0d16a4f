// SPDX-License-Identifier: GPL-2.0-or-later
// Removing data of an inode: progress, result, and when it counts as failed. Source: tools 2.9.

import { VitastorError, type JsonObject, type RemoveDataResult } from '@vitastor/core';
import { wholeNumber } from './list-flags.js';
import type { Session } from './session.js';

export interface RemovalTarget {
  pool: number;
  inode: bigint;
  minOffset: bigint;
  maxOffset: bigint | null;
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

/** Rejects only where nothing could be tried. */
export async function removeData(session: Session, target: RemovalTarget, options: RemovalOptions): Promise<Removal> {
  const config = await session.config();
  const ops = await session.dataOps();
  const number = (name: string, absent: number): number => {
    const value = session.options.parameters[name];
    return value === undefined ? absent : wholeNumber(`--${name}`, value, 1);
  };
  const result = await ops.deleteInodeData({
    ...target, ...options, iodepth: number('iodepth', 32), parallelOsds: number('parallel_osds', 4),
    waitUpTimeoutMs: config.number('client_wait_up_timeout') * 1000,
  }, (progress) => {
    const toList = progress.listed ? 'all PGs listed' : 'listing PGs';
    session.progress(`Removed ${progress.removedObjects}/${progress.totalObjects} objects, ${toList}...`, false);
  }, session.environment.signal);
  if (result.totalObjects > 0n)
    session.progress(`Removed ${result.removedObjects}/${result.totalObjects} objects`, true);
  return { json: resultJson(result), error: judge(result, options) };
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
