// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { findPool, modifyPool, VitastorError } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { words } from '../list-flags.js';
import { poolFields, poolFlags } from '../pool-options.js';

export default class ModifyPool extends VitastorCommand {
  static override strict = false;
  static override summary = 'Change a pool';
  static override description = 'An empty value removes a setting.';
  static override flags = { ...poolFlags, name: string({ summary: 'new name', helpValue: 'NEW' }) };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(ModifyPool);
    const [pool = ''] = words(argv);
    if (pool === '') throw new VitastorError('ERR_INVALID_ARGUMENT', 'Pool name or ID is missing');
    const fields = { ...poolFields(flags), ...(flags.name ? { name: flags.name } : {}) };
    const context = await this.session.admin([]);
    const found = findPool(context.view, pool);
    if (Object.keys(fields).length === 0) return { text: 'No change', plain: true };
    // 3.0.8's monitor refuses xor pools without it, and its tool takes it away.
    if (found.scheme === 'xor' && found.raw['parity_chunks'] === undefined) Object.assign(fields, { parity_chunks: 1 });
    const config = await this.session.config();
    const pools = await modifyPool(context, found, fields, {
      force: flags.force,
      nowMs: this.session.environment.clock.wallMs(),
      osdOutTimeSeconds: config.number('osd_out_time'),
    });
    return { text: `Pool ${found.name} updated`, json: pools };
  }
}
