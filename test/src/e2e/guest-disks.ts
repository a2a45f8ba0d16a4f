// SPDX-License-Identifier: GPL-2.0-or-later
// The two ways from a guest to an image: QEMU's block driver, and vhost-user-blk.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Child, Lab } from '../lab/index.js';
import { missingForGuest } from './guest.js';
import { address } from './qemu-rig.js';

export type GuestWay = 'driver' | 'cached driver' | 'vhost';

/** QEMU's words for the disk `/dev/vda`, and what runs beside it. */
export interface GuestDisk {
  argv: string[];
  unmodified: boolean;
  /** The backend process; null where there is none. */
  backend: VhostBackend | null;
}

/** vitastor-vhost on a socket in the lab's directory. */
export class VhostBackend {
  readonly socket: string;
  readonly #lab: Lab;
  readonly #image: string;
  #child: Child | null = null;

  constructor(lab: Lab, image: string, name: string) {
    this.#lab = lab;
    this.#image = image;
    this.socket = join(lab.dir, `${name}.sock`);
  }
  async start(): Promise<void> {
    const program = join(this.#lab.programs.buildDir, 'bin', 'vitastor-vhost');
    this.#child = this.#lab.background('vhost', [program, '--config_path', this.#lab.configPath, '--image', this.#image, '--socket', this.socket, '--queues', '2']);
    await this.#child.waitForLine(/bytes at/, 30_000);
  }
  async kill(): Promise<void> {
    await this.#child?.kill9();
  }
  async stop(): Promise<void> {
    await this.#child?.stop();
  }
}

/** spec/commands.md Q5, but with discard and an I/O thread. `cached`: by the client, where the cluster allows it, until the guest flushes. */
export function driverDisk(lab: Lab, image: string, more = '', cached = false): GuestDisk {
  const file = `${address(lab)}:image=${image}`.replaceAll(',', ',,');
  return {
    unmodified: false,
    backend: null,
    argv: [
      '-object', 'iothread,id=io0',
      '-drive', `file=${file},format=raw,if=none,id=drive-virtio-disk0,cache=${cached ? 'writeback' : 'none'}${more || ',discard=unmap'}`,
      '-device', 'virtio-blk-pci,scsi=off,bus=pci.0,addr=0x5,drive=drive-virtio-disk0,id=virtio-disk0,bootindex=1,physical_block_size=4096,logical_block_size=512,iothread=io0'
        + `,write-cache=${cached ? 'on' : 'off'}`,
    ],
  };
}

/** Starts the backend; `name` is the socket's. */
export async function vhostDisk(lab: Lab, image: string, name = 'vda'): Promise<GuestDisk> {
  const backend = new VhostBackend(lab, image, name);
  await backend.start();
  return {
    unmodified: true,
    backend,
    argv: ['-chardev', `socket,id=c0,path=${backend.socket},reconnect=1`, '-device', 'vhost-user-blk-pci,chardev=c0,num-queues=2,bus=pci.0,addr=0x5,bootindex=1'],
  };
}

/** Why a story with this way to the disk cannot be told here; '' when it can. */
export function missingFor(lab: Lab, way: GuestWay): string {
  if (way !== 'vhost' && !lab.programs.qemuDriver) return 'the QEMU driver (build/<preset>/qemu/block-vitastor.so; `npm run build` says why)';
  if (way === 'vhost' && !existsSync(join(lab.programs.buildDir, 'bin', 'vitastor-vhost'))) return 'vitastor-vhost';
  return missingForGuest(lab);
}
