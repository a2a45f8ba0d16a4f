// SPDX-License-Identifier: GPL-2.0-or-later

import { VitastorCommand, type Outcome } from '../base-command.js';
import { listFlags } from '../list-flags.js';
import { listOsds } from '../osd-list.js';

export default class Osds extends VitastorCommand {
  static override summary = 'List OSDs';
  static override flags = { long: listFlags.long };

  async run(): Promise<Outcome> {
    const { flags } = await this.parse(Osds);
    return listOsds(this.session, { long: flags.long, tree: false });
  }
}
