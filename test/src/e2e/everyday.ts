// SPDX-License-Identifier: GPL-2.0-or-later
// The life of an image and of small clusters of several shapes. Commands as the manual prints them: commands.ts.

import assert from 'node:assert/strict';
import { type Lab, sleep, until } from '../lab/index.js';
import { fioVerify, smallCluster, type Story } from './scenario.js';

const imageLife: Story = {
  name: 'image-life',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    await smallCluster(lab, { image: '64M' });
    await fioVerify(lab, { depth: 16, seconds: 1, megabytes: 16 });
    for (const args of [['modify', 'testimg', '--rename', 'renamed'], ['modify', 'renamed', '--resize', '128M']]) {
      const result = await lab.cli(args);
      assert.equal(result.code, 0, result.stderr);
    }
    const list = (await lab.cliJson(['ls'])) as { name: string; size: number }[];
    assert.deepEqual(list.map(({ name, size }) => [name, size]), [['renamed', 134217728]]);
    // Shrinking takes away what lies beyond, and nothing else.
    const shrunk = await lab.cli(['modify', 'renamed', '--resize', '8M', '-f']);
    assert.equal(shrunk.code, 0, shrunk.stderr);
    const back = await lab.fio(['-name=verify', '-image=renamed', '-rw=randread', '-bs=4k', '-size=8M', '-verify=crc32c', '-iodepth=8'], { timeoutMs: 60_000 });
    assert.equal(back.code, 0, back.stdout + back.stderr);
    const rm = await lab.cli(['rm', 'renamed']);
    assert.equal(rm.code, 0, rm.stderr);
    assert.deepEqual(await lab.cliJson(['ls']), []);
    await until('the space is free again', async () => {
      const space = await lab.etcd.prefix('/vitastor/osd/space/');
      return [...space.values()].every((text) => !/"\d+":\s*[1-9]/.test(text.replace(/"1":\s*\{/, '{')));
    }, { timeoutMs: 60_000, diagnose: () => lab.diagnose() });
    for (const command of ['status', 'df', 'ls-pools', 'ls-osd', 'osd-tree', 'pg-list']) {
      const text = await lab.cli([command]);
      assert.equal(text.code, 0, `${command}: ${text.stderr}`);
      await lab.cliJson([command]);
    }
  },
};

const ipv6: Story = {
  name: 'ipv6',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make({ host: '::1' });
    await smallCluster(lab, { osds: 2, image: '64M' });
    await fioVerify(lab, { depth: 16, seconds: 1, megabytes: 8 });
  },
};

const threeCopies: Story = {
  name: 'three-copies',
  short: false,
  run: async ({ lab: make }) => {
    const lab = await make();
    await smallCluster(lab, { osds: 4, copies: 3 });
    await fioVerify(lab, { depth: 32, seconds: 2 });
    await lab.osds.get(1)?.stop();
    await lab.waitActive();
    await fioVerify(lab, { depth: 32, seconds: 2 });
    await lab.startOsd(1);
    await lab.waitActive();
    const read = await lab.fio(['-name=verify', '-image=testimg', '-rw=randread', '-bs=4k', '-size=32M', '-verify=crc32c', '-iodepth=8'], { timeoutMs: 60_000 });
    assert.equal(read.code, 0, read.stdout + read.stderr);
  },
};

/** Two threads of one process keep to an image's limits together, hear of new ones while they write, and are free when there are none. */
const limits: Story = {
  name: 'image-limits',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make();
    await smallCluster(lab, { osds: 2, image: '64M' });
    const modify = async (...args: string[]): Promise<void> => {
      const done = await lab.cli(['modify', 'testimg', ...args]);
      assert.equal(done.code, 0, done.stderr);
    };
    await modify('--limit-iops', '200', '--limit-burst', '0');
    const write = (requests: number): ReturnType<Lab['fio']> =>
      lab.fio(['-name=limited', '-image=testimg', '-rw=randwrite', '-bs=4k', '-iodepth=16', '-numjobs=2', '-group_reporting', '-size=32M', `-number_ios=${requests / 2}`]);
    const slow = await write(800);
    assert.equal(slow.code, 0, slow.stderr);
    const [job] = slow.jobs;
    assert.ok(job && job.write.runtimeMs >= 3900, `800 writes at 200 a second took ${job?.write.runtimeMs} ms`);
    say(`800 writes at 200 a second: ${job.write.runtimeMs} ms`);
    // An hour at this rate: it ends because the limit is taken away meanwhile.
    await modify('--limit-iops', '1');
    const freed = write(4000);
    await sleep(1500); // it has begun by then; if not, it is free from the beginning
    await modify('--limit-iops', '0');
    const fast = await freed;
    assert.equal(fast.code, 0, fast.stderr);
    assert.ok(fast.jobs.every((each) => each.error === 0));
  },
};

export const EVERYDAY_STORIES: readonly Story[] = [imageLife, ipv6, threeCopies, limits];
