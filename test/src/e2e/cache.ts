// SPDX-License-Identifier: GPL-2.0-or-later
// The client's write-back cache as fio and QEMU use it: small writes become large ones, a flush makes them safe and shows them to others, what was
// not flushed goes with the process and takes nothing with it, and an OSD may die meanwhile.

import assert from 'node:assert/strict';
import { Client } from '@vitastor/core';
import { type Lab, until } from '../lab/index.js';
import { address, QemuSession } from './qemu-rig.js';
import { allowCache, fioReadBack, fioVerify, type Story } from './scenario.js';

const MIB = 1024 ** 2;

/** Writes that primaries have carried out until now, by what they report from now on. */
async function primaryWrites(lab: Lab): Promise<number> {
  const start = Date.now() / 1000;
  return await until('every OSD has reported what it did', async () => {
    const stats = [...(await lab.etcd.prefix(`${lab.prefix}/osd/stats/`)).values()]
      .map((text) => JSON.parse(text) as { time: string; op_stats?: { primary_write?: { count: number | string } } });
    if (stats.some(({ time }) => Number(time) <= start)) return undefined;
    return stats.reduce((total, one) => total + Number(one.op_stats?.primary_write?.count ?? 0), 0);
  }, { timeoutMs: 60_000, everyMs: 100 });
}

async function fio(lab: Lab, story: { long: boolean; say: (text: string) => void }): Promise<void> {
  const write = async (direct: boolean): Promise<number> => {
    const before = await primaryWrites(lab);
    const result = await lab.fio(['-name=small', '-image=testimg', '-rw=write', '-bs=4k', '-size=8M', '-iodepth=1', '-end_fsync=1', `-direct=${direct ? 1 : 0}`]);
    assert.equal(result.code, 0, result.stdout + result.stderr);
    return (await primaryWrites(lab)) - before;
  };
  const [direct, cached] = [await write(true), await write(false)];
  story.say(`2048 writes of fio were ${direct} to the cluster, with the cache ${cached}`);
  assert.ok(direct >= 2048 && cached >= 64 && cached <= 256, `${direct} and ${cached}`);

  const args = ['-direct=0', '-fsync=16'];
  const verifying = fioVerify(lab, { depth: 16, seconds: story.long ? 20 : 4, megabytes: 16, args });
  const killing = (async () => {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    lab.killOsd(2);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await lab.startOsd(2, { etcd_stats_interval: 1 });
  })();
  await Promise.all([verifying, killing]);
  await lab.waitActive({ clean: true });
  await fioReadBack(lab, { megabytes: 16, args: ['-direct=0'], what: 'another process reads other bytes than the cached one has written' });
}

/** Every 4 KB block of the first megabyte, by a process of its own. */
async function patterns(lab: Lab): Promise<number[]> {
  const client = new Client({ config: {}, configPath: lab.configPath, log: () => undefined });
  try {
    const image = await client.open({ image: 'disk' });
    const { data } = await image.read(0n, MIB);
    return Array.from({ length: 256 }, (_, block) => {
      const first = data[block * 4096] ?? -1;
      assert.ok(data.subarray(block * 4096, (block + 1) * 4096).every((byte) => byte === first), `block ${block} is torn`);
      return first;
    });
  } finally {
    await client.close();
  }
}

async function qemu(lab: Lab): Promise<void> {
  await lab.createImage('disk', '16M');
  const file = `${address(lab)}:image=disk`;
  const direct = new QemuSession(lab, file, ['-t', 'none']);
  await direct.write(0x10, '0', '1M');
  assert.ok((await patterns(lab)).every((byte) => byte === 0x10), 'without the cache others see what was written');
  await direct.close();

  const session = new QemuSession(lab, file, ['-t', 'writeback']);
  for (let at = 0; at < 256; at++) await session.write(0x20 + (at % 7), `${at * 4}k`, '4k');
  await session.read(0x22, '8k', '4k');
  assert.ok((await patterns(lab)).some((byte) => byte === 0x10), 'small writes wait in memory for a flush');
  await session.write(0x30, '1M', '512k');
  await session.run('write -f -P 0x30 2M 4k', /wrote 4096/);
  assert.deepEqual(await patterns(lab), Array.from({ length: 256 }, (_, at) => 0x20 + (at % 7)), 'a flush shows it to others');
  for (let at = 0; at < 256; at += 2) await session.write(0x40, `${at * 4}k`, '4k');
  await session.child.kill9();
  const after = await patterns(lab);
  assert.ok(after.every((byte, at) => byte === 0x20 + (at % 7) || (at % 2 === 0 && byte === 0x40)), 'what was flushed outlives the process');

  const last = new QemuSession(lab, file, ['-t', 'writeback']);
  await last.write(0x50, '0', '1M');
  await last.close();
  assert.ok((await patterns(lab)).every((byte) => byte === 0x50), 'closing flushes');
}

const cache: Story = {
  name: 'client-cache',
  short: true,
  run: async ({ lab: make, long, say }) => {
    const lab = await make({ supervise: true });
    await lab.startEtcd();
    await lab.startMonitor();
    for (const osd of [1, 2, 3]) await lab.startOsd(osd, { etcd_stats_interval: 1 });
    await lab.createPool('testpool', { size: 2, minSize: 1, pgCount: 16 });
    await lab.createImage('testimg', '32M');
    await allowCache(lab);
    say('fio');
    await fio(lab, { long, say });
    if (!lab.programs.qemuDriver) return say('QEMU left out: there is no driver (`npm run build` says why)');
    say('QEMU');
    await qemu(lab);
  },
};

export const CACHE_STORIES: readonly Story[] = [cache];
