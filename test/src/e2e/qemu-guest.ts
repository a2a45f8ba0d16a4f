// SPDX-License-Identifier: GPL-2.0-or-later
// A guest with its disk on an image, through the QEMU driver (in an I/O thread) and through vhost-user-blk: makes a file system, writes, is killed, boots
// again. Meanwhile an OSD dies and returns, the whole cluster dies and returns, the image grows; the guest sees no error.

import assert from 'node:assert/strict';
import { type Lab, until } from '../lab/index.js';
import { Guest, makeInitramfs } from './guest.js';
import { driverDisk, type GuestDisk, type GuestWay, missingFor, vhostDisk } from './guest-disks.js';
import { allowCache, dice, smallCluster, type Story, type StoryContext } from './scenario.js';

const GROWN_SECTORS = 327680;

/** What the guest does is a word on the kernel's command line. */
const SCRIPT = `
say() { echo "GUEST $*"; }
fill() { mkdir -p /mnt/$1; for i in 1 2 3 4; do dd if=/dev/urandom of=/mnt/$1/f$i bs=64k count=16 2>/dev/null || say "FILLING FAILED"; done; (cd /mnt/$1 && sha256sum f*) > /mnt/$1.sums; sync; }
check() { (cd /mnt/$1 && sha256sum -c ../$1.sums >/tmp/out 2>&1) && say "$1 is whole" || { say "$1 IS DAMAGED"; cat /tmp/out; }; }
kernel() { dmesg | grep -i 'error\\|hung' | grep -v 'RAS\\|ACPI' | sed 's/^/GUEST KERNEL /'; }
always() { while :; do dd if=/dev/urandom of=/mnt/endless bs=64k count=4 conv=fsync 2>/dev/null || say "WRITE FAILED"; done; }
say "disk of $(cat /sys/block/vda/size) sectors, logical $(cat /sys/block/vda/queue/logical_block_size), physical $(cat /sys/block/vda/queue/physical_block_size)"
if grep -q phase=first /proc/cmdline; then
  mkfs.ext4 -q -F /dev/vda && mount /dev/vda /mnt && fill one && say "one is written"
  always &
  for name in two three four; do
    read word; say "heard $word"; fill $name; say "$name is written"
  done
  for i in $(seq 600); do [ $(cat /sys/block/vda/size) = ${GROWN_SECTORS} ] && break; sleep 0.1; done
  say "disk of $(cat /sys/block/vda/size) sectors now"
  kernel; say "writing on"; sleep 1000
elif grep -q phase=trim /proc/cmdline; then
  mkfs.ext4 -q -F -E nodiscard /dev/vda && mount /dev/vda /mnt && fill one && fill two && say "filled"
  read word; rm -r /mnt/one /mnt/two; sync; fstrim /mnt && say "trimmed"; umount /mnt
else
  e2fsck -fp /dev/vda > /tmp/fsck 2>&1; e2fsck -fn /dev/vda > /tmp/fsck2 2>&1 && say "fsck is clean" || { say "FSCK"; cat /tmp/fsck /tmp/fsck2; }
  mount /dev/vda /mnt && for name in one two three four; do [ -e /mnt/$name.sums ] && check $name; done
  grep -q phase=second /proc/cmdline && resize2fs /dev/vda >/tmp/out 2>&1 && say "$(($(df -k /mnt | awk 'END { print $2 }') / 1024)) MB in the file system"
  rm -r /mnt/one /mnt/two /mnt/three /mnt/four /mnt/endless 2>/dev/null; sync; fstrim /mnt && say "trimmed"
  umount /mnt
fi
kernel
say "end"
poweroff -f
`;

const sleep = async (ms: number): Promise<void> => await new Promise((resolve) => setTimeout(resolve, ms));

async function must(lab: Lab, args: readonly string[]): Promise<void> {
  const result = await lab.cli(args);
  assert.equal(result.code, 0, `vitastor-cli ${args.join(' ')}: ${result.stderr}`);
}

/** Boots, writes through all that happens, and is killed while it writes. */
async function firstLife(context: StoryContext, lab: Lab, disk: GuestDisk, initramfs: string): Promise<void> {
  const { say } = context;
  const guest = new Guest(lab, { ...disk, initramfs, words: 'phase=first' });
  assert.match(await guest.says(/GUEST disk of/), /of 262144 sectors, logical 512, physical 4096/);
  await guest.says(/GUEST one is written/);

  say('a snapshot is taken, an OSD is killed');
  await must(lab, ['snap-create', 'testimg@one']);
  lab.killOsd(3);
  guest.type('go');
  await guest.says(/GUEST two is written/);
  await lab.startOsd(3);

  await lab.kill9All();
  guest.type('on');
  await guest.says(/GUEST heard on/);
  const seconds = context.long ? 60 : 4;
  say(`the whole cluster is dead, for ${seconds} s`);
  await sleep(seconds * 1000);
  assert.ok(!guest.lines.some((line) => /three is written/.test(line)), 'written without a cluster');
  await lab.restartAll();
  await guest.says(/GUEST three is written/);
  say('it is back, and the guest goes on');

  if (disk.backend) {
    await disk.backend.kill();
    guest.type('again');
    await disk.backend.start();
    say('vitastor-vhost is killed and started again');
  } else {
    guest.type('again');
  }
  await guest.says(/GUEST four is written/);

  await lab.waitActive({ timeoutMs: 60_000 });
  await must(lab, ['modify', '--resize', '160M', 'testimg']);
  assert.match(await guest.says(/GUEST disk of \d+ sectors now/), new RegExp(`of ${GROWN_SECTORS} sectors`), 'the guest has heard of the new size');
  await guest.says(/GUEST writing on/);
  await sleep(100 + dice(lab.dir.length)(400));
  await guest.child.kill9();
  guest.assertSaid();
}

/** Bytes that the image's own layer holds, as OSDs report them. */
async function usedBytes(lab: Lab, image: string): Promise<number> {
  const list = (await lab.cliJson(['ls', '-l', '--exact', image])) as { used_size?: number | string }[];
  return Number(list[0]?.used_size ?? 0);
}

/** Where there is no parent, what the guest trims is free again. */
async function trims(lab: Lab, disk: GuestDisk, initramfs: string): Promise<void> {
  const guest = new Guest(lab, { ...disk, initramfs, words: 'phase=trim' });
  await guest.says(/GUEST filled/);
  let before = 0;
  await until('OSDs report what the guest has written', async () => (before = await usedBytes(lab, 'plain')) > 8 << 20, { timeoutMs: 60_000, everyMs: 200 });
  guest.type('go');
  await guest.says(/GUEST end/);
  guest.assertSaid(/trimmed/);
  await guest.child.exited;
  await until('what was trimmed is free', async () => (await usedBytes(lab, 'plain')) < before - (6 << 20), {
    timeoutMs: 60_000, everyMs: 200, diagnose: async () => `${before} bytes before, ${await usedBytes(lab, 'plain')} after`,
  });
}

function guestStory(name: string, way: GuestWay, short = true): Story {
  const cached = way === 'cached driver';
  return {
    name,
    short,
    run: async (context) => {
      const lab = await context.lab({ supervise: true });
      const missing = missingFor(lab, way);
      if (missing) {
        context.say(`left out: ${missing} is not there`);
        return;
      }
      await smallCluster(lab, { image: '128M' });
      if (cached) await allowCache(lab);
      await lab.createImage('plain', '64M');
      const initramfs = makeInitramfs(lab, SCRIPT);
      const attach = async (image: string): Promise<GuestDisk> => (way === 'vhost' ? await vhostDisk(lab, image, image) : driverDisk(lab, image, '', cached));

      const disk = await attach('testimg');
      await firstLife(context, lab, disk, initramfs);
      const second = new Guest(lab, { ...disk, initramfs, words: 'phase=second' });
      assert.match(await second.says(/GUEST disk of/), new RegExp(`of ${GROWN_SECTORS} sectors`));
      await second.says(/GUEST end/);
      second.assertSaid(/fsck is clean/, /one is whole/, /two is whole/, /three is whole/, /four is whole/, /1[3-5]\d MB in the file system/, /trimmed/);
      const exit = await second.child.exited;
      assert.equal(exit.code, 0, second.child.story());

      if (way === 'driver') {
        // The snapshot boots on its own, as a disk that is written to in memory only.
        const third = new Guest(lab, { ...driverDisk(lab, 'testimg@one', ',snapshot=on'), initramfs, words: 'phase=third' });
        await third.says(/GUEST end/);
        third.assertSaid(/fsck is clean/, /one is whole/);
        assert.ok(!third.lines.some((line) => /two/.test(line)), 'the snapshot knows nothing of what came later');
      }
      await trims(lab, await attach('plain'), initramfs);
    },
  };
}

export const GUEST_STORIES: readonly Story[] = [guestStory('qemu-guest', 'driver'), guestStory('vhost-guest', 'vhost'), guestStory('qemu-guest-cached', 'cached driver', false)];
