// SPDX-License-Identifier: GPL-2.0-or-later
// Switches of the whole cluster: booleans in /config/global that operators turn on for a while. Source: configuration 6.

import type { ClusterView } from './cluster-view.js';
import { isParameter, parameter } from './config/parameters.js';
import { VitastorError } from './errors.js';
import { changeOnce, keyAt, putOp, readKey } from './etcd-calls.js';
import type { AdminContext } from './images.js';
import { stringifyJson, type JsonObject } from './json.js';
import { rawObject } from './osd-names.js';
import { parseBoolean } from './units.js';

/** What it does while it is set. */
export const CLUSTER_FLAGS = {
  no_recovery: 'degraded objects are not recovered',
  no_rebalance: 'misplaced objects are not moved',
  no_scrub: 'scrubs are suspended',
  readonly: 'OSDs that start open their stores for reading only',
} as const;

export type ClusterFlag = keyof typeof CLUSTER_FLAGS;

export function isClusterFlag(name: string): name is ClusterFlag {
  return Object.hasOwn(CLUSTER_FLAGS, name);
}

export function clusterFlags(): ClusterFlag[] {
  return Object.keys(CLUSTER_FLAGS).filter(isClusterFlag);
}

/** Running OSDs take it over at once; else when they start. */
export function isOnlineFlag(flag: ClusterFlag): boolean {
  return isParameter(flag) && parameter(flag).online === true;
}

/** What makes no sense counts as not set. */
export function isFlagSet(view: ClusterView, flag: ClusterFlag): boolean {
  return parseBoolean(view.global[flag] ?? null) ?? false;
}

const CHANGE_ATTEMPTS = 100;

/**
 * Sets (true) or removes (false) flags in /config/global and keeps every other key. Returns those that were otherwise
 * before. Throws ERR_BAD_VALUE (what stands there is no JSON object: nothing was written), ERR_CONFLICT.
 */
export async function changeFlags(context: AdminContext, flags: readonly ClusterFlag[], on: boolean): Promise<ClusterFlag[]> {
  const key = context.view.keys.configGlobal;
  for (let attempt = 0; attempt < CHANGE_ATTEMPTS; attempt++) {
    const kv = await readKey(context.etcd, key, context.limits);
    const before = kv ? rawObject(key, kv.value) : {};
    const changed = flags.filter((flag) => (on ? parseBoolean(before[flag] ?? null) !== true : before[flag] !== undefined));
    if (changed.length === 0) return [];
    const next: JsonObject = Object.fromEntries(
      Object.entries(before).filter(([name]) => !changed.some((flag) => flag === name)),
    );
    if (on) for (const flag of changed) next[flag] = true;
    const text = stringifyJson(next);
    const result = await changeOnce(
      context.etcd,
      { compare: [keyAt(key, kv?.modRevision ?? 0n)], success: [putOp(key, next)] },
      context.limits,
      (seen) => seen[0]?.[0]?.value === text,
      [{ key }],
    );
    if (result.succeeded) return changed;
  }
  throw new VitastorError('ERR_CONFLICT', `${key} is being changed by someone else all the time, try again`, {
    retryable: true,
  });
}
