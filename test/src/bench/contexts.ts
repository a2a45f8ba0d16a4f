// SPDX-License-Identifier: GPL-2.0-or-later
// Two contexts of one process on one image beside one: does the client scale with its threads? Where OSDs share the cores with the client, iops do not
// say that. So beside them: what a read costs the client (instructions, where perf counts them, and processor time). If two contexts cost a read no more than
// one does, each thread does as many a second as the one did, and together they do twice as many wherever the OSDs keep up.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Lab, parseFio } from '../lab/index.js';
import { startCluster } from './cluster.js';
import type { Benchmark, BenchContext, Figure } from './figures.js';
import { median } from './figures.js';

type WithLab = <T>(run: (lab: Lab) => Promise<T>) => Promise<T>;

interface Sample {
  iops: number;
  cpuNs: number;
  /** In user space; 0: perf does not count here. */
  instructions: number;
}

const canCount = (): boolean => /\d/.test(spawnSync('perf', ['stat', '-x', ',', '-e', 'instructions:u', 'true'], { encoding: 'utf8' }).stderr?.split(',')[0] ?? '');

async function measure(lab: Lab, contexts: number, ios: number, counts: boolean): Promise<Sample> {
  const file = join(lab.dir, 'perf.txt');
  // fio runs each job in a thread of one process; each has a context of its own. A job that reads nothing pays for what starting costs.
  const args = (number: number): string[] => [
    ...(counts ? ['perf', 'stat', '-x', ',', '-e', 'instructions:u', '-o', file] : []), lab.programs.fio, '--output-format=json', ...lab.fioArgs,
    '-name=read', '-image=bench', '-rw=randread', '-bs=4k', '-iodepth=128', '-direct=1', '-norandommap', '-randrepeat=0', `-number_ios=${number}`,
    '-io_size=1T', `-numjobs=${contexts}`,
  ];
  const one = async (number: number): Promise<{ jobs: ReturnType<typeof parseFio>; instructions: number }> => {
    const run = await lab.command('fio', args(number), { env: lab.fioEnv, timeoutMs: 300_000 });
    const jobs = parseFio(run.stdout);
    if (run.code !== 0 || jobs.length === 0) throw new Error(`fio: exit code ${run.code}\n${run.stdout}${run.stderr}`);
    const line = counts ? readFileSync(file, 'utf8').split('\n').find((text) => text.includes('instructions')) : undefined;
    return { jobs, instructions: Number(line?.split(',')[0] ?? 0) || 0 };
  };
  const start = counts ? await one(1000) : { instructions: 0 };
  const whole = await one(ios);
  const reads = whole.jobs.reduce((sum, job) => sum + job.read.ios, 0);
  return {
    iops: whole.jobs.reduce((sum, job) => sum + job.read.iops, 0),
    cpuNs: (1e9 * whole.jobs.reduce((sum, job) => sum + job.cpuSeconds, 0)) / reads,
    instructions: counts ? (whole.instructions - start.instructions) / (reads - 1000 * contexts) : 0,
  };
}

export function contextsBenchmark(withLab: WithLab): Benchmark {
  return {
    name: 'contexts',
    summary: 'two contexts of one process against one, 4 KB reads: iops, and what a read costs the client',
    run: (context: BenchContext) => withLab(async (lab) => {
      await startCluster(lab, context, ['bench'], '256M');
      const counts = canCount();
      if (!counts) context.progress('perf cannot count instructions here: processor time alone');
      const ios = 20_000 * context.seconds;
      const one: Sample[] = [];
      const two: Sample[] = [];
      for (let i = 0; i < context.repeats; i++) {
        context.progress(`one context, then two (${i + 1} of ${context.repeats})`);
        one.push(await measure(lab, 1, ios, counts));
        two.push(await measure(lab, 2, ios, counts));
      }
      const pick = (samples: readonly Sample[], field: keyof Sample): number => median(samples.map((sample) => sample[field]));
      const scale = (field: 'cpuNs' | 'instructions'): number => (2 * pick(one, field)) / pick(two, field);
      const figures: Figure[] = [
        {
          name: 'contexts.iops', value: pick(two, 'iops') / pick(one, 'iops'), unit: 'ratio',
          detail: { one: `${pick(one, 'iops').toFixed(0)} iops`, two: `${pick(two, 'iops').toFixed(0)} iops`, note: 'OSDs share the cores' },
        },
        {
          name: 'contexts.by-time', value: scale('cpuNs'), unit: 'ratio', ...(counts ? {} : { target: { atLeast: 1.6 } }),
          detail: { 'a read with one': `${pick(one, 'cpuNs').toFixed(0)} ns`, 'with two': `${pick(two, 'cpuNs').toFixed(0)} ns` },
        },
      ];
      if (counts) {
        figures.push({
          name: 'contexts.by-instructions', value: scale('instructions'), unit: 'ratio', target: { atLeast: 1.6 },
          detail: { 'a read with one': pick(one, 'instructions').toFixed(0), 'with two': pick(two, 'instructions').toFixed(0) },
        });
      }
      return figures;
    }),
  };
}
