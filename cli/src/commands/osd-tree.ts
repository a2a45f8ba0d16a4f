// SPDX-License-Identifier: GPL-2.0-or-later

import { VitastorCommand, type Outcome } from '../base-command.js';
import { listFlags } from '../list-flags.js';
import { listOsds } from '../osd-list.js';

export default class OsdTree extends VitastorCommand {
  static override summary = 'Show the placement tree';
  static override flags = { long: listFlags.long };

  async run(): Promise<Outcome> {
    const { flags } = await this.parse(OsdTree);
    return listOsds(this.session, { long: flags.long, tree: true });
  }
}
