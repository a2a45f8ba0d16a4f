// SPDX-License-Identifier: GPL-2.0-or-later
// A kernel for the guests of the end-to-end tests: Debian's package is unpacked under build/deps/guest (not installed), and only the kernel and the modules
// of virtio disks are kept (8 MB). Where it cannot be had, those tests say so and are left out.

import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ask, root, run, say } from './ui.mjs';

const MODULES = ['virtio', 'virtio_ring', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci', 'virtio_blk'];

/** @returns {Promise<void>} */
export async function fetchGuestKernel() {
  const target = join(root, 'build', 'deps', 'guest');
  if (existsSync(join(target, 'vmlinuz'))) return;
  const name = /Depends: (linux-image-\S+)/.exec(ask(['apt-cache', 'depends', 'linux-image-cloud-amd64']))?.[1];
  if (!name) return say('apt knows no kernel for the guests of the end-to-end tests: those are left out.');
  say(`Fetching the package ${name} for the guests of the end-to-end tests (27 MB, unpacked under build/deps, not installed).`);
  const work = `${target}.${process.pid}`;
  mkdirSync(work, { recursive: true });
  try {
    const got = await run(['apt-get', 'download', '-q', '-o', 'APT::Sandbox::User=root', name], { cwd: work, quiet: true });
    const deb = readdirSync(work).find((file) => file.endsWith('.deb'));
    if (got.code !== 0 || !deb) return say('It could not be fetched: tests with guests are left out.');
    if ((await run(['dpkg-deb', '-x', deb, 'out'], { cwd: work, quiet: true })).code !== 0) return say(`${deb} cannot be unpacked: tests with guests are left out.`);
    const kept = join(work, 'kept');
    mkdirSync(kept);
    const files = readdirSync(join(work, 'out'), { recursive: true }).map(String);
    for (const file of files) {
      const module = MODULES.find((word) => file.endsWith(`/${word}.ko`) || file.endsWith(`/${word}.ko.xz`));
      if (module) copyFileSync(join(work, 'out', file), join(kept, `${module}.ko${file.endsWith('.xz') ? '.xz' : ''}`));
      if (/^boot\/vmlinuz-/.test(file)) copyFileSync(join(work, 'out', file), join(kept, 'vmlinuz'));
    }
    rmSync(target, { recursive: true, force: true });
    renameSync(kept, target);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
