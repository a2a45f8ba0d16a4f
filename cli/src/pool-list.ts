// SPDX-License-Identifier: GPL-2.0-or-later
// df and ls-pools: one lister.

import type { Outcome } from './base-command.js';
import { matchesAny } from './glob.js';
import { ioJson, poolDetail, poolRow, poolTable, recoveryJson } from './reports/pool-rows.js';
import type { Session } from './session.js';
import { orderRows, type ListOrder } from './sort.js';
import { formatTable } from './table.js';

export interface PoolListOptions {
  long: boolean;
  detail: boolean;
  /** ls-pools -l has it, df -l has not. */
  recovery: boolean;
  patterns: readonly string[];
  order: ListOrder;
}

export async function listPools(session: Session, options: PoolListOptions): Promise<Outcome> {
  const io = options.long || options.detail;
  const view = await session.load([
    'pg/',
    'pgstats/',
    'osd/state/',
    'osd/stats/',
    'pool/stats/',
    ...(io ? ['inode/stats/'] : []),
  ]);
  const pools = [...view.pools.values()].filter((pool) => matchesAny(options.patterns, pool.name, false));
  const rows = orderRows(pools.map((pool) => poolRow(view, pool)), options.order);
  const recovery = options.detail || (options.recovery && options.long);
  const json = rows.map((row) => ({ ...row.json, ...(recovery ? recoveryJson(row) : {}), ...(io ? ioJson(row) : {}) }));
  if (options.detail) return { json, text: rows.map(poolDetail).join('\n\n') };
  const { columns, cells } = poolTable(rows, { recovery, io });
  return { json, text: formatTable(columns, cells, session.table) };
}
