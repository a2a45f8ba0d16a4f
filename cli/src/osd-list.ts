// SPDX-License-Identifier: GPL-2.0-or-later
// osd-tree and osds: one lister.

import type { Outcome } from './base-command.js';
import { osdJson, osdRows, osdTable, type OsdColumns } from './reports/osd-rows.js';
import type { Session } from './session.js';
import { formatTable } from './table.js';

export async function listOsds(session: Session, show: OsdColumns): Promise<Outcome> {
  const view = await session.load(['osd/state/', 'osd/stats/']);
  const rows = osdRows(view);
  const { columns, cells } = osdTable(view, rows, show);
  return {
    json: rows.map((row) => osdJson(view, row)),
    text: formatTable(columns, cells, session.table),
  };
}
