// SPDX-License-Identifier: GPL-2.0-or-later
// OSD numbers and what an administrator says about an OSD (/config/osd/N). Source: etcd schema 4.4 and 5.6, safety 6.

import type { ClusterView } from './cluster-view.js';
import { isVitastorError, VitastorError } from './errors.js';
import { changeOnce, deleteOp, keyAbsent, keyAt, putOp, readKey, readRanges } from './etcd-calls.js';
import type { AdminContext } from './images.js';
import { stringifyJson, type JsonObject } from './json.js';
import { osdsOfHistory, osdsOfMap, rawObject } from './osd-names.js';
import { decodeOsdConfig, encodeOsdConfig, type OsdConfig } from './schema/config.js';
import type { KeyValue } from './seams/etcd.js';

/** Somebody else takes numbers, or changes the same OSD, at the same time: read again, so often at most. */
const CHANGE_ATTEMPTS = 100;

/** The OSD has reported to etcd, or is up. */
export function isKnownOsd(view: ClusterView, osd: number): boolean {
  return view.osdStats.has(osd) || view.osdStates.has(osd);
}

/**
 * Reserves the smallest free number by an empty /osd/stats/N. Not free are also numbers that PGs or their histories
 * still name: an empty disk under such a number would pass for the lost one. Throws ERR_BAD_VALUE (a record that names
 * OSDs cannot be read), ERR_CONFLICT, ERR_ETCD_UNAVAILABLE: a number may then be reserved without anybody knowing it;
 * rm-osd frees it.
 */
export async function allocateOsd(context: AdminContext): Promise<number> {
  const { etcd, limits, view: { keys } } = context;
  let silent = 0;
  for (let attempt = 0; attempt < CHANGE_ATTEMPTS; attempt++) {
    const [stats = [], states = [], map = [], oldMap = [], clean = [], histories = []] = await readRanges(
      etcd,
      [
        { prefix: keys.at('osd/stats/') },
        { prefix: keys.at('osd/state/') },
        { key: keys.pgConfig },
        { key: keys.oldPgConfig },
        { key: keys.lastCleanPgs },
        { prefix: keys.at('pg/history/') },
      ],
      limits,
    );
    const osd = smallestFree([
      ...[...stats, ...states].map((kv) => osdOfKey(context.view, kv)),
      ...[...map, ...oldMap, ...clean].filter(hasValue).flatMap((kv) => [...osdsOfMap(kv.key, kv.value).values()].flatMap((osds) => [...osds])),
      ...histories.filter(hasValue).flatMap((kv) => [...osdsOfHistory(kv.key, kv.value)]),
    ]);
    try {
      // A number can come into a history only by way of pg/config.
      const compare = [
        keyAbsent(keys.osdStats(osd)),
        keyAbsent(keys.osdState(osd)),
        keyAt(keys.pgConfig, map[0]?.modRevision ?? 0n),
      ];
      const result = await etcd.txn({ compare, success: [putOp(keys.osdStats(osd), {})] }, limits.timeoutMs);
      if (result.succeeded) return osd;
    } catch (error) {
      // Whether the number is ours cannot be told from somebody else's having it: go on with the next one.
      if (!isVitastorError(error) || !error.retryable || ++silent >= limits.attempts) throw error;
    }
  }
  throw new VitastorError('ERR_CONFLICT', 'No OSD number was allocated: too many others do so at the same time, try again', {
    retryable: true,
  });
}

const hasValue = (kv: KeyValue): boolean => kv.value !== '';

function osdOfKey(view: ClusterView, kv: KeyValue): number {
  const parsed = view.keys.parse(kv.key);
  return parsed?.kind === 'osd/stats' || parsed?.kind === 'osd/state' ? parsed.osd : 0;
}

function smallestFree(taken: readonly number[]): number {
  const numbers = new Set(taken);
  let osd = 1;
  while (numbers.has(osd)) osd++;
  return osd;
}

/** Changes settings of an OSD. Returns what is stored then ({}: all at their defaults). Throws ERR_BAD_VALUE, ERR_CONFLICT. */
export async function modifyOsd(context: AdminContext, osd: number, change: Partial<OsdConfig>): Promise<JsonObject> {
  const { etcd, limits } = context;
  const key = context.view.keys.configOsd(osd);
  for (let attempt = 0; attempt < CHANGE_ATTEMPTS; attempt++) {
    const kv = await readKey(etcd, key, limits);
    const before = kv ? rawObject(key, kv.value) : {};
    const next = encodeOsdConfig({ ...decodeOsdConfig(before, ''), ...change }, before);
    if (next === null && !kv) return {};
    const text = next === null ? undefined : stringifyJson(next);
    const result = await changeOnce(
      etcd,
      {
        compare: [keyAt(key, kv?.modRevision ?? 0n)],
        success: [next === null ? deleteOp(key) : putOp(key, next)],
      },
      limits,
      (seen) => seen[0]?.[0]?.value === text,
      [{ key }],
    );
    if (result.succeeded) return next ?? {};
  }
  throw new VitastorError('ERR_CONFLICT', `OSD ${osd} is being changed by someone else all the time, try again`, {
    retryable: true,
  });
}
