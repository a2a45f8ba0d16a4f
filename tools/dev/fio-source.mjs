// SPDX-License-Identifier: GPL-2.0-or-later
// fio's headers are in no package, and an engine must be built against those of the very version that
// loads it. Fetches the source package of the installed fio into build/deps/fio-<version>/ and runs
// its ./configure there (it makes config-host.h). Uses apt with its own state directory, so that the
// machine's configuration stays as it is, and needs no root.

import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { sourceLines, sourceVersion, unpackSource } from './apt-source.mjs';
import { Stop, mustRun, root, say } from './ui.mjs';

/** Debian's version of the installed fio (of its source package), such as `3.33-3`. '' when absent. */
export function fioVersion() {
  return sourceVersion('fio');
}

/** Where the headers are, or will be. */
export function fioSourceDir() {
  return join(root, 'build', 'deps', `fio-${fioVersion()}`);
}

/** A fio of our own making, where the source of the installed one cannot be had. */
const BUILT = join(root, 'build', 'deps', 'fio-built');

/** The program fio that fits the engine: built here, or '' for the installed one. */
export function builtFio() {
  return existsSync(join(BUILT, 'fio')) ? join(BUILT, 'fio') : '';
}

/** @returns {Promise<string>} the directory with the configured source */
export async function fetchFioSource() {
  const version = fioVersion();
  if (!version) throw new Stop('fio is not installed as a Debian package, so its matching source cannot be found.');
  const target = fioSourceDir();
  if (existsSync(join(target, 'config-host.h'))) return target;
  if (builtFio()) return BUILT;
  say(`Fetching the source of fio ${version} for its headers (about 10 MB, once).`);
  if (sourceLines('fio').length === 0)
    throw new Stop('apt does not know where fio came from. Please run `apt-get update` as root, then start again.');
  // The archive may have moved on to another revision: then only a source of the same upstream version will do.
  const upstream = version.replace(/-[^-]*$/, '');
  const words = await unpackSource(sourceLines('fio'), [`fio=${version}`, 'fio'], target, async (source) => {
    if (!source.endsWith(`/fio-${upstream}`))
      throw new Stop(`The archive has no source of fio ${upstream} any more; please upgrade fio, then start again.`);
    await mustRun(['./configure'], { quiet: true, cwd: source });
  });
  if (words === '') return target;
  say(
    'It cannot be had here. Building fio from the source of Debian 12 instead, for this directory only (a minute or two, once).',
  );
  const again = await unpackSource(sourceLines('fio', 'bookworm'), ['fio'], BUILT, async (source) => {
    await mustRun(['./configure', '--disable-native', '--extra-cflags=-w -fpermissive'], { quiet: true, cwd: source });
    await mustRun(['make', '-j', String(availableParallelism()), 'fio'], { quiet: true, cwd: source });
  });
  if (again === '') return BUILT;
  throw new Stop(`apt could not fetch a source of fio:\n${words}\n${again}`);
}
