// SPDX-License-Identifier: GPL-2.0-or-later
// Commands that users know by heart, run by a shell as the manual prints them: etcdctl, fio and vitastor-cli, found on the PATH.
// The texts below are those of spec/commands.md, sections 1 (C5, C9, C10, C12), 2 (I1, I2) and 3; where the specification is at hand,
// each text must stand there. Only what it leaves open (`...`, `<pool>`, `E`) is filled in.
//
// What does not run to the letter, and why:
// * C5 is written to the lab's directory and named by `-conf` or `--config_path`: a test does not touch /etc of the machine.
//   Hence F4-F9 and `vitastor-cli ls` carry the address as an option, too.
// * F3 wants an installed package: the engine's folder stands on LD_LIBRARY_PATH instead.
// * F4-F9 name /dev/sdX: a file takes its place, as the specification allows. Their limit of 60 s is never reached on images of this size.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { CommandResult, Lab } from '../lab/index.js';
import { fioVerify, smallCluster, type Story } from './scenario.js';

const COMMANDS = {
  C5: '{"etcd_address": ["","",""], "osd_network": ""}',
  C9: `etcdctl --endpoints=... put /vitastor/config/global '{"immediate_commit":"all"}'`,
  C10: `etcdctl --endpoints=... put /vitastor/config/pools '{"1":{"name":"testpool","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":256,"failure_domain":"host"}}'`,
  C12: 'etcdctl --endpoints=... get --prefix /vitastor/pg/state',
  I1: `etcdctl --endpoints=<etcd> put /vitastor/config/inode/<pool>/<inode> '{"name":"<name>","size":<size>[,"parent_id":<parent_inode_number>][,"readonly":true]}'`,
  I2: `etcdctl --endpoints= put /vitastor/config/inode/1/1 '{"name":"testimg","size":2147483648}'`,
  F1: 'fio -thread -name=test -bs=4M -direct=1 -iodepth=16 -rw=write -etcd=E -image=testimg',
  F4: 'fio -ioengine=libaio -direct=1 -invalidate=1 -name=test -bs=4M -iodepth=32 -rw=write -runtime=60 -filename=/dev/sdX',
  F5: 'fio -ioengine=libaio -direct=1 -invalidate=1 -name=test -bs=4M -iodepth=32 -rw=read -runtime=60 -filename=/dev/sdX',
  F6: 'fio -ioengine=libaio -direct=1 -invalidate=1 -name=test -bs=4k -iodepth=1 -fsync=1 -rw=randwrite -runtime=60 -filename=/dev/sdX',
  F7: 'fio -ioengine=libaio -direct=1 -invalidate=1 -name=test -bs=4k -iodepth=1 -rw=randread -runtime=60 -filename=/dev/sdX',
  F8: 'fio -ioengine=libaio -direct=1 -invalidate=1 -name=test -bs=4k -iodepth=128 [-numjobs=4 -group_reporting] -rw=randwrite -runtime=60 -filename=/dev/sdX',
  F9: 'fio -ioengine=libaio -direct=1 -invalidate=1 -name=test -bs=4k -iodepth=128 [-numjobs=4 -group_reporting] -rw=randread -runtime=60 -filename=/dev/sdX',
} as const;

/** Replaces what the manual leaves open; each placeholder must be there. */
function fill(text: string, ...places: readonly (readonly [string, string])[]): string {
  for (const [place, value] of places) {
    assert.ok(text.includes(place), `${place} is not in: ${text}`);
    text = text.replaceAll(place, value);
  }
  return text;
}

/** The texts above must be those of the specification, where it lies beside the repository. */
function checkAgainstManual(lab: Lab, say: (text: string) => void): void {
  const path = join(lab.programs.root, '../shared/spec/commands.md');
  if (!existsSync(path)) {
    say(`the texts were not compared to the specification: ${path} is not there`);
    return;
  }
  const manual = readFileSync(path, 'utf8');
  for (const [id, text] of Object.entries(COMMANDS)) assert.ok(manual.includes(text), `${id} stands otherwise in the specification: ${text}`);
}

/** A line as typed into a shell where our programs, fio and etcdctl are installed. */
async function shell(lab: Lab, line: string): Promise<CommandResult> {
  assert.ok(lab.programs.etcdctl, 'etcdctl is not installed: apt-get install etcd-client, or `npm run setup`');
  const bin = join(lab.dir, 'bin');
  if (!existsSync(bin)) {
    mkdirSync(bin);
    symlinkSync(lab.programs.fio, join(bin, 'fio'));
    symlinkSync(lab.programs.etcdctl, join(bin, 'etcdctl'));
    symlinkSync(join(lab.programs.root, 'cli/bin/vitastor-cli'), join(bin, 'vitastor-cli'));
  }
  return await lab.command('shell', ['sh', '-c', line], {
    timeoutMs: 120_000,
    env: {
      ...lab.fioEnv, PATH: [bin, dirname(process.execPath), process.env['PATH'] ?? ''].join(':'), ETCDCTL_API: '3',
    },
  });
}

async function mustRun(lab: Lab, line: string): Promise<string> {
  const result = await shell(lab, line);
  assert.equal(result.code, 0, `${line}\nexit code ${result.code}\n${result.stdout}${result.stderr}`);
  return result.stdout;
}

/** fio must be content and say how much it has moved in this direction. */
async function mustRunFio(lab: Lab, line: string): Promise<void> {
  const text = await mustRun(lab, line);
  assert.match(text, /err= 0/, `${line}\n${text}`);
  assert.match(text, /-rw=(rand)?read/.test(line) ? /read: IOPS=/ : /write: IOPS=/, `${line}\n${text}`);
}

const byHand: Story = {
  name: 'pools-and-images-by-hand',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make();
    checkAgainstManual(lab, say);
    await lab.startEtcd(3);
    const addresses = lab.etcdAddresses.map((address) => address.replace('http://', ''));
    const etcd = addresses.join(',');
    writeFileSync(lab.configPath, fill(COMMANDS.C5,
      ['["","",""]', JSON.stringify(addresses)], ['"osd_network": ""', '"osd_network": "127.0.0.0/8"']));
    await lab.startMonitor();
    for (const num of [1, 2, 3]) await lab.startOsd(num, { bind_address: '' });
    const state = JSON.parse((await lab.etcd.get('/vitastor/osd/state/1')) ?? '{}') as { addresses?: string[] };
    assert.deepEqual(state.addresses, ['127.0.0.1'], 'the network of the file counts');
    const ok = await mustRun(lab, fill(COMMANDS.C9, ['...', etcd]));
    assert.equal(ok, 'OK\n');
    await mustRun(lab, fill(COMMANDS.C10, ['...', etcd]));
    await lab.waitActive({ clean: true, timeoutMs: 120_000 });
    const lines = (await mustRun(lab, fill(COMMANDS.C12, ['...', etcd]))).trimEnd().split('\n');
    assert.equal(lines.length, 2 * 256, 'a key and a value a PG');
    for (let i = 0; i < lines.length; i += 2) {
      assert.match(lines[i] ?? '', /^\/vitastor\/pg\/state\/1\/\d+$/);
      assert.deepEqual((JSON.parse(lines[i + 1] ?? '') as { state: unknown }).state, ['active'], lines[i]);
    }

    await mustRun(lab, fill(COMMANDS.I2, ['--endpoints=', `--endpoints=${etcd}`]));
    assert.match(await mustRun(lab, `vitastor-cli ls --etcd_address ${etcd}`), /testimg/);
    await fioVerify(lab, { depth: 16, seconds: 1, megabytes: 8 });
    await lab.createImage('second', '64M');
    assert.equal(await lab.etcd.get('/vitastor/config/inode/1/1'), '{"name":"testimg","size":2147483648}', 'inode 1 is not taken again');
    assert.ok(await lab.etcd.get('/vitastor/config/inode/1/2'));
    // I1 without and with its optional parts; the size once as a string, as people write it.
    const plain = fill(COMMANDS.I1, ['<etcd>', etcd], ['[,"parent_id":<parent_inode_number>][,"readonly":true]', '']);
    const whole = fill(COMMANDS.I1, ['<etcd>', etcd], ['[', ''], [']', ''], ['<parent_inode_number>', '1']);
    await mustRun(lab, fill(plain, ['<pool>', '1'], ['<inode>', '9'], ['<name>', 'third'], ['<size>', '"67108864"']));
    await mustRun(lab, fill(whole, ['<pool>', '1'], ['<inode>', '10'], ['<name>', 'fourth'], ['<size>', '2147483648']));
    const third = await lab.fio(['-name=x', '-image=third', '-rw=write', '-bs=4M', '-iodepth=4'], { timeoutMs: 60_000 });
    assert.equal(third.code, 0, third.stderr);
    assert.equal(third.jobs[0]?.write.bytes, 67108864, 'without a size the engine reports that of the image');
    const list = await mustRun(lab, `vitastor-cli ls -l --etcd_address ${etcd}`);
    assert.match(list, /third/);
    assert.match(list, /fourth.*testimg/, 'with the name of its parent');
    const refused = await lab.fio(['-name=x', '-image=fourth', '-rw=write', '-bs=4M', '-size=4M'], { timeoutMs: 60_000 });
    assert.notEqual(refused.code, 0, 'a read-only image takes no writes');
  },
};

const fioCommands: Story = {
  name: 'fio-commands',
  short: true,
  run: async ({ lab: make, long, say }) => {
    const lab = await make();
    checkAgainstManual(lab, say);
    await smallCluster(lab, { image: '32M' });
    const etcd = (lab.etcdAddresses[0] ?? '').replace('http://', '');
    const seconds = long ? 10 : 1;
    const f1 = fill(COMMANDS.F1, ['-etcd=E', `-etcd=${etcd}`]);
    for (const engine of ['vitastor', 'libfio_vitastor.so']) {
      await mustRunFio(lab, fill(f1, ['-thread ', `-thread -ioengine=${engine} `]));
    }
    // F2: any inode number, no metadata.
    await mustRunFio(lab, fill(f1, ['-thread ', '-thread -ioengine=vitastor '],
      ['-image=testimg', `-pool=1 -inode=1 -size=400G -runtime=${seconds}`]));

    const file = join(lab.dir, 'beside.data');
    writeFileSync(file, Buffer.alloc(16 << 20));
    const libaio = (await mustRun(lab, 'fio --enghelp')).includes('libaio');
    if (!libaio) say('F4-F9 without our engine are left out: this fio has no libaio');
    const optional = '[-numjobs=4 -group_reporting] ';
    for (const id of ['F4', 'F5', 'F6', 'F7', 'F8', 'F9'] as const) {
      const text: string = COMMANDS[id];
      const forms = text.includes(optional) ? [fill(text, [optional, '']), fill(text, ['[', ''], [']', ''])] : [text];
      for (const form of forms) {
        if (libaio) await mustRunFio(lab, fill(form, ['/dev/sdX', file]));
        await mustRunFio(lab, fill(form, ['-ioengine=libaio', `-ioengine=vitastor -etcd=${etcd}`], ['-filename=/dev/sdX', '-image=testimg']));
      }
    }
    rmSync(file);
  },
};

export const COMMAND_STORIES: readonly Story[] = [byHand, fioCommands];
