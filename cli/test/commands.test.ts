// SPDX-License-Identifier: GPL-2.0-or-later
// Commands that change something, options, errors, and what goes where.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { VitastorError } from '@vitastor/core';
import { CliRig } from './harness.js';

let rig: CliRig;
beforeEach(() => {
  rig = new CliRig();
});
afterEach(() => rig.stop());

const POOL = { name: 'p', scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 4, failure_domain: 'host' };

/** PG maps of pools 1 and 2: without one, a pool has no data. */
const MAP = { items: { 1: { 1: { osd_set: [1, 2], primary: 1 } }, 2: { 1: { osd_set: [1, 2, 3], primary: 1 } } } };

function osds(count: number, more: object = {}): void {
  for (let i = 1; i <= count; i++) {
    rig.put(`osd/stats/${i}`, { host: `h${i}`, time: String(Date.now() / 1000), size: 1e9, free: 1e9, data_block_size: 131072, bitmap_granularity: 4096, immediate_commit: 'all', ...more });
    rig.put(`osd/state/${i}`, { state: 'up', host: `h${i}`, addresses: ['127.0.0.1'], port: 1 });
  }
}

async function ok(...words: string[]): Promise<string> {
  const result = await rig.run(words);
  assert.deepEqual([result.exit, result.stderr], [0, ''], result.stdout);
  return result.stdout;
}

async function refused(exit: number, text: RegExp, ...words: string[]): Promise<void> {
  const result = await rig.run(words);
  assert.equal(result.exit, exit, `${result.stdout}${result.stderr}`);
  assert.match(result.stderr, text);
  assert.equal(result.stdout, '');
}

describe('images', () => {
  beforeEach(() => rig.put('config/pools', { 1: POOL, 2: { ...POOL, name: 'q' } }));

  test('create, clone, snapshot; JSON', async () => {
    assert.equal(await ok('create', '-s', '10G', '-p', 'p', 'img'), 'Image img created\n');
    assert.deepEqual(await rig.json(['snap-create', 'img@s']), { exit: 0, json: { name: 'img@s', parent: '', pool: 1, size: 10737418240 } });
    assert.deepEqual(await rig.json(['create', '--parent', 'img@s', 'clone']), { exit: 0, json: { name: 'clone', parent: 'img@s', pool: 1, size: 10737418240 } });
    assert.deepEqual(await rig.json(['create', '--pool=2', '--size=8M', 'other']), { exit: 0, json: { name: 'other', parent: '', pool: '2', size: 8388608 } });
    const tree = (await ok('ls', '--tree')).trimEnd().split('\n').slice(1).map((line) => line.slice(0, 8).trimEnd());
    assert.deepEqual(tree, ['img@s', '├─ clone', '└─ img', 'other']);
    assert.deepEqual(rig.keys('index/'), ['index/image/clone', 'index/image/img', 'index/image/img@s', 'index/image/other', 'index/maxid/1', 'index/maxid/2']);
  });

  test('create: what is missing or wrong', async () => {
    await refused(22, /Image name is missing/, 'create', '-s', '1M', '-p', 'p');
    await refused(22, /--size: "big" is not a size/, 'create', '-s', 'big', '-p', 'p', 'a');
    await refused(2, /Parent image none does not exist/, 'create', '--parent', 'none', 'a');
    await refused(2, /Image none does not exist/, 'snap-create', 'none@s');
    await refused(22, /IMAGE@SNAPSHOT/, 'snap-create', 'none');
    await refused(22, /--size needs a value|-s needs a value/, 'create', 'a', '-s');
    rig.put('config/pools', { 1: { ...POOL, used_for_app: 'fs:meta' } });
    await refused(22, /Pool p is used for fs:meta\. Use --force/, 'create', '-s', '1M', 'a');
    await ok('create', '-s', '1M', '-f', 'a');
  });

  test('commands I1 and I2: an image put by hand is listed, found, and its number is not taken again', async () => {
    rig.put('config/inode/1/1', { name: 'testimg', size: 2147483648 });
    assert.match(await ok('ls'), /^testimg {2}p {5}2 G /m);
    await ok('create', '-s', '1M', '-p', 'p', 'next');
    assert.deepEqual(rig.keys('config/inode/'), ['config/inode/1/1', 'config/inode/1/2']);
    await refused(17, /already exists/, 'create', '-s', '1M', '-p', 'p', 'testimg');
  });

  test('modify: rename, grow, flags, no change', async () => {
    rig.put('config/inode/1/1', { name: 'a', size: 4096 });
    assert.deepEqual(await rig.json(['modify', 'a', '--resize', '8k', '--rename', 'b', '--readonly']), { exit: 0, json: { name: 'b', inode: 1, pool: 1, size: 8192 } });
    assert.deepEqual(rig.get('config/inode/1/1'), { name: 'b', size: 8192, readonly: true });
    assert.equal(await ok('modify', 'b', '--readonly', '--resize', '8192'), 'No change\n');
    assert.equal(await ok('modify', 'b', '--resize', '4k', '--inc_size', '1'), 'No change\n');
    assert.equal(await ok('modify', 'b', '--readwrite', '--deleted', '1'), 'Image b modified\n');
    assert.deepEqual(rig.get('config/inode/1/1'), { name: 'b', size: 8192, deleted: true });
    await refused(22, /exclude each other/, 'modify', 'b', '--readonly', '--readwrite');
    assert.equal(rig.dataOps.requests.length, 0, 'nothing of this touches data');
  });

  test('limits of an image: set, changed, taken away; other metadata stays; a snapshot leaves them with the image', async () => {
    await ok('create', '-s', '1M', '-p', 'p', '--limit-iops', '500', '--image_meta', '{"owner":"x"}', 'a');
    const meta = (inode: number): unknown => (rig.get(`config/inode/1/${inode}`) as { meta?: unknown }).meta;
    assert.deepEqual(meta(1), { owner: 'x', limits: { iops: 500, burst_ms: 1000 } });
    await ok('modify', 'a', '--limit_bandwidth', '100M', '--limit-burst', '2.5');
    assert.deepEqual(meta(1), { owner: 'x', limits: { iops: 500, bytes_per_second: 104857600, burst_ms: 2500 } });
    assert.equal(await ok('modify', 'a', '--limit-iops', '500'), 'No change\n');
    await ok('snap-create', 'a@s');
    assert.deepEqual(meta(2), { limits: { iops: 500, bytes_per_second: 104857600, burst_ms: 2500 } });
    assert.equal(meta(1), undefined);
    await ok('modify', 'a', '--limit-iops', '0', '--limit-bandwidth', '0');
    assert.equal(meta(2), undefined);
    await refused(22, /--limit-iops: "many" is not a whole number/, 'modify', 'a', '--limit-iops', 'many');
    await refused(22, /--limit-burst: "x" is not a number of seconds/, 'modify', 'a', '--limit-iops', '5', '--limit-burst', 'x');
    await refused(22, /has no limits/, 'modify', 'a', '--limit-burst', '3');
  });

  test('modify: shrinking purges only beyond the new size, before the record changes', async () => {
    rig.put('config/inode/1/1', { name: 'a', size: 1048576 });
    rig.put('config/inode/2/1', { name: 'e', size: 1048576 });
    rig.put('pg/config', MAP);
    rig.put('config/pools', { 1: POOL, 2: { ...POOL, name: 'q', scheme: 'ec', pg_size: 3, parity_chunks: 1, pg_minsize: 2 } });
    rig.dataOps.onRequest = () => assert.deepEqual(rig.get('config/inode/1/1'), { name: 'a', size: 1048576 });
    await ok('modify', 'a', '--resize', '132k', '--down-ok', '--progress', '0');
    rig.dataOps.onRequest = () => undefined;
    await ok('modify', 'e', '--resize', '132k', '--progress', '0');
    assert.deepEqual(rig.dataOps.requests.map((r) => [r.pool, r.inode, r.minOffset, r.maxOffset, r.downOk]), [[1, 1n, 135168n, null, true], [2, 1n, 135168n, null, false]]);
    assert.ok(rig.dataOps.requests.every((r) => r.cut === true));
    assert.deepEqual(rig.get('config/inode/1/1'), { name: 'a', size: 135168 });
  });

  test('modify: a failed purge leaves the record alone', async () => {
    rig.put('config/inode/1/1', { name: 'a', size: 1048576 });
    rig.put('pg/config', MAP);
    rig.dataOps.result = { errorCount: 1n };
    const result = await rig.run(['modify', 'a', '--resize', '4k', '--progress', '0']);
    assert.equal(result.exit, 5);
    assert.match(result.stderr, /some blocks were not removed: 1 objects/);
    assert.deepEqual(rig.get('config/inode/1/1'), { name: 'a', size: 1048576 });
  });

  test('modify: an image with children', async () => {
    rig.put('config/inode/1/1', { name: 'a@s', size: 1048576, readonly: true });
    rig.put('config/inode/1/2', { name: 'a', size: 1048576, parent_id: 1 });
    await refused(22, /Image a@s has children\. Refusing to shrink it without --force/, 'modify', 'a@s', '--resize', '4k');
    await ok('modify', 'a@s', '--readwrite', '-f');
  });
});

describe('rm', () => {
  beforeEach(() => {
    rig.put('config/pools', { 1: POOL });
    rig.put('pg/config', MAP);
    rig.put('config/inode/1/1', { name: 'a@s', size: 1048576, readonly: true });
    rig.put('config/inode/1/2', { name: 'a', size: 1048576, parent_id: 1 });
    rig.put('config/inode/1/3', { name: 'b', size: 1048576 });
    rig.put('index/image/b', { id: 3, pool_id: 1 });
  });

  test('one image: mark, data, metadata', async () => {
    rig.dataOps.onRequest = () => assert.deepEqual(rig.get('config/inode/1/3'), { name: 'b', size: 1048576, deleted: true });
    const result = await rig.run(['rm', 'b']);
    assert.deepEqual([result.exit, result.stdout], [0, 'Image b modified\nDone, inode 3 from pool 1 removed\nLayer b deleted\n']);
    assert.match(result.stderr, /^Removed 1\/2 objects, 2 PGs to list\.\.\.\nRemoved 2\/2 objects\n$/);
    assert.deepEqual([...rig.keys('config/inode/'), ...rig.keys('index/')], ['config/inode/1/1', 'config/inode/1/2']);
    assert.equal(rig.dataOps.closed, 1);
  });

  test('JSON is one document on stdout', async () => {
    assert.deepEqual(await rig.json(['rm', 'b']), {
      exit: 0,
      json: {
        deleted_ids: [281474976710659], deleted_images: ['b'], rebased_images: [], renamed_from: '', renamed_to: '', removed_objects: 2, total_objects: 2, error_count: 0, inactive_osds: [], inactive_pgs: [],
      },
    });
  });

  test('a chain goes from the top down; --down-ok and options reach the data side', async () => {
    await ok('rm', 'a@s', 'a', '--progress', '0', '--down-ok', '--wait-list', '--iodepth', '7', '--parallel-osds', '3', '--client_wait_up_timeout', '2');
    assert.deepEqual(rig.dataOps.requests.map((r) => [r.inode, r.minOffset, r.maxOffset, r.downOk, r.waitList, r.iodepth, r.parallelOsds, r.waitUpTimeoutMs]),
      [[2n, 0n, null, true, true, 7, 3, 2000], [1n, 0n, null, true, true, 7, 3, 2000]]);
    assert.deepEqual(rig.keys('config/inode/'), ['config/inode/1/3']);
  });

  test('OSDs with leftovers are down: exit 5, the layer stays marked; the repetition succeeds', async () => {
    rig.dataOps.result = { inactiveOsds: [4] };
    const result = await rig.run(['rm', 'b', '--progress', '0']);
    assert.deepEqual([result.exit, rig.get('config/inode/1/3')], [5, { name: 'b', size: 1048576, deleted: true }]);
    assert.match(result.stderr, /down: 4/);
    assert.match(await ok('ls', 'b'), /DEL/);
    assert.deepEqual((await rig.json(['rm', 'b'])).exit, 5);
    await ok('rm', 'b', '--down-ok', '--progress', '0');
    assert.deepEqual(rig.keys('index/'), []);
  });

  test('a layer that an image stands on: merged into it first', async () => {
    await refused(22, /b is not a descendant of a/, 'rm', 'a', 'b');
    assert.equal(rig.dataOps.requests.length, 0);
    rig.dataOps.onMerge = () => assert.deepEqual(rig.get('config/inode/1/1'), { name: 'a@s', size: 1048576, readonly: true });
    rig.dataOps.onRequest = () => assert.deepEqual(rig.get('config/inode/1/2'), { name: 'a', size: 1048576 });
    const result = await rig.run(['rm', 'a@s', '--iodepth', '7', '--parallel-osds', '3', '--fsync-interval', '9', '--down-ok', '--client_wait_up_timeout', '2']);
    assert.deepEqual([result.exit, result.stdout], [0,
      'Layer a took over what it reads of a@s\nImage a@s modified\nDone, inode 1 from pool 1 removed\nLayer a@s deleted\n']);
    assert.match(result.stderr, /^Merging 1 layer into a: 2\/2 objects, 8\.2 K\nMerging 1 layer into a: 2 objects, 8\.2 K written\n|Merging 1 layer/);
    assert.deepEqual(rig.dataOps.merges, [{
      layers: [281474976710657n, 281474976710658n], target: 1, cas: null, iodepth: 7, parallelOsds: 3, fsyncInterval: 9, waitUpTimeoutMs: 2000,
    }]);
    assert.equal(rig.dataOps.requests[0]?.downOk, true);
  });

  test('snap-rm; JSON of a layer with children; --cas', async () => {
    assert.deepEqual(await rig.json(['snap-rm', 'a@s', '--cas', '1']), {
      exit: 0,
      json: {
        deleted_ids: [281474976710657], deleted_images: ['a@s'], rebased_images: ['a'], renamed_from: '', renamed_to: '', removed_objects: 2, total_objects: 2, error_count: 0, inactive_osds: [], inactive_pgs: [],
      },
    });
    assert.equal(rig.dataOps.merges[0]?.cas, true);
    await refused(22, /--cas: "maybe" is not 1 or 0/, 'rm', 'b', '--cas', 'maybe');
  });

  test('--writers-stopped: the larger layer becomes the image', async () => {
    rig.put('inode/stats/1/1', { raw_used: '9000' });
    const { json } = await rig.json(['rm', 'a@s', '--writers-stopped']);
    assert.deepEqual(Object.fromEntries(Object.entries(json as object).slice(0, 5)), {
      deleted_ids: [281474976710658], deleted_images: ['a@s'], rebased_images: [], renamed_from: 'a@s', renamed_to: 'a',
    });
    assert.deepEqual(rig.get('config/inode/1/1'), { name: 'a', size: 1048576 });
    assert.equal(rig.dataOps.merges[0]?.target, 0);
  });

  test('a merge that fails: nothing is marked, the error is told', async () => {
    rig.dataOps.onMerge = () => {
      throw new VitastorError('ERR_IO', 'layers cannot be merged: PG 2 of pool 1 is inactive');
    };
    await refused(5, /PG 2 of pool 1 is inactive/, 'rm', 'a@s');
    assert.deepEqual(rig.get('config/inode/1/1'), { name: 'a@s', size: 1048576, readonly: true });
  });

  test('flatten and merge-data, by both names', async () => {
    assert.deepEqual(await rig.json(['flatten', 'a']), { exit: 0, json: { from: 'a@s', to: 'a', into: 'a' } });
    assert.deepEqual(rig.get('config/inode/1/2'), { name: 'a', size: 1048576 });
    assert.match(await ok('flatten', 'a'), /Image a has no parent already/);
    await refused(2, /Layer none not found/, 'flatten', 'none');
    rig.put('config/inode/1/2', { name: 'a', size: 1048576, parent_id: 1 });
    assert.deepEqual(await rig.json(['merge', 'a@s', 'a']), { exit: 0, json: { from: 'a@s', to: 'a', into: 'a@s' } });
    assert.deepEqual(await rig.json(['merge-data', 'a@s', 'a', '--target', 'a', '--cas', '0']), { exit: 0, json: { from: 'a@s', to: 'a', into: 'a' } });
    assert.deepEqual(rig.dataOps.merges.map((m) => [m.target, m.cas]), [[1, null], [0, null], [1, false]]);
    await refused(22, /Target b is not between/, 'merge-data', 'a@s', 'a', '--target', 'b');
    await refused(22, /two different layers/, 'merge-data', 'a', 'a');
    await ok('merge-data', 'a@s', 'a', '--target', 'a', '--delete-source', '1', '--progress', '0');
    assert.deepEqual(rig.dataOps.requests.map((r) => r.inode), [1n]);
    // Looks first: what the target lacks is not deleted.
    const [source, target] = [(1n << 48n) | 1n, (1n << 48n) | 2n];
    rig.images.layers.set(source, new Map([[0n, Buffer.alloc(4096)], [8192n, Buffer.alloc(4096)]]));
    rig.images.layers.set(target, new Map([[0n, Buffer.alloc(4096)], [4096n, Buffer.alloc(4096)]]));
    const checked = ['merge-data', 'a@s', 'a', '--target', 'a', '--check-delete-source', '1', '--progress', '0'];
    await refused(5, /a has nothing at offset 8192, where a merged layer has data: nothing was deleted/, ...checked);
    assert.deepEqual(rig.dataOps.requests.map((r) => r.inode), [1n]);
    rig.images.layers.get(target)?.set(8192n, Buffer.alloc(4096));
    await ok(...checked);
    assert.deepEqual(rig.dataOps.requests.map((r) => r.inode), [1n, 1n]);
    rig.put('config/inode/1/4', { name: 'other', size: 1048576, parent_id: 1 });
    await refused(16, /other stands on a@s/, 'merge-data', 'a@s', 'a', '--target', 'a', '--delete-source', '1');
  });

  test('--exact and --matching: children first', async () => {
    await refused(2, /Layer none not found/, 'rm', '--exact', 'b', 'none');
    // Another branch of the same parent, and a layer below that stays.
    rig.put('config/inode/1/4', { name: 'a2', size: 1048576, parent_id: 1 });
    rig.put('config/inode/1/5', { name: 'root', size: 1048576, readonly: true });
    rig.put('config/inode/1/1', { name: 'a@s', size: 1048576, readonly: true, parent_id: 5 });
    const { json } = await rig.json(['rm', '--matching', 'a*']);
    assert.deepEqual(json, { deleted_ids: [2, 4, 1].map((n) => 281474976710656 + n), deleted_images: ['a', 'a2', 'a@s'], rebased_images: [] });
    assert.deepEqual(rig.dataOps.requests.map((r) => r.inode), [2n, 4n, 1n]);
    assert.equal(rig.dataOps.merges.length, 0);
    await ok('rm', '--exact', 'root', '--progress', '0');
    await ok('rm', '--exact', 'b', '--progress', '0');
    assert.deepEqual(rig.keys('config/inode/'), []);
    await refused(2, /No images match/, 'rm', '--matching', '*');
  });
});

describe('rm of a selection', () => {
  test('chains at once; somebody else changes something: the selection is made anew', async () => {
    rig.put('config/pools', { 1: POOL });
    rig.put('pg/config', MAP);
    for (let i = 1; i <= 4; i++) rig.put(`config/inode/1/${i}`, { name: `v@${i}`, size: 1048576, readonly: true, ...(i > 1 ? { parent_id: i - 1 } : {}) });
    rig.put('config/inode/1/5', { name: 'v', size: 1048576, parent_id: 4 });
    let merges = 0;
    rig.dataOps.onMerge = () => {
      if (merges++ === 0) rig.put('config/inode/1/5', { name: 'v', size: 2097152, parent_id: 4 });
    };
    const { json } = await rig.json(['rm', '--matching', 'v@*']);
    assert.deepEqual((json as { deleted_images: string[] }).deleted_images, ['v@4', 'v@3', 'v@2', 'v@1']);
    assert.deepEqual(rig.dataOps.merges.map((m) => m.layers.length), [5, 5]);
    assert.deepEqual(rig.get('config/inode/1/5'), { name: 'v', size: 2097152 });
    await refused(2, /No images match/, 'rm', '--matching', 'v@*');
  });
});

describe('rm-data', () => {
  beforeEach(() => {
    rig.put('config/pools', { 1: POOL });
    rig.put('pg/config', MAP);
  });
  const RESULT = { removed_objects: 2, total_objects: 2, error_count: 0, inactive_osds: [], inactive_pgs: [] };

  test('command I5, by both names', async () => {
    const words = ['--pool', '1', '--inode', '1', '--parallel_osds', '16', '--iodepth', '32', '--json'];
    for (const [program, args] of [['/usr/bin/vitastor-cli', ['rm-data', ...words]], ['/usr/bin/vitastor-rm', words]] as const) {
      const result = await rig.run(args, program);
      assert.deepEqual([result.exit, JSON.parse(result.stdout)], [0, RESULT]);
    }
    assert.deepEqual(rig.dataOps.requests.map((r) => [r.pool, r.inode, r.parallelOsds, r.iodepth]), [[1, 1n, 16, 32], [1, 1n, 16, 32]]);
  });

  test('bounds; full inode numbers; pool by name', async () => {
    await ok('rm-data', '--inode', '281474976710663', '--min-offset', '1M', '--max-offset', '2M', '--progress', '0');
    await ok('rm-data', '-p', 'p', '--inode', '7', '--progress', '0');
    assert.deepEqual(rig.dataOps.requests.map((r) => [r.pool, r.inode, r.minOffset, r.maxOffset]), [[1, 7n, 1048576n, 2097152n], [1, 7n, 0n, null]]);
    await refused(22, /inode number is missing/, 'rm-data', '--pool', '1');
    await refused(22, /pool is missing/, 'rm-data', '--inode', '1');
    await refused(2, /Pool 9 does not exist/, 'rm-data', '--pool', '9', '--inode', '1');
  });

  test('what failed, as text and as JSON', async () => {
    rig.dataOps.result = { errorCount: 3n, inactivePgs: [2] };
    const text = await rig.run(['rm-data', '--pool', '1', '--inode', '1', '--progress', '0']);
    assert.equal(text.exit, 5);
    assert.match(text.stderr, /3 objects could not be removed; PGs 2 are inactive/);
    assert.deepEqual(await rig.json(['rm-data', '--pool', '1', '--inode', '1']), { exit: 5, json: { ...RESULT, error_count: 3, inactive_pgs: [2] } });
  });
});

describe('pools', () => {
  test('create: replicated, EC, XOR; defaults', async () => {
    osds(6);
    assert.equal(await ok('create-pool', 'rep', '-s', '2', '-n', '4'), 'Pool rep created\n');
    assert.deepEqual(await rig.json(['create-pool', 'ec', '--ec', '2+1', '-n', '2', '--failure_domain', 'host']), {
      exit: 0, json: { pg_minsize: 2, failure_domain: 'host', name: 'ec', parity_chunks: 1, pg_count: 2, pg_size: 3, scheme: 'ec' },
    });
    await ok('pool-create', 'xor', '--scheme', 'xor', '--pg-size', '3', '--pg-count', '8');
    await ok('create-pool', 'big', '--ec', '4+2', '-n', '16', '--osd_tags', '', '--level-placement', 'host=123456', '--scrub_interval', '7d');
    await ok('create-pool', 'three', '-s', '3', '-n', '16', '--block_size', '128k');
    assert.deepEqual(rig.get('config/pools'), {
      1: { pg_minsize: 1, pg_size: 2, pg_count: 4, name: 'rep', scheme: 'replicated' },
      2: { pg_minsize: 2, pg_size: 3, pg_count: 2, parity_chunks: 1, failure_domain: 'host', name: 'ec', scheme: 'ec' },
      3: { pg_minsize: 2, pg_size: 3, pg_count: 8, parity_chunks: 1, name: 'xor', scheme: 'xor' },
      4: { pg_minsize: 5, pg_size: 6, pg_count: 16, parity_chunks: 2, level_placement: { host: '123456' }, scrub_interval: '7d', name: 'big', scheme: 'ec' },
      5: { pg_minsize: 2, pg_size: 3, pg_count: 16, block_size: 131072, name: 'three', scheme: 'replicated' },
    });
  });

  test('create: what is missing or wrong', async () => {
    osds(2);
    await refused(22, /Pool name is missing/, 'create-pool', '-s', '2', '-n', '4');
    await refused(22, /Non-zero pg_size is required/, 'create-pool', 'a', '-n', '4');
    await refused(22, /--ec must look like 2\+1/, 'create-pool', 'a', '--ec', '2', '-n', '4');
    await refused(22, /--ec and --pg_size exclude/, 'create-pool', 'a', '--ec', '2+1', '-s', '2', '-n', '4');
    await refused(22, /--pg_count: "many" is not a whole number/, 'create-pool', 'a', '-s', '2', '-n', 'many');
    await refused(22, /field scheme: must be replicated/, 'create-pool', 'a', '-s', '2', '-n', '4', '--scheme', 'raid');
    await refused(22, /multiple of 512/, 'create-pool', 'a', '-s', '2', '-n', '4', '--bitmap_granularity', '1000');
    await refused(22, /Not enough matching OSDs/, 'create-pool', 'a', '-s', '3', '-n', '4');
    await ok('create-pool', 'a', '-s', '3', '-n', '4', '--force');
  });

  test('create --wait: until the monitor and the OSDs have made it active', async () => {
    osds(2);
    rig.put('config/global', { mon_change_timeout: 100 });
    const created = ok('create-pool', 'p', '-s', '2', '-n', '1', '--wait', '--progress', '0');
    while (rig.get('config/pools') === undefined) await new Promise<void>((resolve) => setImmediate(resolve));
    rig.put('pg/config', { items: { 1: { 1: { osd_set: ['1', '2'], primary: '1' } } } });
    rig.put('pg/state/1/1', { primary: 1, state: ['active'], peers: [1, 2] });
    assert.equal(await created, 'Pool p created\n');
  });

  test('modify and remove', async () => {
    rig.put('config/pools', { 1: { ...POOL, note: 'x', osd_tags: 'ssd' }, 3: { name: 'x', scheme: 'xor', pg_size: 3, pg_minsize: 2, pg_count: 1 } });
    assert.equal(await ok('modify-pool', 'p', '-n', '8', '--osd_tags', '', '--name', 'r'), 'Pool p updated\n');
    assert.deepEqual(await rig.json(['pool-modify', '3', '--osd_tags', 'a,b']), {
      exit: 0,
      json: {
        1: { name: 'r', scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 8, failure_domain: 'host', note: 'x' },
        3: { name: 'x', scheme: 'xor', pg_size: 3, pg_minsize: 2, pg_count: 1, parity_chunks: 1, osd_tags: ['a', 'b'] },
      },
    });
    assert.equal(await ok('modify-pool', 'r'), 'No change\n');
    assert.equal(await ok('rm-pool', 'r'), 'Pool r deleted\n');
    assert.deepEqual(Object.keys(rig.get('config/pools') as object), ['3']);
  });
});

describe('listings', () => {
  beforeEach(() => {
    rig.put('config/pools', { 1: POOL, 2: { ...POOL, name: 'q' } });
    for (const [i, name] of ['a', 'b', 'c10', 'c9'].entries()) rig.put(`config/inode/${i % 2 + 1}/${i + 1}`, { name, size: (4 - i) * 4096 });
  });
  const names = (text: string): string[] => text.trimEnd().split('\n').slice(1).map((line) => line.split(' ')[0] ?? '');

  test('order, limit, pool, patterns, exact', async () => {
    assert.deepEqual(names(await ok('ls')), ['a', 'b', 'c10', 'c9']);
    assert.deepEqual(names(await ok('ls', '-r', '-n', '2')), ['c9', 'c10']);
    assert.deepEqual(names(await ok('ls', '--sort', 'size')), ['c9', 'c10', 'b', 'a']);
    assert.deepEqual(names(await ok('ls', 'c?', 'a')), ['a', 'c9']);
    assert.deepEqual(names(await ok('ls', '--exact', 'c?', 'a')), ['a']);
    const filtered = await ok('ls', '-p', 'q');
    assert.deepEqual(names(filtered), ['b', 'c9']);
    assert.doesNotMatch(filtered, /POOL/);
    await refused(2, /Pool none does not exist/, 'ls', '-p', 'none');
  });

  test('ls -l --del: rates, queue, and inodes that only statistics know', async () => {
    const stat = { count: '1', usec: '1', bytes: '1', bps: '1048576', iops: '2000', lat: '1500' };
    rig.put('pool/stats/1', { pg_real_size: 2 });
    rig.put('inode/stats/1/1', { raw_used: '8192', read: stat, write: stat, delete: stat });
    rig.put('inode/stats/1/99', { raw_used: '4096', read: stat, write: stat, delete: stat });
    const text = await ok('ls', '-l', '--del');
    assert.match(text, /^NAME +POOL +SIZE +USED +READ +IOPS +QUEUE +LAT +WRITE +IOPS +QUEUE +LAT +DEL +IOPS +QUEUE +LAT +FLAGS +PARENT/);
    assert.match(text, /^a +p +16 K +4 K +1 M\/s +2 k +3 +1\.5 ms +1 M\/s/m);
    assert.match(text, /^Pool:1,ID:99 +p +- +2 K /m);
  });

  test('pg-list: filters, a PG that moves its primary, one that nobody owns', async () => {
    rig.put('pg/config', { items: { 1: { 1: { osd_set: [1, 2], primary: 2 }, 2: { osd_set: [2, 3], primary: 3 }, 3: { osd_set: [1, 0], primary: 0 } } } });
    rig.put('pg/state/1/1', { primary: 1, state: ['active', 'degraded'], peers: [1] });
    rig.put('pg/state/1/2', { primary: 3, state: ['active'], peers: [2, 3] });
    const nums = async (...words: string[]): Promise<string[]> => names(await ok('pg-list', '--pool', 'p', ...words));
    assert.deepEqual((await ok('pg-list')).split('\n').slice(1, 4).map((line) => line.replace(/ +/g, ' ').trim()), [
      'p 1 1,2 1->2 0 B 0 B 0 B 0 B active+degraded', 'p 2 2,3 3 0 B 0 B 0 B 0 B active', 'p 3 1,0 - 0 B 0 B 0 B 0 B offline',
    ]);
    assert.deepEqual(await nums('active'), ['1', '2']);
    assert.deepEqual(await nums('active+degraded'), ['1']);
    assert.deepEqual(await nums('^active'), ['3']);
    assert.deepEqual(await nums('!active+degraded'), ['2', '3']);
    assert.deepEqual(await nums('offline', 'degraded'), ['1', '3']);
    assert.deepEqual(await nums('--osd', '3'), ['2']);
    assert.deepEqual(await nums('--min', '2', '--max', '2'), ['2']);
    await refused(22, /"x" in --osd is not an OSD number/, 'pgs', '--osd', '1,x');
  });

  test('osd-tree with racks; OSDs that never reported', async () => {
    osds(2);
    rig.put('config/global', { placement_levels: { rack: 50 } });
    rig.put('config/node_placement', { r1: { level: 'rack' }, h2: { level: 'host', parent: 'r1' } });
    rig.put('osd/stats/7', {});
    const rows = (await ok('osd-tree')).trimEnd().split('\n').slice(1).map((line) => line.replace(/ +(up|down) .*| +$/, '').replace(/(\S) +/g, '$1 '));
    assert.deepEqual(rows, ['rack r1', '  host h2', '    osd 2', 'host h1', '  osd 1', 'osd 7']);
    assert.match(await ok('ls-osd'), /^2 +r1\/h2 +up /m);
  });
});

describe('everywhere', () => {
  test('help: the list, one command, all; exit 0', async () => {
    for (const words of [['--help'], ['-h'], ['help'], []]) assert.match(await ok(...words), /COMMANDS[\s\S]*create-pool/);
    assert.match(await ok('--help', 'create'), /-s, --size SIZE/);
    assert.match(await ok('create', '--help'), /--parent NAME/);
    assert.match(await ok('--help', '--all'), /--pg_minsize M/);
    assert.equal(rig.clients.length, 0, 'without etcd');
  });

  test('no etcd address: says where to put it', async () => {
    const { runCli } = await import('../src/run.js');
    let stderr = '';
    const exit = await runCli('x', ['status', '--config_path', '/nonexistent/v.conf'], {
      clock: rig.clock, openEtcd: () => assert.fail('not reached'), openDataOps: async () => rig.dataOps, openOsdAdmin: () => rig.osdAdmin, readStdin: async () => '',
      openImageClient: () => rig.images.client(), stdin: () => assert.fail('not reached'), writeStdout: async () => undefined,
      stdout: () => undefined, stderr: (text) => { stderr += text; },
      stdoutIsTerminal: false, stderrIsTerminal: false, signal: new AbortController().signal,
    });
    assert.deepEqual([exit, /\/nonexistent\/v\.conf does not exist/.test(stderr)], [22, true]);
  });

  test('etcd that does not answer: exit 5, also as JSON', async () => {
    rig.onClient = (client) => {
      client.connected = false;
    };
    const words = ['--etcd_slow_timeout', '20', '--max_etcd_attempts', '2'];
    await refused(5, /etcd gave no answer/, 'ls', ...words);
    assert.deepEqual(((await rig.json(['ls', ...words])).json as { error_code: number }).error_code, 5);
  });

  test('a bad value in etcd is named on stderr and the rest works (command C11 as printed)', async () => {
    rig.put('config/pools', '{"1":{"name":"p"},2:{}}');
    rig.put('config/inode/1/1', { name: 'a', size: 4096 });
    const result = await rig.run(['ls']);
    assert.equal(result.exit, 0);
    assert.match(result.stderr, /^warning: key \/vitastor\/config\/pools: not valid JSON at line 1, column 19/);
    assert.match(result.stdout, /^a /m);
  });

  test('an option that means nothing is named; configuration parameters are not', async () => {
    const result = await rig.run(['ls', '--client_retry_interval', '5', '--szie', '5']);
    assert.deepEqual([result.exit, result.stderr], [0, 'warning: option --szie means nothing to ls\n']);
    assert.equal((await rig.run(['status', 'extra'])).exit, 22);
  });

  test('another prefix', async () => {
    rig.server.put('/two/config/pools', JSON.stringify({ 1: { ...POOL, name: 'other' } }));
    assert.match(await ok('df', '--etcd_prefix', 'two/'), /^other /m);
  });

  test('status: what recovery has left to do, and how long; scrub', async () => {
    const rates = (bps: number, iops: number): object => ({ bps: String(bps), iops: String(iops), count: '1', usec: '1', bytes: '1', lat: '1' });
    rig.put('config/pools', { 1: POOL });
    rig.put('pg/config', { items: { 1: { 1: { osd_set: [1, 2], primary: 1 } } } });
    rig.put('pg/state/1/1', { primary: 1, state: ['active', 'scrubbing', 'has_misplaced'], peers: [1, 2] });
    rig.put('stats', {
      op_stats: { scrub: rates(2 << 20, 8) },
      recovery_stats: { degraded: rates(10 << 20, 80), misplaced: rates(1 << 20, 8) },
      object_counts: { object: '5000', clean: '0', misplaced: '64000', degraded: '800', incomplete: '0' },
    });
    const { stdout } = await rig.run(['status']);
    assert.match(stdout, /recovery: +10 M\/s, 80 op\/s, 800 objects left, about 10 s\n/);
    assert.match(stdout, /rebalance: +1 M\/s, 8 op\/s, 64000 objects left, about 2 h\n/);
    assert.match(stdout, /scrub: +2 M\/s, 8 op\/s, 1 PG at work/);
  });

  test('status: warnings, switches, what is unknown', async () => {
    osds(2, { free: 1e7, slow_ops_primary: 3 });
    rig.put('config/global', { no_recovery: 'yes', readonly: 1 });
    rig.put('config/pools', { 1: POOL, 2: { name: 'broken' } });
    rig.put('osd/stats/3', { host: 'h3', size: 1e9, free: 0 });
    const { stdout } = await rig.run(['status']);
    for (const line of ['1 osd is full', '2 osds are almost full', 'slow client operations on osd 1, 2', 'pool 2 in /config/pools is not valid', 'pool p is inactive', 'osd:  2 / 3 up', 'no master',
      'recovery: disabled', 'io (read-only mode):', 'pools: 0 / 2 active']) {
      assert.ok(stdout.includes(line), `${line} in\n${stdout}`);
    }
  });
});
