// SPDX-License-Identifier: GPL-2.0-or-later
// npm run sim: whole clusters from seeds. Every seed runs twice and must give the same trace hash.

import { HighsSolver, type Solver } from '@vitastor/mon';
import { appendFileSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { loadNative, type NativeModule } from './native.js';
import { runSeed, type RunResult } from './run.js';

const HELP = `npm run sim [-- --seed N | --seeds N | --minutes M] [--trace]

  --seed N     one seed
  --seeds N    seeds 1 to N (default 20)
  --minutes M  new seeds for M minutes of real time
  --from N     first seed
  --once       do not run each seed a second time to compare trace hashes
  --trace      print the trace
`;

interface Options {
  seeds: number;
  from: bigint;
  minutes: number;
  once: boolean;
  trace: boolean;
}

function parse(words: readonly string[]): Options | null {
  const options: Options = { seeds: 20, from: 1n, minutes: 0, once: false, trace: false };
  for (let i = 0; i < words.length; i++) {
    const next = (): number => Number(words[++i]);
    switch (words[i]) {
      case '--seed': options.from = BigInt(next()); options.seeds = 1; break;
      case '--seeds': options.seeds = next(); break;
      case '--from': options.from = BigInt(next()); break;
      case '--minutes': options.minutes = next(); options.seeds = Number.POSITIVE_INFINITY; break;
      case '--once': options.once = true; break;
      case '--trace': options.trace = true; break;
      default: return null;
    }
  }
  return Number.isNaN(options.seeds) || Number.isNaN(options.minutes) ? null : options;
}

async function once(native: NativeModule, solver: Solver, seed: bigint, trace: (line: string) => void): Promise<RunResult> {
  return await runSeed(native, solver, { seed, faultMs: 60_000, healMs: 120_000, trace });
}

async function main(words: readonly string[]): Promise<number> {
  const options = parse(words);
  if (!options) {
    process.stdout.write(HELP);
    return words.includes('--help') ? 0 : 2;
  }
  const native = loadNative(process.env['VITASTOR_BUILD_DIR']);
  const solver = await HighsSolver.load();
  const traceDir = join(process.cwd(), 'build', 'sim');
  mkdirSync(traceDir, { recursive: true });
  const startedMs = performance.now();
  let passed = 0;
  let failed = 0;
  for (let i = 0; i < options.seeds; i++) {
    if (options.minutes > 0 && performance.now() - startedMs > options.minutes * 60_000) break;
    const seed = options.from + BigInt(i);
    const traceFile = join(traceDir, `seed-${seed}.trace`);
    rmSync(traceFile, { force: true });
    let lines: string[] = [];
    const trace = (line: string): void => {
      if (options.trace) process.stdout.write(`${line}\n`);
      lines.push(line);
      if (lines.length < 1000) return;
      appendFileSync(traceFile, `${lines.join('\n')}\n`);
      lines = [];
    };
    const first = await once(native, solver, seed, trace);
    appendFileSync(traceFile, `${lines.join('\n')}\n`);
    const failures = [...first.failures];
    if (!options.once) {
      const second = await once(native, solver, seed, () => undefined);
      if (second.hash !== first.hash) failures.push(`not deterministic: trace hash ${first.hash}, then ${second.hash}`);
    }
    if (failures.length === 0) {
      passed++;
      rmSync(traceFile, { force: true });
      process.stdout.write(`seed ${seed}: well, ${first.operations} operations, ${first.faults} faults, ${(first.virtualMs / 1000).toFixed(0)} virtual s, trace ${first.hash}\n`);
      continue;
    }
    failed++;
    process.stdout.write(`seed ${seed}: FAILED\n  ${failures.slice(0, 5).join('\n  ')}\n  repeat: npm run sim -- --seed ${seed} --trace\n  trace:  ${traceFile}\n`);
  }
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  return failed > 0 ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));
