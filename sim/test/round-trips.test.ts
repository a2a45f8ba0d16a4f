// SPDX-License-Identifier: GPL-2.0-or-later
// Round trips, counted: every message takes one unit of time, disks take none. A change that adds one fails here.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CommitMode } from '../src/shape.js';
import { withTwoCopies, type TwoCopies } from './two-copies.js';

const ONE_WAY_MS = 1;

const LOCAL_EC = { scheme: 'ec', pgSize: 3, parityChunks: 1, pgMinSize: 2, osds: 3, hosts: 3, blockSize: 131072, imageBytes: 8 * 262144 } as const;

/** Counts round trips of one operation, which must succeed. */
function counter({ cluster, until }: Pick<TwoCopies, 'cluster' | 'until'>): (start: (done: (result: number) => void) => void) => Promise<number> {
  return async (start) => {
    const beganMs = cluster.clock.nowMs();
    let result: number | null = null;
    let endMs = 0;
    start((value) => {
      result = value;
      endMs = cluster.clock.nowMs();
    });
    assert.ok(await until(() => result !== null));
    assert.ok((result ?? -1) >= 0, `answered ${result}`);
    return Math.round((endMs - beganMs) / (2 * ONE_WAY_MS));
  };
}

/** Round trips of a read of each chunk of an object of an EC 2+1 pool. */
async function chunkReads(localReads: 'primary' | 'nearest' | 'random'): Promise<number[]> {
  const disk = { sizeBytes: 96n << 20n, volatileCache: false, latencyNs: 0, jitterNs: 0, syncLatencyNs: 0, bytesPerUs: 0 };
  const network = { latencyNs: ONE_WAY_MS * 1e6, jitterNs: 0, bytesPerUs: 0, shortChance: 0, killChance: 0 };
  return await withTwoCopies({ ...LOCAL_EC, immediateCommit: 'all', localReads, disk, network }, async ({ cluster, client, until }) => {
    const ended = counter({ cluster, until });
    await ended((done) => client.open(1, 'image1', done));
    await ended((done) => client.native?.write(1, 0n, new Uint8Array(262144).fill(1), done));
    const trips: number[] = [];
    for (const chunk of [0n, 1n]) {
      const read = (done: (result: number) => void): void => client.native?.read(1, chunk * 131072n, 4096, done);
      // The first ones connect, and wait until the version is stable.
      for (let i = 0; i < 20; i++) await ended(read);
      trips.push(await ended(read));
    }
    return trips;
  });
}

test('with local reads a read of an erasure-coded object takes one round trip, whoever holds the chunk', async () => {
  assert.deepEqual(await chunkReads('nearest'), [1, 1]);
  assert.deepEqual(await chunkReads('random'), [1, 1]);
  assert.deepEqual((await chunkReads('primary')).sort(), [1, 2]);
});

/** Round trips of a read, a write, and a write with a flush, of the first client. */
async function measure(immediateCommit: CommitMode): Promise<{ read: number; write: number; flushed: number }> {
  const disk = { sizeBytes: 96n << 20n, volatileCache: immediateCommit !== 'all', latencyNs: 0, jitterNs: 0, syncLatencyNs: 0, bytesPerUs: 0 };
  const network = { latencyNs: ONE_WAY_MS * 1e6, jitterNs: 0, bytesPerUs: 0, shortChance: 0, killChance: 0 };
  return await withTwoCopies({ immediateCommit, disk, network }, async ({ cluster, client, until }) => {
    const trips = counter({ cluster, until });
    const data = new Uint8Array(4096).fill(1);
    const write = (done: (result: number) => void): void => client.native?.write(1, 0n, data, done);
    const flush = (done: (result: number) => void): void => client.native?.flush(1, done);
    await trips((done) => client.open(1, 'image1', done));
    await trips(write);
    await trips(flush);
    const read = await trips((done) => client.native?.read(1, 0n, 4096, done));
    const written = await trips(write);
    return { read, write: written, flushed: written + (await trips(flush)) };
  });
}

test('a read takes one round trip, a replicated write two', async () => {
  const { read, write } = await measure('all');
  assert.deepEqual({ read, write }, { read: 1, write: 2 });
});

test('a lazy write and its flush take at most four round trips', async () => {
  const { read, flushed } = await measure('none');
  assert.equal(read, 1);
  assert.ok(flushed <= 4, `${flushed} round trips`);
});
