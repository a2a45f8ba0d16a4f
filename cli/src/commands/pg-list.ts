// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { findPool } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { wholeNumber, words } from '../list-flags.js';
import { parseOsdList, pgRows, pgTable } from '../reports/pg-rows.js';
import { formatTable } from '../table.js';

export default class PgList extends VitastorCommand {
  static override strict = false;
  static override summary = 'List placement groups';
  static override description =
    'STATE: a+b = PGs with all of these states, ^a+b or !a+b = PGs without all of them; several are OR-ed.';
  static override flags = {
    pool: string({ char: 'p', summary: 'only this pool (ID or name)', helpValue: 'POOL' }),
    min: string({ summary: 'from this PG number on', helpValue: 'PG' }),
    max: string({ summary: 'up to this PG number', helpValue: 'PG' }),
    osd: string({ summary: 'only PGs on one of these OSDs', helpValue: '1,2,...' }),
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(PgList);
    const view = await this.session.load(['pg/', 'pgstats/']);
    const rows = pgRows(view, {
      pool: flags.pool === undefined ? null : findPool(view, flags.pool).id,
      min: wholeNumber('--min', flags.min ?? '0'),
      max: wholeNumber('--max', flags.max ?? '0'),
      osds: flags.osd === undefined ? [] : parseOsdList(flags.osd),
      states: words(argv),
    });
    const { columns, cells } = pgTable(view, rows, flags.pool === undefined);
    return {
      json: rows.map((row) => row.json),
      text: formatTable(columns, cells, this.session.table),
    };
  }
}
