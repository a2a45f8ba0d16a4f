// SPDX-License-Identifier: GPL-2.0-or-later
// fio's headers are in no package, and an engine must be built against those of the very version that
// loads it. Fetches the source package of the installed fio into build/deps/fio-<version>/ and runs
// its ./configure there (it makes config-host.h). Uses apt with its own state directory, so that the
// machine's configuration stays as it is, and needs no root.

import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
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

/** deb-src lines for the archives that fio's packages come from. */
function sourceLines() {
  const lines = new Set();
  for (const line of ask(['apt-cache', 'madison', 'fio']).split('\n')) {
    const match = /\|\s*(\S+)\s*\|\s*(\S+) (\S+)\/(\S+) \S+ Packages/.exec(line);
    if (match) lines.add(`deb-src ${match[2]} ${match[3]} ${match[4]}`);
    const source = /\|\s*(\S+)\s*\|\s*(\S+) (\S+)\/(\S+) Sources/.exec(line);
    if (source) lines.add(`deb-src ${source[2]} ${source[3]} ${source[4]}`);
  }
  return [...lines];
}

/** @returns {Promise<string>} the directory with the configured source */
export async function fetchFioSource() {
  const version = fioVersion();
  if (!version) throw new Stop('fio is not installed as a Debian package, so its matching source cannot be found.');
  const target = fioSourceDir();
  if (existsSync(join(target, 'config-host.h'))) return target;
  say(`Fetching the source of fio ${version} for its headers (about 10 MB, once).`);
  const lines = sourceLines();
  if (lines.length === 0) throw new Stop('apt does not know where fio came from. Please run `apt-get update` as root, then start again.');
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
    await mustRun([...apt, 'update'], { quiet: true });
    let got = await run([...apt, 'source', `fio=${version}`], { quiet: true, cwd: join(work, 'src') });
    if (got.code !== 0) {
      // The archive moved on to another revision; the upstream version decides about the headers.
      const upstream = version.replace(/-[^-]*$/, '');
      const retry = await run([...apt, 'source', 'fio'], { quiet: true, cwd: join(work, 'src') });
      got = { code: existsSync(join(work, 'src', `fio-${upstream}`)) ? retry.code : 1, output: got.output + retry.output };
    }
    const dir = readdirSync(join(work, 'src'), { withFileTypes: true }).find((entry) => entry.isDirectory());
    if (got.code !== 0 || !dir) throw new Stop(`apt could not fetch the source of fio ${version}:\n${got.output}`);
    const source = join(work, 'src', dir.name);
    await mustRun(['./configure'], { quiet: true, cwd: source });
    rmSync(target, { recursive: true, force: true });
    renameSync(source, target);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return target;
}
