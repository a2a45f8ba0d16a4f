// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import {
  forgetOsdsInHistories, isDataLoss, removeOsds, VitastorError,
  type OsdRemoval, type OsdRemovalRules, type PoolEffect, type PoolLoss,
} from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { flag, wholeNumber, words } from '../list-flags.js';
import { osdNumbers } from '../osd-args.js';

/** The monitor makes its own changes this long after mon_change_timeout. */
const MONITOR_MS = 500;

const EFFECTS: Readonly<Record<PoolEffect, string>> = {
  incomplete: 'INCOMPLETE PGs (DATA LOSS)',
  has_incomplete: 'INCOMPLETE objects (DATA LOSS)',
  offline: 'OFFLINE PGs',
  degraded: 'DEGRADED PGs',
  has_degraded: 'DEGRADED objects',
};

export default class RmOsd extends VitastorCommand {
  static override strict = false;
  static override summary = 'Forget OSDs that are gone for good';
  static override description =
    'Removes OSDs from etcd; nothing on their disks changes. Refused with exit code 16 while pools would suffer or the OSDs run.';
  static override flags = {
    force: flag({ char: 'f', summary: 'although pools become degraded or stop' }),
    'allow-data-loss': flag({ summary: 'although data is lost; implies --force' }),
    'allow-up': flag({ summary: 'although the OSDs are running' }),
    'dry-run': flag({ summary: 'only say what would happen' }),
    'etcd-tx-retries': string({ hidden: true, default: '10000' }),
    'etcd-tx-retry-ms': string({ hidden: true, default: '500' }),
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(RmOsd);
    const osds = osdNumbers(words(argv));
    const attempts = wholeNumber('--etcd_tx_retries', flags['etcd-tx-retries'], 1);
    const retryMs = wholeNumber('--etcd_tx_retry_ms', flags['etcd-tx-retry-ms']);
    const rules: OsdRemovalRules = {
      force: flags.force,
      allowDataLoss: flags['allow-data-loss'],
      allowUp: flags['allow-up'],
      dryRun: flags['dry-run'],
    };
    const removal = await removeOsds(() => this.session.admin(['pg/', 'osd/', 'history/']), osds, rules);
    const json = {
      osd_ids: [...osds],
      pool_errors: removal.losses.map((loss) => ({ pool_id: loss.pool, pool_name: loss.poolName, effect: loss.effect })),
    };
    if (removal.refused) return { json, text: '', error: refusal(removal, rules) };
    if (!this.session.options.json)
      for (const loss of removal.losses) this.session.environment.stderr(`warning: ${lossText(loss)}\n`);
    const which = osds.length === 1 ? `OSD ${osds[0]} ` : `OSDs ${osds.join(', ')} `;
    if (rules.dryRun) return { json, text: `${which}would be removed from etcd` };
    const { clock, signal } = this.session.environment;
    const config = await this.session.config();
    const waitMs = removal.existed ? config.number('mon_change_timeout') + MONITOR_MS : 0;
    if (removal.up.length)
      this.session.environment.stderr(`warning: OSD ${removal.up.join(', ')} still runs: stop it now, or it reports its statistics to etcd again\n`);
    await forgetOsdsInHistories(removal.context, osds, { clock, signal, waitMs, attempts, retryMs });
    return { json, text: `${which}${osds.length === 1 ? 'is' : 'are'} removed from etcd` };
  }
}

function lossText(loss: PoolLoss): string {
  return `Pool ${loss.poolName} (ID ${loss.pool}) will have ${EFFECTS[loss.effect]} after deleting OSD(s).`;
}

function refusal({ losses, up }: OsdRemoval, rules: OsdRemovalRules): VitastorError {
  const lines = losses.map(lossText);
  if (up.length && !rules.allowUp) {
    const [is, them] = up.length === 1 ? ['is', 'it'] : ['are', 'them'];
    lines.push(`OSD ${up.join(', ')} ${is} still up: stop ${them} first, or add --allow-up.`);
  }
  const lost = losses.some((loss) => isDataLoss(loss.effect));
  const way = lost ? '--allow-data-loss' : '--force';
  if (losses.length && !rules.allowDataLoss && (lost || !rules.force))
    lines.push(`OSDs not deleted. Please move data to other OSDs or bypass this check with ${way} if you know what you are doing.`);
  return new VitastorError('ERR_BUSY', lines.join('\n'), { data: { up, pools: losses.map((loss) => loss.pool) } });
}
