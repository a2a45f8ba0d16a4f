// SPDX-License-Identifier: GPL-2.0-or-later
// Removing and flattening layers: records in etcd in memory, data in a model that does what the native merge promises.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ClusterState, PATHS_ALL } from '../src/cluster-state.js';
import type { ClusterView } from '../src/cluster-view.js';
import { isVitastorError, VitastorError, type ErrorCode } from '../src/errors.js';
import { createImage, createSnapshot, parentChain, type AdminContext } from '../src/images.js';
import { flattenLayer, layerChain, nothingRemoved, removeLayers, type LayerWork, type RemovedLayers } from '../src/layers.js';
import { inodeKeyOf, type InodeConfig } from '../src/schema/inode.js';
import { fullInode, KeySpace } from '../src/schema/keys.js';
import { MemoryEtcd, type MemoryEtcdClient } from '../src/seams/memory-etcd.js';
import { SystemClock } from '../src/seams/system.js';

const keys = new KeySpace();
const code = (expected: ErrorCode, text?: RegExp) => (error: unknown): boolean =>
  isVitastorError(error, expected) && (text === undefined || (assert.match(error.message, text), true));

type Granules = Map<number, number>;
const POOL = { scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 4 };

/** A cluster of records and granules, and the hands that work on it. `dies`: called before each step; throws to interrupt. */
class Rig implements LayerWork {
  readonly server = new MemoryEtcd(new SystemClock());
  readonly etcd: MemoryEtcdClient;
  readonly data = new Map<bigint, Granules>();
  readonly log: string[] = [];
  dies: (what: string) => void = () => undefined;

  constructor(records: Record<string, unknown> = {}) {
    this.etcd = this.server.client();
    this.put('config/pools', { 1: { name: 'p', ...POOL }, 2: { name: 'q', ...POOL } });
    for (const [key, value] of Object.entries(records)) this.put(key, value);
  }
  put(key: string, value: unknown): void {
    this.server.put(keys.at(key), JSON.stringify(value));
  }
  stored(prefix: string): Record<string, unknown> {
    const pairs = this.server.pairs().filter((kv) => kv.key.startsWith(keys.at(prefix)));
    return Object.fromEntries(pairs.map((kv) => [kv.key.slice('/vitastor/'.length), JSON.parse(kv.value) as unknown]));
  }
  async view(): Promise<ClusterView> {
    const state = new ClusterState({ etcd: this.etcd, clock: new SystemClock(), keys, paths: PATHS_ALL });
    await state.load({ attempts: 1, timeoutMs: 1000 });
    return state.view;
  }
  async context(): Promise<AdminContext> {
    return { etcd: this.etcd, view: await this.view(), limits: { timeoutMs: 200, attempts: 3 } };
  }
  granules(layer: InodeConfig): Granules {
    const id = inodeKeyOf(layer);
    const known = this.data.get(id) ?? new Map<number, number>();
    this.data.set(id, known);
    return known;
  }
  /** What the image reads. */
  read(view: ClusterView, image: InodeConfig): Granules {
    const result: Granules = new Map();
    for (const layer of [...parentChain(view, image).reverse(), image])
      for (const [at, value] of this.granules(layer)) result.set(at, value);
    return result;
  }

  async load(): Promise<AdminContext> {
    this.dies('load');
    const context = await this.context();
    const { etcd } = context;
    const txn: typeof etcd.txn = async (request, timeoutMs) => {
      const changes = request.success.some((op) => op.op !== 'range');
      if (changes) this.dies('txn');
      const result = await etcd.txn(request, timeoutMs);
      if (changes) this.dies('txn done');
      return result;
    };
    return { ...context, etcd: new Proxy(etcd, { get: (from, name) => (name === 'txn' ? txn : Reflect.get(from, name) as unknown) }) };
  }
  check(): void {}
  async merge(_view: ClusterView, layers: readonly InodeConfig[], target: InodeConfig): Promise<void> {
    this.log.push(`merge ${layers.map((layer) => layer.name).join(' ')} into ${target.name}`);
    const result: Granules = new Map();
    for (const layer of layers) for (const [at, value] of this.granules(layer)) result.set(at, value);
    for (const [at, value] of result) {
      this.dies('merge');
      this.granules(target).set(at, value);
    }
  }
  async purge(_view: ClusterView, layer: InodeConfig): Promise<void> {
    this.log.push(`purge ${layer.name}`);
    for (const at of [...this.granules(layer).keys()]) {
      this.dies('purge');
      this.granules(layer).delete(at);
    }
  }
  step(): void {}
  stop(): void {
    this.etcd.close();
    this.server.stop();
  }

  async remove(from: string, to = from, writersStopped = false): Promise<RemovedLayers> {
    const done = nothingRemoved();
    await removeLayers(this, from, to, { writersStopped }, done);
    return done;
  }
}

async function withRig(records: Record<string, unknown>, run: (rig: Rig) => Promise<void>): Promise<void> {
  const rig = new Rig(records);
  try {
    await run(rig);
  } finally {
    rig.stop();
  }
}

/** base ← s1 ← s2 ← top, and a clone of s1 in pool 2. */
const CHAIN = {
  'config/inode/1/1': { name: 'vm@base', size: 1048576, readonly: true },
  'config/inode/1/2': { name: 'vm@s1', size: 1048576, parent_id: 1, readonly: true },
  'config/inode/1/3': { name: 'vm@s2', size: 1048576, parent_id: 2, readonly: true },
  'config/inode/1/4': { name: 'vm', size: 2097152, parent_id: 3, meta: { a: 1 }, extra: 'kept' },
  'config/inode/2/1': { name: 'clone', size: 1048576, parent_id: 2, parent_pool: 1 },
  'index/image/vm': { id: 4, pool_id: 1 },
  'index/image/vm@s1': { id: 2, pool_id: 1 },
  'index/maxid/1': 4,
};

describe('removing layers', () => {
  test('a layer with two children: both get its data and stand on its parent', () => withRig(CHAIN, async (rig) => {
    const done = await rig.remove('vm@s1');
    assert.deepEqual(rig.log, ['merge vm@s1 vm@s2 into vm@s2', 'merge vm@s1 clone into clone', 'purge vm@s1']);
    assert.deepEqual(done, { deletedIds: [fullInode(1, 2n)], deletedImages: ['vm@s1'], rebasedImages: ['vm@s2', 'clone'], renamedFrom: '', renamedTo: '' });
    assert.deepEqual(rig.stored('config/inode/'), {
      'config/inode/1/1': CHAIN['config/inode/1/1'],
      'config/inode/1/3': { name: 'vm@s2', size: 1048576, parent_id: 1, readonly: true },
      'config/inode/1/4': CHAIN['config/inode/1/4'],
      'config/inode/2/1': { name: 'clone', size: 1048576, parent_id: 1, parent_pool: 1 },
    });
    assert.deepEqual(Object.keys(rig.stored('index/image/')), ['index/image/vm']);
  }));

  test('a range: children of any of its layers; what remains has no parent', () => withRig(CHAIN, async (rig) => {
    const done = await rig.remove('vm@base', 'vm@s2');
    assert.deepEqual(rig.log, [
      'merge vm@base vm@s1 vm@s2 vm into vm', 'merge vm@base vm@s1 clone into clone', 'purge vm@s2', 'purge vm@s1', 'purge vm@base',
    ]);
    assert.deepEqual(done.deletedImages, ['vm@s2', 'vm@s1', 'vm@base']);
    assert.deepEqual(rig.stored('config/inode/'), {
      'config/inode/1/4': { name: 'vm', size: 2097152, meta: { a: 1 }, extra: 'kept' }, 'config/inode/2/1': { name: 'clone', size: 1048576 },
    });
  }));

  test('the whole chain, and single layers without children', () => withRig(CHAIN, async (rig) => {
    await rig.remove('clone');
    await rig.remove('vm@base', 'vm');
    assert.deepEqual(rig.log, ['purge clone', 'purge vm', 'purge vm@s2', 'purge vm@s1', 'purge vm@base']);
    assert.deepEqual([rig.stored('config/inode/'), rig.stored('index/image/')], [{}, {}]);
  }));

  const STATS = (used: Record<string, number>) => Object.fromEntries(Object.entries(used).map(([id, raw]) => [`inode/stats/${id}`, { raw_used: String(raw) }]));

  test('inverse: the larger layer below takes the data and the name of a child that nobody writes to', () => withRig(
    { ...CHAIN, ...STATS({ '1/1': 500, '1/2': 9000, '1/3': 100, '1/4': 200, '2/1': 50 }) }, async (rig) => {
      const done = await rig.remove('vm@s1');
      // vm@s2 is read-only and smaller than vm@s1; the clone lies in another pool.
      assert.deepEqual(rig.log, ['merge vm@s1 clone into clone', 'merge vm@s1 vm@s2 into vm@s1', 'purge vm@s1']);
      assert.deepEqual(done, { deletedIds: [fullInode(1, 3n)], deletedImages: ['vm@s1'], rebasedImages: ['clone'], renamedFrom: 'vm@s1', renamedTo: 'vm@s2' });
      assert.deepEqual(rig.stored('config/inode/'), {
        'config/inode/1/1': CHAIN['config/inode/1/1'],
        'config/inode/1/2': { name: 'vm@s2', size: 1048576, parent_id: 1, readonly: true },
        'config/inode/1/4': { ...CHAIN['config/inode/1/4'], parent_id: 2 },
        'config/inode/2/1': { name: 'clone', size: 1048576, parent_id: 1, parent_pool: 1 },
      });
      assert.deepEqual(rig.stored('index/image/'), { 'index/image/vm': { id: 4, pool_id: 1 }, 'index/image/vm@s2': { id: 2, pool_id: 1 } });
    }));

  test('inverse into the middle of a range, for a writable child only if its writers are stopped', () => withRig(
    { ...CHAIN, ...STATS({ '1/1': 500, '1/2': 9000, '1/3': 100, '1/4': 600 }) }, async (rig) => {
      await rig.remove('clone');
      rig.log.length = 0;
      const done = await rig.remove('vm@base', 'vm@s2', true);
      assert.deepEqual(rig.log, ['merge vm@base vm@s1 vm@s2 vm into vm@s1', 'purge vm@s2', 'purge vm@s1', 'purge vm@base']);
      assert.deepEqual(done, { deletedIds: [3n, 4n, 1n].map((n) => fullInode(1, n)), deletedImages: ['vm@s2', 'vm@s1', 'vm@base'], rebasedImages: [], renamedFrom: 'vm@s1', renamedTo: 'vm' });
      assert.deepEqual(rig.stored('config/inode/'), { 'config/inode/1/2': { name: 'vm', size: 2097152, meta: { a: 1 }, extra: 'kept' } });
      assert.deepEqual(rig.stored('index/image/'), { 'index/image/vm': { id: 2, pool_id: 1 } });
    }));

  test('refused: unknown names, no descendant, loops; others changed something', () => withRig(CHAIN, async (rig) => {
    await assert.rejects(rig.remove('none'), code('ERR_NOT_FOUND', /Layer none not found/));
    await assert.rejects(rig.remove('vm', 'vm@s1'), code('ERR_INVALID_ARGUMENT', /vm@s1 is not a descendant of vm/));
    const changes: [when: string, key: string, value: unknown][] = [
      ['merge', 'config/inode/1/3', { ...CHAIN['config/inode/1/3'], size: 4096 }],
      ['merge', 'config/inode/1/2', { ...CHAIN['config/inode/1/2'], parent_id: 0 }],
      // A clone that appears after the children have been looked for.
      ['txn', 'config/inode/1/9', { name: 'late', size: 4096, parent_id: 2 }],
    ];
    for (const [when, key, value] of changes) {
      const layers = rig.stored('config/inode/');
      rig.data.set(fullInode(1, 2n), new Map([[0, 1]]));
      let steps = 0;
      rig.dies = (what) => {
        if (what === when && steps++ === (when === 'txn' ? 2 : 0)) rig.put(key, value);
      };
      await assert.rejects(rig.remove('vm@s1'), code('ERR_CONFLICT'));
      assert.ok(!rig.log.includes('purge vm@s1'));
      rig.dies = () => undefined;
      for (const [id, record] of Object.entries(layers)) rig.put(id, record);
      rig.server.delete(keys.at('config/inode/1/9'));
    }
    rig.put('config/inode/1/1', { ...CHAIN['config/inode/1/1'], parent_id: 4 });
    await assert.rejects(rig.remove('vm@s1'), code('ERR_PARENT_LOOP'));
    await assert.rejects(flattenLayer(rig, 'vm'), code('ERR_PARENT_LOOP'));
    rig.put('config/inode/1/1', { ...CHAIN['config/inode/1/1'], parent_id: 77 });
    await assert.rejects(flattenLayer(rig, 'vm'), code('ERR_NOT_FOUND', /inode 77/));
    assert.throws(() => layerChain(({ imageByName: () => null }) as unknown as ClusterView, 'a', 'b'), code('ERR_NOT_FOUND'));
  }));

  test('what is being removed gets no clones and no data', () => withRig(CHAIN, async (rig) => {
    const image = { pool: 1, name: 'new', sizeBytes: 4096n, parent: { pool: 1, inode: 2n }, meta: null };
    const early = await rig.context();
    rig.put('config/inode/1/2', { ...CHAIN['config/inode/1/2'], deleted: true });
    await assert.rejects(createImage(early, image), code('ERR_CONFLICT', /vm@s1/));
    await assert.rejects(createImage(await rig.context(), image), code('ERR_BUSY', /is being removed/));
    await assert.rejects(rig.remove('vm@base'), code('ERR_BUSY', /vm@s1 is being removed: finish that first/));
    await assert.rejects(flattenLayer(rig, 'vm@s1'), code('ERR_BUSY'));
    assert.deepEqual(rig.log, []);
    await rig.remove('vm@base', 'vm@s1');
    rig.put('config/inode/1/2', CHAIN['config/inode/1/2']);
    await assert.rejects(createImage(await rig.context(), image), code('ERR_NOT_FOUND', /Parent of vm@s1 .* is missing.*correct parent_id in/));
    rig.put('config/inode/1/1', CHAIN['config/inode/1/1']);
    await createImage(await rig.context(), image);
  }));

  test('snapshots and clones of what nobody can read: a loop, no parent, being removed', () => withRig(CHAIN, async (rig) => {
    const attempt = async (id: number, name: string) => {
      const context = await rig.context();
      const image = context.view.imageByName(name) ?? assert.fail(name);
      await assert.rejects(createImage(context, { pool: 1, name: 'new', sizeBytes: 4096n, parent: { pool: 1, inode: BigInt(id) }, meta: null }), /form a loop|is missing/);
      await assert.rejects(createSnapshot(context, image, 's', 1, null), /form a loop.*correct parent_id in|is missing.*correct parent_id in/);
    };
    rig.put('config/inode/1/50', { name: 'self', size: 4096, parent_id: 50 });
    rig.put('config/inode/1/51', { name: 'over', size: 4096, parent_id: 52, parent_pool: 2 });
    rig.put('config/inode/2/52', { name: 'under', size: 4096, parent_id: 51, parent_pool: 1 });
    rig.put('config/inode/1/53', { name: 'orphan', size: 4096, parent_id: 99 });
    await attempt(50, 'self');
    await attempt(51, 'over');
    await attempt(53, 'orphan');
    rig.put('config/inode/1/54', { name: 'going', size: 4096, deleted: true });
    const context = await rig.context();
    const going = context.view.imageByName('going') ?? assert.fail();
    await assert.rejects(createSnapshot(context, going, 's', 1, null), code('ERR_BUSY', /going is being removed/));
  }));

  test('flatten', () => withRig(CHAIN, async (rig) => {
    assert.equal((await flattenLayer(rig, 'clone')).changed, true);
    assert.deepEqual(rig.log, ['merge vm@base vm@s1 clone into clone']);
    assert.deepEqual(rig.stored('config/inode/2/'), { 'config/inode/2/1': { name: 'clone', size: 1048576 } });
    assert.equal((await flattenLayer(rig, 'clone')).changed, false);
    await assert.rejects(flattenLayer(rig, 'none'), code('ERR_NOT_FOUND'));
  }));
});

/** Small and fast, from a seed. */
function randomOf(seed: number): (limit: number) => number {
  let state = BigInt(seed) * 0x9e3779b97f4a7c15n + 1n;
  return (limit) => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffff_ffff_ffff_ffffn;
    return Number((state >> 33n) % BigInt(limit));
  };
}

describe('random trees', () => {
  for (let seed = 1; seed <= 40; seed++) {
    test(`seed ${seed}: interrupted anywhere, all remaining images read as before`, () => withRig({}, async (rig) => {
      const random = randomOf(seed);
      let nextValue = 1;
      const write = (layer: InodeConfig): void => {
        for (let i = random(6); i > 0; i--) rig.granules(layer).set(random(12), nextValue++);
      };
      write(await createImage(await rig.context(), { pool: 1, name: 'a', sizeBytes: 65536n, parent: null, meta: null }));
      for (let i = 0; i < 12; i++) {
        const context = await rig.context();
        const all = [...context.view.inodes.values()];
        const image = all[random(all.length)];
        if (!image) continue;
        if (image.readonly || random(3) === 0) {
          const parent = { pool: image.pool, inode: image.inode };
          // A clone of what is written to would change with it.
          if (image.readonly) write(await createImage(context, { pool: 1 + random(2), name: `c${i}`, sizeBytes: 65536n, parent, meta: null }));
        } else {
          write(await createSnapshot(context, image, `s${i}`, random(4) ? image.pool : 2, null));
        }
      }
      for (let round = 0; round < 8; round++) {
        const view = await rig.view();
        const all = [...view.inodes.values()];
        const to = all[random(Math.max(all.length, 1))];
        if (!to) break;
        for (const layer of all) rig.put(`inode/stats/${layer.pool}/${layer.inode}`, { raw_used: String(rig.granules(layer).size) });
        const below = [to, ...parentChain(view, to)];
        const from = below[random(2) ? 0 : random(below.length)] ?? to;
        const removed = new Set(random(5) === 0 ? [] : layerChain(view, from.name, to.name).map((layer) => layer.name));
        const before = new Map(all.filter((image) => !removed.has(image.name)).map((image) => [image.name, rig.read(view, image)]));
        const run = removed.size === 0
          ? (): Promise<unknown> => flattenLayer(rig, to.name)
          : (): Promise<unknown> => rig.remove(from.name, to.name, true);
        for (let lives = 1 + random(4); ; lives += 1 + random(10)) {
          let left = lives;
          rig.dies = () => {
            if (left-- === 0) throw new VitastorError('ERR_ABORTED', 'killed');
          };
          const error = await run().then(() => null, (reason: unknown) => reason);
          rig.dies = () => undefined;
          const now = await rig.view();
          for (const [name, granules] of before) {
            const image = now.imageByName(name) ?? assert.fail(`${name} is gone`);
            assert.deepEqual([...rig.read(now, image)].sort(), [...granules].sort(), `${name} after ${String(error)}`);
            assert.equal(image.deleted, false);
          }
          if (error === null) break;
          // Killed behind its last change: there is nothing left to repeat.
          if (isVitastorError(error, 'ERR_NOT_FOUND') && !now.imageByName(from.name) && !now.imageByName(to.name)) break;
          assert.ok(isVitastorError(error, 'ERR_ABORTED'), String(error));
        }
        const after = await rig.view();
        for (const name of removed) assert.equal(after.imageByName(name), null);
        assert.equal(after.inodes.size, all.length - removed.size);
        // Nothing is left of what was removed.
        for (const [id, granules] of rig.data) assert.ok(after.inodes.has(id) || granules.size === 0, `data of ${id} is left`);
      }
    }));
  }
});
