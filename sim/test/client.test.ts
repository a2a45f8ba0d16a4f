// SPDX-License-Identifier: GPL-2.0-or-later
// Client processes of the simulator: an image that is opened again stays one image, with one account of what is not flushed.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HighsSolver } from '@vitastor/mon';
import { SimCluster } from '../src/cluster.js';
import { runUntil } from '../src/driver.js';
import { loadNative } from '../src/native.js';
import { SeededRandom } from '../src/rng.js';
import { drawShape } from '../src/shape.js';

test('a lazy write from before the image was opened again does not come back over a newer one', async () => {
  const shape = {
    ...drawShape(new SeededRandom(1n, 'shape')), scheme: 'replicated' as const, parityChunks: 0, osds: 2, hosts: 2, pgSize: 2, pgMinSize: 1, pgCount: 1,
    localReads: 'primary' as const, pgLocks: false, immediateCommit: 'none' as const, clients: 1, images: 1, driftPpm: [], etcdDelayMs: 0, monitors: 1,
    autosyncInterval: null, autosyncWrites: null, disk: { sizeBytes: 96n << 20n, volatileCache: true }, network: {},
  };
  const cluster = new SimCluster({ native: loadNative(process.env['VITASTOR_BUILD_DIR']), solver: await HighsSolver.load(), seed: 1n, shape, trace: () => undefined });
  try {
    const until = (done: () => boolean): Promise<boolean> => runUntil(cluster.world, cluster.clock, cluster.clock.nowMs() + 60_000, done);
    cluster.start();
    assert.ok(await until(() => cluster.allClean));
    const [client] = cluster.clients;
    assert.ok(client);
    const open = async (times: number): Promise<void> => {
      const results: number[] = [];
      for (let i = 0; i < times; i++) client.open(1, 'image1', (result) => results.push(result));
      assert.ok(await until(() => results.length === times));
      assert.ok(results.every((result) => result === 0));
    };
    const answerOf = async (start: (done: (result: number) => void) => void): Promise<number> => {
      const results: number[] = [];
      start((result) => results.push(result));
      assert.ok(await until(() => results.length > 0));
      return results[0] ?? -1;
    };
    const write = async (value: number): Promise<void> =>
      assert.equal(await answerOf((done) => client.native?.write(1, 0n, new Uint8Array(4096).fill(value), done)), 4096);
    await open(2);
    await write(1);
    await open(1);
    await write(2);
    assert.equal(await answerOf((done) => client.native?.flush(1, done)), 0);
    // Whatever was not flushed is sent again over the new connections.
    for (const num of cluster.osds.keys()) cluster.world.killConnections(client.node, cluster.nodeOf(num));
    await runUntil(cluster.world, cluster.clock, cluster.clock.nowMs() + 5000, () => false);
    assert.equal(await answerOf((done) => client.native?.read(1, 0n, 4096, (_result, _version, data) => done(data[0] ?? -1))), 2);
  } finally {
    cluster.destroy();
  }
});
