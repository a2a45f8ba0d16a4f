// SPDX-License-Identifier: GPL-2.0-or-later
// Deletes stay deleted: an OSD that was away while an image was removed brings nothing back (safety 6), and an empty disk under its number
// is refused.

import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { until } from '../lab/index.js';
import { fioVerify, type Story } from './scenario.js';

const deletes: Story = {
  name: 'deletes-stay-deleted',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make({ osdBytes: 256 * 1024 ** 2 });
    await lab.startEtcd();
    await lab.startMonitor();
    for (const num of [1, 2]) await lab.startOsd(num, { etcd_stats_interval: 1 });
    await lab.createPool('testpool', { size: 2, minSize: 1, pgCount: 4 });
    await lab.createImage('testimg', '64M');
    await fioVerify(lab, { depth: 16, seconds: 1, megabytes: 16 });
    await lab.waitActive({ clean: true });
    const objects = async (): Promise<number> =>
      ((await lab.cliJson(['pg-list'])) as { object_count: number }[]).reduce((sum, pg) => sum + pg.object_count, 0);
    const used = async (): Promise<boolean> =>
      [...(await lab.etcd.prefix(`${lab.prefix}/osd/space/`)).values()].some((text) => /"\d+":\s*[1-9]/.test(text.replace(/"1":\s*\{/, '{')));
    await until('the objects are counted', async () => (await objects()) === 128, { timeoutMs: 30_000, diagnose: () => lab.diagnose() });

    say('OSD 2 goes away, the image is removed without --down-ok');
    await lab.osds.get(2)?.stop();
    await lab.waitActive();
    const removed = await lab.cli(['rm', 'testimg']);
    assert.equal(removed.code, 0, removed.stdout + removed.stderr);
    assert.doesNotMatch(removed.stdout + removed.stderr, /may remain/);

    say('OSD 2 comes back with all of it');
    await lab.startOsd(2);
    await lab.waitActive({ clean: true });
    await until('no object is left anywhere', async () => (await objects()) === 0 && !(await used()), { timeoutMs: 30_000, diagnose: () => lab.diagnose() });

    say('an empty disk does not get a number that PGs count on');
    await lab.osds.get(2)?.stop();
    rmSync(lab.osdFile(2));
    await lab.startOsd(2, {}, { wait: false });
    const child = lab.osds.get(2);
    await until('it is refused', () => Promise.resolve(child !== undefined && readFileSync(child.logFile, 'utf8').includes('still counts on the old disk of OSD 2')), { timeoutMs: 30_000, diagnose: () => lab.diagnose() });
  },
};

export const DELETE_STORIES: readonly Story[] = [deletes];
