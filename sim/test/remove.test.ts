// SPDX-License-Identifier: GPL-2.0-or-later
// Deletes where an OSD is away and those that are left have no room for another tombstone.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withTwoCopies } from './two-copies.js';

const BLOCK = 131072;

test('deletes of objects that are missing end well without room for tombstones', () => {
  const shape = { blockSize: BLOCK, imageBytes: 4 * BLOCK, osdOptions: { max_tombstones: '1' } };
  return withTwoCopies(shape, async ({ cluster, client, until }) => {
    const answerOf = async (start: (done: (result: number) => void) => void): Promise<number | undefined> => {
      const results: number[] = [];
      start((result) => results.push(result));
      assert.ok(await until(() => results.length > 0));
      return results[0];
    };
    assert.equal(await answerOf((done) => client.open(1, 'image1', done)), 0);
    cluster.killOsd(2, false);
    cluster.revokeLease(2);
    for (let object = 0; object < 4; object++) {
      assert.equal(await answerOf((done) => client.native?.remove(1, BigInt(object * BLOCK), done)), 0);
    }
  });
});
