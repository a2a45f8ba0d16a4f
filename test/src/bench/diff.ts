// SPDX-License-Identifier: GPL-2.0-or-later
// What diff costs: an image of 1 TB above a snapshot with many objects, 1 % of its objects written to since, scattered over all of it, two
// blocks of 4 KB in each (what is asked for are objects; what is told are extents).

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab, LabOptions } from '../lab/index.js';
import { mustFio, osdCpu } from './cluster.js';
import { median, type Benchmark, type Figure } from './figures.js';
import { makeObjects, type PgRow } from './listing.js';

type WithOptions = <T>(options: LabOptions, run: (lab: Lab) => Promise<T>) => Promise<T>;

const TIB = 2 ** 40;
const OBJECT = 131072;
const PERCENT = 100;
/** Sparse: 10 GB of objects of which 8 KB each are written, and as many again for the base. */
const OSD_BYTES = 160 * 1024 ** 3;
const TARGET_S = 2;

export function diffBenchmark(withOptions: WithOptions): Benchmark {
  return {
    name: 'diff',
    summary: 'vitastor-cli diff of an image of 1 TB with 1 % changes',
    run: (context) => withOptions({ ram: true, osdBytes: OSD_BYTES }, async (lab) => {
      const quick = context.seconds < 10;
      const size = quick ? TIB / 8 : TIB;
      const base = quick ? 50_000 : 400_000;
      context.progress('starting a cluster in RAM');
      await lab.startEtcd();
      await lab.startMonitor();
      for (const osd of [1, 2]) await lab.startOsd(osd);
      await lab.createPool('p', { size: 2, minSize: 1, pgCount: 16, args: ['--pg_stripe_size', String(OBJECT)] });
      await lab.createImage('vm', String(size));
      const [pool] = (await lab.cliJson(['pg-list'])) as PgRow[];
      context.progress(`making ${base} objects of the snapshot`);
      await makeObjects(lab, pool?.pool_id ?? 1, 1n, base, context.progress);
      const snap = await lab.cli(['snap-create', 'vm@base']);
      if (snap.code !== 0) throw new Error(snap.stderr);
      context.progress('writing to 1 % of the image');
      const stride = OBJECT * PERCENT - 4096;
      for (const offset of [0, 64 * 1024])
        await mustFio(lab, [
          '-name=w', '-image=vm', `-rw=write:${stride}`, '-bs=4k', `-offset=${offset}`, `-size=${size - offset}`, '-iodepth=64', '-direct=1',
          `-number_ios=${Math.floor(size / (OBJECT * PERCENT))}`,
        ]);
      const [walls, processors, osds]: [number[], number[], number[]] = [[], [], []];
      let listed = { count: 0, data_bytes: 0 };
      for (let i = 0; i < context.repeats + 1; i++) {
        context.progress(`diff (${i + 1} of ${context.repeats + 1}; the first one does not count)`);
        const out = join(lab.dir, 'diff.json');
        const words = [...lab.programs.cli, 'diff', 'vm', '--from', 'base', '--json', '--progress', '0', '--config_path', lab.configPath].map((word) => `'${word}'`).join(' ');
        const before = osdCpu(lab);
        const result = await lab.command('diff', ['bash', '-c', `TIMEFORMAT='%R %U %S'; time ${words} > '${out}'`]);
        const [wall = 0, user = 0, system = 0] = (result.stderr.trim().split('\n').pop() ?? '').split(' ').map(Number);
        if (result.code !== 0 || !(wall > 0)) throw new Error(`diff: ${result.code} ${result.stderr}`);
        listed = JSON.parse(readFileSync(out, 'utf8')) as typeof listed;
        if (i === 0) continue;
        walls.push(wall);
        processors.push(user + system);
        osds.push(osdCpu(lab) - before);
      }
      const objects = Math.floor(size / (OBJECT * PERCENT));
      if (listed.data_bytes !== objects * 8192) throw new Error(`${listed.data_bytes} bytes are listed, ${objects * 8192} were written`);
      const figures: Figure[] = [{
        name: 'diff.time', value: median(walls), unit: 's', target: { atMost: TARGET_S },
        detail: {
          image: `${size / 2 ** 30} GB`, 'objects changed': String(objects), extents: String(listed.count), 'objects of the snapshot': String(base),
          'processor time of vitastor-cli': `${median(processors).toFixed(2)} s`, 'of the OSDs': `${median(osds).toFixed(2)} s`, spread: walls.map((wall) => wall.toFixed(2)).join(', '),
        },
      }];
      return figures;
    }),
  };
}
