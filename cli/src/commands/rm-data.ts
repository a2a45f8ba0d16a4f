// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { findPool, INODE_MAX, requireSize, VitastorError } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { REMOVAL_PATHS, removeData } from '../removal.js';
import { flag } from '../list-flags.js';

export default class RmData extends VitastorCommand {
  static override summary = 'Remove the data of an inode, not its metadata';
  static override flags = {
    pool: string({ char: 'p', summary: 'pool (ID or name)', helpValue: 'POOL' }),
    inode: string({ summary: 'inode number, without or with the pool bits', helpValue: 'INODE' }),
    'min-offset': string({ summary: 'keep what lies before', helpValue: 'BYTES' }),
    'max-offset': string({ summary: 'keep what lies at or behind', helpValue: 'BYTES' }),
    'wait-list': flag({ summary: 'list everything before removing' }),
    'down-ok': flag({ summary: 'succeed although OSDs with leftovers are down' }),
  };

  async run(): Promise<Outcome> {
    const { flags } = await this.parse(RmData);
    if (flags.inode === undefined || !/^\d{1,20}$/.test(flags.inode) || BigInt(flags.inode) === 0n) {
      throw new VitastorError('ERR_INVALID_ARGUMENT', 'inode number is missing: give --inode INODE');
    }
    const full = BigInt(flags.inode);
    const poolName = flags.pool ?? (full > INODE_MAX ? String(full >> 48n) : '');
    if (poolName === '') throw new VitastorError('ERR_INVALID_ARGUMENT', 'pool is missing: give --pool POOL');
    const view = await this.session.load(REMOVAL_PATHS);
    const pool = findPool(view, poolName);
    const inode = full & INODE_MAX;
    const removal = await removeData(this.session, view, {
      pool: pool.id, inode,
      minOffset: flags['min-offset'] === undefined ? 0n : requireSize('--min-offset', flags['min-offset']),
      maxOffset: flags['max-offset'] === undefined ? null : requireSize('--max-offset', flags['max-offset']),
    }, { waitList: flags['wait-list'], downOk: flags['down-ok'] });
    return {
      json: removal.json,
      text: `Done, inode ${inode} from pool ${pool.id} removed`,
      ...(removal.error ? { error: removal.error } : {}),
    };
  }
}
