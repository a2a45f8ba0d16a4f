// SPDX-License-Identifier: GPL-2.0-or-later

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { PgHistory } from '@vitastor/core';
import { ancestors, movedHistory, scaledHistories } from '../src/index.js';

const history = (fields: Partial<PgHistory> = {}): PgHistory => ({
  epoch: 0n,
  osdSets: [],
  allPeers: [],
  nextScrub: 0,
  ...fields,
});

describe('a PG that moves', () => {
  test('remembers its set, once, without empty slots', () => {
    assert.deepEqual(
      movedHistory({ osdSet: [1, 2], history: null }, [1, 3], false),
      history({ osdSets: [[1, 2]] }),
    );
    assert.deepEqual(
      movedHistory(
        { osdSet: [1, 0, 3], history: history({ epoch: 7n, osdSets: [[5, 6]], nextScrub: 9 }) },
        [1, 2, 3],
        true,
      ),
      history({
        epoch: 7n,
        osdSets: [
          [5, 6],
          [1, 3],
        ],
        nextScrub: 9,
      }),
    );
    assert.deepEqual(
      movedHistory({ osdSet: [2, 1], history: history({ osdSets: [[1, 2]] }) }, [1, 3], false),
      history({ osdSets: [[1, 2]] }),
    );
    assert.equal(movedHistory({ osdSet: [0, 0], history: null }, [1, 3], false), null);
  });

  test('replicas may change places, chunks may not', () => {
    assert.equal(movedHistory({ osdSet: [1, 2], history: null }, [2, 1], false), null);
    assert.deepEqual(
      movedHistory({ osdSet: [1, 2, 3], history: null }, [2, 1, 3], true),
      history({ osdSets: [[1, 2, 3]] }),
    );
  });
});

describe('a changed PG count', () => {
  const old = [
    { osdSet: [1, 2], history: history({ epoch: 4n }) },
    { osdSet: [3, 1], history: history({ epoch: 9n }) },
  ];

  test('2 → 4: the example of the specification', () => {
    const one = history({ epoch: 4n, osdSets: [[1, 2]] });
    const two = history({ epoch: 9n, osdSets: [[3, 1]] });
    assert.deepEqual(scaledHistories(old, 4), [one, two, one, two]);
  });

  test('2 → 1 and 2 → 3: everything that may hold data is named', () => {
    const both = history({
      epoch: 9n,
      osdSets: [
        [1, 2],
        [3, 1],
      ],
    });
    assert.deepEqual(scaledHistories(old, 1), [both]);
    assert.deepEqual(scaledHistories(old, 3), [both, both, both]);
  });

  test('earlier sets, peers and scrub times are merged', () => {
    const merged = scaledHistories(
      [
        {
          osdSet: [1, 2],
          history: history({ epoch: 3n, osdSets: [[4, 5]], allPeers: [6, 1], nextScrub: 50 }),
        },
        {
          osdSet: [2, 1],
          history: history({
            epoch: 1n,
            osdSets: [
              [5, 4],
              [7, 0],
            ],
            allPeers: [2],
            nextScrub: 40,
          }),
        },
      ],
      1,
    );
    assert.deepEqual(merged, [
      history({ epoch: 3n, osdSets: [[4, 5], [1, 2], [7]], allPeers: [1, 2, 6], nextScrub: 40 }),
    ]);
  });

  test('who can share data with whom, by brute force', () => {
    for (let from = 1; from <= 12; from++) {
      for (let to = 1; to <= 12; to++) {
        for (let stripe = 0; stripe < from * to; stripe++) {
          assert.ok(
            ancestors(stripe % to, from, to).includes(stripe % from),
            `${from} → ${to}: stripe ${stripe} is forgotten`,
          );
        }
      }
    }
    assert.deepEqual(ancestors(1, 4, 2), [1, 3]);
    assert.deepEqual(ancestors(3, 2, 4), [1]);
  });
});
