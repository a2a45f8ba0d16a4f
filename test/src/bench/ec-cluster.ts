// SPDX-License-Identifier: GPL-2.0-or-later
// EC 2+1 and 4+2 beside two copies: the same OSDs in RAM (three and six), one run after the other, and what reaches the devices for
// each byte of the client once everything is stable. Reads are measured twice: through the primary, and with local_reads from the
// chunk's holder (docs/adr/0049). Targets: issue 4, "Speed"; 4+2 has none, its six OSDs share the two cores.

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
/** What is compared: the two pools, and the second one with local reads. */
type Variant = PoolName | 'local';

interface Sample {
  iops: number;
  latencyUs: number;
  /** Reads: SEC_READs between OSDs for each; writes: bytes written to devices for each byte. */
  extra: number;
}

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

interface Reported {
  store?: { device_bytes_written?: number | string };
  subop_stats?: Record<string, { count?: number | string }>;
}

/** A figure of all OSDs together, as of their last report. */
async function reported(lab: Lab, osds: readonly number[], of: (stats: Reported) => number | string | undefined): Promise<number> {
  let total = 0;
  for (const osd of osds) {
    const text = await lab.etcd.get(`${lab.prefix}/osd/stats/${osd}`);
    total += Number(of(JSON.parse(text ?? '{}') as Reported) ?? NaN);
  }
  return total;
}

const deviceBytes = (lab: Lab, osds: readonly number[]): Promise<number> => reported(lab, osds, (stats) => stats.store?.device_bytes_written);
/** SEC_READs that primaries have sent. */
const forwardedReads = (lab: Lab, osds: readonly number[]): Promise<number> => reported(lab, osds, (stats) => stats.subop_stats?.['read']?.count ?? 0);

const REPORT_MS = 2500;

/** Once nothing more is written behind the last reply. */
async function settledBytes(lab: Lab, osds: readonly number[]): Promise<number> {
  let last = NaN;
  for (let i = 0; i < 30; i++) {
    await sleep(REPORT_MS);
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
  const { osds } = code;
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
  for (const point of POINTS) figures.push(...await measure(lab, context, code, point));
  return figures;
}

/** One point on copies and on the code; reads on the code with local reads as well. */
async function measure(lab: Lab, context: BenchContext, code: Code, point: Point): Promise<Figure[]> {
  const { osds, prefix } = code;
  const isRead = point.rw === 'randread';
  const variants: readonly Variant[] = isRead ? ['copies', 'ec', 'local'] : POOLS;
  const samples = new Map<Variant, Sample[]>(variants.map((variant) => [variant, []]));
  for (let i = 0; i < context.repeats; i++) {
    for (const variant of variants) {
      context.progress(`${code.name}: ${variant} ${point.name} (${i + 1} of ${context.repeats})`);
      if (variant === 'local') await setLocalReads(lab, 'nearest');
      if (isRead) await sleep(REPORT_MS);
      const before = isRead ? await forwardedReads(lab, osds) : await settledBytes(lab, osds);
      const job = await fio(lab, [
        `-name=${point.name}`, `-image=${variant === 'copies' ? 'copies' : 'ec'}`, `-rw=${point.rw}`, '-bs=4k', `-iodepth=${point.depth}`, '-direct=1', '-time_based',
        `-runtime=${context.seconds}`,
      ]);
      const side = isRead ? job.read : job.write;
      if (isRead) await sleep(REPORT_MS);
      const after = isRead ? await forwardedReads(lab, osds) : await settledBytes(lab, osds);
      if (variant === 'local') await setLocalReads(lab, 'primary');
      samples.get(variant)?.push({ iops: side.iops, latencyUs: side.latencyUsMean, extra: (after - before) / (isRead ? side.ios : side.ios * 4096) });
    }
  }
  const of = (variant: Variant, value: (sample: Sample) => number): number => median((samples.get(variant) ?? []).map(value));
  const shown = (variant: Variant): string => {
    const speed = `${of(variant, (one) => one.iops).toFixed(0)} iops, ${of(variant, (one) => one.latencyUs).toFixed(0)} us`;
    return isRead ? `${speed}, ${of(variant, (one) => one.extra).toFixed(2)} reads between OSDs each` : speed;
  };
  const ratio = (variant: Variant): number => {
    const copies = samples.get('copies') ?? [];
    return median((samples.get(variant) ?? []).map((one, i) => one.iops / (copies[i]?.iops ?? NaN)));
  };
  const target = code.hasTargets ? { target: { atLeast: point.ratio } } : {};
  const figures: Figure[] = [{
    name: `${prefix}.${point.name}`, value: ratio('ec'), unit: 'ratio', ...target,
    detail: { [`EC ${code.name}`]: shown('ec'), 'two copies': shown('copies') },
  }];
  if (isRead) {
    figures.push({
      name: `${prefix}.${point.name}.local-reads`, value: ratio('local'), unit: 'ratio', ...target,
      detail: { [`EC ${code.name}`]: shown('local'), 'two copies': shown('copies') },
    });
  }
  if (point.deviceBytes !== undefined) {
    figures.push({
      name: `${prefix}.${point.name}.device-bytes`, value: of('ec', (one) => one.extra), unit: 'ratio',
      ...(code.hasTargets ? { target: { atMost: point.deviceBytes } } : {}),
      detail: { 'two copies': of('copies', (one) => one.extra).toFixed(2) },
    });
  }
  return figures;
}

/** Of the EC pool. Its PGs peer again. */
async function setLocalReads(lab: Lab, mode: 'primary' | 'nearest'): Promise<void> {
  const changed = await lab.cli(['modify-pool', 'ec', '--local_reads', mode]);
  if (changed.code !== 0) throw new Error(changed.stdout + changed.stderr);
  await sleep(1000);
  await lab.waitActive({ clean: true });
}
