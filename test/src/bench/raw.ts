// SPDX-License-Identifier: GPL-2.0-or-later
// What the machine itself gives in this run: the backing files through io_uring, and the loopback.

import type { Lab } from '../lab/index.js';
import { join } from 'node:path';
import { freePort } from '../lab/index.js';
import type { Benchmark, BenchContext, Figure } from './figures.js';
import { median } from './figures.js';

export const RAW_POINTS = [
  { name: 'read.4k.q1', rw: 'randread', depth: 1, side: 'read' },
  { name: 'write.4k.q1', rw: 'randwrite', depth: 1, side: 'write' },
  { name: 'read.4k.q128', rw: 'randread', depth: 128, side: 'read' },
  { name: 'write.4k.q128', rw: 'randwrite', depth: 128, side: 'write' },
] as const;

/** iops of fio with io_uring on a file beside the OSDs' files, by point name. */
export async function rawDisk(lab: Lab, context: BenchContext): Promise<Map<string, number>> {
  const file = join(lab.dir, 'raw.data');
  await must(lab, ['--name=fill', `--filename=${file}`, '--size=512M', '--rw=write', '--bs=1M', '--ioengine=psync']);
  const result = new Map<string, number>();
  for (const point of RAW_POINTS) {
    context.progress(`raw ${point.name}`);
    const values: number[] = [];
    for (let i = 0; i < context.repeats; i++) {
      const [job] = await must(lab, [
        `--name=${point.name}`, `--filename=${file}`, '--size=512M', `--rw=${point.rw}`, '--bs=4k', `--iodepth=${point.depth}`,
        '--ioengine=io_uring', '--direct=1', '--time_based', `--runtime=${context.seconds}`,
      ]);
      values.push(job?.[point.side].iops ?? 0);
    }
    result.set(point.name, median(values));
  }
  return result;
}

async function must(lab: Lab, args: readonly string[]): Promise<Awaited<ReturnType<Lab['rawFio']>>['jobs']> {
  const run = await lab.rawFio(args);
  if (run.code !== 0) throw new Error(`fio ${args.join(' ')}: exit code ${run.code}\n${run.stdout}${run.stderr}`);
  return run.jobs;
}

/** Round trip of a 128-byte ping-pong between two processes, microseconds: fio's own net engine. */
export async function loopbackUs(lab: Lab, context: BenchContext): Promise<number> {
  context.progress('loopback round trip');
  const values: number[] = [];
  for (let i = 0; i < context.repeats; i++) {
    const port = await freePort();
    const [job] = await must(lab, [
      '--name=pong', '--ioengine=net', '--protocol=tcp', `--port=${port}`, '--listen', '--rw=read', '--bs=128', '--size=1G', '--pingpong=1',
      '--time_based', `--runtime=${context.seconds}`,
      '--name=ping', '--ioengine=net', '--protocol=tcp', `--port=${port}`, '--hostname=127.0.0.1', '--rw=write', '--bs=128', '--size=1G',
      '--pingpong=1', '--time_based', `--runtime=${context.seconds}`, '--startdelay=1',
    ]).then((jobs) => jobs.filter((j) => j.name === 'ping'));
    const side = job?.write;
    values.push(side && side.ios > 0 ? (side.runtimeMs * 1000) / side.ios : 0);
  }
  return median(values);
}

export function rawFigures(disk: ReadonlyMap<string, number>, roundTripUs: number): Figure[] {
  return [
    ...[...disk].map(([name, value]): Figure => ({ name: `raw.${name}`, value, unit: 'iops' })),
    { name: 'raw.loopback.roundtrip', value: roundTripUs, unit: 'us' },
  ];
}

/** The raw figures alone. */
export function rawBenchmark(withLab: <T>(run: (lab: Lab) => Promise<T>) => Promise<T>): Benchmark {
  return {
    name: 'raw',
    summary: 'the backing files and the loopback without Vitastor',
    run: (context) => withLab(async (lab) => rawFigures(await rawDisk(lab, context), await loopbackUs(lab, context))),
  };
}
