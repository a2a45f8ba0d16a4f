// SPDX-License-Identifier: GPL-2.0-or-later
// Flatten and merge beside sequential writes of the same run: how fast data moves from layer to layer, and what it costs.

import { Client } from '@vitastor/core';
import { type Lab, procUsage } from '../lab/index.js';
import { mustFio, startCluster } from './cluster.js';
import type { Benchmark, BenchContext, Figure } from './figures.js';
import { median } from './figures.js';

type WithLab = <T>(run: (lab: Lab) => Promise<T>) => Promise<T>;

/** Of the sequential write rate. */
const TARGET = 0.6;

interface Sample {
  megabytesPerSecond: number;
  /** Processor seconds of OSDs and client for a gigabyte. */
  cpuPerGigabyte: number;
}

interface InodeRow {
  name: string;
  pool_id: number;
  inode_num: number;
}

function osdCpu(lab: Lab): number {
  return [...lab.osds.values()].reduce((sum, child) => sum + procUsage(child.pid).cpuSeconds, 0);
}

async function must(lab: Lab, ...args: string[]): Promise<void> {
  const result = await lab.cli([...args, '--progress', '0']);
  if (result.code !== 0) throw new Error(`${args.join(' ')}: ${result.stdout}${result.stderr}`);
}

async function layerOf(lab: Lab, name: string): Promise<bigint> {
  const [row] = (await lab.cliJson(['ls', '--exact', name])) as InodeRow[];
  if (!row) throw new Error(`no image ${name}`);
  return (BigInt(row.pool_id) << 48n) | BigInt(row.inode_num);
}

/** The merge itself: what a command needs to start, and its transactions, are the same for any size. */
async function merge(lab: Lab, names: readonly string[], target: number): Promise<Sample> {
  const layers = await Promise.all(names.map((name) => layerOf(lab, name)));
  const client = new Client({ config: {}, configPath: lab.configPath });
  try {
    const before = osdCpu(lab);
    const own = process.cpuUsage();
    const start = process.hrtime.bigint();
    const { writtenBytes } = await client.merge({ layers, target, iodepth: 32, parallelOsds: 4 });
    const seconds = Number(process.hrtime.bigint() - start) / 1e9;
    const { user, system } = process.cpuUsage(own);
    const megabytes = Number(writtenBytes) / 1e6;
    return { megabytesPerSecond: megabytes / seconds, cpuPerGigabyte: ((osdCpu(lab) - before + (user + system) / 1e6) / megabytes) * 1000 };
  } finally {
    await client.close();
  }
}

async function write(lab: Lab, name: string, megabytes: number): Promise<Sample> {
  await must(lab, 'create', '-s', `${megabytes}M`, name);
  const before = osdCpu(lab);
  const [job] = await mustFio(lab, ['-name=write', `-image=${name}`, '-rw=write', '-bs=4M', '-iodepth=32', '-direct=1']);
  const written = (job?.write.bytes ?? 0) / 1e6;
  return {
    megabytesPerSecond: (job?.write.bytesPerSecond ?? 0) / 1e6, cpuPerGigabyte: ((osdCpu(lab) - before + (job?.cpuSeconds ?? 0)) / written) * 1000,
  };
}

export function layersBenchmark(withLab: WithLab): Benchmark {
  return {
    name: 'layers',
    summary: 'flatten and merge of whole and of scattered layers, beside sequential writes of the same run',
    run: (context) => withLab((lab) => measure(lab, context)),
  };
}

async function measure(lab: Lab, context: BenchContext): Promise<Figure[]> {
  const megabytes = context.seconds > 2 ? 512 : 256;
  const rounds = context.repeats > 1 ? 5 : 3;
  await startCluster(lab, context, ['base'], `${megabytes}M`);
  await must(lab, 'snap-create', 'base@whole');
  // Every other 16 KB.
  await mustFio(lab, ['-name=holes', '-image=base', '-rw=write:16k', '-bs=16k', '-iodepth=64', `-io_size=${megabytes / 2}M`]);
  await must(lab, 'snap-create', 'base@holes');
  const samples = new Map<string, Sample[]>();
  const take = (name: string, sample: Sample): void => void samples.set(name, [...(samples.get(name) ?? []), sample]);
  for (let i = 0; i < rounds; i++) {
    context.progress(`round ${i + 1} of ${rounds}`);
    take('write', await write(lab, 'written', megabytes));
    await must(lab, 'rm', 'written');
    await must(lab, 'create', '--parent', 'base@whole', 'clone');
    take('flatten', await merge(lab, ['base@whole', 'clone'], 1));
    await must(lab, 'rm', 'clone');
    // Down into a layer that nobody else writes to, which has nothing of it yet.
    await must(lab, 'create', '-s', `${megabytes}M`, 'below');
    await must(lab, 'modify', 'below', '--readonly');
    take('merge', await merge(lab, ['below', 'base@whole'], 0));
    await must(lab, 'rm', 'below');
    await must(lab, 'create', '--parent', 'base@holes', 'clone');
    take('merge.scattered', await merge(lab, ['base@holes', 'clone'], 1));
    await must(lab, 'rm', 'clone');
  }
  const pick = (name: string, field: keyof Sample): number => median((samples.get(name) ?? []).map((sample) => sample[field]));
  const figures: Figure[] = [{
    name: 'layers.write', value: pick('write', 'megabytesPerSecond'), unit: 'MB/s', detail: { 'processor time': `${pick('write', 'cpuPerGigabyte').toFixed(2)} s/GB` },
  }];
  for (const name of ['flatten', 'merge', 'merge.scattered']) {
    // Neighbours in time are compared, since the machine has moods.
    const ratios = (samples.get(name) ?? []).map((sample, i) => sample.megabytesPerSecond / (samples.get('write')?.[i]?.megabytesPerSecond ?? 1));
    figures.push({
      name: `layers.${name}`, value: median(ratios), unit: 'ratio', ...(name === 'merge.scattered' ? {} : { target: { atLeast: TARGET } }),
      detail: {
        rate: `${pick(name, 'megabytesPerSecond').toFixed(0)} MB/s`, 'processor time': `${pick(name, 'cpuPerGigabyte').toFixed(2)} s/GB`,
        'of the write': (pick('write', 'cpuPerGigabyte') / pick(name, 'cpuPerGigabyte')).toFixed(2),
        rounds: ratios.map((ratio) => ratio.toFixed(2)).join(' '),
      },
    });
  }
  return figures;
}
