// SPDX-License-Identifier: GPL-2.0-or-later
// QEMU's headers are in no package either, and a block driver must be built against those of the very version that loads it. Fetches the source package of
// the installed QEMU, configures it with next to nothing, has the headers made that are made, and keeps the headers alone in build/deps/qemu-<version>/
// (10 MB). Where that cannot be done, everything else is built without the driver.

import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sourceLines, sourceVersion, unpackSource } from './apt-source.mjs';
import { root, run, say } from './ui.mjs';

/** Debian's version of the installed QEMU (of its source package), without the epoch; '' when absent. */
export function qemuVersion() {
  return sourceVersion('qemu-utils').replace(/^\d+:/, '');
}

const CONFIGURE = [
  './configure', '--disable-install-blobs', '--disable-system', '--disable-user', '--enable-modules', '--disable-docs', '--without-default-features', '--enable-tools',
];

/** What the driver's build needs of a configured source. @param {string} source */
function keepHeaders(source) {
  const kept = join(source, '..', 'kept');
  mkdirSync(join(kept, 'build', 'qapi'), { recursive: true });
  for (const name of ['include', 'linux-headers', 'VERSION', 'COPYING', 'LICENSE']) renameSync(join(source, name), join(kept, name));
  for (const name of ['config-host.h', 'config-poison.h']) renameSync(join(source, 'build', name), join(kept, 'build', name));
  for (const name of readdirSync(join(source, 'build', 'qapi')))
    if (name.endsWith('.h')) renameSync(join(source, 'build', 'qapi', name), join(kept, 'build', 'qapi', name));
  rmSync(source, { recursive: true });
  renameSync(kept, source);
}

/**
 * @returns {Promise<string>} the directory with the headers; '' where there are none, said in one line
 */
export async function fetchQemuHeaders() {
  const version = qemuVersion();
  if (!version) {
    say('QEMU is not installed (package qemu-utils): its driver is left out.');
    return '';
  }
  const target = join(root, 'build', 'deps', `qemu-${version}`);
  if (existsSync(join(target, 'build', 'config-host.h'))) return target;
  const refused = `${target}.refused`;
  if (existsSync(refused)) {
    say(`The QEMU driver is left out; why is in ${refused} (remove that file to try again).`);
    return '';
  }
  say(`Fetching the source of QEMU ${version} for its headers (about 25 MB, a minute, once).`);
  /** @type {string} */
  let trouble;
  try {
    trouble = sourceLines('qemu-utils').length === 0 ? 'apt does not know where qemu-utils came from' : await unpackSource(
      // The archive may have moved on to another revision: the headers of the same upstream version will do.
      sourceLines('qemu-utils'), [`qemu=${sourceVersion('qemu-utils')}`, 'qemu'], target, async (source) => {
        if (!source.endsWith(`/qemu-${version.replace(/-[^-]*$/, '')}`)) throw new Error(`the archive has ${source.replace(/.*\//, '')} instead`);
        for (const argv of [CONFIGURE, ['ninja', '-C', 'build', 'qapi/qapi-types.h', 'config-poison.h']]) {
          // Debian’s meson belongs to Debian’s python.
          const env = { ...process.env, PATH: `/usr/bin:${process.env['PATH'] ?? ''}` };
          const result = await run(argv, { quiet: true, cwd: source, env });
          if (result.code !== 0) throw new Error(`${argv.join(' ')}\n${result.output}`);
        }
        keepHeaders(source);
      });
  } catch (error) {
    trouble = error instanceof Error ? error.message : String(error);
  }
  if (trouble === '') return target;
  writeFileSync(refused, `${trouble}\n`);
  say(`The headers of QEMU ${version} cannot be had; its driver is left out, all else works. Why is in ${refused} (remove that file to try again).`);
  return '';
}
