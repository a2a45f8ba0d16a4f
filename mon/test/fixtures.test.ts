// SPDX-License-Identifier: GPL-2.0-or-later
// Our monitor on what a real 3.0.8 cluster left in etcd.

import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import {
  ClusterView,
  encodeClusterStats,
  encodeInodeStats,
  encodePoolStats,
  fullInode,
  isJsonObject,
  KeySpace,
  parseJson,
  stringifyJson,
  type JsonObject,
  type JsonValue,
  type KeyValue,
} from '@vitastor/core';
import { filterTree, spaceOf, withDefaultLevels, buildTree } from '../src/index.js';
import { nextLastClean } from '../src/last-clean.js';
import { Statistics } from '../src/statistics.js';
import { placementInputs } from '../src/inputs.js';
import { monSettings } from '../src/settings.js';
import { Config } from '@vitastor/core';
import { recordedPairs, RECORDINGS_MISSING, TestCluster } from './support.js';

const keys = new KeySpace();
const STATES = [
  'healthy',
  'degraded',
  'recovering',
  'recovered',
  'changed',
  'rep-inconsistent',
  'ec-inconsistent',
  'xor-pool-refused',
];

function viewOf(pairs: readonly KeyValue[]): ClusterView {
  const view = new ClusterView(keys);
  view.replaceAll(pairs, 1000n);
  return view;
}

/** Latest report of any OSD: what the clock of the machine said then. */
function recordedNow(pairs: readonly KeyValue[]): number {
  return Math.max(...[...viewOf(pairs).osdStats.values()].map(({ timeMs }) => timeMs ?? 0));
}

/** Names of all fields, arrays and numbers left out: what a reader relies on. */
function shape(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return [];
  if (isJsonObject(value))
    return Object.fromEntries(
      Object.entries(value)
        .map(([name, item]) => [name, shape(item)])
        .sort(([a], [b]) => (String(a) < String(b) ? -1 : 1)),
    );
  return typeof value;
}

function sorted(value: JsonValue): JsonValue {
  if (!isJsonObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, item]) => [name, sorted(item)]),
  );
}

function object(pairs: readonly KeyValue[], path: string): JsonObject {
  const value = parseJson(pairs.find(({ key }) => key === keys.at(path))?.value ?? 'null');
  assert.ok(isJsonObject(value), path);
  return value;
}

let cluster = new TestCluster();
afterEach(() => cluster.stop());

describe('taking over from a 3.0.8 monitor', { skip: RECORDINGS_MISSING }, () => {
  for (const state of STATES) {
    test(`${state}: no PG moves, no primary changes, no history is written`, async () => {
      const pairs = recordedPairs(`etcd-${state}.jsonl`);
      cluster = new TestCluster();
      for (const { key, value } of pairs)
        if (!key.includes('/mon/')) cluster.server.put(key, value);
      const now = recordedNow(pairs);
      // The clock of the test starts elsewhere: reports keep their distance to it.
      for (const [num, stats] of viewOf(pairs).osdStats) {
        const raw = object(pairs, `osd/stats/${num}`);
        cluster.put(`osd/stats/${num}`, {
          ...raw,
          time: ((cluster.clock.wallMs() - now + (stats.timeMs ?? 0)) / 1000).toFixed(3),
        });
      }
      const before = cluster.pgConfig;
      const histories = (): string[] =>
        cluster.server
          .pairs()
          .filter(({ key }) => key.includes('/pg/history/'))
          .map(({ key, value }) => `${key}=${value}`);
      const oldHistories = histories();
      const member = cluster.addMonitor();
      await cluster.clock.advance(20_000);
      assert.equal(member.monitor.role, 'master');
      const after = cluster.pgConfig;
      assert.notEqual(after.hash, before.hash);
      assert.match(after.hash, /^[0-9a-f]{40}$/);
      // 3.0.8 refused pool 3 of that state (xor without parity_chunks); we take it, and place it on
      // the two OSDs with its tag.
      if (state === 'xor-pool-refused')
        for (const items of [before.items, after.items]) items.delete(3);
      assert.deepEqual(after.items, before.items);
      const others = (lines: readonly string[]): string[] =>
        lines.filter((line) => state !== 'xor-pool-refused' || !line.includes('/pg/history/3/'));
      assert.deepEqual(others(histories()), others(oldHistories));
      assert.deepEqual(
        member.log.lines.filter(({ level }) => level === 'error'),
        [],
      );
    });
  }
});

describe('statistics of a recorded cluster', { skip: RECORDINGS_MISSING }, () => {
  for (const state of ['healthy', 'degraded', 'recovered', 'changed']) {
    test(`${state}: the same totals, fields and number forms as 3.0.8 wrote`, () => {
      const pairs = recordedPairs(`etcd-${state}.jsonl`);
      const view = viewOf(pairs);
      const statistics = new Statistics(view);
      const ours = encodeClusterStats(statistics.clusterStats());
      const theirs = object(pairs, 'stats');
      assert.deepEqual(shape(ours), shape(theirs));
      assert.deepEqual(ours['object_counts'], theirs['object_counts']);
      assert.deepEqual(ours['object_bytes'], theirs['object_bytes']);
    });
  }

  test('healthy: all counters are equal (rates need two reports)', () => {
    const pairs = recordedPairs('etcd-healthy.jsonl');
    const view = viewOf(pairs);
    const statistics = new Statistics(view);
    for (const { key, value } of pairs) {
      const parsed = keys.parse(key);
      if (parsed?.kind === 'inode/stats') {
        const stats = statistics.inodeStats().get(fullInode(parsed.pool, parsed.inode));
        assert.ok(stats, key);
        assert.deepEqual(shape(encodeInodeStats(stats)), shape(parseJson(value)), key);
        assert.equal(
          stringifyJson(sorted(encodeInodeStats(stats))),
          stringifyJson(sorted(parseJson(value))),
          key,
        );
      } else if (parsed?.kind === 'pool/stats') {
        assert.equal(
          statistics.usedRawTb().get(parsed.pool),
          view.poolStats.get(parsed.pool)?.usedRawTb,
        );
      }
    }
    assert.deepEqual(
      [...statistics.inodeStats()].filter(([, stats]) => stats === null),
      [],
    );
  });

  for (const state of ['healthy', 'changed']) {
    test(`${state}: the same space`, () => {
      const pairs = recordedPairs(`etcd-${state}.jsonl`);
      const view = viewOf(pairs);
      const { tree } = placementInputs(
        view,
        monSettings(new Config({})),
        recordedNow(pairs),
        new Set(),
      );
      for (const pool of view.pools.values()) {
        const sets = (view.pgConfig?.items.get(pool.id) ?? []).map((item) => item.osdSet);
        const known = view.poolStats.get(pool.id);
        assert.ok(known);
        const ours = encodePoolStats({
          usedRawTb: known.usedRawTb,
          ...spaceOf(sets, pool, filterTree(tree, pool)),
        });
        for (const [name, value] of Object.entries(encodePoolStats(known))) {
          assert.ok(
            Math.abs(Number(ours[name]) - Number(value)) < 1e-9,
            `pool ${pool.id}, ${name}: ${String(ours[name])}, recorded ${String(value)}`,
          );
        }
      }
    });
  }

  test('last clean: recorded as it would be written, and kept while degraded', () => {
    for (const state of ['healthy', 'degraded', 'recovered', 'changed']) {
      const view = viewOf(recordedPairs(`etcd-${state}.jsonl`));
      assert.equal(nextLastClean(view), null, state);
      view.lastCleanPgs = null;
      assert.equal(
        [...(nextLastClean(view)?.keys() ?? [])].length,
        state === 'degraded' ? 0 : 3,
        state,
      );
    }
  });
});

test('levels default to host and osd', () => {
  assert.deepEqual(
    [...withDefaultLevels(new Map([['dc', 1]]))],
    [
      ['host', 100],
      ['osd', 101],
      ['dc', 1],
    ],
  );
  assert.deepEqual(buildTree([], new Map(), withDefaultLevels(new Map())), []);
});
