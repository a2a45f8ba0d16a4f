// SPDX-License-Identifier: GPL-2.0-or-later
// A cluster without surprises for tests of one client: two OSDs, one PG of two copies, one image, no faults.
import assert from 'node:assert/strict';
import { HighsSolver } from '@vitastor/mon';
import type { ClientProcess } from '../src/client.js';
import { SimCluster } from '../src/cluster.js';
import { runUntil } from '../src/driver.js';
import { loadNative } from '../src/native.js';
import { SeededRandom } from '../src/rng.js';
import { drawShape, type Shape } from '../src/shape.js';

export interface TwoCopies {
  cluster: SimCluster;
  client: ClientProcess;
  /** Runs until `done`, at most a minute of virtual time: whether it came. */
  until: (done: () => boolean) => Promise<boolean>;
}

/** The cluster is clean when `work` begins, and gone when it has ended. */
export async function withTwoCopies<T>(more: Partial<Shape>, work: (rig: TwoCopies) => Promise<T>): Promise<T> {
  const shape: Shape = {
    ...drawShape(new SeededRandom(1n, 'shape')), scheme: 'replicated', parityChunks: 0, osds: 2, hosts: 2, pgSize: 2, pgMinSize: 1, pgCount: 1,
    localReads: 'primary', pgLocks: false, clients: 1, images: 1, driftPpm: [], etcdDelayMs: 0, monitors: 1, autosyncInterval: null, autosyncWrites: null,
    ...more,
  };
  const cluster = new SimCluster({ native: loadNative(process.env['VITASTOR_BUILD_DIR']), solver: await HighsSolver.load(), seed: 1n, shape, trace: null });
  try {
    const until = (done: () => boolean): Promise<boolean> => runUntil(cluster.world, cluster.clock, cluster.clock.nowMs() + 60_000, done);
    cluster.start();
    assert.ok(await until(() => cluster.allClean));
    const [client] = cluster.clients;
    assert.ok(client);
    return await work({ cluster, client, until });
  } finally {
    cluster.destroy();
  }
}
