// SPDX-License-Identifier: GPL-2.0-or-later
// What users do by hand, as the manual tells them (spec/commands.md).

import assert from 'node:assert/strict';
import { until } from '../lab/index.js';
import { assertSays, fioVerify, smallCluster, type Story } from './scenario.js';

const byHand: Story = {
  name: 'pools-and-images-by-hand',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    await lab.startEtcd();
    await lab.startMonitor();
    for (const num of [1, 2, 3]) await lab.startOsd(num);
    await lab.etcd.put('/vitastor/config/global', '{"immediate_commit":"all"}');
    await lab.etcd.put('/vitastor/config/pools',
      '{"1":{"name":"testpool","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":256,"failure_domain":"host"}}');
    await lab.waitActive({ clean: true, timeoutMs: 120_000 });
    assert.equal((await lab.etcd.prefix('/vitastor/pg/state/')).size, 256);
    await lab.etcd.put('/vitastor/config/inode/1/1', '{"name":"testimg","size":2147483648}');
    assertSays((await lab.cli(['ls'])).stdout, /testimg/);
    await fioVerify(lab, { depth: 16, seconds: 1, megabytes: 8 });
    await lab.createImage('second', '64M');
    assert.equal(await lab.etcd.get('/vitastor/config/inode/1/1'), '{"name":"testimg","size":2147483648}', 'inode 1 is not taken again');
    assert.ok(await lab.etcd.get('/vitastor/config/inode/1/2'));
    // As strings, as people write them.
    await lab.etcd.put('/vitastor/config/inode/1/9', '{"name":"third","size":"67108864"}');
    const third = await lab.fio(['-name=x', '-image=third', '-rw=write', '-bs=4M', '-iodepth=4'], { timeoutMs: 60_000 });
    assert.equal(third.code, 0, third.stderr);
    assert.equal(third.jobs[0]?.write.bytes, 67108864, 'without a size the engine reports that of the image');
  },
};

const fioCommands: Story = {
  name: 'fio-commands',
  short: true,
  run: async ({ lab: make, long }) => {
    const lab = await make();
    await smallCluster(lab, { image: '128M' });
    const etcd = (lab.etcdAddresses[0] ?? '').replace('http://', '');
    const seconds = long ? 10 : 1;
    const commands = [
      ['-thread', '-ioengine=vitastor', '-name=test', '-bs=4M', '-direct=1', '-iodepth=16', '-rw=write', `-etcd=${etcd}`, '-image=testimg'],
      ['-thread', '-ioengine=libfio_vitastor.so', '-name=test', '-bs=4M', '-direct=1', '-iodepth=16', '-rw=write', `-etcd=${etcd}`, '-image=testimg'],
      ['-thread', '-ioengine=vitastor', '-name=test', '-bs=4M', '-direct=1', '-iodepth=16', '-rw=write', `-etcd=${etcd}`, '-pool=1', '-inode=1', '-size=400G', `-runtime=${seconds}`],
      ['-thread', '-ioengine=vitastor', '-direct=1', '-name=test', '-bs=4k', '-iodepth=1', '-fsync=1', '-rw=randwrite', `-runtime=${seconds}`, `-etcd=${etcd}`, '-image=testimg'],
      ['-thread', '-ioengine=vitastor', '-direct=1', '-name=test', '-bs=4k', '-iodepth=128', '-numjobs=4', '-group_reporting', '-rw=randwrite', `-runtime=${seconds}`, `-etcd=${etcd}`, '-image=testimg'],
      ['-thread', '-ioengine=vitastor', '-direct=1', '-name=test', '-bs=4k', '-iodepth=128', '-rw=randread', `-runtime=${seconds}`, `-etcd=${etcd}`, '-image=testimg'],
    ];
    for (const args of commands) {
      const result = await lab.rawFio(args, { timeoutMs: 120_000 });
      assert.equal(result.code, 0, `fio ${args.join(' ')}\n${result.stdout}${result.stderr}`);
      assert.ok(result.jobs.every((job) => job.error === 0 && job.read.ios + job.write.ios > 0), JSON.stringify(result.jobs));
    }
  },
};

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

export const EVERYDAY_STORIES: readonly Story[] = [byHand, fioCommands, imageLife, ipv6, threeCopies];
