// SPDX-License-Identifier: GPL-2.0-or-later
// Images as people see them, as plain copies in memory, beside the same images in a cluster of real processes.

import assert from 'node:assert/strict';
import { Client, type Image } from '@vitastor/core';
import type { Lab } from '../lab/index.js';

export const GRANULE = 4096;

/** A layer that stands in the metadata: what it would show at every offset, were it large enough. */
export interface Layer {
  name: string;
  pool: string;
  sizeBytes: number;
  /** Up to the model's largest size: what is behind the end comes to light when the image grows. */
  bytes: Buffer;
  parent: Layer | null;
  readonly: boolean;
}

/** Objects of a pool's images are as large as this, in bytes. */
export type ObjectSizes = Readonly<Record<string, number>>;

export class ImageModel {
  readonly layers: Layer[] = [];
  readonly maxBytes: number;
  readonly #objectSizes: ObjectSizes;

  constructor(maxBytes: number, objectSizes: ObjectSizes) {
    this.maxBytes = maxBytes;
    this.#objectSizes = objectSizes;
  }

  find(name: string): Layer {
    return this.layers.find((layer) => layer.name === name) ?? assert.fail(`the model has no ${name}`);
  }
  childrenOf(layer: Layer): Layer[] {
    return this.layers.filter((other) => other.parent === layer);
  }
  /** Nearest first. */
  parentsOf(layer: Layer): Layer[] {
    const parents: Layer[] = [];
    for (let at = layer.parent; at; at = at.parent) parents.push(at);
    return parents;
  }
  create(name: string, pool: string, sizeBytes: number): Layer {
    const layer = { name, pool, sizeBytes, bytes: Buffer.alloc(this.maxBytes), parent: null, readonly: false };
    this.layers.push(layer);
    return layer;
  }
  clone(name: string, parent: Layer, pool: string, sizeBytes: number): Layer {
    const layer = { name, pool, sizeBytes, bytes: Buffer.from(parent.bytes), parent, readonly: false };
    this.layers.push(layer);
    return layer;
  }
  /** The layer keeps its place and becomes `name@snapshot`; returns the one above, which keeps the name. */
  snapshot(layer: Layer, snapshot: string, pool: string): Layer {
    const { name } = layer;
    layer.name = `${name}@${snapshot}`;
    layer.readonly = true;
    return this.clone(name, layer, pool, layer.sizeBytes);
  }
  write(layer: Layer, offset: number, bytes: Buffer): void {
    bytes.copy(layer.bytes, offset);
  }
  /** Whole objects behind a smaller end show the parent again; the one that is cut keeps zeroes. */
  resize(layer: Layer, sizeBytes: number): void {
    if (sizeBytes < layer.sizeBytes) {
      const object = this.#objectSizes[layer.pool] ?? assert.fail(`the model has no pool ${layer.pool}`);
      const whole = Math.min(Math.ceil(sizeBytes / object) * object, this.maxBytes);
      layer.bytes.fill(0, sizeBytes, whole);
      if (layer.parent) layer.parent.bytes.copy(layer.bytes, whole, whole);
      else layer.bytes.fill(0, whole);
    }
    layer.sizeBytes = sizeBytes;
  }
  /** Whoever stands on one of them stands on what is below them all, and shows what it showed. */
  remove(layers: readonly Layer[]): void {
    const below = (layer: Layer | null): Layer | null => (layer && layers.includes(layer) ? below(layer.parent) : layer);
    for (const layer of this.layers) if (!layers.includes(layer)) layer.parent = below(layer.parent);
    for (const layer of layers) this.layers.splice(this.layers.indexOf(layer), 1);
  }
}

/** The cluster's side: images through the C ABI in this process, commands as processes of their own. */
export class RealImages {
  readonly lab: Lab;

  constructor(lab: Lab) {
    this.lab = lab;
  }
  /** With a client of its own, which has read all that stood in etcd when it was made. */
  async with<T>(name: string, readOnly: boolean, work: (image: Image) => Promise<T>): Promise<T> {
    const client = new Client({ config: {}, configPath: this.lab.configPath, log: () => undefined });
    try {
      return await work(await client.open({ image: name, readOnly }));
    } finally {
      await client.close();
    }
  }
  read(name: string): Promise<Buffer> {
    return this.with(name, true, readWhole);
  }
  async compare(layer: Layer, what: string): Promise<void> {
    this.#same(layer, await this.read(layer.name), what);
  }
  #same(layer: Layer, now: Buffer, what: string): void {
    assert.equal(now.length, layer.sizeBytes, `${what}: size of ${layer.name}`);
    const wanted = layer.bytes.subarray(0, layer.sizeBytes);
    if (now.equals(wanted)) return;
    let [at, end] = [0, now.length];
    while (now[at] === wanted[at]) at++;
    while (now[end - 1] === wanted[end - 1]) end--;
    const show = (bytes: Buffer): string => bytes.subarray(at, at + 8).toString('hex');
    assert.fail(`${what}: ${layer.name} differs from offset ${at} to ${end}: reads ${show(now)}..., should be ${show(wanted)}...`);
  }
  /** All layers of the model, but for those. */
  async compareAll(model: ImageModel, what: string, without: readonly Layer[] = []): Promise<void> {
    const client = new Client({ config: {}, configPath: this.lab.configPath, log: () => undefined });
    try {
      for (const layer of [...model.layers]) {
        if (without.includes(layer)) continue;
        const image = await client.open({ image: layer.name, readOnly: true });
        this.#same(layer, await readWhole(image), what);
        await image.close();
      }
    } finally {
      await client.close();
    }
  }
  async must(...args: string[]): Promise<void> {
    const result = await this.lab.cli([...args, '--progress', '0']);
    assert.equal(result.code, 0, `${args.join(' ')}: ${result.stdout}${result.stderr}`);
  }
  /** Kills the command after a while, up to `lives` times, and lets it end at last. Returns how often it was killed. */
  async killed(args: readonly string[], roll: (below: number) => number, lives: number, check: (what: string) => Promise<void>): Promise<number> {
    for (let times = 0; ; times++) {
      const result = await this.lab.cli([...args, '--progress', '0'], times < lives ? { timeoutMs: 150 + roll(700) } : {});
      if (result.code === 124 && times < lives) {
        await check(`${args.join(' ')} killed ${times + 1} times`);
        continue;
      }
      // The last change had been made when it was killed the time before.
      const gone = result.code === 2 && times > 0 && args[0] === 'rm';
      assert.ok(result.code === 0 || gone, `${args.join(' ')}, killed ${times} times: ${result.code} ${result.stdout}${result.stderr}`);
      return times;
    }
  }
}

async function readWhole(image: Image): Promise<Buffer> {
  const whole = Buffer.alloc(Number(image.sizeBytes));
  const size = 4 << 20;
  for (let at = 0; at < whole.length; at += size) await image.read(BigInt(at), whole.subarray(at, Math.min(at + size, whole.length)));
  return whole;
}

/** Bytes that no two calls make alike. */
export function noise(bytes: Buffer, roll: (below: number) => number): Buffer {
  for (let at = 0; at + 4 <= bytes.length; at += 4) bytes.writeUInt32LE(roll(0x1_0000_0000), at);
  return bytes;
}

/** A range of whole granules of an image, up to `granules` long. */
export function drawRange(sizeBytes: number, granules: number, roll: (below: number) => number): { offset: number; length: number } {
  const all = Math.floor(sizeBytes / GRANULE);
  const length = 1 + roll(Math.min(granules, all));
  return { offset: roll(all - length + 1) * GRANULE, length: length * GRANULE };
}

/**
 * Changes the image at random, `count` times: writes, among them zeroes, and discards, up to `depth` at once where they do not touch. Each is
 * in the model before it is sent; nobody may compare the layer meanwhile.
 */
export async function scribble(image: Image, layer: Layer, roll: (below: number) => number, count: number, depth = 4): Promise<void> {
  for (let done = 0; done < count; ) {
    const batch: { offset: number; length: number }[] = [];
    while (batch.length < depth && done + batch.length < count) {
      const range = drawRange(layer.sizeBytes, roll(8) === 0 ? 64 : 8, roll);
      if (batch.some(({ offset, length }) => range.offset < offset + length && offset < range.offset + range.length)) break;
      batch.push(range);
    }
    await Promise.all(batch.map(({ offset, length }) => {
      const part = layer.bytes.subarray(offset, offset + length);
      const kind = roll(8);
      if (kind > 1) noise(part, roll);
      else part.fill(0);
      return kind === 0 ? image.discard(BigInt(offset), BigInt(length)) : image.write(BigInt(offset), Buffer.from(part));
    }));
    done += Math.max(batch.length, 1);
  }
}

/** Writes to the image and reads it back until `until` is settled; returns how many rounds it made. */
export function writeWhile(images: RealImages, layer: Layer, roll: (below: number) => number, until: Promise<unknown>): Promise<number> {
  let [ended, rounds] = [false, 0];
  const end = (): void => { ended = true; };
  until.then(end, end);
  return images.with(layer.name, false, async (image) => {
    while (!ended) {
      await scribble(image, layer, roll, 6);
      const { offset, length } = drawRange(layer.sizeBytes, 64, roll);
      const { data } = await image.read(BigInt(offset), length);
      assert.ok(data.equals(layer.bytes.subarray(offset, offset + length)), `${layer.name} at ${offset}, read while it is written to`);
      rounds++;
    }
    return rounds;
  });
}
