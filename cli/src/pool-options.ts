// SPDX-License-Identifier: GPL-2.0-or-later
// Options of create-pool and modify-pool → fields of a pool entry. Source: tools 2.15.

import { string } from '@oclif/core/flags';
import { parseJson, requireSize, VitastorError, type JsonObject, type JsonValue } from '@vitastor/core';
import { flag, wholeNumber } from './list-flags.js';

export const poolFlags = {
  'pg-size': string({ char: 's', summary: 'copies (replicated), or data and parity chunks together', helpValue: 'R' }),
  ec: string({ summary: 'erasure-coded pool with N data and K parity chunks', helpValue: 'N+K' }),
  'pg-count': string({ char: 'n', summary: 'number of placement groups', helpValue: 'PGS' }),
  scheme: string({ summary: 'replicated (default), ec or xor', helpValue: 'SCHEME' }),
  'parity-chunks': string({ summary: 'parity chunks', helpValue: 'K' }),
  'pg-minsize': string({ summary: 'fewer live OSDs make a PG inactive', helpValue: 'M' }),
  'failure-domain': string({ summary: 'no two copies in one such node (default host)', helpValue: 'LEVEL' }),
  'root-node': string({ summary: 'only OSDs below this node', helpValue: 'NODE' }),
  'osd-tags': string({ summary: 'only OSDs with all of these tags', helpValue: 'A,B' }),
  'block-size': string({ summary: 'object size', helpValue: 'SIZE' }),
  'bitmap-granularity': string({ summary: 'smallest write', helpValue: 'SIZE' }),
  'immediate-commit': string({ summary: 'all, small or none', helpValue: 'MODE' }),
  'level-placement': string({ summary: 'pattern such as dc=112233', helpValue: 'RULES' }),
  'raw-placement': string({ summary: 'placement rules', helpValue: 'RULES' }),
  'local-reads': string({ summary: 'Where clients read: primary, nearest or random copy; EC: nearest or random = the OSD of the chunk', helpValue: 'MODE' }),
  'primary-affinity-tags': string({ summary: 'prefer primaries with these tags', helpValue: 'A,B' }),
  'scrub-interval': string({ summary: 'such as 30d', helpValue: 'TIME' }),
  'used-for-app': string({ summary: 'reserve the pool, such as fs:NAME', helpValue: 'APP' }),
  'pg-stripe-size': string({ summary: 'bytes in a row that go to one PG', helpValue: 'SIZE' }),
  'max-osd-combinations': string({ summary: 'input size of the placement optimiser', helpValue: 'N' }),
  force: flag({ char: 'f', summary: 'leave the checks out' }),
} as const;

export type PoolFlagValues = { [name in keyof typeof poolFlags]?: string | boolean | undefined };

const invalid = (text: string): VitastorError => new VitastorError('ERR_INVALID_ARGUMENT', text);

const MIN_SECTOR_BYTES = 512n;

const count = (option: string, text: string): JsonValue => wholeNumber(option, text);
const size = (option: string, text: string): JsonValue => Number(requireSize(option, text));
const text = (_option: string, value: string): JsonValue => value;
const tags = (_option: string, value: string): JsonValue =>
  value
    .split(',')
    .map((tag) => tag.trim())
    .filter((tag) => tag !== '');

const FIELDS: Readonly<Record<string, (option: string, text: string) => JsonValue>> = {
  'pg-size': count,
  'pg-count': count,
  scheme: text,
  'parity-chunks': count,
  'pg-minsize': count,
  'failure-domain': text,
  'root-node': text,
  'osd-tags': tags,
  'block-size': size,
  'bitmap-granularity': size,
  'immediate-commit': text,
  'level-placement': levelPlacement,
  'raw-placement': text,
  'local-reads': text,
  'primary-affinity-tags': tags,
  'scrub-interval': text,
  'used-for-app': text,
  'pg-stripe-size': size,
  'max-osd-combinations': count,
};

/** `dc=112233,host=123456` or JSON → object, which every reader understands. */
function levelPlacement(option: string, value: string): JsonValue {
  if (value.trimStart().startsWith('{')) return parseJson(value);
  const pairs = value.split(/[\s,]+/).filter((word) => word !== '').map((word) => {
    const found = /^([^=]+)=(.+)$/.exec(word);
    if (!found) throw invalid(`${option} must look like dc=112233, not "${word}"`);
    return [found[1] ?? '', found[2] ?? ''] as const;
  });
  return Object.fromEntries(pairs);
}

/** The fields that were given; '' becomes null (remove the field). `--ec` and aliases resolved. */
export function poolFields(flags: PoolFlagValues): JsonObject {
  const fields: JsonObject = {};
  for (const [name, convert] of Object.entries(FIELDS)) {
    const value = flags[name as keyof PoolFlagValues];
    if (typeof value === 'string')
      fields[name.replace(/-/g, '_')] = value === '' ? null : convert(`--${name.replace(/-/g, '_')}`, value);
  }
  if (fields['scheme'] === 'jerasure') fields['scheme'] = 'ec';
  const granularity = fields['bitmap_granularity'];
  if (typeof granularity === 'number' && BigInt(granularity) % MIN_SECTOR_BYTES !== 0n)
    throw invalid(`--bitmap_granularity must be a multiple of ${MIN_SECTOR_BYTES}`);
  if (typeof flags.ec === 'string') {
    for (const other of ['pg_size', 'scheme', 'parity_chunks'])
      if (fields[other] !== undefined) throw invalid(`--ec and --${other} exclude each other`);
    const found = /^(\d{1,3})\+(\d{1,3})$/.exec(flags.ec);
    if (!found) throw invalid(`--ec must look like 2+1, not "${flags.ec}"`);
    const [data, parity] = [Number(found[1]), Number(found[2])];
    Object.assign(fields, { scheme: 'ec', pg_size: data + parity, parity_chunks: parity });
  }
  return fields;
}

/** Everything a new pool needs, defaults filled in. Throws ERR_INVALID_ARGUMENT. */
export function newPoolEntry(name: string, flags: PoolFlagValues): JsonObject {
  if (name === '') throw invalid('Pool name is missing');
  if (/^\d+$/.test(name)) throw invalid('Pool name must not be a number: numbers are pool IDs');
  const fields = poolFields(flags);
  const scheme = typeof fields['scheme'] === 'string' ? fields['scheme'] : 'replicated';
  const pgSize = fields['pg_size'];
  if (typeof pgSize !== 'number' || pgSize === 0)
    throw invalid('Non-zero pg_size is required: give -s COPIES or --ec N+K');
  if (typeof fields['pg_count'] !== 'number' || fields['pg_count'] === 0)
    throw invalid('Non-zero pg_count is required');
  if (scheme === 'xor') fields['parity_chunks'] = fields['parity_chunks'] ?? 1;
  const parity = typeof fields['parity_chunks'] === 'number' ? fields['parity_chunks'] : 0;
  const minsize = scheme === 'replicated' ? (pgSize > 2 ? 2 : 1) : pgSize - parity + (parity > 1 ? 1 : 0);
  const given = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
  return { pg_minsize: minsize, ...given, name, scheme };
}
