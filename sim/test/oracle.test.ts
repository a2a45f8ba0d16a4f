// SPDX-License-Identifier: GPL-2.0-or-later
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fillGranule, GRANULE, granuleValue, Oracle, VersionOracle } from '../src/oracle.js';
import { SeededRandom } from '../src/rng.js';

test('an acknowledged write hides what was before it', () => {
  const oracle = new Oracle();
  const a = oracle.beginWrite(1, [0]);
  oracle.endWrite(a);
  const began = oracle.now();
  assert.match(oracle.checkRead(1, 0, 0, began) ?? '', /had ended before write 1/);
  assert.equal(oracle.checkRead(1, 0, a.id, began), null);
});

test('a write without an answer may be seen or not, but once seen what was before it is gone', () => {
  const oracle = new Oracle();
  const a = oracle.beginWrite(1, [0]);
  assert.equal(oracle.checkRead(1, 0, 0, oracle.now()), null);
  assert.equal(oracle.checkRead(1, 0, a.id, oracle.now()), null);
  assert.match(oracle.checkRead(1, 0, 0, oracle.now()) ?? '', /read zeroes/);
});

test('a read that began before the acknowledgement may return the former value', () => {
  const oracle = new Oracle();
  const a = oracle.beginWrite(1, [0]);
  const began = oracle.now();
  oracle.endWrite(a);
  assert.equal(oracle.checkRead(1, 0, 0, began), null);
});

test('of two writes at once either may win, but once a read has told which, it stays', () => {
  const oracle = new Oracle();
  const a = oracle.beginWrite(1, [0]);
  const b = oracle.beginWrite(1, [0]);
  oracle.endWrite(b);
  oracle.endWrite(a);
  assert.equal(oracle.checkRead(1, 0, b.id, oracle.now()), null);
  assert.match(oracle.checkRead(1, 0, a.id, oracle.now()) ?? '', /read write 1/);
});

test('a write that was sent twice may take effect before and after another', () => {
  const oracle = new Oracle();
  const a = oracle.beginWrite(1, [0]);
  assert.equal(oracle.checkRead(1, 0, a.id, oracle.now()), null);
  const b = oracle.beginWrite(1, [0]);
  oracle.endWrite(b);
  assert.equal(oracle.checkRead(1, 0, b.id, oracle.now()), null);
  oracle.endWrite(a);
  assert.equal(oracle.checkRead(1, 0, a.id, oracle.now()), null);
  assert.notEqual(oracle.checkRead(1, 0, b.id, oracle.now()), null);
});

test('after a discard only zeroes are explained', () => {
  const oracle = new Oracle();
  const a = oracle.beginWrite(1, [0]);
  oracle.endWrite(a);
  assert.notEqual(oracle.checkRead(1, 0, 0, oracle.now()), null);
  oracle.endWrite(oracle.beginDiscard(1, [0]));
  assert.equal(oracle.checkRead(1, 0, 0, oracle.now()), null);
  assert.match(oracle.checkRead(1, 0, a.id, oracle.now()) ?? '', /zeroes was written or read/);
});

// Seed 300454: zeroes were read from a copy that had got the deletion, then the write from one that was cut off.
test('where copies are read, zeroes prove something when no discard is in progress', () => {
  const oracle = new Oracle();
  oracle.isRegular = true;
  const read = (value: number): string | null => oracle.checkRead(1, 0, value, oracle.now());
  const a = oracle.beginWrite(1, [0]);
  oracle.endWrite(a);
  const discard = oracle.beginDiscard(1, [0]);
  assert.equal(read(0), null);
  assert.equal(read(a.id), null);
  oracle.endWrite(discard);
  assert.match(read(a.id) ?? '', /zeroes was written or read/);
  const b = oracle.beginWrite(1, [0]);
  assert.equal(read(b.id), null);
  assert.equal(read(0), null);
  oracle.endWrite(b);
  assert.notEqual(read(0), null);
});

test('where copies are read, zeroes that no discard in progress explains are evidence', () => {
  const oracle = new Oracle();
  oracle.isRegular = true;
  const write = oracle.beginWrite(1, [0]);
  const discard = oracle.beginDiscard(1, [0]);
  oracle.endWrite(write);
  oracle.endWrite(discard);
  assert.equal(oracle.checkRead(1, 0, 0, oracle.now()), null);
  assert.match(oracle.checkRead(1, 0, write.id, oracle.now()) ?? '', /zeroes was written or read/);
});

test('what a dead client had not made durable may be gone', () => {
  const oracle = new Oracle();
  const a = oracle.beginWrite(1, [0]);
  oracle.endWrite(a);
  const b = oracle.beginWrite(1, [0]);
  oracle.endWrite(b);
  assert.equal(oracle.checkRead(1, 0, b.id, oracle.now()), null);
  oracle.forget(b);
  assert.equal(oracle.checkRead(1, 0, a.id, oracle.now()), null);
  assert.notEqual(oracle.checkRead(1, 0, 0, oracle.now()), null);
});

test('a value that was never written is refused, and a torn granule is noticed', () => {
  const oracle = new Oracle();
  assert.match(oracle.checkRead(1, 0, 77, oracle.now()) ?? '', /never written/);
  const data = Buffer.alloc(GRANULE);
  fillGranule(data, 0, 5);
  assert.equal(granuleValue(data, 0), 5);
  data[2048] = 9;
  assert.equal(granuleValue(data, 0), null);
});

test('versions grow, mean one content, and a compare-and-set leaves no gap', () => {
  const values = (value: number): Map<number, number> => new Map([[0, value]]);
  const oracle = new VersionOracle();
  assert.equal(oracle.write(1n, values(7), 1, 2), null);
  assert.equal(oracle.read(1n, values(7), 3, 4, 'whole'), null);
  assert.match(oracle.read(1n, values(8), 3, 4, 'part') ?? '', /holds 7 and 8/);
  assert.equal(oracle.write(3n, values(9), 5, 6), null);
  assert.match(oracle.read(1n, values(7), 7, 8, 'part') ?? '', /began after version 3/);
  assert.equal(oracle.read(1n, values(7), 5, 8, 'part'), null);
  assert.equal(oracle.read(4n, values(9), 7, 8, 'part'), null);
  assert.equal(oracle.read(3n, values(9), 9, 10, 'part'), null);
  assert.match(oracle.write(3n, values(7), 5, 8) ?? '', /two writes/);
  assert.equal(oracle.write(5n, values(10), 9, 10), null);
  assert.equal(oracle.compareWrite(3n, 5n), null);
  assert.match(oracle.compareWrite(1n, 5n) ?? '', /version 3 lies between/);
});

test('equal seeds draw alike, streams and seeds differ', () => {
  const draw = (seed: bigint, stream: string): bigint[] => {
    const random = new SeededRandom(seed, stream);
    return [random.u64(), random.u64()];
  };
  assert.deepEqual(draw(1n, 'a'), draw(1n, 'a'));
  assert.notDeepEqual(draw(1n, 'a'), draw(1n, 'b'));
  assert.notDeepEqual(draw(1n, 'a'), draw(2n, 'a'));
});
