// SPDX-License-Identifier: GPL-2.0-or-later
// Chains of ten layers that are removed in every kind of order, bit by bit the same as plain copies after each step: within a pool of
// copies, within an erasure-coded one, across both; with branches; written to meanwhile; commands killed and repeated. And 64 layers deep.

import assert from 'node:assert/strict';
import type { Lab } from '../lab/index.js';
import { ImageModel, type Layer, noise, RealImages, scribble, writeWhile } from './image-model.js';
import { dice, type Story } from './scenario.js';

const KIB = 1024;
const DEPTH = 10;
const POOLS = ['testpool', 'ecpool'];
/** Blocks are 128 KiB; EC 2+1 has two of them in an object. */
export const OBJECT_SIZES = { testpool: 128 * KIB, ecpool: 256 * KIB };

export async function twoPools(lab: Lab): Promise<void> {
  await lab.startEtcd();
  await lab.startMonitor();
  for (const osd of [1, 2, 3]) await lab.startOsd(osd, { etcd_stats_interval: 1 });
  await lab.createPool('testpool', { size: 2, minSize: 1, pgCount: 8 });
  await lab.createPool('ecpool', { size: 3, minSize: 2, pgCount: 8, args: ['--scheme', 'ec', '--parity_chunks', '1', '-f'] });
}

type Roll = (below: number) => number;

function shuffled(roll: Roll): number[] {
  const order = Array.from({ length: DEPTH }, (_, i) => i);
  for (let i = order.length - 1; i > 0; i--) {
    const j = roll(i + 1);
    [order[i], order[j]] = [order[j] ?? 0, order[i] ?? 0];
  }
  return order;
}

/** Orders that a person would think of, lowest layer = 0. */
const ORDERS: readonly (readonly number[])[] = [
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
  [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
  [0, 9, 1, 8, 2, 7, 3, 6, 4, 5],
  [4, 5, 3, 6, 2, 7, 1, 8, 0, 9],
  [0, 2, 4, 6, 8, 1, 3, 5, 7, 9],
  [8, 6, 4, 2, 0, 9, 7, 5, 3, 1],
  [1, 0, 3, 2, 5, 4, 7, 6, 9, 8],
  [8, 7, 6, 5, 4, 3, 2, 1, 0, 9],
];

interface Shape {
  /** Pool of each layer, lowest first. */
  pools: readonly string[];
  /** Layers on which a clone stands. */
  branches: readonly number[];
  /** Made by commands; else by records put by hand. */
  byCommands: boolean;
}

function drawShape(number: number, roll: Roll): Shape {
  const kind = number % 3;
  const pools = Array.from({ length: DEPTH }, () => POOLS[kind === 2 ? roll(2) : kind] ?? '');
  const branches = roll(2) === 0 ? [] : [roll(DEPTH - 1), roll(DEPTH - 1)];
  return { pools, branches, byCommands: number % 4 === 1 };
}

class Chain {
  readonly model = new ImageModel(1536 * KIB, OBJECT_SIZES);
  /** Lowest first; removed ones stay in their places. */
  readonly layers: Layer[] = [];
  readonly #images: RealImages;
  readonly #roll: Roll;
  readonly #number: number;
  readonly #name: string;

  constructor(images: RealImages, number: number, roll: Roll) {
    this.#images = images;
    this.#number = number;
    this.#name = `chain${number}`;
    this.#roll = roll;
  }

  async build(shape: Shape): Promise<void> {
    const { lab } = this.#images;
    const sizeBytes = this.model.maxBytes - 3 * 4096;
    const [lowest = ''] = shape.pools;
    const name = this.#name;
    let top = this.model.create(name, lowest, sizeBytes);
    this.layers.push(top);
    if (shape.byCommands) await this.#images.must('create', '-s', String(sizeBytes), '-p', lowest, name);
    // By hand: numbers far from each other, since the commands of the other lane take the next ones, and no counter.
    const inodes = new Map<Layer, { pool: number; inode: number }>();
    const put = async (layer: Layer): Promise<void> => {
      const own = inodes.get(layer) ?? { pool: 1 + POOLS.indexOf(layer.pool), inode: (this.#number + 1) * 10_000 + inodes.size * 100 };
      inodes.set(layer, own);
      const parent = layer.parent ? inodes.get(layer.parent) : undefined;
      await lab.etcd.put(`${lab.prefix}/config/inode/${own.pool}/${own.inode}`, JSON.stringify({
        name: layer.name, size: layer.sizeBytes, ...(layer.readonly ? { readonly: true } : {}),
        ...(parent ? { parent_pool: parent.pool, parent_id: parent.inode } : {}),
      }));
    };
    if (!shape.byCommands) await put(top);
    await this.#write(top);
    for (const pool of shape.pools.slice(1)) {
      const below = top;
      top = this.model.snapshot(below, `s${this.layers.length}`, pool);
      this.layers.push(top);
      if (shape.byCommands) {
        await this.#images.must('snap-create', below.name, '-p', pool);
      } else {
        await put(below);
        await put(top);
      }
      await this.#write(top);
    }
    for (const [i, at] of shape.branches.entries()) {
      const parent = this.layers[at] ?? assert.fail();
      const clone = this.model.clone(`${name}-c${i}`, parent, POOLS[this.#roll(2)] ?? '', parent.sizeBytes);
      await this.#images.must('create', '--parent', parent.name, '-p', clone.pool, clone.name);
      await this.#write(clone);
    }
    await this.compare('as it was written');
  }

  #write(layer: Layer): Promise<void> {
    return this.#images.with(layer.name, false, async (image) => {
      // A piece that reaches over objects, and small ones.
      if (this.#roll(3) === 0) {
        const offset = this.#roll(64) * 4096;
        const part = noise(layer.bytes.subarray(offset, offset + 400 * KIB), this.#roll);
        await image.write(BigInt(offset), Buffer.from(part));
      }
      await scribble(image, layer, this.#roll, 12);
    });
  }

  compare(what: string, without: readonly Layer[] = []): Promise<void> {
    return this.#images.compareAll(this.model, `${this.#name}: ${what}`, without);
  }

  /** One command that takes `layers` away (or, none given, one that changes nothing that is seen), in one of the ways there are. */
  async run(args: readonly string[], layers: readonly Layer[]): Promise<{ killed: number; rounds: number }> {
    const roll = this.#roll;
    const top = this.layers.at(-1);
    const stays = top && this.model.layers.includes(top) && !layers.includes(top) ? top : null;
    this.model.remove(layers);
    let [killed, rounds] = [0, 0];
    const way = roll(4);
    const stopped = args.includes('--writers-stopped');
    if (way === 0 || (way === 1 && (stopped || !stays))) {
      killed = await this.#images.killed(args, roll, 2 + roll(3), (what) => this.compare(what));
    } else if (way === 1 && stays) {
      const command = this.#images.killed(args, roll, roll(2) * 2, () => Promise.resolve());
      [killed, rounds] = await Promise.all([command, writeWhile(this.#images, stays, roll, command)]);
    } else {
      await this.#images.must(...args);
    }
    await this.compare(args.join(' '));
    return { killed, rounds };
  }

  /** Removes everything in this order, now and then a range, or a detour over flatten and merge-data. */
  async removeAll(order: readonly number[], tally: Tally): Promise<void> {
    for (const number of order) {
      const layer = this.layers[number];
      if (!layer || !this.model.layers.includes(layer)) continue;
      const roll = this.#roll;
      const below = this.model.parentsOf(layer);
      if (roll(8) === 0) {
        // Whichever layer, written to or not, with others on it or not.
        const other = this.model.layers[roll(this.model.layers.length)] ?? layer;
        tally.add(await this.run(['flatten', other.name], []));
        other.parent = null;
        tally.flattened++;
      } else if (roll(8) === 0 && below.length > 0) {
        const from = below[roll(below.length)] ?? layer;
        tally.add(await this.run(['merge-data', from.name, layer.name, '--target', layer.name], []));
        tally.merged++;
      }
      const now = this.model.parentsOf(layer);
      const range = roll(6) === 0 && now.length > 0 ? now.slice(0, 1 + roll(Math.min(3, now.length))) : [];
      const names = [...(range.length > 0 ? [range.at(-1)?.name ?? ''] : []), layer.name];
      tally.add(await this.run(['rm', ...names, ...(roll(4) === 0 ? ['--writers-stopped'] : [])], [layer, ...range]));
      tally.removed++;
    }
    const left = this.model.layers.map((layer) => layer.name);
    if (left.length > 0) await this.#images.must('rm', '--exact', ...left);
  }
}

class Tally {
  removed = 0;
  flattened = 0;
  merged = 0;
  killed = 0;
  rounds = 0;
  add({ killed, rounds }: { killed: number; rounds: number }): void {
    this.killed += killed;
    this.rounds += rounds;
  }
  text(): string {
    return `${this.removed} removals of a layer or a range, ${this.flattened} flattened, ${this.merged} merged, ${this.killed} commands killed, ` +
      `${this.rounds} rounds of writes meanwhile`;
  }
}

/** Two lanes beside each other: what one chain does must not matter to another. */
async function lanes(count: number, chain: (number: number) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) await chain(next++);
  };
  await Promise.all([lane(), lane()]);
}

const chains: Story = {
  name: 'layer-chains',
  short: true,
  run: async ({ lab: make, long, minutes, say }) => {
    const lab = await make();
    await twoPools(lab);
    const images = new RealImages(lab);
    const tally = new Tally();
    // Long: about twenty of them a minute.
    const count = long ? minutes * 20 : 2;
    const first = Number(process.env['VITASTOR_CHAIN'] ?? (long ? 0 : 2));
    await lanes(count, async (i) => {
      const number = first + i;
      const roll = dice(1000 + number);
      const chain = new Chain(images, number, roll);
      const order = ORDERS[number] ?? shuffled(roll);
      const shape = drawShape(number, roll);
      try {
        await chain.build(shape);
        await chain.removeAll(order, tally);
      } catch (error) {
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
        throw new Error(`chain ${number} (VITASTOR_CHAIN=${number} draws it again), order ${order.join(' ')}, ${JSON.stringify(shape)}:\n${text}`);
      }
    });
    say(`${count} chains: ${tally.text()}`);
    assert.deepEqual(await lab.cliJson(['ls']), []);
  },
};

const deep: Story = {
  name: 'layer-depth',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    await twoPools(lab);
    const images = new RealImages(lab);
    const roll = dice(64);
    const chain = new Chain(images, 0, roll);
    await chain.build({ pools: Array.from({ length: 64 }, (_, i) => POOLS[Math.floor(i / 5) % 2] ?? ''), branches: [30, 50], byCommands: false });
    const layer = (number: number): Layer => chain.layers[number] ?? assert.fail();
    const command = images.must('rm', layer(7).name, layer(44).name);
    chain.model.remove(chain.layers.slice(7, 45));
    const rounds = await writeWhile(images, layer(63), roll, command);
    assert.ok(rounds > 0, 'the top layer was written to meanwhile');
    await chain.compare('38 layers removed');
    await images.must('flatten', layer(63).name);
    layer(63).parent = null;
    await chain.compare('flattened');
    await images.must('rm', '--exact', ...chain.model.layers.map(({ name }) => name));
    assert.deepEqual(await lab.cliJson(['ls']), []);
  },
};

export const CHAIN_STORIES: readonly Story[] = [chains, deep];
