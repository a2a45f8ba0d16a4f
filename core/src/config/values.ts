// SPDX-License-Identifier: GPL-2.0-or-later
// From what somebody wrote to the value of a parameter. Source: configuration 1.1. The cases stand in
// test/fixtures/config-values.json,
// which the C++ side tests too.

import { isJsonObject, parseJson, type JsonValue } from '../json.js';
import { splitAddresses } from '../seams/etcd-address.js';
import { parseBoolean, parseDuration, parseSize } from '../units.js';
import type { Parameter } from './parameters.js';

/** A whole number, also as a decimal string; null: garbage. */
export function parseInteger(value: JsonValue): number | null {
  const n =
    typeof value === 'string' && /^[+-]?\d{1,16}$/.test(value.trim())
      ? Number(value)
      : typeof value === 'bigint'
        ? Number(value)
        : value;
  return typeof n === 'number' && Number.isSafeInteger(n) ? n : null;
}

/** Any finite number, also as a decimal string; null: garbage. */
export function parseNumber(value: JsonValue): number | null {
  const n =
    typeof value === 'string' && /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(value.trim())
      ? Number(value)
      : typeof value === 'bigint'
        ? Number(value)
        : value;
  return typeof n === 'number' && Number.isFinite(n) ? n : null;
}

/** A comma list or an array of strings; empty parts are left out. null: garbage. */
export function parseList(value: JsonValue): string[] | null {
  if (typeof value === 'string') return splitAddresses(value);
  if (!Array.isArray(value)) return null;
  const items = value.filter((item): item is string => typeof item === 'string');
  return items.length === value.length ? splitAddresses(items) : null;
}

export type ParameterValue = JsonValue;

/** null: garbage, or 0 where 0 means the default. Numbers beyond the limits of the parameter become the limit. */
export function parseParameter(spec: Parameter, value: JsonValue): ParameterValue {
  switch (spec.type) {
    case 'boolean':
      return parseBoolean(value);
    case 'integer':
      return limit(spec, parseInteger(value));
    case 'number':
      return limit(spec, parseNumber(value));
    case 'size': {
      const size = parseSize(value);
      return limit(spec, size === null || size > BigInt(Number.MAX_SAFE_INTEGER) ? null : Number(size));
    }
    case 'duration':
      return limit(spec, parseDuration(value));
    case 'string':
      return typeof value === 'string' && value !== '' ? value : typeof value === 'number' ? String(value) : null;
    case 'list':
    case 'addresses': {
      const list = parseList(value);
      return list?.length ? list : null;
    }
    case 'word':
      return typeof value === 'string' && spec.words?.includes(value) ? value : null;
    case 'json': {
      if (typeof value !== 'string') return isJsonObject(value) ? value : null;
      try {
        const parsed = parseJson(value);
        return isJsonObject(parsed) ? parsed : null;
      } catch {
        return null;
      }
    }
  }
}

function limit(spec: Parameter, n: number | null): number | null {
  if (n === null || (n === 0 && spec.min !== undefined && spec.min > 0)) return null;
  return Math.min(Math.max(n, spec.min ?? -Infinity), spec.max ?? Infinity);
}
