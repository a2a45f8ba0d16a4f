// SPDX-License-Identifier: GPL-2.0-or-later
// diff: which layers are looked at, what is printed, and what is refused.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { changedExtents, type ChangedExtent, type ImageClient, type LayerDiff } from '@vitastor/core';
import { CliRig } from './harness.js';

const K = 4096;
let rig: CliRig;

beforeEach(async () => {
  rig = new CliRig();
  const pool = { scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 1, failure_domain: 'host' };
  rig.put('config/pools', { 1: { ...pool, name: 'p' }, 2: { ...pool, name: 'q' } });
  rig.put('pg/config', { items: { 1: { 1: { osd_set: [1, 2], primary: 1 } }, 2: { 1: { osd_set: [1, 2], primary: 1 } } } });
  await ok('create', '-s', '1M', '-p', 'p', 'vm');
  rig.images.fill('vm', 0, Buffer.alloc(16 * K, 1));
  await ok('snap-create', 'vm@a', '-p', 'q');
  rig.images.fill('vm', 2 * K, Buffer.alloc(K, 2));
  await ok('snap-create', 'vm@b', '-p', 'p');
  rig.images.fill('vm', 3 * K, Buffer.alloc(2 * K, 3));
  rig.images.fill('vm', 20 * K, Buffer.alloc(K, 3));
});
afterEach(() => rig.stop());

async function ok(...words: string[]): Promise<string> {
  const result = await rig.run(words);
  assert.equal(result.exit, 0, `${words.join(' ')}: ${result.stdout}${result.stderr}`);
  return result.stdout;
}
async function refused(exit: number, text: RegExp, ...words: string[]): Promise<void> {
  const result = await rig.run(words);
  assert.equal(result.exit, exit, result.stdout + result.stderr);
  assert.match(result.stderr, text);
}

test('a table, with its total', async () => {
  assert.equal(await ok('diff', 'vm', '--from', 'a'), 'OFFSET   LENGTH   TYPE\n8192     12288    data\n81920    4096     data\nTotal: 16 K of data in 2 extents\n');
  assert.match(await ok('diff', 'vm', '--from', 'vm@a', '--to', 'b'), /\n8192 +4096 +data\nTotal: 4 K of data in 1 extent\n$/);
  assert.equal(await ok('diff', 'vm@b', '--from', 'a'), await ok('diff', 'vm', '--from', 'a', '--to', 'b'));
  assert.match(await ok('diff', 'vm'), /\n0 +65536 +data\n81920 +4096 +data\n/);
  assert.equal(await ok('diff', 'vm', '--from', 'b', '--to', 'b'), 'Nothing has changed\n');
  assert.deepEqual(rig.images.maps.map((request) => request.layers.length), [2, 1, 1, 1, 3]);
});

test('JSON', async () => {
  const { json } = await rig.json(['diff', 'vm', '--from', 'b']);
  assert.deepEqual(json, {
    image: 'vm', from: 'vm@b', size: 1048576, from_size: 1048576,
    extents: [{ offset: 12288, length: 8192, type: 'data' }, { offset: 81920, length: 4096, type: 'data' }], count: 2, data_bytes: 12288, zero_bytes: 0,
  });
  assert.deepEqual((await rig.json(['diff', 'vm', '--from', 'b', '--to', 'b'])).json, {
    image: 'vm@b', from: 'vm@b', size: 1048576, from_size: 1048576, extents: [], count: 0, data_bytes: 0, zero_bytes: 0,
  });
});

test('an image that has grown, and a clone', async () => {
  await ok('modify', 'vm', '--resize', '1040k');
  rig.images.fill('vm', 257 * K, Buffer.alloc(K, 4));
  assert.match(await ok('diff', 'vm', '--from', 'b'), /\n1048576 +4096 +zero\n1052672 +4096 +data\n1056768 +8192 +zero\nTotal: 16 K of data, 12 K of zeroes in 5 extents\n$/);
  await ok('create', '--parent', 'vm@a', '-p', 'p', 'clone');
  rig.images.fill('clone', 0, Buffer.alloc(K, 5));
  assert.match(await ok('diff', 'clone', '--from', 'vm@a'), /\n0 +4096 +data\n/);
});

test('what is refused', async () => {
  await refused(22, /Image name is missing/, 'diff', '--from', 'a');
  await refused(2, /none not found/, 'diff', 'none', '--from', 'a');
  await refused(2, /Snapshot vm@none does not exist/, 'diff', 'vm', '--from', 'none');
  await refused(22, /vm@b is newer than vm@a/, 'diff', 'vm', '--from', 'b', '--to', 'a');
  await ok('create', '-s', '1M', '-p', 'p', 'other');
  await ok('snap-create', 'other@s');
  await refused(22, /vm does not stand on other@s: it stands on vm@b, vm@a/, 'diff', 'vm', '--from', 'other@s');
  await refused(22, /other is an image that may be written to/, 'diff', 'vm', '--from', 'other');
  await refused(22, /takes one image/, 'diff', 'vm', 'other');
  rig.images.hangs = true;
  await refused(5, /PG 1 of pool 1 is inactive/, 'diff', 'vm', '--from', 'a');
});

test('layers that change meanwhile: one JSON document that says so', async () => {
  const client = rig.images.client.bind(rig.images);
  rig.images.client = () => {
    const inner = client();
    return {
      ...inner,
      async *mapLayers(request) {
        yield* inner.mapLayers(request);
        rig.put('config/inode/1/2', { name: 'vm@b', size: 1048576, readonly: true });
      },
    } satisfies ImageClient;
  };
  const { exit, json } = await rig.json(['diff', 'vm', '--from', 'a']);
  assert.equal(exit, 11);
  assert.match((json as { error_text: string }).error_text, /vm@?b? was changed by someone else meanwhile/);
  assert.equal((json as { extents: [] }).extents.length, 2);
});

test('parts are joined where they touch', async () => {
  const parts = [[{ offset: 0n, length: 8192n }], [{ offset: 8192n, length: 4096n }, { offset: 40960n, length: 4096n }], [], [{ offset: 45056n, length: 8192n }]];
  const client = { async *mapLayers() { for (const part of parts) yield part; } } as unknown as ImageClient;
  const layer = (sizeBytes: bigint) => ({ pool: 1, inode: 1n, name: 'a', sizeBytes, parent: null, readonly: false, deleted: false, meta: null, raw: {} });
  const diff: LayerDiff = { to: layer(51200n), from: layer(16384n), layers: [layer(1n)] };
  const all: ChangedExtent[] = [];
  for await (const part of changedExtents(client, diff)) all.push(...part);
  assert.deepEqual(all, [
    { offset: 0n, length: 12288n, type: 'data' }, { offset: 16384n, length: 24576n, type: 'zero' }, { offset: 40960n, length: 10240n, type: 'data' },
  ]);
});
