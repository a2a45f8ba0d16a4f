// SPDX-License-Identifier: GPL-2.0-or-later

import { VitastorCommand, type Outcome } from '../base-command.js';
import { flag, listFlags, listOrder, words } from '../list-flags.js';
import { listPools } from '../pool-list.js';

export default class LsPools extends VitastorCommand {
  static override strict = false;
  static override summary = 'List pools';
  static override flags = { ...listFlags, detail: flag({ summary: 'every fact of a pool on a line of its own' }) };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(LsPools);
    return listPools(this.session, {
      long: flags.long,
      detail: flags.detail,
      recovery: true,
      patterns: words(argv),
      order: listOrder(flags, 'id'),
    });
  }
}
