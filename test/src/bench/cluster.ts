// SPDX-License-Identifier: GPL-2.0-or-later
// The cluster with two copies on RAM-backed OSDs, beside the raw figures of the same run. Targets: the better of Vitastor 0.7.1 and
// 3.0.8 on a machine of this size (two cores).

import { type FioJob, type Lab, procUsage, sleep } from '../lab/index.js';
import type { Benchmark, BenchContext, Figure } from './figures.js';
import { median } from './figures.js';
import { loopbackUs, rawDisk, rawFigures } from './raw.js';

type WithLab = <T>(run: (lab: Lab) => Promise<T>) => Promise<T>;

interface Point {
  name: string;
  rw: 'randread' | 'randwrite' | 'read' | 'write';
  bs: '4k' | '4M';
  depth: number;
  target: number;
  /** iops per core-second, where Vitastor's is known. */
  perCore?: number;
}

const POINTS: readonly Point[] = [
  { name: 'read.4k.q1', rw: 'randread', bs: '4k', depth: 1, target: 13_800 },
  { name: 'write.4k.q1', rw: 'randwrite', bs: '4k', depth: 1, target: 5_400 },
  { name: 'read.4k.q128', rw: 'randread', bs: '4k', depth: 128, target: 208_000, perCore: 113_000 },
  { name: 'write.4k.q128', rw: 'randwrite', bs: '4k', depth: 128, target: 46_000, perCore: 24_000 },
  { name: 'read.4M.q32', rw: 'read', bs: '4M', depth: 32, target: 2_500 },
  { name: 'write.4M.q32', rw: 'write', bs: '4M', depth: 32, target: 1_160 },
];

interface Sample {
  iops: number;
  megabytes: number;
  latencyUs: number;
  p99Us: number;
  osdCpu: number;
  clientCpu: number;
  runtimeS: number;
}

/** One etcd, one monitor, two OSDs (so that every PG is on both), a pool of two copies and an image that is written once. */
export async function startCluster(lab: Lab, context: BenchContext, images: readonly string[], size = '512M'): Promise<void> {
  context.progress('starting a cluster in RAM');
  await lab.startEtcd();
  await lab.startMonitor();
  for (const osd of [1, 2]) await lab.startOsd(osd);
  await lab.createPool('bench', { size: 2, minSize: 1, pgCount: 16 });
  for (const image of images) {
    await lab.createImage(image, size);
    context.progress(`filling ${image}`);
    await mustFio(lab, ['-name=fill', `-image=${image}`, '-rw=write', '-bs=1M', '-iodepth=16']);
  }
}

export async function mustFio(lab: Lab, args: readonly string[]): Promise<FioJob[]> {
  const run = await lab.fio(args, { timeoutMs: 300_000 });
  if (run.code !== 0 || run.jobs.some((job) => job.error !== 0)) {
    throw new Error(`fio ${args.join(' ')}: exit code ${run.code}\n${run.stdout}${run.stderr}\n${await lab.diagnose()}`);
  }
  return run.jobs;
}

export function osdCpu(lab: Lab): number {
  return [...lab.osds.values()].reduce((sum, child) => sum + procUsage(child.pid).cpuSeconds, 0);
}

async function measure(lab: Lab, point: Point, seconds: number, image = 'bench'): Promise<Sample> {
  const before = osdCpu(lab);
  const [job] = await mustFio(lab, [
    `-name=${point.name}`, `-image=${image}`, `-rw=${point.rw}`, `-bs=${point.bs}`, `-iodepth=${point.depth}`, '-direct=1',
    '-time_based', `-runtime=${seconds}`,
  ]);
  if (!job) throw new Error(`fio reported no job for ${point.name}`);
  const side = point.rw.endsWith('read') ? job.read : job.write;
  return {
    iops: side.iops, megabytes: side.bytesPerSecond / 1e6, latencyUs: side.latencyUsMean, p99Us: side.latencyUsP99,
    osdCpu: osdCpu(lab) - before, clientCpu: job.cpuSeconds, runtimeS: side.runtimeMs / 1000,
  };
}

function figuresOf(point: Point, samples: readonly Sample[], raw: ReadonlyMap<string, number>, roundTripUs: number): Figure[] {
  const pick = (field: keyof Sample): number => median(samples.map((sample) => sample[field]));
  const isBig = point.bs === '4M';
  const cpu = pick('osdCpu') + pick('clientCpu');
  const perCore = cpu > 0 ? (pick('iops') * pick('runtimeS')) / cpu : 0;
  const rawIops = raw.get(point.name);
  const detail: Record<string, string> = {
    latency: `${pick('latencyUs').toFixed(0)} us`,
    p99: `${pick('p99Us').toFixed(0)} us`,
    'OSD cpu': `${pick('osdCpu').toFixed(2)} s`,
    'client cpu': `${pick('clientCpu').toFixed(2)} s of ${pick('runtimeS').toFixed(1)} s`,
  };
  if (rawIops) detail['of raw'] = (pick('iops') / rawIops).toFixed(3);
  if (point.depth === 1) detail['round trips'] = (pick('latencyUs') / roundTripUs).toFixed(2);
  const figures: Figure[] = [{
    name: `cluster.${point.name}`, value: isBig ? pick('megabytes') : pick('iops'), unit: isBig ? 'MB/s' : 'iops',
    target: { atLeast: point.target }, detail,
  }];
  if (!isBig) {
    figures.push({
      name: `cluster.${point.name}.per-core`, value: perCore, unit: 'iops/core-s',
      ...(point.perCore === undefined ? {} : { target: { atLeast: point.perCore } }),
    });
  }
  return figures;
}

export function clusterBenchmark(withLab: WithLab): Benchmark {
  return {
    name: 'cluster',
    summary: '4 KB random and 4 MB sequential reads and writes, two copies, beside raw figures',
    run: (context) => withLab(async (lab) => {
      const raw = await rawDisk(lab, context);
      const roundTripUs = await loopbackUs(lab, context);
      await startCluster(lab, context, ['bench']);
      const figures = rawFigures(raw, roundTripUs);
      for (const point of POINTS) {
        const samples: Sample[] = [];
        for (let i = 0; i < context.repeats; i++) {
          context.progress(`cluster ${point.name} (${i + 1} of ${context.repeats})`);
          samples.push(await measure(lab, point, context.seconds));
        }
        figures.push(...figuresOf(point, samples, raw, roundTripUs));
      }
      return figures;
    }),
  };
}

/** Four clients on one image against four on four images: unsynced state and locks are the image's, so this shows contention. */
export function sharedImageBenchmark(withLab: WithLab): Benchmark {
  return {
    name: 'shared-image',
    summary: 'four clients on one image against four on four images, 4 KB random writes',
    run: (context) => withLab(async (lab) => {
      const images = ['bench1', 'bench2', 'bench3', 'bench4'];
      await startCluster(lab, context, images, '256M');
      const total = async (chosen: (i: number) => string): Promise<number> => {
        const args = images.flatMap((_, i) => [
          `-name=job${i}`, `-image=${chosen(i)}`, '-rw=randwrite', '-bs=4k', '-iodepth=32', '-direct=1', '-time_based', `-runtime=${context.seconds}`,
        ]);
        const jobs = await mustFio(lab, args);
        return jobs.reduce((sum, job) => sum + job.write.iops, 0);
      };
      const ratios: number[] = [];
      const sums = { one: [] as number[], four: [] as number[] };
      for (let i = 0; i < context.repeats; i++) {
        context.progress(`four clients (${i + 1} of ${context.repeats})`);
        const one = await total(() => 'bench1');
        const four = await total((n) => images[n] ?? 'bench1');
        sums.one.push(one);
        sums.four.push(four);
        ratios.push(four > 0 ? one / four : 0);
      }
      return [{
        name: 'shared-image.ratio', value: median(ratios), unit: 'ratio', target: { atLeast: 0.95 },
        detail: { 'on one image': `${median(sums.one).toFixed(0)} iops`, 'on four': `${median(sums.four).toFixed(0)} iops` },
      }];
    }),
  };
}

const MIB = 1024 * 1024;

/** Memory of an OSD when empty and after load, and what an idle cluster costs. */
export function footprintBenchmark(withLab: WithLab): Benchmark {
  return {
    name: 'footprint',
    summary: 'memory of the OSDs empty and after load, processor time of an idle cluster',
    run: (context) => withLab(async (lab) => {
      // What Node costs with the daemon's own modules loaded, and no engine.
      const modules = `import('${lab.programs.root}/osd/dist/src/index.js').then(async () => {
        (await import('node:module')).createRequire('${lab.programs.root}/core/package.json')('etcd3');
        setTimeout(() => console.log(process.memoryUsage().rss), 1000);
      })`;
      const node = await lab.command('node', [process.execPath, '-e', modules]);
      const baseline = Number(node.stdout.trim()) / MIB;
      await lab.startEtcd();
      await lab.startMonitor();
      for (const osd of [1, 2]) await lab.startOsd(osd);
      await lab.createPool('bench', { size: 2, minSize: 1, pgCount: 16 });
      await sleep(2000);
      const resident = (): number => Math.max(...[...lab.osds.values()].map((child) => procUsage(child.pid).residentBytes)) / MIB;
      const empty = resident();
      // V8 collects what the start has left behind for about half a minute; after that the cluster is idle.
      const settleSeconds = 40;
      context.progress('idle');
      await sleep(settleSeconds * 1000);
      const daemons = [...lab.osds.values(), ...lab.monitors.values()];
      const cpu = (): number => daemons.reduce((sum, child) => sum + procUsage(child.pid).cpuSeconds, 0);
      const idleSeconds = Math.max(10, context.seconds * 3);
      const before = cpu();
      await sleep(idleSeconds * 1000);
      const idle = (100 * (cpu() - before)) / idleSeconds;
      await lab.createImage('bench', '512M');
      context.progress('load');
      await mustFio(lab, ['-name=fill', '-image=bench', '-rw=write', '-bs=4M', '-iodepth=32']);
      await mustFio(lab, ['-name=load', '-image=bench', '-rw=randrw', '-bs=4k', '-iodepth=256', '-time_based', `-runtime=${context.seconds}`]);
      return [
        { name: 'footprint.osd.empty', value: empty, unit: 'MiB', target: { atMost: baseline + 30 }, detail: { 'node with its modules': `${baseline.toFixed(1)} MiB` } },
        { name: 'footprint.osd.loaded', value: resident(), unit: 'MiB', target: { atMost: 128 } },
        { name: 'footprint.idle', value: idle, unit: 'percent of a core', target: { atMost: 1 },
          detail: { over: `${idleSeconds} s, ${settleSeconds} s after the start, two OSDs and a monitor` } },
      ];
    }),
  };
}
