// SPDX-License-Identifier: GPL-2.0-or-later
// Whole monitors on an etcd in memory and a clock that stands still: OSDs that come and go, several monitors.

import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { isJsonObject } from '@vitastor/core';
import { POOL, cluster, freshCluster, healthy, historyOf } from './healthy.js';

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
    freshCluster();
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
