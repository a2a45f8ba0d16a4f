// SPDX-License-Identifier: GPL-2.0-or-later
// Whole monitors on an etcd in memory: pools that change while PGs are at work.

import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { decodePgHistory, decodeText, isJsonObject } from '@vitastor/core';
import { POOL, cluster, healthy } from './healthy.js';

afterEach(() => cluster.stop());

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
