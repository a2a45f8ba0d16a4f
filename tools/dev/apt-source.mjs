// SPDX-License-Identifier: GPL-2.0-or-later
// Source packages, through an apt with its own state directory: the machine's configuration stays as it is, and no root is needed.

import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ask, root, run } from './ui.mjs';

/** Debian's version of the source that an installed package was built from, such as `3.33-3`. '' when absent. @param {string} name */
export function sourceVersion(name) {
  return ask(['dpkg-query', '-W', '-f', '${source:Version}', name]).trim();
}

/**
 * deb-src lines for the archives that a package comes from; with a suite, for that suite of the same archives.
 * @param {string} name of a binary package
 * @param {string} [suite]
 */
export function sourceLines(name, suite) {
  const lines = new Set();
  for (const line of ask(['apt-cache', 'madison', name]).split('\n')) {
    const match = /\|\s*\S+\s*\|\s*(\S+) (\S+)\/(\S+) \S+ Packages/.exec(line);
    if (match) lines.add(`deb-src ${match[1]} ${suite ?? match[2]} ${match[3]}`);
  }
  return [...lines];
}

/**
 * Fetches and unpacks a source package, then moves it to `target` when `finish` is done with it.
 * @param {readonly string[]} lines
 * @param {readonly string[]} names packages as for `apt-get source`, tried in order
 * @param {string} target
 * @param {(source: string) => Promise<void>} finish
 * @returns {Promise<string>} '' or what went wrong
 */
export async function unpackSource(lines, names, target, finish) {
  const work = `${target}.${process.pid}`;
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
    const updated = await run([...apt, 'update'], { quiet: true, cwd: root });
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
