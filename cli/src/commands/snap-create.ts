// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { VitastorError } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { CREATE_PATHS, createCommand } from '../image-create.js';
import { words } from '../list-flags.js';

export default class SnapCreate extends VitastorCommand {
  static override strict = false;
  static override summary = 'Create a snapshot';
  static override flags = {
    pool: string({ char: 'p', summary: 'pool of the new top layer; default: the same', helpValue: 'POOL' }),
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(SnapCreate);
    const [fullName = ''] = words(argv);
    const at = fullName.indexOf('@');
    if (at <= 0 || at === fullName.length - 1)
      throw new VitastorError('ERR_INVALID_ARGUMENT', 'Snapshot name must be IMAGE@SNAPSHOT');
    const context = await this.session.admin(CREATE_PATHS);
    return createCommand(context, {
      name: fullName.slice(0, at),
      snapshot: fullName.slice(at + 1),
      pool: flags.pool,
      force: false,
      forceSize: false,
    });
  }
}
