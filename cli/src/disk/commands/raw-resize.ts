// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { requireSize } from '@vitastor/core';
import { flag } from '../../list-flags.js';
import { atMostOneDevice } from '../devices.js';
import { noJournal, refuseDataOffset, ResizeCommand } from '../resize.js';

const size = (summary: string) => string({ summary, helpValue: 'SIZE' });

export default class RawResize extends ResizeCommand {
  static override description = 'Like resize, with the places of all areas said one by one. Superblocks stay as they are.';
  static override flags = {
    new_data_offset: size('Must be what it is'),
    new_data_len: size('New size of the data area'),
    new_meta_device: string({ summary: 'Where the metadata go; empty: back to the data device', helpValue: 'DEVICE' }),
    new_meta_offset: size('Where they begin there'),
    new_meta_len: size('Size of their area; in one area with the data: of the log, at least'),
    new_journal_device: string({ summary: 'Accepted; there is no journal', helpValue: 'DEVICE' }),
    new_journal_offset: size('Accepted; there is no journal'),
    new_journal_len: size('Accepted; there is no journal'),
    new_meta_format: string({ summary: 'Accepted; the store has one format', helpValue: 'N' }),
    iodepth: string({ summary: 'Accepted; has no effect', helpValue: 'N' }),
    'dry-run': flag({ summary: 'Only say what would be done' }),
    force: flag({ summary: 'Although something else begins at the new place of the metadata' }),
  };
  static override strict = false;

  async run(): Promise<number> {
    const { flags, argv } = await this.parse(RawResize);
    noJournal(this.context, flags.new_journal_device, flags.new_journal_len, flags.new_journal_offset);
    const parameters = await this.osdParameters(atMostOneDevice(argv));
    if (flags.new_data_offset !== undefined) refuseDataOffset(parameters, requireSize('new_data_offset', flags.new_data_offset));
    return await this.resize(parameters, false, {
      dataSize: requireSize('new_data_len', flags.new_data_len ?? '0'),
      metaDevice: flags.new_meta_device,
      metaOffset: flags.new_meta_offset === undefined ? undefined : requireSize('new_meta_offset', flags.new_meta_offset),
      metaSize: requireSize('new_meta_len', flags.new_meta_len ?? '0'),
      dryRun: flags['dry-run'], force: flags.force,
    });
  }
}
