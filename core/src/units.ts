// SPDX-License-Identifier: GPL-2.0-or-later
// Sizes, times and rates as people write and read them. Source: configuration 1.1, tools 1.

import { VitastorError } from './errors.js';
import type { JsonValue } from './json.js';

const SIZE_SHIFT: Readonly<Record<string, bigint>> = { '': 0n, k: 10n, m: 20n, g: 30n, t: 40n };
const U64_MAX = (1n << 64n) - 1n;

/**
 * Whole number of bytes with an optional k, m, g or t (powers of 1024, any case); null: not a size, or beyond 64 bits.
 */
export function parseSize(value: JsonValue): bigint | null {
  if (typeof value === 'bigint') return value >= 0n && value <= U64_MAX ? value : null;
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0 ? BigInt(value) : null;
  if (typeof value !== 'string') return null;
  const found = /^(\d{1,20})([kmgt]?)$/i.exec(value.trim());
  if (!found) return null;
  const size = BigInt(found[1] ?? '0') << (SIZE_SHIFT[(found[2] ?? '').toLowerCase()] ?? 0n);
  return size <= U64_MAX ? size : null;
}

/** parseSize, or ERR_INVALID_ARGUMENT that names `option`. */
export function requireSize(option: string, value: JsonValue): bigint {
  const size = parseSize(value);
  if (size === null) {
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      `${option}: "${String(value)}" is not a size; use a whole number with k, m, g or t, such as 10G`,
    );
  }
  return size;
}

const DURATION_SECONDS: Readonly<Record<string, number>> = {
  '': 1,
  s: 1,
  m: 60,
  h: 3600,
  d: 86400,
  M: 2592000,
  y: 31536000,
};

/**
 * Seconds of a time such as 30d (s, m = minutes, h, d, M = 30 days, y = 365 days; none = seconds); null: not a time.
 */
export function parseDuration(value: JsonValue): number | null {
  if (typeof value === 'bigint') return null;
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0 ? value : null;
  if (typeof value !== 'string') return null;
  const found = /^(\d{1,12})([smhdMy]?)$/.exec(value.trim());
  if (!found) return null;
  return Number(found[1]) * (DURATION_SECONDS[found[2] ?? ''] ?? 1);
}

/** true/false, or 1/true/yes and 0/false/no (any case) as text or number; null: none of them. */
export function parseBoolean(value: JsonValue): boolean | null {
  const word = typeof value === 'string' ? value.trim().toLowerCase() : value;
  if (word === true || word === 1 || word === 1n || word === '1' || word === 'true' || word === 'yes') return true;
  if (word === false || word === 0 || word === 0n || word === '0' || word === 'false' || word === 'no') return false;
  return null;
}

/**
 * Like C's %.1f and %.2f: an exact half goes to the even digit, where toFixed() always goes up. Exact halves at one
 * (two) decimals are the
 * odd quarters (eighths), and the even digit lies below for 1/4 (1/8 and 5/8).
 */
function fixed(n: number, decimals: 1 | 2): string {
  const half = decimals === 1 ? 4 : 8;
  return ((n * half) % 4 === 1 ? n - 0.001 : n).toFixed(decimals);
}

const oneDecimal = (n: number): string => fixed(n, 1).replace(/\.0$/, '');

const SIZE_UNITS = [['T', 2 ** 40], ['G', 2 ** 30], ['M', 2 ** 20], ['K', 2 ** 10]] as const;

/** `12.3 G`, `100 G`, `0 B`. */
export function formatSize(bytes: bigint | number): string {
  const n = Number(bytes);
  for (const [unit, size] of SIZE_UNITS) if (n >= size) return `${oneDecimal(n / size)} ${unit}`;
  return `${oneDecimal(n)} B`;
}

/** `100G`, `4k`, `512`: no blank, small k, no B. */
export function formatSizeCompact(bytes: bigint | number): string {
  return formatSize(bytes).replace(' B', '').replace(' K', 'k').replace(' ', '');
}

/** Operations: `12.3 k`, decimal. */
export function formatCount(count: bigint | number): string {
  const n = Number(count);
  for (const [unit, size] of [
    ['G', 1e9],
    ['M', 1e6],
    ['k', 1e3],
  ] as const)
    if (n >= size) return `${oneDecimal(n / size)} ${unit}`;
  return oneDecimal(n);
}

/** Two decimals, trailing zeros cut. */
export function formatFraction(n: number): string {
  return fixed(n, 2).replace(/\.?0+$/, '');
}

/** Below 100: `N us`; below half a second: `x.xx ms`; else `x.xx s`. */
export function formatLatency(us: bigint | number): string {
  const n = Number(us);
  if (n < 100) return `${Math.round(n)} us`;
  return n < 500000 ? `${formatFraction(n / 1000)} ms` : `${formatFraction(n / 1e6)} s`;
}
