// SPDX-License-Identifier: GPL-2.0-or-later
// Where the programs under test are.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository: the nearest folder above this file that has the presets. */
function findRoot(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, 'CMakePresets.json'))) {
    const parent = dirname(dir);
    if (parent === dir) throw new Error('the repository around the lab was not found (no CMakePresets.json above it)');
    dir = parent;
  }
  return dir;
}

function find(name: string): string | undefined {
  const result = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' });
  return result.status === 0 ? result.stdout.trim() : undefined;
}

export interface Programs {
  root: string;
  /** Addons, libvitastor, the fio engine. */
  buildDir: string;
  etcd: string;
  /** Of the Debian package etcd-client; '' where there is none. */
  etcdctl: string;
  fio: string;
  osd: readonly string[];
  monitor: readonly string[];
  cli: readonly string[];
  /** The fio engine. */
  fioEngine: string;
  /** The QEMU driver, to be preloaded; '' where it was not built (the headers of QEMU could not be had). */
  qemuDriver: string;
}

/** Throws with what is missing and what to do. */
export function findPrograms(): Programs {
  const root = findRoot();
  const buildDir = process.env['VITASTOR_BUILD_DIR'] ?? join(root, 'build', 'dev');
  const unpacked = join(root, 'build', 'deps', 'etcd', 'usr', 'bin', 'etcd');
  const etcd = existsSync(unpacked) ? unpacked : find('etcd');
  const built = join(root, 'build', 'deps', 'fio-built', 'fio');
  const fio = existsSync(built) ? built : find('fio');
  if (!etcd || !fio) {
    throw new Error(`${!etcd ? 'etcd' : 'fio'} is not installed; \`npm run setup\` gets what is missing`);
  }
  const node = process.execPath;
  return {
    root,
    buildDir,
    etcd,
    etcdctl: find('etcdctl') ?? '',
    fio,
    osd: [node, join(root, 'osd', 'dist', 'src', 'main.js')],
    monitor: [node, join(root, 'mon', 'dist', 'src', 'main.js')],
    cli: [node, join(root, 'cli', 'dist', 'src', 'main.js')],
    fioEngine: join(buildDir, 'fio', 'libfio_vitastor.so'),
    qemuDriver: find('qemu-img') && existsSync(join(buildDir, 'qemu', 'block-vitastor.so')) ? join(buildDir, 'qemu', 'block-vitastor.so') : '',
  };
}
