// SPDX-License-Identifier: GPL-2.0-or-later
// /config/pools: pool definitions with every default applied. Source: etcd schema 4.2, configuration 4 and 9.

import {
  badValue,
  integer,
  name,
  nonEmptyString,
  object,
  oneOf,
  problemOf,
  stringList,
  type Decoder,
  type Fields,
  type Problem,
} from '../decode.js';
import { isJsonObject, parseJson, type JsonObject, type JsonValue } from '../json.js';
import { parseDuration, parseSize } from '../units.js';

export type Scheme = 'replicated' | 'xor' | 'ec';
export type ImmediateCommit = 'all' | 'small' | 'none';
export type LocalReads = 'primary' | 'nearest' | 'random';

/** What OSD and client must agree on; a pool inherits what it does not name from /config/global. */
export interface BlockLayout {
  blockSizeBytes: number;
  bitmapGranularityBytes: number;
  immediateCommit: ImmediateCommit;
}

export const DEFAULT_BLOCK_LAYOUT: Readonly<BlockLayout> = {
  blockSizeBytes: 131072,
  bitmapGranularityBytes: 4096,
  immediateCommit: 'all',
};

export interface PoolConfig extends BlockLayout {
  id: number;
  name: string;
  /** `jerasure` reads as 'ec'. */
  scheme: Scheme;
  pgSize: number;
  /** 0 for replicated. */
  parityChunks: number;
  /** 1 for replicated, else pgSize − parityChunks. */
  dataChunks: number;
  pgMinSize: number;
  pgCount: number;
  failureDomain: string;
  /** Level → pattern, one item a slot. Empty = none. */
  levelPlacement: Map<string, string[]>;
  /** '' = none. */
  rawPlacement: string;
  maxOsdCombinations: number;
  /** Bytes in a row that go to one PG; at least one object. */
  pgStripeSizeBytes: number;
  /** '' = the whole tree. */
  rootNode: string;
  osdTags: string[];
  primaryAffinityTags: string[];
  /** null = the global interval. */
  scrubIntervalSeconds: number | null;
  /** '' = block images; else 'fs:<image>', 's3:<name>', … */
  usedForApp: string;
  localReads: LocalReads;
  /** The entry as written, for edits that keep fields we do not know. */
  raw: JsonObject;
}

export const BLOCK_SIZE_MIN = 4096;
export const BLOCK_SIZE_MAX = 134217728;
export const PG_SIZE_MAX = 256;

const sizeBytes: Decoder<number> = (value, path) => {
  const n = parseSize(typeof value === 'bigint' ? value.toString() : value);
  if (n === null || n > BigInt(Number.MAX_SAFE_INTEGER))
    throw badValue(path, 'must be a size in bytes, such as 131072 or 128k');
  return Number(n);
};

const blockSize: Decoder<number> = (value, path) => {
  const n = sizeBytes(value, path);
  if (n < BLOCK_SIZE_MIN || n > BLOCK_SIZE_MAX || (n & (n - 1)) !== 0) {
    throw badValue(path, `must be a power of two between ${BLOCK_SIZE_MIN} and ${BLOCK_SIZE_MAX}, not ${n}`);
  }
  return n;
};

const duration: Decoder<number> = (value, path) => {
  const seconds = parseDuration(value);
  if (seconds === null) throw badValue(path, 'must be a time such as 30d');
  return seconds;
};

/** The layout that /config/global sets. Values that make no sense there fall back to the default, as everywhere. */
export function globalBlockLayout(global: JsonObject): BlockLayout {
  const attempt = <T>(field: string, decoder: Decoder<T>, absent: T): T => {
    const value = global[field];
    if (value === undefined || value === null) return absent;
    try {
      return decoder(value, field);
    } catch {
      return absent;
    }
  };
  const blockSizeBytes = attempt('block_size', blockSize, DEFAULT_BLOCK_LAYOUT.blockSizeBytes);
  return {
    blockSizeBytes,
    bitmapGranularityBytes: attempt(
      'bitmap_granularity',
      granularityFor(blockSizeBytes),
      DEFAULT_BLOCK_LAYOUT.bitmapGranularityBytes,
    ),
    immediateCommit: attempt('immediate_commit', oneOf('all', 'small', 'none'), DEFAULT_BLOCK_LAYOUT.immediateCommit),
  };
}

function granularityFor(blockSizeBytes: number): Decoder<number> {
  return (value, path) => {
    const n = sizeBytes(value, path);
    if (n <= 0 || blockSizeBytes % n !== 0) throw badValue(path, `must divide block_size ${blockSizeBytes}, not ${n}`);
    return n;
  };
}

const SCHEMES: Readonly<Record<string, Scheme>> = { replicated: 'replicated', xor: 'xor', ec: 'ec', jerasure: 'ec' };

/** undefined: no scheme of ours. */
export function schemeOf(word: JsonValue | undefined): Scheme | undefined {
  return typeof word === 'string' && Object.hasOwn(SCHEMES, word) ? SCHEMES[word] : undefined;
}

/** One pool entry. Throws ERR_BAD_VALUE with the path of the wrong field. */
export function decodePool(id: number, value: JsonValue, layout: BlockLayout, path: string): PoolConfig {
  return object((f) => {
    const scheme = schemeOf(f.required('scheme', nonEmptyString));
    if (scheme === undefined) throw f.error('scheme', 'must be replicated, xor or ec');
    const pgSize = f.required('pg_size', integer(scheme === 'replicated' ? 1 : 3, PG_SIZE_MAX));
    const parityChunks = decodeParity(f, scheme, pgSize);
    const dataChunks = scheme === 'replicated' ? 1 : pgSize - parityChunks;
    const blockSizeBytes = f.optional('block_size', blockSize, layout.blockSizeBytes);
    const stripe = f.optional('pg_stripe_size', sizeBytes, 0);
    const app = f.optional('used_for_fs', name, '');
    return {
      id,
      name: f.required('name', (v, p) => nonEmptyString(typeof v === 'string' ? v : name(v, p), p)),
      scheme,
      pgSize,
      parityChunks,
      dataChunks,
      pgMinSize: f.required('pg_minsize', integer(scheme === 'replicated' ? 1 : dataChunks, pgSize)),
      pgCount: f.required('pg_count', integer(1)),
      failureDomain: f.optional('failure_domain', name, '') || 'host',
      levelPlacement: f.optional('level_placement', levelPlacement(pgSize), new Map<string, string[]>()),
      rawPlacement: f.optional('raw_placement', name, ''),
      maxOsdCombinations: f.optional('max_osd_combinations', integer(100), 10000),
      blockSizeBytes,
      bitmapGranularityBytes: f.has('bitmap_granularity')
        ? f.required('bitmap_granularity', granularityFor(blockSizeBytes))
        : granularityFor(blockSizeBytes)(layout.bitmapGranularityBytes, `${f.path}.bitmap_granularity`),
      immediateCommit: f.optional('immediate_commit', oneOf('all', 'small', 'none'), layout.immediateCommit),
      pgStripeSizeBytes: Math.max(stripe, blockSizeBytes * dataChunks),
      rootNode: f.optional('root_node', name, ''),
      osdTags: f.optional('osd_tags', stringList(), []),
      primaryAffinityTags: f.optional('primary_affinity_tags', stringList(), []),
      scrubIntervalSeconds: f.optional('scrub_interval', duration, null),
      usedForApp: f.optional('used_for_app', name, '') || (app === '' ? '' : `fs:${app}`),
      localReads: f.optional('local_reads', oneOf('primary', 'nearest', 'random'), 'primary'),
      raw: f.raw,
    };
  })(value, path);
}

function decodeParity(f: Fields, scheme: Scheme, pgSize: number): number {
  if (scheme === 'replicated') return 0;
  // 3.0.8's command-line tool drops the field for xor; there it can only be 1.
  if (scheme === 'xor') return f.optional('parity_chunks', integer(1, 1), 1);
  return f.required('parity_chunks', integer(1, pgSize - 2));
}

const LEVEL_PAIR = /^([^=\s]+)=(\S+)$/;

/**
 * `{"dc":"112233"}`, `{"dc":["1","1","2"]}` or `"dc=112233 host=123456"` (blanks or commas between): exactly pgSize
 * items a level.
 */
function levelPlacement(pgSize: number): Decoder<Map<string, string[]>> {
  return (value, path) => {
    const pairs: [string, JsonValue][] = [];
    if (typeof value === 'string') {
      for (const word of value.split(/[\s,]+/).filter((w) => w !== '')) {
        const found = LEVEL_PAIR.exec(word);
        if (!found) throw badValue(path, `must look like dc=112233, not "${word}"`);
        pairs.push([found[1] ?? '', found[2] ?? '']);
      }
    } else if (isJsonObject(value)) {
      pairs.push(...Object.entries(value));
    } else {
      throw badValue(path, 'must be an object or a string such as dc=112233');
    }
    return new Map(pairs.map(([level, pattern]) => [level, levelItems(pattern, pgSize, `${path}.${level}`)]));
  };
}

function levelItems(pattern: JsonValue, pgSize: number, path: string): string[] {
  const items = Array.isArray(pattern)
    ? pattern.map((item, i) => name(item, `${path}[${i}]`))
    : [...name(pattern, path)];
  if (items.length !== pgSize) throw badValue(path, `must have exactly ${pgSize} items (pg_size), not ${items.length}`);
  return items;
}

const poolId: Decoder<number> = integer(1, 65535);

/**
 * All valid pools by id; each invalid one is left out with a problem that names its field. Throws ERR_BAD_VALUE for bad
 * JSON.
 */
export function decodePools(
  key: string,
  text: string,
  layout: BlockLayout,
): { pools: Map<number, PoolConfig>; problems: Problem[] } {
  const pools = new Map<number, PoolConfig>();
  const problems: Problem[] = [];
  const entries = object((f) => f.raw)(parseJson(text), '');
  for (const [idText, value] of Object.entries(entries)) {
    if (value === null) continue;
    try {
      const id = poolId(idText, idText);
      pools.set(id, decodePool(id, value, layout, idText));
    } catch (error) {
      const problem = problemOf(key, error);
      problems.push({ ...problem, reason: `${problem.reason}; pool ${idText} is skipped` });
    }
  }
  return { pools, problems };
}

/** The raw entries for an edit: id → entry as written. Throws ERR_BAD_VALUE. */
export function decodeRawPools(text: string): JsonObject {
  return text === '' ? {} : object((f) => f.raw)(parseJson(text), '');
}
