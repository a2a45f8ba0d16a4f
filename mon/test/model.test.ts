// SPDX-License-Identifier: GPL-2.0-or-later
// Random life: OSDs, pools, faults and two monitors; a judge looks at every revision that etcd ever
// has. After the faults end everything must settle. A failure names its seed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  decodePgConfig,
  decodePgHistory,
  decodePools,
  decodeText,
  DEFAULT_BLOCK_LAYOUT,
  type JsonObject,
  type PgConfig,
  type WatchEvent,
} from '@vitastor/core';
import { Dice, TestCluster } from './support.js';

const SEEDS = 40;
const STEPS = 60;
const OSDS = 6;

const members = (set: readonly number[]): string =>
  set
    .filter((num) => num !== 0)
    .sort((a, b) => a - b)
    .join();

/** Holds every change of /pg/config against what may never happen. */
class Judge {
  readonly #cluster: TestCluster;
  readonly #watcher;
  #config: PgConfig = { hash: '', items: new Map(), backfillfullPools: [] };
  readonly #epochs = new Map<string, bigint>();
  verdict = '';

  constructor(cluster: TestCluster) {
    this.#cluster = cluster;
    this.#watcher = cluster.server.client();
    this.#watcher.watch([{ key: cluster.keys.pgConfig }], 1n, {
      onEvents: (events) => {
        for (const event of events) this.#look(event.type === 'delete' ? '{}' : event.value);
      },
      onEnd: () => undefined,
    });
    this.#watcher.watch([{ prefix: cluster.keys.at('pg/history/') }], 1n, {
      onEvents: (events) => {
        for (const event of events) this.#lookAtHistory(event);
      },
      onEnd: () => undefined,
    });
  }

  close(): void {
    this.#watcher.close();
  }

  #look(text: string): void {
    const before = this.#config;
    const now = decodePgConfig(this.#cluster.keys.pgConfig, text).config;
    this.#config = now;
    for (const [pool, items] of before.items) {
      const next = now.items.get(pool);
      if (next?.length === items.length) {
        items.forEach((item, i) => {
          const set = members(item.osdSet);
          if (set !== members(next[i]?.osdSet ?? [])) this.#expectNamed(pool, i + 1, set);
        });
        continue;
      }
      if (!items.every((item) => item.pause))
        this.#complain(`pool ${pool} changed its count unpaused`);
      const states = this.#cluster.server
        .pairs()
        .filter(({ key }) => key.startsWith(this.#cluster.keys.at(`pg/state/${pool}/`)));
      if (states.length) this.#complain(`pool ${pool} changed its count under ${states[0]?.key}`);
      for (let pg = 1; next !== undefined && pg <= next.length; pg++) {
        for (let stripe = pg - 1; stripe < items.length * next.length; stripe += next.length) {
          this.#expectNamed(pool, pg, members(items[stripe % items.length]?.osdSet ?? []));
        }
      }
    }
  }

  /** An epoch that goes back would let two writers give one version to different data. */
  #lookAtHistory({ type, key, value }: WatchEvent): void {
    const epoch = type === 'delete' ? 0n : decodeText(decodePgHistory, value).epoch;
    if (type === 'put' && epoch < (this.#epochs.get(key) ?? 0n))
      this.#complain(`${key} went back to epoch ${epoch}`);
    this.#epochs.set(key, epoch);
  }

  /** Events arrive in the turn after the change; nobody but the judge has acted in between. */
  #expectNamed(pool: number, pg: number, set: string): void {
    if (set === '') return;
    const text = this.#cluster.text(`pg/history/${pool}/${pg}`) ?? '{}';
    const named = decodeText(decodePgHistory, text).osdSets.map((known) => members(known));
    if (!named.includes(set)) this.#complain(`PG ${pool}/${pg} forgot ${set}: ${text}`);
  }

  #complain(text: string): void {
    this.verdict ||= text;
  }
}

function randomPool(dice: Dice, id: number): JsonObject {
  const ec = dice.below(3) === 0;
  return {
    name: `p${id}`,
    scheme: ec ? 'ec' : 'replicated',
    pg_size: ec ? 3 : 1 + dice.below(3),
    pg_minsize: ec ? 2 : 1,
    ...(ec ? { parity_chunks: 1 } : {}),
    pg_count: dice.pick([1, 2, 3, 4, 6, 8, 12]),
  };
}

class Life {
  readonly cluster = new TestCluster();
  readonly #dice: Dice;
  #pools: Record<string, JsonObject> = {};

  constructor(dice: Dice) {
    this.#dice = dice;
  }

  get poolIds(): number[] {
    return Object.keys(this.#pools).map(Number);
  }

  savePools(): void {
    this.cluster.put('config/pools', this.#pools);
  }

  step(): void {
    const { cluster } = this;
    const dice = this.#dice;
    const num = 1 + dice.below(OSDS);
    const id = String(1 + dice.below(3));
    const pool = this.#pools[id];
    switch (dice.below(16)) {
      case 0:
      case 1:
        if (!cluster.osdLeases.has(num))
          cluster.osdUp(num, { size: (1 + dice.below(4)) * 2 ** 30 });
        break;
      case 2:
        cluster.osdDown(num);
        break;
      case 3:
        cluster.put(`config/osd/${num}`, {
          reweight: dice.pick([0, 0.3, 1]),
          noout: dice.below(2) === 0,
        });
        break;
      case 4:
        this.#pools[id] = pool ?? randomPool(dice, Number(id));
        this.savePools();
        break;
      case 5:
        if (pool !== undefined) pool['pg_count'] = dice.pick([1, 2, 3, 4, 6, 8, 12]);
        this.savePools();
        break;
      case 6:
        if (dice.below(3) === 0) delete this.#pools[id];
        this.savePools();
        break;
      case 7:
      case 8:
        cluster.obey([1, 2, 3].filter(() => dice.below(2) === 0));
        break;
      case 9:
      case 14:
      case 15:
        this.#writeHistory();
        break;
      case 10: {
        const member = dice.pick(cluster.members);
        member.etcd.connected = !member.etcd.connected;
        break;
      }
      case 11:
        dice.pick(cluster.members).etcd.failNext(dice.pick(['unavailable', 'reply-lost']));
        break;
      case 12:
        if (dice.below(2)) cluster.server.restart();
        else cluster.server.compact();
        break;
      default:
        dice.pick(cluster.members).etcd.delayMs = dice.pick([0, 0, 30, 300]);
    }
  }

  /** As a primary does: a new epoch, sets kept. */
  #writeHistory(): void {
    const { cluster } = this;
    const { keys } = cluster;
    const states = cluster.server.pairs().filter(({ key }) => key.startsWith(keys.at('pg/state/')));
    if (states.length === 0) return;
    const parsed = keys.parse(this.#dice.pick(states).key);
    if (parsed?.kind !== 'pg/state') return;
    this.#writeEpoch(parsed.pool, parsed.pg);
  }

  /** Primaries write a history in the very moment before a monitor's transaction reaches etcd. */
  interfere(): void {
    const { server, keys } = this.cluster;
    const apply = server.apply.bind(server);
    let busy = false;
    server.apply = (txn) => {
      if (!busy && this.#dice.below(4) === 0) {
        busy = true;
        for (const op of txn.success) {
          const parsed = op.op === 'put' ? keys.parse(op.key) : null;
          if (parsed?.kind === 'pg/history') this.#writeEpoch(parsed.pool, parsed.pg);
        }
        busy = false;
      }
      return apply(txn);
    };
  }

  #writeEpoch(pool: number, pg: number): void {
    const { cluster } = this;
    const path = `pg/history/${pool}/${pg}`;
    if (cluster.text(`pg/state/${pool}/${pg}`) === undefined) return;
    const known = decodeText(decodePgHistory, cluster.text(path) ?? '{}');
    cluster.put(path, {
      epoch: known.epoch + 1n,
      osd_sets: known.osdSets,
      all_peers: known.allPeers,
    });
  }

  /** Faults end, everybody is there: nothing may be left undone. */
  async settle(): Promise<void> {
    const { cluster } = this;
    for (const { etcd } of cluster.members) {
      etcd.connected = true;
      etcd.delayMs = 0;
    }
    for (let num = 1; num <= OSDS; num++) {
      cluster.put(`config/osd/${num}`, {});
      if (!cluster.osdLeases.has(num)) cluster.osdUp(num);
    }
    this.savePools();
    for (let i = 0; i < 8; i++) {
      await cluster.clock.advance(10_000);
      cluster.obey([1, 2, 3]);
    }
    await cluster.clock.advance(5000);
  }
}

for (let seed = 1; seed <= SEEDS; seed++) {
  test(`seed ${seed}`, async () => {
    const dice = new Dice(seed);
    const life = new Life(dice);
    const { cluster } = life;
    const judge = new Judge(cluster);
    life.interfere();
    try {
      cluster.addMonitor();
      cluster.addMonitor();
      for (let i = 0; i < STEPS; i++) {
        life.step();
        await cluster.clock.advance(dice.pick([0, 10, 100, 1000, 1000, 5000, 30_000]));
        assert.equal(judge.verdict, '', `seed ${seed}, step ${i}`);
        assert.ok(cluster.masters.length <= 2);
      }
      await life.settle();
      assert.equal(judge.verdict, '', `seed ${seed}, at the end`);
      assert.equal(cluster.masters.length, 1);
      const { pools } = decodePools('', cluster.text('config/pools') ?? '{}', DEFAULT_BLOCK_LAYOUT);
      const config = cluster.pgConfig;
      assert.match(config.hash, /^[0-9a-f]{40}$/);
      assert.deepEqual([...config.items.keys()].sort(), [...pools.keys()].sort());
      for (const pool of pools.values()) {
        const items = config.items.get(pool.id) ?? [];
        assert.equal(items.length, pool.pgCount, `pool ${pool.id}`);
        for (const item of items) {
          assert.ok(!item.pause && item.osdSet.includes(item.primary), JSON.stringify(item));
          assert.equal(new Set(item.osdSet).size, pool.pgSize);
        }
      }
      const errors = cluster.members.flatMap(({ log }) => log.lines);
      assert.deepEqual(
        errors.filter(({ text }) => /placement failed|ERR_ETCD_REQUEST|twice/.test(text)),
        [],
      );
    } finally {
      judge.close();
      await cluster.stop();
    }
    assert.equal(cluster.clock.pending, 0, 'timers are left over');
  });
}
