// SPDX-License-Identifier: GPL-2.0-or-later

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXIT_CODES, VitastorError } from '../src/errors.js';
import { formatCount, formatFraction, formatLatency, formatSize, formatSizeCompact, requireSize } from '../src/units.js';

test('sizes as people read them', () => {
  assert.deepEqual([0n, 512n, 1024n, 1536n, 131072n, 33554432n, 1039368192n, 107374182400n, 5n * 1024n ** 4n].map(formatSize),
    ['0 B', '512 B', '1 K', '1.5 K', '128 K', '32 M', '991.2 M', '100 G', '5 T']);
  assert.deepEqual([0, 512, 4096, 131072, 1048576, 1039368192, 107374182400].map(formatSizeCompact), ['0', '512', '4k', '128k', '1M', '991.2M', '100G']);
});

test('exact halves go to the even digit, as in the tool that scripts know', () => {
  assert.deepEqual([1039400960, 1024 * 1.25, 1024 * 1.75, 1024 * 7.25].map(formatSize), ['991.2 M', '1.2 K', '1.8 K', '7.2 K']);
  assert.deepEqual([0.125, 0.375, 0.625, 0.875, 1.005].map(formatFraction), ['0.12', '0.38', '0.62', '0.88', '1']);
});

test('counts, fractions, latencies', () => {
  assert.deepEqual([0, 999, 1500, 2_000_000, 3_100_000_000].map(formatCount), ['0', '999', '1.5 k', '2 M', '3.1 G']);
  assert.deepEqual([100, 91.4285, 1.4499, 0.5, 10].map(formatFraction), ['100', '91.43', '1.45', '0.5', '10']);
  assert.deepEqual([0, 99, 100, 1234, 499999, 500000, 1500000].map(formatLatency), ['0 us', '99 us', '0.1 ms', '1.23 ms', '500 ms', '0.5 s', '1.5 s']);
});

test('errors carry their exit code', () => {
  assert.deepEqual([EXIT_CODES.ERR_NOT_FOUND, EXIT_CODES.ERR_EXISTS, EXIT_CODES.ERR_NOT_EMPTY, EXIT_CODES.ERR_PARENT_LOOP], [2, 17, 39, 9]);
  assert.throws(() => requireSize('--size', '1.5G'), (error) => error instanceof VitastorError && error.exitCode === 22 && error.message.includes('--size'));
});
