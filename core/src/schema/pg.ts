// SPDX-License-Identifier: GPL-2.0-or-later
// Placement groups in etcd: pg/config, history/last_clean_pgs, pg/state, pg/history, pgstats. Source: etcd schema 4.8
// to 4.12.

import {
  array, boolean, integer, json, object, osdNum, osdNumOrZero, problemOf, string, u64, type Decoder, type Problem,
} from '../decode.js';
import { isJsonObject, parseJson, type JsonObject, type JsonValue } from '../json.js';

/** One PG of the map. */
export interface PgItem {
  /** One OSD number a slot, 0 = empty. Order = role. */
  osdSet: number[];
  /** 0 = none. */
  primary: number;
  /** OSDs must stop this PG. */
  pause: boolean;
}

/** Pool → its PGs; index i holds PG i + 1. */
export type PgItems = Map<number, PgItem[]>;

export interface PgConfig {
  /** SHA-1 of the inputs of the last placement run; '' forces a full one. */
  hash: string;
  items: PgItems;
  /** Pools whose rebalance must not go on. */
  backfillfullPools: number[];
}

const pgItem: Decoder<PgItem> = object((f) => ({
  osdSet: f.required('osd_set', array(osdNumOrZero)),
  primary: f.optional('primary', osdNumOrZero, 0),
  pause: f.optional('pause', boolean, false),
}));

function decodeItems(key: string, value: JsonValue | undefined): { items: PgItems; problems: Problem[] } {
  const items: PgItems = new Map();
  const problems: Problem[] = [];
  if (value === undefined || value === null) return { items, problems };
  for (const [poolText, pgs] of Object.entries(object((f) => f.raw)(value, 'items'))) {
    const path = `items.${poolText}`;
    try {
      items.set(integer(1, 65535)(poolText, path), decodePoolItems(pgs, path, problems, key));
    } catch (error) {
      problems.push(problemOf(key, error));
    }
  }
  return { items, problems };
}

/** A gap in the numbers makes the pool one without PGs: mapping by a wrong count would be worse than waiting. */
function decodePoolItems(value: JsonValue, path: string, problems: Problem[], key: string): PgItem[] {
  const raw = object((f) => f.raw)(value, path);
  const count = Object.keys(raw).length;
  const result: PgItem[] = [];
  for (let pg = 1; pg <= count; pg++) {
    const entry = raw[String(pg)];
    if (entry === undefined) {
      problems.push({ key, path, reason: `PG ${pg} of ${count} is missing; the pool counts as one without PGs` });
      return [];
    }
    try {
      result.push(pgItem(entry, `${path}.${pg}`));
    } catch (error) {
      problems.push(problemOf(key, error));
      return [];
    }
  }
  return result;
}

/** Throws ERR_BAD_VALUE for bad JSON; smaller faults become problems. */
export function decodePgConfig(key: string, text: string): { config: PgConfig; problems: Problem[] } {
  return object((f) => {
    const { items, problems } = decodeItems(key, f.raw['items']);
    const hash = f.raw['hash'];
    return {
      config: {
        hash: typeof hash === 'string' ? hash : '',
        items,
        backfillfullPools: f.optional('backfillfull_pools', array(integer(1, 65535)), []),
      },
      problems,
    };
  })(parseJson(text), '');
}

/** /history/last_clean_pgs. Throws ERR_BAD_VALUE for bad JSON. */
export function decodeLastCleanPgs(key: string, text: string): { items: PgItems; problems: Problem[] } {
  return object((f) => decodeItems(key, f.raw['items']))(parseJson(text), '');
}

/** As the 3.0.8 monitor writes it: numbers as decimal strings, empty slots as the number 0. */
function encodeOsd(osd: number): JsonValue {
  return osd === 0 ? 0 : String(osd);
}

function encodeItems(items: PgItems): JsonObject {
  const result: JsonObject = {};
  for (const [pool, pgs] of items) {
    const entries: JsonObject = {};
    pgs.forEach((pg, i) => {
      const entry: JsonObject = { osd_set: pg.osdSet.map(encodeOsd), primary: encodeOsd(pg.primary) };
      if (pg.pause) entry['pause'] = true;
      entries[String(i + 1)] = entry;
    });
    result[String(pool)] = entries;
  }
  return result;
}

export function encodePgConfig(config: PgConfig): JsonObject {
  const result: JsonObject = { hash: config.hash === '' ? null : config.hash, items: encodeItems(config.items) };
  if (config.backfillfullPools.length) result['backfillfull_pools'] = config.backfillfullPools.map(String);
  return result;
}

export function encodeLastCleanPgs(items: PgItems): JsonObject {
  return { items: encodeItems(items) };
}

/** A set whose length is not the pool's pg_size pauses the PG for every reader. */
export function isPaused(item: PgItem, pgSize: number): boolean {
  return item.pause || item.osdSet.length !== pgSize;
}

/** In the order in which they are written. */
export const PG_STATE_WORDS = [
  'starting',
  'peering',
  'incomplete',
  'active',
  'repeering',
  'stopping',
  'offline',
  'degraded',
  'has_inconsistent',
  'has_corrupted',
  'has_incomplete',
  'has_degraded',
  'has_misplaced',
  'has_unclean',
  'has_invalid',
  'left_on_dead',
  'scrubbing',
] as const;
export type PgStateWord = (typeof PG_STATE_WORDS)[number];

export interface PgState {
  /** Never 0. */
  primary: number;
  /** In canonical order, no word twice. */
  state: PgStateWord[];
  peers: number[];
}

function canonical(words: readonly string[]): PgStateWord[] {
  return PG_STATE_WORDS.filter((word) => words.includes(word));
}

/** Throws ERR_BAD_VALUE for an unknown word or a combination that cannot be: readers ignore the whole update then. */
export const decodePgState: Decoder<PgState> = object((f) => {
  const words = f.required('state', array(string));
  const unknown = words.find((word) => !(PG_STATE_WORDS as readonly string[]).includes(word));
  if (unknown !== undefined) throw f.error('state', `unknown PG state "${unknown}"`);
  const state = canonical(words);
  for (const alone of ['offline', 'peering'] as const) {
    if (state.includes(alone) && state.length > 1)
      throw f.error('state', `"${alone}" must stand alone, not in ${state.join('+')}`);
  }
  if (state.includes('incomplete') && state.some((word) => word !== 'incomplete' && word !== 'has_invalid')) {
    throw f.error('state', `"incomplete" may only be combined with has_invalid, not ${state.join('+')}`);
  }
  return { primary: f.required('primary', osdNum), state, peers: f.optional('peers', array(osdNum), []) };
});

export function encodePgState(pg: PgState): JsonObject {
  return { primary: pg.primary, state: canonical(pg.state), peers: [...pg.peers] };
}

/** Exactly active, or exactly active and left_on_dead: what "clean" means for last_clean_pgs. */
export function isCleanState(state: readonly PgStateWord[]): boolean {
  return state.includes('active') && state.every((word) => word === 'active' || word === 'left_on_dead');
}

export interface PgHistory {
  /** Upper 48 bits of object versions. */
  epoch: bigint;
  /** Sets that may hold data newer than the last clean moment. */
  osdSets: number[][];
  allPeers: number[];
  /** Unix seconds, 0 = not planned. */
  nextScrub: number;
}

export const EMPTY_PG_HISTORY: Readonly<PgHistory> = { epoch: 0n, osdSets: [], allPeers: [], nextScrub: 0 };

export const decodePgHistory: Decoder<PgHistory> = object((f) => ({
  epoch: f.optional('epoch', u64, 0n),
  osdSets: f.optional('osd_sets', array(array(osdNumOrZero)), []),
  allPeers: f.optional('all_peers', array(osdNumOrZero), []),
  nextScrub: f.optional('next_scrub', integer(0), 0),
}));

export function encodePgHistory(history: PgHistory): JsonObject {
  const result: JsonObject = {
    epoch: history.epoch,
    osd_sets: history.osdSets.map((set) => [...set]),
    all_peers: [...history.allPeers],
  };
  if (history.nextScrub) result['next_scrub'] = history.nextScrub;
  return result;
}

export interface PgStats {
  objectCount: bigint;
  cleanCount: bigint;
  misplacedCount: bigint;
  degradedCount: bigint;
  incompleteCount: bigint;
  corruptedCount: bigint;
  /** The set that is written to now, 0 = missing. */
  writeOsdSet: number[];
}

export const decodePgStats: Decoder<PgStats> = object((f) => ({
  objectCount: f.optional('object_count', u64, 0n),
  cleanCount: f.optional('clean_count', u64, 0n),
  misplacedCount: f.optional('misplaced_count', u64, 0n),
  degradedCount: f.optional('degraded_count', u64, 0n),
  incompleteCount: f.optional('incomplete_count', u64, 0n),
  corruptedCount: f.optional('corrupted_count', u64, 0n),
  writeOsdSet: f.optional('write_osd_set', array(osdNumOrZero), []),
}));

export function encodePgStats(stats: PgStats): JsonObject {
  const result: JsonObject = {
    object_count: stats.objectCount,
    clean_count: stats.cleanCount,
    misplaced_count: stats.misplacedCount,
    degraded_count: stats.degradedCount,
    incomplete_count: stats.incompleteCount,
    write_osd_set: [...stats.writeOsdSet],
  };
  if (stats.corruptedCount) result['corrupted_count'] = stats.corruptedCount;
  return result;
}

/** Raw items of pg/config or last_clean_pgs for an edit that keeps what we do not know. */
export function rawItems(text: string): JsonObject {
  const value = json(parseJson(text), '');
  return isJsonObject(value) ? value : {};
}
