// SPDX-License-Identifier: GPL-2.0-or-later
// What many objects cost: processor time of a start, and memory. Native store_load_bench makes a metadata log of whole blocks
// without their data and opens it. Targets: issue 3 ("Memory", "Start").

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from '../lab/index.js';
import type { Benchmark, BenchContext, Figure } from './figures.js';
import { median } from './figures.js';

type WithLab = <T>(run: (lab: Lab) => Promise<T>) => Promise<T>;

const MILLION = 1_000_000;
/** Bytes an object may take, besides 4 for each checksummed 4 KB. */
const OBJECT_BYTES = 64;
const GRANULES = 32;

interface Load {
  cpuSeconds: number;
  bytesPerObject: number;
}

async function load(lab: Lab, objects: number, checksums: boolean): Promise<Load> {
  const program = join(lab.programs.buildDir, 'bin', 'store_load_bench');
  if (!existsSync(program)) {
    throw new Error(`${program} is not built: ninja -C ${lab.programs.buildDir} store_load_bench`);
  }
  const argv = [program, lab.dir, '--objects', String(objects), ...(checksums ? [] : ['--no-checksums'])];
  const run = await lab.command('store_load_bench', argv, { timeoutMs: 600_000 });
  const found = /(\d+) objects: ([\d.]+) s of processor time.*?; ([\d.]+) bytes of memory an object/.exec(run.stdout);
  if (run.code !== 0 || !found || Number(found[1]) !== objects) {
    throw new Error(`${argv.join(' ')}: exit code ${run.code}\n${run.stdout}${run.stderr}`);
  }
  return { cpuSeconds: Number(found[2]), bytesPerObject: Number(found[3]) };
}

async function measure(lab: Lab, context: BenchContext): Promise<Figure[]> {
  const small: number[] = [];
  const large: number[] = [];
  const bytes: number[] = [];
  const plain: number[] = [];
  for (let round = 1; round <= context.repeats; round++) {
    context.progress(`1 and 8 million objects (${round} of ${context.repeats})`);
    small.push((await load(lab, MILLION, true)).cpuSeconds);
    const many = await load(lab, 8 * MILLION, true);
    large.push(many.cpuSeconds);
    bytes.push(many.bytesPerObject);
    plain.push((await load(lab, 8 * MILLION, false)).bytesPerObject);
  }
  const one = median(small);
  return [
    {
      name: 'store-objects.load.8m', value: median(large), unit: 's', target: { atMost: 4 },
      detail: { 'of processor time; 1 million': `${one.toFixed(2)} s` },
    },
    {
      name: 'store-objects.load.linear', value: one > 0 ? median(large) / one : 0, unit: 'ratio', target: { atMost: 9 },
    },
    {
      name: 'store-objects.memory', value: median(bytes), unit: 'bytes',
      target: { atMost: OBJECT_BYTES + 4 * GRANULES }, detail: { 'an object of 128 KB with': `${GRANULES} checksums` },
    },
    {
      name: 'store-objects.memory.no-checksums', value: median(plain), unit: 'bytes', target: { atMost: OBJECT_BYTES },
    },
  ];
}

export function storeObjectsBenchmark(inRam: WithLab): Benchmark {
  return {
    name: 'store-objects',
    summary: 'processor time of a start with 8 million objects, and memory of each',
    run: (context) => inRam((lab) => measure(lab, context)),
  };
}
