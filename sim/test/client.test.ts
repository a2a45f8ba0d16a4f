// SPDX-License-Identifier: GPL-2.0-or-later
// What a client sends again after a lost connection, in pools where a write alone is not durable, never undoes newer writes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ClientProcess } from '../src/client.js';
import type { SimCluster } from '../src/cluster.js';
import { runUntil } from '../src/driver.js';
import type { Shape } from '../src/shape.js';
import { withTwoCopies } from './two-copies.js';

const BLOCK = 131072;

interface Lazy {
  cluster: SimCluster;
  client: ClientProcess;
  /** Lets virtual time pass. */
  after: (ms: number) => Promise<void>;
  /** Runs until the operation is answered. */
  answerOf: (start: (done: (result: number) => void) => void) => Promise<number>;
  /** Fills the first bytes of the image. */
  write: (value: number, length?: number) => Promise<void>;
  flush: () => Promise<void>;
  /** First byte and version of the image's first object. */
  read: () => Promise<{ value: number; version: bigint }>;
  /** Whatever was not flushed is sent again over new connections. */
  loseConnections: () => Promise<void>;
}

/** One client and its image in a pool of two copies and mode none. */
async function withLazyImage(work: (lazy: Lazy) => Promise<void>, more: Partial<Shape> = {}): Promise<void> {
  const shape = { ...more, immediateCommit: 'none' as const, blockSize: BLOCK, imageBytes: BLOCK, disk: { sizeBytes: 96n << 20n, volatileCache: true }, network: {} };
  await withTwoCopies(shape, async ({ cluster, client, until }) => {
    const answerOf = async (start: (done: (result: number) => void) => void): Promise<number> => {
      const results: number[] = [];
      start((result) => results.push(result));
      assert.ok(await until(() => results.length > 0));
      return results[0] ?? -1;
    };
    await work({
      cluster, client, answerOf,
      after: async (ms) => void (await runUntil(cluster.world, cluster.clock, cluster.clock.nowMs() + ms, () => false)),
      write: async (value, length = 4096) =>
        assert.equal(await answerOf((done) => client.native?.write(1, 0n, new Uint8Array(length).fill(value), done)), length),
      flush: async () => assert.equal(await answerOf((done) => client.native?.flush(1, done)), 0),
      read: async () => {
        let version = 0n;
        const value = await answerOf((done) => client.native?.read(1, 0n, 4096, (_result, at, data) => {
          version = at;
          done(data[0] ?? -1);
        }));
        return { value, version };
      },
      loseConnections: async () => {
        for (const num of cluster.osds.keys()) cluster.world.killConnections(client.node, cluster.nodeOf(num));
        await runUntil(cluster.world, cluster.clock, cluster.clock.nowMs() + 5000, () => false);
      },
    });
  });
}

test('an image that is opened again stays one image, with one account of what is not flushed', () =>
  withLazyImage(async ({ client, answerOf, write, flush, read, loseConnections }) => {
    const open = async (): Promise<void> => assert.equal(await answerOf((done) => client.open(1, 'image1', done)), 0);
    await open();
    await write(1);
    await open();
    await write(2);
    await flush();
    await loseConnections();
    assert.equal((await read()).value, 2);
  }));

test('a deletion from before a compare-and-set is not repeated after it', () =>
  withLazyImage(async ({ client, answerOf, write, flush, read, loseConnections }) => {
    await answerOf((done) => client.open(1, 'image1', done));
    await write(1, BLOCK);
    await flush();
    assert.ok((await answerOf((done) => client.native?.discard(1, 0n, BLOCK, done))) >= 0);
    const { version } = await read();
    assert.equal(await answerOf((done) => client.native?.compareWrite(1, 0n, new Uint8Array(4096).fill(2), version, done)), 4096);
    await loseConnections();
    assert.equal((await read()).value, 2);
  }));

test('a flush that waited for an autosync is not answered while what a lost OSD had is counted', () =>
  withLazyImage(
    async ({ cluster, client, answerOf, after, write, read }) => {
      await answerOf((done) => client.open(1, 'image1', done));
      await write(1);
      const [one, two] = [cluster.nodeOf(1), cluster.nodeOf(2)];
      cluster.link(one, two, 'cut');
      await after(2500);
      const answers: number[] = [];
      client.native?.flush(1, (result) => answers.push(result));
      await after(100);
      cluster.world.killConnections(one, two);
      await after(1000);
      assert.deepEqual(answers, []);
      cluster.link(one, two, 'heal');
      await after(10_000);
      assert.deepEqual(answers, [0]);
      assert.equal((await read()).value, 1);
    },
    { autosyncInterval: 1 },
  ));
