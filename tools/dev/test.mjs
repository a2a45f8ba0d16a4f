// SPDX-License-Identifier: GPL-2.0-or-later
// npm test: everything that guards a change. The closing line counts over all runners.

import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fuzz } from './fuzz.mjs';
import { fetchGuestKernel } from './guest-kernel.mjs';
import { lint } from './lint.mjs';
import { buildNative } from './native.mjs';
import { setupAndBuild } from './setup.mjs';
import { Stop, bold, red, root, run, say, since } from './ui.mjs';
import { add, nativeTests, unit } from './unit.mjs';

/** @typedef {import('./unit.mjs').Count} Count */

/** Nothing may hang a whole run: a part that takes longer is ended and counts as failed. */
const PART_LIMIT_MS = 30 * 60_000;

/**
 * Runs a compiled program that ends with a line `N passed, N failed`.
 * @param {string} folder the part is left out where this has no sources
 * @param {string} path
 * @param {readonly string[]} args
 * @returns {Promise<Count>}
 */
async function program(folder, path, args) {
  const source = path.replace('/dist/', '/').replace(/\.js$/, '.ts');
  if (!existsSync(join(root, folder)) || !existsSync(join(root, source))) {
    say(`left out: ${source} is not written yet`);
    return { passed: 0, failed: 0 };
  }
  const result = await run([process.execPath, join(root, path), ...args], {
    onLine: (line) => say(line),
    timeoutMs: PART_LIMIT_MS,
  });
  const count = /^(\d+) passed, (\d+) failed$/m.exec(result.output);
  if (!count) return { passed: result.code === 0 ? 1 : 0, failed: result.code === 0 ? 0 : 1 };
  const failed = Number(count[2]);
  return { passed: Number(count[1]), failed: result.code !== 0 && failed === 0 ? 1 : failed };
}

/** @param {string} pid */
function commandLine(pid) {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return ''; // it has just ended
  }
}

/**
 * npm start itself, twice on the same directory: the second one must find the data of the first.
 * @returns {Promise<Count>}
 */
async function start() {
  const dir = mkdtempSync(join(tmpdir(), 'vitastor-start-'));
  const count = { passed: 0, failed: 0 };
  try {
    for (const expected of [/written through fio and verified/, /of the last start are still there/]) {
      const argv = [
        process.execPath,
        join(root, 'tools/dist/src/start/main.js'),
        '--once',
        '--no-figures',
        '--data',
        dir,
      ];
      const result = await run(argv, { quiet: true, timeoutMs: PART_LIMIT_MS });
      const good = result.code === 0 && expected.test(result.output);
      if (good) count.passed++;
      else {
        count.failed++;
        process.stderr.write(result.output);
      }
    }
    const left = readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && commandLine(pid).includes(dir));
    if (left.length > 0) {
      count.failed++;
      say(`npm start left processes behind: ${left.map((pid) => `${pid} ${commandLine(pid)}`).join('; ')}`);
    } else count.passed++;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  return count;
}

/** `extra`: only where it is named. @type {readonly { name: string, extra?: true, work: () => Promise<Count> }[]} */
const PARTS = [
  { name: 'lint', work: () => lint({ compile: true }) },
  { name: 'unit', work: () => unit() },
  { name: 'sim', work: () => program('sim', 'sim/dist/src/main.js', ['--seeds', '200', '--report']) },
  { name: 'planted', work: () => program('sim', 'sim/dist/src/main.js', ['--planted', '--short']) },
  { name: 'start', work: start },
  { name: 'e2e', work: () => program('test', 'test/dist/src/e2e.js', ['--short']) },
  { name: 'fuzz', work: () => fuzz(['--seconds', '3']) },
  {
    name: 'asan',
    work: async () => {
      await buildNative('asan', ['native_tests']);
      return await nativeTests('asan');
    },
  },
  {
    // What has threads; stores and codecs have none.
    name: 'tsan',
    extra: true,
    work: async () => {
      await buildNative('tsan', ['native_tests']);
      return await nativeTests('tsan', '^test_|^(runtime|net|serve|engine)_test$');
    },
  },
];

/** @param {readonly string[]} args names of parts; none: all @returns {Promise<number>} exit code */
export async function test(args) {
  const started = performance.now();
  const chosen = PARTS.filter((part) => (args.length === 0 ? !part.extra : args.includes(part.name)));
  if (chosen.length === 0) throw new Stop(`npm test knows these parts: ${PARTS.map((part) => part.name).join(', ')}`);
  /** @type {Count} */
  let total = { passed: 0, failed: 0 };
  /** @type {string[]} */
  const lines = [];
  try {
    await setupAndBuild();
    await fetchGuestKernel();
    lines.push(`${'build'.padEnd(8)} ${since(started)}`);
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    process.stderr.write(`${red('Stopped:')} ${error.message}\n`);
    say('0 passed, 1 failed');
    return 1;
  }
  for (const part of chosen) {
    const partStarted = performance.now();
    say(bold(`— ${part.name}`));
    /** @type {Count} */
    let count;
    try {
      count = await part.work();
    } catch (error) {
      process.stderr.write(
        `${red('Stopped:')} ${error instanceof Error ? (error instanceof Stop ? error.message : error.stack) : String(error)}\n`,
      );
      count = { passed: 0, failed: 1 };
    }
    total = add(total, count);
    lines.push(
      `${part.name.padEnd(8)} ${since(partStarted).padStart(8)}   ${count.passed} passed, ${count.failed} failed`,
    );
  }
  say(bold('— summary'));
  for (const line of lines) say(line);
  say(`${'all'.padEnd(8)} ${since(started).padStart(8)}`);
  say(`${total.passed} passed, ${total.failed} failed`);
  return total.failed > 0 ? 1 : 0;
}
