// SPDX-License-Identifier: GPL-2.0-or-later
// Tables: in files as wide as they are, on terminals so that they fit.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatTable } from '../src/table.js';

const COLUMNS = [{ title: 'NAME' }, { title: 'SIZE', align: 'right' as const }, { title: 'PARENT' }];
const LONG = `web/${'x'.repeat(40)}`;
const ROWS = [[LONG, '1 G', `${LONG}@monday`], ['b', '12.5 G', '']];

test('no limit: columns padded to the widest cell', () => {
  const lines = formatTable(COLUMNS, ROWS, { color: false }).split('\n');
  assert.deepEqual(lines.map((line) => line.length), [105, 105, 105]);
  assert.equal(lines[1], `${LONG}     1 G  ${LONG}@monday`);
});

test('a terminal: the widest columns are cut, evenly, and no more than needed', () => {
  const lines = formatTable(COLUMNS, ROWS, { color: false, columns: 60 }).split('\n');
  assert.deepEqual(lines, [
    `NAME                         SIZE  PARENT`,
    `web/${'x'.repeat(20)}…     1 G  web/${'x'.repeat(20)}…`,
    `b                          12.5 G`,
  ]);
  assert.ok(lines.every((line) => line.length <= 60));
  assert.equal(formatTable(COLUMNS, ROWS, { color: false, columns: 105 }).split('\n')[1], `${LONG}     1 G  ${LONG}@monday`);
});

test('a terminal that is too narrow for anything: 12 characters stay, numbers are never cut', () => {
  const [, first] = formatTable(COLUMNS, ROWS, { color: false, columns: 10 }).split('\n');
  assert.equal(first, 'web/xxxxxxx…     1 G  web/xxxxxxx…');
  assert.equal(formatTable(COLUMNS, [], { color: true, columns: 80 }), '\u001b[1mNAME  SIZE  PARENT\u001b[0m');
});

test('more rows than a call takes arguments', () => {
  const rows = Array.from({ length: 200_000 }, (_, i) => [`image${i}`, '1 G', '']);
  assert.equal(formatTable(COLUMNS, rows, { color: false }).split('\n').length, 200_001);
});
