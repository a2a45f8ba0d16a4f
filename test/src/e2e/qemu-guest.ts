// SPDX-License-Identifier: GPL-2.0-or-later
// A guest with its disk on an image through the QEMU driver, in an I/O thread: makes a file system, writes, is killed, boots again; OSDs die meanwhile.

import assert from 'node:assert/strict';
import { Guest, makeInitramfs, missingForGuest } from './guest.js';
import { address, dataBytes, map } from './qemu-rig.js';
import { smallCluster, type Story } from './scenario.js';

/** What the guest does is a word on the kernel's command line. */
const SCRIPT = `
say() { echo "GUEST $*"; }
fill() { mkdir -p /mnt/$1; for i in 1 2 3 4; do dd if=/dev/urandom of=/mnt/$1/f$i bs=64k count=16 2>/dev/null; done; (cd /mnt/$1 && sha256sum f*) > /mnt/$1.sums; }
check() { (cd /mnt/$1 && sha256sum -c ../$1.sums >/tmp/out 2>&1) && say "$1 is whole" || { say "$1 IS DAMAGED"; cat /tmp/out; }; }
say "disk of $(cat /sys/block/vda/size) sectors, logical $(cat /sys/block/vda/queue/logical_block_size), physical $(cat /sys/block/vda/queue/physical_block_size)"
if grep -q phase=first /proc/cmdline; then
  mkfs.ext4 -q -F /dev/vda && mount /dev/vda /mnt && fill one && sync && say "one is written"
  read word; say "heard $word"
  fill two; sync; say "two is written"
  for i in $(seq 600); do [ $(cat /sys/block/vda/size) != 262144 ] && break; sleep 0.1; done
  say "disk of $(cat /sys/block/vda/size) sectors now"
  i=0; while :; do i=$((i+1)); dd if=/dev/urandom of=/mnt/endless bs=64k count=4 conv=fsync 2>/dev/null || say "WRITE FAILED"; [ $i = 3 ] && say "writing on"; done
elif grep -q phase=trim /proc/cmdline; then
  mkfs.ext4 -q -F -E nodiscard /dev/vda && mount /dev/vda /mnt && fill one && fill two && sync && say "filled"
  read word; rm -r /mnt/one /mnt/two; sync; fstrim /mnt && say "trimmed"; umount /mnt
else
  e2fsck -fp /dev/vda > /tmp/fsck 2>&1; e2fsck -fn /dev/vda > /tmp/fsck2 2>&1 && say "fsck is clean" || { say "FSCK"; cat /tmp/fsck /tmp/fsck2; }
  mount /dev/vda /mnt && check one; check two
  rm -r /mnt/one /mnt/two /mnt/endless; sync; fstrim /mnt && say "trimmed"
  umount /mnt
fi
dmesg | grep -i 'error' | grep -v 'RAS\\|ACPI' | sed 's/^/GUEST KERNEL /'
say "end"
poweroff -f
`;

const guest: Story = {
  name: 'qemu-guest',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make({ supervise: true });
    const missing = lab.programs.qemuDriver ? missingForGuest(lab) : 'the QEMU driver';
    if (missing) {
      say(`left out: ${missing} is not there`);
      return;
    }
    await smallCluster(lab, { image: '128M' });
    const initramfs = makeInitramfs(lab, SCRIPT);
    const image = `${address(lab)}:image=testimg`;
    const argv = [
      '-object', 'iothread,id=io0',
      '-drive', `file=${image.replaceAll(',', ',,')},format=raw,if=none,id=drive-virtio-disk0,cache=none,discard=unmap`,
      '-device', 'virtio-blk-pci,scsi=off,bus=pci.0,addr=0x5,drive=drive-virtio-disk0,id=virtio-disk0,bootindex=1,write-cache=off,physical_block_size=4096,logical_block_size=512,iothread=io0',
    ];
    const first = new Guest(lab, { argv, initramfs, words: 'phase=first' });
    assert.match(await first.says(/GUEST disk of/), /of 262144 sectors, logical 512, physical 4096/);
    await first.says(/GUEST one is written/);
    // A snapshot while it runs, and an OSD that dies while it writes.
    const snap = await lab.cli(['snap-create', 'testimg@one']);
    assert.equal(snap.code, 0, snap.stderr);
    lab.killOsd(3);
    first.type('go');
    await first.says(/GUEST two is written/);
    await lab.startOsd(3);
    const grown = await lab.cli(['modify', '--resize', '160M', 'testimg']);
    assert.equal(grown.code, 0, grown.stderr);
    assert.match(await first.says(/GUEST disk of \d+ sectors now/), /of 327680 sectors/, 'the guest has heard of the new size');
    await first.says(/GUEST writing on/);
    await first.child.kill9();
    assert.ok(!first.lines.some((line) => /FAILED|KERNEL/.test(line)), first.lines.join('\n'));

    const second = new Guest(lab, { argv, initramfs, words: 'phase=second' });
    assert.match(await second.says(/GUEST disk of/), /of 327680 sectors/);
    await second.says(/GUEST end/);
    for (const word of [/fsck is clean/, /one is whole/, /two is whole/, /trimmed/])
      assert.ok(second.lines.some((line) => word.test(line)), `${String(word)} is missing:\n${second.lines.join('\n')}`);
    assert.ok(!second.lines.some((line) => /DAMAGED|GUEST FSCK|GUEST KERNEL/.test(line)), second.lines.join('\n'));
    const exit = await second.child.exited;
    assert.equal(exit.code, 0, second.child.story());

    // The snapshot boots on its own, as a disk that is written to in memory only.
    const snapArgv = argv.map((word) => word.replace('image=testimg', 'image=testimg@one').replace('discard=unmap', 'snapshot=on'));
    const third = new Guest(lab, { argv: snapArgv, initramfs, words: 'phase=third' });
    await third.says(/GUEST one is whole/);
    await third.says(/GUEST end/);
    assert.ok(third.lines.some((line) => /fsck is clean/.test(line)), third.lines.join('\n'));

    // Where there is no parent, what the guest trims is free again.
    await lab.createImage('plain', '64M');
    const plain = image.replace('testimg', 'plain');
    const fourth = new Guest(lab, { argv: argv.map((word) => word.replace('image=testimg', 'image=plain')), initramfs, words: 'phase=trim' });
    await fourth.says(/GUEST filled/);
    const before = dataBytes(await map(lab, plain));
    fourth.type('go');
    await fourth.says(/GUEST end/);
    await fourth.child.exited;
    const after = dataBytes(await map(lab, plain));
    assert.ok(before > 8 << 20 && after < before - (6 << 20), `fstrim: from ${before} to ${after} bytes`);
  },
};

export const GUEST_STORIES: readonly Story[] = [guest];
