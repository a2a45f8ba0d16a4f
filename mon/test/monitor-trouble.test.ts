// SPDX-License-Identifier: GPL-2.0-or-later
// Whole monitors on an etcd in memory: etcd that misbehaves, garbage in it, records that others wrote.

import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { decodePgHistory, decodeText } from '@vitastor/core';
import { POOL, cluster, freshCluster, healthy, historyOf } from './healthy.js';

afterEach(() => cluster.stop());

describe('etcd that misbehaves', () => {
  test('conflicts: a history that changed meanwhile is read again and kept', async () => {
    await healthy(4);
    const lost = cluster.sets(1).findIndex((set) => set.includes(4));
    cluster.put('config/osd/4', { reweight: 0 });
    // The OSD writes its epoch in the moment in which the monitor is about to write: it has not
    // seen it yet.
    const member = cluster.members[0];
    assert.ok(member);
    member.etcd.delayMs = 200;
    for (let epoch = 1; epoch <= 40; epoch++) {
      cluster.put(`pg/history/1/${lost + 1}`, { epoch, osd_sets: [[1, 2, 3]], all_peers: [1] });
      await cluster.clock.advance(50);
    }
    await cluster.clock.advance(5000);
    assert.ok(!cluster.sets(1).flat().includes(4));
    const history = historyOf(1, lost + 1);
    assert.equal(history?.['epoch'], 40);
    assert.equal(Array.isArray(history?.['osd_sets']) && history['osd_sets'].length, 2);
  });

  // Seed 5034218 of the simulator: the set that a PG left stood in its history already, so the monitor did not touch it. Its primary, to which
  // everything had moved, cleared the history at the same time, and the next one did not know whom to wait for.
  test('a PG that moves: whoever changes its history by the old set must look again', async () => {
    await healthy(4);
    const moved = cluster.sets(1).findIndex((set) => set.includes(4));
    const path = `pg/history/1/${moved + 1}`;
    const left = [...(cluster.sets(1)[moved] ?? [])];
    cluster.put(path, { epoch: 3, osd_sets: [left], all_peers: left });
    const before = cluster.revisionOf(path);
    cluster.put('config/osd/4', { reweight: 0 });
    await cluster.clock.advance(5000);
    assert.notDeepEqual(cluster.sets(1)[moved], left);
    assert.deepEqual(historyOf(1, moved + 1)?.['osd_sets'], [left]);
    assert.notEqual(cluster.revisionOf(path), before);
  });

  test('a reply that is lost: looked up, not repeated blindly', async () => {
    await healthy();
    cluster.members[0]?.etcd.failNext('reply-lost');
    cluster.osdDown(1);
    await cluster.clock.advance(5000);
    assert.ok(!cluster.primaries(1).includes(1));
    assert.equal(cluster.members[0]?.monitor.role, 'master');
  });

  test('compaction under the watch: everything is loaded again', async () => {
    await healthy();
    const member = cluster.members[0];
    assert.ok(member);
    member.etcd.loseWatches();
    for (let i = 0; i < 10; i++) cluster.put('index/maxid/1', i);
    cluster.osdDown(2);
    cluster.server.compact();
    await cluster.clock.advance(5000);
    assert.ok(!cluster.primaries(1).includes(2));
    cluster.osdDown(3);
    await cluster.clock.advance(100);
    assert.deepEqual(
      [...new Set(cluster.primaries(1))].sort(),
      [0, 1].filter((num) => cluster.primaries(1).includes(num)),
    );
  });

  test('etcd restarts: watches resume, nothing moves', async () => {
    await healthy();
    const revision = cluster.revisionOf('pg/config');
    cluster.server.restart();
    await cluster.clock.advance(10_000);
    assert.equal(cluster.revisionOf('pg/config'), revision);
    assert.equal(cluster.members[0]?.monitor.role, 'master');
  });

  test('no etcd at the start: it waits and begins when there is one', async () => {
    freshCluster();
    const member = cluster.addMonitor();
    member.etcd.connected = false;
    cluster.osdUp(1);
    cluster.osdUp(2);
    cluster.put('config/pools', { 1: POOL });
    await cluster.clock.advance(60_000);
    assert.equal(member.monitor.role, 'starting');
    member.etcd.connected = true;
    await cluster.clock.advance(10_000);
    assert.equal(cluster.sets(1).length, 8);
  });
});

describe('garbage in etcd', () => {
  const PATHS = [
    'config/global',
    'config/pools',
    'config/node_placement',
    'config/osd/1',
    'config/inode/1/1',
    'index/image/x',
    'index/maxid/1',
    'pg/config',
    'history/last_clean_pgs',
    'pg/state/1/1',
    'pg/history/1/1',
    'pgstats/1/1',
    'pg/stats/1/1',
    'osd/stats/1',
    'osd/space/1',
    'osd/inodestats/1',
    'stats',
    'inode/stats/1/1',
    'pool/stats/1',
    'mon/member/123',
    'something/else',
  ];
  for (const garbage of ['{"a":', '[]', '"x"', '7', 'null', '{"items":7,"state":7,"1":7}']) {
    test(`${garbage} in any key, while running`, async () => {
      await healthy();
      const before = cluster.sets(1);
      for (const path of PATHS) {
        cluster.server.put(cluster.keys.at(path), garbage);
        await cluster.clock.advance(3000);
        assert.equal(cluster.members[0]?.monitor.role, 'master', path);
        assert.deepEqual(cluster.sets(1), before, path);
        assert.ok(
          (cluster.pgConfig.items.get(1) ?? []).every((item) => !item.pause),
          path,
        );
      }
      cluster.osdDown(3);
      await cluster.clock.advance(2000);
      assert.ok(!cluster.primaries(1).includes(3));
    });
  }

  test('found at the start: PGs that exist stay, new pools get theirs, the log names key and reason', async () => {
    await healthy(4);
    const before = cluster.sets(1);
    await Promise.all([cluster.members[0]?.monitor.stop(), cluster.clock.advance(1000)]);
    for (const path of ['config/global', 'config/node_placement', 'config/osd/1', 'osd/stats/4'])
      cluster.server.put(cluster.keys.at(path), '{');
    cluster.put('config/pools', { 1: POOL, 2: { ...POOL, name: 'q' } });
    const member = cluster.addMonitor();
    await cluster.clock.advance(5000);
    assert.deepEqual(cluster.sets(1), before);
    assert.equal(cluster.sets(2).length, 8);
    for (const path of ['config/global', 'config/node_placement', 'config/osd/1', 'osd/stats/4']) {
      assert.ok(member.log.has(new RegExp(`${path}.*not valid JSON`)), path);
      assert.ok(
        member.log.has(new RegExp(`${path} cannot be read`)) || path === 'config/global',
        path,
      );
    }
    // Repaired: the frozen pool is looked at again.
    for (const path of ['config/global', 'config/node_placement', 'config/osd/1'])
      cluster.put(path, {});
    cluster.osdReport(4);
    cluster.put('config/osd/4', { reweight: 0 });
    await cluster.clock.advance(5000);
    assert.ok(!cluster.sets(1).flat().includes(4));
  });

  test('an unreadable /pg/config at the start is left alone', async () => {
    await healthy();
    await Promise.all([cluster.members[0]?.monitor.stop(), cluster.clock.advance(1000)]);
    cluster.server.put(cluster.keys.pgConfig, '{"items"');
    const member = cluster.addMonitor();
    await cluster.clock.advance(10_000);
    assert.equal(cluster.text('pg/config'), '{"items"');
    assert.ok(member.log.has(/pg\/config cannot be read/));
  });

  test('an unreadable history keeps its pool where it is', async () => {
    await healthy(4);
    await Promise.all([cluster.members[0]?.monitor.stop(), cluster.clock.advance(1000)]);
    const before = cluster.sets(1);
    cluster.server.put(cluster.keys.pgHistory(1, 2), 'oops');
    cluster.put('config/osd/4', { reweight: 0 });
    const member = cluster.addMonitor();
    await cluster.clock.advance(5000);
    assert.deepEqual(cluster.sets(1), before);
    assert.ok(member.log.has(/pg\/history\/1\/2 cannot be read/));
    cluster.server.delete(cluster.keys.pgHistory(1, 2));
    await cluster.clock.advance(5000);
    assert.ok(!cluster.sets(1).flat().includes(4));
  });
});

describe('records of others', () => {
  test('a map written by hand (numbers, no hash) is kept; hash "" asks for a new one', async () => {
    freshCluster();
    for (const num of [1, 2, 3]) cluster.osdUp(num);
    cluster.put('config/pools', { 1: { ...POOL, pg_count: 3 } });
    const items = {
      1: {
        1: { osd_set: [2, 1], primary: 1 },
        2: { osd_set: [3, 2], primary: 2 },
        3: { osd_set: [1, 3], primary: 3 },
      },
    };
    cluster.put('pg/config', { items });
    cluster.addMonitor();
    await cluster.clock.advance(3000);
    assert.deepEqual(cluster.sets(1), [
      [2, 1],
      [3, 2],
      [1, 3],
    ]);
    assert.match(cluster.pgConfig.hash, /^[0-9a-f]{40}$/);
    cluster.put('pg/config', {
      hash: '',
      items: { 1: { 1: { osd_set: [2, 1] }, 2: { osd_set: [2, 1] }, 3: { osd_set: [2, 1] } } },
    });
    await cluster.clock.advance(3000);
    assert.deepEqual([...new Set(cluster.sets(1).flat())].sort(), [1, 2, 3]);
    assert.deepEqual(
      decodeText(decodePgHistory, cluster.text('pg/history/1/1') ?? '{}').osdSets.length <= 1,
      true,
    );
  });

  test('the old key is mirrored while it exists, and read where the new one is missing', async () => {
    freshCluster();
    for (const num of [1, 2]) cluster.osdUp(num);
    cluster.put('config/pools', { 1: { ...POOL, pg_count: 1 } });
    cluster.put('config/pgs', { hash: 'x', items: { 1: { 1: { osd_set: [2, 1], primary: 2 } } } });
    cluster.addMonitor();
    await cluster.clock.advance(3000);
    assert.deepEqual(cluster.sets(1), [[2, 1]]);
    assert.equal(cluster.text('config/pgs'), cluster.text('pg/config'));
    cluster.osdDown(2);
    await cluster.clock.advance(100);
    assert.equal(cluster.text('config/pgs'), cluster.text('pg/config'));
  });

  test('a PG map that vanished is made again from the last clean one, with its sets in the histories', async () => {
    await healthy();
    const before = cluster.sets(1);
    for (const num of [1, 2, 3]) cluster.osdDown(num);
    cluster.server.delete(cluster.keys.pgConfig);
    await cluster.clock.advance(3000);
    for (const num of [1, 2, 3]) cluster.osdUp(num);
    await cluster.clock.advance(3000);
    assert.deepEqual(cluster.sets(1), before);
  });
});
