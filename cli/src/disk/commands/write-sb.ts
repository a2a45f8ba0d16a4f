// SPDX-License-Identifier: GPL-2.0-or-later

import { isJsonObject, parseJson, VitastorError, type JsonValue } from '@vitastor/core';
import { flag } from '../../list-flags.js';
import { oneDevice } from '../devices.js';
import { DiskCommand } from '../environment.js';

export default class WriteSb extends DiskCommand {
  static override description =
    'The JSON has osd_num, data_device and every other parameter that the OSD is to be started with; areas begin at 4096 or later.';
  static override flags = {
    force: flag({
      summary: 'Write it although the device is in use, holds a store at byte 0 or is not named in the JSON',
    }),
  };
  static override strict = false;

  async run(): Promise<number> {
    const { flags, argv } = await this.parse(WriteSb);
    const device = oneDevice(argv);
    let parameters: JsonValue;
    try {
      parameters = parseJson(await this.context.environment.stdin());
    } catch (error) {
      throw new VitastorError(
        'ERR_INVALID_ARGUMENT',
        'standard input is not JSON; write {"osd_num":1,"data_device":"/dev/disk/by-partuuid/..."}',
        { cause: error },
      );
    }
    if (!isJsonObject(parameters))
      throw new VitastorError('ERR_INVALID_ARGUMENT', 'standard input is not a JSON object');
    await this.writeSuperblock(device, parameters, flags.force);
    return 0;
  }
}
