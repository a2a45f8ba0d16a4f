// SPDX-License-Identifier: GPL-2.0-or-later

import { VitastorError } from '@vitastor/core';
import { oneDevice, requireOwnDevice } from '../devices.js';
import { DiskCommand } from '../environment.js';

export default class Udev extends DiskCommand {
  static override strict = false;

  async run(): Promise<number> {
    const { argv } = await this.parse(Udev);
    const device = oneDevice(argv);
    const parameters = await this.superblock(device);
    if (!parameters) throw new VitastorError('ERR_NOT_FOUND', `${device}: there is no superblock of vitastor-disk`);
    const role = await requireOwnDevice(device, parameters);
    const osd = String(parameters['osd_num']);
    const named = (name: string): string => (typeof parameters[name] === 'string' ? parameters[name] : '');
    const lines = [
      `VITASTOR_OSD_NUM=${osd}`,
      `VITASTOR_ALIAS=osd${osd}-${role}`,
      `VITASTOR_DATA_DEVICE=${named('data_device')}`,
    ];
    const meta = named('meta_device');
    if (meta !== '' && meta !== named('data_device')) lines.push(`VITASTOR_META_DEVICE=${meta}`);
    const journal = named('journal_device');
    if (journal !== '' && journal !== meta && journal !== named('data_device'))
      lines.push(`VITASTOR_JOURNAL_DEVICE=${journal}`);
    this.print(`${lines.join('\n')}\n`);
    return 0;
  }
}
