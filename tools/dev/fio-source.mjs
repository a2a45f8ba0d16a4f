// SPDX-License-Identifier: GPL-2.0-or-later
// fio's headers are in no package, and an engine must be built against those of the very version that
// loads it. Fetches the source package of the installed fio into build/deps/fio-<version>/ and runs
// its ./configure there (it makes config-host.h). Uses apt with its own state directory, so that the
// machine's configuration stays as it is, and needs no root.

import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Stop, ask, mustRun, root, run, say } from './ui.mjs';

/** Debian's version of the installed fio (of its source package), such as `3.33-3`. '' when absent. */
export function fioVersion() {
  return ask(['dpkg-query', '-W', '-f', '${source:Version}', 'fio']).trim();
}

/** Where the headers are, or will be. */
export function fioSourceDir() {
  return join(root, 'build', 'deps', `fio-${fioVersion()}`);
}

/**
 * deb-src lines for the archives that fio's packages come from; with a suite, for that suite of the same archives.
 * @param {string} [suite]
 */
function sourceLines(suite) {
  const lines = new Set();
  for (const line of ask(['apt-cache', 'madison', 'fio']).split('\n')) {
    const match = /\|\s*\S+\s*\|\s*(\S+) (\S+)\/(\S+) \S+ Packages/.exec(line);
    if (match) lines.add(`deb-src ${match[1]} ${suite ?? match[2]} ${match[3]}`);
  }
  return [...lines];
}

/**
 * Fetches and unpacks a source package through an apt with its own state, then moves it to `target` when `finish` is
 * done with it.
 * @param {readonly string[]} lines
 * @param {readonly string[]} names packages as for `apt-get source`, tried in order
 * @param {string} target
 * @param {(source: string) => Promise<void>} finish
 * @returns {Promise<string>} '' or what went wrong
 */
async function unpack(lines, names, target, finish) {
  const work = join(root, 'build', 'deps', `fio.${process.pid}`);
  for (const dir of ['lists/partial', 'archives/partial', 'src']) mkdirSync(join(work, dir), { recursive: true });
  writeFileSync(join(work, 'sources.list'), `${lines.join('\n')}\n`);
  const apt = [
    'apt-get', '-q',
    '-o', `Dir::State::lists=${work}/lists`,
    '-o', `Dir::Cache=${work}`,
    '-o', `Dir::Etc::sourcelist=${work}/sources.list`,
    '-o', 'Dir::Etc::sourceparts=/dev/null',
    '-o', 'APT::Sandbox::User=root',
    '-o', 'Acquire::Languages=none',
  ];
  try {
    let words = '';
    const updated = await run([...apt, 'update'], { quiet: true });
    if (updated.code !== 0) return updated.output;
    for (const name of names) {
      const got = await run([...apt, 'source', name], { quiet: true, cwd: join(work, 'src') });
      const dir = readdirSync(join(work, 'src'), { withFileTypes: true }).find((entry) => entry.isDirectory());
      if (got.code === 0 && dir) {
        const source = join(work, 'src', dir.name);
        await finish(source);
        rmSync(target, { recursive: true, force: true });
        renameSync(source, target);
        return '';
      }
      words += got.output;
    }
    return words;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
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
  if (sourceLines().length === 0)
    throw new Stop('apt does not know where fio came from. Please run `apt-get update` as root, then start again.');
  // The archive may have moved on to another revision: then only a source of the same upstream version will do.
  const upstream = version.replace(/-[^-]*$/, '');
  const words = await unpack(sourceLines(), [`fio=${version}`, 'fio'], target, async (source) => {
    if (!source.endsWith(`/fio-${upstream}`))
      throw new Stop(`The archive has no source of fio ${upstream} any more; please upgrade fio, then start again.`);
    await mustRun(['./configure'], { quiet: true, cwd: source });
  });
  if (words === '') return target;
  say(
    'It cannot be had here. Building fio from the source of Debian 12 instead, for this directory only (a minute or two, once).',
  );
  const again = await unpack(sourceLines('bookworm'), ['fio'], BUILT, async (source) => {
    await mustRun(['./configure', '--disable-native', '--extra-cflags=-w -fpermissive'], { quiet: true, cwd: source });
    await mustRun(['make', '-j', String(availableParallelism()), 'fio'], { quiet: true, cwd: source });
  });
  if (again === '') return BUILT;
  throw new Stop(`apt could not fetch a source of fio:\n${words}\n${again}`);
}
