// SPDX-License-Identifier: GPL-2.0-or-later
// Unit tests: ctest over the native test executables, node --test over the compiled TypeScript.

import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildDir } from './native.mjs';
import { root, run, say, since } from './ui.mjs';

/** @typedef {{ passed: number, failed: number }} Count */

/** @param {Count} a @param {Count} b @returns {Count} */
export const add = (a, b) => ({ passed: a.passed + b.passed, failed: a.failed + b.failed });

/** The workspaces, in build order. @returns {string[]} */
export function workspaces() {
  return JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).workspaces;
}

/** @template T @param {(dir: string) => Promise<T>} work @returns {Promise<T>} */
async function withTemporary(work) {
  const dir = mkdtempSync(join(tmpdir(), 'vitastor-dev-'));
  try {
    return await work(dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/**
 * Native tests of one preset, counted by doctest case.
 * @param {import('./native.mjs').Preset} preset
 * @param {string} [filter] regular expression on test names
 * @returns {Promise<Count>}
 */
export async function nativeTests(preset, filter) {
  const started = performance.now();
  return await withTemporary(async (dir) => {
    const junit = join(dir, 'junit.xml');
    const result = await run(
      [
        'ctest', '--test-dir', buildDir(preset), '-j', String(availableParallelism()), '--output-on-failure',
        '--output-junit', junit, '--test-output-size-passed', '100000', '--test-output-truncation', 'head',
        ...(filter ? ['-R', filter] : []),
      ],
      { quiet: true },
    );
    /** @type {Count} */
    let count = { passed: 0, failed: 0 };
    const xml = existsSync(junit) ? readFileSync(junit, 'utf8') : '';
    for (const part of xml.split('<testcase ').slice(1)) {
      const cases = /test cases:\s*\d+ \|\s*(\d+) passed \|\s*(\d+) failed/.exec(part);
      const ran = /status="run"/.test(part);
      count.passed += cases ? Number(cases[1]) : ran ? 1 : 0;
      // A test that fails without saying so crashed or ran out of time.
      count.failed += ran ? 0 : Math.max(1, cases ? Number(cases[2]) : 1);
    }
    if (result.code !== 0) {
      process.stderr.write(result.output);
      if (count.failed === 0) count.failed = 1;
    }
    say(`native tests (${preset}): ${count.passed} passed, ${count.failed} failed, ${since(started)}`);
    return count;
  });
}

/** Compiled test files whose source is still there. @param {string} workspace */
function testFiles(workspace) {
  const source = join(root, workspace, 'test');
  if (!existsSync(source)) return [];
  return readdirSync(source, { recursive: true })
    .map(String)
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => join(root, workspace, 'dist', 'test', name.replace(/\.ts$/, '.js')))
    .sort();
}

/**
 * @param {string} [filter] part of a file's path
 * @returns {Promise<Count>}
 */
export async function nodeTests(filter) {
  const started = performance.now();
  const own = readdirSync(join(root, 'tools', 'dev'))
    .filter((name) => name.endsWith('.test.mjs'))
    .map((name) => join(root, 'tools', 'dev', name));
  const files = [...workspaces().flatMap(testFiles), ...own].filter((file) => !filter || file.includes(filter));
  if (files.length === 0) return { passed: 0, failed: 0 };
  return await withTemporary(async (dir) => {
    const tap = join(dir, 'tap');
    const result = await run(
      [
        process.execPath, '--test', '--test-reporter=tap', `--test-reporter-destination=${tap}`,
        '--test-reporter=spec', '--test-reporter-destination=stdout', ...files,
      ],
      { quiet: true },
    );
    const text = existsSync(tap) ? readFileSync(tap, 'utf8') : '';
    /** @param {string} name */
    const total = (name) => Number(new RegExp(`^# ${name} (\\d+)$`, 'm').exec(text)?.[1] ?? 0);
    const count = { passed: total('pass'), failed: total('fail') + total('cancelled') };
    if (result.code !== 0) {
      const at = result.output.indexOf('failing tests:');
      process.stderr.write(at >= 0 ? result.output.slice(at - 4) : result.output);
      if (count.failed === 0) count.failed = 1;
    }
    for (const line of text.split('\n')) if (/# SKIP/.test(line)) say(`left out: ${line.trim()}`);
    say(`TypeScript tests: ${count.passed} passed, ${count.failed} failed, ${since(started)}`);
    return count;
  });
}

/** All unit tests. @param {string} [filter] @returns {Promise<Count>} */
export async function unit(filter) {
  return add(await nativeTests('dev', filter), await nodeTests(filter));
}
