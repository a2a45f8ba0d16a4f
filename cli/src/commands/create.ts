// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { CREATE_PATHS, createCommand } from '../image-create.js';
import { LIMIT_FLAGS } from '../limit-options.js';
import { flag, words } from '../list-flags.js';

export default class Create extends VitastorCommand {
  static override strict = false;
  static override summary = 'Create an image, a clone or a snapshot';
  static override flags = {
    size: string({
      char: 's',
      summary: 'size, such as 10G; required except for clones and snapshots',
      helpValue: 'SIZE',
    }),
    pool: string({ char: 'p', summary: 'pool (ID or name); needed if there are several', helpValue: 'POOL' }),
    parent: string({ summary: 'make a clone of this image or snapshot', helpValue: 'NAME' }),
    snapshot: string({ summary: 'make a snapshot of NAME', helpValue: 'SNAP' }),
    ...LIMIT_FLAGS,
    'image-meta': string({ summary: 'application data, a JSON object', hidden: true }),
    'force-size': string({ summary: 'any size, also 0', hidden: true }),
    force: flag({ char: 'f', summary: 'also in a pool that is reserved for an application' }),
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(Create);
    const [name = ''] = words(argv);
    const context = await this.session.admin(CREATE_PATHS);
    return createCommand(context, {
      ...flags,
      name,
      imageMeta: flags['image-meta'],
      limits: flags,
      forceSize: flags['force-size'] !== undefined && flags['force-size'] !== '0',
    });
  }
}
