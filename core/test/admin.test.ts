// SPDX-License-Identifier: GPL-2.0-or-later
// Images and pools as transactions, against etcd in memory.

import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { ClusterState, PATHS_ALL } from '../src/cluster-state.js';
import type { ClusterView } from '../src/cluster-view.js';
import { isVitastorError, type ErrorCode } from '../src/errors.js';
import { checkImageName, createImage, createSnapshot, modifyImage, parentChain, type AdminContext, type NewImage } from '../src/images.js';
import type { JsonObject } from '../src/json.js';
import { objectSpanBytes, objectStart, pgOfOffset } from '../src/pg-math.js';
import { createPool, deletePool, findPool, modifyPool, prepareNewPool } from '../src/pool-admin.js';
import { KeySpace } from '../src/schema/keys.js';
import { MemoryEtcd, type MemoryEtcdClient } from '../src/seams/memory-etcd.js';
import { SystemClock } from '../src/seams/system.js';
import { placementTree } from '../src/tree.js';

const keys = new KeySpace();
const limits = { timeoutMs: 200, attempts: 3 };
const code = (expected: ErrorCode, text?: RegExp) => (error: unknown): boolean =>
  isVitastorError(error, expected) && (text === undefined || (assert.match(error.message, text), true));

let servers: { server: MemoryEtcd; etcd: MemoryEtcdClient }[] = [];

function setup(pairs: Record<string, unknown> = {}): { server: MemoryEtcd; etcd: MemoryEtcdClient } {
  const server = new MemoryEtcd(new SystemClock());
  const etcd = server.client();
  for (const [key, value] of Object.entries(pairs)) server.put(keys.at(key), typeof value === 'string' ? value : JSON.stringify(value));
  servers.push({ server, etcd });
  return { server, etcd };
}

async function context(etcd: MemoryEtcdClient): Promise<AdminContext & { view: ClusterView }> {
  const state = new ClusterState({ etcd, clock: new SystemClock(), keys, paths: PATHS_ALL });
  await state.load({ attempts: 1, timeoutMs: 1000 });
  return { etcd, view: state.view, limits };
}

const image = (name: string, more: Partial<NewImage> = {}): NewImage => ({ pool: 1, name, sizeBytes: 8388608n, parent: null, meta: null, ...more });
const stored = (server: MemoryEtcd, prefix = ''): Record<string, unknown> =>
  Object.fromEntries(server.pairs().filter((kv) => kv.key.startsWith(keys.at(prefix))).map((kv) => [kv.key.slice('/vitastor/'.length), JSON.parse(kv.value) as unknown]));

afterEach(() => {
  for (const { server, etcd } of servers) {
    etcd.close();
    server.stop();
  }
  servers = [];
});

describe('images', () => {
  test('create writes the three keys', async () => {
    const { server, etcd } = setup();
    const made = await createImage(await context(etcd), image('a/b', { meta: { x: 1 } }));
    assert.equal(made.inode, 1n);
    assert.deepEqual(stored(server), {
      'config/inode/1/1': { name: 'a/b', size: 8388608, meta: { x: 1 } }, 'index/image/a/b': { id: 1, pool_id: 1 }, 'index/maxid/1': 1,
    });
    assert.throws(() => checkImageName('a@b'), code('ERR_INVALID_ARGUMENT'));
    for (const name of ['a/b', '/', '..', 'ü→名', "q'\"", 'two words', 'x'.repeat(255)]) checkImageName(name);
    for (const name of ['', 'x'.repeat(256), 'ü'.repeat(128), 'new\nline', 'tab\t', '\u0000', '\ud800'])
      assert.throws(() => checkImageName(name), code('ERR_INVALID_ARGUMENT'));
  });

  test('numbers are never reused: maxid, images put by hand (also after our load), and garbage in maxid', async () => {
    const { server, etcd } = setup({ 'index/maxid/1': 5, 'config/inode/1/3': { name: 'hand', size: 1 } });
    assert.equal((await createImage(await context(etcd), image('a'))).inode, 6n);
    const before = await context(etcd);
    server.put(keys.configInode(1, 9n), '{"name":"later","size":1}');
    assert.equal((await createImage(before, image('b'))).inode, 10n);
    server.put(keys.indexMaxId(1), 'garbage');
    assert.equal((await createImage(await context(etcd), image('c'))).inode, 11n);
    assert.equal(server.get(keys.indexMaxId(1)), '11');
  });

  test('commands I1, I2: an image put by hand has its name and number', async () => {
    const { etcd } = setup({ 'config/inode/1/1': { name: 'testimg', size: 2147483648 } });
    const c = await context(etcd);
    await assert.rejects(createImage(c, image('testimg')), code('ERR_EXISTS', /Image testimg already exists/));
    assert.equal((await createImage(c, image('other'))).inode, 2n);
  });

  test('a name taken meanwhile is refused; two creators at once get two numbers', async () => {
    const { etcd } = setup();
    const [one, two] = [await context(etcd), await context(etcd)];
    const made = await Promise.all([createImage(one, image('a')), createImage(two, image('b')), createImage(two, image('c'))]);
    assert.deepEqual(made.map((m) => m.inode).sort(), [1n, 2n, 3n]);
    await assert.rejects(createImage(one, image('b')), code('ERR_EXISTS'));
  });

  test('a lost reply: the image is created once and reported as created', async () => {
    const { server, etcd } = setup();
    const c = await context(etcd);
    // The next call reads the number; the one after it is the transaction.
    const create = createImage(c, image('a'));
    etcd.failNext('reply-lost');
    const made = await create;
    assert.deepEqual([made.inode, Object.keys(stored(server, 'config/inode/')).length], [1n, 1]);
  });

  test('etcd away: the error says so and nothing is half done', async () => {
    const { server, etcd } = setup();
    const c = await context(etcd);
    etcd.connected = false;
    await assert.rejects(createImage(c, image('a')), code('ERR_ETCD_UNAVAILABLE'));
    assert.deepEqual(stored(server), {});
  });

  test('clone, snapshot, chain', async () => {
    const { server, etcd } = setup();
    const base = await createImage(await context(etcd), image('a'));
    const top = await createSnapshot(await context(etcd), (await context(etcd)).view.imageByName('a') ?? assert.fail(), 's', 2, null);
    assert.deepEqual([top.pool, top.inode], [2, 1n]);
    assert.deepEqual(stored(server, 'config/inode/'), {
      'config/inode/1/1': { name: 'a@s', size: 8388608, readonly: true }, 'config/inode/2/1': { name: 'a', size: 8388608, parent_id: 1, parent_pool: 1 },
    });
    assert.deepEqual(stored(server, 'index/'), { 'index/image/a': { id: 1, pool_id: 2 }, 'index/image/a@s': { id: 1, pool_id: 1 }, 'index/maxid/1': 1, 'index/maxid/2': 1 });
    const c = await context(etcd);
    await createImage(c, image('clone', { parent: { pool: base.pool, inode: base.inode } }));
    const { view } = await context(etcd);
    assert.deepEqual(parentChain(view, view.imageByName('clone') ?? assert.fail()).map((l) => l.name), ['a@s']);
    await assert.rejects(createSnapshot(await context(etcd), view.imageByName('a') ?? assert.fail(), 's', 1, null), code('ERR_EXISTS'));
  });

  test('a parent loop and a missing parent are errors, not hangs', async () => {
    const { etcd } = setup({ 'config/inode/1/1': { name: 'a', size: 1, parent_id: 2 }, 'config/inode/1/2': { name: 'b', size: 1, parent_id: 1 }, 'config/inode/1/3': { name: 'c', size: 1, parent_id: 9 } });
    const { view } = await context(etcd);
    assert.throws(() => parentChain(view, view.imageByName('a') ?? assert.fail()), code('ERR_PARENT_LOOP'));
    assert.throws(() => parentChain(view, view.imageByName('c') ?? assert.fail()), code('ERR_NOT_FOUND', /inode 9 in pool 1/));
  });

  test('modify: resize keeps unknown fields and meta; rename moves the index', async () => {
    const { server, etcd } = setup({ 'config/inode/1/1': { name: 'a', size: '4096', meta: { k: 1 }, note: 'x' }, 'index/image/a': { id: 1, pool_id: 1 } });
    const c = await context(etcd);
    await modifyImage(c, c.view.imageByName('a') ?? assert.fail(), { name: 'b', sizeBytes: 8192n, readonly: true });
    assert.deepEqual(stored(server), { 'config/inode/1/1': { name: 'b', size: 8192, readonly: true, meta: { k: 1 }, note: 'x' }, 'index/image/b': { id: 1, pool_id: 1 } });
  });

  test('modify: an image without index gets one; a taken name and a concurrent change are refused', async () => {
    const { server, etcd } = setup({ 'config/inode/1/1': { name: 'a', size: 1 }, 'config/inode/1/2': { name: 'c', size: 1 } });
    const c = await context(etcd);
    const a = c.view.imageByName('a') ?? assert.fail();
    await assert.rejects(modifyImage(c, a, { name: 'c' }), code('ERR_EXISTS'));
    server.put(keys.configInode(1, 1n), '{"name":"a","size":2}');
    await assert.rejects(modifyImage(c, a, { name: 'b' }), code('ERR_CONFLICT'));
    const again = await context(etcd);
    await modifyImage(again, again.view.imageByName('a') ?? assert.fail(), { name: 'b' });
    assert.deepEqual(stored(server, 'index/'), { 'index/image/b': { id: 1, pool_id: 1 } });
  });
});

describe('pools', () => {
  const now = 1_700_000_000_000;
  const check = { force: false, nowMs: now, osdOutTimeSeconds: 600 };
  const osd = (host: string, more: JsonObject = {}): JsonObject =>
    ({ host, time: String(now / 1000), size: 1e9, free: 1e9, data_block_size: 131072, bitmap_granularity: 4096, immediate_commit: 'all', ...more });
  const hosts = (n: number, more: JsonObject = {}): Record<string, JsonObject> =>
    Object.fromEntries(Array.from({ length: n }, (_, i) => [`osd/stats/${i + 1}`, osd(`h${i + 1}`, more)]));
  const rep: JsonObject = { name: 'rep', scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 4 };

  test('create: next id, name taken, concurrent creators', async () => {
    const { server, etcd } = setup({ 'config/pools': { 3: { ...rep, name: 'old', note: 1 } } });
    const c = await context(etcd);
    const [a, b] = await Promise.all([createPool(c, rep), createPool(c, { ...rep, name: 'two' })]);
    assert.deepEqual([a?.id, b?.id].sort(), [4, 5]);
    await assert.rejects(createPool(c, rep), code('ERR_EXISTS'));
    assert.deepEqual(Object.keys(stored(server)['config/pools'] as object), ['3', '4', '5']);
  });

  test('create: enough failure domains, tags, root, recent reports', async () => {
    const { etcd } = setup({
      ...hosts(3), 'osd/stats/3': osd('h2'), 'osd/stats/4': osd('h4', { time: String(now / 1000 - 700) }), 'config/osd/1': { tags: 'ssd' }, 'config/node_placement': { r1: { level: 'rack' }, h1: { level: 'host', parent: 'r1' } },
      'config/global': { placement_levels: { rack: 50 } },
    });
    const { view } = await context(etcd);
    assert.deepEqual(prepareNewPool(view, rep, check), rep);
    const refused = (entry: JsonObject, text: RegExp): void => assert.throws(() => prepareNewPool(view, entry, check), code('ERR_INVALID_ARGUMENT', text));
    refused({ ...rep, pg_size: 3 }, /At least 3 \(pg_size=3\) OSDs should have:\n- block_size 128k\n- bitmap_granularity 4k\n- immediate_commit all\n- different parent 'host' nodes$/);
    refused({ ...rep, osd_tags: 'ssd' }, /- 'ssd' tags/);
    refused({ ...rep, root_node: 'r1' }, /- 'r1' above/);
    refused({ ...rep, failure_domain: 'rack' }, /'rack' nodes/);
    refused({ ...rep, block_size: 1048576 }, /block_size 1M/);
    refused({ ...rep, pg_minsize: 5 }, /field pg_minsize: must be between 1 and 2/);
    assert.equal(prepareNewPool(view, { ...rep, pg_size: 3 }, { ...check, force: true })['pg_size'], 3);
    assert.equal(prepareNewPool(view, { ...rep, pg_size: 3, failure_domain: 'osd' }, check)['pg_size'], 3);
  });

  test('create: the layout of the OSDs is taken over where none has the inherited one', async () => {
    const { etcd } = setup(hosts(2, { data_block_size: 1048576, immediate_commit: 'none' }));
    const { view } = await context(etcd);
    assert.deepEqual(prepareNewPool(view, rep, check), { ...rep, block_size: 1048576, immediate_commit: 'none' });
  });

  test('modify: keeps unknown fields, removes with null, refuses what loses data', async () => {
    const ec: JsonObject = { name: 'ec', scheme: 'ec', pg_size: 4, parity_chunks: 2, pg_minsize: 2, pg_count: 4, note: 'x', osd_tags: 'a' };
    const { server, etcd } = setup({ 'config/pools': { 1: rep, 2: ec }, 'config/inode/1/1': { name: 'i', size: 1 } });
    const c = await context(etcd);
    const pool = findPool(c.view, 'ec');
    assert.equal(findPool(c.view, '2'), pool);
    await modifyPool(c, pool, { pg_size: 5, parity_chunks: 3, osd_tags: null }, check);
    assert.deepEqual((stored(server)['config/pools'] as JsonObject)['2'], { name: 'ec', scheme: 'ec', pg_size: 5, parity_chunks: 3, pg_minsize: 2, pg_count: 4, note: 'x' });
    for (const fields of [{ scheme: 'replicated' }, { pg_size: 6, pg_minsize: 3 }, { block_size: 1048576 }, { bitmap_granularity: 8192 }, { immediate_commit: 'none' }, { pg_stripe_size: 4194304 }] as JsonObject[]) {
      await assert.rejects(modifyPool(c, pool, fields, check), code('ERR_INVALID_ARGUMENT', /Use --force to proceed/), JSON.stringify(fields));
    }
    await modifyPool(c, pool, { block_size: 1048576 }, { ...check, force: true });
    await assert.rejects(modifyPool(c, pool, { name: 'rep' }, check), code('ERR_EXISTS'));
    await assert.rejects(modifyPool(c, findPool(c.view, 'rep'), { used_for_app: 'fs:meta' }, check), code('ERR_INVALID_ARGUMENT', /contains images \(i\)/));
    await modifyPool(c, findPool(c.view, 'rep'), { used_for_app: 'fs:i' }, check);
  });

  test('delete: not while images exist', async () => {
    const { server, etcd } = setup({ 'config/pools': { 1: rep, 2: { ...rep, name: 'b' } }, 'config/inode/1/1': { name: 'i', size: 1 } });
    const c = await context(etcd);
    await assert.rejects(deletePool(c, findPool(c.view, 'rep'), false), code('ERR_NOT_EMPTY', /images\/snapshots associated with it: i$/));
    assert.deepEqual(Object.keys(await deletePool(c, findPool(c.view, 'rep'), true)), ['2']);
    await deletePool(c, findPool(c.view, 'b'), false);
    assert.deepEqual(stored(server)['config/pools'], {});
    assert.throws(() => findPool(c.view, 'none'), code('ERR_NOT_FOUND', /Pool none does not exist/));
  });

  test('the tree: hosts from reports, configured parents, no loops', async () => {
    const { etcd } = setup({
      ...hosts(2), 'osd/state/7': { state: 'up', host: 'h7' }, 'config/global': { placement_levels: { dc: 1, rack: 50 } },
      'config/node_placement': { d: { level: 'dc', parent: 'r' }, r: { level: 'rack', parent: 'd' }, h1: { level: 'host', parent: 'r' }, 2: { parent: 'h1' }, odd: { level: 'planet' } },
    });
    const nodes = placementTree((await context(etcd)).view);
    assert.deepEqual([...nodes.values()].map((n) => [n.name, n.level, n.parent]).sort(), [
      ['1', 'osd', 'h1'], ['2', 'osd', 'h1'], ['7', 'osd', 'h7'], ['d', 'dc', ''], ['h1', 'host', 'r'], ['h2', 'host', ''], ['h7', 'host', ''], ['r', 'rack', 'd'],
    ]);
  });
});

test('objects and PGs of an offset', () => {
  const rep = { blockSizeBytes: 131072, dataChunks: 1, pgStripeSizeBytes: 131072 };
  const ec = { blockSizeBytes: 131072, dataChunks: 2, pgStripeSizeBytes: 4194304 };
  assert.deepEqual([objectSpanBytes(rep), objectSpanBytes(ec)], [131072n, 262144n]);
  assert.deepEqual([0n, 131071n, 131072n, 1048576n].map((o) => pgOfOffset(rep, 4, o)), [1, 1, 2, 1]);
  assert.deepEqual([0n, 4194303n, 4194304n, 12582912n].map((o) => pgOfOffset(ec, 3, o)), [1, 1, 2, 1]);
  assert.equal(objectStart(ec, 524287n), 262144n);
});
