// SPDX-License-Identifier: GPL-2.0-or-later
// The codec of erasure-coded pools alone: native ec_bench, which lets the codec and memcpy take turns on data of the same size.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from '../lab/index.js';
import type { Benchmark, BenchContext, Figure } from './figures.js';
import { median } from './figures.js';

type WithLab = <T>(run: (lab: Lab) => Promise<T>) => Promise<T>;

interface Line {
  case: string;
  rate: number;
  memcpy: number;
  ratio: number;
}

function lineOf(text: string): Line {
  const value: unknown = JSON.parse(text);
  const fields = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  const line = {
    case: String(fields['case']), rate: Number(fields['gigabytes_per_second']),
    memcpy: Number(fields['memcpy_gigabytes_per_second']), ratio: Number(fields['ratio']),
  };
  if (!(line.rate > 0 && line.memcpy > 0 && line.ratio > 0)) throw new Error(`ec_bench printed ${text}`);
  return line;
}

async function ecBench(lab: Lab, seconds: number): Promise<Line[]> {
  const program = join(lab.programs.buildDir, 'bin', 'ec_bench');
  if (!existsSync(program)) throw new Error(`${program} is not built: ninja -C ${lab.programs.buildDir} ec_bench`);
  const run = await lab.command('ec_bench', [program, '--json', '--seconds', String(seconds)], { timeoutMs: 600_000 });
  if (run.code !== 0) throw new Error(`ec_bench: exit code ${run.code}\n${run.stdout}${run.stderr}`);
  return run.stdout.split('\n').filter((line) => line.startsWith('{')).map(lineOf);
}

/** Rates in MB/s of data, and their ratio to memcpy of that data. */
export function erasureBenchmark(withLab: WithLab): Benchmark {
  return {
    name: 'ec',
    summary: 'encode and decode of erasure codes beside memcpy of the same size (native, no I/O)',
    run: (context: BenchContext) => withLab(async (lab) => {
      const lines = new Map<string, Line[]>();
      for (let i = 1; i <= context.repeats; i++) {
        context.progress(`ec_bench (${i} of ${context.repeats})`);
        for (const line of await ecBench(lab, context.seconds / 16)) lines.set(line.case, [...(lines.get(line.case) ?? []), line]);
      }
      return [...lines].flatMap(([name, samples]): Figure[] => [
        {
          name: `ec.${name}`, value: 1000 * median(samples.map((line) => line.rate)), unit: 'MB/s',
          detail: { memcpy: `${(1000 * median(samples.map((line) => line.memcpy))).toFixed(0)} MB/s` },
        },
        { name: `ec.${name}.of-memcpy`, value: median(samples.map((line) => line.ratio)), unit: 'ratio' },
      ]);
    }),
  };
}
