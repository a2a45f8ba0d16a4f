// SPDX-License-Identifier: GPL-2.0-or-later

import { createPool, prepareNewPool, VitastorError, type Clock } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { flag, words } from '../list-flags.js';
import { newPoolEntry, poolFlags } from '../pool-options.js';

/** How long --wait waits. */
const WAIT_LIMIT_MS = 60_000;

export default class CreatePool extends VitastorCommand {
  static override strict = false;
  static override summary = 'Create a pool';
  static override flags = { ...poolFlags, wait: flag({ summary: 'wait until all PGs are active' }) };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(CreatePool);
    const [name = ''] = words(argv);
    const entry = newPoolEntry(name, flags);
    const context = await this.session.admin(['osd/state/', 'osd/stats/']);
    // 3.0.8 says EAGAIN where it knows the name beforehand.
    if (context.view.poolByName(name)) throw new VitastorError('ERR_CONFLICT', `Pool ${name} already exists`);
    const config = await this.session.config();
    const stored = prepareNewPool(context.view, entry, {
      force: flags.force,
      nowMs: this.session.environment.clock.wallMs(),
      osdOutTimeSeconds: config.number('osd_out_time'),
    });
    const { id } = await createPool(context, stored);
    if (flags.wait) await this.#waitActive(id, name, config.number('mon_change_timeout'));
    return { text: `Pool ${name} created`, json: stored };
  }

  async #waitActive(id: number, name: string, intervalMs: number): Promise<void> {
    const { clock, signal } = this.session.environment;
    const end = clock.nowMs() + WAIT_LIMIT_MS;
    for (;;) {
      const view = await this.session.load(['pg/']);
      const pgs = view.pgConfig?.items.get(id) ?? [];
      const active = pgs.filter((_, i) => view.pgStates.get(id, i + 1)?.state.includes('active')).length;
      if (pgs.length > 0 && active === pgs.length) return;
      this.session.progress(
        `${active} of ${pgs.length || view.pools.get(id)?.pgCount || 0} PGs of pool ${name} are active`,
        false,
      );
      if (signal.aborted || clock.nowMs() >= end) {
        throw new VitastorError(
          'ERR_CONFLICT',
          `Pool ${name} was created, but is not active yet (${active} of ${pgs.length} PGs): look at vitastor-cli pg-list`,
          { retryable: true },
        );
      }
      await pause(clock, intervalMs, signal);
    }
  }
}

function pause(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const cancel = clock.after(delayMs, resolve);
    signal.addEventListener('abort', () => {
      cancel();
      resolve();
    }, { once: true });
  });
}
