// SPDX-License-Identifier: GPL-2.0-or-later
// Names of all keys in etcd: built and parsed in this one place. Source: etcd schema sections 2 and 3.

import { VitastorError } from '../errors.js';
import { INODE_MAX, POOL_ID_MAX } from '../decode.js';

/** Key kinds without a number or name in them. */
export type PlainKind =
  | 'config/global'
  | 'config/pools'
  | 'config/node_placement'
  | 'config/pgs'
  | 'pg/config'
  | 'history/last_clean_pgs'
  | 'mon/master'
  | 'stats';

/**
 * What a key is, numbers decoded. Pool, PG and OSD numbers are numbers; inode numbers (48 bits, without pool) are
 * bigint.
 */
export type ParsedKey =
  | { kind: PlainKind }
  | { kind: 'config/osd' | 'osd/state' | 'osd/stats' | 'osd/space' | 'osd/inodestats'; osd: number }
  | { kind: 'config/inode' | 'inode/stats'; pool: number; inode: bigint }
  | { kind: 'index/image'; name: string }
  | { kind: 'index/maxid' | 'pool/stats'; pool: number }
  | { kind: 'pg/state' | 'pg/history' | 'pgstats' | 'pg/stats'; pool: number; pg: number }
  | { kind: 'mon/member'; id: string };

export type KeyKind = ParsedKey['kind'];

const PLAIN: ReadonlySet<string> = new Set<PlainKind>([
  'config/global',
  'config/pools',
  'config/node_placement',
  'config/pgs',
  'pg/config',
  'history/last_clean_pgs',
  'mon/master',
  'stats',
]);

/** A leading slash is added, doubled slashes collapse, a trailing one goes. '/' alone is refused. */
export function normalizePrefix(prefix: string): string {
  const clean = `/${prefix}`.replace(/\/+/g, '/').replace(/\/$/, '');
  if (clean === '')
    throw new VitastorError('ERR_INVALID_ARGUMENT', `etcd_prefix "${prefix}" is empty: use a name such as /vitastor`);
  return clean;
}

/** `pool << 48 | inode`. */
export function fullInode(pool: number, inode: bigint): bigint {
  return (BigInt(pool) << 48n) | inode;
}

export function poolOfInode(full: bigint): number {
  return Number(full >> 48n);
}

export function inodeInPool(full: bigint): bigint {
  return full & INODE_MAX;
}

function num(text: string, min: number, max: number): number | null {
  if (!/^(0|[1-9]\d{0,15})$/.test(text)) return null;
  const n = Number(text);
  return n >= min && n <= max ? n : null;
}

function inodeNum(text: string): bigint | null {
  if (!/^(0|[1-9]\d{0,14})$/.test(text)) return null;
  const n = BigInt(text);
  return n <= INODE_MAX ? n : null;
}

/** Builds and parses whole keys (prefix included). Immutable. */
export class KeySpace {
  /** Normalised, without a trailing slash. */
  readonly prefix: string;

  constructor(prefix = '/vitastor') {
    this.prefix = normalizePrefix(prefix);
  }

  /** A plain key, or a folder such as 'pg/state/' to use as a range prefix. */
  at(path: string): string {
    return `${this.prefix}/${path}`;
  }

  get configGlobal(): string { return this.at('config/global'); }
  get configPools(): string { return this.at('config/pools'); }
  get nodePlacement(): string { return this.at('config/node_placement'); }
  get pgConfig(): string { return this.at('pg/config'); }
  /** Old name of pg/config. */
  get oldPgConfig(): string { return this.at('config/pgs'); }
  get lastCleanPgs(): string { return this.at('history/last_clean_pgs'); }
  get monMaster(): string { return this.at('mon/master'); }
  get stats(): string { return this.at('stats'); }

  configOsd(osd: number): string { return this.at(`config/osd/${osd}`); }
  configInode(pool: number, inode: bigint): string { return this.at(`config/inode/${pool}/${inode}`); }
  indexImage(name: string): string { return this.at(`index/image/${name}`); }
  indexMaxId(pool: number): string { return this.at(`index/maxid/${pool}`); }
  pgState(pool: number, pg: number): string { return this.at(`pg/state/${pool}/${pg}`); }
  pgHistory(pool: number, pg: number): string { return this.at(`pg/history/${pool}/${pg}`); }
  pgStats(pool: number, pg: number): string { return this.at(`pgstats/${pool}/${pg}`); }
  /** Old name of pgstats. */
  oldPgStats(pool: number, pg: number): string { return this.at(`pg/stats/${pool}/${pg}`); }
  osdState(osd: number): string { return this.at(`osd/state/${osd}`); }
  osdStats(osd: number): string { return this.at(`osd/stats/${osd}`); }
  osdSpace(osd: number): string { return this.at(`osd/space/${osd}`); }
  osdInodeStats(osd: number): string { return this.at(`osd/inodestats/${osd}`); }
  monMember(lease: bigint): string { return this.at(`mon/member/${lease}`); }
  inodeStats(pool: number, inode: bigint): string { return this.at(`inode/stats/${pool}/${inode}`); }
  poolStats(pool: number): string { return this.at(`pool/stats/${pool}`); }

  /** null: outside the prefix or not in the catalogue (readers ignore such keys). */
  parse(key: string): ParsedKey | null {
    if (!key.startsWith(`${this.prefix}/`)) return null;
    const path = key.slice(this.prefix.length + 1);
    if (PLAIN.has(path)) return { kind: path as PlainKind };
    if (path.startsWith('index/image/')) {
      const name = path.slice('index/image/'.length);
      return name === '' ? null : { kind: 'index/image', name };
    }
    const parts = path.split('/');
    return parsePgStatsKey(parts) ?? parseNumberedKey(parts);
  }
}

function parsePgStatsKey(parts: readonly string[]): ParsedKey | null {
  const [family, poolText, pgText] = parts;
  if (family !== 'pgstats' || parts.length !== 3) return null;
  return pgKey('pgstats', poolText, pgText);
}

function pgKey(kind: 'pg/state' | 'pg/history' | 'pgstats' | 'pg/stats', poolText = '', pgText = ''): ParsedKey | null {
  const pool = num(poolText, 1, POOL_ID_MAX);
  const pg = num(pgText, 1, Number.MAX_SAFE_INTEGER);
  return pool === null || pg === null ? null : { kind, pool, pg };
}

function parseNumberedKey(parts: readonly string[]): ParsedKey | null {
  const [a = '', b = '', c = '', d = ''] = parts;
  const kind = `${a}/${b}`;
  if (parts.length === 3) {
    switch (kind) {
      case 'config/osd': case 'osd/state': case 'osd/stats': case 'osd/space': case 'osd/inodestats': {
        const osd = num(c, 1, Number.MAX_SAFE_INTEGER);
        return osd === null ? null : { kind, osd };
      }
      case 'index/maxid': case 'pool/stats': {
        const pool = num(c, 1, POOL_ID_MAX);
        return pool === null ? null : { kind, pool };
      }
      case 'mon/member':
        return /^[a-f0-9]+$/.test(c) ? { kind, id: c } : null;
      default:
        return null;
    }
  }
  if (parts.length !== 4) return null;
  switch (kind) {
    case 'config/inode': case 'inode/stats': {
      const pool = num(c, 1, POOL_ID_MAX);
      const inode = inodeNum(d);
      if (pool === null || inode === null || (inode === 0n && kind === 'config/inode')) return null;
      return { kind, pool, inode };
    }
    case 'pg/state': case 'pg/history': case 'pg/stats':
      return pgKey(kind, c, d);
    default:
      return null;
  }
}
