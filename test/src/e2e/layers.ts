// SPDX-License-Identifier: GPL-2.0-or-later
// Layers of images on real processes: a base, snapshots with writes between, clones in the same and in an erasure-coded pool. Layers are
// removed in several orders, one is flattened, commands are killed and repeated; every image that stays is compared with a plain copy.

import assert from 'node:assert/strict';
import { Client } from '@vitastor/core';
import { type Lab, until } from '../lab/index.js';
import { dice, fioReadBack, fioVerify, type Story, type StoryContext } from './scenario.js';

const MIB = 1024 ** 2;

/** Images by name, as plain copies. */
type Copies = Map<string, Buffer>;

class Images {
  readonly #lab: Lab;
  readonly #client: Client;
  readonly copies: Copies = new Map();

  constructor(lab: Lab) {
    this.#lab = lab;
    this.#client = new Client({ config: {}, configPath: lab.configPath, log: () => undefined });
  }
  async read(name: string): Promise<Buffer> {
    const image = await this.#client.open({ image: name, readOnly: true });
    try {
      const whole = Buffer.alloc(Number(image.sizeBytes));
      const size = 4 * MIB;
      for (let at = 0; at < whole.length; at += size) await image.read(BigInt(at), whole.subarray(at, Math.min(at + size, whole.length)));
      return whole;
    } finally {
      await image.close();
    }
  }
  /** Random bytes at random places. */
  async write(name: string, megabytes: number, seed: number): Promise<void> {
    const result = await this.#lab.fio([
      '-name=write', `-image=${name}`, '-rw=randwrite', '-bsrange=4k-64k', '-ba=4k', '-direct=1', '-iodepth=8', `-io_size=${megabytes}M`, `-randseed=${seed}`,
      '-refill_buffers', '-norandommap',
    ]);
    assert.equal(result.code, 0, result.stdout + result.stderr);
  }
  async keep(name: string): Promise<void> {
    this.copies.set(name, await this.read(name));
  }
  /** All images that were kept. */
  async compare(what: string): Promise<void> {
    for (const [name, copy] of this.copies) {
      const now = await this.read(name);
      assert.equal(now.length, copy.length, `${what}: size of ${name}`);
      if (now.equals(copy)) continue;
      let at = 0;
      while (now[at] === copy[at]) at++;
      assert.fail(`${what}: ${name} differs from offset ${at} on`);
    }
  }
  async close(): Promise<void> {
    await this.#client.close();
  }
}

async function must(lab: Lab, ...args: string[]): Promise<void> {
  const result = await lab.cli(args);
  assert.equal(result.code, 0, `${args.join(' ')}: ${result.stdout}${result.stderr}`);
}

/** Kills the command after a while, again and again, and lets it run to its end at last. Returns how often it was killed. */
async function killed(lab: Lab, args: readonly string[], roll: (below: number) => number, check: (what: string) => Promise<void>, lives: number): Promise<number> {
  let times = 0;
  for (let life = 0; life < lives; life++) {
    const result = await lab.cli(args, { timeoutMs: 250 + roll(900) });
    if (result.code !== 124) {
      // The last change had been made when it was killed the time before.
      const gone = result.code === 2 && times > 0 && args[0] === 'rm';
      assert.ok(result.code === 0 || gone, `${args.join(' ')}: ${result.code} ${result.stdout}${result.stderr}`);
      return times;
    }
    times++;
    await check(`${args.join(' ')} killed ${times} times`);
  }
  const last = await lab.cli(args);
  assert.ok(last.code === 0 || (last.code === 2 && args[0] === 'rm'), `${args.join(' ')}: ${last.code} ${last.stdout}${last.stderr}`);
  return times;
}

/** base, three snapshots and the image above them, a clone of the second snapshot; all written to. */
async function build(lab: Lab, images: Images, [base, pool]: [string, string], [clone, clonePool]: [string, string], megabytes: number): Promise<void> {
  await lab.createImage(base, `${megabytes}M`, ['-p', pool]);
  for (let snap = 1; snap <= 3; snap++) {
    await images.write(base, megabytes / 4, snap);
    await must(lab, 'snap-create', `${base}@s${snap}`);
    await images.keep(`${base}@s${snap}`);
  }
  await images.write(base, megabytes / 8, 4);
  await images.keep(base);
  await must(lab, 'create', '--parent', `${base}@s2`, '-p', clonePool, clone);
  await images.write(clone, megabytes / 8, 5);
  await images.keep(clone);
}

async function tell({ lab: make, long, say }: StoryContext, immediateCommit: 'all' | 'small' | 'none'): Promise<void> {
  const roll = dice(7);
  const size = long ? 64 : 16;
  const lab = await make({ immediateCommit });
  await lab.startEtcd();
  await lab.startMonitor();
  for (const osd of [1, 2, 3]) await lab.startOsd(osd, { etcd_stats_interval: 1 });
  await lab.createPool('testpool', { size: 2, minSize: 1, pgCount: 8 });
  await must(lab, 'create-pool', 'ecpool', '--ec', '2+1', '-n', '8', '--failure_domain', 'osd');
  await lab.waitActive();
  const images = new Images(lab);
  const check = (what: string): Promise<void> => images.compare(what);
  try {
    say(`${immediateCommit}: a chain in one pool, a clone in another`);
    await build(lab, images, ['vm', 'testpool'], ['clone', 'ecpool'], size);
    await images.compare('after writing');

    say('a layer in the middle, with two children, killed and repeated');
    images.copies.delete('vm@s2');
    const times = await killed(lab, ['rm', 'vm@s2'], roll, check, long ? 8 : 3);
    await images.compare(`rm vm@s2, killed ${times} times`);

    say('the lowest one; the clone is written to and verified meanwhile');
    images.copies.delete('vm@s1');
    const untouched = images.copies.get('clone');
    images.copies.delete('clone');
    const verify = lab.fio([
      '-name=verify', '-image=clone', '-rw=randwrite', '-bs=4k', `-size=${size / 4}M`, '-iodepth=8', '-direct=1', '-verify=crc32c', '-verify_fatal=1',
      '-do_verify=1', `-rate_iops=${long ? 4000 : 800}`,
    ]);
    await must(lab, 'rm', 'vm@s1');
    const written = await verify;
    assert.equal(written.code, 0, written.stdout.slice(-3000) + written.stderr);
    await images.compare('rm vm@s1');
    await fioReadBack(lab, { megabytes: size / 4, args: ['-image=clone'], what: 'the clone after rm vm@s1' });
    const clone = await images.read('clone');
    const rest = (size / 4) * MIB;
    assert.ok(untouched?.subarray(rest).equals(clone.subarray(rest)), 'what nobody wrote to in the clone');
    await images.keep('clone');
    const parents = (await lab.cliJson(['ls'])) as { name: string; parent_name?: string }[];
    assert.deepEqual(parents.map((image) => [image.name, image.parent_name]).sort(), [['clone', undefined], ['vm', 'vm@s3'], ['vm@s3', undefined]]);

    say('the image takes the place of its snapshot, which is larger');
    await until('the monitor has counted both', async () => {
      const list = (await lab.cliJson(['ls', '-l'])) as { name: string; used_size?: number }[];
      const used = (name: string): number => list.find((image) => image.name === name)?.used_size ?? 0;
      return used('vm@s3') > used('vm') && used('vm') > 0;
    }, { timeoutMs: 30_000, diagnose: () => lab.diagnose() });
    images.copies.delete('vm@s3');
    const inverse = (await lab.cliJson(['rm', 'vm@s3', '--writers-stopped'])) as { renamed_from: string; renamed_to: string };
    assert.deepEqual([inverse.renamed_from, inverse.renamed_to], ['vm@s3', 'vm']);
    await images.compare('rm vm@s3 --writers-stopped');

    say('the other way round, erasure-coded below: flatten, killed and repeated; merge-data; a selection');
    await build(lab, images, ['two', 'ecpool'], ['two-clone', 'testpool'], size);
    await killed(lab, ['flatten', 'two-clone'], roll, check, long ? 8 : 2);
    await images.compare('flatten');
    await must(lab, 'merge-data', 'two@s1', 'two@s3', '--target', 'two@s3');
    await images.compare('merge-data');
    for (const snap of [1, 2]) images.copies.delete(`two@s${snap}`);
    await must(lab, 'merge-data', 'two@s1', 'two@s3', '--target', 'two@s3', '--check-delete-source', '1');
    await images.compare('merge-data --check-delete-source');
    images.copies.delete('two@s3');
    await must(lab, 'rm', '--matching', 'two@*');
    await images.compare('rm --matching two@*');

    say('shrink and grow: nothing below the new end changes, what was behind it is zeroes');
    const end = (size / 2) * MIB + 3 * 4096;
    await must(lab, 'modify', 'two', '--resize', String(end));
    const copy = images.copies.get('two') ?? assert.fail();
    assert.ok((await images.read('two')).equals(copy.subarray(0, end)), 'two after the shrink');
    await must(lab, 'modify', 'two', '--resize', `${size}M`);
    images.copies.set('two', Buffer.concat([copy.subarray(0, end), Buffer.alloc(copy.length - end)]));
    await images.compare('shrink and grow');

    say('everything goes, nothing is left on the OSDs');
    await must(lab, 'rm', '--exact', ...images.copies.keys());
    assert.deepEqual(await lab.cliJson(['ls']), []);
    await until('the space is free again', async () => {
      const space = [...(await lab.etcd.prefix(`${lab.prefix}/osd/space/`)).values()].map((text) => JSON.parse(text) as Record<string, Record<string, number>>);
      return space.every((pools) => Object.values(pools).every((inodes) => Object.values(inodes).every((bytes) => bytes === 0)));
    }, { timeoutMs: 30_000, diagnose: () => lab.diagnose() });
  } finally {
    await images.close();
  }
}

const layers: Story = {
  name: 'layers',
  short: true,
  run: async (context) => {
    for (const immediateCommit of context.long ? (['all', 'small', 'none'] as const) : (['all'] as const)) await tell(context, immediateCommit);
  },
};

/** Commands I1 to I4 and I6: records that people put by hand, and that the tools then take over. */
const byHand: Story = {
  name: 'layers-by-hand',
  short: true,
  run: async ({ lab: make, long, say }) => {
    const lab = await make();
    await lab.startEtcd();
    await lab.startMonitor();
    for (const osd of [1, 2, 3]) await lab.startOsd(osd);
    await lab.createPool('testpool', { size: 2, minSize: 1, pgCount: 8 });
    const sizeBytes = 16 * MIB;
    const put = (inode: number, value: object): Promise<void> =>
      lab.etcd.put(`${lab.prefix}/config/inode/1/${inode}`, JSON.stringify({ size: sizeBytes, ...value }));
    await put(1, { name: 'testimg' });
    const images = new Images(lab);
    try {
      await images.write('testimg', 8, 1);

      say('a snapshot by two puts while fio writes and verifies');
      const seconds = long ? 20 : 5;
      const writing = fioVerify(lab, { depth: 16, seconds, megabytes: 8 });
      await until('fio has begun', async () => {
        const now = await images.read('testimg');
        await images.keep('testimg');
        return !now.equals(await images.read('testimg'));
      }, { timeoutMs: 30_000 });
      await put(1, { name: 'testimg@0', readonly: true });
      await put(2, { name: 'testimg', parent_id: 1 });
      images.copies.clear();
      await until('fio has noticed', async () => {
        await images.keep('testimg@0');
        return (await images.read('testimg')).equals(await images.read('testimg@0')) === false;
      }, { timeoutMs: 30_000, diagnose: () => lab.diagnose() });
      await images.keep('testimg@0');
      await writing;
      await images.compare('fio wrote to the image above');
      await fioReadBack(lab, { megabytes: 8, what: 'behind the snapshot' });
      const refused = await lab.fio(['-name=w', '-image=testimg@0', '-rw=write', '-bs=4k', '-size=4k']);
      assert.notEqual(refused.code, 0, 'a read-only image was written to');

      say('a clone by a put; the tools take all of it over');
      await put(3, { name: 'clone', parent_id: 1 });
      await images.write('clone', 2, 2);
      await images.keep('clone');
      await images.keep('testimg');
      await must(lab, 'rm', 'testimg@0');
      images.copies.delete('testimg@0');
      await images.compare('rm of a snapshot put by hand');
      await must(lab, 'snap-create', 'testimg@1');
      await images.write('testimg', 2, 3);
      await images.keep('testimg');
      await must(lab, 'flatten', 'testimg');
      await must(lab, 'snap-rm', 'testimg@1');
      await images.compare('snap-rm');
      await must(lab, 'rm', '--exact', 'testimg', 'clone');
      assert.deepEqual(await lab.cliJson(['ls']), []);
    } finally {
      await images.close();
    }
  },
};

export const LAYER_STORIES: readonly Story[] = [layers, byHand];
