// SPDX-License-Identifier: GPL-2.0-or-later
// Discards free what may be freed, as df and ls see it, while others write: whole objects of images without parents, with all OSDs up. All
// else reads as zeroes and stays allocated (safety rule 8).

import assert from 'node:assert/strict';
import { type Lab, until } from '../lab/index.js';
import { OBJECT_SIZES, twoPools } from './chains.js';
import { ImageModel, type Layer, noise, RealImages } from './image-model.js';
import { dice, type Story } from './scenario.js';

const MIB = 1024 ** 2;
const SIZE = 8 * MIB;

/** Bytes that ls shows as used by the image, once the statistics say so. */
async function untilUsed(lab: Lab, name: string, what: string, fits: (bytes: number) => boolean): Promise<void> {
  let seen = -1;
  await until(`${what}: space of ${name}`, async () => {
    const [row] = (await lab.cliJson(['ls', '-l', '--exact', name])) as { used_size?: number }[];
    seen = row?.used_size ?? 0;
    return fits(seen);
  }, { timeoutMs: 60_000, everyMs: 500, diagnose: () => `${seen} bytes` });
}

/** Raw bytes of the pool. */
async function poolUsed(lab: Lab, pool: string): Promise<number> {
  const rows = (await lab.cliJson(['df'])) as { name: string; used_raw: number }[];
  return rows.find((row) => row.name === pool)?.used_raw ?? assert.fail(`df does not show ${pool}`);
}

const story: Story = {
  name: 'discard-frees',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make();
    await twoPools(lab);
    const images = new RealImages(lab);
    const roll = dice(11);
    const model = new ImageModel(SIZE, OBJECT_SIZES);
    /** Discards [0, 3/4) in pieces of odd borders while the rest is being written; all pieces at once. */
    const discardBesideWrites = (layer: Layer): Promise<void> =>
      images.with(layer.name, false, async (image) => {
        const end = (SIZE / 4) * 3;
        const borders = [0, 4096, MIB + 4096, 2 * MIB, 3 * MIB - 8192, 4 * MIB, end];
        const discards = borders.slice(1).map((to, i) => image.discard(BigInt(borders[i] ?? 0), BigInt(to - (borders[i] ?? 0))));
        layer.bytes.fill(0, 0, end);
        const writes: Promise<void>[] = [];
        for (let at = end; at < SIZE; at += 64 * 1024) writes.push(image.write(BigInt(at), Buffer.from(noise(layer.bytes.subarray(at, at + 64 * 1024), roll))));
        await Promise.all([...discards, ...writes]);
        // Whole objects that several pieces made up are freed by another discard.
        await image.discard(0n, BigInt(end));
        await image.flush();
      });
    for (const [pool, copies] of [['testpool', 2], ['ecpool', 1.5]] as const) {
      say(pool);
      const layer = model.create(`${pool}-image`, pool, SIZE);
      await images.must('create', '-s', String(SIZE), '-p', pool, layer.name);
      await images.with(layer.name, false, (image) => image.write(0n, Buffer.from(noise(layer.bytes, roll))));
      await untilUsed(lab, layer.name, 'written', (bytes) => bytes === SIZE);
      await until('df shows it', async () => (await poolUsed(lab, pool)) >= SIZE * copies, { timeoutMs: 60_000, everyMs: 500 });
      const full = await poolUsed(lab, pool);
      await discardBesideWrites(layer);
      await untilUsed(lab, layer.name, 'discarded', (bytes) => bytes === SIZE / 4);
      await until('df shows that too', async () => (await poolUsed(lab, pool)) <= full - ((SIZE * copies) / 4) * 3, { timeoutMs: 60_000, everyMs: 500 });
      await images.compareAll(model, 'discarded');

      say('a clone: its parent must not show through, so nothing is deleted; after flatten it is');
      await images.must('snap-create', `${layer.name}@s`);
      const top = model.snapshot(layer, 's', pool);
      await images.with(top.name, false, async (image) => {
        await image.write(BigInt(SIZE - 2 * MIB), Buffer.from(noise(top.bytes.subarray(SIZE - 2 * MIB), roll)));
        await image.discard(BigInt(SIZE - 2 * MIB), BigInt(MIB));
        top.bytes.fill(0, SIZE - 2 * MIB, SIZE - MIB);
        await image.flush();
      });
      await untilUsed(lab, top.name, 'discarded above a parent', (bytes) => bytes === 2 * MIB);
      await images.compareAll(model, 'discarded above a parent');
      await images.must('rm', layer.name);
      model.remove([layer]);
      await images.with(top.name, false, (image) => image.discard(BigInt(SIZE - 2 * MIB), BigInt(MIB)));
      await untilUsed(lab, top.name, 'discarded without a parent', (bytes) => bytes === MIB);
      await images.compareAll(model, 'discarded without a parent');
    }

    say('an OSD away: a discard reads as zeroes, also when it is back; then it frees');
    await lab.osds.get(3)?.stop();
    await lab.waitActive();
    for (const layer of model.layers) {
      layer.bytes.fill(0, SIZE - MIB);
      await images.with(layer.name, false, (image) => image.discard(BigInt(SIZE - MIB), BigInt(MIB)));
    }
    await images.compareAll(model, 'discarded without OSD 3');
    await lab.startOsd(3);
    await lab.waitActive({ clean: true });
    await images.compareAll(model, 'OSD 3 is back');
    for (const layer of model.layers) {
      await images.with(layer.name, false, (image) => image.discard(0n, BigInt(SIZE)));
      layer.bytes.fill(0);
      await untilUsed(lab, layer.name, 'discarded as a whole', (bytes) => bytes === 0);
    }
    await images.compareAll(model, 'discarded as a whole');
  },
};

export const DISCARD_STORIES: readonly Story[] = [story];
