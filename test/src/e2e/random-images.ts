// SPDX-License-Identifier: GPL-2.0-or-later
// Random operations on images on real processes against a model in memory: create, snapshot, clone, write, discard, resize, rename, remove,
// flatten, merge, wrong commands between them. After each, every image reads as the model says, and etcd holds the layers that it knows.

import assert from 'node:assert/strict';
import { OBJECT_SIZES, twoPools } from './chains.js';
import { drawRange, GRANULE, ImageModel, type Layer, RealImages, scribble, writeWhile } from './image-model.js';
import { dice, type Story, type StoryContext } from './scenario.js';

const POOLS = Object.keys(OBJECT_SIZES);
const MAX_LAYERS = 14;

type Roll = (below: number) => number;

interface Operation {
  name: string;
  /** Of all the operations that can be done at the moment. */
  weight: number;
  /** false: it cannot be done now. */
  run(history: History): Promise<boolean>;
}

class History {
  readonly model = new ImageModel(1280 * 1024, OBJECT_SIZES);
  readonly images: RealImages;
  readonly roll: Roll;
  readonly prefix: string;
  readonly log: string[] = [];
  killed = 0;
  #names = 0;

  constructor(images: RealImages, prefix: string, roll: Roll) {
    this.images = images;
    this.prefix = prefix;
    this.roll = roll;
  }
  pick<T>(from: readonly T[]): T | undefined {
    return from[this.roll(Math.max(from.length, 1))];
  }
  newName(): string {
    return `${this.prefix}/${this.roll(3) === 0 ? 'ü ' : ''}${this.#names++}`;
  }
  pool(): string {
    return POOLS[this.roll(POOLS.length)] ?? '';
  }
  size(): number {
    return (1 + this.roll(this.model.maxBytes / GRANULE)) * GRANULE;
  }
  /** Must succeed; now and then it is killed before, and repeated. */
  async command(...args: string[]): Promise<void> {
    this.log.push(args.join(' '));
    await this.images.must(...args);
  }
  async longCommand(...args: string[]): Promise<void> {
    this.log.push(args.join(' '));
    const lives = this.roll(3) === 0 ? 1 + this.roll(3) : 0;
    this.killed += await this.images.killed(args, this.roll, lives, (what) => this.check(what));
  }
  /** Must end with this exit code and change nothing. */
  async refused(code: number, ...args: string[]): Promise<void> {
    this.log.push(`${args.join(' ')} (refused)`);
    const result = await this.images.lab.cli(args);
    assert.equal(result.code, code, `${args.join(' ')}: ${result.stdout}${result.stderr}`);
  }
  check(what: string): Promise<void> {
    return this.images.compareAll(this.model, what);
  }
  /** The metadata are those of the model. */
  async checkList(): Promise<void> {
    const list = (await this.images.lab.cliJson(['ls', `${this.prefix}/*`])) as { name: string; size: number; readonly?: boolean; parent_name?: string; pool_name: string }[];
    const real = list.map((image) => [image.name, image.size, image.readonly === true, image.parent_name ?? '', image.pool_name]);
    const wanted = this.model.layers.map((layer) => [layer.name, layer.sizeBytes, layer.readonly, layer.parent?.name ?? '']);
    // A layer that has moved down is in the pool of the one that it became.
    assert.deepEqual(real.map((row) => row.slice(0, 4)).sort(), wanted.sort());
    for (const [name, , , , pool] of real) this.model.find(String(name)).pool = String(pool);
  }
}

const isSnapshot = (layer: Layer): boolean => layer.name.includes('@');
const writable = (history: History): Layer[] => history.model.layers.filter((layer) => !layer.readonly && history.model.childrenOf(layer).length === 0);

const OPERATIONS: readonly Operation[] = [
  { name: 'create', weight: 3, run: async (history) => {
    if (history.model.layers.length >= MAX_LAYERS) return false;
    const [name, pool, size] = [history.newName(), history.pool(), history.size()];
    await history.command('create', '-s', String(size), '-p', pool, name);
    history.model.create(name, pool, size);
    return true;
  } },
  { name: 'write', weight: 12, run: async (history) => {
    const layer = history.pick(writable(history));
    if (!layer) return false;
    history.log.push(`write ${layer.name}`);
    await history.images.with(layer.name, false, (image) => scribble(image, layer, history.roll, 1 + history.roll(20)));
    return true;
  } },
  { name: 'discard', weight: 3, run: async (history) => {
    const layer = history.pick(writable(history));
    if (!layer) return false;
    const { offset, length } = drawRange(layer.sizeBytes, 320, history.roll);
    history.log.push(`discard ${layer.name} ${offset} ${length}`);
    layer.bytes.fill(0, offset, offset + length);
    await history.images.with(layer.name, false, (image) => image.discard(BigInt(offset), BigInt(length)));
    return true;
  } },
  { name: 'snapshot', weight: 8, run: async (history) => {
    const layer = history.pick(writable(history).filter((one) => !isSnapshot(one)));
    if (!layer || history.model.layers.length >= MAX_LAYERS) return false;
    const [snap, pool] = [`s${history.roll(1000)}`, history.roll(3) === 0 ? history.pool() : layer.pool];
    if (history.model.layers.some(({ name }) => name === `${layer.name}@${snap}`)) return false;
    await history.command('snap-create', `${layer.name}@${snap}`, '-p', pool);
    history.model.snapshot(layer, snap, pool);
    return true;
  } },
  { name: 'clone', weight: 6, run: async (history) => {
    const parent = history.pick(history.model.layers.filter((layer) => layer.readonly));
    if (!parent || history.model.layers.length >= MAX_LAYERS) return false;
    const [name, pool] = [history.newName(), history.pool()];
    const size = history.roll(3) === 0 ? history.size() : parent.sizeBytes;
    await history.command('create', '--parent', parent.name, '-s', String(size), '-p', pool, name);
    history.model.clone(name, parent, pool, size);
    return true;
  } },
  { name: 'resize', weight: 8, run: async (history) => {
    const layer = history.pick(writable(history));
    const size = history.size();
    if (!layer || size === layer.sizeBytes) return false;
    // A shrink that is killed has deleted something that the image still shows: only repeating it mends that.
    await history.command('modify', layer.name, '--resize', String(size));
    history.model.resize(layer, size);
    return true;
  } },
  { name: 'rename', weight: 3, run: async (history) => {
    const layer = history.pick(history.model.layers);
    if (!layer) return false;
    const name = isSnapshot(layer) ? `${layer.name}x` : history.newName();
    if (history.model.layers.some((other) => other.name === name)) return false;
    await history.command('modify', layer.name, '--rename', name);
    layer.name = name;
    return true;
  } },
  { name: 'readonly', weight: 2, run: async (history) => {
    const layer = history.pick(history.model.layers.filter((one) => history.model.childrenOf(one).length === 0));
    if (!layer) return false;
    await history.command('modify', layer.name, layer.readonly ? '--readwrite' : '--readonly');
    layer.readonly = !layer.readonly;
    return true;
  } },
  { name: 'rm', weight: 8, run: async (history) => {
    const layer = history.pick(history.model.layers);
    if (!layer || history.model.layers.length < 4) return false;
    const parents = history.model.parentsOf(layer);
    const range = history.roll(3) === 0 ? parents.slice(0, history.roll(4)) : [];
    const names = [...(range.length > 0 ? [range.at(-1)?.name ?? ''] : []), layer.name];
    history.model.remove([layer, ...range]);
    await history.longCommand('rm', ...names, ...(history.roll(2) === 0 ? ['--writers-stopped'] : []));
    return true;
  } },
  { name: 'flatten', weight: 3, run: async (history) => {
    const layer = history.pick(history.model.layers.filter((one) => one.parent));
    if (!layer) return false;
    if (layer.readonly || history.model.childrenOf(layer).length > 0 || history.roll(2) === 0) {
      await history.longCommand('flatten', layer.name);
    } else {
      history.log.push(`flatten ${layer.name} while it is written to`);
      const command = history.images.must('flatten', layer.name);
      await Promise.all([command, writeWhile(history.images, layer, history.roll, command)]);
    }
    layer.parent = null;
    return true;
  } },
  { name: 'merge', weight: 2, run: async (history) => {
    const layer = history.pick(history.model.layers.filter((one) => one.parent));
    const from = layer && history.pick(history.model.parentsOf(layer));
    if (!layer || !from) return false;
    await history.longCommand('merge-data', from.name, layer.name, '--target', layer.name);
    return true;
  } },
  { name: 'wrong', weight: 4, run: async (history) => {
    const [one, two] = [history.pick(history.model.layers), history.pick(history.model.layers)];
    if (!one || !two || one === two) return false;
    const wrong = history.roll(5);
    if (wrong === 0 && !isSnapshot(one)) await history.refused(17, 'create', '-s', '4k', '-p', one.pool, one.name);
    else if (wrong === 1) await history.refused(17, 'modify', one.name, '--rename', two.name);
    else if (wrong === 2 && history.model.childrenOf(one).length > 0) await history.refused(22, 'modify', one.name, '--resize', '4k');
    else if (wrong === 3 && !history.model.parentsOf(one).includes(two)) await history.refused(22, 'rm', two.name, one.name);
    else await history.refused(2, 'rm', `${one.name} not`);
    return true;
  } },
];

async function play(history: History, steps: number): Promise<void> {
  for (let step = 0; step < steps; step++) {
    const all = OPERATIONS.reduce((sum, { weight }) => sum + weight, 0);
    let at = history.roll(all);
    const operation = OPERATIONS.find(({ weight }) => (at -= weight) < 0) ?? assert.fail();
    if (!(await operation.run(history))) {
      step--;
      if (history.model.layers.length === 0) await OPERATIONS[0]?.run(history);
      continue;
    }
    await history.check(`step ${step}: ${history.log.at(-1)}`);
    if (step % 5 === 4) await history.checkList();
  }
  await history.checkList();
  if (history.model.layers.length > 0) await history.command('rm', '--exact', ...history.model.layers.map(({ name }) => name));
}

const story: Story = {
  name: 'images-random',
  short: true,
  run: async (context) => {
    const modes = context.long ? (['none', 'all', 'small'] as const) : (['all'] as const);
    for (const mode of modes) await histories(context, mode, context.minutes / modes.length);
  },
};

async function histories({ lab: make, long, say }: StoryContext, immediateCommit: 'all' | 'small' | 'none', minutes: number): Promise<void> {
  const lab = await make({ immediateCommit });
  await twoPools(lab);
  const images = new RealImages(lab);
  const endMs = performance.now() + minutes * 60_000;
  const first = Number(process.env['VITASTOR_HISTORY'] ?? 1);
  let [next, operations, killed] = [first, 0, 0];
  const lane = async (): Promise<void> => {
    do {
      const number = next++;
      const history = new History(images, `h${number}`, dice(5000 + number));
      try {
        await play(history, long ? 60 : 18);
      } catch (error) {
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
        throw new Error(`history ${number}, mode ${immediateCommit} (VITASTOR_HISTORY=${number} draws it again):\n${history.log.join('\n')}\n${text}`);
      }
      operations += history.log.length;
      killed += history.killed;
    } while (long && performance.now() < endMs);
  };
  await Promise.all([lane(), lane()]);
  say(`${immediateCommit}: ${next - first} histories, ${operations} operations, ${killed} commands killed`);
  assert.deepEqual(await lab.cliJson(['ls']), []);
}

export const RANDOM_IMAGE_STORIES: readonly Story[] = [story];
