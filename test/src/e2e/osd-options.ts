// SPDX-License-Identifier: GPL-2.0-or-later
// OSDs started with the flags that the manual of Vitastor prints (C14, C15 of spec/commands.md), and several OSDs on one
// device.

import assert from 'node:assert/strict';
import { closeSync, existsSync, ftruncateSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Lab, until } from '../lab/index.js';
import { assertSays, fioVerify, type Story } from './scenario.js';

const C14 =
  '--disable_data_fsync true --immediate_commit all --flusher_count 8 --disk_alignment 4096 ' +
  '--journal_block_size 4096 --meta_block_size 4096 --journal_no_same_sector_overwrites true ' +
  '--journal_sector_buffer_count 1024 --journal_size 16777216';
/** Values that the manual leaves open are those of C14. */
const C15 = {
  disable_data_fsync: 1,
  immediate_commit: 'all',
  disable_device_lock: 1,
  flusher_count: 256,
  disk_alignment: 4096,
  journal_block_size: 4096,
  meta_block_size: 4096,
  journal_no_same_sector_overwrites: true,
  journal_sector_buffer_count: 1024,
};

function flagsOf(text: string): Record<string, string> {
  const words = text.split(' ');
  return Object.fromEntries(
    words.flatMap((word, i) => (word.startsWith('--') ? [[word.slice(2), words[i + 1] ?? '']] : [])),
  );
}

function namedOnce(lab: Lab, num: number, names: readonly string[]): void {
  const log = readFileSync(lab.osds.get(num)?.logFile ?? '', 'utf8');
  for (const name of names) {
    const times = log.split(`${name} is accepted and has no effect`).length - 1;
    assert.equal(times, 1, `${name} in the log of OSD ${num}:\n${log}`);
  }
}

const IGNORED = [
  'max_flusher_count',
  'disk_alignment',
  'journal_block_size',
  'meta_block_size',
  'journal_no_same_sector_overwrites',
  'journal_sector_buffer_count',
];

const flagsOfTheManual: Story = {
  name: 'osd-flags-of-the-manual',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make({ config: C15 });
    const manual = join(lab.programs.root, '../shared/spec/commands.md');
    if (existsSync(manual))
      assert.ok(readFileSync(manual, 'utf8').includes(C14), 'C14 stands otherwise in the specification');
    else say(`C14 was not compared to the specification: ${manual} is not there`);
    await lab.startEtcd();
    await lab.startMonitor();
    await lab.startOsd(1, { ...flagsOf(C14), disable_device_lock: 0 });
    await lab.startOsd(2); // C15 in vitastor.conf
    await lab.startOsd(3, C15);
    namedOnce(lab, 1, [...IGNORED, 'journal_size']);
    namedOnce(lab, 2, IGNORED);
    namedOnce(lab, 3, IGNORED);
    await lab.createPool('testpool', { size: 2, minSize: 1, pgCount: 16 });
    await lab.createImage('testimg', '64M');
    await fioVerify(lab, { depth: 16, seconds: 1, megabytes: 8 });
    // Counted on the way out.
    await lab.osds.get(1)?.stop();
    assert.match((await lab.etcd.get('/vitastor/osd/stats/1')) ?? '', /"store":\{[^}]*"data_flushes":\d+/);
  },
};

const sharedDevice: Story = {
  name: 'osds-share-a-device',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    const device = join(lab.dir, 'shared.data');
    const fd = openSync(device, 'w');
    ftruncateSync(fd, 3 * 1024 ** 3);
    closeSync(fd);
    const area = (n: number): Record<string, string | number> => ({
      data_device: device,
      disable_device_lock: 1,
      data_offset: n * 1024 ** 3,
      data_size: 1024 ** 3,
    });
    await lab.startEtcd();
    await lab.startMonitor();
    const refused = async (
      num: number,
      params: Record<string, string | number>,
      ...words: RegExp[]
    ): Promise<void> => {
      const child = await lab.startOsd(num, params, { wait: false });
      const exit = await until(`OSD ${num} ends by itself`, () => child.exit ?? undefined, {
        timeoutMs: 40_000,
        diagnose: () => child.story(),
      });
      assert.equal(exit.code, 1);
      assertSays(child.lastLines(40).join('\n'), /shared\.data/, ...words);
    };
    await lab.startOsd(1, area(0));
    await lab.startOsd(2, area(1));
    // The whole device, an area that reaches into another, and an area that was not said to be one.
    await refused(11, { data_device: device }, /in use/, /disable_device_lock/);
    await refused(12, { ...area(1), data_offset: 1536 * 1024 ** 2 }, /in use/, /data_offset/);
    await refused(13, { data_device: device, data_offset: 2 * 1024 ** 3 }, /disable_device_lock/, /data_size/);
    await lab.startOsd(3, area(2));
    await lab.createPool('testpool', { size: 2, minSize: 1, pgCount: 16 });
    await lab.createImage('testimg', '64M');
    await fioVerify(lab, { depth: 16, seconds: 1, megabytes: 16 });
    await lab.osds.get(2)?.kill9();
    await lab.startOsd(2);
    await lab.waitActive();
    const verify = '-name=verify -image=testimg -rw=randread -bs=4k -size=16M -verify=crc32c -iodepth=8';
    const read = await lab.fio(verify.split(' '), { timeoutMs: 60_000 });
    assert.equal(read.code, 0, read.stdout + read.stderr);
  },
};

export const OPTION_STORIES: readonly Story[] = [flagsOfTheManual, sharedDevice];
