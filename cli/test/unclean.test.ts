// SPDX-License-Identifier: GPL-2.0-or-later
// describe and fix. Source: tools 2.12.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { DescribeItem } from '@vitastor/core';
import { CliRig } from './harness.js';

const INODE = (1n << 48n) | 5n;
let rig: CliRig;

function item(osd: number, more: Partial<DescribeItem> = {}): DescribeItem {
  return { inode: INODE, stripe: 0x20000n, part: 0, osd, outdated: false, corrupted: false, inconsistent: false, ...more };
}

beforeEach(() => {
  rig = new CliRig();
  rig.put('config/pools', {
    1: { name: 'p', scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 2 },
    2: { name: 'e', scheme: 'ec', pg_size: 3, parity_chunks: 1, pg_minsize: 2, pg_count: 1 },
  });
  rig.put('pg/config', {
    hash: 'x', items: {
      1: { 1: { osd_set: [1, 2], primary: 1 }, 2: { osd_set: [2, 1], primary: 2 } },
      2: { 1: { osd_set: [1, 2, 3], primary: 3 } },
    },
  });
  rig.put('pg/state/1/1', { primary: 1, state: ['active'], peers: [1, 2] });
  rig.put('pg/state/1/2', { primary: 2, state: ['active', 'has_inconsistent'], peers: [1, 2] });
  rig.put('pg/state/2/1', { primary: 3, state: ['active'], peers: [1, 2, 3] });
  for (const osd of [1, 2, 3]) rig.osdAdmin.items.set(osd, []);
});
afterEach(() => rig.stop());

describe('describe', () => {
  test('one line a copy, ordered by object, all primaries', async () => {
    rig.osdAdmin.items.set(2, [item(1, { inconsistent: true }), item(2, { inconsistent: true, corrupted: true })]);
    rig.osdAdmin.items.set(3, [{ ...item(3, { outdated: true }), inode: (2n << 48n) | 1n, stripe: 0n, part: 2 }]);
    rig.osdAdmin.items.set(1, [{ ...item(1), stripe: 0n }]);
    assert.deepEqual(await rig.run(['describe']), {
      exit: 0, stderr: '',
      stdout: '0x1000000000005:0x0 part 0 on OSD 1\n' +
        '0x1000000000005:0x20000 part 0 on OSD 1 inconsistent\n' +
        '0x1000000000005:0x20000 part 0 on OSD 2 corrupted inconsistent\n' +
        '0x2000000000001:0x0 part 2 on OSD 3 outdated\n',
    });
    const { json } = await rig.json(['describe', '--osds', '2']);
    assert.deepEqual(json, [
      { inode: '0x1000000000005', stripe: '0x20000', part: 0, osd_num: 1, inconsistent: true },
      { inode: '0x1000000000005', stripe: '0x20000', part: 0, osd_num: 2, corrupted: true, inconsistent: true },
    ]);
  });

  test('nothing unclean: no line, an empty array', async () => {
    assert.deepEqual(await rig.run(['describe']), { exit: 0, stdout: '', stderr: '' });
    assert.deepEqual(await rig.json(['describe']), { exit: 0, json: [] });
  });

  test('what is asked of the OSDs', async () => {
    await rig.run(['describe', '--pool', 'p', '--pg', '2', '--object-state', 'corrupted,inconsistent', '--inode', '5', '--min-offset', '0x1000']);
    assert.deepEqual(rig.osdAdmin.described, [{
      stateMask: 0x30, pool: 1, pg: 2, minInode: INODE, minOffset: 0x1000n, maxInode: INODE, maxOffset: (1n << 64n) - 1n,
    }]);
    rig.osdAdmin.described.length = 0;
    await rig.run(['describe', '--osds', '1', '--max-inode', String(INODE), '--max-offset', '8192']);
    assert.deepEqual(rig.osdAdmin.described.map((r) => [r.minInode, r.minOffset, r.maxInode, r.maxOffset]), [[0n, 0n, INODE, 8192n]]);
  });

  test('wrong options; an OSD that does not answer', async () => {
    for (const [words, text] of [
      [['--pg', '1'], /--pool/], [['--object-state', 'sick'], /"sick" is no state/], [['--inode', '5'], /--pool/], [['--osds', 'x'], /OSD number/],
      [['--min-inode', '-1'], /not a number/],
    ] as const) {
      const result = await rig.run(['describe', ...words]);
      assert.equal(result.exit, 22, words.join(' '));
      assert.match(result.stderr, text);
    }
    rig.osdAdmin.items.set(2, [item(2)]);
    rig.osdAdmin.items.delete(1);
    const partial = await rig.run(['describe']);
    assert.equal(partial.exit, 5);
    assert.match(partial.stdout, /on OSD 2/);
    assert.match(partial.stderr, /OSD 1 is down/);
  });
});

describe('fix', () => {
  const both = [item(1, { inconsistent: true }), item(2, { inconsistent: true })];

  test('deletes the copy on the bad OSD and has the primary check; text and JSON', async () => {
    rig.osdAdmin.items.set(2, both);
    const result = await rig.run(['fix', '--objects', '0x1000000000005:0x20000', '--bad-osds', '1']);
    assert.deepEqual(result, { exit: 0, stdout: 'Deleted 0x1000000000005:0x20000 part 0 on OSD 1\n', stderr: '' });
    assert.deepEqual(rig.osdAdmin.requests, [`delete at 1: ${INODE}:131072 part 0`, `scrub at 2: ${INODE}:131072`]);
    rig.stdin = '[{"inode":"0x1000000000005","stripe":"0x20000","part":0,"osd_num":1},{"inode":"0x1000000000005","stripe":"0x20000","part":0,"osd_num":2}]';
    rig.osdAdmin.requests.length = 0;
    assert.deepEqual(await rig.json(['fix', '--bad-osds', '1,3']), {
      exit: 0, json: [{ inode: Number(INODE), stripe: 131072, part: 0, osd_num: 1 }],
    });
    assert.equal(rig.osdAdmin.requests.length, 2, 'each object once');
  });

  test('copies that are not inconsistent are left alone, unless --check no', async () => {
    rig.osdAdmin.items.set(2, [item(1, { corrupted: true }), item(2)]);
    assert.deepEqual(await rig.run(['fix', '--objects', '0x1000000000005:0x20000', '--bad-osds', '1']), { exit: 0, stdout: 'Nothing to delete\n', stderr: '' });
    assert.deepEqual(rig.osdAdmin.requests, []);
    assert.equal((await rig.run(['fix', '--objects', '0x1000000000005:0x20000', '--bad-osds', '1', '--check', 'no'])).exit, 0);
    assert.equal(rig.osdAdmin.requests.length, 2);
    // Clean, as far as the primary knows: by the configuration.
    rig.osdAdmin.items.set(2, []);
    rig.osdAdmin.items.set(3, []);
    rig.osdAdmin.requests.length = 0;
    await rig.run(['fix', '--objects', '0x2000000000001:0x0', '--bad-osds', '2', '--check', 'no']);
    assert.deepEqual(rig.osdAdmin.requests, [`delete at 2: ${(2n << 48n) | 1n}:0 part 1`, `scrub at 3: ${(2n << 48n) | 1n}:0`]);
  });

  test('never the last good copy; one chunk of two on the same OSD with --part', async () => {
    rig.osdAdmin.items.set(2, both);
    const all = await rig.run(['fix', '--objects', '0x1000000000005:0x20000', '--bad-osds', '1,2']);
    assert.equal(all.exit, 5);
    assert.match(all.stderr, /no good copy would be left/);
    assert.deepEqual(rig.osdAdmin.requests, []);
    const inode = (2n << 48n) | 1n;
    const chunk = (part: number, osd: number): DescribeItem => item(osd, { inode, stripe: 0n, part, inconsistent: true });
    rig.osdAdmin.items.set(3, [chunk(0, 1), chunk(1, 1), chunk(2, 3)]);
    const two = await rig.run(['fix', '--objects', `${inode}:0`, '--bad-osds', '1']);
    assert.match(two.stderr, /no good 2 chunks would be left/);
    assert.equal((await rig.run(['fix', '--objects', `${inode}:0`, '--bad-osds', '1', '--part', '1'])).exit, 0);
    assert.deepEqual(rig.osdAdmin.requests, [`delete at 1: ${inode}:0 part 1`, `scrub at 3: ${inode}:0`]);
  });

  test('wrong options, inactive PGs, refusals; ENOENT is fine', async () => {
    for (const [words, text] of [
      [['--objects', '0x1:0x0'], /--bad-osds/], [['--bad-osds', '1', '--objects', 'all'], /no object/],
      [['--bad-osds', '1', '--objects', '[{"inode":1}]'], /item 0 has no stripe/], [['--bad-osds', '1', '--check', 'perhaps'], /neither yes nor no/],
    ] as const) {
      const result = await rig.run(['fix', ...words]);
      assert.equal(result.exit, 22, words.join(' '));
      assert.match(result.stderr, text);
    }
    rig.osdAdmin.items.set(2, both);
    rig.osdAdmin.deleteResult = rig.osdAdmin.scrubResult = -2;
    assert.equal((await rig.run(['fix', '--objects', '0x1000000000005:0x20000', '--bad-osds', '1'])).exit, 0);
    rig.osdAdmin.scrubResult = -32;
    const late = await rig.run(['fix', '--objects', '0x1000000000005:0x20000', '--bad-osds', '1']);
    assert.equal(late.exit, 5);
    assert.match(late.stdout, /Deleted/);
    assert.match(late.stderr, /could not check/);
    rig.put('pg/state/1/2', { primary: 2, state: ['peering'], peers: [] });
    assert.match((await rig.run(['fix', '--objects', '0x1000000000005:0x20000', '--bad-osds', '1'])).stderr, /PG 1\/2 is not active/);
    assert.match((await rig.run(['fix', '--objects', '0x9000000000005:0x20000', '--bad-osds', '1'])).stderr, /pool 9 does not exist/);
  });
});
