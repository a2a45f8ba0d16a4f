// SPDX-License-Identifier: GPL-2.0-or-later
// A small Linux that boots in QEMU: Debian's kernel, busybox and e2fsprogs in an initramfs that is made here.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, realpathSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Child, type Lab, until } from '../lab/index.js';

function find(name: string): string {
  const result = spawnSync('sh', ['-c', `PATH=$PATH:/sbin:/usr/sbin; command -v ${name}`], { encoding: 'utf8' });
  return result.status === 0 ? result.stdout.trim() : '';
}

/** Of e2fsprogs. */
const GUEST_PROGRAMS = ['mkfs.ext4', 'e2fsck', 'resize2fs'];

const guestDir = (lab: Lab): string => join(lab.programs.root, 'build', 'deps', 'guest');

/** What is missing for a guest; '' when it can boot. */
export function missingForGuest(lab: Lab): string {
  const programs = ['qemu-system-x86_64', 'busybox', ...GUEST_PROGRAMS].filter((name) => find(name) === '');
  if (!existsSync(join(guestDir(lab), 'vmlinuz'))) programs.push('the kernel under build/deps/guest (`npm run e2e` fetches it)');
  return programs.join(', ');
}

/** Files of a cpio archive in the format that kernels unpack ("newc"). */
class Cpio {
  #parts: Buffer[] = [];
  #inode = 0;
  add(name: string, mode: number, data: Buffer = Buffer.alloc(0)): void {
    const fields = [++this.#inode, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, name.length + 1, 0];
    const header = `070701${fields.map((value) => value.toString(16).padStart(8, '0')).join('')}${name}\0`;
    this.#push(Buffer.from(header));
    this.#push(data);
  }
  #push(data: Buffer): void {
    this.#parts.push(data, Buffer.alloc((4 - (data.length % 4)) % 4));
  }
  end(): Buffer {
    this.add('TRAILER!!!', 0);
    return Buffer.concat(this.#parts);
  }
}

/** An initramfs whose /init loads the modules of virtio disks and then runs `script` with sh. */
export function makeInitramfs(lab: Lab, script: string): string {
  const cpio = new Cpio();
  const made = new Set<string>();
  const folder = (path: string): void => {
    if (path === '' || made.has(path)) return;
    folder(path.split('/').slice(0, -1).join('/'));
    made.add(path);
    cpio.add(path, 0o40755);
  };
  const file = (path: string, data: Buffer, mode = 0o100755): void => {
    folder(path.split('/').slice(0, -1).join('/'));
    cpio.add(path, mode, data);
  };
  for (const name of ['proc', 'sys', 'dev', 'mnt', 'tmp']) folder(name);
  file('bin/busybox', readFileSync(find('busybox')));
  for (const name of GUEST_PROGRAMS) {
    const path = realpathSync(find(name));
    file(`bin/${name}`, readFileSync(path));
    for (const match of spawnSync('ldd', [path], { encoding: 'utf8' }).stdout.matchAll(/(\/\S+) \(0x/g)) {
      const library = match[1] ?? '';
      if (made.has(library)) continue;
      made.add(library);
      file(library.slice(1), readFileSync(realpathSync(library)));
    }
  }
  const modules = ['virtio', 'virtio_ring', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci', 'virtio_blk'];
  const present = readdirSync(guestDir(lab));
  const insmod: string[] = [];
  for (const module of modules) {
    const name = present.find((entry) => entry.startsWith(`${module}.ko`));
    if (!name) continue;
    const packed = readFileSync(join(guestDir(lab), name));
    const data = name.endsWith('.xz') ? spawnSync('xz', ['-dc'], { input: packed, maxBuffer: 64 << 20 }).stdout : packed;
    file(`lib/modules/${basename(name, '.xz')}`, data, 0o100644);
    insmod.push(`/lib/modules/${module}.ko`);
  }
  file('init', Buffer.from(`#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
echo 4 > /proc/sys/kernel/printk
# In whatever order they need each other.
for round in 1 2 3 4; do for module in ${insmod.join(' ')}; do insmod $module 2>/dev/null; done; done
for i in $(seq 100); do [ -b /dev/vda ] && break; sleep 0.1; done
${script}
`));
  const path = join(lab.dir, 'initramfs');
  writeFileSync(path, cpio.end());
  return path;
}

export interface GuestOptions {
  /** Disks and whatever else this machine has. */
  argv: readonly string[];
  initramfs: string;
  /** For the kernel's command line. */
  words?: string;
  /** Debian's QEMU as it is, with memory that a vhost-user device may share. Default: with the driver preloaded. */
  unmodified?: boolean;
  /** Instead of `qemu-system-x86_64`. */
  program?: string;
  /** A QMP socket is made at this path. */
  qmp?: string;
}

/** A machine whose console is read line by line. */
export class Guest {
  readonly child: Child;
  readonly lines: string[] = [];
  constructor(lab: Lab, options: GuestOptions) {
    const memory = options.unmodified === true ? ['-object', 'memory-backend-memfd,id=mem,size=256M,share=on', '-machine', 'pc,memory-backend=mem'] : ['-machine', 'pc'];
    this.child = lab.background('guest', [
      ...(options.unmodified === true ? [] : ['env', `LD_PRELOAD=${lab.programs.qemuDriver}`]),
      options.program ?? 'qemu-system-x86_64', '-accel', 'tcg,thread=multi', ...memory, '-m', '256', '-smp', '2', '-nodefaults', '-no-user-config',
      '-display', 'none', '-no-reboot', '-serial', 'stdio', '-kernel', join(guestDir(lab), 'vmlinuz'), '-initrd', options.initramfs,
      ...(options.qmp === undefined ? [] : ['-qmp', `unix:${options.qmp},server=on,wait=off`]),
      '-append', `console=ttyS0 panic=-1 quiet ${options.words ?? ''}`, ...options.argv,
    ], (line) => this.lines.push(line.replaceAll('\r', '')));
  }
  /** Waits until the console says it; gives the line. */
  async says(pattern: RegExp, timeoutMs = 150_000): Promise<string> {
    return await until(`the guest says ${String(pattern)}`, () => this.lines.find((line) => pattern.test(line)), {
      timeoutMs,
      everyMs: 50,
      diagnose: () => this.lines.slice(-40).join('\n'),
      hopeless: () => (this.child.exit && !this.lines.some((line) => pattern.test(line)) ? this.child.story() : undefined),
    });
  }
  /** Into the guest's console. */
  type(text: string): void {
    this.child.write(`${text}\n`);
  }
  /** All that was said matches every one of `wanted` and none of what a guest must never see. */
  assertSaid(...wanted: readonly RegExp[]): void {
    for (const word of wanted) assert.ok(this.lines.some((line) => word.test(line)), `${String(word)} is missing:\n${this.lines.join('\n')}`);
    const bad = this.lines.filter((line) => /DAMAGED|FAILED|LOST|GUEST FSCK|GUEST KERNEL|I\/O error|EXT4-fs (error|warning)|blocked for more than/.test(line));
    assert.deepEqual(bad, [], this.lines.join('\n'));
  }
}
