// SPDX-License-Identifier: GPL-2.0-or-later

import { stringifyJson, VitastorError, type JsonObject } from '@vitastor/core';
import { flag } from '../../list-flags.js';
import { oneDevice, requireOwnDevice, roleOf, roomBefore } from '../devices.js';
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
    const role = flags.force
      ? ((await roleOf(device, parameters)) ?? 'data')
      : await requireOwnDevice(device, parameters);
    await this.job(
      {
        kind: 'write_superblock',
        dataDevice: device,
        json: stringifyJson(parameters),
        roomBytes: roomBefore(role, parameters),
        force: flags.force,
      },
      () => undefined,
    );
    return 0;
  }
}
