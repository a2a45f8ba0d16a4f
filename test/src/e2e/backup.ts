// SPDX-License-Identifier: GPL-2.0-or-later
// Backups on real processes: a chain of snapshots, exported in full and by what has changed while the image is written to, over files and pipes,
// with commands killed and repeated, damaged streams, and OSDs that die; every restored snapshot is compared with a plain copy.

import assert from 'node:assert/strict';
import { copyFileSync, existsSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client } from '@vitastor/core';
import { type CommandResult, type Lab, until } from '../lab/index.js';
import { dice, type Story, type StoryContext } from './scenario.js';

const MIB = 1024 ** 2;
const GRANULE = 4096;

interface Listed {
  extents: { offset: number; length: number; type: string }[];
  data_bytes: number;
}

class Rig {
  readonly lab: Lab;
  readonly #client: Client;
  readonly copies = new Map<string, Buffer>();

  constructor(lab: Lab) {
    this.lab = lab;
    this.#client = new Client({ config: {}, configPath: lab.configPath, log: () => undefined });
  }
  path(name: string): string {
    return join(this.lab.dir, name);
  }
  async read(name: string): Promise<Buffer> {
    const image = await this.#client.open({ image: name, readOnly: true });
    try {
      const whole = Buffer.alloc(Number(image.sizeBytes));
      for (let at = 0; at < whole.length; at += 4 * MIB) await image.read(BigInt(at), whole.subarray(at, Math.min(at + 4 * MIB, whole.length)));
      return whole;
    } finally {
      await image.close();
    }
  }
  /** A snapshot, and a copy of it. */
  async snap(image: string, snap: string, ...more: string[]): Promise<void> {
    await this.must('snap-create', `${image}@${snap}`, ...more);
    this.copies.set(snap, await this.read(`${image}@${snap}`));
  }
  async same(name: string, snap: string): Promise<void> {
    const [now, copy] = [await this.read(name), this.copies.get(snap) ?? assert.fail()];
    assert.equal(now.length, copy.length, `size of ${name}`);
    if (now.equals(copy)) return;
    let at = 0;
    while (now[at] === copy[at]) at++;
    assert.fail(`${name} differs from ${snap} from offset ${at} on`);
  }
  async must(...args: string[]): Promise<CommandResult> {
    const result = await this.lab.cli(args);
    assert.equal(result.code, 0, `${args.join(' ')}: ${result.stdout}${result.stderr}`);
    return result;
  }
  async refused(code: number, text: RegExp, ...args: string[]): Promise<void> {
    const result = await this.lab.cli(args);
    assert.equal(result.code, code, `${args.join(' ')}: ${result.stdout}${result.stderr}`);
    assert.match(result.stderr, text);
  }
  /** A line of bash; `cli` is vitastor-cli. */
  async shell(line: string, timeoutMs?: number): Promise<CommandResult> {
    const words = this.lab.programs.cli.map((word) => `'${word}'`).join(' ');
    const script = `set -o pipefail; cli() { ${words} "$@" --config_path '${this.lab.configPath}'; }; ${line}`;
    return this.lab.command('shell', ['bash', '-c', script], timeoutMs === undefined ? {} : { timeoutMs });
  }
  /** An import that is given a part of a stream and no more, killed as soon as `begun` is true. */
  async killMidway(stream: string, image: string, part: number, begun: () => Promise<boolean>, ...more: string[]): Promise<void> {
    const words = [...this.lab.programs.cli, 'import', '-', image, ...more, '--config_path', this.lab.configPath].map((word) => `'${word}'`).join(' ');
    const child = this.lab.background('import', ['bash', '-c', `(head -c ${Math.floor(statSync(stream).size * part)} '${stream}'; exec sleep 600) | ${words}`]);
    try {
      await until(`the import into ${image} is under way`, begun, { timeoutMs: 60_000, everyMs: 50, diagnose: () => Promise.resolve(child.lastLines().join('\n')) });
    } finally {
      await child.kill9();
    }
  }
  async write(image: string, megabytes: number, seed: number, ...more: string[]): Promise<void> {
    const result = await this.lab.fio([
      '-name=write', `-image=${image}`, '-rw=randwrite', '-bsrange=4k-64k', '-ba=4k', '-direct=1', '-iodepth=8', `-io_size=${megabytes}M`, `-randseed=${seed}`,
      '-refill_buffers', '-norandommap', ...more,
    ]);
    assert.equal(result.code, 0, result.stdout + result.stderr);
  }
  close(): Promise<void> {
    return this.#client.close();
  }
}

/** Every granule that differs is listed, and what is listed was written to: it is never more than `writtenBytes`. */
function checkDiff(listed: Listed, before: Buffer, after: Buffer, writtenBytes: number): void {
  const covered = new Set<number>();
  let end = 0;
  for (const { offset, length, type } of listed.extents) {
    assert.ok(offset >= end && length > 0 && offset % GRANULE === 0 && length % GRANULE === 0, `extent ${offset} + ${length}`);
    end = offset + length;
    assert.ok(end <= after.length);
    assert.equal(type, 'data');
    for (let at = offset; at < end; at += GRANULE) covered.add(at);
  }
  assert.equal(covered.size * GRANULE, listed.data_bytes);
  assert.ok(listed.data_bytes <= writtenBytes, `${listed.data_bytes} bytes are listed, ${writtenBytes} were written`);
  for (let at = 0; at < after.length; at += GRANULE) {
    const same = before.subarray(at, at + GRANULE).equals(after.subarray(at, at + GRANULE));
    assert.ok(same || covered.has(at), `what has changed at ${at} is not listed`);
  }
}

/** Killed after a while, again and again, until it succeeds. Returns how often it was killed. */
async function killed(run: (timeoutMs?: number) => Promise<CommandResult>, roll: (below: number) => number, lives: number, check: () => Promise<void>): Promise<number> {
  for (let life = 0; ; life++) {
    // Most of it is the start of the program, which takes longer where more is going on.
    const result = await run(life < lives ? 150 + 100 * life + roll(700) : undefined);
    if (result.code === 0) return life;
    assert.equal(result.code, 124, `${result.code} ${result.stdout}${result.stderr}`);
    await check();
  }
}

/** The path of a stream. */
async function exported(rig: Rig, ...args: string[]): Promise<string> {
  const path = rig.path(`${args.join('').replace(/[@-]/g, '')}.vita`);
  await rig.must('export', ...args, path);
  return path;
}

async function tell({ lab: make, long, say }: StoryContext, immediateCommit: 'all' | 'none'): Promise<void> {
  const roll = dice(11);
  const size = long ? 128 : 24;
  const lives = long ? 12 : 2;
  const lab = await make({ immediateCommit });
  await lab.startEtcd();
  await lab.startMonitor();
  for (const osd of [1, 2, 3]) await lab.startOsd(osd);
  await lab.createPool('testpool', { size: 2, minSize: 1, pgCount: 8 });
  const created = await lab.cli(['create-pool', 'ecpool', '--ec', '2+1', '-n', '8', '--failure_domain', 'osd']);
  assert.equal(created.code, 0, created.stderr);
  await lab.waitActive();
  await lab.createImage('vm', `${size}M`, ['-p', 'testpool']);
  const rig = new Rig(lab);
  const full = rig.path('s1.vita');
  try {
    say(`${immediateCommit}: snapshots in two pools; diff against plain copies`);
    await rig.write('vm', size / 2, 1);
    await rig.snap('vm', 's1', '-p', 'ecpool');
    await rig.write('vm', size / 8, 2);
    await rig.must('dd', 'if=/dev/zero', 'oimg=vm', 'bs=4k', 'count=300', 'seek=1000', 'conv=nosparse');
    await rig.snap('vm', 's2', '-p', 'testpool');
    await rig.write('vm', size / 8, 3);
    await rig.snap('vm', 's3');
    const copy = (snap: string): Buffer => rig.copies.get(snap) ?? assert.fail();
    const diff = async (from: string, to: string): Promise<Listed> => (await lab.cliJson(['diff', 'vm', '--from', from, '--to', to])) as Listed;
    checkDiff(await diff('s1', 's2'), copy('s1'), copy('s2'), (size / 8) * MIB + 64 * 1024 + 300 * GRANULE);
    checkDiff(await diff('s2', 's3'), copy('s2'), copy('s3'), (size / 8) * MIB + 64 * 1024);
    checkDiff(await diff('s1', 's3'), copy('s1'), copy('s3'), (size / 4) * MIB + 128 * 1024 + 300 * GRANULE);
    await rig.refused(22, /vm@s3 is newer than vm@s1/, 'diff', 'vm', '--from', 's3', '--to', 's1');

    say('a full copy and an increment through a pipe, while 4 KB blocks are written at random above');
    const writing = rig.write('vm', size / 4, 4, '-bsrange=4k-4k', `-rate_iops=${long ? 2000 : 600}`);
    await rig.must('export', 'vm@s1', full);
    await rig.must('import', full, 'copy', '-p', 'ecpool');
    const piped = await rig.shell('cli export vm@s2 --from s1 | cli import copy');
    assert.equal(piped.code, 0, piped.stderr);
    await rig.must('export', 'vm@s3', '--format', 'raw', rig.path('during.raw'));
    await writing;
    for (const snap of ['s1', 's2']) await rig.same(`copy@${snap}`, snap);
    assert.ok(readFileSync(rig.path('during.raw')).equals(copy('s3')), 'raw export of s3');
    assert.match((await rig.must('import', '--dry-run', full)).stdout, /is whole: vm@s1/);

    say('commands that are killed, and repeated');
    const incr = rig.path('s3.vita');
    const exports = await killed((timeoutMs) => lab.cli(['export', 'vm@s3', '--from', 's2', incr], timeoutMs === undefined ? {} : { timeoutMs }), roll, lives, async () => {
      assert.ok(!existsSync(incr), 'an export that was killed has no file of its name');
    });
    const increments = await killed((timeoutMs) => lab.cli(['import', incr, 'copy'], timeoutMs === undefined ? {} : { timeoutMs }), roll, lives, async () => {
      await rig.same('copy@s2', 's2');
    });
    await rig.same('copy@s3', 's3');
    await rig.killMidway(full, 'half', 0.7, async () => {
      const there = (await lab.cliJson(['ls', 'half'])) as object[];
      return there.length > 0 && !(await rig.read('half')).equals(Buffer.alloc(size * MIB));
    }, '-p', 'testpool');
    await rig.refused(17, /half is incomplete, of another stream/, 'import', await exported(rig, 'vm@s2'), 'half');
    assert.match((await rig.must('import', full, 'half')).stdout, /half was incomplete: the import begins anew/);
    await rig.same('half@s1', 's1');
    const second = await exported(rig, 'vm@s2', '--from', 's1');
    await rig.killMidway(second, 'half', 0.8, async () => !(await rig.read('half')).equals(copy('s1')));
    await rig.same('half@s1', 's1');
    await rig.refused(22, /half holds a part of another increment/, 'import', await exported(rig, 'vm@s3', '--from', 's1'), 'half');
    assert.match((await rig.must('import', second, 'half')).stdout, /held a part of the increment: the import begins anew/);
    await rig.same('half@s2', 's2');
    const fulls = await killed((timeoutMs) => rig.shell('cli export vm@s3 | cli import again -p testpool', timeoutMs), roll, lives, async () => undefined);
    await rig.same('again@s3', 's3');
    say(`killed: ${exports} exports, ${increments} imports of an increment, ${fulls} of a full stream`);

    say('damage');
    const damaged = rig.path('damaged.vita');
    copyFileSync(full, damaged);
    truncateSync(damaged, statSync(full).size - 41);
    await rig.refused(22, /cut off.*; broken is incomplete, and marked so/, 'import', damaged, 'broken', '-p', 'testpool');
    const bytes = readFileSync(full);
    const place = bytes.length / 2 + roll(bytes.length / 4);
    bytes.writeUInt8((bytes[Math.floor(place)] ?? 0) ^ 16, Math.floor(place));
    writeFileSync(damaged, bytes);
    await rig.refused(22, /damaged.*; broken is incomplete, and marked so/, 'import', damaged, 'broken');
    await rig.must('import', full, 'broken');
    await rig.same('broken@s1', 's1');
    await rig.refused(22, /broken stands on broken@s1, and the stream goes on from vm@s2/, 'import', incr, 'broken');

    say('an OSD dies while a snapshot is exported; the copy is made with two of three');
    const raw = rig.path('s1.raw');
    const exporting = rig.must('export', 'vm@s1', '--format', 'raw', raw);
    lab.killOsd(3);
    await exporting;
    assert.ok(readFileSync(raw).equals(copy('s1')), 'raw copy of s1');
    await rig.must('export', 'vm@s3', '--from', 's1', '--format', 'raw', raw);
    assert.ok(readFileSync(raw).equals(copy('s3')), 'raw copy brought to s3');
    checkDiff(await diff('s1', 's3'), copy('s1'), copy('s3'), (size / 4) * MIB + 128 * 1024 + 300 * GRANULE);
    await rig.must('import', raw, 'fromraw', '--format', 'raw', '-p', 'ecpool');
    await rig.same('fromraw', 's3');

    say('dd between pools, files and pipes');
    await rig.must('dd', 'iimg=vm@s2', 'oimg=dd1', '-p', 'ecpool', 'iodepth=16', 'bs=512k');
    await rig.same('dd1', 's2');
    const through = await rig.shell(`cli dd iimg=dd1 bs=64k iodepth=32 | cli dd oimg=dd2 -p testpool size=${size}M bs=4k iodepth=32 && cli dd iimg=dd2 iodepth=8 > '${rig.path('dd.raw')}'`);
    assert.equal(through.code, 0, through.stderr);
    assert.ok(readFileSync(rig.path('dd.raw')).equals(copy('s2')), 'dd through pipes');
    // Both have the pipe as their standard input, and only cmp reads it.
    const shared = await rig.shell('cli dd iimg=dd1 status=none | cmp - <(cli dd iimg=dd2 status=none)');
    assert.equal(shared.code, 0, shared.stderr);
    await rig.must('dd', `if=${rig.path('dd.raw')}`, 'oimg=fromraw', 'iodepth=8');
    await rig.same('fromraw', 's2');
    await rig.must('dd', 'iimg=vm@s1', 'oimg=fromraw', 'bs=4k', 'skip=500', 'seek=700', 'count=123');
    copy('s1').copy(copy('s2'), 700 * GRANULE, 500 * GRANULE, 623 * GRANULE);
    await rig.same('fromraw', 's2');
  } finally {
    await rig.close();
  }
}

const backup: Story = {
  name: 'backup',
  short: true,
  run: async (context) => {
    for (const immediateCommit of context.long ? (['all', 'none'] as const) : (['all'] as const)) await tell(context, immediateCommit);
  },
};

export const BACKUP_STORIES: readonly Story[] = [backup];
