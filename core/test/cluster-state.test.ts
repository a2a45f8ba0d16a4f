// SPDX-License-Identifier: GPL-2.0-or-later

import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { ClusterState, PATHS_ALL, PATHS_OSD, type ChangeSet, type ClusterStateOptions } from '../src/cluster-state.js';
import { problemText } from '../src/decode.js';
import { isVitastorError, type VitastorError } from '../src/errors.js';
import { KeySpace } from '../src/schema/keys.js';
import { MemoryEtcd, type MemoryEtcdClient } from '../src/seams/memory-etcd.js';
import { settle, VirtualClock } from '../src/seams/virtual-clock.js';

const keys = new KeySpace();

interface Rig {
  clock: VirtualClock;
  server: MemoryEtcd;
  etcd: MemoryEtcdClient;
  state: ClusterState;
  sets: ChangeSet[];
  troubles: string[];
  problems: string[];
  fatal: VitastorError[];
}

let open: Rig[] = [];

function rig(options: Partial<ClusterStateOptions> = {}): Rig {
  const clock = new VirtualClock();
  const server = new MemoryEtcd(clock);
  const etcd = server.client();
  const [sets, troubles, problems, fatal]: [ChangeSet[], string[], string[], VitastorError[]] = [[], [], [], []];
  const state = new ClusterState({
    etcd, clock, keys, paths: PATHS_ALL, onChange: (set) => sets.push(set), onTrouble: (text) => troubles.push(text),
    onProblem: (problem) => problems.push(problemText(problem)), onFatal: (error) => fatal.push(error), ...options,
  });
  const result = { clock, server, etcd, state, sets, troubles, problems, fatal };
  open.push(result);
  return result;
}

/** Runs what start() needs on a clock that stands still otherwise. */
async function start(r: Rig): Promise<void> {
  const started = r.state.start();
  await r.clock.advance(0);
  await started;
  await r.clock.advance(0);
}

const names = (set: ChangeSet | undefined): string[] => (set?.changes ?? []).map((c) => `${c.deleted ? '-' : '+'}${c.key.slice('/vitastor/'.length)}`);

describe('cluster state', () => {
  afterEach(() => {
    for (const r of open) {
      r.state.stop();
      r.etcd.close();
      r.server.stop();
      assert.equal(r.clock.pending, 0, 'stop() leaves no timer');
    }
    open = [];
  });

  test('loads, then follows; changes of one turn come together, last of each key', async () => {
    const r = rig();
    r.server.put(keys.osdState(1), '{"state":"up"}');
    await start(r);
    assert.deepEqual([names(r.sets[0]), r.sets[0]?.reloaded], [['+osd/state/1'], true]);
    r.server.put(keys.osdState(2), '{"state":"up"}');
    r.server.put(keys.osdState(3), '{"state":"up"}');
    r.server.delete(keys.osdState(2));
    r.server.delete(keys.osdState(1));
    await r.clock.advance(0);
    assert.equal(r.sets.length, 2);
    assert.deepEqual([names(r.sets[1]).sort(), r.sets[1]?.reloaded], [['+osd/state/3', '-osd/state/1', '-osd/state/2'], false]);
    assert.deepEqual([...r.state.view.osdStates.keys()], [3]);
    assert.equal(r.state.view.revision, r.server.revision);
  });

  test('keeps to its paths', async () => {
    const r = rig({ paths: PATHS_OSD });
    r.server.put(keys.osdStats(1), '{}');
    r.server.put(keys.pgState(1, 1), '{"primary":1,"state":["active"],"peers":[1]}');
    r.server.put('/vitastor2/config/global', '{}');
    await start(r);
    r.server.put(keys.osdStats(2), '{}');
    await r.clock.advance(0);
    assert.deepEqual([names(r.sets[0]), r.sets.length], [['+pg/state/1/1'], 1]);
  });

  test('a lost watch is resumed where it stopped', async () => {
    const r = rig();
    await start(r);
    r.etcd.connected = false;
    r.server.put(keys.osdState(1), '{"state":"up"}');
    await r.clock.advance(10_000);
    assert.equal(r.state.view.osdStates.size, 0);
    r.etcd.connected = true;
    await r.clock.advance(1000);
    assert.equal(r.state.view.osdStates.size, 1);
    assert.equal(r.sets.filter((s) => s.reloaded).length, 1, 'without a reload');
    assert.match(r.troubles[0] ?? '', /lost/);
  });

  for (const reason of ['compacted', 'cancelled'] as const) {
    test(`a watch that was ${reason} leads to a full reload; what vanished meanwhile is deleted`, async () => {
      const r = rig();
      r.server.put(keys.osdState(1), '{"state":"up"}');
      r.server.put(keys.configInode(1, 1n), '{"name":"a","size":1}');
      await start(r);
      r.etcd.connected = false;
      r.server.delete(keys.osdState(1));
      r.server.delete(keys.configInode(1, 1n));
      r.server.put(keys.osdState(2), '{"state":"up"}');
      r.server.put('/x', '1');
      if (reason === 'compacted') r.server.compact();
      r.etcd.connected = true;
      if (reason === 'cancelled') r.etcd.loseWatches('cancelled');
      await r.clock.advance(5000);
      if (reason === 'cancelled') {
        r.etcd.loseWatches('cancelled');
        await r.clock.advance(5000);
      }
      assert.equal(r.sets.at(-1)?.reloaded, true);
      assert.deepEqual([[...r.state.view.osdStates.keys()], r.state.view.imageByName('a')], [[2], null]);
      r.server.put(keys.osdState(3), '{"state":"up"}');
      await r.clock.advance(0);
      assert.deepEqual([...r.state.view.osdStates.keys()], [2, 3], 'and it goes on following');
    });
  }

  test('reloads keep their distance', async () => {
    const r = rig({ minReloadIntervalMs: 1000 });
    await start(r);
    r.etcd.loseWatches('cancelled');
    await r.clock.advance(999);
    assert.equal(r.sets.filter((s) => s.reloaded).length, 1);
    await r.clock.advance(1);
    await r.clock.advance(0);
    assert.equal(r.sets.filter((s) => s.reloaded).length, 2);
  });

  test('etcd away at the start: loads until it is there', async () => {
    const r = rig({ loadTimeoutMs: 5000, retryPauseMs: 1000 });
    r.etcd.connected = false;
    const started = r.state.start();
    await r.clock.advance(20_000);
    assert.ok(r.troubles.length >= 3);
    r.etcd.connected = true;
    await r.clock.advance(6000);
    await started;
  });

  test('load(): bounded attempts, then the error', async () => {
    const r = rig();
    r.etcd.failNext('unavailable', 'unavailable', 'unavailable');
    const loaded = r.state.load({ attempts: 3, timeoutMs: 1000 });
    const rejected = assert.rejects(loaded, (error) => isVitastorError(error, 'ERR_ETCD_UNAVAILABLE'));
    await r.clock.advance(1000);
    await rejected;
    r.etcd.failNext('unavailable', 'reply-lost');
    const second = r.state.load({ attempts: 3, timeoutMs: 1000 });
    await r.clock.advance(2000);
    await second;
  });

  test('stop() during the pause between two loads ends start()', async () => {
    const r = rig({ retryPauseMs: 5000 });
    r.etcd.failNext('unavailable');
    const started = r.state.start();
    await r.clock.advance(10);
    r.state.stop();
    await assert.rejects(started, (error) => isVitastorError(error, 'ERR_ABORTED'));
  });

  test('the guard: a lost lease ends it, also at a reload', async () => {
    const r = rig({ guard: () => [{ target: 'lease', key: keys.osdState(1), result: 'equal', value: lease }] });
    const lease = r.server.grant(10);
    r.server.apply({ compare: [], success: [{ op: 'put', key: keys.osdState(1), value: '{"state":"up"}', lease }] });
    await start(r);
    r.server.revoke(lease);
    r.etcd.loseWatches('cancelled');
    await r.clock.advance(1000);
    await settle();
    assert.equal(r.fatal[0]?.code, 'ERR_LEASE_LOST');
  });

  test('a bad value is reported and the rest works', async () => {
    const r = rig();
    await start(r);
    r.server.put(keys.configPools, '{2:{}}');
    r.server.put(keys.osdState(1), '{"state":"up"}');
    await r.clock.advance(0);
    assert.match(r.problems.join(), /^key \/vitastor\/config\/pools: not valid JSON at line 1, column 2: expected a name in double quotes$/);
    assert.equal(r.state.view.osdStates.size, 1);
  });
});
