// SPDX-License-Identifier: GPL-2.0-or-later
// Fuzz targets under sanitizers: npm run fuzz [-- NAME] [--seconds N] [--seed N]

import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildDir, buildNative } from './native.mjs';
import { setup } from './setup.mjs';
import { quote, run, say, since } from './ui.mjs';

/** @param {readonly string[]} args @returns {Promise<import('./unit.mjs').Count>} */
export async function fuzz(args) {
  /** @param {string} name @param {string} fallback */
  const option = (name, fallback) => {
    const at = args.indexOf(name);
    return at >= 0 ? (args[at + 1] ?? fallback) : fallback;
  };
  const seconds = option('--seconds', '30');
  const seed = option('--seed', String(1 + Math.floor(Math.random() * 1e9)));
  const name = args[0]?.startsWith('--') ? undefined : args[0];
  await setup();
  await buildNative('fuzz', ['fuzzers']);
  const list = join(buildDir('fuzz'), 'fuzz', 'targets.txt');
  const count = { passed: 0, failed: 0 };
  if (!existsSync(list)) {
    say('fuzz: there are no targets yet.');
    return count;
  }
  const artifacts = join(buildDir('fuzz'), 'artifacts');
  mkdirSync(artifacts, { recursive: true });
  for (const line of readFileSync(list, 'utf8').trim().split('\n')) {
    const [target = '', corpus = ''] = line.split('\t');
    if (name && target !== name) continue;
    const started = performance.now();
    const last = join(artifacts, `${target}.input`);
    const program = join(buildDir('fuzz'), 'fuzz', target);
    const argv = [
      program,
      `-max_total_time=${seconds}`,
      `-seed=${seed}`,
      `-last_input=${last}`,
      ...(existsSync(corpus) ? [corpus] : []),
    ];
    const result = await run(argv, { quiet: true });
    if (result.code === 0) {
      count.passed++;
      say(`fuzz ${target}: ${result.output.trim().split('\n').pop() ?? ''}, ${since(started)}`);
    } else {
      count.failed++;
      process.stderr.write(result.output);
      say(
        `fuzz ${target}: FAILED after ${since(started)}. Again with:\n  ${quote([program, `-replay_last=${last}`])}\n  npm run fuzz -- ${target} --seconds ${seconds} --seed ${seed}`,
      );
    }
  }
  return count;
}
