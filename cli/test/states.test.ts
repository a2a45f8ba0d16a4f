// SPDX-License-Identifier: GPL-2.0-or-later
// Every command on every odd state of a cluster: an end in time, an exit code that says what happened, and never a word that only a program
// would say.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CATALOG } from '../src/catalog.js';
import { CliRig, type CliResult } from './harness.js';

const POOL = { name: 'p', scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 2, failure_domain: 'host' };
const EC = { name: 'q', scheme: 'ec', pg_size: 3, pg_minsize: 2, parity_chunks: 1, pg_count: 1, failure_domain: 'host' };
const IO = { count: '1', usec: '1', bytes: '1', bps: '1', iops: '1', lat: '1' };

type Pairs = Record<string, unknown>;

const GLOBAL: Pairs = { 'config/global': { mon_change_timeout: 100 } };
const POOLS: Pairs = { ...GLOBAL, 'config/pools': { 1: POOL, 2: EC } };
const IMAGES: Pairs = {
  'config/inode/1/1': { name: 'img@s', size: 1048576, readonly: true },
  'config/inode/1/2': { name: 'img', size: 1048576, parent_id: 1 },
  'config/inode/1/3': { name: 'other', size: 1048576 },
  'config/inode/2/1': { name: 'far', size: 1048576, parent_id: 1, parent_pool: 1 },
  'index/image/img@s': { id: 1, pool_id: 1 }, 'index/image/img': { id: 2, pool_id: 1 }, 'index/image/other': { id: 3, pool_id: 1 }, 'index/image/far': { id: 1, pool_id: 2 },
  'index/maxid/1': 3, 'index/maxid/2': 1,
};
const STATS: Pairs = Object.fromEntries([1, 2, 3].map((osd) => [`osd/stats/${osd}`,
  { host: `h${osd}`, time: '1700000000.5', size: 1e9, free: 5e8, data_block_size: 131072, bitmap_granularity: 4096, immediate_commit: 'all', op_stats: { primary_read: IO } }]));
const UP: Pairs = Object.fromEntries([1, 2, 3].map((osd) => [`osd/state/${osd}`, { state: 'up', host: `h${osd}`, addresses: ['127.0.0.1'], port: 1 }]));
const MON: Pairs = { 'mon/member/1': { ip: [], hostname: 'm' }, 'mon/master': { ip: [], hostname: 'm', id: '1' } };
const MAP = { 1: { 1: { osd_set: ['1', '2'], primary: '1' }, 2: { osd_set: ['2', '3'], primary: '2' } }, 2: { 1: { osd_set: ['1', '2', '3'], primary: '3' } } };
const PGS: Pairs = { 'pg/config': { hash: 'h', items: MAP }, 'history/last_clean_pgs': { items: MAP }, 'pg/history/1/1': { epoch: 3, osd_sets: [], all_peers: [1, 2] } };
const state = (pool: number, pg: number, primary: number, words: string[]): Pairs => ({
  [`pg/state/${pool}/${pg}`]: { primary, state: words, peers: [primary] },
  [`pgstats/${pool}/${pg}`]: { object_count: '8', clean_count: '8', misplaced_count: '0', degraded_count: '0', incomplete_count: '0', write_osd_set: [1, 2] },
});
const POOL_STATS: Pairs = {
  'pool/stats/1': { used_raw_tb: 0.0001, total_raw_tb: 0.001, pg_real_size: 2, raw_to_usable: 2, space_efficiency: 1 },
  'inode/stats/1/2': { raw_used: '131072', read: IO, write: IO, delete: IO },
  stats: { op_stats: { primary_read: IO }, recovery_stats: {}, object_counts: { object: '24' }, object_bytes: { clean: '3145728' } },
};
const ACTIVE: Pairs = { ...state(1, 1, 1, ['active']), ...state(1, 2, 2, ['active']), ...state(2, 1, 3, ['active']) };
const HEALTHY: Pairs = { ...POOLS, ...IMAGES, ...STATS, ...UP, ...MON, ...PGS, ...ACTIVE, ...POOL_STATS };

function without(pairs: Pairs, pattern: RegExp): Pairs {
  return Object.fromEntries(Object.entries(pairs).filter(([key]) => !pattern.test(key)));
}

const STATES = {
  empty: {},
  noMonitor: { ...POOLS, ...IMAGES, ...STATS, ...UP },
  noOsd: { ...POOLS, ...IMAGES, ...MON, 'pg/config': { hash: null, items: {} } },
  osdsDown: without(HEALTHY, /^(osd|pg)\/state/),
  poolDown: { ...without(HEALTHY, /^pg\/state\/1/), 'pg/state/1/1': { primary: 2, state: ['incomplete'], peers: [2] } },
  poolGone: { ...HEALTHY, 'config/pools': { 2: EC } },
  poolAlone: without(HEALTHY, /^(pg\/(state|history)|pgstats|pool\/stats|inode\/stats|config\/inode)\/1|^index\/|^(pg\/config|history)/),
  poolInvalid: { ...HEALTHY, 'config/pools': { 1: { ...POOL, pg_size: 'many' }, 2: EC } },
  mapGap: { ...HEALTHY, 'pg/config': { hash: 'h', items: { 2: MAP[2], 1: { 2: MAP[1][2] } } } },
  noFigures: {
    ...without(HEALTHY, /stats/),
    ...Object.fromEntries([1, 2, 3].map((osd) => [`osd/stats/${osd}`, { host: `h${osd}`, data_block_size: 131072, bitmap_granularity: 4096, immediate_commit: 'all' }])),
  },
  emptyStats: { ...HEALTHY, stats: {}, 'pool/stats/1': {}, 'pool/stats/2': {}, 'inode/stats/1/2': {}, 'osd/stats/1': {}, 'pgstats/1/1': {} },
  healthy: HEALTHY,
} satisfies Record<string, Pairs>;
type State = keyof typeof STATES;
type Exits = Readonly<Record<number, readonly State[]>>;

const NO_POOL: Exits = { 2: ['empty', 'poolGone'], 22: ['poolInvalid'] };
/** Data whose places nobody knows, or nobody can reach. */
const NO_DATA: Exits = { 5: ['osdsDown', 'poolDown', 'mapGap'], 22: ['poolInvalid'] };

const NO_PLACE: Exits = { 5: ['mapGap'], 22: ['poolInvalid'] };

/** Reading and writing an image: needs PGs that serve. */
const IMAGE_IO: Exits = { 2: ['empty', 'poolGone', 'poolAlone'], 5: ['noMonitor', 'noOsd', 'osdsDown', 'poolDown', 'mapGap'], 22: ['poolInvalid'] };

/** By command; how each line ends on each state, where it is not 0. */
const LINES: Record<string, Record<string, Exits>> = {
  status: { 'status': {} },
  df: { 'df': {}, 'df -l': {}, 'df --detail': {} },
  ls: { 'ls': {}, 'ls -l --del': {}, 'ls --tree': {} },
  create: {
    'create -s 1M -p 1 new': { 2: ['empty', 'poolGone'], 22: ['poolInvalid'] },
    'create --parent img@s -p 2 new': { 2: ['empty', 'poolAlone'] },
  },
  'snap-create': { 'snap-create other@t': { 2: ['empty', 'poolGone', 'poolAlone'], 22: ['poolInvalid'] } },
  modify: {
    'modify other --rename o2': { 2: ['empty', 'poolAlone'] },
    'modify other --resize 4k': { 2: ['empty', 'poolGone', 'poolAlone'], ...NO_DATA },
  },
  rm: {
    'rm other': { 2: ['empty', 'poolAlone'], ...NO_DATA },
    'rm --matching o*': { 2: ['empty', 'poolAlone'], ...NO_DATA },
  },
  flatten: { 'flatten img': { 2: ['empty', 'poolAlone'], ...NO_PLACE } },
  'merge-data': { 'merge-data img@s img': { 2: ['empty', 'poolAlone'], ...NO_PLACE } },
  'rm-data': { 'rm-data --pool 1 --inode 3': { 2: ['empty', 'poolGone'], ...NO_DATA } },
  export: { 'export img@s /dev/null --client_wait_up_timeout 1': IMAGE_IO },
  import: {
    'import /dev/null new -p 1 --format raw --size 4096 --client_wait_up_timeout 1':
      { ...IMAGE_IO, 2: ['empty', 'poolGone'], 5: ['noMonitor', 'noOsd', 'osdsDown', 'poolDown', 'mapGap', 'poolAlone'] },
  },
  dd: {
    'dd iimg=img of=/dev/null --client_wait_up_timeout 1': IMAGE_IO,
    'dd if=/dev/zero bs=4k count=1 seek=1 oimg=other conv=nocreat --client_wait_up_timeout 1': IMAGE_IO,
    'dd if=/dev/zero bs=4k count=1 oimg=new -p 1 --client_wait_up_timeout 1': { ...IMAGE_IO, 2: ['empty', 'poolGone'], 5: ['noMonitor', 'noOsd', 'osdsDown', 'poolDown', 'mapGap', 'poolAlone'] },
  },
  diff: {
    'diff img --from s': IMAGE_IO,
    'diff img': IMAGE_IO,
  },
  describe: {
    'describe': { 5: ['osdsDown', 'poolDown'] },
    'describe --pool 1': { 2: ['empty', 'poolGone'], 5: ['osdsDown', 'poolDown'], 22: ['poolInvalid'] },
  },
  fix: {
    'fix --bad-osds 1 --objects 0x1000000000001:0x0': { 5: ['empty', 'noMonitor', 'noOsd', 'osdsDown', 'poolDown', 'poolGone', 'poolAlone', 'poolInvalid', 'mapGap'] },
  },
  'alloc-osd': { 'alloc-osd': {} },
  'rm-osd': {
    'rm-osd 1': { 16: ['noMonitor', 'osdsDown', 'poolDown', 'poolGone', 'poolAlone', 'poolInvalid', 'mapGap', 'noFigures', 'emptyStats', 'healthy'] },
    'rm-osd 1 --force --dry-run --allow-up': { 16: ['poolDown', 'poolInvalid', 'mapGap'] },
    'rm-osd 1 --allow-up --allow-data-loss': {},
  },
  'modify-osd': { 'modify-osd 1 --noout 1': { 2: ['empty', 'noOsd'] } },
  'osd-tree': { 'osd-tree': {}, 'osd-tree -l': {} },
  osds: { 'osds': {}, 'osds -l': {} },
  'pg-list': { 'pg-list': {}, 'pg-list --pool 1': NO_POOL },
  'create-pool': {
    'create-pool new -s 2 -n 1': { 22: ['empty', 'noOsd', 'osdsDown'] },
    'create-pool new -s 2 -n 1 --force': {},
  },
  'modify-pool': { 'modify-pool 1 --pg_minsize 2': NO_POOL },
  'rm-pool': {
    'rm-pool 1': { ...NO_POOL, 39: ['noMonitor', 'noOsd', 'osdsDown', 'poolDown', 'mapGap', 'noFigures', 'emptyStats', 'healthy'] },
    'rm-pool 1 -f': NO_POOL,
  },
  'ls-pools': { 'ls-pools': {}, 'ls-pools -l': {}, 'ls-pools --detail': {} },
  flags: { 'flags': {}, 'flags set no_scrub': {} },
  completion: { 'completion bash': {}, 'completion images': {}, 'completion osds': {} },
};

/** Few of these lines wait, for a second at most: etcd is in memory. The rest is for a machine with much else to do. */
const TIME_LIMIT_MS = 90_000;
const FOUL = /\b(NaN|undefined|null|Infinity|TypeError|internal error)\b|\[object/;
const COMMAND_LINES = Object.values(LINES).flatMap((lines) => Object.entries(lines));

function expected(exits: Exits, state: State): number {
  return Number(Object.entries(exits).find(([, states]) => states.includes(state))?.[0] ?? 0);
}

/** Fails on a null anywhere: what NaN and Infinity become in JSON. */
function refuseNull(value: unknown, where: string): void {
  assert.notEqual(value, null, `null at ${where}`);
  if (typeof value === 'object') for (const [key, item] of Object.entries(value ?? {})) refuseNull(item, `${where}.${key}`);
}

function checkOutput(what: string, result: CliResult, exit: number, json: boolean): void {
  const { stdout, stderr } = result;
  assert.equal(result.exit, exit, `${what}: ${stdout}${stderr}`);
  if (!what.startsWith('completion bash')) assert.doesNotMatch(stdout + stderr, FOUL, what);
  if (json) refuseNull(JSON.parse(stdout), what);
  else if (exit !== 0) assert.notEqual(stderr.trim(), '', `${what}: no word of what is wrong`);
}

async function run(pairs: Pairs, words: readonly string[], dead = false): Promise<CliResult> {
  const rig = new CliRig();
  try {
    for (const [key, value] of Object.entries(pairs)) rig.put(key, value);
    for (const osd of [1, 2, 3]) if (`osd/state/${osd}` in pairs) rig.osdAdmin.items.set(osd, []);
    // As our OSDs would: nobody lists a PG without a leader.
    rig.dataOps.result = { inactivePgs: [1, 2].filter((pg) => !(`pg/state/1/${pg}` in pairs)) };
    rig.images.hangs = [1, 2].some((pg) => !(`pg/state/1/${pg}` in pairs));
    if (dead) rig.onClient = (client) => { client.connected = false; };
    let cancel = (): void => undefined;
    const late = new Promise<CliResult>((_, reject) => {
      cancel = rig.clock.after(TIME_LIMIT_MS, () => reject(new assert.AssertionError({ message: `${words.join(' ')} hangs` })));
    });
    try {
      return await Promise.race([rig.run(words), late]);
    } finally {
      cancel();
    }
  } finally {
    rig.stop();
  }
}


test('every command has lines here, and every exit code a state', () => {
  assert.deepEqual(Object.keys(LINES).sort(), CATALOG.map((entry) => entry.name).sort());
});

describe('every command on', { concurrency: true }, () => {
  for (const name of Object.keys(STATES) as State[]) {
    test(name, async () => {
      await Promise.all(COMMAND_LINES.flatMap(([line, exits]) => [false, true].map(async (json) => {
        const result = await run(STATES[name], [...line.split(' '), ...(json ? ['--json'] : [])]);
        checkOutput(`${line}${json ? ' --json' : ''}`, result, expected(exits, name), json);
      })));
    });
  }

  test('an etcd that does not answer', async () => {
    await Promise.all(COMMAND_LINES.flatMap(([line]) => [false, true].map(async (json) => {
      const what = `${line}${json ? ' --json' : ''}`;
      const result = await run(HEALTHY, [...what.split(' '), '--etcd_slow_timeout', '20', '--max_etcd_attempts', '2'], true);
      const asks = !line.startsWith('completion bash');
      checkOutput(what, result, asks ? 5 : 0, json);
      if (asks) assert.match(result.stdout + result.stderr, /etcd gave no answer within 20 ms/, what);
    })));
  });
});

describe('what an operator is told', () => {
  const told = async (state: State, line: string): Promise<string> => {
    const { stdout, stderr } = await run(STATES[state], line.split(' '));
    return stdout + stderr;
  };

  test('status names what is missing', async () => {
    assert.match(await told('noMonitor', 'status'), /no monitor runs: nobody reacts when an OSD fails\n +pools p, q|pools p, q are inactive\n +no monitor runs/);
    assert.match(await told('poolGone', 'status'), /pool 1 does not exist, but still has 3 images and 2 PGs/);
    assert.match(await told('poolInvalid', 'status'), /pool 1 in \/config\/pools is not valid/);
    assert.match(await told('osdsDown', 'status'), /osd: +0 \/ 3 up[\s\S]*0 B \/ 0 B available, 2\.8 G down[\s\S]*3 offline/);
    assert.doesNotMatch(await told('healthy', 'status'), /warning/);
    assert.doesNotMatch(await told('empty', 'status'), /warning/);
  });

  test('figures: nothing is not full', async () => {
    assert.match(await told('noFigures', 'df'), /^p +2\/1 +active +2 +0 B +0 B +0 B +0% +0% *$/m);
    assert.match(await told('osdsDown', 'df'), /^p +2\/1 +inactive +2 +524\.3 M +52\.4 M +476\.8 M +9\.05% +100% *$/m);
  });

  test('removal: where data is, or that there is none', async () => {
    assert.match(await told('poolGone', 'rm other'), /Pool 1 does not exist any more: there is no data of other to remove\nLayer other deleted/);
    assert.match(await told('mapGap', 'rm other'), /Pool p has data, but \/pg\/config does not say where/);
    assert.doesNotMatch(await told('mapGap', 'rm other'), /modified/);
    assert.match(await told('osdsDown', 'rm other'), /PGs 1, 2 are inactive and could not be listed/);
    assert.match(await told('poolInvalid', 'rm other'), /Pool 1 in \/config\/pools is not valid: correct it in etcd first/);
  });

  test('describe says that it does not know everything', async () => {
    assert.match(await told('poolDown', 'describe'), /the list is not complete: no OSD leads PG 1\/2/);
  });

  test('rm-osd: PGs that nobody can read count as lost', async () => {
    assert.match(await told('mapGap', 'rm-osd 1 --force'), /Pool p \(ID 1\) will have INCOMPLETE objects/);
  });

  test('create-pool: what a removed pool left behind does not come back', async () => {
    const rig = new CliRig();
    try {
      for (const [key, value] of Object.entries({ ...HEALTHY, 'config/pools': {} })) rig.put(key, value);
      assert.equal((await rig.run(['create-pool', 'new', '-s', '2', '-n', '1'])).exit, 0);
      assert.deepEqual(Object.keys(rig.get('config/pools') as object), ['3']);
    } finally {
      rig.stop();
    }
  });
});
