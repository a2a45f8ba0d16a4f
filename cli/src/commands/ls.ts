// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { findPool } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { matchesAny } from '../glob.js';
import { flag, listFlags, listOrder, words } from '../list-flags.js';
import { imageRows, imageTable, imageTree } from '../reports/image-rows.js';
import { orderRows } from '../sort.js';
import { formatTable } from '../table.js';

export default class Ls extends VitastorCommand {
  static override strict = false;
  static override summary = 'List images';
  static override flags = {
    ...listFlags,
    exact: flag({ summary: 'names are names, not patterns' }),
    pool: string({ char: 'p', summary: 'only images of this pool (ID or name)', helpValue: 'POOL' }),
    del: flag({ summary: 'with -l: statistics of deletions too' }),
    tree: flag({ summary: 'snapshots and clones as a tree' }),
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(Ls);
    const view = await this.session.load(['index/image/', 'pool/stats/', ...(flags.long ? ['inode/stats/'] : [])]);
    const pool = flags.pool === undefined ? null : findPool(view, flags.pool).id;
    const all = imageRows(view, { long: flags.long, pool });
    const rows = orderRows(
      all.filter((row) => matchesAny(words(argv), row.name, flags.exact)),
      listOrder(flags, 'name'),
    );
    const shown = flags.tree ? imageTree(rows) : rows.map((row) => ({ row, name: row.name }));
    const { columns, cells } = imageTable(
      shown.map(({ row }) => row),
      { pool: pool === null, long: flags.long, deletes: flags.del },
      shown.map(({ name }) => name),
    );
    return {
      json: rows.map((row) => row.json),
      text: formatTable(columns, cells, this.session.table),
    };
  }
}
