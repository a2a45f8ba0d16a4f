// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { requireSize } from '@vitastor/core';
import { flag } from '../../list-flags.js';
import { oneDevice } from '../devices.js';
import { noJournal, ResizeCommand } from '../resize.js';

export default class Resize extends ResizeCommand {
  static override description =
    'Without options the data area follows the size of its device. Interrupted, the store is as before or as after; the same command again completes it.';
  static override flags = {
    'data-size': string({ summary: 'New size of the data area', helpValue: 'SIZE' }),
    'move-meta': string({ summary: 'Move the metadata to this partition or file; empty: back to the data device', helpValue: 'DEVICE' }),
    'new-meta-size': string({ summary: 'New size of the metadata area; in one area with the data: of the log, at least', helpValue: 'SIZE' }),
    'move-journal': string({ summary: 'Accepted; there is no journal', helpValue: 'DEVICE' }),
    'journal-size': string({ summary: 'Accepted; there is no journal', helpValue: 'SIZE' }),
    'dry-run': flag({ summary: 'Only say what would be done' }),
    force: flag({ summary: 'Although something else begins at the new place of the metadata' }),
  };
  static override strict = false;

  async run(): Promise<number> {
    const { flags, argv } = await this.parse(Resize);
    const device = oneDevice(argv);
    noJournal(this.context, flags['move-journal'], flags['journal-size']);
    const stored = (await this.superblock(device)) !== null;
    return await this.resize(await this.osdParameters(device), stored, {
      dataSize: requireSize('data_size', flags['data-size'] ?? '0'),
      metaDevice: flags['move-meta'],
      metaOffset: undefined,
      metaSize: requireSize('new_meta_size', flags['new-meta-size'] ?? '0'),
      dryRun: flags['dry-run'], force: flags.force,
    });
  }
}
