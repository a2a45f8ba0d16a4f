// SPDX-License-Identifier: GPL-2.0-or-later
// OSD numbers as they stand in pg/config, history/last_clean_pgs and pg/history: which ones are named, and the record
// without some of them. Works on the raw JSON, so that fields and encodings we do not know stay as they are.

import { parseInteger } from './config/values.js';
import { problemOf, problemText } from './decode.js';
import { VitastorError } from './errors.js';
import { isJsonObject, parseJson, stringifyJson, type JsonObject, type JsonValue } from './json.js';

/** The object in a key. Throws ERR_BAD_VALUE that names the key. */
export function rawObject(key: string, text: string): JsonObject {
  try {
    const value = parseJson(text);
    if (isJsonObject(value)) return value;
  } catch (error) {
    const problem = problemOf(key, error);
    throw new VitastorError('ERR_BAD_VALUE', `${problemText(problem)}. Correct it in etcd first`, { data: { key } });
  }
  throw new VitastorError('ERR_BAD_VALUE', `key ${key}: not a JSON object. Correct it in etcd first`, { data: { key } });
}

/** 0: an empty slot, or no number at all. */
function osdOf(value: JsonValue | undefined): number {
  return parseInteger(value ?? null) ?? 0;
}

function listed(value: JsonValue | undefined): number[] {
  return Array.isArray(value) ? value.map(osdOf).filter((osd) => osd !== 0) : [];
}

/** Pool and entry of each PG of a map, as far as these are objects. */
function* mapEntries(map: JsonObject): Generator<[pool: string, pg: JsonObject]> {
  for (const [pool, pgs] of Object.entries(isJsonObject(map['items']) ? map['items'] : {})) {
    for (const pg of Object.values(isJsonObject(pgs) ? pgs : {})) if (isJsonObject(pg)) yield [pool, pg];
  }
}

/** Pool → its OSDs, of pg/config or last_clean_pgs. */
export function osdsOfMap(key: string, text: string): Map<string, Set<number>> {
  const found = new Map<string, Set<number>>();
  for (const [pool, pg] of mapEntries(rawObject(key, text))) {
    const osds = found.get(pool) ?? new Set<number>();
    found.set(pool, osds);
    for (const osd of [...listed(pg['osd_set']), osdOf(pg['primary'])]) if (osd !== 0) osds.add(osd);
  }
  return found;
}

/** pg/config or last_clean_pgs with an empty slot in the place of every OSD of `gone`; null: none of them is in it. */
export function mapWithoutOsds(key: string, text: string, gone: ReadonlySet<number>): string | null {
  const map = rawObject(key, text);
  let changed = false;
  for (const [, pg] of mapEntries(map)) {
    const { osd_set: set, primary } = pg;
    if (Array.isArray(set) && set.some((osd) => gone.has(osdOf(osd)))) {
      pg['osd_set'] = set.map((osd) => (gone.has(osdOf(osd)) ? 0 : osd));
      changed = true;
    }
    if (gone.has(osdOf(primary))) {
      pg['primary'] = 0;
      changed = true;
    }
  }
  return changed ? stringifyJson(map) : null;
}

/** Of pg/history. */
export function osdsOfHistory(key: string, text: string): Set<number> {
  const { osd_sets: sets, all_peers: peers } = rawObject(key, text);
  return new Set([...(Array.isArray(sets) ? sets.flatMap(listed) : []), ...listed(peers)]);
}

/** pg/history without the OSDs of `gone`; sets that become empty go. null: none of them is in it. */
export function historyWithoutOsds(key: string, text: string, gone: ReadonlySet<number>): string | null {
  if (![...osdsOfHistory(key, text)].some((osd) => gone.has(osd))) return null;
  const history = rawObject(key, text);
  const { osd_sets: sets, all_peers: peers } = history;
  const stays = (osd: JsonValue): boolean => !gone.has(osdOf(osd));
  if (Array.isArray(peers)) history['all_peers'] = peers.filter(stays);
  if (Array.isArray(sets)) {
    history['osd_sets'] = sets
      .map((set) => (Array.isArray(set) ? set.filter(stays) : set))
      .filter((set) => !Array.isArray(set) || listed(set).length > 0);
  }
  return stringifyJson(history);
}
