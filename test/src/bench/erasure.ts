// SPDX-License-Identifier: GPL-2.0-or-later
// The codec of erasure-coded pools alone: native ec_bench, which lets the codec and memcpy take turns on data of the same size.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from '../lab/index.js';
import type { Benchmark, BenchContext, Figure } from './figures.js';
import { median } from './figures.js';

type WithLab = <T>(run: (lab: Lab) => Promise<T>) => Promise<T>;

type Line = Readonly<Record<string, number>>;

/** A record of ec_bench: the name of its case, and its numbers. */
function lineOf(text: string): [string, Line] {
  const value: unknown = JSON.parse(text);
  const fields = typeof value === 'object' && value !== null ? Object.entries(value) : [];
  const numbers = fields.filter((field): field is [string, number] => typeof field[1] === 'number');
  const name = fields.find(([key]) => key === 'case')?.[1];
  if (typeof name !== 'string' || numbers.length === 0) throw new Error(`ec_bench printed ${text}`);
  return [name, Object.fromEntries(numbers)];
}

async function ecBench(lab: Lab, seconds: number): Promise<[string, Line][]> {
  const program = join(lab.programs.buildDir, 'bin', 'ec_bench');
  if (!existsSync(program)) throw new Error(`${program} is not built: ninja -C ${lab.programs.buildDir} ec_bench`);
  const run = await lab.command('ec_bench', [program, '--json', '--seconds', String(seconds)], { timeoutMs: 600_000 });
  if (run.code !== 0) throw new Error(`ec_bench: exit code ${run.code}\n${run.stdout}${run.stderr}`);
  return run.stdout.split('\n').filter((line) => line.startsWith('{')).map(lineOf);
}

function figuresOf(name: string, lines: readonly Line[]): Figure[] {
  const pick = (field: string): number => median(lines.map((line) => line[field] ?? 0));
  if (name.endsWith('.plan')) {
    return [{ name: `ec.${name}`, value: pick('plan_ns') / 1000, unit: 'us', detail: { bitmaps: `${(pick('bitmaps_ns') / 1000).toFixed(2)} us` } }];
  }
  return [
    {
      name: `ec.${name}`, value: 1000 * pick('gigabytes_per_second'), unit: 'MB/s',
      detail: { memcpy: `${(1000 * pick('memcpy_gigabytes_per_second')).toFixed(0)} MB/s` },
    },
    { name: `ec.${name}.of-memcpy`, value: pick('ratio'), unit: 'ratio' },
  ];
}

/** Rates in MB/s of data, and their ratio to memcpy of that data; time to plan a small write. */
export function erasureBenchmark(withLab: WithLab): Benchmark {
  return {
    name: 'ec',
    summary: 'encode and decode of erasure codes beside memcpy of the same size (native, no I/O)',
    run: (context: BenchContext) => withLab(async (lab) => {
      const lines = new Map<string, Line[]>();
      for (let i = 1; i <= context.repeats; i++) {
        context.progress(`ec_bench (${i} of ${context.repeats})`);
        for (const [name, line] of await ecBench(lab, context.seconds / 16)) lines.set(name, [...(lines.get(name) ?? []), line]);
      }
      return [...lines].flatMap(([name, samples]) => figuresOf(name, samples));
    }),
  };
}
