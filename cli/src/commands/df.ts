// SPDX-License-Identifier: GPL-2.0-or-later

import { VitastorCommand, type Outcome } from '../base-command.js';
import { flag, listFlags, listOrder } from '../list-flags.js';
import { listPools } from '../pool-list.js';

export default class Df extends VitastorCommand {
  static override summary = 'Show space of the pools';
  static override flags = { ...listFlags, detail: flag({ summary: 'every fact of a pool on a line of its own' }) };

  async run(): Promise<Outcome> {
    const { flags } = await this.parse(Df);
    return listPools(this.session, {
      long: flags.long,
      detail: flags.detail,
      recovery: false,
      patterns: [],
      order: listOrder(flags, 'id'),
    });
  }
}
