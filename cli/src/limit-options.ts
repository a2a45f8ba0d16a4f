// SPDX-License-Identifier: GPL-2.0-or-later
// --limit-iops, --limit-bandwidth and --limit-burst of create and modify.

import { string } from '@oclif/core/flags';
import { DEFAULT_BURST_MS, ioLimits, MAX_BURST_MS, requireSize, VitastorError, withIoLimits, type JsonObject } from '@vitastor/core';
import { wholeNumber } from './list-flags.js';

export const LIMIT_FLAGS = {
  'limit-iops': string({ summary: 'reads and writes a second of each client; 0 = no limit', helpValue: 'N' }),
  'limit-bandwidth': string({ summary: 'bytes a second of each client; 0 = no limit', helpValue: 'SIZE' }),
  'limit-burst': string({ summary: 'seconds of the limits that may be saved up (default 1)', helpValue: 'SECONDS' }),
};

export interface LimitOptions {
  'limit-iops'?: string | undefined;
  'limit-bandwidth'?: string | undefined;
  'limit-burst'?: string | undefined;
}

/** Metadata with what was asked for; undefined: nothing was. */
export function changedLimits(meta: JsonObject | null, options: LimitOptions): JsonObject | null | undefined {
  const { 'limit-iops': iops, 'limit-bandwidth': bandwidth, 'limit-burst': burst } = options;
  if (iops === undefined && bandwidth === undefined && burst === undefined) return undefined;
  const limits = ioLimits(meta) ?? { iops: null, bytesPerSecond: null, burstMs: DEFAULT_BURST_MS };
  if (iops !== undefined) limits.iops = BigInt(wholeNumber('--limit-iops', iops)) || null;
  if (bandwidth !== undefined) limits.bytesPerSecond = requireSize('--limit-bandwidth', bandwidth) || null;
  if (burst !== undefined) limits.burstMs = milliseconds(burst);
  if (limits.iops === null && limits.bytesPerSecond === null) {
    if (burst !== undefined && iops === undefined && bandwidth === undefined)
      throw new VitastorError('ERR_INVALID_ARGUMENT', '--limit-burst: the image has no limits; give --limit-iops or --limit-bandwidth as well');
    return withIoLimits(meta, null);
  }
  return withIoLimits(meta, limits);
}

function milliseconds(text: string): number {
  const seconds = /^\d{1,4}(\.\d{1,3})?$/.test(text) ? Number(text) : NaN;
  if (!(seconds * 1000 <= MAX_BURST_MS))
    throw new VitastorError('ERR_INVALID_ARGUMENT', `--limit-burst: "${text}" is not a number of seconds up to ${MAX_BURST_MS / 1000}`);
  return Math.round(seconds * 1000);
}
