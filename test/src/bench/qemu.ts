// SPDX-License-Identifier: GPL-2.0-or-later
// QEMU's own benchmark through the driver beside fio through libvitastor: the same blocks in the same order, the two by turns. What counts is what QEMU adds,
// so both are measured within one run; processor time per operation (of the whole process, less what starting costs) says the same on a busy machine.

import type { Lab } from '../lab/index.js';
import { mustFio, startCluster } from './cluster.js';
import { type BenchContext, type Benchmark, type Figure, median } from './figures.js';

type WithLab = <T>(run: (lab: Lab) => Promise<T>) => Promise<T>;

const BLOCK = 4096;
/** Between one block and the next, so that nothing reads ahead or merges. */
const STRIDE = 33 * BLOCK;
const TARGET_RATIO = 0.9;
const TARGET_ADDED_US = 5;
const SMALL = 200;

interface Point {
  name: string;
  write: boolean;
  depth: number;
}

const POINTS: readonly Point[] = [
  { name: 'read.4k.q1', write: false, depth: 1 },
  { name: 'write.4k.q1', write: true, depth: 1 },
  { name: 'read.4k.q128', write: false, depth: 128 },
  { name: 'write.4k.q128', write: true, depth: 128 },
];

/** Operations a second, and processor time of the whole process. */
interface Sample {
  iops: number;
  cpuSeconds: number;
}

/** bash's `time` around a command; its line is the last one of stderr. */
const TIMED = ['bash', '-c', `TIMEFORMAT='%U %S'; time "$@"`, 'timed'];

function cpuSeconds(stderr: string): number {
  const [user = 0, system = 0] = (stderr.trim().split('\n').pop() ?? '').split(' ').map(Number);
  return user + system;
}

class Sides {
  readonly #lab: Lab;

  constructor(lab: Lab) {
    this.#lab = lab;
  }

  async fio(point: Point, operations: number): Promise<Sample> {
    const args = [
      `-name=${point.name}`, '-image=bench', `-rw=${point.write ? 'write' : 'read'}:${STRIDE - BLOCK}`, `-bs=${BLOCK}`, `-iodepth=${point.depth}`, '-direct=1',
      `-io_size=${operations * BLOCK}`,
    ];
    const run = await this.#lab.fio(args, { timeoutMs: 300_000, under: TIMED });
    const job = run.jobs[0];
    if (run.code !== 0 || !job) throw new Error(`fio ${args.join(' ')}: exit code ${run.code}\n${run.stderr}`);
    const side = point.write ? job.write : job.read;
    if (side.ios < operations) throw new Error(`fio did ${side.ios} of ${operations} operations`);
    return { iops: (side.ios * 1000) / side.runtimeMs, cpuSeconds: cpuSeconds(run.stderr) };
  }

  /** isBare: without the format `raw` above the driver, one node of QEMU's block layer less. */
  async qemu(point: Point, operations: number, isBare: boolean): Promise<Sample> {
    const lab = this.#lab;
    const image = isBare
      ? ['--image-opts', `driver=vitastor,config-path=${lab.configPath},image=bench`]
      : ['-f', 'raw', `vitastor:config-path=${lab.configPath}:image=bench`];
    const argv = [
      ...TIMED, 'env', `LD_PRELOAD=${lab.programs.qemuDriver}`, 'qemu-img', 'bench', '-t', 'none', '-c', String(operations), '-d', String(point.depth),
      '-s', String(BLOCK), '-S', String(STRIDE), ...(point.write ? ['-w'] : []), ...image,
    ];
    const run = await lab.command('qemu-img', argv, { timeoutMs: 300_000 });
    const seconds = Number(/Run completed in ([\d.]+) seconds/.exec(run.stdout)?.[1]);
    if (run.code !== 0 || !(seconds > 0)) throw new Error(`${argv.join(' ')}: exit code ${run.code}\n${run.stdout}${run.stderr}`);
    return { iops: operations / seconds, cpuSeconds: cpuSeconds(run.stderr) };
  }
}

async function measure(lab: Lab, sides: Sides, point: Point, context: BenchContext): Promise<Figure> {
  context.progress(`qemu ${point.name}: how many operations`);
  const [sized] = await mustFio(lab, [
    '-name=size', '-image=bench', `-rw=${point.write ? 'write' : 'read'}:${STRIDE - BLOCK}`, `-bs=${BLOCK}`, `-iodepth=${point.depth}`, '-direct=1', '-time_based', '-runtime=1',
  ]);
  const operations = Math.max(10 * SMALL, Math.round(((point.write ? sized?.write : sized?.read)?.iops ?? 0) * context.seconds));
  // What starting costs is taken off.
  const started = { fio: (await sides.fio(point, SMALL)).cpuSeconds, qemu: (await sides.qemu(point, SMALL, false)).cpuSeconds };
  const fio: Sample[] = [];
  const qemu: Sample[] = [];
  const bare: Sample[] = [];
  for (let i = 0; i < context.repeats; i++) {
    context.progress(`qemu ${point.name} (${i + 1} of ${context.repeats})`);
    // By turns, and the first one too.
    if (i % 2 === 0) fio.push(await sides.fio(point, operations));
    qemu.push(await sides.qemu(point, operations, false));
    bare.push(await sides.qemu(point, operations, true));
    if (i % 2 === 1) fio.push(await sides.fio(point, operations));
  }
  const iops = (samples: readonly Sample[]): number => median(samples.map((sample) => sample.iops));
  const each = (samples: readonly Sample[], before: number): string =>
    (((median(samples.map((sample) => sample.cpuSeconds)) - before) / (operations - SMALL)) * 1e6).toFixed(1);
  const spread = (samples: readonly Sample[]): string => samples.map((sample) => sample.iops.toFixed(0)).join(' ');
  const detail: Record<string, string> = {
    'qemu-img bench': `${iops(qemu).toFixed(0)} iops`, fio: `${iops(fio).toFixed(0)} iops`, operations: String(operations), spread: `${spread(qemu)} against ${spread(fio)}`,
    'processor time an operation': `${each(qemu, started.qemu)} us against ${each(fio, started.fio)} us`,
    'without the format raw': `${iops(bare).toFixed(0)} iops, ${each(bare, started.qemu)} us`,
  };
  if (point.depth === 1)
    return { name: `qemu.${point.name}.added`, value: 1e6 / iops(qemu) - 1e6 / iops(fio), unit: 'us', target: { atMost: TARGET_ADDED_US }, detail };
  return { name: `qemu.${point.name}.of-fio`, value: iops(qemu) / iops(fio), unit: 'ratio', target: { atLeast: TARGET_RATIO }, detail };
}

export function qemuBenchmark(withLab: WithLab): Benchmark {
  return {
    name: 'qemu',
    summary: 'qemu-img bench through the driver beside fio through libvitastor',
    run: (context) => withLab(async (lab) => {
      if (!lab.programs.qemuDriver) {
        context.progress('qemu: left out, the driver was not built');
        return [];
      }
      await startCluster(lab, context, ['bench']);
      const sides = new Sides(lab);
      const figures: Figure[] = [];
      for (const point of POINTS) figures.push(await measure(lab, sides, point, context));
      return figures;
    }),
  };
}
