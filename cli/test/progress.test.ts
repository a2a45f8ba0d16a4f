// SPDX-License-Identifier: GPL-2.0-or-later

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatCount, formatSize } from '@vitastor/core';
import { VirtualClock } from '@vitastor/core/testing';
import { Pace, shortTime } from '../src/progress.js';
import { removalText } from '../src/removal.js';

test('rate and time left', async () => {
  const clock = new VirtualClock();
  const pace = new Pace(clock);
  assert.equal(pace.text(100n, formatCount, 1n, 10n), '', 'too early to say');
  await clock.advance(2000);
  assert.equal(pace.text(0n, formatSize, 0n, 10n), '', 'nothing done yet');
  assert.equal(pace.text(8388608n, formatSize, 1n, 4n), ', 4 M/s, 0:06 left');
  assert.equal(pace.text(5000n, formatCount, 5000n, 5000n), ', 2.5 k/s, 0:00 left');
});

test('times', () => {
  assert.deepEqual([0, 5, 75, 750, 3723].map(shortTime), ['0:00', '0:05', '1:15', '12:30', '1:02:03']);
});

test('how long a removal takes counts in the PGs that are not listed yet', async () => {
  const clock = new VirtualClock();
  const pace = new Pace(clock);
  const text = (removedObjects: bigint, totalObjects: bigint, unlistedPgs: bigint): string => removalText({ removedObjects, totalObjects, unlistedPgs }, 16n, pace);
  assert.equal(text(0n, 0n, 16n), 'Removed 0/0 objects, 16 PGs to list...');
  await clock.advance(2000);
  assert.equal(text(0n, 0n, 16n), 'Removed 0/0 objects, 16 PGs to list...');
  assert.equal(text(1000n, 1000n, 12n), 'Removed 1000/1000 objects, 500/s, 0:06 left, 12 PGs to list...');
  assert.equal(text(4000n, 5000n, 0n), 'Removed 4000/5000 objects, 2 k/s, 0:01 left, all PGs listed...');
});
