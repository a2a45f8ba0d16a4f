// SPDX-License-Identifier: GPL-2.0-or-later
// --sort, -r and -n of the listings.

import type { JsonObject, JsonValue } from '@vitastor/core';

export interface ListOrder {
  /** Name of a JSON field. */
  field: string;
  reverse: boolean;
  /** 0 = all. */
  count: number;
}

/** Numbers (also as decimal text) by value, everything else as text; equal ones by name. */
export function orderRows<T extends { json: JsonObject }>(rows: readonly T[], order: ListOrder): T[] {
  const sorted = [...rows].sort(
    (a, b) => compare(a.json[order.field], b.json[order.field]) || compare(a.json['name'], b.json['name']),
  );
  if (order.reverse) sorted.reverse();
  return order.count > 0 ? sorted.slice(0, order.count) : sorted;
}

function compare(a: JsonValue | undefined, b: JsonValue | undefined): number {
  const [x, y] = [numeric(a), numeric(b)];
  if (x !== null && y !== null) return x < y ? -1 : x > y ? 1 : 0;
  const [s, t] = [String(a ?? ''), String(b ?? '')];
  return s < t ? -1 : s > t ? 1 : 0;
}

function numeric(value: JsonValue | undefined): number | bigint | null {
  if (typeof value === 'number' || typeof value === 'bigint') return value;
  return typeof value === 'string' && /^\d{1,20}$/.test(value) ? BigInt(value) : null;
}
