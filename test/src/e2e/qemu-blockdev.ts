// SPDX-License-Identifier: GPL-2.0-or-later
// A QEMU that was built with plugins/qemu/patches: -blockdev, the storage daemon, blockdev-create. VITASTOR_PATCHED_QEMU names its build folder
// (plugins/qemu/patches/README.md says how to get one); without it there is nothing to test.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Child, type Lab, until } from '../lab/index.js';
import { Guest, makeInitramfs, missingForGuest } from './guest.js';
import { Qmp } from './qmp.js';
import { assertSays, smallCluster, type Story } from './scenario.js';

const SCRIPT = `
say() { echo "GUEST $*"; }
if [ -b /dev/vda ]; then say "disk of $(cat /sys/block/vda/size) sectors"; fi
mkfs.ext4 -q -F /dev/vda && mount /dev/vda /mnt && dd if=/dev/urandom of=/mnt/f bs=64k count=32 2>/dev/null && cp /mnt/f /tmp/f && umount /mnt
mount /dev/vda /mnt && cmp /mnt/f /tmp/f && say "the file is whole"; rm /mnt/f; sync; fstrim /mnt && say "trimmed"; umount /mnt
e2fsck -fn /dev/vda > /tmp/fsck 2>&1 && say "fsck is clean" || { say "FSCK"; cat /tmp/fsck; }
say "end"
poweroff -f
`;

interface Job {
  id: string;
  status: string;
  error?: string;
}

/** Creation as libvirt asks for it: a job, whose error is given ('' if there is none). */
async function blockdevCreate(qmp: Qmp, options: Record<string, unknown>): Promise<string> {
  await qmp.run('blockdev-create', { 'job-id': 'job', options });
  const job = await until('the job has ended', async () => ((await qmp.run('query-jobs')) as Job[]).find(({ status }) => status === 'concluded'), { timeoutMs: 60_000, everyMs: 20 });
  await qmp.run('job-dismiss', { id: 'job' });
  return job.error ?? '';
}

const DAEMON = join('storage-daemon', 'qemu-storage-daemon');

class Daemon {
  readonly child: Child;
  readonly nbd: string;
  readonly vhost: string;
  readonly monitor: string;
  constructor(lab: Lab, folder: string, name: string, blockdev: string) {
    this.nbd = join(lab.dir, `${name}.nbd`);
    this.vhost = join(lab.dir, `${name}.vhost`);
    this.monitor = join(lab.dir, `${name}.qmp`);
    this.child = lab.background('storage-daemon', [
      // The folder of modules, which `make install` would make known.
      'env', `QEMU_MODULE_DIR=${folder}`, join(folder, DAEMON), '--chardev', `socket,id=m0,path=${this.monitor},server=on,wait=off`, '--monitor', 'chardev=m0',
      '--blockdev', blockdev, '--nbd-server', `addr.type=unix,addr.path=${this.nbd}`,
      '--export', 'type=nbd,id=e0,node-name=d0,name=disk,writable=on',
      '--export', `type=vhost-user-blk,id=e1,node-name=d0,addr.type=unix,addr.path=${this.vhost},writable=on,num-queues=2`,
    ]);
  }
}

const blockdev: Story = {
  name: 'qemu-blockdev',
  short: true,
  run: async ({ lab: make, say }) => {
    const folder = process.env['VITASTOR_PATCHED_QEMU'] ?? '';
    if (folder === '' || !existsSync(join(folder, DAEMON))) {
      say('left out: VITASTOR_PATCHED_QEMU names no build folder of a QEMU with plugins/qemu/patches');
      return;
    }
    const lab = await make();
    await smallCluster(lab, { image: '64M' });
    await lab.createImage('other', '16M');
    const config = `config-path=${lab.configPath}`;
    // spec/tools.md 10.3, with the lab's configuration.
    const words = `driver=vitastor,node-name=d0,image=testimg,${config},cache.direct=on,discard=unmap`;
    const storage = new Daemon(lab, folder, 'storage', words);
    const qmp = await Qmp.connect(storage.monitor, () => (storage.child.exit ? storage.child.story() : undefined));
    await until('the export is there', () => existsSync(storage.vhost), { timeoutMs: 30_000, everyMs: 20, hopeless: () => (storage.child.exit ? storage.child.story() : undefined) });

    const io = async (file: string, ...commands: string[]): Promise<string> => {
      const done = await lab.command('qemu-io', [join(folder, 'qemu-io'), '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), file]);
      return done.stdout + done.stderr;
    };
    const nbd = `nbd+unix:///disk?socket=${storage.nbd}`;
    const image = `vitastor:config-path=${lab.configPath}:image=testimg`;
    assertSays(await io(nbd, 'write -P 7 1M 1M', 'write -P 8 1500k 512', 'flush'), /wrote 1048576\/1048576/, /wrote 512\/512/);
    assertSays(await io(image, 'read -P 7 1M 500k', 'read -P 8 1500k 512', 'read -P 0 0 1M'), /read 512000\/512000/, /read 512\/512/, /read 1048576\/1048576/);
    say('the storage daemon serves an image over NBD');

    // Nodes that come and go, by each of the options; what is wrong is said.
    await qmp.run('blockdev-add', { driver: 'vitastor', 'node-name': 'n1', pool: 1, inode: 99, size: 1 << 20, 'config-path': lab.configPath, 'skip-parents': true });
    await qmp.run('blockdev-add', { driver: 'raw', 'node-name': 'r1', file: { driver: 'vitastor', image: 'other', 'etcd-host': lab.etcdAddresses.join(','), 'etcd-prefix': lab.prefix } });
    const nodes = JSON.stringify(await qmp.run('query-named-block-nodes'));
    assertSays(nodes, /vitastor:\/\/\?inode=99&pool=1&size=1048576/, /vitastor:\/\/\?image=testimg/);
    for (const [given, ...patterns] of [
      [{ imgae: 'testimg' }, /imgae/],
      [{ image: 'nothere', 'config-path': lab.configPath }, /image nothere does not exist/],
      [{ image: 'testimg', inode: 5, pool: 1 }, /either image, or inode and pool/],
      [{ inode: 5, pool: 1, size: 1000 }, /multiple of 512/],
      [{ image: '' }, /image= is empty/],
      [{ image: 'testimg', size: 'much' }, /size/],
    ] as [Record<string, unknown>, ...RegExp[]][]) {
      const refusal = await qmp.run('blockdev-add', { driver: 'vitastor', 'node-name': 'wrong', ...given }).then(() => '', (error: Error) => error.message);
      assertSays(refusal, ...patterns);
    }
    const location = (name: string): Record<string, unknown> => ({ image: name, 'config-path': lab.configPath });
    assert.equal(await blockdevCreate(qmp, { driver: 'vitastor', location: location('other'), size: 16 << 20 }), '');
    assertSays(await blockdevCreate(qmp, { driver: 'vitastor', location: location('other'), size: 17 << 20 }), /image other has 16777216 bytes, 17825792 are needed/);
    assertSays(await blockdevCreate(qmp, { driver: 'vitastor', location: location('nothere'), size: 512 }), /nothere does not exist/);
    await qmp.run('blockdev-del', { 'node-name': 'r1' });
    await qmp.run('blockdev-del', { 'node-name': 'n1' });
    say('blockdev-add, blockdev-del, blockdev-create');

    const missing = missingForGuest(lab);
    if (missing) {
      say(`guests are left out: ${missing} is not there`);
    } else {
      const initramfs = makeInitramfs(lab, SCRIPT);
      const lives = async (guest: Guest, what: string): Promise<void> => {
        await guest.says(/GUEST end/);
        guest.assertSaid(/disk of 131072 sectors/, /the file is whole/, /trimmed/, /fsck is clean/);
        await guest.child.exited;
        say(what);
      };
      const argv = ['-chardev', `socket,id=c0,path=${storage.vhost}`, '-device', 'vhost-user-blk-pci,chardev=c0,num-queues=2'];
      await lives(new Guest(lab, { argv, initramfs, unmodified: true }), 'a guest of an unmodified QEMU on the storage daemon');
      const program = join(folder, 'qemu-system-x86_64');
      if (existsSync(program)) {
        const firmware = ['-L', '/usr/share/qemu', '-L', '/usr/share/seabios', '-net', 'none'];
        const own = new Guest(lab, { program, argv: [...firmware, '-blockdev', words, '-device', 'virtio-blk-pci,drive=d0'], initramfs, unmodified: true });
        await lives(own, 'a guest with -blockdev');
      }
    }
    qmp.close();
    await storage.child.stop();
  },
};

export const BLOCKDEV_STORIES: readonly Story[] = [blockdev];
