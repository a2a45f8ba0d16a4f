// SPDX-License-Identifier: GPL-2.0-or-later
// Small decoders: JSON in, a trusted value out, or a VitastorError that names the path of the field that failed.

import { VitastorError } from './errors.js';
import { isJsonObject, parseJson, type JsonObject, type JsonValue } from './json.js';

/** Checks `value` found at `path` ('' = the document itself). Throws ERR_BAD_VALUE. */
export type Decoder<T> = (value: JsonValue, path: string) => T;

/** Something in etcd that was left out; the rest was used. */
export interface Problem {
  key: string;
  /** '' = the whole value. */
  path: string;
  reason: string;
}

export function problemText(problem: Problem): string {
  return `key ${problem.key}${problem.path === '' ? '' : `, field ${problem.path}`}: ${problem.reason}`;
}

function shown(value: JsonValue): string {
  const text =
    typeof value === 'bigint'
      ? value.toString()
      : JSON.stringify(value, (_, v: unknown) => (typeof v === 'bigint' ? v.toString() : v));
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

export function badValue(path: string, reason: string): VitastorError {
  return new VitastorError('ERR_BAD_VALUE', `${path === '' ? 'value' : `field ${path}`}: ${reason}`, {
    data: { path, reason },
  });
}

/** Turns a failed decode into a problem report for `key`. Anything but ERR_BAD_VALUE is thrown on: that is our bug. */
export function problemOf(key: string, error: unknown): Problem {
  if (!(error instanceof VitastorError) || error.code !== 'ERR_BAD_VALUE') throw error;
  const path = typeof error.data['path'] === 'string' ? error.data['path'] : '';
  const reason = path !== '' && typeof error.data['reason'] === 'string' ? error.data['reason'] : error.message;
  return { key, path, reason };
}

/** Parses and decodes the text of a key. Throws ERR_BAD_VALUE with `data.path`. */
export function decodeText<T>(decoder: Decoder<T>, text: string): T {
  return decoder(parseJson(text), '');
}

const join = (path: string, name: string): string => (path === '' ? name : `${path}.${name}`);

export const json: Decoder<JsonValue> = (value) => value;

export const string: Decoder<string> = (value, path) => {
  if (typeof value !== 'string') throw badValue(path, `must be a string, not ${shown(value)}`);
  return value;
};

/** A name that people also write as a number. */
export const name: Decoder<string> = (value, path) => {
  if (typeof value === 'number' || typeof value === 'bigint') return value.toString();
  return string(value, path);
};

export const nonEmptyString: Decoder<string> = (value, path) => {
  const text = string(value, path);
  if (text === '') throw badValue(path, 'must not be empty');
  return text;
};

/** true/false, or 1/true/yes and 0/false/no as string or number. */
export const boolean: Decoder<boolean> = (value, path) => {
  const word = typeof value === 'string' ? value.toLowerCase() : value;
  if (word === true || word === 1 || word === '1' || word === 'true' || word === 'yes') return true;
  if (word === false || word === 0 || word === '0' || word === 'false' || word === 'no') return false;
  throw badValue(path, `must be true or false, not ${shown(value)}`);
};

/** A whole number in [min, max], as a number or a decimal string. */
export function integer(min: number, max: number = Number.MAX_SAFE_INTEGER): Decoder<number> {
  return (value, path) => {
    const n = typeof value === 'string' && /^-?\d{1,16}$/.test(value) ? Number(value) : value;
    if (typeof n !== 'number' || !Number.isSafeInteger(n))
      throw badValue(path, `must be a whole number, not ${shown(value)}`);
    if (n < min || n > max)
      throw badValue(
        path,
        `must be ${max === Number.MAX_SAFE_INTEGER ? `at least ${min}` : `between ${min} and ${max}`}, not ${n}`,
      );
    return n;
  };
}

export const U64_MAX = (1n << 64n) - 1n;
/** Inode numbers without the pool have 48 bits. */
export const INODE_MAX = (1n << 48n) - 1n;
export const POOL_ID_MAX = 65535;
export const OSD_NUM_MAX = Number.MAX_SAFE_INTEGER;

/** A whole number in [min, max] of up to 64 bits, as a number or a decimal string; always exact. */
export function bigInteger(min: bigint = 0n, max: bigint = U64_MAX): Decoder<bigint> {
  return (value, path) => {
    let n: bigint;
    if (typeof value === 'bigint') n = value;
    else if (typeof value === 'number' && Number.isSafeInteger(value)) n = BigInt(value);
    else if (typeof value === 'string' && /^-?\d{1,20}$/.test(value)) n = BigInt(value);
    else throw badValue(path, `must be a whole number, not ${shown(value)}`);
    if (n < min || n > max) throw badValue(path, `must be between ${min} and ${max}, not ${n}`);
    return n;
  };
}

export const u64 = bigInteger();

/** A statistics counter: like u64; fractions are cut off, since old writers divide. */
export const counter: Decoder<bigint> = (value, path) =>
  typeof value === 'number' && Number.isFinite(value) && !Number.isInteger(value)
    ? u64(Math.trunc(value), path)
    : u64(value, path);

/** Any finite number, also as a decimal string. */
export const number: Decoder<number> = (value, path) => {
  const n =
    typeof value === 'bigint'
      ? Number(value)
      : typeof value === 'string' && value.trim() !== ''
        ? Number(value)
        : value;
  if (typeof n !== 'number' || !Number.isFinite(n)) throw badValue(path, `must be a number, not ${shown(value)}`);
  return n;
};

export const osdNum: Decoder<number> = integer(1, OSD_NUM_MAX);
/** 0 = empty slot or no OSD. */
export const osdNumOrZero: Decoder<number> = integer(0, OSD_NUM_MAX);

export function oneOf<const T extends string>(...words: readonly T[]): Decoder<T> {
  return (value, path) => {
    const found = words.find((word) => word === value);
    if (found === undefined) throw badValue(path, `must be ${words.join(', ')}, not ${shown(value)}`);
    return found;
  };
}

export function array<T>(item: Decoder<T>): Decoder<T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw badValue(path, `must be an array, not ${shown(value)}`);
    return value.map((v, i) => item(v, `${path}[${i}]`));
  };
}

/** A string (one item; with `separator` several; '' = none) or an array of strings. */
export function stringList(separator?: string): Decoder<string[]> {
  return (value, path) => {
    if (Array.isArray(value)) return array(name)(value, path);
    const text = name(value, path);
    const items = separator === undefined ? [text] : text.split(separator).map((s) => s.trim());
    return items.filter((s) => s !== '');
  };
}

/** Reads the fields of one object by name; unknown fields are ignored; null counts as absent. */
export class Fields {
  readonly raw: JsonObject;
  readonly path: string;

  constructor(raw: JsonObject, path: string) {
    this.raw = raw;
    this.path = path;
  }

  has(field: string): boolean {
    const value = this.raw[field];
    return Object.hasOwn(this.raw, field) && value !== null && value !== undefined;
  }

  required<T>(field: string, decoder: Decoder<T>): T {
    const value = Object.hasOwn(this.raw, field) ? this.raw[field] : undefined;
    if (value === undefined || value === null) throw badValue(join(this.path, field), 'is missing');
    return decoder(value, join(this.path, field));
  }

  optional<T, D>(field: string, decoder: Decoder<T>, absent: D): T | D {
    return this.has(field) ? this.required(field, decoder) : absent;
  }

  error(field: string, reason: string): VitastorError {
    return badValue(join(this.path, field), reason);
  }
}

export function object<T>(build: (fields: Fields) => T): Decoder<T> {
  return (value, path) => {
    if (!isJsonObject(value)) throw badValue(path, `must be an object, not ${shown(value)}`);
    return build(new Fields(value, path));
  };
}

/** An object used as a map: every name and every value is decoded. */
export function mapOf<K, V>(keyOf: Decoder<K>, valueOf: Decoder<V>): Decoder<Map<K, V>> {
  return object((fields) => {
    const result = new Map<K, V>();
    for (const [key, value] of Object.entries(fields.raw)) {
      const at = join(fields.path, key);
      result.set(keyOf(key, at), valueOf(value, at));
    }
    return result;
  });
}
