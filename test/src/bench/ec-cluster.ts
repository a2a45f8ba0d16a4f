// SPDX-License-Identifier: GPL-2.0-or-later
// EC 2+1 and 4+2 beside two copies: the same OSDs in RAM (three and six), one run after the other, and what reaches the devices for
// each byte of the client once everything is stable. Targets: issue 4, "Speed"; 4+2 has none, its six OSDs share the two cores.

import { type FioJob, type Lab, sleep } from '../lab/index.js';
import { type Benchmark, type BenchContext, type Figure, median } from './figures.js';

type WithLab = <T>(run: (lab: Lab) => Promise<T>) => Promise<T>;

interface Code {
  name: string;
  osds: readonly number[];
  /** Of the figures. */
  prefix: string;
  hasTargets: boolean;
}

const CODES: readonly Code[] = [
  { name: '2+1', osds: [1, 2, 3], prefix: 'ec-cluster', hasTargets: true },
  { name: '4+2', osds: [1, 2, 3, 4, 5, 6], prefix: 'ec-cluster.4+2', hasTargets: false },
];
const POOLS = ['copies', 'ec'] as const;
type PoolName = (typeof POOLS)[number];
/** Blocks of data and parity fit into the files of the OSDs with room to spare. */
const IMAGE = '256M';

interface Point {
  name: string;
  rw: 'randread' | 'randwrite';
  depth: number;
  ratio: number;
  /** Written to all devices for each byte of the client, at most. */
  deviceBytes?: number;
}

const POINTS: readonly Point[] = [
  { name: 'read.4k.q1', rw: 'randread', depth: 1, ratio: 0.9 },
  { name: 'write.4k.q1', rw: 'randwrite', depth: 1, ratio: 0.6, deviceBytes: 8.5 },
  { name: 'read.4k.q128', rw: 'randread', depth: 128, ratio: 0.9 },
  { name: 'write.4k.q128', rw: 'randwrite', depth: 128, ratio: 0.6, deviceBytes: 4.0 },
];

async function fio(lab: Lab, args: readonly string[]): Promise<FioJob> {
  const run = await lab.fio(args, { timeoutMs: 300_000 });
  const job = run.jobs[0];
  if (run.code !== 0 || !job || job.error !== 0) throw new Error(`fio ${args.join(' ')}: exit code ${run.code}\n${run.stdout}${run.stderr}\n${await lab.diagnose()}`);
  return job;
}

/** Of all OSDs, as of their last report. */
async function deviceBytes(lab: Lab, osds: readonly number[]): Promise<number> {
  let total = 0;
  for (const osd of osds) {
    const text = await lab.etcd.get(`${lab.prefix}/osd/stats/${osd}`);
    const stats = JSON.parse(text ?? '{}') as { store?: { device_bytes_written?: number | string } };
    total += Number(stats.store?.device_bytes_written ?? NaN);
  }
  return total;
}

/** Once nothing more is written behind the last reply. */
async function settledBytes(lab: Lab, osds: readonly number[]): Promise<number> {
  let last = NaN;
  for (let i = 0; i < 30; i++) {
    await sleep(2500);
    const now = await deviceBytes(lab, osds);
    if (now === last) return now;
    last = now;
  }
  return last;
}

export function ecClusterBenchmark(withLab: WithLab): Benchmark {
  return {
    name: 'ec-cluster',
    summary: `4 KB random reads and writes on EC ${CODES.map((code) => code.name).join(' and ')} beside two copies, bytes written to devices`,
    run: async (context) => {
      const figures: Figure[] = [];
      for (const code of CODES) figures.push(...await withLab(async (lab) => await run(lab, context, code)));
      return figures;
    },
  };
}

async function run(lab: Lab, context: BenchContext, code: Code): Promise<Figure[]> {
  const { osds, prefix } = code;
  context.progress(`starting a cluster of ${osds.length} OSDs in RAM`);
  await lab.startEtcd();
  await lab.startMonitor();
  for (const osd of osds) await lab.startOsd(osd, { etcd_stats_interval: 1 });
  const scheme: Record<PoolName, readonly string[]> = { copies: ['-s', '2'], ec: ['--ec', code.name] };
  for (const pool of POOLS) {
    const made = await lab.cli(['create-pool', pool, ...scheme[pool], '-n', '16', '--failure_domain', 'osd']);
    if (made.code !== 0) throw new Error(made.stdout + made.stderr);
    await lab.waitActive();
    await lab.createImage(pool, IMAGE, ['--pool', pool]);
    context.progress(`filling ${pool}`);
    await fio(lab, ['-name=fill', `-image=${pool}`, '-rw=write', '-bs=1M', '-iodepth=16']);
  }
  const figures: Figure[] = [];
  for (const point of POINTS) {
    const iops: Record<PoolName, number[]> = { copies: [], ec: [] };
    const bytes: Record<PoolName, number[]> = { copies: [], ec: [] };
    const latency: Record<PoolName, number[]> = { copies: [], ec: [] };
    const ratios: number[] = [];
    for (let i = 0; i < context.repeats; i++) {
      for (const pool of POOLS) {
        context.progress(`${code.name}: ${pool} ${point.name} (${i + 1} of ${context.repeats})`);
        const before = point.deviceBytes === undefined ? 0 : await settledBytes(lab, osds);
        const job = await fio(lab, [
          `-name=${point.name}`, `-image=${pool}`, `-rw=${point.rw}`, '-bs=4k', `-iodepth=${point.depth}`, '-direct=1', '-time_based', `-runtime=${context.seconds}`,
        ]);
        const side = point.rw === 'randread' ? job.read : job.write;
        iops[pool].push(side.iops);
        latency[pool].push(side.latencyUsMean);
        if (point.deviceBytes !== undefined) bytes[pool].push(((await settledBytes(lab, osds)) - before) / (side.ios * 4096));
      }
      ratios.push((iops.ec.at(-1) ?? 0) / (iops.copies.at(-1) ?? 1));
    }
    figures.push({
      name: `${prefix}.${point.name}`, value: median(ratios), unit: 'ratio', ...(code.hasTargets ? { target: { atLeast: point.ratio } } : {}),
      detail: {
        [`EC ${code.name}`]: `${median(iops.ec).toFixed(0)} iops, ${median(latency.ec).toFixed(0)} us`,
        'two copies': `${median(iops.copies).toFixed(0)} iops, ${median(latency.copies).toFixed(0)} us`,
      },
    });
    if (point.deviceBytes !== undefined) {
      figures.push({
        name: `${prefix}.${point.name}.device-bytes`, value: median(bytes.ec), unit: 'ratio',
        ...(code.hasTargets ? { target: { atMost: point.deviceBytes } } : {}),
        detail: { 'two copies': median(bytes.copies).toFixed(2) },
      });
    }
  }
  return figures;
}
