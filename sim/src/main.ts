// SPDX-License-Identifier: GPL-2.0-or-later
// npm run sim: whole clusters from seeds. Every seed runs twice, each time in a process of its own, and must give the same trace hash.

import { HighsSolver } from '@vitastor/mon';
import { spawn } from 'node:child_process';
import { appendFileSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadNative } from './native.js';
import { runSeed, type RunResult } from './run.js';

const HELP = `npm run sim [-- --seed N | --seeds N | --minutes M] [--trace]

  --seed N        one seed
  --seeds N       seeds 1 to N (default 20)
  --minutes M     new seeds for M minutes of real time
  --from N        first seed
  --once          do not run each seed a second time to compare trace hashes
  --trace         print the trace
  --events        also write one line per native event to build/sim/seed-N.M.events
`;

interface Options {
  seeds: number;
  from: bigint;
  minutes: number;
  once: boolean;
  trace: boolean;
  events: boolean;
  /** Internal: run this one seed here and print its result; the number tells the runs of a seed apart. */
  child: number | null;
}

function parse(words: readonly string[]): Options | null {
  const options: Options = { seeds: 20, from: 1n, minutes: 0, once: false, trace: false, events: false, child: null };
  for (let i = 0; i < words.length; i++) {
    const next = (): number => Number(words[++i]);
    switch (words[i]) {
      case '--seed': options.from = BigInt(next()); options.seeds = 1; break;
      case '--seeds': options.seeds = next(); break;
      case '--from': options.from = BigInt(next()); break;
      case '--minutes': options.minutes = next(); options.seeds = Number.POSITIVE_INFINITY; break;
      case '--once': options.once = true; break;
      case '--trace': options.trace = true; break;
      case '--events': options.events = true; break;
      case '--child': options.child = next(); break;
      default: return null;
    }
  }
  return Number.isNaN(options.seeds) || Number.isNaN(options.minutes) ? null : options;
}

const DIR = join(process.cwd(), 'build', 'sim');
const traceFile = (seed: bigint, run: number): string => join(DIR, `seed-${seed}.${run}.trace`);
const eventsFile = (seed: bigint, run: number): string => join(DIR, `seed-${seed}.${run}.events`);

/** One run of one seed, in this process. Its result is the last line of stdout. */
async function child(seed: bigint, run: number, options: Options): Promise<void> {
  const file = traceFile(seed, run);
  rmSync(file, { force: true });
  let lines: string[] = [];
  const flush = (): void => {
    appendFileSync(file, lines.map((line) => `${line}\n`).join(''));
    lines = [];
  };
  const trace = (line: string): void => {
    if (options.trace) process.stdout.write(`${line}\n`);
    lines.push(line);
    if (lines.length >= 1000) flush();
  };
  const result = await runSeed(loadNative(process.env['VITASTOR_BUILD_DIR']), await HighsSolver.load(), {
    seed, faultMs: 60_000, healMs: 120_000, trace, ...(options.events ? { nativeTrace: eventsFile(seed, run) } : {}),
  });
  flush();
  process.stdout.write(`${JSON.stringify({ ...result, seed: String(seed) })}\n`);
}

/** Runs a seed in a process of its own: what crashed processes of the cluster leave behind goes with it. */
async function runInChild(seed: bigint, run: number, options: Options): Promise<RunResult> {
  const argv = [
    fileURLToPath(import.meta.url), '--child', String(run), '--from', String(seed), ...(options.trace && run === 1 ? ['--trace'] : []), ...(options.events ? ['--events'] : []),
  ];
  const process_ = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  let last = '';
  let rest = '';
  process_.stdout.setEncoding('utf8');
  process_.stdout.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (options.trace && !line.startsWith('{"seed"')) process.stdout.write(`${line}\n`);
      last = line;
    }
  });
  const code = await new Promise<string>((resolve) => process_.on('close', (exit, signal) => resolve(signal ?? String(exit))));
  if (last.startsWith('{"seed"')) return { ...(JSON.parse(last) as RunResult), seed };
  return { seed, hash: '', failures: [`the process ended with ${code} and gave no result`], operations: 0, faults: 0, virtualMs: 0 };
}

async function main(words: readonly string[]): Promise<number> {
  const options = parse(words);
  if (!options) {
    process.stdout.write(HELP);
    return words.includes('--help') ? 0 : 2;
  }
  mkdirSync(DIR, { recursive: true });
  if (options.child !== null) {
    await child(options.from, options.child, options);
    return 0;
  }
  const startedMs = performance.now();
  let passed = 0;
  let failed = 0;
  for (let i = 0; i < options.seeds; i++) {
    if (options.minutes > 0 && performance.now() - startedMs > options.minutes * 60_000) break;
    const seed = options.from + BigInt(i);
    const runs = options.once ? [1] : [1, 2];
    const results = await Promise.all(runs.map((run) => runInChild(seed, run, options)));
    const failures = results.flatMap((result) => result.failures);
    const [first, second] = results;
    if (first && second && failures.length === 0 && first.hash !== second.hash) failures.push(`not deterministic: trace hash ${first.hash}, then ${second.hash}; --events shows where they part`);
    if (first && failures.length === 0) {
      passed++;
      for (const run of runs) rmSync(traceFile(seed, run), { force: true });
      process.stdout.write(`seed ${seed}: well, ${first.operations} operations, ${first.faults} faults, ${(first.virtualMs / 1000).toFixed(0)} virtual s, trace ${first.hash}\n`);
      continue;
    }
    failed++;
    process.stdout.write(`seed ${seed}: FAILED\n  ${failures.slice(0, 5).join('\n  ')}\n  repeat: npm run sim -- --seed ${seed} --trace\n  trace:  ${traceFile(seed, 1)}\n`);
  }
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  return failed > 0 ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));
