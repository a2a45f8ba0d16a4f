// SPDX-License-Identifier: GPL-2.0-or-later

import { flattenLayer, VitastorError } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { CliLayerWork, mergeFlags, mergeSettings } from '../layer-work.js';
import { words } from '../list-flags.js';

export default class Flatten extends VitastorCommand {
  static override strict = false;
  static override summary = 'Copy what an image reads of its parents into it, and detach it';
  static override description = 'The image may be in use meanwhile. May be interrupted and repeated.';
  static override flags = { ...mergeFlags };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(Flatten);
    const [name = '', ...rest] = words(argv);
    if (name === '') throw new VitastorError('ERR_INVALID_ARGUMENT', 'Layer to flatten is missing');
    if (rest.length) throw new VitastorError('ERR_INVALID_ARGUMENT', 'flatten takes one layer');
    const work = new CliLayerWork(this.session, mergeSettings(flags), { waitList: false, downOk: false });
    const { layers, changed } = await flattenLayer(work, name);
    return {
      json: { from: layers[0]?.name ?? name, to: name, into: name },
      text: changed ? `Image ${name} flattened` : `Image ${name} has no parent already`,
    };
  }
}
