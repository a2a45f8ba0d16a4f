// SPDX-License-Identifier: GPL-2.0-or-later

import { allocateOsd } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';

export default class AllocOsd extends VitastorCommand {
  static override summary = 'Reserve a new OSD number and print it';
  static override description =
    'The smallest number that no OSD has and no placement group still names. A reserved number that is not used is freed by rm-osd.';

  async run(): Promise<Outcome> {
    await this.parse(AllocOsd);
    const osd = await allocateOsd(await this.session.admin([]));
    return { text: String(osd), json: osd };
  }
}
