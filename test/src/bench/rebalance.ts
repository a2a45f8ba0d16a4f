// SPDX-License-Identifier: GPL-2.0-or-later
// What recovery costs the clients, and how fast it is without them. Three OSDs in RAM, two copies. A large image that nobody uses is
// moved off (and back to) an OSD while a client writes 4 KB blocks to another one; then an OSD comes back with an empty disk.

import { rmSync } from 'node:fs';
import { type Lab, sleep, until } from '../lab/index.js';
import { mustFio } from './cluster.js';
import type { Benchmark, BenchContext, Figure } from './figures.js';
import { median } from './figures.js';

type WithLab = <T>(run: (lab: Lab) => Promise<T>) => Promise<T>;

const BULK_MIB = 2048;
const CLIENT_MIB = 32;
/** Of clients' iops that must remain. */
const SHARE = 0.7;
const MOVED = 3;

async function configure(lab: Lab, more: Record<string, unknown>): Promise<void> {
  await lab.etcd.put(`${lab.prefix}/config/global`, JSON.stringify({ immediate_commit: 'all', ...more }));
}

/** As fast as it goes, without regard for clients: between two measurements. */
const IN_A_HURRY = { recovery_queue_depth: 16, recovery_tune_interval: 0 };

async function isMoving(lab: Lab): Promise<boolean> {
  const pools = await lab.pools();
  return pools.some((pool) => [...pool.states.keys()].some((words) => words.includes('has_misplaced')));
}

async function writeIops(lab: Lab, depth: number, seconds: number): Promise<number> {
  const [job] = await mustFio(lab, [
    '-name=client', '-image=client', '-rw=randwrite', '-bs=4k', `-iodepth=${depth}`, '-direct=1', '-time_based', `-runtime=${seconds}`,
  ]);
  return job?.write.iops ?? 0;
}

async function rebalance(lab: Lab, context: BenchContext, depth: number, move: () => Promise<void>): Promise<Figure> {
  const ratios: number[] = [];
  const iops = { quiet: [] as number[], during: [] as number[] };
  let tooShort = 0;
  for (let i = 0; i < context.repeats; i++) {
    context.progress(`4 KB writes, depth ${depth}, without a rebalance (${i + 1} of ${context.repeats})`);
    const quiet = await writeIops(lab, depth, context.seconds);
    context.progress('the same during a rebalance');
    await move();
    await until('the rebalance has begun', () => isMoving(lab), { timeoutMs: 60_000, everyMs: 50, diagnose: () => lab.diagnose() });
    const during = await writeIops(lab, depth, context.seconds);
    if (!(await isMoving(lab))) tooShort++;
    await configure(lab, IN_A_HURRY);
    await lab.waitActive({ clean: true, timeoutMs: 300_000 });
    await configure(lab, {});
    iops.quiet.push(quiet);
    iops.during.push(during);
    ratios.push(quiet > 0 ? during / quiet : 0);
  }
  return {
    name: `rebalance.write.4k.q${depth}`, value: median(ratios), unit: 'ratio', target: { atLeast: SHARE },
    detail: {
      without: `${median(iops.quiet).toFixed(0)} iops`, during: `${median(iops.during).toFixed(0)} iops`,
      ...(tooShort ? { 'ended before the measurement': `${tooShort} times` } : {}),
    },
  };
}

/** MB of copies that were missing, over the time until nothing is. */
async function emptied(lab: Lab, context: BenchContext, name: string, settings: Record<string, unknown>): Promise<Figure> {
  context.progress(`OSD ${MOVED} comes back empty (${name})`);
  await configure(lab, { no_recovery: true, ...settings });
  await lab.osds.get(MOVED)?.stop();
  rmSync(lab.osdFile(MOVED));
  await lab.waitActive();
  await lab.startOsd(MOVED, { allow_fresh_disk: true });
  await lab.waitActive();
  await sleep(1000);
  const pgs = (await lab.cliJson(['pg-list'])) as { target_set: number[]; object_count: number }[];
  const share = pgs.filter((pg) => pg.target_set.includes(MOVED)).length / pgs.length;
  const megabytes = ((BULK_MIB + CLIENT_MIB) * 1048576 * share) / 1e6;
  const start = process.hrtime.bigint();
  await configure(lab, settings);
  await lab.waitActive({ clean: true, timeoutMs: 600_000 });
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  return {
    name: `recovery.emptied.${name}`, value: megabytes / seconds, unit: 'MB/s',
    detail: { copies: `${megabytes.toFixed(0)} MB`, time: `${seconds.toFixed(1)} s` },
  };
}

export function rebalanceBenchmark(withLab: WithLab): Benchmark {
  return {
    name: 'rebalance',
    summary: 'clients\' 4 KB writes during a rebalance against those without; MB/s into an emptied OSD',
    run: (context) => withLab(async (lab) => {
      context.progress('starting a cluster in RAM');
      await lab.startEtcd();
      await lab.startMonitor('mon1', { mon_change_timeout: 100 });
      for (const osd of [1, 2, 3]) await lab.startOsd(osd);
      await lab.createPool('bench', { size: 2, minSize: 1, pgCount: 24 });
      for (const [image, size] of [['bulk', BULK_MIB], ['client', CLIENT_MIB]] as const) {
        await lab.createImage(image, `${size}M`);
        await mustFio(lab, ['-name=fill', `-image=${image}`, '-rw=write', '-bs=1M', '-iodepth=16']);
      }
      const figures: Figure[] = [];
      let reweight = 1;
      const weigh = (): Promise<void> => lab.etcd.put(`${lab.prefix}/config/osd/${MOVED}`, JSON.stringify({ reweight }));
      const move = (): Promise<void> => {
        reweight = 1 - reweight;
        return weigh();
      };
      for (const depth of [1, 128]) figures.push(await rebalance(lab, context, depth, move));
      reweight = 1;
      await weigh();
      await configure(lab, IN_A_HURRY);
      await sleep(2000);
      await lab.waitActive({ clean: true, timeoutMs: 300_000 });
      figures.push(await emptied(lab, context, 'default', {}));
      figures.push(await emptied(lab, context, 'depth16', IN_A_HURRY));
      return figures;
    }),
  };
}
