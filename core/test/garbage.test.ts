// SPDX-License-Identifier: GPL-2.0-or-later
// Garbage in: whatever stands in etcd or in a file, decoders either take it or say what is wrong. Seeded; a failure prints the seed and the text.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ClusterView } from '../src/cluster-view.js';
import { Config, parseConfigFile } from '../src/config/config.js';
import { parameterNames } from '../src/config/parameters.js';
import { isVitastorError } from '../src/errors.js';
import { isJsonObject, parseJson, stringifyJson, type JsonValue } from '../src/json.js';
import { KeySpace } from '../src/schema/keys.js';

const keys = new KeySpace();

/** A key of every family with a value that decodes. */
const GOOD: Record<string, JsonValue> = {
  'config/global': { block_size: 131072, placement_levels: { host: 100 } },
  'config/pools': { 1: { name: 'p', scheme: 'ec', pg_size: 3, parity_chunks: 1, pg_minsize: 2, pg_count: 4, osd_tags: ['a'], level_placement: { dc: '123' }, scrub_interval: '30d' } },
  'config/node_placement': { r1: { level: 'rack', parent: '' }, 7: { parent: 'r1' } },
  'config/osd/1': { reweight: 0.5, tags: ['a'], noout: true },
  'config/inode/1/1': { name: 'i', size: 18446744073709551615n, parent_id: 2, parent_pool: 3, readonly: true, meta: { a: 1 } },
  'index/image/i': { id: 1, pool_id: 1 },
  'index/maxid/1': 281474976710655n,
  'pg/config': { hash: 'x', items: { 1: { 1: { osd_set: ['1', 0, 3], primary: '1', pause: true }, 2: { osd_set: [1, 2, 3], primary: 2 } } }, backfillfull_pools: ['1'] },
  'history/last_clean_pgs': { items: { 1: { 1: { osd_set: ['1', 2, 3], primary: '1' } } } },
  'pg/state/1/1': { primary: 1, state: ['active', 'has_degraded'], peers: [1, 2] },
  'pg/history/1/1': { epoch: 5, osd_sets: [[1, 2], ['3', 0]], all_peers: [1], next_scrub: 5 },
  'pgstats/1/1': { object_count: 1, clean_count: 1, write_osd_set: [1, 0] },
  'osd/state/1': { state: 'up', addresses: ['::1'], port: 1, host: 'h', version: '1', primary_enabled: true },
  'osd/stats/1': { time: '1700000000.123', size: 1, free: 1, immediate_commit: 'all', op_stats: { read: { count: 1, lat: 1.5 } }, recovery_stats: { degraded: { bps: '1' } } },
  'osd/space/1': { 1: { 1: 4096 } },
  'osd/inodestats/1': { 1: { 1: { read: { count: 1, usec: 2, bytes: 3 } } } },
  'mon/member/1': { ip: ['::1'], hostname: 'h' },
  'mon/master': { ip: [], hostname: 'h', id: '1' },
  stats: { op_stats: { read: { count: '1' } }, object_counts: { clean: '1' }, object_bytes: { clean: '1' } },
  'inode/stats/1/1': { raw_used: '1', read: { bps: '1' } },
  'pool/stats/1': { used_raw_tb: 0.5, pg_real_size: 2 },
};

/** Numerical Recipes' generator: small, and the same everywhere. */
class Seeded {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  below(n: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * n);
  }

  pick<T>(items: readonly [T, ...T[]]): T {
    return items[this.below(items.length)] ?? items[0];
  }
}

const ODD: [JsonValue, ...JsonValue[]] = [
  null, true, false, 0, -1, 1.5, 1e308, -0, 65536, 2 ** 53, 18446744073709551616n, -9223372036854775809n, '', '0', '-1', 'x', '99999999999999999999', '1e5', ' 5', 'ä\u0000', [], [[]],
  [null], ['1', 2, {}], {}, { '': 1 }, { __proto__x: 1 }, { 1: { 1: {} } }, { '-1': {} }, { 1e21: {} },
];

/** Replaces, removes or adds something somewhere. */
function mutate(value: JsonValue, random: Seeded, depth = 0): JsonValue {
  if (depth > 0 && random.below(4) === 0) return random.pick(ODD);
  if (Array.isArray(value) && value.length) {
    const copy = [...value];
    const at = random.below(copy.length);
    const item = copy[at];
    if (random.below(4) === 0) copy.splice(at, 1);
    else if (item !== undefined) copy[at] = mutate(item, random, depth + 1);
    if (random.below(6) === 0) copy.push(random.pick(ODD));
    return copy;
  }
  if (isJsonObject(value) && Object.keys(value).length) {
    const copy = { ...value };
    const names = Object.keys(copy);
    const name = names[random.below(names.length)] ?? '';
    if (random.below(5) === 0) delete copy[name];
    else copy[name] = mutate(copy[name] ?? null, random, depth + 1);
    if (random.below(6) === 0) copy[random.pick(['0', '65536', 'constructor', '__proto__', 'items', ''])] = random.pick(ODD);
    return copy;
  }
  return random.pick(ODD);
}

/** Damages bytes. */
function damage(text: string, random: Seeded): string {
  const at = random.below(text.length + 1);
  switch (random.below(4)) {
    case 0: return text.slice(0, at);
    case 1: return text.slice(0, at) + random.pick(['"', '{', '}', '[', ']', ',', ':', '\\', '\u0000', '9'.repeat(30), '-', 'e', 'null']) + text.slice(at);
    case 2: return text.slice(0, at) + text.slice(at + 1 + random.below(3));
    default: return text.slice(at) + text.slice(0, at);
  }
}

const ROUNDS = 400;

describe('garbage', () => {
  for (const [key, good] of Object.entries(GOOD)) {
    test(key, () => {
      const problems: string[] = [];
      const view = new ClusterView(keys, (problem) => problems.push(problem.key));
      let revision = 1n;
      const put = (text: string): void => void view.apply({ key: keys.at(key), value: text, createRevision: 1n, modRevision: revision++, version: 1n, lease: 0n });
      put(stringifyJson(good));
      assert.deepEqual(problems, [], 'the value to start from is good');
      for (let seed = 1; seed <= ROUNDS; seed++) {
        const random = new Seeded(seed * 7919);
        const text = random.below(2) ? stringifyJson(mutate(good, random)) : damage(stringifyJson(good), random);
        try {
          put(text);
          if (random.below(8) === 0) put('');
        } catch (error) {
          throw new Error(`seed ${seed}: ${text}`, { cause: error });
        }
      }
      assert.ok(problems.length > 0 || ['config/global', 'config/osd/1'].includes(key), 'some of it was noticed');
      assert.ok(problems.every((name) => name === keys.at(key)));
      put(stringifyJson(good));
      assert.equal(view.entry(keys.at(key))?.value, stringifyJson(good));
    });
  }

  test('JSON: what parses is written and parsed back to the same', () => {
    for (let seed = 1; seed <= 2000; seed++) {
      const random = new Seeded(seed * 104729);
      const text = damage(stringifyJson(mutate(GOOD, random)), random);
      let value: JsonValue;
      try {
        value = parseJson(text);
      } catch (error) {
        assert.ok(isVitastorError(error, 'ERR_BAD_VALUE') && typeof error.data['line'] === 'number', `seed ${seed}: ${text}`);
        continue;
      }
      assert.equal(stringifyJson(parseJson(stringifyJson(value))), stringifyJson(value), `seed ${seed}: ${text}`);
    }
  });

  test('configuration files and values', () => {
    const good = { etcd_address: ['a:1'], block_size: '128k', placement_levels: { a: 1 }, use_rdma: 'yes', scrub_interval: '30d', immediate_commit: 'all', osd_num: 5 };
    for (let seed = 1; seed <= 1000; seed++) {
      const random = new Seeded(seed * 15485863);
      const text = damage(stringifyJson(mutate(good, random)), random);
      try {
        const config = new Config({ file: parseConfigFile('/v.conf', text), filePath: '/v.conf' });
        for (const name of parameterNames()) config.value(name);
        config.describeSources('O');
        config.asText();
      } catch (error) {
        assert.ok(isVitastorError(error, 'ERR_CONFIG_FILE') && error.message.includes('/v.conf'), `seed ${seed}: ${text}: ${String(error)}`);
      }
    }
  });
});
