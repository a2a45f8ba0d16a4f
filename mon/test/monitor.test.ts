// SPDX-License-Identifier: GPL-2.0-or-later
// Whole monitors on an etcd in memory and a clock that stands still.

import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { decodeText, decodePgHistory, isJsonObject, type JsonObject } from '@vitastor/core';
import { TestCluster } from './support.js';

const POOL: JsonObject = {
  name: 'p',
  scheme: 'replicated',
  pg_size: 2,
  pg_minsize: 1,
  pg_count: 8,
  failure_domain: 'host',
};
let cluster = new TestCluster();

/** OSDs 1…n up, one pool, PGs made and active. */
async function healthy(osds = 3, pool: JsonObject = POOL): Promise<TestCluster> {
  cluster = new TestCluster();
  cluster.addMonitor();
  for (let num = 1; num <= osds; num++) cluster.osdUp(num);
  cluster.put('config/pools', { 1: pool });
  await cluster.clock.advance(3000);
  cluster.obey([1]);
  await cluster.clock.advance(3000);
  return cluster;
}

function historyOf(pool: number, pg: number): JsonObject | undefined {
  const value = cluster.json(`pg/history/${pool}/${pg}`);
  return isJsonObject(value) ? value : undefined;
}

afterEach(() => cluster.stop());

describe('creating PGs', () => {
  test('a pool with three OSDs gets its PGs, across hosts, with primaries', async () => {
    await healthy();
    const sets = cluster.sets(1);
    assert.equal(sets.length, 8);
    for (const set of sets) assert.equal(new Set(set).size, 2);
    cluster.primaries(1).forEach((primary, i) => assert.ok(sets[i]?.includes(primary)));
  });

  test('written as 3.0.8 writes it: decimal strings, 0 for an empty slot, a SHA-1', async () => {
    await healthy(1);
    const config = cluster.json('pg/config');
    assert.ok(isJsonObject(config));
    assert.match(String(config['hash']), /^[0-9a-f]{40}$/);
    assert.match(cluster.text('pg/config') ?? '', /"1":\{"osd_set":\["1",0\],"primary":"1"\}/);
    assert.deepEqual(cluster.json('pool/stats/1'), {
      used_raw_tb: 0,
      total_raw_tb: 0.00390625,
      pg_real_size: 1,
      raw_to_usable: 1,
      space_efficiency: 1,
    });
  });

  test('the first clean moment is remembered', async () => {
    await healthy();
    const clean = cluster.json('history/last_clean_pgs');
    const config = cluster.json('pg/config');
    assert.ok(isJsonObject(clean) && isJsonObject(config));
    assert.deepEqual(clean['items'], config['items']);
  });

  test('no OSD suits: no PGs, one complaint; later OSDs bring them', async () => {
    const member = (await healthy(0)).members[0];
    assert.deepEqual(cluster.sets(1), []);
    assert.equal(
      member?.log.lines.filter(({ text }) => /none of 0 OSDs suits/.test(text)).length,
      1,
    );
    cluster.osdUp(1);
    cluster.osdUp(2);
    await cluster.clock.advance(3000);
    assert.equal(cluster.sets(1).length, 8);
  });

  test('the log says why OSDs do not suit a pool, or are too few', async () => {
    await healthy(2);
    const member = cluster.members[0];
    cluster.put('config/pools', {
      1: { ...POOL, block_size: 4096 },
      2: { ...POOL, name: 'q', pg_size: 3 },
      3: { ...POOL, name: 'r', osd_tags: 'ssd' },
    });
    await cluster.clock.advance(3000);
    assert.ok(
      member?.log.has(/pool 1 .*none of 2 OSDs suits.*2 OSDs: block_size 131072 instead of 4096/),
    );
    assert.ok(member?.log.has(/pool 2 .*PGs have 2 of 3 members.*failure domain host/));
    assert.ok(member?.log.has(/pool 3 .*2 OSDs: no tag ssd/));
  });

  test('one invalid pool does not hold up the others, and keeps its PGs', async () => {
    await healthy();
    const before = cluster.sets(1);
    cluster.put('config/pools', {
      1: { ...POOL, pg_size: 'many' },
      2: { ...POOL, name: 'q', scheme: 'xor', pg_size: 3, pg_minsize: 2 },
    });
    await cluster.clock.advance(3000);
    assert.deepEqual(cluster.sets(1), before);
    assert.equal(cluster.sets(2).length, 8);
    assert.ok(cluster.members[0]?.log.has(/config\/pools, field 1\.pg_size/));
    cluster.osdDown(1);
    await cluster.clock.advance(100);
    assert.ok(!cluster.primaries(1).includes(1));
  });

  test('rules that cannot be read are named, and the pool is left alone', async () => {
    await healthy();
    const before = cluster.sets(1);
    cluster.put('config/pools', { 1: { ...POOL, raw_placement: 'any' } });
    await cluster.clock.advance(3000);
    assert.deepEqual(cluster.sets(1), before);
    assert.ok(cluster.members[0]?.log.has(/raw_placement: has 1 slots/));
  });
});

describe('OSDs that come and go', () => {
  test('a vanished OSD leads nothing at once, and keeps its place', async () => {
    await healthy();
    const before = cluster.sets(1);
    cluster.osdDown(1);
    await cluster.clock.advance(20);
    assert.ok(!cluster.primaries(1).includes(1), cluster.primaries(1).join());
    assert.deepEqual(cluster.sets(1), before);
    cluster.osdUp(1);
    await cluster.clock.advance(20);
    assert.ok(cluster.primaries(1).includes(1));
  });

  test('all gone: primary 0, sets kept; all back: as before', async () => {
    await healthy();
    const before = cluster.text('pg/config');
    const sets = cluster.sets(1);
    for (const num of [1, 2, 3]) cluster.osdDown(num);
    await cluster.clock.advance(700_000);
    assert.deepEqual(cluster.primaries(1), new Array(8).fill(0));
    assert.deepEqual(cluster.sets(1), sets);
    for (const num of [1, 2, 3]) cluster.osdUp(num);
    await cluster.clock.advance(5000);
    assert.equal(cluster.text('pg/config'), before);
  });

  test('out after osd_out_time, not a second earlier; histories name the earlier sets', async () => {
    await healthy(4);
    const before = cluster.sets(1);
    cluster.osdDown(4);
    const downAt = cluster.clock.nowMs();
    const left = 600_000 - downAt;
    await cluster.clock.advance(left - 10_000);
    assert.deepEqual(cluster.sets(1), before);
    for (const num of [1, 2, 3]) cluster.osdReport(num);
    await cluster.clock.advance(12_000);
    const after = cluster.sets(1);
    assert.ok(after.flat().every((num) => num !== 4));
    before.forEach((set, i) => {
      const moved = set.includes(4);
      assert.equal(historyOf(1, i + 1) !== undefined, moved || after[i]?.join() !== set.join());
      if (moved)
        assert.deepEqual(historyOf(1, i + 1), { epoch: 0, osd_sets: [set], all_peers: [] });
    });
    // It comes back before anything was clean: everything returns to where it was.
    cluster.osdUp(4);
    await cluster.clock.advance(3000);
    assert.deepEqual(cluster.sets(1), before);
  });

  test('half of the OSDs silent is an outage, not a loss: nothing moves until most are back', async () => {
    await healthy(5, { ...POOL, pg_count: 20 });
    const before = cluster.sets(1);
    for (const num of [1, 2, 3, 4, 5]) cluster.osdDown(num);
    await cluster.clock.advance(5_000_000);
    for (const num of [2, 3]) {
      cluster.osdUp(num);
      await cluster.clock.advance(5000);
      assert.deepEqual(cluster.sets(1), before);
    }
    assert.ok(cluster.members[0]?.log.has(/at least half of the OSDs that hold data are silent/));
    // Three of five: the other two are lost.
    cluster.osdUp(4);
    await cluster.clock.advance(5000);
    assert.deepEqual([...new Set(cluster.sets(1).flat())].sort(), [2, 3, 4]);
    for (const num of [1, 5]) cluster.osdUp(num);
    await cluster.clock.advance(5000);
    assert.deepEqual(cluster.sets(1), before);
  });

  test('OSDs that start one after another within a second are placed on together', async () => {
    cluster = new TestCluster();
    cluster.put('config/pools', { 1: POOL });
    cluster.addMonitor();
    for (const num of [1, 2, 3]) {
      await cluster.clock.advance(300);
      cluster.osdUp(num);
    }
    await cluster.clock.advance(3000);
    assert.ok(cluster.sets(1).every((set) => !set.includes(0)));
    assert.deepEqual(
      cluster.server.pairs().filter(({ key }) => key.includes('/pg/history/')),
      [],
    );
  });

  test('noout keeps it, reweight 0 takes its data away, tags filter', async () => {
    await healthy(4);
    cluster.put('config/osd/4', { noout: true });
    cluster.osdDown(4);
    await cluster.clock.advance(1_300_000);
    assert.ok(cluster.sets(1).flat().includes(4));
    for (const num of [1, 2, 3]) cluster.osdReport(num);
    cluster.put('config/osd/4', { noout: true, reweight: 0 });
    await cluster.clock.advance(3000);
    assert.ok(!cluster.sets(1).flat().includes(4));
    cluster.put('config/osd/1', { tags: 'ssd' });
    cluster.put('config/osd/2', { tags: ['ssd'] });
    cluster.put('config/pools', { 1: { ...POOL, osd_tags: 'ssd' } });
    await cluster.clock.advance(3000);
    assert.deepEqual([...new Set(cluster.sets(1).flat())].sort(), [1, 2]);
  });

  test('a new OSD takes its share and little else moves', async () => {
    await healthy(3, { ...POOL, pg_count: 24 });
    const before = cluster.sets(1);
    cluster.osdUp(4);
    await cluster.clock.advance(3000);
    const after = cluster.sets(1);
    const taken = after.flat().filter((num) => num === 4).length;
    assert.ok(taken >= 11 && taken <= 13, `OSD 4 got ${taken}`);
    const moved = after.reduce(
      (n, set, i) => n + set.filter((num) => !before[i]?.includes(num)).length,
      0,
    );
    assert.ok(moved <= taken + 4, `${moved} members moved for ${taken}`);
  });

  test('reports without news, and news without meaning, change nothing', async () => {
    await healthy();
    const revision = cluster.revisionOf('pg/config');
    for (let i = 0; i < 5; i++) {
      for (const num of [1, 2, 3]) cluster.osdReport(num, { free: 1000 * i });
      cluster.put('config/pools', { 1: { ...POOL, scrub_interval: `${i + 1}d` } });
      await cluster.clock.advance(2000);
    }
    assert.equal(cluster.revisionOf('pg/config'), revision);
  });

  test('an OSD that may not lead gets no primaries', async () => {
    await healthy();
    cluster.osdDown(2);
    cluster.osdUp(2, {}, { primary_enabled: false });
    await cluster.clock.advance(3000);
    assert.ok(!cluster.primaries(1).includes(2));
    assert.ok(cluster.sets(1).flat().includes(2));
  });
});

describe('changing pg_count', () => {
  for (const [from, to] of [
    [8, 16],
    [8, 4],
    [8, 12],
  ] as const) {
    test(`${from} → ${to}: paused first, moved when all have stopped`, async () => {
      await healthy(3, { ...POOL, pg_count: from });
      const old = cluster.sets(1);
      cluster.put('pgstats/1/1', { object_count: 5 });
      cluster.put('config/pools', { 1: { ...POOL, pg_count: to } });
      await cluster.clock.advance(3000);
      const paused = cluster.pgConfig.items.get(1) ?? [];
      assert.equal(paused.length, from);
      assert.ok(paused.every((item) => item.pause));
      assert.deepEqual(
        paused.map((item) => item.osdSet),
        old,
      );
      // Nothing goes on while one PG runs.
      await cluster.clock.advance(20_000);
      assert.equal(cluster.sets(1).length, from);
      cluster.obey([1]);
      await cluster.clock.advance(1000);
      const items = cluster.pgConfig.items.get(1) ?? [];
      assert.equal(items.length, to);
      assert.ok(items.every((item) => !item.pause && item.primary !== 0));
      assert.equal(cluster.text('pgstats/1/1'), undefined);
      for (let pg = 1; pg <= to; pg++) {
        const history = decodeText(decodePgHistory, cluster.text(`pg/history/1/${pg}`) ?? '{}');
        const named = history.osdSets.map((set) => [...set].sort().join());
        for (let stripe = pg - 1; stripe < from * to; stripe += to) {
          assert.ok(
            named.includes([...(old[stripe % from] ?? [])].sort().join()),
            `PG ${pg} forgets old PG ${(stripe % from) + 1}`,
          );
        }
      }
      for (let pg = to + 1; pg <= from; pg++)
        assert.equal(cluster.text(`pg/history/1/${pg}`), undefined);
      cluster.obey([1]);
      await cluster.clock.advance(2000);
      const clean = cluster.json('history/last_clean_pgs');
      assert.equal(
        Object.keys(
          isJsonObject(clean) && isJsonObject(clean['items']) && isJsonObject(clean['items']['1'])
            ? clean['items']['1']
            : {},
        ).length,
        to,
      );
    });
  }

  test('a pool that waits does not hold up another', async () => {
    await healthy();
    cluster.put('config/pools', { 1: { ...POOL, pg_count: 16 }, 2: { ...POOL, name: 'q' } });
    await cluster.clock.advance(3000);
    assert.equal(cluster.sets(2).length, 8);
    assert.equal(cluster.sets(1).length, 8);
    cluster.obey([1, 2]);
    await cluster.clock.advance(2000);
    assert.equal(cluster.sets(1).length, 16);
  });

  test('taken back while paused: the PGs go on', async () => {
    await healthy();
    const before = cluster.sets(1);
    cluster.put('config/pools', { 1: { ...POOL, pg_count: 16 } });
    await cluster.clock.advance(3000);
    cluster.put('config/pools', { 1: POOL });
    await cluster.clock.advance(3000);
    const items = cluster.pgConfig.items.get(1) ?? [];
    assert.ok(items.every((item) => !item.pause));
    assert.deepEqual(
      items.map((item) => item.osdSet),
      before,
    );
  });

  test('the next monitor finishes what the first began', async () => {
    await healthy();
    cluster.put('config/pools', { 1: { ...POOL, pg_count: 16 } });
    await cluster.clock.advance(3000);
    await Promise.all([cluster.members[0]?.monitor.stop(), cluster.clock.advance(5000)]);
    cluster.addMonitor();
    await cluster.clock.advance(3000);
    assert.ok((cluster.pgConfig.items.get(1) ?? []).every((item) => item.pause));
    cluster.obey([1]);
    await cluster.clock.advance(2000);
    assert.equal(cluster.sets(1).length, 16);
  });
});

describe('deleting a pool', () => {
  test('its PGs stop, then all its keys go; the same number may come again', async () => {
    await healthy();
    cluster.put('pg/history/1/1', { epoch: 3, osd_sets: [], all_peers: [] });
    cluster.put('pgstats/1/1', { object_count: 5 });
    cluster.put('config/pools', {});
    await cluster.clock.advance(3000);
    assert.ok((cluster.pgConfig.items.get(1) ?? []).every((item) => item.pause));
    cluster.obey([1]);
    await cluster.clock.advance(3000);
    assert.equal(cluster.pgConfig.items.get(1), undefined);
    for (const path of ['pg/history/1/1', 'pgstats/1/1', 'pool/stats/1'])
      assert.equal(cluster.text(path), undefined, path);
    assert.deepEqual(cluster.json('history/last_clean_pgs'), { items: {} });
    cluster.put('config/pools', { 1: { ...POOL, pg_size: 3 } });
    await cluster.clock.advance(3000);
    assert.equal(cluster.sets(1)[0]?.length, 3);
  });

  test('a missing or broken /config/pools deletes nothing', async () => {
    await healthy();
    const before = cluster.text('pg/config');
    cluster.server.put(cluster.keys.configPools, '{"1": {');
    await cluster.clock.advance(5000);
    assert.equal(cluster.text('pg/config'), before);
    cluster.server.delete(cluster.keys.configPools);
    await cluster.clock.advance(5000);
    assert.deepEqual(cluster.sets(1).length, 8);
    assert.ok((cluster.pgConfig.items.get(1) ?? []).every((item) => !item.pause));
  });
});

describe('several monitors', () => {
  test('one is master; the next takes over at once when it stops, and moves nothing', async () => {
    await healthy();
    cluster.addMonitor();
    cluster.addMonitor();
    await cluster.clock.advance(3000);
    assert.equal(cluster.masters.length, 1);
    const before = { text: cluster.text('pg/config'), revision: cluster.revisionOf('pg/config') };
    await Promise.all([cluster.members[0]?.monitor.stop(), cluster.clock.advance(1000)]);
    assert.equal(cluster.masters.length, 1);
    await cluster.clock.advance(5000);
    assert.deepEqual(
      { text: cluster.text('pg/config'), revision: cluster.revisionOf('pg/config') },
      before,
    );
    cluster.osdDown(1);
    await cluster.clock.advance(100);
    assert.ok(!cluster.primaries(1).includes(1));
  });

  test('a master cut off from etcd stops by its own clock; another takes over; it comes back as standby', async () => {
    await healthy();
    const first = cluster.members[0];
    assert.ok(first);
    const second = cluster.addMonitor();
    await cluster.clock.advance(3000);
    first.etcd.connected = false;
    await cluster.clock.advance(9_900);
    assert.notEqual(first.monitor.role, 'master');
    await cluster.clock.advance(10_000);
    assert.equal(second.monitor.role, 'master');
    first.etcd.connected = true;
    await cluster.clock.advance(20_000);
    assert.equal(first.monitor.role, 'standby');
    assert.deepEqual(cluster.masters, [second]);
  });

  test('a lease revoked by somebody else: thrown away, started anew', async () => {
    await healthy();
    const member = cluster.members[0];
    assert.ok(member);
    const old = member.monitor.id;
    cluster.server.revoke(BigInt(old));
    await cluster.clock.advance(10_000);
    assert.equal(member.monitor.role, 'master');
    assert.notEqual(member.monitor.id, old);
  });

  test('/mon/master and /mon/member say who is who', async () => {
    await healthy();
    const member = cluster.addMonitor();
    await cluster.clock.advance(3000);
    const id = cluster.members[0]?.monitor.id ?? '';
    assert.deepEqual(cluster.json('mon/master'), { ip: ['192.0.2.1'], hostname: 'mon1', id });
    assert.deepEqual(cluster.json(`mon/member/${id}`), { ip: ['192.0.2.1'], hostname: 'mon1' });
    assert.deepEqual(cluster.json(`mon/member/${member.monitor.id}`), {
      ip: ['192.0.2.1'],
      hostname: 'mon2',
    });
    const stopped = cluster.members[0]?.monitor.stop();
    await cluster.clock.advance(1000);
    await stopped;
    assert.equal(cluster.text(`mon/member/${id}`), undefined);
  });
});

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
    cluster = new TestCluster();
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
    cluster = new TestCluster();
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
    cluster = new TestCluster();
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

describe('settings', () => {
  test('/config/global changes them while running', async () => {
    await healthy();
    cluster.put('config/global', { osd_out_time: 20 });
    await cluster.clock.advance(2000);
    cluster.osdDown(3);
    for (const num of [1, 2]) cluster.osdReport(num);
    await cluster.clock.advance(25_000);
    assert.ok(!cluster.sets(1).flat().includes(3));
  });
});
