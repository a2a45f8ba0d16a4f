// SPDX-License-Identifier: GPL-2.0-or-later

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseJson, stringifyJson, VitastorError, type JsonObject } from '@vitastor/core';
import {
  choosePrimary,
  fairShares,
  filterTree,
  foldTree,
  parseRules,
  placePool,
  roundShares,
  rulesOf,
  scaleSets,
  withDefaultLevels,
  type Placement,
  type PlaceInput,
} from '../src/index.js';
import {
  countOsds,
  defaultLevels,
  Dice,
  movedSlots,
  osd,
  pool,
  solver,
  treeOf,
} from './support.js';

async function place(
  input: Partial<PlaceInput> & Pick<PlaceInput, 'pool' | 'tree'>,
): Promise<Placement> {
  const result = await placePool({ levels: defaultLevels, previous: [], solver, ...input });
  assert.ok(result !== null, 'no OSD suits the pool');
  return result;
}

describe('worked examples of the specification', () => {
  test('rounding: halves up, the rest is shared again', () => {
    assert.deepEqual(roundShares([2.5, 2.5, 3], 8), [3, 2, 3]);
  });

  test('initial program: 1, 1 and 2 TiB, two copies, 4 PGs', async () => {
    const { sets, space } = await place({
      pool: pool({ pg_count: 4, failure_domain: 'osd' }),
      tree: treeOf([osd(1), osd(2), osd(3, { weight: 2 })]),
    });
    assert.deepEqual(sets.map((set) => set.join()).sort(), ['1,3', '1,3', '2,3', '2,3']);
    assert.deepEqual(space, { totalRawTb: 4, pgRealSize: 2, rawToUsable: 2, spaceEfficiency: 1 });
  });

  test('primaries: PG number modulo candidates', () => {
    const everybody = { isUp: () => true, hasAffinity: () => false };
    assert.equal(choosePrimary(1, [1, 3], pool(), everybody), 3);
    assert.equal(choosePrimary(2, [2, 1], pool(), everybody), 2);
  });
});

describe('primary choice', () => {
  const up =
    (...osds: number[]) =>
    (num: number): boolean =>
      osds.includes(num);
  const ec = pool({
    scheme: 'ec',
    pg_size: 3,
    parity_chunks: 1,
    pg_minsize: 2,
    primary_affinity_tags: 'near',
  });

  test('nobody up: none', () => {
    assert.equal(
      choosePrimary(5, [1, 2], pool(), { isUp: () => false, hasAffinity: () => true }),
      0,
    );
    assert.equal(
      choosePrimary(5, [0, 0], pool(), { isUp: () => true, hasAffinity: () => true }),
      0,
    );
  });

  test('a death moves only what the dead one led, evenly; its return gives exactly that back', () => {
    for (const set of [
      [1, 2],
      [1, 2, 3],
      [1, 2, 3, 4],
      [4, 0, 1, 2],
    ]) {
      const many = pool({ pg_size: set.length });
      const choose = (pg: number, dead: number): number =>
        choosePrimary(pg, set, many, { isUp: (osd) => osd !== dead, hasAffinity: () => false });
      const led = new Map<number, number>();
      for (let pg = 1; pg <= 240; pg++) {
        const before = choose(pg, 0);
        const after = choose(pg, 2);
        if (before === 2) led.set(after, (led.get(after) ?? 0) + 1);
        else assert.equal(after, before);
        assert.notEqual(after, 2);
      }
      const members = set.filter((osd) => osd !== 0).length;
      for (const osd of set)
        if (osd !== 0 && osd !== 2) assert.equal(led.get(osd), 240 / members / (members - 1));
    }
  });

  test('erasure codes: data with affinity, any with affinity, data, any', () => {
    assert.equal(choosePrimary(1, [1, 2, 3], ec, { isUp: up(1, 2, 3), hasAffinity: up(2, 3) }), 2);
    assert.equal(choosePrimary(1, [1, 2, 3], ec, { isUp: up(1, 2, 3), hasAffinity: up(3) }), 3);
    assert.equal(choosePrimary(1, [1, 2, 3], ec, { isUp: up(1, 2, 3), hasAffinity: up() }), 2);
    assert.equal(choosePrimary(1, [1, 2, 3], ec, { isUp: up(3), hasAffinity: up() }), 3);
  });
});

describe('tree', () => {
  test('levels, ignored parents, defaults', () => {
    const levels = withDefaultLevels(
      new Map([
        ['dc', 1],
        ['rack', 50],
      ]),
    );
    const tree = treeOf(
      [osd(1), osd(2), osd(3), osd(4, { host: '' })],
      {
        host1: { level: 'host', parent: 'rack1' },
        rack1: { level: 'rack', parent: 'dc1' },
        dc1: { level: 'dc', parent: '' },
        // A parent that is not above its child, and one of an unknown level, count for nothing.
        host2: { level: 'host', parent: 'host1' },
        host3: { level: 'host', parent: 'shelf' },
        shelf: { level: 'shelf', parent: 'dc1' },
        4: { level: 'osd', parent: 'rack1' },
      },
      levels,
    );
    const chains = tree.map(({ chain }) => chain.map(({ node }) => node).join('<'));
    assert.deepEqual(chains, ['1<host1<rack1<dc1', '2<host2', '3<host3', '4<rack1<dc1']);
  });

  test('what a pool cannot use is filtered out', () => {
    const nums = (fields: JsonObject): number[] =>
      filterTree(
        treeOf([
          osd(1),
          osd(2, { tags: ['ssd', 'fast'] }),
          osd(3, { blockSizeBytes: 4096 }),
          osd(4, { immediateCommit: 'small' }),
          osd(5, { immediateCommit: 'none' }),
          osd(6, { bitmapGranularityBytes: 512 }),
          osd(7, { blockSizeBytes: 0, immediateCommit: null }),
        ]),
        pool(fields),
      ).map(({ num }) => num);
    assert.deepEqual(nums({}), [1, 2, 7]);
    assert.deepEqual(nums({ immediate_commit: 'small' }), [1, 2, 4, 7]);
    assert.deepEqual(nums({ immediate_commit: 'none' }), [1, 2, 4, 5, 7]);
    assert.deepEqual(nums({ osd_tags: ['fast', 'ssd'] }), [2]);
    assert.deepEqual(nums({ root_node: 'host7' }), [7]);
    assert.deepEqual(nums({ root_node: 'nowhere' }), []);
  });

  test('folding: hosts for the default failure domain, nothing for osd or for rules that may share a node', () => {
    const tree = treeOf([
      osd(1, { host: 'a' }),
      osd(2, { host: 'a', weight: 3 }),
      osd(3, { host: 'b' }),
    ]);
    const leaves = (fields: JsonObject): string[] =>
      foldTree(tree, rulesOf(pool(fields)), defaultLevels).map(
        (leaf) => `${leaf.node}:${leaf.weight}:${leaf.osds.map(({ num }) => num).join('+')}`,
      );
    assert.deepEqual(leaves({}), ['a:4:1+2', 'b:1:3']);
    assert.deepEqual(leaves({ failure_domain: 'osd' }), ['1:1:1', '2:3:2', '3:1:3']);
    assert.deepEqual(leaves({ raw_placement: 'any, host=1' }), ['1:1:1', '2:3:2', '3:1:3']);
    assert.deepEqual(leaves({ raw_placement: 'any, host!=1' }), ['a:4:1+2', 'b:1:3']);
  });
});

describe('rules', () => {
  test('level placement: repeated letters stay together, the failure domain is always added', () => {
    const { slots } = rulesOf(
      pool({
        scheme: 'ec',
        pg_size: 4,
        parity_chunks: 2,
        pg_minsize: 2,
        level_placement: { dc: 'aabb' },
      }),
    );
    assert.deepEqual(
      slots.map((list) =>
        list
          .map((rule) => `${rule.level}${rule.op}${rule.slots.map((s) => s + 1).join()}`)
          .join(' '),
      ),
      ['', 'dc=1 host!=1', 'dc!=1 host!=1,2', 'dc=3 host!=1,2,3'],
    );
  });

  test('the rule language', () => {
    assert.deepEqual(parseRules('rack=fast, host!=1, host!=(1,2)', 3), [
      [{ level: 'rack', op: '=', slots: [], names: ['fast'] }],
      [{ level: 'host', op: '!=', slots: [0], names: [] }],
      [{ level: 'host', op: '!=', slots: [0, 1], names: [] }],
    ]);
    assert.deepEqual(parseRules('any\ndc ?= "1" host > 1\n', 2), [
      [],
      [
        { level: 'dc', op: '?=', slots: [], names: ['1'] },
        { level: 'host', op: '>', slots: [0], names: [] },
      ],
    ]);
  });

  test('mistakes are named', () => {
    for (const [text, expected] of [
      ['any', /has 1 slots, but pg_size is 2/],
      ['any, host!=2', /may refer to slots 1 to 1 only/],
      ['any, host!=(1', /expected "," or "\)"/],
      ['any, sometimes', /expected "any" or level/],
      ['any, host!', /cannot read it from "!"/],
      ['any, =1', /unexpected "="/],
    ] as const) {
      assert.throws(
        () => parseRules(text, 2),
        (error) =>
          error instanceof VitastorError &&
          error.code === 'ERR_BAD_VALUE' &&
          expected.test(error.message),
        text,
      );
    }
  });

  test('wishes give way, orders do not', async () => {
    const tree = treeOf([osd(1), osd(2), osd(3)]);
    const wished = await place({
      pool: pool({ raw_placement: 'any, host!=1 host?=nowhere' }),
      tree,
    });
    assert.equal(wished.space.pgRealSize, 2);
    const ordered = await place({
      pool: pool({ raw_placement: 'any, host!=1 host=nowhere' }),
      tree,
    });
    assert.equal(ordered.space.pgRealSize, 1);
    const named = await place({ pool: pool({ raw_placement: 'host=host2, host!=1' }), tree });
    assert.ok(named.sets.every((set) => set.includes(2)));
  });

  test('two chunks in each of two data centres', async () => {
    const levels = withDefaultLevels(new Map([['dc', 10]]));
    const tree = treeOf(
      Array.from({ length: 8 }, (_, i) => osd(i + 1)),
      Object.fromEntries(
        Array.from({ length: 8 }, (_, i) => [
          `host${i + 1}`,
          { level: 'host', parent: i % 2 ? 'east' : 'west' },
        ]).concat([
          ['east', { level: 'dc', parent: '' }],
          ['west', { level: 'dc', parent: '' }],
        ]),
      ),
      levels,
    );
    const { sets } = await place({
      pool: pool({
        scheme: 'ec',
        pg_size: 4,
        parity_chunks: 2,
        pg_minsize: 2,
        pg_count: 32,
        level_placement: 'dc=1122',
      }),
      tree,
      levels,
    });
    for (const set of sets) assert.deepEqual(set.map((num) => num % 2).sort(), [0, 0, 1, 1]);
    assert.ok([...countOsds(sets).values()].every((n) => n === 16));
  });
});

describe('shares', () => {
  test('in proportion, and never more than one slot of each PG', () => {
    assert.deepEqual(fairShares([1, 1, 2], 2, 4), [2, 2, 4]);
    assert.deepEqual(fairShares([1, 1, 1, 9], 2, 9), [3, 3, 3, 9]);
    assert.deepEqual(fairShares([1, 1], 2, 5), [5, 5]);
  });
});

describe('placement', () => {
  test('no OSD: no placement; fewer domains than copies: empty slots', async () => {
    assert.equal(
      await placePool({ pool: pool(), tree: [], levels: defaultLevels, previous: [], solver }),
      null,
    );
    const { sets, space } = await place({
      pool: pool({ pg_size: 3 }),
      tree: treeOf([osd(1), osd(2)]),
    });
    assert.ok(sets.every((set) => set.length === 3 && set.includes(0)));
    assert.equal(space.pgRealSize, 2);
  });

  test('an unknown failure domain puts nothing beside another copy', async () => {
    const { space } = await place({
      pool: pool({ failure_domain: 'rack' }),
      tree: treeOf([osd(1), osd(2)]),
    });
    assert.equal(space.pgRealSize, 1);
  });

  test('erasure codes: parity is spread over the OSDs', async () => {
    const { sets } = await place({
      pool: pool({ scheme: 'ec', pg_size: 3, parity_chunks: 1, pg_minsize: 2, pg_count: 9 }),
      tree: treeOf([1, 2, 3].map((n) => osd(n))),
    });
    assert.deepEqual([...countOsds(sets.map((set) => set.slice(2))).values()], [3, 3, 3]);
  });

  test('erasure codes: a lost member is replaced in its own slot', async () => {
    const wide = pool({ scheme: 'ec', pg_size: 3, parity_chunks: 1, pg_minsize: 2, pg_count: 12 });
    const before = await place({ pool: wide, tree: treeOf([1, 2, 3, 4, 5].map((n) => osd(n))) });
    const after = await place({
      pool: wide,
      tree: treeOf([1, 2, 3, 5].map((n) => osd(n))),
      previous: before.sets,
    });
    let kept = 0;
    after.sets.forEach((set, pg) =>
      set.forEach((num, slot) => {
        const old = before.sets[pg] ?? [];
        // Whoever stays in the set stays in its role.
        if (old.includes(num)) {
          assert.equal(old[slot], num);
          kept++;
        }
      }),
    );
    assert.ok(kept >= 27, `only ${kept} of 36 chunks stayed`);
  });

  test('new PGs: primaries are spread', async () => {
    for (const [count, pgSize, pgCount] of [
      [3, 2, 8],
      [3, 2, 16],
      [5, 2, 32],
      [3, 3, 16],
    ] as const) {
      const p = pool({ pg_size: pgSize, pg_count: pgCount });
      const { sets } = await place({
        pool: p,
        tree: treeOf(Array.from({ length: count }, (_, i) => osd(i + 1))),
      });
      const leads = sets.map((set, i) => [
        choosePrimary(i + 1, set, p, { isUp: () => true, hasAffinity: () => false }),
      ]);
      const counts = [...countOsds(leads).values()];
      assert.equal(counts.length, count);
      assert.ok(Math.max(...counts) - Math.min(...counts) <= 2, `${pgCount} PGs: ${counts.join()}`);
    }
  });

  test('scaling keeps sets: twice the PGs, half the PGs', async () => {
    const tree = treeOf([1, 2, 3, 4].map((n) => osd(n)));
    const before = await place({ pool: pool({ pg_count: 6 }), tree });
    for (const pgCount of [12, 3]) {
      const previous = scaleSets(before.sets, pgCount);
      const { sets } = await place({ pool: pool({ pg_count: pgCount }), tree, previous });
      assert.equal(sets.length, pgCount);
      assert.ok(movedSlots(previous, sets) <= (pgCount === 12 ? 0 : 2));
    }
  });

  test('pg_size grows: the copies that are there stay', async () => {
    const tree = treeOf([1, 2, 3, 4].map((n) => osd(n)));
    const before = await place({ pool: pool({ pg_count: 12 }), tree });
    const after = await place({
      pool: pool({ pg_count: 12, pg_size: 3 }),
      tree,
      previous: before.sets,
    });
    assert.ok(after.sets.every((set) => new Set(set).size === 3));
    assert.ok(
      movedSlots(before.sets, after.sets) <= 16,
      `${movedSlots(before.sets, after.sets)} new members, 12 at least`,
    );
  });

  test('large trees are sampled, and still lose little to a lost OSD', async () => {
    const all = Array.from({ length: 60 }, (_, i) => osd(i + 1, { host: `h${i % 30}` }));
    const p = pool({ pg_size: 3, pg_count: 512, max_osd_combinations: 1000 });
    const before = await place({ pool: p, tree: treeOf(all) });
    const lost = countOsds(before.sets).get(7) ?? 0;
    const after = await place({
      pool: p,
      tree: treeOf(all.filter(({ num }) => num !== 7)),
      previous: before.sets,
    });
    assert.ok(before.space.spaceEfficiency > 0.9 && after.space.spaceEfficiency > 0.9);
    assert.ok(
      movedSlots(before.sets, after.sets) <= 1.7 * lost,
      `${movedSlots(before.sets, after.sets)} moves for ${lost} lost`,
    );
  });
});

describe('random trees and pools', () => {
  for (let seed = 1; seed <= 60; seed++) {
    test(`seed ${seed}`, async () => {
      const dice = new Dice(seed);
      const hosts = 1 + dice.below(8);
      const all = Array.from({ length: hosts * (1 + dice.below(3)) }, (_, i) =>
        osd(i + 1, { host: `h${dice.below(hosts)}`, weight: dice.pick([1, 1, 1, 0.5, 2, 3.7]) }),
      );
      const scheme = dice.pick(['replicated', 'ec']);
      const pgSize = scheme === 'ec' ? 3 + dice.below(3) : 1 + dice.below(3);
      const fields: JsonObject = {
        scheme,
        pg_size: pgSize,
        pg_minsize: scheme === 'ec' ? pgSize - 1 : 1,
        ...(scheme === 'ec' ? { parity_chunks: 1 } : {}),
        pg_count: 1 + dice.below(64),
        failure_domain: dice.pick(['host', 'osd']),
        max_osd_combinations: dice.pick([100, 10000]),
      };
      const p = pool(fields);
      const tree = treeOf(all);
      const domain = new Map(
        all.map((o) => [o.num, p.failureDomain === 'host' ? o.host : String(o.num)]),
      );
      const domains = new Set(domain.values()).size;
      const check = (sets: readonly (readonly number[])[], known: ReadonlySet<number>): void => {
        assert.equal(sets.length, p.pgCount);
        for (const set of sets) {
          const filled = set.filter((num) => num !== 0);
          assert.equal(set.length, pgSize);
          assert.ok(
            filled.every((num) => known.has(num)),
            `unknown OSD in ${set.join()}`,
          );
          assert.equal(
            new Set(filled.map((num) => domain.get(num))).size,
            filled.length,
            `one domain twice in ${set.join()}`,
          );
        }
      };
      const { sets, space } = await place({ pool: p, tree });
      check(sets, domain === undefined ? new Set() : new Set(domain.keys()));
      assert.equal(space.pgRealSize, Math.min(pgSize, domains));
      // Equal inputs, equal results.
      assert.deepEqual((await place({ pool: p, tree })).sets, sets);
      // Nothing changed, or nothing but the hash: nothing moves.
      assert.deepEqual((await place({ pool: p, tree, previous: sets })).sets, sets);
      if (
        p.failureDomain === 'osd' ||
        all.every(({ host }, i) => all.findIndex((o) => o.host === host) === i)
      ) {
        const shares = fairShares(
          all.map(({ weight }) => weight),
          Math.min(pgSize, domains),
          p.pgCount,
        );
        const counts = countOsds(sets);
        all.forEach(({ num }, i) =>
          assert.ok(
            Math.abs((counts.get(num) ?? 0) - (shares[i] ?? 0)) < 2,
            `OSD ${num} has ${counts.get(num)} PGs, its share is ${shares[i]}`,
          ),
        );
      }
      const gone = dice.pick(all).num;
      if (domains > 1) {
        const lost = countOsds(sets).get(gone) ?? 0;
        const rest = all.filter(({ num }) => num !== gone);
        const after = await place({ pool: p, tree: treeOf(rest), previous: sets });
        check(after.sets, new Set(rest.map(({ num }) => num)));
        const moved = movedSlots(sets, after.sets);
        assert.ok(
          moved <= 2 * lost + all.length,
          `${moved} copies moved for ${lost} that were lost`,
        );
        const back = await place({ pool: p, tree, previous: after.sets });
        check(back.sets, new Set(domain.keys()));
      }
    });
  }
});

test('results are plain JSON: no undefined, no gaps', async () => {
  const { sets } = await place({ pool: pool(), tree: treeOf([osd(1), osd(2), osd(3)]) });
  assert.deepEqual(parseJson(stringifyJson(sets)), sets);
});
