// SPDX-License-Identifier: GPL-2.0-or-later
// What the simulator may do to a cluster, and what no cluster promises to survive.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withTwoCopies } from './two-copies.js';

test('the lease of a living OSD is forgotten early only where the OSD hears of it', () =>
  withTwoCopies({}, async ({ cluster }) => {
    cluster.stallOsd(1, true);
    cluster.revokeLease(1);
    assert.equal(cluster.isGone(1), false);
    cluster.stallOsd(1, false);
    cluster.etcdOf(1, false);
    cluster.revokeLease(1);
    assert.equal(cluster.isGone(1), false);
    cluster.killOsd(1, false);
    cluster.revokeLease(1);
    assert.equal(cluster.isGone(1), true);
    cluster.revokeLease(2);
    assert.equal(cluster.isGone(2), true);
    await Promise.resolve();
  }));
