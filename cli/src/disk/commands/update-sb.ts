// SPDX-License-Identifier: GPL-2.0-or-later

import { VitastorError, type JsonObject } from '@vitastor/core';
import { flag } from '../../list-flags.js';
import { oneDevice } from '../devices.js';
import { DiskCommand } from '../environment.js';

export default class UpdateSb extends DiskCommand {
  static override description = 'An empty value removes a parameter.';
  static override flags = {
    force: flag({ summary: 'Although the device is in use, or the record does not refer to it' }),
  };
  static override strict = false;

  async run(): Promise<number> {
    const { flags, argv } = await this.parse(UpdateSb);
    const device = oneDevice(argv);
    const stored = await this.superblock(device);
    if (!stored)
      throw new VitastorError(
        'ERR_NOT_FOUND',
        `${device}: there is no superblock of vitastor-disk; write-sb makes one`,
      );
    const parameters: JsonObject = { ...stored };
    for (const [name, value] of Object.entries(this.context.parameters)) {
      if (value === '') delete parameters[name];
      else parameters[name] = /^(0|[1-9]\d{0,14})$/.test(value) ? Number(value) : value;
    }
    await this.writeSuperblock(device, parameters, flags.force);
    return 0;
  }
}
