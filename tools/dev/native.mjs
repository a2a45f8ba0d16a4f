// SPDX-License-Identifier: GPL-2.0-or-later
// The native build: CMake presets and ninja, with one progress line.
//
// build/<preset>, or build/<preset>-<name> with VITASTOR_BUILD_NAME=<name> in the environment (several
// people in one work tree).

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { join } from 'node:path';
import { fetchFioSource } from './fio-source.mjs';
import { fetchQemuHeaders } from './qemu-source.mjs';
import { Progress, Stop, ask, mustRun, root, run, say, since } from './ui.mjs';

/** @typedef {'dev' | 'asan' | 'tsan' | 'release' | 'fuzz'} Preset */

/** @param {Preset} preset */
export function buildDir(preset) {
  const name = process.env['VITASTOR_BUILD_NAME'];
  return join(root, 'build', name ? `${preset}-${name}` : preset);
}

/** Jobs at once: a C++ compiler takes up to about a gigabyte. */
function jobs() {
  return Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / 1e9)));
}

/** Everything that decides how the tree is configured. @param {string} options */
function configuration(options) {
  const files = ask([
    'find',
    '.',
    '-name',
    'CMakeLists.txt',
    '-not',
    '-path',
    './build/*',
    '-not',
    '-path',
    './node_modules/*',
  ])
    .split('\n')
    .sort();
  const hash = createHash('sha256');
  hash.update(options + files.join('\n'));
  hash.update(readFileSync(join(root, 'CMakePresets.json')));
  return hash.digest('hex');
}

/**
 * Two builds in one directory would spoil ninja's log: the second one waits for the first.
 * @param {string} dir
 * @returns {string[]} what to put in front of a command
 */
function locked(dir) {
  mkdirSync(dir, { recursive: true });
  const lock = join(dir, '.lock');
  if (spawnSync('flock', ['-n', lock, 'true']).status !== 0) say(`Another build is at work in ${dir}: waiting for it.`);
  return ['flock', lock];
}

/**
 * Configures where needed, then builds.
 * @param {Preset} preset
 * @param {readonly string[]} [targets] default: everything
 */
export async function buildNative(preset, targets = []) {
  const dir = buildDir(preset);
  const options = ['--preset', preset, '-B', dir];
  if (!process.env['VITASTOR_BUILD_NAME']) options.push('-DVITASTOR_STRICT=ON'); // alone in the work tree
  if (existsSync(join(root, 'plugins', 'fio', 'CMakeLists.txt')) && ask(['dpkg-query', '-W', 'fio'])) {
    options.push(`-DFIO_SOURCE_DIR=${await fetchFioSource()}`);
  }
  const qemu = preset === 'fuzz' ? '' : await fetchQemuHeaders();
  options.push(`-DQEMU_SOURCE_DIR=${qemu}`);
  const started = performance.now();
  const progress = new Progress(`native build (${preset}):`);
  const stamp = join(dir, '.configured');
  const want = configuration(options.join(' '));
  if (!existsSync(join(dir, 'build.ninja')) || !existsSync(stamp) || readFileSync(stamp, 'utf8') !== want) {
    progress.update('configuring');
    await mustRun([...locked(dir), 'cmake', ...options], { quiet: true });
    writeFileSync(stamp, want);
  }
  let last = '';
  /** @type {string[]} */
  const failed = [];
  const result = await run([...locked(dir), 'ninja', '-C', dir, '-j', String(jobs()), ...targets], {
    env: { ...process.env, NINJA_STATUS: '@@%f/%t ' },
    onLine: (line) => {
      const match = /^@@(\d+\/\d+) (.*)/.exec(line);
      if (match) {
        last = match[1] ?? '';
        progress.update(`${last} ${match[2] ?? ''}`);
      } else if (!line.startsWith('ninja:')) failed.push(line);
    },
  });
  if (result.code !== 0) {
    progress.end();
    process.stderr.write(`${(failed.length > 0 ? failed.join('\n') : result.output).replace(/^@@/gm, '')}\n`);
    throw new Stop(`The native build failed; the compiler's words are above. Again with:\n  ninja -C ${dir}`);
  }
  progress.end(last ? `${last.split('/')[1]} steps, ${since(started)}` : undefined);
}
