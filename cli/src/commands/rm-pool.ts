// SPDX-License-Identifier: GPL-2.0-or-later

import { deletePool, findPool, VitastorError } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { flag, words } from '../list-flags.js';

export default class RmPool extends VitastorCommand {
  static override strict = false;
  static override summary = 'Remove a pool';
  static override flags = { force: flag({ char: 'f', summary: 'although images are in it: their data is lost' }) };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(RmPool);
    const [name = ''] = words(argv);
    if (name === '') throw new VitastorError('ERR_INVALID_ARGUMENT', 'Pool name or ID is missing');
    const context = await this.session.admin(['index/']);
    const pool = findPool(context.view, name);
    const pools = await deletePool(context, pool, flags.force);
    return { text: `Pool ${pool.name} deleted`, json: pools };
  }
}
