// SPDX-License-Identifier: GPL-2.0-or-later
// Reading and changing etcd with bounded retries: what the command line and the image operations share.

import { VitastorError } from './errors.js';
import { stringifyJson, type JsonValue } from './json.js';
import type { Compare, Etcd, KeyRange, KeyValue, Txn, TxnOp, TxnResult } from './seams/etcd.js';

/** etcd_slow_timeout and max_etcd_attempts. */
export interface CallLimits {
  timeoutMs: number;
  attempts: number;
}

export const DEFAULT_CALL_LIMITS: Readonly<CallLimits> = { timeoutMs: 5000, attempts: 5 };

export function putOp(key: string, value: JsonValue): TxnOp {
  return { op: 'put', key, value: stringifyJson(value) };
}

export function deleteOp(key: string): TxnOp {
  return { op: 'delete', range: { key } };
}

/** The key does not exist. */
export function keyAbsent(key: string): Compare {
  return { target: 'version', key, result: 'equal', value: 0n };
}

/** Nobody has changed the key since revision `seen` (0n: since the beginning, so it must not exist). */
export function keyUnchangedSince(key: string, seen: bigint): Compare {
  return { target: 'modRevision', key, result: 'less', value: seen + 1n };
}

/** The key is exactly at `modRevision` (0n: absent). */
export function keyAt(key: string, modRevision: bigint): Compare {
  return { target: 'modRevision', key, result: 'equal', value: modRevision };
}

/** Repeats while etcd does not answer. Only for what may be done twice. */
export async function withRetries<T>(limits: CallLimits, run: (timeoutMs: number) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await run(limits.timeoutMs);
    } catch (error) {
      if (!(error instanceof VitastorError) || !error.retryable || attempt >= limits.attempts) throw error;
    }
  }
}

export async function readRanges(etcd: Etcd, ranges: readonly KeyRange[], limits: CallLimits): Promise<KeyValue[][]> {
  const result = await withRetries(limits, (timeoutMs) =>
    etcd.txn({ compare: [], success: ranges.map((range) => ({ op: 'range', range })) }, timeoutMs),
  );
  return result.responses;
}

export async function readKey(etcd: Etcd, key: string, limits: CallLimits): Promise<KeyValue | null> {
  const [pairs] = await readRanges(etcd, [{ key }], limits);
  const kv = pairs?.[0];
  return kv && kv.value !== '' ? kv : null;
}

/**
 * Sends a transaction whose compares make a repetition harmless, again while etcd does not answer. `done` tells by
 * looking at etcd whether
 * an earlier try, whose reply was lost, has been carried out after all: then its success is reported.
 */
export async function changeOnce(
  etcd: Etcd,
  txn: Txn,
  limits: CallLimits,
  done: (seen: KeyValue[][]) => boolean,
  look: readonly KeyRange[],
): Promise<TxnResult> {
  let unsure = false;
  for (let attempt = 1; ; attempt++) {
    try {
      const result = await etcd.txn(txn, limits.timeoutMs);
      if (result.succeeded || !unsure) return result;
      return done(await readRanges(etcd, look, limits))
        ? { succeeded: true, revision: result.revision, responses: [] }
        : result;
    } catch (error) {
      if (!(error instanceof VitastorError) || !error.retryable || attempt >= limits.attempts) throw error;
      unsure = true;
    }
  }
}
