// SPDX-License-Identifier: GPL-2.0-or-later
// Limits of what a client does to an image, in its metadata: meta.limits {iops, bytes_per_second, burst_ms}. Clients of ours keep to them
// (core/native/client/throttle.hpp, which reads the same fields); those of 3.0.8 know nothing of them, and keep them.

import { isJsonObject, type JsonObject, type JsonValue } from './json.js';

export interface IoLimits {
  /** Reads, writes and discards a second; null = as many as there are. */
  iops: bigint | null;
  bytesPerSecond: bigint | null;
  /** What was not used in so long may be used at once. */
  burstMs: number;
}

export const DEFAULT_BURST_MS = 1000;
export const MAX_BURST_MS = 3_600_000;

/** Null: none, or none that can be read. */
export function ioLimits(meta: JsonObject | null): IoLimits | null {
  const given = meta?.['limits'];
  if (!isJsonObject(given)) return null;
  const limits = {
    iops: positive(given['iops']),
    bytesPerSecond: positive(given['bytes_per_second']),
    burstMs: Number(whole(given['burst_ms']) ?? DEFAULT_BURST_MS),
  };
  return limits.iops === null && limits.bytesPerSecond === null ? null : limits;
}

/** The metadata with these limits, everything else as it was; null when nothing is left. */
export function withIoLimits(meta: JsonObject | null, limits: IoLimits | null): JsonObject | null {
  const { limits: _, ...rest } = meta ?? {};
  const result: JsonObject = { ...rest };
  if (limits) {
    result['limits'] = {
      ...(limits.iops === null ? {} : { iops: limits.iops }),
      ...(limits.bytesPerSecond === null ? {} : { bytes_per_second: limits.bytesPerSecond }),
      burst_ms: limits.burstMs,
    };
  }
  return Object.keys(result).length === 0 ? null : result;
}

function whole(value: JsonValue | undefined): bigint | null {
  if (typeof value === 'bigint') return value >= 0n ? value : null;
  if (typeof value === 'number') return Number.isInteger(value) && value >= 0 ? BigInt(value) : null;
  return typeof value === 'string' && /^\d{1,19}$/.test(value) ? BigInt(value) : null;
}

function positive(value: JsonValue | undefined): bigint | null {
  const number = whole(value);
  return number === 0n ? null : number;
}
