// SPDX-License-Identifier: GPL-2.0-or-later

import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { isJsonObject, type JsonObject, type JsonValue } from '@vitastor/core';
import { GIB, TestCluster } from './support.js';

const POOL: JsonObject = {
  name: 'p',
  scheme: 'replicated',
  pg_size: 2,
  pg_minsize: 1,
  pg_count: 2,
};
let cluster = new TestCluster();

function at(value: JsonValue | undefined, ...path: string[]): JsonValue | undefined {
  return path.reduce<JsonValue | undefined>(
    (v, name) => (isJsonObject(v) ? v[name] : undefined),
    value,
  );
}

function report(
  num: number,
  ops: JsonObject,
  inodes: JsonObject = {},
  space: JsonObject = {},
): void {
  cluster.put(`osd/inodestats/${num}`, inodes);
  cluster.put(`osd/space/${num}`, space);
  cluster.osdReport(num, {
    op_stats: ops,
    subop_stats: { write: { count: 5, usec: 50 } },
    recovery_stats: { degraded: { count: 1, bytes: 2, usec: 3 } },
  });
}

async function start(): Promise<void> {
  cluster = new TestCluster();
  cluster.addMonitor();
  for (const num of [1, 2]) cluster.osdUp(num);
  cluster.put('config/pools', { 1: POOL });
  await cluster.clock.advance(5000);
}

afterEach(() => cluster.stop());

describe('statistics', () => {
  test('rates from two reports, latencies weighed by iops, down OSDs left out of rates and kept in space', async () => {
    await start();
    const io = (count: number, usec: number, bytes: number): JsonObject => ({
      read: { count, usec, bytes },
    });
    report(
      1,
      { primary_read: { count: 100, usec: 1000, bytes: 4096 } },
      { 1: { 7: io(100, 1000, 4096) } },
      { 1: { 7: 1000 } },
    );
    report(2, { primary_read: { count: 10, usec: 10, bytes: 10 } }, {}, { 1: { 7: 24 } });
    await cluster.clock.advance(2000);
    assert.deepEqual(
      at(cluster.json('stats'), 'op_stats', 'primary_read'),
      // 100 in 5 s at 10 µs and 10 in 5 s at 1 µs.
      { count: '110', usec: '1010', bytes: '4106', bps: '821', iops: '22', lat: '9' },
    );
    report(
      1,
      { primary_read: { count: 300, usec: 5000, bytes: 12288 } },
      { 1: { 7: io(300, 5000, 12288) } },
      { 1: { 7: 1000 } },
    );
    report(2, { primary_read: { count: 210, usec: 12010, bytes: 10 } }, {}, { 1: { 7: 24 } });
    await cluster.clock.advance(2000);
    // OSD 1: 200 in 2 s at 20 µs; OSD 2: 200 in 2 s at 60 µs.
    assert.deepEqual(at(cluster.json('stats'), 'op_stats', 'primary_read'), {
      count: '510',
      usec: '17010',
      bytes: '12298',
      bps: '4096',
      iops: '200',
      lat: '40',
    });
    assert.deepEqual(at(cluster.json('stats'), 'subop_stats', 'write'), {
      count: '10',
      usec: '100',
      iops: '0',
      lat: '0',
    });
    assert.deepEqual(at(cluster.json('stats'), 'recovery_stats', 'degraded'), {
      count: '2',
      bytes: '4',
      bps: '0',
      iops: '0',
    });
    assert.equal(at(cluster.json('inode/stats/1/7'), 'raw_used'), '1024');
    assert.deepEqual(at(cluster.json('inode/stats/1/7'), 'read'), {
      count: '300',
      usec: '5000',
      bytes: '12288',
      bps: '4096',
      iops: '100',
      lat: '20',
    });
    assert.equal(at(cluster.json('pool/stats/1'), 'used_raw_tb'), 1024 / 2 ** 40);
    cluster.osdDown(1);
    await cluster.clock.advance(2000);
    assert.deepEqual(at(cluster.json('stats'), 'op_stats', 'primary_read'), {
      count: '210',
      usec: '12010',
      bytes: '10',
      bps: '0',
      iops: '100',
      lat: '60',
    });
    assert.equal(at(cluster.json('inode/stats/1/7'), 'raw_used'), '1024');
  });

  test('an OSD that starts anew counts from 0: no negative rates', async () => {
    await start();
    report(1, { write: { count: 100, usec: 1000, bytes: 4096 } });
    await cluster.clock.advance(2000);
    report(1, { write: { count: 3, usec: 30, bytes: 300 } });
    await cluster.clock.advance(2000);
    assert.deepEqual(at(cluster.json('stats'), 'op_stats', 'write'), {
      count: '3',
      usec: '30',
      bytes: '300',
      bps: '0',
      iops: '0',
      lat: '0',
    });
  });

  test('records of images that are gone vanish; those of images that are there stay', async () => {
    await start();
    cluster.put('config/inode/1/8', { name: 'x', size: 1 });
    cluster.put('inode/stats/1/8', { raw_used: '5' });
    cluster.put('inode/stats/1/9', { raw_used: '5' });
    cluster.put('pool/stats/77', { used_raw_tb: 1 });
    report(1, {});
    await cluster.clock.advance(3000);
    assert.equal(at(cluster.json('inode/stats/1/8'), 'raw_used'), '0');
    assert.equal(cluster.text('inode/stats/1/9'), undefined);
    assert.equal(cluster.text('pool/stats/77'), undefined);
  });

  test('object counts: new and old PG statistics, bytes by the pool’s object size', async () => {
    await start();
    cluster.put('pg/stats/1/1', { object_count: 7, clean_count: 7 });
    cluster.put('pgstats/1/1', { object_count: 3, clean_count: 1, degraded_count: 2 });
    cluster.put('pg/stats/1/2', { object_count: 10, clean_count: 10 });
    await cluster.clock.advance(3000);
    assert.deepEqual(at(cluster.json('stats'), 'object_counts'), {
      object: '13',
      clean: '11',
      misplaced: '0',
      degraded: '2',
      incomplete: '0',
    });
    assert.equal(at(cluster.json('stats'), 'object_bytes', 'object'), String(13 * 131072));
  });

  test('many images: written in pieces that etcd takes, and only when they change', async () => {
    await start();
    const inodes = Object.fromEntries(Array.from({ length: 450 }, (_, i) => [String(i + 1), 4096]));
    report(1, {}, {}, { 1: inodes });
    await cluster.clock.advance(3000);
    assert.equal(
      cluster.server.pairs().filter(({ key }) => key.includes('/inode/stats/')).length,
      450,
    );
    const revision = cluster.server.revision;
    cluster.osdReport(1);
    await cluster.clock.advance(10_000);
    assert.ok(cluster.server.revision <= revision + 2n, 'unchanged records were written again');
  });

  test('backfillfull: pools of an OSD that would overflow, until it would not', async () => {
    await start();
    const blocks = (4 * GIB) / 131072;
    cluster.put('pgstats/1/1', { object_count: Math.floor(blocks * 0.6) });
    cluster.put('pgstats/1/2', { object_count: Math.floor(blocks * 0.3) });
    await cluster.clock.advance(5000);
    assert.equal(at(cluster.json('pg/config'), 'backfillfull_pools'), undefined);
    cluster.put('pgstats/1/2', { object_count: Math.floor(blocks * 0.45) });
    await cluster.clock.advance(5000);
    assert.deepEqual(at(cluster.json('pg/config'), 'backfillfull_pools'), ['1']);
    cluster.put('pgstats/1/2', { object_count: 0 });
    await cluster.clock.advance(5000);
    assert.equal(at(cluster.json('pg/config'), 'backfillfull_pools'), undefined);
  });
});
