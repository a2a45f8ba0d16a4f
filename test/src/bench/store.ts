// SPDX-License-Identifier: GPL-2.0-or-later
// The store alone, without network: native store_bench on a file in RAM and on disk, beside fio with io_uring on the same
// backing in the same round. Targets: issue 3 ("Speed", "Write cost").

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from '../lab/index.js';
import type { Benchmark, BenchContext, Figure } from './figures.js';
import { median } from './figures.js';

type WithLab = <T>(run: (lab: Lab) => Promise<T>) => Promise<T>;

interface Point {
  name: string;
  /** fio's words for the same load. */
  rw: 'randread' | 'randwrite' | 'randrw' | 'read' | 'write';
  bs: '4k' | '128k';
  depth: number;
  /** `immediate_commit` none and a flush after every write. */
  flush?: true;
  writeCost?: number;
  /** Of raw iops, where the device is the limit (on disk). */
  ofRaw?: number;
  /** Of raw iops per core-second, where the processor is (in RAM). */
  perCoreOfRaw?: number;
}

const POINTS: readonly Point[] = [
  { name: 'read.4k.q1', rw: 'randread', bs: '4k', depth: 1 },
  { name: 'write.4k.q1', rw: 'randwrite', bs: '4k', depth: 1, writeCost: 2.05 },
  { name: 'read.4k.q128', rw: 'randread', bs: '4k', depth: 128, ofRaw: 0.9, perCoreOfRaw: 0.6 },
  { name: 'write.4k.q128', rw: 'randwrite', bs: '4k', depth: 128, writeCost: 1.1, ofRaw: 0.7, perCoreOfRaw: 0.4 },
  { name: 'mixed.4k.q128', rw: 'randrw', bs: '4k', depth: 128 },
  { name: 'read.block.q16', rw: 'read', bs: '128k', depth: 16 },
  { name: 'write.block.q16', rw: 'write', bs: '128k', depth: 16 },
  { name: 'flush.4k.q1', rw: 'randwrite', bs: '4k', depth: 1, flush: true },
  { name: 'flush.4k.q128', rw: 'randwrite', bs: '4k', depth: 128, flush: true },
];

const MEGABYTES = 1024;
/** Longest single measurement: two backings, store and raw, make many of them. */
const MAX_SECONDS = 5;

interface Sample {
  iops: number;
  latencyUs: number;
  p99Us: number;
  /** iops per core-second. */
  perCore: number;
  writeCost: number;
}

function numbers(line: string): Record<string, number | string> {
  const value: unknown = JSON.parse(line);
  return typeof value === 'object' && value !== null ? (value as Record<string, number | string>) : {};
}

/** Runs store_bench; one record a line it printed. Throws with its words where it fails or counted errors. */
export async function storeBench(lab: Lab, args: readonly string[], timeoutMs: number): Promise<Record<string, number | string>[]> {
  const program = join(lab.programs.buildDir, 'bin', 'store_bench');
  if (!existsSync(program)) throw new Error(`${program} is not built: ninja -C ${lab.programs.buildDir} store_bench`);
  const argv = [program, join(lab.dir, 'store.data'), '--json', ...args];
  const run = await lab.command('store_bench', argv, { timeoutMs });
  const lines = run.stdout.split('\n').filter((line) => line.startsWith('{')).map(numbers);
  if (run.code !== 0 || lines.some((line) => Number(line['errors'] ?? 0) > 0)) {
    throw new Error(`${argv.join(' ')}: exit code ${run.code}\n${run.stdout}${run.stderr}`);
  }
  return lines;
}

function sampleOf(line: Record<string, number | string>): Sample {
  const cpu = Number(line['cpu_seconds']);
  return {
    iops: Number(line['iops']), latencyUs: Number(line['latency_us_mean']), p99Us: Number(line['latency_us_p99']),
    perCore: cpu > 0 ? Number(line['operations']) / cpu : 0, writeCost: Number(line['write_cost']),
  };
}

async function rawSample(lab: Lab, point: Point, seconds: number): Promise<Sample> {
  const args = [
    `--name=${point.name}`, `--filename=${join(lab.dir, 'raw.data')}`, `--size=${MEGABYTES}M`, `--rw=${point.rw}`, `--bs=${point.bs}`,
    `--iodepth=${point.depth}`, '--ioengine=io_uring', '--direct=1', '--time_based', `--runtime=${seconds}`,
    ...(point.rw === 'randrw' ? ['--rwmixread=70'] : []), ...(point.flush ? ['--fdatasync=1'] : []),
  ];
  const run = await lab.rawFio(args);
  const job = run.jobs[0];
  if (run.code !== 0 || !job) throw new Error(`fio ${args.join(' ')}: exit code ${run.code}\n${run.stdout}${run.stderr}`);
  const ios = job.read.ios + job.write.ios;
  const side = job.read.ios > job.write.ios ? job.read : job.write;
  return {
    iops: job.read.iops + job.write.iops, latencyUs: side.latencyUsMean, p99Us: side.latencyUsP99,
    perCore: job.cpuSeconds > 0 ? ios / job.cpuSeconds : 0, writeCost: 1,
  };
}

/** Samples of every point, store and raw in turn, so that both meet the same minute of a noisy machine. */
async function measure(lab: Lab, context: BenchContext, label: string): Promise<{ store: Map<string, Sample[]>; raw: Map<string, Sample[]> }> {
  const seconds = Math.min(MAX_SECONDS, context.seconds);
  const store = new Map<string, Sample[]>(POINTS.map((point) => [point.name, []]));
  const raw = new Map<string, Sample[]>(POINTS.map((point) => [point.name, []]));
  context.progress(`${label}: filling the raw file`);
  const fill = await lab.rawFio([
    '--name=fill', `--filename=${join(lab.dir, 'raw.data')}`, `--size=${MEGABYTES}M`, '--rw=write', '--bs=1M', '--ioengine=psync', '--end_fsync=1',
  ]);
  if (fill.code !== 0) throw new Error(`fio cannot fill ${join(lab.dir, 'raw.data')}: ${fill.stdout}${fill.stderr}`);
  for (let round = 1; round <= context.repeats; round++) {
    for (const flush of [false, true]) {
      const points = POINTS.filter((point) => (point.flush ?? false) === flush);
      context.progress(`${label}: store${flush ? ', a flush per write' : ''} (${round} of ${context.repeats})`);
      const lines = await storeBench(lab, [
        '--size', String(MEGABYTES), '--seconds', String(seconds), '--fill', '95', '--only', points.map((point) => point.name).join(','),
        ...(flush ? ['--mode', 'none'] : ['--no-fsync']),
      ], 600_000);
      for (const line of lines) store.get(String(line['case']))?.push(sampleOf(line));
      for (const point of points) {
        context.progress(`${label}: raw ${point.name} (${round} of ${context.repeats})`);
        raw.get(point.name)?.push(await rawSample(lab, point, seconds));
      }
    }
  }
  return { store, raw };
}

function figuresOf(backing: 'ram' | 'disk', point: Point, store: readonly Sample[], raw: readonly Sample[]): Figure[] {
  const pick = (samples: readonly Sample[], field: keyof Sample): number => median(samples.map((sample) => sample[field]));
  const ratio = (field: 'iops' | 'perCore'): number => (pick(raw, field) > 0 ? pick(store, field) / pick(raw, field) : 0);
  const name = `store.${backing}.${point.name}`;
  const figures: Figure[] = [
    {
      name, value: pick(store, 'iops'), unit: 'iops',
      detail: {
        latency: `${pick(store, 'latencyUs').toFixed(1)} us`, p99: `${pick(store, 'p99Us').toFixed(0)} us`,
        raw: `${pick(raw, 'iops').toFixed(0)} iops, ${pick(raw, 'latencyUs').toFixed(1)} us, p99 ${pick(raw, 'p99Us').toFixed(0)} us`,
      },
    },
    {
      name: `${name}.of-raw`, value: ratio('iops'), unit: 'ratio',
      ...(backing === 'disk' && point.ofRaw !== undefined ? { target: { atLeast: point.ofRaw } } : {}),
    },
    {
      name: `${name}.per-core`, value: pick(store, 'perCore'), unit: 'iops/core-s', detail: { raw: pick(raw, 'perCore').toFixed(0) },
    },
    {
      name: `${name}.per-core.of-raw`, value: ratio('perCore'), unit: 'ratio',
      ...(backing === 'ram' && point.perCoreOfRaw !== undefined ? { target: { atLeast: point.perCoreOfRaw } } : {}),
    },
  ];
  if (point.rw.endsWith('write') || point.rw === 'randrw') {
    figures.push({
      name: `${name}.write-cost`, value: pick(store, 'writeCost'), unit: 'ratio',
      ...(point.writeCost === undefined ? {} : { target: { atMost: point.writeCost } }),
    });
  }
  return figures;
}

export function storeBenchmark(inRam: WithLab, onDisk: WithLab): Benchmark {
  return {
    name: 'store',
    summary: 'the store alone in RAM and on disk: 4 KB, whole blocks, mixed, a flush per write; beside raw fio',
    run: async (context) => {
      const figures: Figure[] = [];
      for (const [backing, withLab] of [['ram', inRam], ['disk', onDisk]] as const) {
        const { store, raw } = await withLab((lab) => measure(lab, context, backing));
        for (const point of POINTS) figures.push(...figuresOf(backing, point, store.get(point.name) ?? [], raw.get(point.name) ?? []));
      }
      return figures;
    },
  };
}
