// SPDX-License-Identifier: GPL-2.0-or-later

import { stringifyJson, VitastorError } from '@vitastor/core';
import { flag } from '../../list-flags.js';
import { oneDevice, requireOwnDevice } from '../devices.js';
import { DiskCommand } from '../environment.js';

export default class ReadSb extends DiskCommand {
  static override flags = { force: flag({ summary: 'Print it even if the record does not refer to this device' }) };
  static override strict = false;

  async run(): Promise<number> {
    const { flags, argv } = await this.parse(ReadSb);
    const device = oneDevice(argv);
    const parameters = await this.superblock(device);
    if (!parameters) throw new VitastorError('ERR_NOT_FOUND', `${device}: there is no superblock of vitastor-disk`);
    if (!flags.force) await requireOwnDevice(device, parameters);
    this.print(`${stringifyJson(parameters)}\n`);
    return 0;
  }
}
