// SPDX-License-Identifier: GPL-2.0-or-later
// The cluster that tests of whole monitors begin with. One a test file at a time: `cluster` is the newest.

import { isJsonObject, type JsonObject } from '@vitastor/core';
import { TestCluster } from './support.js';

export const POOL: JsonObject = {
  name: 'p',
  scheme: 'replicated',
  pg_size: 2,
  pg_minsize: 1,
  pg_count: 8,
  failure_domain: 'host',
};
export let cluster = new TestCluster();

/** An empty one: no monitor, no OSD. */
export function freshCluster(): void {
  cluster = new TestCluster();
}

/** OSDs 1…n up, one pool, PGs made and active. */
export async function healthy(osds = 3, pool: JsonObject = POOL): Promise<TestCluster> {
  freshCluster();
  cluster.addMonitor();
  for (let num = 1; num <= osds; num++) cluster.osdUp(num);
  cluster.put('config/pools', { 1: pool });
  await cluster.clock.advance(3000);
  cluster.obey([1]);
  await cluster.clock.advance(3000);
  return cluster;
}

export function historyOf(pool: number, pg: number): JsonObject | undefined {
  const value = cluster.json(`pg/history/${pool}/${pg}`);
  return isJsonObject(value) ? value : undefined;
}
