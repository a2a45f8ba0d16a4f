// SPDX-License-Identifier: GPL-2.0-or-later
// May this disk become, or be, the store of this OSD? Not an empty one, and not one from the past.
//
// May an empty disk become the store of this OSD? Not while a PG still counts on what the old disk with that number held: the PG would
// take the empty one for it, and go on without data that was acknowledged (safety.md 6).

import {
  decodeOsdStats, decodePgConfig, decodePgHistory, decodeText, type Etcd, type KeySpace,
} from '@vitastor/core';
import type { StoreStats } from './engine.js';

/** The key that names the OSD, and in words how; null: its number is free. Throws as Etcd does; what cannot be read counts as naming it. */
export async function namedBy(etcd: Etcd, keys: KeySpace, osd: number, timeoutMs: number): Promise<string | null> {
  const found = await etcd.txn({
    compare: [],
    success: [
      { op: 'range', range: { key: keys.pgConfig } },
      { op: 'range', range: { key: keys.oldPgConfig } },
      { op: 'range', range: { prefix: keys.at('pg/history/') } },
    ],
  }, timeoutMs);
  const [current, old, histories] = found.responses;
  const config = current?.[0] ?? old?.[0];
  if (config) {
    try {
      for (const [pool, pgs] of decodePgConfig(config.key, config.value).config.items) {
        for (const [index, pg] of pgs.entries()) {
          if (pg && (pg.osdSet.includes(osd) || pg.primary === osd)) return `pg/config of PG ${pool}/${index + 1}`;
        }
      }
    } catch {
      return `${config.key}, which cannot be read`;
    }
  }
  for (const { key, value } of histories ?? []) {
    try {
      const history = decodeText(decodePgHistory, value);
      if (history.allPeers.includes(osd) || history.osdSets.some((set) => set.includes(osd))) {
        return `pg/history of PG ${key.slice(keys.at('pg/history/').length)}`;
      }
    } catch {
      return `${key}, which cannot be read`;
    }
  }
  return null;
}

/**
 * The write of the log that this OSD has reported as durable, if its store ends before that; null: it does not, or nothing is known. A store
 * that does is a copy from the past that was put back, or its disk has lost writes that it had confirmed: what was deleted since would come
 * back with it, and peering, which believes the newest version it sees, could not tell. Throws as Etcd does.
 */
export async function newerThan(store: StoreStats, etcd: Etcd, keys: KeySpace, osd: number, timeoutMs: number): Promise<bigint | null> {
  const key = keys.osdStats(osd);
  const found = await etcd.txn({ compare: [], success: [{ op: 'range', range: { key } }] }, timeoutMs);
  const value = found.responses[0]?.[0]?.value;
  if (value === undefined) return null;
  try {
    const reported = decodeText(decodeOsdStats, value).store;
    const sequence = reported.get('log_sequence') ?? 0n;
    return reported.get('uuid') === store.uuid && sequence > store.logSequence ? sequence : null;
  } catch {
    return null;
  }
}
