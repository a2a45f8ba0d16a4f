// SPDX-License-Identifier: GPL-2.0-or-later
// Listings beside clients: a million objects without data are made in one pool; then its PGs peer again, and its inodes are removed,
// while a client reads 4 KB blocks of another pool on the same two OSDs.

import { connect } from 'node:net';
import { type FioJob, type Lab, type LabOptions, until } from '../lab/index.js';
import { mustFio } from './cluster.js';
import type { Benchmark, BenchContext, Figure } from './figures.js';
import { median } from './figures.js';

type WithOptions = <T>(options: LabOptions, run: (lab: Lab) => Promise<T>) => Promise<T>;

const BLOCK = 131072n;
const PGS = 16;
/** Sparse: an object without data takes a block of the address space, and no memory. */
const OSD_BYTES = 160 * 1024 ** 3;
const HEADER = 128;
const REQUEST_MAGIC = 0x2bd7b10325434553n;
const WRITE = 12n;
const WINDOW = 512;
/** Reads a second of the client: little enough that the processors have room, so that what it waits for is the listing. */
const READ_RATE = 500;
const P99_RISE_US = 2000;
const PEERING_S = 3;

export interface PgRow {
  pool_name: string;
  pool_id: number;
  pg_num: number;
  cur_primary: number;
  target_set: number[];
  epoch: number;
  state: string[];
}

/** Objects by writes of length 0, which OSDs accept: versions and bitmaps, no data. */
export async function makeObjects(lab: Lab, pool: number, inode: bigint, count: number, progress: (text: string) => void): Promise<void> {
  const rows = ((await lab.cliJson(['pg-list'])) as PgRow[]).filter((row) => row.pool_id === pool);
  const primary = new Map(rows.map((row) => [row.pg_num, row.cur_primary]));
  const byOsd = new Map<number, bigint[]>();
  for (let i = 0n; i < BigInt(count); i++) {
    const osd = primary.get(Number(i % BigInt(rows.length)) + 1) ?? 0;
    const list = byOsd.get(osd) ?? [];
    if (list.length === 0) byOsd.set(osd, list);
    list.push(i * BLOCK);
  }
  await Promise.all([...byOsd].map(async ([osd, offsets]) => {
    const state = JSON.parse((await lab.etcd.get(`${lab.prefix}/osd/state/${osd}`)) ?? '{}') as { addresses?: string[]; port?: number };
    await new Promise<void>((resolve, reject) => {
      const socket = connect({ host: state.addresses?.[0] ?? '', port: state.port ?? 0, noDelay: true });
      let [sent, answered] = [0, 0];
      let rest: Buffer = Buffer.alloc(0);
      const fill = (): void => {
        const batch: Buffer[] = [];
        for (; sent < offsets.length && sent - answered < WINDOW; sent++) {
          const header = Buffer.alloc(HEADER);
          header.writeBigUInt64LE(REQUEST_MAGIC, 0);
          header.writeBigUInt64LE(BigInt(sent + 1), 8);
          header.writeBigUInt64LE(WRITE, 16);
          header.writeBigUInt64LE((BigInt(pool) << 48n) | inode, 24);
          header.writeBigUInt64LE(offsets[sent] ?? 0n, 32);
          batch.push(header);
        }
        if (batch.length) socket.write(Buffer.concat(batch));
      };
      socket.on('connect', fill);
      socket.on('error', reject);
      socket.on('close', () => reject(new Error(`OSD ${osd} closed the connection after ${answered} objects`)));
      socket.on('data', (chunk: Buffer) => {
        rest = rest.length ? Buffer.concat([rest, chunk]) : chunk;
        for (; rest.length >= HEADER; rest = rest.subarray(HEADER)) {
          const retval = rest.readBigInt64LE(24);
          if (retval < 0n) return void socket.destroy(new Error(`OSD ${osd} refuses an object with error ${-retval}`));
          if (++answered % 100_000 === 0) progress(`OSD ${osd}: ${answered} objects`);
        }
        if (answered === offsets.length) {
          resolve();
          socket.destroy();
        } else if (sent - answered < WINDOW / 2) {
          fill();
        }
      });
    });
  }));
}

function reader(lab: Lab, seconds: number): Promise<FioJob[]> {
  return mustFio(lab, [
    '-name=client', '-image=client', '-rw=randread', '-bs=4k', '-iodepth=4', '-direct=1', '-time_based', `-runtime=${seconds}`, `-rate_iops=${READ_RATE}`,
  ]);
}

async function p99(reading: Promise<FioJob[]>): Promise<number> {
  const [job] = await reading;
  return job?.read.latencyUsP99 ?? 0;
}

/** Whoever changes a PG's history makes it peer again. Seconds until all are active. */
async function peerAgain(lab: Lab, pool: number): Promise<number> {
  const rows = ((await lab.cliJson(['pg-list'])) as PgRow[]).filter((row) => row.pool_id === pool);
  // One question for all of them: the client that reads meanwhile shares the processors with etcd.
  const created = async (): Promise<Map<string, string>> => {
    const all = new Map<string, string>();
    for (const [key, { createRevision, value }] of await lab.etcd.origins(`${lab.prefix}/pg/state/${pool}/`)) {
      if (value.includes('"active"')) all.set(key, createRevision);
    }
    return all;
  };
  const before = await created();
  const start = process.hrtime.bigint();
  await Promise.all(rows.map((row) =>
    lab.etcd.put(`${lab.prefix}/pg/history/${pool}/${row.pg_num}`, JSON.stringify({ epoch: row.epoch, osd_sets: [row.target_set], all_peers: row.target_set }))));
  await until('all PGs have peered again', async () => {
    const now = await created();
    return now.size === rows.length && [...now].every(([key, revision]) => revision !== before.get(key));
  }, { timeoutMs: 120_000, everyMs: 20, diagnose: () => lab.diagnose() });
  return Number(process.hrtime.bigint() - start) / 1e9;
}

export function listingBenchmark(withOptions: WithOptions): Benchmark {
  return {
    name: 'listing',
    summary: 'a million objects listed (peering, rm-data) beside a reading client',
    run: (context) => withOptions({ ram: true, osdBytes: OSD_BYTES }, async (lab) => {
      const objects = context.seconds < 10 ? 200_000 : 1_000_000;
      context.progress('starting a cluster in RAM');
      await lab.startEtcd();
      await lab.startMonitor();
      for (const osd of [1, 2]) await lab.startOsd(osd);
      await lab.createPool('client', { size: 2, minSize: 1, pgCount: PGS });
      await lab.createPool('many', { size: 2, minSize: 1, pgCount: PGS, args: ['--pg_stripe_size', String(BLOCK)] });
      await lab.createImage('client', '64M', ['-p', 'client']);
      await mustFio(lab, ['-name=fill', '-image=client', '-rw=write', '-bs=1M', '-iodepth=16']);
      const many = ((await lab.cliJson(['pg-list'])) as PgRow[]).find((row) => row.pool_name === 'many')?.pool_id ?? 0;
      for (const inode of [1n, 2n]) {
        context.progress(`making ${objects / 2} objects (${inode} of 2)`);
        await makeObjects(lab, many, inode, objects / 2, context.progress);
      }
      const quiet: number[] = [];
      for (let i = 0; i < context.repeats; i++) quiet.push(await p99(reader(lab, context.seconds)));
      const base = median(quiet);
      const figures: Figure[] = [];
      const compare = (name: string, us: number, detail: Record<string, string>): void => {
        figures.push({
          name: `listing.${name}.p99-rise`, value: (us - base) / 1000, unit: 'ms', target: { atMost: P99_RISE_US / 1000 },
          detail: { quiet: `${base.toFixed(0)} us`, during: `${us.toFixed(0)} us`, objects: String(objects), ...detail },
        });
      };
      const times: number[] = [];
      for (let i = 0; i < context.repeats; i++) {
        context.progress(`peering without a client (${i + 1} of ${context.repeats})`);
        times.push(await peerAgain(lab, many));
      }
      figures.push({ name: 'listing.peering.time', value: median(times), unit: 's', target: { atMost: PEERING_S }, detail: { objects: String(objects) } });
      context.progress('peering beside a client');
      const during = p99(reader(lab, context.seconds));
      let rounds = 0;
      let reading = true;
      const watch = during.finally(() => { reading = false; });
      for (; reading; rounds++) await peerAgain(lab, many);
      compare('peering', await watch, { 'peered again': `${rounds} times` });
      for (const [name, inode, args] of [['rm-data', '1', []], ['rm-data-wait-list', '2', ['--wait-list']]] as const) {
        context.progress(name);
        const removal = lab.cli(['rm-data', '--pool', 'many', '--inode', inode, ...args, '--progress', '0'], { timeoutMs: 300_000 });
        const us = await p99(reader(lab, context.seconds));
        const start = process.hrtime.bigint();
        const removed = await removal;
        if (removed.code !== 0) throw new Error(`rm-data: ${removed.stdout}${removed.stderr}`);
        compare(name, us, { 'still removing after the measurement': `${(Number(process.hrtime.bigint() - start) / 1e9).toFixed(1)} s` });
      }
      return figures;
    }),
  };
}
