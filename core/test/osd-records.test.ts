// SPDX-License-Identifier: GPL-2.0-or-later
// OSD numbers, settings of OSDs, their removal, cluster flags: as transactions against etcd in memory.

import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { changeFlags } from '../src/cluster-flags.js';
import { ClusterState, PATHS_ALL } from '../src/cluster-state.js';
import { isVitastorError, type ErrorCode } from '../src/errors.js';
import type { AdminContext } from '../src/images.js';
import { historyWithoutOsds, mapWithoutOsds, osdsOfMap } from '../src/osd-names.js';
import { allocateOsd, modifyOsd } from '../src/osd-registry.js';
import { forgetOsdsInHistories, judgeOsdRemoval, removeOsds, type OsdRemovalRules } from '../src/osd-removal.js';
import { KeySpace } from '../src/schema/keys.js';
import { MemoryEtcd, type MemoryEtcdClient } from '../src/seams/memory-etcd.js';
import { SystemClock } from '../src/seams/system.js';
import { VirtualClock, settle } from '../src/seams/virtual-clock.js';

const keys = new KeySpace();
const limits = { timeoutMs: 200, attempts: 3 };
const code = (expected: ErrorCode, text?: RegExp) => (error: unknown): boolean =>
  isVitastorError(error, expected) && (text === undefined || (assert.match(error.message, text), true));

let servers: { server: MemoryEtcd; etcd: MemoryEtcdClient }[] = [];

function setup(pairs: Record<string, unknown> = {}): { server: MemoryEtcd; etcd: MemoryEtcdClient } {
  const server = new MemoryEtcd(new SystemClock());
  const etcd = server.client();
  for (const [key, value] of Object.entries(pairs)) server.put(keys.at(key), typeof value === 'string' ? value : JSON.stringify(value));
  servers.push({ server, etcd });
  return { server, etcd };
}

async function context(etcd: MemoryEtcdClient): Promise<AdminContext> {
  const state = new ClusterState({ etcd, clock: new SystemClock(), keys, paths: PATHS_ALL });
  await state.load({ attempts: 1, timeoutMs: 1000 });
  return { etcd, view: state.view, limits };
}

const json = (server: MemoryEtcd, path: string): unknown => {
  const text = server.get(keys.at(path));
  return text === undefined ? undefined : (JSON.parse(text) as unknown);
};

afterEach(() => {
  for (const { server, etcd } of servers) {
    etcd.close();
    server.stop();
  }
  servers = [];
});

describe('numbers of OSDs', () => {
  test('the smallest gap, reserved by an empty record', async () => {
    const { server, etcd } = setup({ 'osd/stats/1': { size: 1 }, 'osd/stats/2': {}, 'osd/stats/4': {} });
    const c = await context(etcd);
    assert.deepEqual([await allocateOsd(c), await allocateOsd(c), await allocateOsd(await context(etcd))], [3, 5, 6]);
    assert.equal(server.get(keys.osdStats(3)), '{}');
  });

  test('no number that a running OSD, a PG or a history still names', async () => {
    const { etcd } = setup({
      'osd/state/1': { state: 'up' },
      'pg/config': { items: { 1: { 1: { osd_set: ['2', 0], primary: '3' } } } },
      'history/last_clean_pgs': { items: { 1: { 1: { osd_set: [4, 5], primary: 4 } } } },
      'pg/history/1/1': { epoch: 1, osd_sets: [[6, '7']], all_peers: ['8'] },
    });
    assert.equal(await allocateOsd(await context(etcd)), 9);
  });

  test('two that ask at once get two numbers; one that races with the monitor looks again', async () => {
    const { server, etcd } = setup();
    const other = server.client();
    servers.push({ server, etcd: other });
    const c = await context(etcd);
    const found = await Promise.all([allocateOsd(c), allocateOsd({ ...c, etcd: other }), allocateOsd(c), allocateOsd({ ...c, etcd: other })]);
    assert.deepEqual([...found].sort(), [1, 2, 3, 4]);
    const txn = etcd.txn.bind(etcd);
    let first = true;
    etcd.txn = async (t, timeoutMs) => {
      if (t.success[0]?.op === 'put' && first) {
        first = false;
        server.put(keys.pgConfig, JSON.stringify({ items: { 1: { 1: { osd_set: [5], primary: 5 } } } }));
      }
      return txn(t, timeoutMs);
    };
    assert.equal(await allocateOsd(c), 6, 'PG 1/1 has come to name OSD 5 between look and change');
  });

  test('an answer that was lost: the next number, never one that may be somebody else\'s', async () => {
    const { server, etcd } = setup();
    const c = await context(etcd);
    const txn = etcd.txn.bind(etcd);
    let lose = true;
    etcd.txn = async (t, timeoutMs) => {
      if (t.success[0]?.op === 'put' && lose) {
        lose = false;
        etcd.failNext('reply-lost');
      }
      return txn(t, timeoutMs);
    };
    assert.equal(await allocateOsd(c), 2);
    assert.equal(server.get(keys.osdStats(1)), '{}');
    etcd.failNext('unavailable', 'unavailable', 'unavailable');
    await assert.rejects(allocateOsd(c), code('ERR_ETCD_UNAVAILABLE'));
  });

  test('a map that cannot be read is named, and no number is given', async () => {
    const { server, etcd } = setup({ 'pg/config': '{"items":' });
    await assert.rejects(allocateOsd(await context(etcd)), code('ERR_BAD_VALUE', /key \/vitastor\/pg\/config: .*Correct it/));
    assert.deepEqual(server.pairs(keys.at('osd/')), []);
  });
});

describe('settings of an OSD', () => {
  test('defaults are left out, foreign fields stay, an empty record goes', async () => {
    const { server, etcd } = setup({ 'config/osd/1': { reweight: 0.5, note: 'x' } });
    const c = await context(etcd);
    assert.deepEqual(await modifyOsd(c, 1, { tags: ['ssd'], noout: true }), { note: 'x', reweight: 0.5, tags: ['ssd'], noout: true });
    assert.deepEqual(await modifyOsd(c, 1, { reweight: 1, tags: [], noout: false }), { note: 'x' });
    assert.deepEqual(await modifyOsd(c, 2, { reweight: 0 }), { reweight: 0 });
    assert.deepEqual(await modifyOsd(c, 2, { reweight: 1 }), {});
    assert.equal(server.get(keys.configOsd(2)), undefined);
    assert.deepEqual(await modifyOsd(c, 3, { noout: false }), {});
  });

  test('two administrators at once: both changes are there', async () => {
    const { server, etcd } = setup();
    const other = server.client();
    servers.push({ server, etcd: other });
    const c = await context(etcd);
    await Promise.all([modifyOsd(c, 1, { noout: true }), modifyOsd({ ...c, etcd: other }, 1, { reweight: 0.25 })]);
    assert.deepEqual(json(server, 'config/osd/1'), { reweight: 0.25, noout: true });
    server.put(keys.configOsd(1), '[');
    await assert.rejects(modifyOsd(c, 1, { noout: false }), code('ERR_BAD_VALUE', /config\/osd\/1/));
  });
});

describe('flags of the cluster', () => {
  test('every other key stays, whoever writes at the same time', async () => {
    const { server, etcd } = setup({ 'config/global': { placement_levels: { dc: 10 }, no_scrub: 'yes', big: 12345678901234567890n.toString() } });
    const other = server.client();
    servers.push({ server, etcd: other });
    const c = await context(etcd);
    const both = await Promise.all([changeFlags(c, ['no_recovery', 'no_scrub'], true), changeFlags({ ...c, etcd: other }, ['no_rebalance'], true)]);
    assert.deepEqual(both, [['no_recovery'], ['no_rebalance']]);
    assert.deepEqual(json(server, 'config/global'), { placement_levels: { dc: 10 }, no_scrub: 'yes', big: '12345678901234567890', no_recovery: true, no_rebalance: true });
    const revision = server.revision;
    assert.deepEqual(await changeFlags(c, ['readonly'], false), []);
    assert.equal(server.revision, revision, 'what is so already is not written');
    assert.deepEqual(await changeFlags(c, ['no_recovery', 'no_scrub', 'no_rebalance'], false), ['no_recovery', 'no_scrub', 'no_rebalance']);
    assert.deepEqual(json(server, 'config/global'), { placement_levels: { dc: 10 }, big: '12345678901234567890' });
  });

  test('garbage is named and not overwritten', async () => {
    const { server, etcd } = setup({ 'config/global': '{"a":1,}' });
    await assert.rejects(changeFlags(await context(etcd), ['no_scrub'], true), code('ERR_BAD_VALUE', /config\/global/));
    assert.equal(server.get(keys.configGlobal), '{"a":1,}');
  });
});

test('OSDs in raw records: numbers in any spelling, unknown fields, what is no list', () => {
  const map = '{"hash":"h","x":1,"items":{"1":{"1":{"osd_set":["1",2,0],"primary":"2","pause":true},"2":7},"2":"?"}}';
  assert.deepEqual([...(osdsOfMap('k', map).get('1') ?? [])], [1, 2]);
  assert.deepEqual(JSON.parse(mapWithoutOsds('k', map, new Set([2])) ?? ''), { hash: 'h', x: 1, items: { 1: { 1: { osd_set: ['1', 0, 0], primary: 0, pause: true }, 2: 7 }, 2: '?' } });
  assert.equal(mapWithoutOsds('k', map, new Set([9])), null);
  const history = '{"epoch":18446744073709551615,"osd_sets":[["1"],[1,2],[0]],"all_peers":["1","3"],"y":2}';
  assert.equal(historyWithoutOsds('k', history, new Set([1])), '{"epoch":18446744073709551615,"osd_sets":[[2]],"all_peers":["3"],"y":2}');
  assert.equal(historyWithoutOsds('k', history, new Set([4])), null);
});

const REP2 = { name: 'rep2', scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 1, failure_domain: 'osd' };
const REP3 = { ...REP2, name: 'rep3', pg_size: 3, pg_minsize: 2 };
const EC21 = { ...REP2, name: 'ec21', scheme: 'ec', pg_size: 3, pg_minsize: 2, parity_chunks: 1 };

interface Pg {
  pool: object;
  set: number[];
  up: number[];
  state?: string[];
  sets?: number[][];
  peers?: number[];
}

function pairsOf({ pool, set, up, state = ['active'], sets, peers }: Pg): Record<string, unknown> {
  return {
    'config/pools': { 1: pool },
    'pg/config': { items: { 1: { 1: { osd_set: set.map(String), primary: String(up[0] ?? 0) } } } },
    ...(state.length ? { 'pg/state/1/1': { primary: up[0] ?? 1, state, peers: up } } : {}),
    ...(sets || peers ? { 'pg/history/1/1': { epoch: 1, osd_sets: sets ?? [], all_peers: peers ?? [] } } : {}),
    ...Object.fromEntries(up.map((osd) => [`osd/state/${osd}`, { state: 'up', addresses: ['::1'], port: 1 }])),
  };
}

describe('what a pool loses with an OSD', () => {
  const active = ['active'];
  const cases: [string, Pg, number[], string | null][] = [
    ['elsewhere', { pool: REP2, set: [1, 2], up: [1, 2, 3] }, [3], null],
    ['unknown OSD', { pool: REP2, set: [1, 2], up: [1, 2] }, [77], null],
    ['one of two', { pool: REP2, set: [1, 2], up: [1, 2] }, [1], 'degraded'],
    ['both', { pool: REP2, set: [1, 2], up: [1, 2] }, [1, 2], 'incomplete'],
    ['below pg_minsize', { pool: REP3, set: [1, 2, 3], up: [1, 2, 3] }, [1, 2], 'offline'],
    ['EC: as many as there are parities', { pool: EC21, set: [1, 2, 3], up: [1, 2, 3] }, [3], 'degraded'],
    ['EC: one more', { pool: EC21, set: [1, 2, 3], up: [1, 2, 3] }, [2, 3], 'incomplete'],
    ['the dead one, nothing written since', { pool: REP2, set: [1, 2], up: [1], state: ['active', 'degraded'] }, [2], 'degraded'],
    ['the dead one after it is out', { pool: REP2, set: [1, 3], up: [1, 3], peers: [1, 2, 3], state: ['active', 'left_on_dead'] }, [2], null],
    ['the living one, the other is dead', { pool: REP2, set: [1, 2], up: [1], state: ['active', 'degraded'] }, [1], 'has_incomplete'],
    ['the dead one of three, pg_minsize is still there', { pool: REP3, set: [1, 2, 3], up: [1, 2], state: ['active', 'degraded'] }, [3], 'degraded'],
    ['a living one of three, below pg_minsize with the dead one', { pool: REP3, set: [1, 2, 3], up: [1, 2], state: ['active', 'degraded'] }, [2], 'offline'],
    ['written while the other was away, which is back', { pool: REP2, set: [1, 2], up: [1, 2], sets: [[1]], state: ['active', 'has_degraded'] }, [1], 'has_incomplete'],
    ['the one that is being recovered may go', { pool: REP2, set: [1, 2], up: [1, 2], sets: [[1]], state: [...active] }, [2], 'degraded'],
    ['recovery is under way: any copy may be the last', { pool: REP2, set: [1, 2], up: [1, 2], state: ['active', 'has_degraded'] }, [2], 'has_incomplete'],
    ['moved away from, not yet empty', { pool: REP2, set: [1, 3], up: [1, 2, 3], sets: [[1, 2]], state: ['active', 'has_misplaced'] }, [2], 'has_degraded'],
    ['moved away from, the only other copy is dead', { pool: REP2, set: [3, 4], up: [2, 3, 4], sets: [[2]], state: ['active', 'has_misplaced'] }, [2], 'has_incomplete'],
    ['EC: a set that is too small for data tells nothing', { pool: EC21, set: [1, 2, 3], up: [1, 2, 3], sets: [[1]] }, [1], 'degraded'],
    ['EC: written without the third', { pool: EC21, set: [1, 2, 3], up: [1, 2, 3], sets: [[1, 2]] }, [1], 'has_incomplete'],
    ['the PG waits for it', { pool: REP2, set: [1, 2], up: [1], state: ['incomplete'], sets: [[2]], peers: [2] }, [2], 'has_incomplete'],
    ['lost objects may be on it', { pool: REP2, set: [1, 3], up: [1, 3], state: ['active', 'has_incomplete'], peers: [1, 2, 3] }, [2], 'has_incomplete'],
    ['everything is switched off', { pool: REP2, set: [1, 2], up: [], state: [] }, [1], 'degraded'],
    ['an empty slot already', { pool: REP2, set: [1, 0], up: [1] }, [1], 'incomplete'],
    ['the pool cannot be decoded', { pool: { ...REP2, pg_size: 'many' }, set: [1, 2], up: [1, 2] }, [1], 'incomplete'],
  ];
  for (const [name, pg, gone, effect] of cases) {
    test(`${name}: ${effect ?? 'nothing'}`, async () => {
      const { etcd } = setup(pairsOf(pg));
      const losses = judgeOsdRemoval((await context(etcd)).view, gone);
      assert.deepEqual(losses.map((loss) => loss.effect), effect === null ? [] : [effect]);
    });
  }

  test('the worst of a pool; pools in order', async () => {
    const { etcd } = setup({
      'config/pools': { 7: { ...REP2, pg_count: 2 }, 3: REP3 },
      'pg/config': { items: { 7: { 1: { osd_set: [1, 2], primary: 1 }, 2: { osd_set: [1, 0], primary: 1 } }, 3: { 1: { osd_set: [1, 2, 3], primary: 1 } } } },
    });
    assert.deepEqual(judgeOsdRemoval((await context(etcd)).view, [1]), [
      { pool: 3, poolName: 'rep3', effect: 'degraded' }, { pool: 7, poolName: 'rep2', effect: 'incomplete' },
    ]);
  });
});

describe('removing OSDs', () => {
  const NONE: OsdRemovalRules = { force: false, allowDataLoss: false, allowUp: false, dryRun: false };
  const FORCE = { ...NONE, force: true };
  const five = (osd: number): Record<string, unknown> => ({
    [`config/osd/${osd}`]: { noout: true }, [`osd/stats/${osd}`]: { size: 1 }, [`osd/inodestats/${osd}`]: {}, [`osd/space/${osd}`]: {},
  });
  const remove = (etcd: MemoryEtcdClient, osds: number[], rules: OsdRemovalRules) => removeOsds(() => context(etcd), osds, rules);
  const cluster = (): Record<string, unknown> => ({ ...pairsOf({ pool: REP2, set: [1, 2], up: [1], state: ['active', 'degraded'] }), ...five(1), ...five(2) });

  test('records go, the maps keep everything else; other OSDs are left alone', async () => {
    const { server, etcd } = setup({
      ...cluster(),
      'pg/config': { hash: 'h', items: { 1: { 1: { osd_set: ['2', '1'], primary: '2', note: 1 } } }, backfillfull_pools: ['1'] },
      'config/pgs': { hash: 'h', items: { 1: { 1: { osd_set: [2, 1], primary: 1 } } } },
      'history/last_clean_pgs': { items: { 1: { 1: { osd_set: ['2', '1'], primary: '1' } } } },
    });
    const result = await remove(etcd, [2], FORCE);
    assert.deepEqual([result.refused, result.existed, result.losses.map((l) => l.effect)], [false, true, ['degraded']]);
    assert.deepEqual(json(server, 'pg/config'), { hash: 'h', items: { 1: { 1: { osd_set: [0, '1'], primary: 0, note: 1 } } }, backfillfull_pools: ['1'] });
    assert.deepEqual(json(server, 'config/pgs'), { hash: 'h', items: { 1: { 1: { osd_set: [0, 1], primary: 1 } } } });
    assert.deepEqual(json(server, 'history/last_clean_pgs'), { items: { 1: { 1: { osd_set: [0, '1'], primary: '1' } } } });
    const left = server.pairs().map((kv) => kv.key).filter((key) => /osd\//.test(key));
    assert.deepEqual(left, ['config/osd/1', 'osd/inodestats/1', 'osd/space/1', 'osd/state/1', 'osd/stats/1'].map((path) => keys.at(path)));
  });

  test('refused without the right words, and nothing is touched', async () => {
    const { server, etcd } = setup({ ...cluster(), 'osd/state/2': { state: 'up' } });
    const revision = server.revision;
    for (const [osds, rules, refused] of [
      [[2], NONE, true], [[2], FORCE, true], [[2], { ...NONE, allowUp: true }, true], [[2], { ...FORCE, allowUp: true, dryRun: true }, false],
      [[1, 2], { ...FORCE, allowUp: true }, true], [[1, 2], { ...NONE, allowDataLoss: true }, true], [[1, 2], { ...NONE, allowDataLoss: true, allowUp: true, dryRun: true }, false],
    ] as const) assert.equal((await remove(etcd, [...osds], rules)).refused, refused, JSON.stringify([osds, rules]));
    assert.equal(server.revision, revision);
    assert.equal((await remove(etcd, [2], { ...FORCE, allowUp: true })).existed, true);
    assert.equal((await remove(etcd, [2], NONE)).existed, false, 'again: nothing to do, no error');
    assert.equal((await remove(etcd, [77], NONE)).existed, false);
  });

  test('what changes between look and removal is looked at again: the OSD starts, its partner dies, the monitor moves PGs', async () => {
    for (const [change, refused] of [
      [(server: MemoryEtcd) => server.put(keys.osdState(2), '{"state":"up"}'), true],
      [(server: MemoryEtcd) => server.delete(keys.osdState(1)), false],
      [(server: MemoryEtcd) => server.put(keys.pgConfig, JSON.stringify({ items: { 1: { 1: { osd_set: ['2'], primary: '2' } } } })), true],
    ] as const) {
      const { server, etcd } = setup(cluster());
      let loads = 0;
      const result = await removeOsds(async () => {
        const c = await context(etcd);
        if (loads++ === 0) change(server);
        return c;
      }, [2], FORCE);
      assert.deepEqual([result.refused, loads], [refused, 2]);
    }
  });

  test('a lost answer is found out by looking', async () => {
    const { server, etcd } = setup(cluster());
    const result = await removeOsds(async () => {
      const c = await context(etcd);
      etcd.failNext('reply-lost');
      return c;
    }, [2], FORCE);
    assert.deepEqual([result.existed, server.get(keys.osdStats(2))], [true, undefined]);
  });

  test('a PG that cannot be read forbids it', async () => {
    for (const [path, value] of [['pg/history/1/1', '{'], ['pg/state/1/1', '{"state":["new"],"primary":1}'],
      ['pg/config', '{"items":{"1":{"2":{"osd_set":[1,2],"primary":1}}}}']] as const) {
      const { server, etcd } = setup({ ...cluster(), [path]: value });
      await assert.rejects(remove(etcd, [2], { ...FORCE, allowDataLoss: true }), code('ERR_BAD_VALUE', new RegExp(path)));
      assert.notEqual(server.get(keys.osdStats(2)), undefined);
    }
  });

  test('histories: after the monitor has had its turn, against OSDs that write them too', async () => {
    const pairs = Object.fromEntries(Array.from({ length: 70 }, (_, i) => [`pg/history/1/${i + 1}`, { epoch: i, osd_sets: [[2], [1, 2]], all_peers: [1, 2] }]));
    const { server, etcd } = setup(pairs);
    const c = await context(etcd);
    const clock = new VirtualClock();
    const cleaning = forgetOsdsInHistories(c, [2], { clock, signal: new AbortController().signal, waitMs: 1500, attempts: 5, retryMs: 500 });
    await clock.advance(1499);
    assert.deepEqual((json(server, 'pg/history/1/70') as { all_peers: unknown }).all_peers, [1, 2]);
    // An OSD raises the epoch of a PG in the middle of our change.
    const txn = etcd.txn.bind(etcd);
    let rounds = 0;
    etcd.txn = async (t, timeoutMs) => {
      if (t.success[0]?.op === 'put' && rounds++ === 0) server.put(keys.pgHistory(1, 1), JSON.stringify({ epoch: 99, osd_sets: [[2]], all_peers: [2] }));
      return txn(t, timeoutMs);
    };
    await clock.advance(1);
    while (clock.pending === 0) await settle();
    await clock.advance(500);
    await cleaning;
    assert.deepEqual(json(server, 'pg/history/1/1'), { epoch: 99, osd_sets: [], all_peers: [] });
    assert.deepEqual(json(server, 'pg/history/1/70'), { epoch: 69, osd_sets: [[1]], all_peers: [1] });
    assert.equal(await allocateOsd(c), 2, 'and the number is free');
  });

  test('histories: the end of patience, and Ctrl-C, say what to do', async () => {
    const { server, etcd } = setup({ 'pg/history/1/1': { epoch: 1, osd_sets: [], all_peers: [2] } });
    const c = await context(etcd);
    const txn = etcd.txn.bind(etcd);
    etcd.txn = async (t, timeoutMs) => {
      if (t.success[0]?.op === 'put') server.put(keys.pgHistory(1, 1), '{"epoch":2,"all_peers":[2]}');
      return txn(t, timeoutMs);
    };
    const options = { clock: new SystemClock(), signal: new AbortController().signal, waitMs: 0, attempts: 3, retryMs: 0 };
    await assert.rejects(forgetOsdsInHistories(c, [2], options), code('ERR_CONFLICT', /repeat rm-osd 2/));
    const stop = new AbortController();
    const stopped = forgetOsdsInHistories(c, [2], { ...options, clock: new VirtualClock(), signal: stop.signal, waitMs: 1e9 });
    stop.abort();
    await assert.rejects(stopped, code('ERR_ABORTED', /repeat rm-osd 2/));
  });
});
