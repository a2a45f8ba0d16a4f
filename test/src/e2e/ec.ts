// SPDX-License-Identifier: GPL-2.0-or-later
// An erasure-coded pool on real processes: fio writes and verifies while OSDs die; what is degraded reads right, and becomes clean.

import assert from 'node:assert/strict';
import { type Lab, sleep } from '../lab/index.js';
import { fioVerify, type Story } from './scenario.js';

const MEGABYTES = 32;

async function readBack(lab: Lab): Promise<void> {
  const back = await lab.fio(['-name=verify', '-image=testimg', '-rw=randread', '-bs=4k', `-size=${MEGABYTES}M`, '-verify=crc32c', '-verify_fatal=1', '-iodepth=16']);
  assert.equal(back.code, 0, `what fio wrote reads differently:\n${back.stdout.slice(-3000)}${back.stderr}`);
}

async function ecPool(lab: Lab, code: string, pgCount: number): Promise<void> {
  const made = await lab.cli(['create-pool', 'testpool', '--ec', code, '-n', String(pgCount), '--failure_domain', 'osd']);
  assert.equal(made.code, 0, made.stdout + made.stderr);
  await lab.waitActive();
  await lab.createImage('testimg', '256M');
}

const ec: Story = {
  name: 'ec',
  short: true,
  run: async ({ lab: make, long, say }) => {
    for (const immediateCommit of long ? (['all', 'small', 'none'] as const) : (['all'] as const)) {
      const lab = await make({ immediateCommit });
      await lab.startEtcd();
      await lab.startMonitor();
      for (const osd of [1, 2, 3, 4]) await lab.startOsd(osd);
      await ecPool(lab, '2+1', 16);

      say(`${immediateCommit}: kill -9 of an OSD while fio writes and verifies`);
      const writing = fioVerify(lab, { depth: 16, seconds: long ? 20 : 6, megabytes: MEGABYTES });
      const killed = sleep(1500).then(async () => {
        await lab.osds.get(2)?.kill9();
      });
      await Promise.all([writing, killed]);

      say('degraded: everything reads right, and can be written');
      await lab.waitActive();
      await readBack(lab);
      await fioVerify(lab, { depth: 16, seconds: 3, megabytes: 8, name: 'degraded', args: ['-offset=64M'] });

      say('the OSD comes back: all PGs become clean');
      await lab.startOsd(2);
      await lab.waitActive({ clean: true, timeoutMs: 120_000 });
      await readBack(lab);

      say('another one dies: what was recovered is used');
      await lab.osds.get(1)?.kill9();
      await readBack(lab);
      await lab.startOsd(1);
      await lab.waitActive({ clean: true, timeoutMs: 120_000 });
      const removed = await lab.cli(['rm', 'testimg']);
      assert.equal(removed.code, 0, removed.stdout + removed.stderr);
    }
  },
};

export const EC_STORIES: readonly Story[] = [ec];
