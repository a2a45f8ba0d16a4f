// SPDX-License-Identifier: GPL-2.0-or-later
// vitastor-disk on the store of a real OSD, with a superblock before it: refused while the OSD runs, complete afterwards, and
// damage is named.

import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { CommandResult, Lab } from '../lab/index.js';
import { fioVerify, type Story } from './scenario.js';

const AREA = 4096;

function disk(lab: Lab, args: readonly string[]): Promise<CommandResult> {
  return lab.command('vitastor-disk', [process.execPath, join(lab.programs.root, 'cli', 'bin', 'vitastor-disk'), ...args]);
}

interface Dump {
  data_block_size: number;
  entries: { pool: number; inode: string; stripe: string; writes: { version: number; stable: boolean; location: number; bitmap: string }[] }[];
}

const diskTools: Story = {
  name: 'disk-tools',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make({ osdBytes: 512 * 1024 ** 2 });
    await lab.startEtcd();
    await lab.startMonitor();
    await lab.startOsd(1, { data_offset: AREA });
    await lab.createPool('testpool', { size: 1, minSize: 1, pgCount: 4 });
    await lab.createImage('testimg', '64M');
    const file = lab.osdFile(1);
    const parameters = join(lab.dir, 'sb.json');
    writeFileSync(parameters, JSON.stringify({ osd_num: 1, data_device: file, data_offset: AREA }));
    const written = await lab.command('write-sb', ['sh', '-c', `"$0" "$1" write-sb --force "$2" < "$3"`, process.execPath,
      join(lab.programs.root, 'cli', 'bin', 'vitastor-disk'), file, parameters]);
    assert.equal(written.code, 0, written.stderr);
    await fioVerify(lab, { depth: 16, seconds: 1, megabytes: 16 });
    const refused = await disk(lab, ['check', file]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /in use/);
    await lab.osds.get(1)?.stop();

    const sound = await disk(lab, ['check', file, '--json']);
    assert.equal(sound.code, 0, sound.stdout + sound.stderr);
    assert.deepEqual((JSON.parse(sound.stdout) as { damages: unknown[] }).damages, []);
    const dumped = await disk(lab, ['dump-meta', file]);
    assert.equal(dumped.code, 0, dumped.stderr);
    const dump = JSON.parse(dumped.stdout) as Dump;
    const stripes = dump.entries.filter((entry) => entry.pool === 1 && entry.inode === '0x1').map((entry) => Number(entry.stripe) / dump.data_block_size);
    assert.deepEqual(stripes.sort((a, b) => a - b), Array.from({ length: 128 }, (_, i) => i), '16 MB are 128 objects of 128 KB');
    assert.ok(dump.entries.every((entry) => entry.writes.length === 1 && entry.writes[0]?.stable === true && entry.writes[0].bitmap === 'ffffffff'));
    const log = await disk(lab, ['dump-journal', '--json', file]);
    assert.equal(log.code, 0, log.stderr);
    assert.ok((JSON.parse(log.stdout) as unknown[]).length >= 4096, 'one entry for each write at least');

    // One bit.
    const victim = dump.entries[17];
    const at = (victim?.writes[0]?.location ?? 0) + 5 * 4096 + 100;
    const fd = openSync(file, 'r+');
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, at);
    byte[0] = (byte[0] ?? 0) ^ 1;
    writeSync(fd, byte, 0, 1, at);
    closeSync(fd);
    const damaged = await disk(lab, ['check', file]);
    assert.equal(damaged.code, 1);
    assert.match(damaged.stdout, new RegExp(`stripe ${victim?.stripe} at byte ${at - 100}: version \\d+, bytes 20480 … 24575: the checksum does not match\n1 damage: 128 objects`));
  },
};

const diskResize: Story = {
  name: 'disk-resize',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make({ osdBytes: 256 * 1024 ** 2 });
    const file = lab.osdFile(1);
    const meta = join(lab.dir, 'osd1.meta');
    await lab.startEtcd();
    await lab.startMonitor();
    await lab.startOsd(1, { data_offset: AREA });
    await lab.createPool('testpool', { size: 1, minSize: 1, pgCount: 4 });
    await lab.createImage('testimg', '64M');
    await fioVerify(lab, { depth: 16, seconds: 1, megabytes: 16 });
    await lab.osds.get(1)?.stop();
    const written = await lab.command('write-sb', ['sh', '-c', `echo "$3" | "$0" "$1" write-sb "$2"`, process.execPath,
      join(lab.programs.root, 'cli', 'bin', 'vitastor-disk'), file, JSON.stringify({ osd_num: 1, data_device: file, data_offset: AREA })]);
    assert.equal(written.code, 0, written.stderr);
    const sized = (path: string, bytes: number): void => {
      const fd = openSync(path, 'a');
      ftruncateSync(fd, bytes);
      closeSync(fd);
    };
    sized(meta, 64 * 1024 ** 2);

    const steps: { args: string[]; before?: () => void; params: Record<string, unknown>; moved: boolean }[] = [
      { args: [], before: () => sized(file, 4 * 1024 ** 3), params: {}, moved: true },
      { args: ['--move-meta', meta], params: { meta_device: meta, meta_offset: 4096 }, moved: true },
      { args: ['--move-meta', '', '--data-size', '128M'], params: { data_size: 128 * 1024 ** 2 }, moved: true },
    ];
    for (const { args, before, params, moved } of steps) {
      before?.();
      const dry = await disk(lab, ['resize', ...args, '--dry-run', '--json', file]);
      assert.equal(dry.code, 0, dry.stderr + dry.stdout);
      const done = await disk(lab, ['resize', ...args, '--json', file]);
      assert.equal(done.code, 0, done.stderr + done.stdout);
      const said = JSON.parse(done.stdout) as { new_sb_params: Record<string, unknown>; log_moved: boolean; done: boolean };
      assert.deepEqual([said.done, said.log_moved], [true, moved], done.stdout);
      const stored = JSON.parse((await disk(lab, ['read-sb', file])).stdout) as Record<string, unknown>;
      assert.deepEqual(stored, { osd_num: 1, data_device: file, data_offset: AREA, ...params });
      assert.deepEqual(said.new_sb_params, stored);
      if (params['meta_device'] !== undefined) assert.deepEqual(JSON.parse((await disk(lab, ['read-sb', meta])).stdout), stored);
      const sound = await disk(lab, ['check', file]);
      assert.equal(sound.code, 0, sound.stdout + sound.stderr);
      // The OSD goes on with it.
      await lab.startOsd(1, { meta_device: '', meta_offset: 0, data_size: 0, ...params } as Record<string, string | number>);
      await lab.waitActive();
      const back = await lab.fio(['-name=verify', '-image=testimg', '-rw=randread', '-bs=4k', '-size=16M', '-verify=crc32c', '-iodepth=8']);
      assert.equal(back.code, 0, back.stdout + back.stderr);
      await fioVerify(lab, { depth: 16, seconds: 1, megabytes: 16 });
      await lab.osds.get(1)?.stop();
    }
    assert.equal((await disk(lab, ['read-sb', meta])).code, 1, 'what has moved away leaves no superblock');
  },
};

export const DISK_STORIES: readonly Story[] = [diskTools, diskResize];
